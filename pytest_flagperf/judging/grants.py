"""What ``--on-inconclusive=rerun`` granted a case in vain: how its result says so, and how a later session reads it."""

from __future__ import annotations

import re

from pytest_flagperf.result import Result


def budget(seconds: float) -> str:
    """The grant of ``--rerun-budget``, as typed."""
    return f"--rerun-budget={seconds:.12g}"


def undecided(rounds: int, grant: str) -> str:
    """The note of a result that had all the rounds it was granted; a session that resumes it looks for it."""
    return f"not decided after {rounds} rounds, which is all that {grant} grants"


_SPENT = re.compile(undecided(0, r"--rerun-budget=(\d+(?:\.\d+)?(?:e[+-]?\d+)?)").replace(" 0 ", r" \d+ "))


def spent(recorded: Result) -> float | None:
    """The largest ``--rerun-budget``, in seconds, not enough to decide a result; ``None`` of none."""
    return max((float(found[1]) for note in recorded.notes if (found := _SPENT.fullmatch(note))), default=None)
