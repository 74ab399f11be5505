"""What a problem is, and the sizes of elements.

The standard library only, as everything in this package: the worker imports it, maybe under another interpreter.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar


# Bytes of one element. amp is a mixture and has none.
ELEMENT_BYTES = {
    "fp64": 8,
    "fp32": 4,
    "tf32": 4,
    "bf16": 2,
    "fp16": 2,
    "fp8": 1,
    "int8": 1,
    "int16": 2,
    "int32": 4,
    "int64": 8,
    "bool": 1,
}
# Bytes of one element of a product, where it is wider than the operands.
PRODUCT_BYTES = {**ELEMENT_BYTES, "fp8": 2, "int8": 4}


@dataclass(frozen=True, kw_only=True)
class Problem:
    """What all families share.

    ``sets`` are the lists a problem belongs to (train, inference_server, inference_device, smoke, flagperf).
    ``occurrences`` says how often a source's list has it where that is not once; ``note`` what was corrected, and why.
    """

    family: ClassVar[str]
    # Sizes that may be zero; all other integers are at least 1.
    may_be_zero: ClassVar[tuple[str, ...]] = ()

    sets: tuple[str, ...] = ()
    application: str = ""
    source: str = ""
    note: str = ""
    occurrences: tuple[tuple[str, int], ...] = ()

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            least = 0 if field.name in self.may_be_zero else 1
            if isinstance(value, int) and not isinstance(value, bool) and value < least:
                raise ValueError(f"{self.family}: {field.name} is {value}, which is less than {least}")

    @property
    def id(self) -> str:
        """Every size of the problem, as it stands in test ids."""
        raise NotImplementedError

    @property
    def directions(self) -> tuple[str, ...]:
        """The directions there are; each is a measurement of its own."""
        return ("fwd",)

    def directions_in(self, name: str) -> tuple[str, ...]:
        """The directions measured as a member of set ``name``: inference has no backward pass."""
        return ("fwd",) if name.startswith("inference") else self.directions

    def occurrences_in(self, name: str) -> int:
        """How often the source's list ``name`` has this problem."""
        return dict(self.occurrences).get(name, 1) if name in self.sets else 0

    def flops(self, direction: str) -> int | None:
        """Operations of one call, multiplications and additions counted apart; None where none are defined."""
        raise NotImplementedError

    def longest_flops(self, direction: str) -> int | None:
        """Operations of the longest call that is made for this problem, those timed beside it included."""
        return self.flops(direction)

    def bytes(self, precision: str, direction: str) -> int | None:
        """Compulsory traffic of one call in bytes; None where the precision has no one element size."""
        raise NotImplementedError

    def _check(self, direction: str) -> None:
        if direction not in self.directions:
            raise ValueError(f"{self.family} {self.id} has no direction {direction!r}; it has {list(self.directions)}")


def has_backward(problem: Problem) -> bool:
    """Whether training runs it: not what only inference lists use, but what no list has (made by hand) may be."""
    lists = [name for name in problem.sets if name != "smoke"]
    return not lists or any(not name.startswith("inference") for name in lists)


def traffic(precision: str, elements: int) -> int | None:
    """Bytes of so many elements; None where the precision has no one size."""
    return elements * ELEMENT_BYTES[precision] if precision in ELEMENT_BYTES else None


def product_traffic(precision: str, read: int, written: int) -> int | None:
    """Bytes of a product's operands and of its result, which may be of a wider type."""
    if precision not in ELEMENT_BYTES:
        return None
    return read * ELEMENT_BYTES[precision] + written * PRODUCT_BYTES[precision]


class DenseProduct(Problem):
    """Work and traffic of ``C = A · B`` of m x n, m x k and k x n numbers, however they are stored."""

    m: int
    n: int
    k: int

    def flops(self, direction: str) -> int:
        """A multiplication and an addition for each of the m n k terms."""
        self._check(direction)
        return 2 * self.m * self.n * self.k

    def bytes(self, precision: str, direction: str) -> int | None:
        """Both operands read once, the result written once."""
        self._check(direction)
        return product_traffic(precision, self.m * self.k + self.k * self.n, self.m * self.n)
