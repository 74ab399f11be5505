"""The operators of the report: a table for each family, and what there is of a problem on demand."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import msgspec

from pytest_flagperf.operators import table
from pytest_flagperf.reports import reading
from pytest_flagperf.reports.html import cases
from pytest_flagperf.reports.html import series
from pytest_flagperf.result import Result
from pytest_flagperf.sessions import SessionFiles


Found = Sequence[tuple[SessionFiles, Result]]

# What is told with a problem, in this order; the rest of what its worker wrote is in results.jsonl.
_FACTS = (
    *("problem", "request", "precision", "iterations", "ended", "clock", "threads", "data", "peak", "roofline"),
    *("error_bound", "device_name", "padded", "published", "file"),
)
# Units of the sizes that have one; the others count rows, columns, elements.
_SIZE_UNITS = {"size": "B"}


def families(found: Found, share: cases.Share) -> list[dict[str, Any]]:
    """The tables, in DeepBench's order; a family that is not in it comes last."""
    names = [
        *table.SIZES,
        *dict.fromkeys(result.case.model for _, result in found if result.case.model not in table.SIZES),
    ]
    points = series.points_for(len(found))
    tables = []
    for name in names:
        rows = [(session, result) for session, result in found if result.case.model == name]
        if rows:
            tables.append(_family(name, rows, points, share))
    return tables


def _family(name: str, rows: Found, points: int, share: cases.Share) -> dict[str, Any]:
    results = [result for _, result in rows]
    figures = [one for one in ("time", *table.FIGURES.get(name, ())) if any(one in r.metrics for r in results)]
    units = {one: next(r.metrics[one].unit for r in results if one in r.metrics) for one in figures}
    problems = [r.operator.get("problem", {}) for r in results]
    return {
        "name": name,
        "sizes": [one for one in table.SIZES.get(name, ()) if any(one in problem for problem in problems)],
        "figures": [{"name": one, "unit": units[one]} for one in figures],
        "several_frameworks": len({r.case.framework for r in results}) > 1,
        "has_topologies": any(r.case.topology != "1x1" for r in results),
        "has_marks": any(reading.marks(r) or r.deviations for r in results),
        "size_units": {one: _SIZE_UNITS[one] for one in table.SIZES.get(name, ()) if one in _SIZE_UNITS},
        "has_published": any("published" in r.operator for r in results),
        "has_comparisons": any(r.comparisons for r in results),
        "rows": [_row(session, result, units, points, share) for session, result in rows],
    }


def _row(
    session: SessionFiles, result: Result, units: Mapping[str, str], points: int, share: cases.Share
) -> dict[str, Any]:
    figures = [name for name in units if name in result.metrics]
    problem = result.operator.get("problem", {})
    return {
        **cases.identity(session, result, share),
        "why": next(iter(result.notes), "") if result.verdict == "unsupported" else "",
        "sizes": {name: _size(value) for name, value in problem.items()},
        "figures": {name: result.metrics[name].value for name in figures},
        # Where a row's unit is not its column's: operations of integers among those of floating-point numbers.
        "units": {name: reading.unit(result, name) for name in figures if reading.unit(result, name) != units[name]},
        "is_estimated": bool(result.operator.get("peak", {}).get("estimated")),
        "published": result.operator.get("published"),
        "change": cases.worst(result),
        "details": _details(result, points, share),
    }


def _details(result: Result, points: int, share: cases.Share) -> dict[str, Any]:
    """What is shown when a reader asks for more of one row."""
    facts = result.operator
    told = [name for name in _FACTS if facts.get(name) not in (None, "", {}, [])]
    time = result.metrics.get("time")
    return {
        "metrics": [(name, one.value, reading.unit(result, name)) for name, one in result.metrics.items()],
        "comparisons": [msgspec.to_builtins(one) for one in result.comparisons],
        "notes": cases.cut_all(result.notes, share.text),
        "deviations": cases.cut_all(result.deviations, share.text),
        "facts": [(name, cases.cut(_text(facts[name]), share.text)) for name in told],
        "rerun": shlex.join(result.rerun),
        "chart": series.of_samples(facts.get("samples"), time.unit if time else "", min(points, 120)),
    }


def _size(value: Any) -> str:
    if isinstance(value, bool):
        return "T" if value else "N"
    if isinstance(value, list):
        return " ".join("x".join(map(str, one)) or "scalar" if isinstance(one, list) else str(one) for one in value)
    return "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_text(one)}" for key, one in value.items())
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
