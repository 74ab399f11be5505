"""What ``--on-inconclusive=rerun`` granted a case in vain: how its result says so, and how a later session reads it."""

from __future__ import annotations

import re

from pytest_flagperf.result import Result


# The note that a resuming session looks for.
_NOTE = "not decided after {rounds} rounds, which is all that {grant} grants"
_SPENT = re.compile(_NOTE.format(rounds=r"\d+", grant=r"--rerun-budget=(\d+(?:\.\d+)?(?:e[+-]?\d+)?)"))


def budget(seconds: float) -> str:
    """The grant of ``--rerun-budget``, as typed."""
    return f"--rerun-budget={seconds:.12g}"


def undecided(rounds: int, grant: str) -> str:
    """The note of a result that had all the rounds it was granted; ``grant`` is the option with its value."""
    return _NOTE.format(rounds=rounds, grant=grant)


def spent(recorded: Result) -> float | None:
    """The largest ``--rerun-budget``, in seconds, that was not enough to decide a result; ``None`` of none."""
    return max((float(found[1]) for note in recorded.notes if (found := _SPENT.fullmatch(note))), default=None)
