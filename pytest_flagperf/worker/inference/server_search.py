"""The highest rate at which a server holds its bound: found, then shown once more.

Nothing here knows LoadGen. A run at a rate is expensive and noisy: its answer is yes or no, and a yes may be luck.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pytest_flagperf.errors import InvalidMeasurement


Passes = Callable[[float], bool]

WIDEN = 1.5
MOST_BRACKETS = 24
MOST_STEPS = 10


@dataclass(frozen=True)
class Found:
    """``rate`` is the highest that passed, ``fails`` the lowest above it that did not; in queries a second."""

    rate: float
    fails: float


@dataclass(frozen=True)
class Verified:
    """``rate`` passed in a run of its own, ``steps`` below the one that was found."""

    rate: float
    steps: int


def search(passes: Passes, start: float, *, precision: float) -> Found:
    """Bracket the highest passing rate from ``start`` on, then bisect until the ends are within ``precision``.

    Raises ``InvalidMeasurement`` where no rate passes, or every one does.
    """
    low, high = _bracket(passes, start)
    while high / low > 1 + precision:
        middle = (low * high) ** 0.5
        if passes(middle):
            low = middle
        else:
            high = middle
    return Found(low, high)


def _bracket(passes: Passes, start: float) -> tuple[float, float]:
    rate = start
    if passes(rate):
        for _ in range(MOST_BRACKETS):
            if not passes(rate * WIDEN):
                return rate, rate * WIDEN
            rate *= WIDEN
        raise InvalidMeasurement(f"every rate up to {rate:.5g} queries/s holds the bound of latency: is it too wide?")
    for _ in range(MOST_BRACKETS):
        # Downwards in greater steps: queues make a failing run say little of how far off it was.
        if passes(rate / 2):
            return rate / 2, rate
        rate /= 2
    raise InvalidMeasurement(f"no rate from {start:.5g} down to {rate:.5g} queries/s holds the bound of latency")


def verify(passes: Passes, found: Found, *, precision: float) -> Verified:
    """A run at the rate that was found; one that fails is stepped down by ``precision``, and shown again.

    Raises ``InvalidMeasurement`` where none of ``MOST_STEPS`` steps passes.
    """
    rate = found.rate
    for step in range(MOST_STEPS + 1):
        if passes(rate):
            return Verified(rate, step)
        rate /= 1 + precision
    raise InvalidMeasurement(
        f"{found.rate:.5g} queries/s held the bound of latency while it was searched for, and neither it nor "
        f"{MOST_STEPS} rates below it held it again: the machine is not steady, or search_duration is too short"
    )
