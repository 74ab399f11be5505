"""The comparisons of a result, judged again from the baseline's samples that it holds, and the verdict of it all."""

from __future__ import annotations

from pytest_flagperf import verdict
from pytest_flagperf.evidence.findings import Findings
from pytest_flagperf.judging import compare
from pytest_flagperf.judging import gathering
from pytest_flagperf.result import ComparisonResult
from pytest_flagperf.result import Result


_DECIDED = (verdict.PASSED, verdict.REGRESSED, verdict.IMPROVED, verdict.INCONCLUSIVE)


def check(result: Result, own: str, file: str, findings: Findings) -> None:
    """``own`` is the verdict without comparisons, as it follows from rounds and targets."""
    for one in result.comparisons:
        _comparison(result, one, file, findings)
    follows = own if result.error is not None else compare.overall(own, result.comparisons)
    findings.same(file, "verdict", result.verdict, follows, "targets, comparisons and errors")


def _comparison(result: Result, one: ComparisonResult, file: str, findings: Findings) -> None:
    name = f"comparison {one.metric} "
    metric = result.metrics.get(one.metric)
    if metric is None and one.verdict == verdict.REGRESSED:
        # Stopped early: there are no figures, and what was evaluated last left the band of the baseline's curves.
        last = [each.quality for round_ in result.rounds for each in round_.evaluations][-1:]
        found = last[0].get(one.metric) if last else None
        findings.same(file, name + "value", one.value, found, "the last evaluation")
        findings.note(f"{file}: {one.metric} left the {one.method}, which the result does not hold")
        return
    if one.verdict not in _DECIDED or metric is None:
        findings.same(file, name + "value", one.value, metric.value if metric is not None else None, "metrics")
        return
    values = gathering.samples(result, one.metric)
    if not one.samples or one.tolerance is None or not values:
        findings.note(f"{file}: {one.metric} was compared with a bound that the result does not hold: {one.method}")
        findings.same(file, name + "value", one.value, metric.value, "metrics")
        return
    again = compare.decide(values, one.samples, metric.better, one.tolerance)
    source = "its samples and the baseline's"
    for key in ("value", "baseline", "change", "interval"):
        findings.same(file, name + key, getattr(one, key), getattr(again, key), source)
    if one.method == "bound":
        # The bound stands in the words of the reasons only; missing it is a regression whatever the samples say.
        findings.note(f"{file}: {one.metric} missed a bound of the baseline: {'; '.join(one.reasons[:1])}")
        findings.same(file, name + "verdict", one.verdict, verdict.REGRESSED, "its bound")
        return
    findings.same(file, name + "verdict", one.verdict, again.verdict, source)
