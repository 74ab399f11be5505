"""When a bound holds: one rule, for the worker that stops at a target and for the judge. Standard library only."""

from __future__ import annotations


DIRECTIONS = ("at least", "at most")


def holds(value: float | None, bound: float, direction: str) -> bool:
    """Whether ``value`` meets ``bound``. A value that was not measured, or is NaN, does not."""
    if value is None:
        return False
    return value >= bound if direction == "at least" else value <= bound
