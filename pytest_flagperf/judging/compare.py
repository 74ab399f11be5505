"""Is it worse than before? A result beside its baseline, metric by metric. Nothing here raises for odd figures.

What decides is the interval of the change and two sizes: the tolerance, which is the change that does not count, and
the material change, which is worth an alarm. docs/reference/verdicts.md says it with examples, ``benchmarks/gate.py``
measures how often it errs.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace

import msgspec

from pytest_flagperf import verdict
from pytest_flagperf.judging import gathering
from pytest_flagperf.judging import statistics
from pytest_flagperf.judging.baselines import Baseline
from pytest_flagperf.judging.baselines import CaseBaseline
from pytest_flagperf.judging.baselines import MetricBaseline
from pytest_flagperf.result import ComparisonResult
from pytest_flagperf.result import Result


# Of the interval that raises an alarm: in 1 of 200 comparisons without a change it lies on the worse side of zero.
CONFIDENCE = 0.99

# From this many sessions on a baseline tells itself how far sessions lie apart, and a material change is this share of
# the tolerance. Of fewer nobody knows: each is taken to deviate by this share of the tolerance.
DECIDING = 4
MATERIAL = 0.4
ASSUMED = 0.5

# Fewer samples in all, new and stored, never raise an alarm.
FEWEST = 6

_RANK = (verdict.REGRESSED, verdict.INCONCLUSIVE, verdict.IMPROVED, verdict.PASSED)


@dataclass(frozen=True)
class Decision:
    """What samples say of a change: ``change`` and ``interval`` are ratios less 1, of the figures as they are shown."""

    verdict: str
    value: float
    baseline: float
    change: float | None
    interval: list[float] | None
    method: str
    reasons: tuple[str, ...] = ()


def judge(result: Result, baseline: Baseline | None, hardware: str = "") -> list[ComparisonResult]:
    """Each metric of a result beside its baseline; none without a baseline, or of a result that measured nothing.

    ``hardware`` names the devices where no chip does: ``baselines.hardware`` of the session's description.
    """
    if baseline is None or result.verdict in (verdict.INVALID, verdict.WRONG, verdict.UNSUPPORTED):
        return []
    measured = gathering.of_result(result, "now")
    stored = baseline.of(result.case.id)
    if stored is None:
        why = baseline.left_out.get(result.case.id, f"{baseline.origin or 'the baseline'} does not have this case")
        return [_unjudged(result, name, verdict.NO_BASELINE, baseline, [why]) for name in measured.metric]
    names = list(dict.fromkeys([*stored.metric, *measured.metric]))
    refused = obstacles(result, measured, baseline, stored, hardware)
    if refused:
        return [_unjudged(result, name, verdict.NOT_COMPARABLE, baseline, refused, stored) for name in names]
    notes = stack_differences(stored.stack, measured.stack)
    return [_compared(result, name, baseline, stored, notes) for name in names]


def overall(result_verdict: str, comparisons: Sequence[ComparisonResult]) -> str:
    """The verdict of a result with its comparisons: the worst of both.

    ``no baseline`` or ``not comparable`` where there was something to compare with and no metric could be judged.
    """
    if result_verdict != verdict.PASSED or not comparisons:
        return result_verdict
    found = {one.verdict for one in comparisons}
    judged = next((one for one in _RANK if one in found), None)
    if judged is not None:
        return judged
    return verdict.NOT_COMPARABLE if verdict.NOT_COMPARABLE in found else verdict.NO_BASELINE


def alarming(result: Result) -> bool:
    """Whether an operator's result is to be measured again before anybody is told that it got worse, or better.

    A suite has hundreds of them, and one in a hundred or two looks changed by chance.
    """
    return result.case.kind == "operator" and result.verdict in (verdict.REGRESSED, verdict.IMPROVED)


def settled(first: Result, second: Result) -> Result:
    """``second``, which was measured because ``first`` was :func:`alarming`; both have their comparisons.

    A metric is worse, or better, where both measurements say so. Where one does, it is inconclusive.
    """
    before = {one.metric: one for one in first.comparisons}
    comparisons = [_agreed(before.get(one.metric), one) for one in second.comparisons]
    own = second.verdict if second.verdict not in _RANK else verdict.PASSED
    return msgspec.structs.replace(second, comparisons=comparisons, verdict=overall(own, comparisons))


def _agreed(first: ComparisonResult | None, second: ComparisonResult) -> ComparisonResult:
    alarms = (verdict.REGRESSED, verdict.IMPROVED)
    was = first.verdict if first is not None else "not measured"
    if was not in alarms and second.verdict not in alarms:
        return second
    change = "" if first is None or first.change is None else f" ({100 * first.change:+.1f} %)"
    reason = f"measured twice: {was}{change}, then {second.verdict}"
    found = second.verdict if was == second.verdict else verdict.INCONCLUSIVE
    return msgspec.structs.replace(second, verdict=found, reasons=[*second.reasons, reason])


def obstacles(
    result: Result, measured: CaseBaseline, baseline: Baseline, stored: CaseBaseline, hardware: str = ""
) -> list[str]:
    """Why a result does not compare with a baseline: each field that differs, as it was and as it is."""
    found = []
    if result.case.stand_in:
        found.append(f"{result.case.stand_in} stood in for the vendor's device: no figure of the vendor's was measured")
    chip = result.case.chip or ""
    for name, was, now in (("vendor", baseline.vendor, result.case.vendor), ("chip", baseline.chip, chip)):
        if was != now:
            found.append(f"{name} was {was!r}, is {now!r}")
    if not chip and baseline.hardware and hardware and baseline.hardware != hardware:
        found.append(f"the devices were {baseline.hardware}, are {hardware}")
    return [*found, *gathering.differences(stored, measured)]


def stack_differences(stored: dict[str, str], measured: dict[str, str]) -> list[str]:
    """What software differs: said, and no reason not to compare, for that it got slower is what one wants to see."""
    return [
        f"{name} was {stored.get(name, 'absent')}, is {measured.get(name, 'absent')}"
        for name in sorted({*stored, *measured} if stored and measured else ())
        if stored.get(name) != measured.get(name)
    ]


def decide(
    measured: Sequence[float],
    stored: Mapping[str, Sequence[float]] | Sequence[float],
    better: str,
    tolerance: float,
    figure: float | None = None,
) -> Decision:
    """Whether the samples ``measured``, of one session, are worse or better than ``stored``, those of each session.

    With an interval of 99 %: *regressed* or *improved* where it excludes no change and the change is material;
    else *passed* where a loss beyond the tolerance is excluded with 95 %; else *inconclusive*. Fewer than six samples
    in all are *passed* within the tolerance, and else *inconclusive*. ``stored`` as a sequence is one session's.
    ``figure`` is what is shown of the new samples, where it is not what they are summarized to: a round was dropped.
    Such rounds have no sample on either side, so the change is that of the samples.
    """
    sessions = [list(one) for one in stored.values() if one] if isinstance(stored, Mapping) else [list(stored)]
    every = [one for session in sessions for one in session]
    alike = statistics.summarize(measured).value
    value = alike if figure is None else figure
    base = statistics.summarize(every).value
    if min(value, *measured, *every) <= 0:
        return _without_ratio(measured, every, value, base, better)
    change = statistics.change(alike, base)
    assert change is not None
    loss = change if better == "lower" else -change
    counted = _counted(measured, sessions)
    if len(measured) + len(every) < FEWEST:
        found = verdict.PASSED if loss <= tolerance else verdict.INCONCLUSIVE
        return Decision(found, value, base, change, None, f"tolerance: {counted} are too few for an interval")
    few = len(sessions) < DECIDING
    apart = statistics.compare_samples(measured, sessions, CONFIDENCE, assumed=ASSUMED * tolerance if few else None)
    material = tolerance if few else MATERIAL * tolerance
    least, most = (apart.low, apart.high) if better == "lower" else (-apart.high, -apart.low)
    cleared = apart.cleared_high if better == "lower" else -apart.cleared_low
    found = verdict.PASSED if cleared <= tolerance else verdict.INCONCLUSIVE
    if least > 0 and loss > material:
        found = verdict.REGRESSED
    elif most < 0 and -loss > material:
        found = verdict.IMPROVED
    counts = (
        "sessions are few, and taken to deviate by half the tolerance"
        if few
        else f"changes of more than {100 * material:.2g} % count"
    )
    method = f"{apart.test} on the logarithms of {counted}, 99 % interval; {counts}"
    return Decision(found, value, base, change, [apart.low, apart.high], method)


def _without_ratio(
    measured: Sequence[float], stored: Sequence[float], value: float, base: float, better: str
) -> Decision:
    """Of figures that are zero or below. What fell to nothing, or rose from it, needs no ratio to be told."""
    if {*measured} == {*stored} and len({*measured}) == 1:
        return Decision(verdict.PASSED, value, base, None, None, "equal")
    change = statistics.change(value, base) if base > 0 else None
    fell, rose = min(stored) > 0 >= max(measured), min(measured) > 0 and not any(stored)
    if min(*measured, *stored) >= 0 and (rose or (fell and better == "higher")):
        found = verdict.REGRESSED if fell or better == "lower" else verdict.IMPROVED
        return Decision(found, value, base, change, None, "zero", ("it fell to zero" if fell else "it was zero",))
    reason = "a sample is not above zero: such figures have no ratio. A bound in the baseline file can judge them"
    return Decision(verdict.INCONCLUSIVE, value, base, change, None, "", (reason,))


def _counted(measured: Sequence[float], stored: Sequence[Sequence[float]]) -> str:
    count, sessions = sum(map(len, stored)), len(stored)
    return f"{len(measured)} new and {count} stored samples of {sessions} session{'s' if sessions > 1 else ''}"


def _compared(
    result: Result, name: str, baseline: Baseline, stored: CaseBaseline, notes: Sequence[str]
) -> ComparisonResult:
    metric = stored.metric.get(name)
    if metric is None:
        why = [f"{baseline.origin or 'the baseline'} does not have {name} of this case"]
        return _unjudged(result, name, verdict.NO_BASELINE, baseline, why)
    # As they are in a file: what differs only in digits that no file keeps does not differ.
    values = [gathering.rounded(one) for one in gathering.samples(result, name)]
    if not values:
        # What is gone may be what got worse: whatever else passed, this did not.
        return _unjudged(result, name, verdict.INCONCLUSIVE, baseline, ["it was not measured this time"], stored)
    if (result.metrics[name].unit, result.metrics[name].better) != (metric.unit, metric.better):
        why = [f"it was in {metric.unit}, is in {result.metrics[name].unit}"]
        return _unjudged(result, name, verdict.NOT_COMPARABLE, baseline, why, stored)
    if not metric.values and metric.bound is None:
        return _unjudged(result, name, verdict.NO_BASELINE, baseline, ["the baseline has no sample of it"], stored)
    allowed = metric.tolerance if metric.tolerance is not None else gathering.tolerance(name, stored.targets)
    found = _bounded(metric, values, result.metrics[name].value, allowed)
    return ComparisonResult(
        metric=name,
        verdict=found.verdict,
        value=found.value,
        baseline=found.baseline,
        change=found.change,
        interval=found.interval,
        method=found.method,
        tolerance=allowed,
        samples=metric.values,
        source=baseline.origin,
        reasons=[*found.reasons, *notes],
    )


def _bounded(metric: MetricBaseline, values: Sequence[float], value: float, allowed: float) -> Decision:
    """The decision of the samples, unless the metric misses its bound, which no sample excuses."""
    if metric.values:
        found = decide(values, metric.samples, metric.better, allowed, value)
    else:
        assert metric.bound is not None
        found = Decision(verdict.PASSED, value, metric.bound, None, None, "bound: there is no sample")
    missed = metric.bound is not None and (value < metric.bound if metric.better == "higher" else value > metric.bound)
    if not missed:
        return found
    reason = f"{value:.6g} {metric.unit} misses the bound of {metric.bound:.6g}"
    return replace(found, verdict=verdict.REGRESSED, method="bound", reasons=(reason, *found.reasons))


def _unjudged(
    result: Result,
    name: str,
    found: str,
    baseline: Baseline,
    reasons: Sequence[str],
    stored: CaseBaseline | None = None,
) -> ComparisonResult:
    metric = result.metrics.get(name)
    before = stored.metric.get(name) if stored is not None else None
    values = before.values if before is not None else []
    return ComparisonResult(
        metric=name,
        verdict=found,
        value=metric.value if metric is not None else None,
        baseline=statistics.summarize(values).value if values else None,
        samples=values,
        source=baseline.origin,
        reasons=list(reasons),
    )
