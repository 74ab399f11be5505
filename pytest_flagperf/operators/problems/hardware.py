"""FlagPerf's base list: what the hardware does at best, in arithmetic, memory and links."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar
from typing import Literal

from pytest_flagperf.operators.problems.base import ELEMENT_BYTES
from pytest_flagperf.operators.problems.base import DenseProduct
from pytest_flagperf.operators.problems.base import Problem


# What a capacity is found out to.
SMALLEST_BLOCK = 1 << 20


@dataclass(frozen=True)
class Computation(DenseProduct):
    """FlagPerf's arithmetic peak: ``C = A · B``, A m x k and B k x n, the same size for every vendor."""

    family: ClassVar[str] = "computation"

    m: int
    n: int
    k: int

    @property
    def id(self) -> str:
        return f"m{self.m}-n{self.n}-k{self.k}"


@dataclass(frozen=True)
class Memory(Problem):
    """The device's own memory; ``size`` in bytes.

    bandwidth: an array of ``size`` bytes is copied on the device: ``size`` read and ``size`` written.
    capacity: blocks are taken until none is given, the first of ``size`` bytes, halved at each refusal down to 1 MiB.
    """

    family: ClassVar[str] = "memory"

    kind: Literal["bandwidth", "capacity"]
    size: int

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_parts("memory", self.size)
        if self.kind == "capacity" and self.size < SMALLEST_BLOCK:
            raise ValueError(f"memory: a capacity is found by blocks of at least {SMALLEST_BLOCK} bytes")

    @property
    def id(self) -> str:
        return f"{self.kind}-{bytes_in_words(self.size)}"

    def flops(self, direction: str) -> None:
        self._check(direction)

    def bytes(self, precision: str, direction: str) -> int | None:
        self._check(direction)
        return 2 * self.size if self.kind == "bandwidth" else None


@dataclass(frozen=True)
class Interconnect(Problem):
    """A link; ``size`` is the bytes of one message.

    host_to_device: pinned host memory to the device. device_to_device: one device to another, one way.
    all_reduce: over all devices of the scope. Bandwidths are of one direction; busbw counts 2 (P - 1) / P once.
    """

    family: ClassVar[str] = "interconnect"

    kind: Literal["host_to_device", "device_to_device", "all_reduce"]
    scope: Literal["host", "server", "cluster"]
    size: int

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_parts("interconnect", self.size)

    @property
    def id(self) -> str:
        return f"{self.kind}-{self.scope}-{bytes_in_words(self.size)}"

    def flops(self, direction: str) -> None:
        self._check(direction)

    def bytes(self, precision: str, direction: str) -> int | None:
        self._check(direction)
        return self.size


def refuse_parts(family: str, size: int) -> None:
    """ValueError for bytes that some precision's elements do not fill: less would be moved than is counted."""
    widest = max(ELEMENT_BYTES.values())
    if size % widest:
        raise ValueError(f"{family}: size is {size} bytes, which is no multiple of {widest}, the widest element")


def bytes_in_words(size: int) -> str:
    for unit, factor in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if size % factor == 0:
            return f"{size // factor}{unit}"
    return f"{size}B"
