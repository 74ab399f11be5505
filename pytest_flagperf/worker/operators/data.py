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
    places = np.empty(0, np.int64)
    while places.size < nonzeros:
        more = random.integers(0, m * k, int((nonzeros - places.size) * 1.1) + 16)
        places = np.unique(np.concatenate([places, more]))
    if places.size > nonzeros:
        places = np.delete(places, random.choice(places.size, places.size - nonzeros, replace=False))
    rows, columns = places // k, places % k
    offsets = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=m))])
    return SparsePattern(offsets.astype(np.int32), columns.astype(np.int32))


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
