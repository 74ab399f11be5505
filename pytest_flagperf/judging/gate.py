"""The comparison with the baseline inside each test: a Result is judged before any report sees it.

So exit code, JUnit, Allure, HTML and ``result.json`` cannot disagree. How two sets of samples are compared is in
``compare``; what a baseline is, in ``baselines``.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from pytest_flagperf import bounds
from pytest_flagperf import perflog
from pytest_flagperf import result as results
from pytest_flagperf import verdict
from pytest_flagperf.errors import InvalidMeasurement
from pytest_flagperf.errors import LaunchFailed
from pytest_flagperf.errors import Regressed
from pytest_flagperf.errors import Undecided
from pytest_flagperf.errors import WrongResult
from pytest_flagperf.judging import baselines
from pytest_flagperf.judging import compare
from pytest_flagperf.judging import curves
from pytest_flagperf.judging import gathering
from pytest_flagperf.judging import kept
from pytest_flagperf.judging import statistics
from pytest_flagperf.judging.baselines import Baseline
from pytest_flagperf.perflog import Event
from pytest_flagperf.result import ComparisonResult
from pytest_flagperf.result import Result


if TYPE_CHECKING:
    from pytest_flagperf.session import Session


_UNJUDGED = (verdict.NO_BASELINE, verdict.NOT_COMPARABLE)
STOPPED = "stopped early, convergence left the band of its baseline"
# What a person reads first.
_ORDER = (
    verdict.REGRESSED,
    verdict.INCONCLUSIVE,
    verdict.IMPROVED,
    verdict.PASSED,
    verdict.NOT_COMPARABLE,
    verdict.NO_BASELINE,
)


class Gate:
    """What the results of a session are compared with; read when the first is."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self._found: dict[tuple[str, str | None], Baseline | None] = {}

    @property
    def asked(self) -> bool:
        """Whether somebody asked for a comparison, so that its absence is to be told."""
        return self.session.options.baseline is not None

    def check(self) -> None:
        """Read what ``--baseline`` names, if it does. Raises ``ConfigurationError`` or ``ReplayError``."""
        if self.asked:
            # Nobody waits for a driver to see which tests there are: which chip is here is asked when one has run.
            baselines.find(self.session.options.baseline, vendor=self.session.vendor.name, chip=None)

    def baseline(self, result: Result) -> Baseline | None:
        """The baseline of the chip that a result is of; ``None`` where there is none, or none is wanted."""
        return self._baseline(result.case.vendor, result.case.chip)

    def _baseline(self, vendor: str, chip: str | None) -> Baseline | None:
        options, key = self.session.options, (vendor, chip)
        if options.without_baseline:
            return None
        if key not in self._found:
            directories = [] if self.asked else self.session.vendor_directories
            resumed = self.session.resume
            self._found[key] = baselines.find(
                options.baseline,
                vendor=vendor,
                chip=chip,
                hardware=self.hardware,
                directories=directories,
                without={self.session.name, *([resumed.name] if resumed else [])},
                apart=frozenset(map(gathering.measurement, resumed.measured)) if resumed else frozenset(),
            )
            self._keep(vendor, chip, self._found[key])
        return self._found[key]

    def _keep(self, vendor: str, chip: str | None, baseline: Baseline | None) -> None:
        """The baseline into the session, with a line in its ledger: who verifies it judges by the same."""
        if baseline is None:
            return
        try:
            path = kept.write(self.session.open(), vendor, chip, baseline)
        except OSError as error:
            raise LaunchFailed(f"the baseline cannot be kept in {self.session.directory}: {error}") from error
        self.session.ledger(kept.EVENT, vendor=vendor, chip=chip, origin=baseline.origin, file=path.name)

    @cached_property
    def hardware(self) -> str:
        """The devices by their own name, for chips that have no other; those of a replayed run are not known."""
        return "" if self.session.options.replay is not None else baselines.hardware(self.session.devices_and_host)

    def judged(self, result: Result) -> Result:
        """The result with its comparisons, and the verdict that follows from all of it.

        A vendor's own file that does not have the case is as good as none: nobody asked for it.
        """
        if result.error is not None:
            # Stopped by its guard, in an earlier session: there are no figures that could be compared anew.
            return result
        before = verdict.PASSED if result.verdict in _ORDER else result.verdict
        result = msgspec.structs.replace(result, comparisons=[], verdict=before)
        comparisons = compare.judge(result, self.baseline(result), self.hardware)
        overall = compare.overall(result.verdict, comparisons)
        if overall in _UNJUDGED and not self.asked:
            return result
        return msgspec.structs.replace(result, comparisons=comparisons, verdict=overall)

    def guard(self, result: Result, rounds: int) -> Callable[[Event], None] | None:
        """What is to see the events of the case's rounds: it raises ``Regressed`` once one leaves the baseline's band.

        ``result`` says what is to run, in so many ``rounds``. An evaluation that holds every target ends the run
        anyway, and stops none. ``None`` where there is no band.
        """
        band = None if result.case.role != "convergence" else self._band(result, rounds)
        if band is None:
            return None

        looks = 0

        def look(event: Event) -> None:
            nonlocal looks
            if event.name != perflog.EVALUATE:
                return
            quality = {name: value for name, value in event.value.items() if isinstance(value, float)}
            if all(bounds.holds(quality.get(one.metric), one.bound, one.direction) for one in result.targets):
                return
            looks += 1
            reason = band.outside(float(event.value.get("epoch", 0.0)), quality, looks)
            if reason is not None:
                raise Regressed(f"{STOPPED}: {reason}")

        return look

    def _band(self, result: Result, rounds: int) -> curves.Band | None:
        return curves.band(result, self.baseline(result), self.hardware, rounds)

    def refuse_too_fast(self, result: Result) -> None:
        """Raise ``InvalidMeasurement`` where the rounds converged impossibly fast."""
        reason = curves.too_fast(result, self.baseline(result), self.hardware)
        if reason is not None:
            raise InvalidMeasurement(f"converged too fast to be believed: {reason}")

    def stopped(self, result: Result) -> Result:
        """A result without figures: one that was stopped by its :meth:`guard` has that as its comparison."""
        if result.verdict != verdict.REGRESSED or result.error is None or not result.targets:
            return result
        last = [one.quality for round_ in result.rounds for one in round_.evaluations][-1:]
        baseline = self.baseline(result)
        comparison = ComparisonResult(
            metric=result.targets[0].metric,
            verdict=verdict.REGRESSED,
            value=last[0].get(result.targets[0].metric) if last else None,
            method="band of the baseline's curves",
            source=baseline.origin if baseline is not None else "",
            reasons=[result.error.message],
        )
        return msgspec.structs.replace(result, comparisons=[comparison])


