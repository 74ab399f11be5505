"""The cases of suites: test modules that load, targets that something can meet."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pytest_flagperf import metrics
from pytest_flagperf.errors import ConfigurationError
from pytest_flagperf.importing import source
from pytest_flagperf.lint.problem import Problem
from pytest_flagperf.lint.problem import line_of
from pytest_flagperf.suites import Found


def check(found: Iterable[Found]) -> Iterator[Problem]:
    """The problems of test modules and of the targets in their cases."""
    for one in found:
        if one.case is None:
            # A target that is no ratio is refused when the case is made.
            code = "FP011" if "is a ratio between 0 and 1" in one.error else "FP010"
            yield Problem(one.path, 1, code, one.error)
            continue
        if one.case.kind == "operator":
            yield from _problems(one)
        for name, scale in one.case.scales.items():
            for target in getattr(scale, "targets", ()):
                yield from _target(one.path, name, target)


def _problems(one: Found) -> Iterator[Problem]:
    try:
        one.case.load(one.path.parent)
    except ConfigurationError as error:
        yield Problem(one.path, 1, "FP010", str(error))


def _target(path: Path, scale: str, target: Any) -> Iterator[Problem]:
    line = line_of(source.text_of(path), target.metric, after=1)
    reason = impossible(target.metric, target.bound, target.direction)
    if reason:
        yield Problem(path, line, "FP011", f"scale {scale}: {target}: {reason}")
    if not str(target.source).strip():
        yield Problem(path, line, "FP012", f"scale {scale}: {target}: say where the bound comes from")


def impossible(metric: str, bound: float, direction: str) -> str:
    """Why a bound decides nothing, or an empty text. ``direction`` is ``at least`` or ``at most``."""
    known = metrics.known().get(metric)
    if known is None:
        return f"{metric} is no registered metric"
    wanted = "at least" if known.better == "higher" else "at most"
    if direction != wanted:
        return f"of {metric} {known.better} is better: the bound is {wanted}"
    lowest, highest = _range(known)
    if direction == "at least":
        if highest is not None and bound >= highest:
            return f"no honest run reaches {highest:g}" if bound == highest else f"{metric} is never above {highest:g}"
        return (
            f"every run has that: {metric} is never below {lowest:g}" if lowest is not None and bound <= lowest else ""
        )
    if lowest is not None and bound <= lowest:
        return f"no honest run reaches {lowest:g}" if bound == lowest else f"{metric} is never below {lowest:g}"
    return (
        f"every run has that: {metric} is never above {highest:g}" if highest is not None and bound >= highest else ""
    )


def _range(metric: metrics.Metric) -> tuple[float | None, float | None]:
    """Between which figures a metric lies; ``None`` where it may be anything."""
    if metric.name == "perplexity":
        return 1.0, None
    if metric.unit == "BLEU":
        return 0.0, 100.0
    if metric.unit == "ratio":
        return 0.0, 1.0
    # A log likelihood, such as a flow's loss, may be negative; times, rates and sizes are not.
    return (None, None) if metric.unit == "1" else (0.0, None)
