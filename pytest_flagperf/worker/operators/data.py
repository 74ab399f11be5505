"""What operands are filled with: never zeros, seeded, and written down. NumPy only.

Zeros and constants draw less power and multiply faster than data does, so a kernel fed with them is not measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pytest_flagperf.worker.operators.kernel import WrongAnswer


# Of a drawn operand at least this share must not be zero: of 255 int8 values one is.
LEAST_NONZERO = 0.99
# Elements of an operand that are looked at.
LOOKED_AT = 1 << 18

# Functions whose shape does not show within [-1, 1): there a short series, or tanh for erf, is nearly as good as the
# function. They are drawn from [-range, range).
RANGES = {"cos": 8.0, "sin": 8.0, "exp": 8.0, "gelu": 4.0, "sigmoid": 8.0, "silu": 8.0, "tanh": 4.0}


def proof(drawn: Mapping[str, Any]) -> float:
    """The smallest share of non-zero elements of the operands. Raises :class:`WrongAnswer` for data that is none."""
    shares = [1.0]
    for name, array in drawn.items():
        flat = np.asarray(array).ravel()
        flat = flat[:: max(1, flat.size // LOOKED_AT)]
        share = float(np.count_nonzero(flat)) / max(flat.size, 1)
        # An operand of a dozen elements may hold an honest zero.
        if share < LEAST_NONZERO and (flat.size > 1000 or share == 0.0):
            raise WrongAnswer(f"operand {name} is {share:.1%} non-zero: what runs on zeros is not measured")
        if flat.size > 1 and (flat == flat[0]).all():
            raise WrongAnswer(f"operand {name} is constant ({flat[0]}): what runs on a constant is not measured")
        shares.append(share)
    return min(shares)


@dataclass(frozen=True)
class SparsePattern:
    """Where the stored entries of an m x k matrix are: CSR row offsets and column indices, both int32."""

    offsets: Any
    columns: Any

    @property
    def nonzeros(self) -> int:
        """How many entries are stored."""
        return int(self.columns.size)

    def rows(self) -> Any:
        """The row of each stored entry."""
        return np.repeat(np.arange(self.offsets.size - 1), np.diff(self.offsets))


def sparse_pattern(m: int, k: int, nonzeros: int, seed: int) -> SparsePattern:
    """``nonzeros`` places of an m x k matrix, each as likely as any other."""
    random = np.random.default_rng([seed, 1])
    if 2 * nonzeros > m * k:
        # The fewer are drawn: the last of many places would be found after as many draws as there are places.
        stored = np.ones(m * k, bool)
        stored[_places(random, m * k, m * k - nonzeros)] = False
        places = np.flatnonzero(stored)
    else:
        places = _places(random, m * k, nonzeros)
    rows, columns = places // k, places % k
    offsets = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=m))])
    return SparsePattern(offsets.astype(np.int32), columns.astype(np.int32))


def _places(random: np.random.Generator, size: int, count: int) -> Any:
    """``count`` different places below ``size``, sorted; at most half of them all."""
    places = np.empty(0, np.int64)
    while places.size < count:
        more = random.integers(0, size, int((count - places.size) * 1.1) + 16)
        places = np.unique(np.concatenate([places, more]))
    if places.size > count:
        places = np.delete(places, random.choice(places.size, places.size - count, replace=False))
    return places


def validate(pattern: SparsePattern, m: int, k: int, nonzeros: int) -> None:
    """Raises :class:`WrongAnswer` unless the indices are sorted, unique and in [0, k) in every row, and all there."""
    offsets, columns = pattern.offsets.astype(np.int64), pattern.columns.astype(np.int64)
    if offsets.size != m + 1 or offsets[0] != 0 or offsets[-1] != columns.size or (np.diff(offsets) < 0).any():
        raise WrongAnswer(f"the row offsets do not describe {m} rows of {columns.size} entries")
    if columns.size != nonzeros:
        raise WrongAnswer(f"{columns.size} entries are stored, not {nonzeros}")
    if columns.size and (columns.min() < 0 or columns.max() >= k):
        raise WrongAnswer(f"column indices reach from {columns.min()} to {columns.max()}, not within [0, {k})")
    same_row = np.diff(pattern.rows()) == 0
    if (np.diff(columns)[same_row] <= 0).any():
        raise WrongAnswer("the column indices of a row are not sorted, or not unique")


# --- data of reductions, of which a part that is left out has to show


def quarters(size: int, seed: int) -> Any:
    """Places below ``size``: the first, the last, and one drawn in each quarter."""
    drawn = (np.random.default_rng([seed, 2]).random(4) + np.arange(4)) * size / 4
    return np.unique(np.concatenate([[0, size - 1], drawn.astype(np.int64)]))


def extrema(shape: tuple[int, ...], dim: int, seed: int) -> tuple[Any, Any]:
    """Where each maximum along ``dim`` is planted, in row-major order, and which: in [2, 4), exact in every type.

    The quarters of the dimension take turns, so that of any two neighbouring rows one is wrong if half is left out.
    """
    random = np.random.default_rng([seed, 3])
    size, inner = shape[dim], int(np.prod(shape[dim + 1 :], dtype=np.int64))
    count = int(np.prod(shape, dtype=np.int64)) // size
    row = np.arange(count, dtype=np.int64)
    # The first quarter and the third come after each other.
    quarter = np.array([0, 2, 1, 3])[row % 4]
    place = np.minimum(((random.random(count) + quarter) * size / 4).astype(np.int64), size - 1)
    return (row // inner * size + place) * inner + row % inner, _planted(random, count)


def planted(seed: int, count: int) -> Any:
    """Numbers in [2, 4), exact in every type."""
    return _planted(np.random.default_rng([seed, 4]), count)


def _planted(random: np.random.Generator, count: int) -> Any:
    return 2.0 + random.integers(1, 64, count) / 32


@dataclass(frozen=True)
class Cancelling:
    """Makes of uniform data in [-1, 1) a sum that is small, of elements that are not.

    Each element is moved to at least 0.5 away from zero; the second half is the negated first one, moved along by
    ``shift``; a one is put at ``ones`` places. The sum is then about their number, and whatever of the other elements
    is left out shows in it, in a type of three digits, too.
    """

    half: int
    shift: int
    ones: Any

    DISTRIBUTION = "uniform in +-[0.5, 1); the second half is the negated first one, shifted, but for a few ones"


def cancelling(size: int, smallest_normal: float, seed: int) -> Cancelling:
    """How a sum of ``size`` elements is made small, and a mean not smaller than ``smallest_normal``."""
    random = np.random.default_rng([seed, 5])
    half = size // 2
    count = min(max(4, int(np.ceil(2 * smallest_normal * size))), max(half, 1))
    # Odd, so that what is left out periodically is not left out with its counterpart.
    shift = int(random.integers(0, max(half // 2, 1))) * 2 + 1
    return Cancelling(half, shift, np.unique(random.integers(0, size, count)))