def next_rounds(done: int, most: int) -> int:
    """How many rounds a case is to have that could not be decided with ``done``; ``done`` itself where that is all.

    First as many as the olympic mean needs, then twice as many: a verdict that is looked for after every round is found
    by chance sooner or later, so it is looked for two or three times. (Five rounds and more up to ten beside 20 stored
    samples, CV 4 %, no change: 0.9 % false alarms in a simulation, and 1.3 % with a look after every round.)
    """
    return max(done, min(most, max(statistics.OLYMPIC, 2 * done)))


def complaint(
    result: Result, label: str, session: Path, on_inconclusive: str
) -> Regressed | Undecided | WrongResult | None:
    """The error of a test whose result is worse than its baseline, or that is to be decided and is not.

    An operator's wrong answer, which an earlier session found, is one too.
    """
    if result.verdict == verdict.WRONG:
        return WrongResult("\n".join([f"{label}: the kernel's answer is wrong", *result.notes]))
    if result.verdict == verdict.REGRESSED:
        return Regressed(_text(result, verdict.REGRESSED, f"{label} is worse than its baseline", session))
    if result.verdict == verdict.INCONCLUSIVE and on_inconclusive == "fail":
        lines = _text(result, verdict.INCONCLUSIVE, f"{label} cannot be told from its baseline", session)
        advice = (
            "a baseline of more sessions (flagperf rebase), or a quieter machine"
            if result.case.kind == "operator"
            else "more rounds (--rounds), or --on-inconclusive=rerun"
        )
        return Undecided(f"{lines}\ndecide:   {advice}")
    return None


def _text(result: Result, kind: str, headline: str, session: Path) -> str:
    found = [one for one in result.comparisons if one.verdict == kind]
    sources = dict.fromkeys(one.source for one in found if one.source)
    lines = [headline, *(line for one in found for line in sentences(one, unit(result, one.metric)))]
    lines += [f"baseline: {source}" for source in sources]
    files = [source for source in sources if source.endswith(".toml")]
    command = rebase(result, session, [one.metric for one in found], *files[:1])
    return "\n".join([*lines, f"accept:   {shlex.join(command)}"])


def sentences(one: ComparisonResult, unit: str) -> list[str]:
    """A comparison in words: found, baseline, change, how it was judged, and what else there is to know."""
    found = "not measured" if one.value is None else f"{one.value:.6g} {unit}".rstrip()
    parts = [f"  {one.metric}: {found}"]
    if one.baseline is not None:
        parts.append(f"baseline {one.baseline:.6g} {unit}".rstrip() + _interval(one.samples))
    if one.change is not None:
        parts.append(percent(one.change) + _range(one.interval))
    how = ", ".join([*([one.method] if one.method else []), *([_tolerance(one)] if one.tolerance is not None else [])])
    return ["; ".join(parts) + (f" ({how})" if how else ""), *(f"    {reason}" for reason in one.reasons)]


def percent(ratio: float) -> str:
    """``-6.2 %``, with its sign."""
    return f"{100 * ratio:+.1f} %"


def _tolerance(one: ComparisonResult) -> str:
    assert one.tolerance is not None
    return f"tolerance {100 * one.tolerance:g} %"


def _interval(samples: Sequence[float]) -> str:
    if len(samples) < 2:
        return ""
    summary = statistics.summarize(samples)
    of = f" of {len(samples)} samples"
    return of if summary.low is None or summary.high is None else f" [{summary.low:.6g}, {summary.high:.6g}]{of}"


def _range(interval: Sequence[float] | None) -> str:
    return f" [{', '.join(percent(end) for end in interval)}]" if interval else ""


def unit(result: Result, metric: str) -> str:
    """What a metric of a result is counted in; empty for a ratio or where it was not measured."""
    found = results.unit_of(result, metric)
    return "" if found in ("ratio", "1") else found


def rebase(result: Result, session: Path, names: Sequence[str], file: str = "") -> list[str]:
    """The command that makes what was found the baseline, for whoever knows why it is worse."""
    chosen = [part for name in names for part in ("--metric", name)]
    where = ["--baseline", file] if file else []
    case = ["--case", result.case.id]
    return ["flagperf", "rebase", str(session), *where, *case, *chosen, "--reason", "WHY", "--write"]


def foremost(comparisons: Sequence[ComparisonResult]) -> list[ComparisonResult]:
    """The comparisons, what is worst first, and each verdict by the size of the change."""
    known = {name: place for place, name in enumerate(_ORDER)}
    return sorted(comparisons, key=lambda one: (known.get(one.verdict, len(known)), -abs(one.change or 0.0)))
