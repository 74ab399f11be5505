"""The bands that cases were to stay in while they converged: those of the baselines that their sessions keep."""

from __future__ import annotations

from pathlib import Path

from pytest_flagperf.evidence.findings import UNREADABLE
from pytest_flagperf.judging import baselines
from pytest_flagperf.judging import curves
from pytest_flagperf.judging import kept
from pytest_flagperf.judging.baselines import Baseline
from pytest_flagperf.judging.curves import Band
from pytest_flagperf.result import Result
from pytest_flagperf.sessions import SessionFiles


# More than anybody runs: what is told beyond is no number of rounds.
MOST_ROUNDS = 100_000


class Bands:
    """Finds them; a baseline is read once, however many cases it judged."""

    def __init__(self) -> None:
        self._kept: dict[tuple[Path, str, str | None], Baseline | None] = {}

    def of(self, session: SessionFiles, result: Result) -> Band | None:
        """The band of a case; ``None`` where nothing was to be stopped that left it."""
        if result.case.role != "convergence":
            return None
        told = session.description.get("rounds")
        rounds = told if isinstance(told, int) and 0 < told < MOST_ROUNDS else max(1, len(result.rounds))
        hardware = baselines.hardware(session.description)
        try:
            return curves.band(result, self._baseline(session, result), hardware, rounds)
        except UNREADABLE:
            return None

    def _baseline(self, session: SessionFiles, result: Result) -> Baseline | None:
        key = session.directory, result.case.vendor, result.case.chip
        if key not in self._kept:
            found = kept.read(*key)
            # Of several nobody knows which one judged: the file was changed while the session ran.
            self._kept[key] = found[0].baseline if len(found) == 1 else None
        return self._kept[key]
