"""What an operator brings to be measured, whatever the framework; and what it may refuse with."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from typing import Protocol

from pytest_flagperf.worker.operators.host import available_memory
from pytest_flagperf.worker.operators.measure import Clock
from pytest_flagperf.worker.operators.request import Request


class Unsupported(Exception):
    """This framework, on this device, has no such kernel. The message is its own reason."""


class WrongAnswer(Exception):
    """A kernel's answer, or the data it was to be given, does not hold."""


@dataclass(frozen=True)
class Check:
    """The largest relative error found, and the bound it has to keep. A NaN keeps none."""

    error: float
    bound: float

    @property
    def correct(self) -> bool:
        """Whether the error keeps the bound; false for NaN."""
        return self.error <= self.bound


class Kernel:
    """One call, ready to run: operands drawn, outputs allocated.

    :meth:`run` is what is timed, and nothing else. :meth:`check` judges what the last :meth:`run` left behind.
    """

    #: Sizes after padding, where the device's rule asked for it; the rate is that of the unpadded problem.
    padded: dict[str, int] | None = None
    #: How the operands were drawn.
    distribution = "uniform [-1, 1)"
    #: Run before every sample, outside the clock: for calls that destroy their operands. Such calls are not batched.
    restore: Callable[[], None] | None = None
    #: Whether all ranks take part: samples are then the slowest rank's, behind a barrier.
    collective = False
    #: Measured by being done once (a capacity): there are no samples.
    once = False

    def __init__(self) -> None:
        self.notes: list[str] = []

    def run(self) -> None:
        """The timed call."""
        raise NotImplementedError

    def poison(self) -> None:
        """Spoil the outputs, so that a call which writes nothing is found."""
        raise NotImplementedError

    def check(self) -> Check:
        """Judge the outputs of the last :meth:`run` against a reference of higher precision."""
        raise NotImplementedError

    def drawn(self) -> Mapping[str, Any]:
        """A sample of each operand that was drawn, as NumPy arrays, for the proof that there is data in it."""
        return {}

    def precision(self) -> dict[str, Any]:
        """What is in force, read back."""
        raise NotImplementedError

    def companions(self) -> Mapping[str, Callable[[], None]]:
        """Figures of other calls to be timed beside this one: ``{"dense_time": ...}``."""
        return {}

    def figures(self, seconds: float) -> dict[str, float]:
        """The family's own figures for a call of ``seconds``."""
        return {}

    def close(self) -> None:
        """Let go of the operands; the default drops every attribute."""
        self.__dict__.clear()


class OneRank:
    """What frameworks have in common whose worker is a single rank, and which tell what went wrong by words alone."""

    rank, world_size = 0, 1
    #: NumPy's, and the framework's.
    copies = 2
    on_host = True
    #: Words, in lower case, of errors that mean one or the other.
    out_of_memory_words: tuple[str, ...] = ()
    unsupported_words: tuple[str, ...] = ()

    def memory(self) -> int | None:
        """See :class:`Framework`."""
        return available_memory() if self.on_host else None

    def classify(self, error: BaseException) -> str:
        """See :class:`Framework`."""
        text = str(error).lower()
        if isinstance(error, MemoryError) or any(words in text for words in self.out_of_memory_words):
            return "out_of_memory"
        if isinstance(error, NotImplementedError) or any(words in text for words in self.unsupported_words):
            return "unsupported"
        return "failed"

    def share(self, value: Any) -> Any:
        """See :class:`Framework`."""
        return value

    def agree(self, values: list[float]) -> list[float]:
        """See :class:`Framework`."""
        return values

    def barrier(self) -> None:
        """See :class:`Framework`."""


class Framework(Protocol):
    """A framework on a device, as :mod:`serve` and :mod:`engine` need it."""

    rank: int
    world_size: int
    device_name: str
    threads: int
    #: How many copies of the operands a kernel holds: those that are multiplied, and those that it compares with.
    copies: int

    def prepare(self, request: Request) -> Kernel:
        """The kernel of the request's family. Raises :class:`Unsupported`."""

    def clock(self) -> Clock:
        """How calls are timed on this device."""

    def flusher(self) -> Callable[[], None]:
        """A call that writes more than the last-level cache holds."""

    def memory(self) -> int | None:
        """Bytes that can be allocated now; ``None`` where nobody knows."""

    def classify(self, error: BaseException) -> str:
        """``unsupported``, ``out_of_memory``, ``failed``, or ``lost`` where the device is no longer usable."""

    def explain(self, error: BaseException) -> str:
        """What of the error is worth telling."""

    def share(self, value: Any) -> Any:
        """Rank 0's value, on every rank."""

    def agree(self, values: list[float]) -> list[float]:
        """Element by element the largest of all ranks."""

    def barrier(self) -> None:
        """Wait for all ranks."""

    def release(self) -> None:
        """Give freed memory back to the device."""

    def close(self) -> None:
        """Leave the process group."""
