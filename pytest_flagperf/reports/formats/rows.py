"""Results as flat rows, for CSV and workbook: the same columns, whatever was measured."""

from __future__ import annotations

import re
from collections.abc import Iterator
from collections.abc import Sequence
from datetime import UTC
from datetime import datetime

from pytest_flagperf.judging.derived import RequirementResult
from pytest_flagperf.reports import inference
from pytest_flagperf.reports import reading
from pytest_flagperf.reports.formats import common
from pytest_flagperf.result import ComparisonResult
from pytest_flagperf.result import Result
from pytest_flagperf.result import TargetResult
from pytest_flagperf.sessions import SessionFiles


Cell = str | float | int | bool | None
Row = dict[str, Cell]

CASE_COLUMNS = (
    *("session", "started", "case", "node_id", "model", "kind", "role", "framework", "engine"),
    *("precision", "topology", "scale", "vendor", "chip", "division", "stand_in", "dataset", "synthetic"),
    *("weights", "rounds", "verdict", "error", "deviations", "deviates_in"),
)
METRIC_COLUMNS = (
    *("metric", "value", "unit", "better"),
    *("method", "low", "high", "cv", "samples"),
    *("target_direction", "target_bound", "target_met"),
    *("comparison", "baseline", "change", "change_low", "change_high", "tolerance", "comparison_method"),
    *("comparison_source", "comparison_reasons"),
)
COLUMNS = (*CASE_COLUMNS, *METRIC_COLUMNS)

_WRITTEN = re.compile(r"(\w+)(>=|<=)(.+)")
_DIRECTIONS = {">=": "at least", "<=": "at most"}


def started(session: SessionFiles) -> str:
    """When the session began, in ISO 8601 and UTC; empty where nobody wrote it down."""
    seconds = session.time_started
    try:
        return "" if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
    except (OverflowError, ValueError, OSError):
        return str(seconds)


def case_row(session: SessionFiles, result: Result) -> Row:
    """What is known of a case beside its metrics; keys are ``CASE_COLUMNS``."""
    case = result.case
    return {
        "session": session.name,
        "started": started(session),
        "case": case.id,
        "node_id": case.node_id,
        "model": case.model,
        "kind": case.kind,
        "role": case.role,
        "framework": case.framework,
        "engine": case.engine,
        "precision": case.precision,
        "topology": case.topology,
        "scale": case.scale,
        "vendor": case.vendor,
        "chip": case.chip,
        "division": case.division,
        "stand_in": case.stand_in,
        "dataset": result.dataset.name,
        "synthetic": result.dataset.synthetic,
        "weights": inference.weights(result),
        "rounds": len(result.rounds),
        "verdict": result.verdict,
        "error": "" if result.error is None else f"{result.error.type}: {result.error.message}",
        "deviations": len(result.deviations),
        "deviates_in": "; ".join(result.deviations),
    }


def metric_rows(session: SessionFiles, result: Result) -> Iterator[Row]:
    """A row for each metric of a case, also those that a target or a baseline wants and nobody measured.

    A case without any gives one row, so that it is not lost. Keys are ``COLUMNS``.
    """
    targets = {one.metric: one for one in result.targets}
    comparisons = {one.metric: one for one in result.comparisons}
    shared = case_row(session, result)
    names = list(dict.fromkeys((*result.metrics, *targets, *comparisons)))
    for name in names:
        yield {**shared, **_metric(result, name, targets.get(name), comparisons.get(name))}
    if not names:
        yield {**shared, **dict.fromkeys(METRIC_COLUMNS)}


def all_metric_rows(sessions: Sequence[SessionFiles]) -> Iterator[Row]:
    """Those of every case of the sessions, then a row for each figure that ``--require`` asked for."""
    for session, result in common.results(sessions):
        yield from metric_rows(session, result)
    for session in sessions:
        for one in reading.over_cases(session).requirements:
            yield requirement_row(session, one)


def requirement_row(session: SessionFiles, one: RequirementResult) -> Row:
    """What came of a requirement, as if it were a case of its own: ``kind`` is ``requirement``."""
    written = _WRITTEN.fullmatch(one.text)
    name, sign, bound = written.groups() if written else (one.text, "", "")
    return {
        **dict.fromkeys(COLUMNS),
        "session": session.name,
        "started": started(session),
        "case": f"--require {one.text}",
        "kind": "requirement",
        "verdict": "passed" if one.met else "missed",
        "error": "" if one.met else f"RequirementMissed: {reading.said(one)}",
        "metric": name,
        "target_direction": _DIRECTIONS.get(sign),
        "target_bound": float(bound) if bound else None,
        "target_met": one.met,
    }


def _metric(result: Result, name: str, target: TargetResult | None, comparison: ComparisonResult | None) -> Row:
    found = result.metrics.get(name)
    row: Row = {
        **dict.fromkeys(METRIC_COLUMNS),
        "metric": name,
        "value": None if found is None else found.value,
        "unit": reading.unit(result, name),
        "better": None if found is None else found.better,
    }
    spread = result.spreads.get(name)
    if spread is not None:
        samples = " ".join(repr(value) for value in spread.samples)
        row |= {"method": spread.method, "low": spread.low, "high": spread.high, "cv": spread.cv, "samples": samples}
    if target is not None:
        row |= {"target_direction": target.direction, "target_bound": target.bound}
        # What could not be trusted was not judged.
        row |= {"target_met": target.met} if reading.is_trusted(result) else {}
    if comparison is not None:
        row |= comparison_cells(comparison)
    return row


def comparison_cells(one: ComparisonResult) -> Row:
    """The columns that say how a metric stands to its baseline."""
    low, high = one.interval[:2] if one.interval else (None, None)
    return {
        "comparison": one.verdict,
        "baseline": one.baseline,
        "change": one.change,
        "change_low": low,
        "change_high": high,
        "tolerance": one.tolerance,
        "comparison_method": one.method,
        "comparison_source": one.source,
        "comparison_reasons": "; ".join(one.reasons),
    }
