"""The operators of the report: a table for each family, and what there is of a problem on demand."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

import msgspec

from pytest_flagperf.operators import table
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


def families(found: Found) -> list[dict[str, Any]]:
    """The tables, in DeepBench's order; a family that is not in it comes last."""
    names = [
        *table.SIZES,
        *dict.fromkeys(result.case.model for _, result in found if result.case.model not in table.SIZES),
    ]
    share = series.points_for(len(found))
    tables = []
    for name in names:
        rows = [(session, result) for session, result in found if result.case.model == name]
        if rows:
            tables.append(_family(name, rows, share))
    return tables


def _family(name: str, rows: Found, most: int) -> dict[str, Any]:
    results = [result for _, result in rows]
    figures = [one for one in ("time", *table.FIGURES.get(name, ())) if any(one in r.metrics for r in results)]
    units = {one: next(r.metrics[one].unit for r in results if one in r.metrics) for one in figures}
    problems = [r.operator.get("problem", {}) for r in results]
    return {
        "name": name,
        "sizes": [one for one in table.SIZES.get(name, ()) if any(one in problem for problem in problems)],
        "figures": [{"name": one, "unit": units[one]} for one in figures],
        "several_frameworks": len({r.case.framework for r in results}) > 1,
        "several_topologies": len({r.case.topology for r in results}) > 1,
        "has_published": any("published" in r.operator for r in results),
        "has_comparisons": any(r.comparisons for r in results),
        "rows": [_row(session, result, figures, most) for session, result in rows],
    }


def _row(session: SessionFiles, result: Result, figures: Sequence[str], most: int) -> dict[str, Any]:
    problem = result.operator.get("problem", {})
    return {
        **cases.identity(session, result),
        "sizes": {name: _size(value) for name, value in problem.items()},
        "figures": {name: result.metrics[name].value for name in figures if name in result.metrics},
        "is_estimated": bool(result.operator.get("peak", {}).get("estimated")),
        "published": result.operator.get("published"),
        "change": cases.worst(result),
        "details": _details(result, most),
    }


def _details(result: Result, most: int) -> dict[str, Any]:
    """What is shown when a reader asks for more of one row."""
    facts = result.operator
    samples = facts.get("samples") or []
    time = result.metrics.get("time")
    return {
        "metrics": [(name, one.value, one.unit) for name, one in result.metrics.items()],
        "comparisons": [msgspec.to_builtins(one) for one in result.comparisons],
        "notes": result.notes,
        "facts": [(name, _text(facts[name])) for name in _FACTS if facts.get(name) not in (None, "", {}, [])],
        "rerun": shlex.join(result.rerun),
        "chart": series.of_samples(samples, time.unit if time else "", min(most, 120)) if samples else None,
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
