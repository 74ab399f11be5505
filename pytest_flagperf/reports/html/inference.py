"""What the report shows of a case of inference beside its metrics: steps, reference and engine, LoadGen's run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pytest_flagperf import perflog
from pytest_flagperf import result as results
from pytest_flagperf.perflog import Event
from pytest_flagperf.reports import inference
from pytest_flagperf.reports import reading
from pytest_flagperf.reports.html import latency
from pytest_flagperf.result import Result


# Step → the events that it lies between. What a role prepares, a server its search, comes before INFERENCE_BEGIN.
STEPS = {
    "load": (perflog.LOAD_BEGIN, perflog.LOAD_END),
    "validation": (perflog.VALIDATION_BEGIN, perflog.VALIDATION_END),
    "export": (perflog.EXPORT_BEGIN, perflog.EXPORT_END),
    "compile": (perflog.COMPILE_BEGIN, perflog.COMPILE_END),
    "warmup": (perflog.COMPILE_END, perflog.WARMUP_END),
    "accuracy": (perflog.ACCURACY_BEGIN, perflog.ACCURACY_END),
    "prepare": (perflog.ACCURACY_END, perflog.INFERENCE_BEGIN),
    "performance": (perflog.INFERENCE_BEGIN, perflog.INFERENCE_END),
}
# A preparation of less, in seconds, is none.
_SHORTEST = 0.1
_RATES = {
    "p_*_whole": ("p_validation_whole", "p_inference_whole"),
    "p_*_core": ("p_validation_core", "p_inference_core"),
}


def describe(result: Result, events: Sequence[Event]) -> dict[str, Any] | None:
    """The part of a case's section that is of inference, from the last round's ``events``; ``None`` of another kind."""
    if not inference.is_inference(result):
        return None
    return {
        "engine": result.case.engine,
        "compared": compared(result),
        "steps": steps(events),
        "loadgen": _loadgen(result, events),
    }


def compared(result: Result) -> list[dict[str, Any]]:
    """Quality and rates, of the reference and of the engine; nothing of a measurement that cannot be trusted."""
    if not reading.is_trusted(result):
        return []
    rows = [
        {"name": one.name, "unit": reading.unit(result, one.name), "reference": one.reference, "engine": one.engine}
        for one in inference.qualities(result)
    ]
    for name, (reference, engine) in _RATES.items():
        ours, theirs = result.metrics.get(engine), result.metrics.get(reference)
        unit = reading.unit(result, engine)
        if ours is not None and theirs is not None and unit in (results.SAMPLES, reading.unit(result, reference)):
            rows.append({"name": name, "unit": unit, "reference": theirs.value, "engine": ours.value})
    return rows


def steps(events: Sequence[Event]) -> list[dict[str, Any]]:
    """When each step began and what it took, in seconds from the first, and where it lies in the whole, in percent.

    ``seconds`` is ``None`` of one that did not end.
    """
    last = {event.name: event for event in events}
    first = next((event for event in events if event.name == perflog.LOAD_BEGIN), None)
    if first is None:
        return []
    rows: list[dict[str, Any]] = []
    for name, (begin, end) in STEPS.items():
        if begin not in last or (name in ("prepare", "warmup") and end not in last):
            continue
        seconds = last[end].seconds_since(last[begin]) if end in last else None
        if name == "prepare" and seconds is not None and seconds < _SHORTEST:
            continue
        rows.append({"name": name, "began": last[begin].seconds_since(first), "seconds": seconds})
    whole = max((row["began"] + (row["seconds"] or 0.0) for row in rows), default=0.0)
    return [{**row, **_place(row, whole)} for row in rows]


def _place(row: dict[str, Any], whole: float) -> dict[str, float]:
    """Left end and width of a bar, in percent; within the whole whatever the events say."""
    if not 0 < whole < float("inf"):
        return {"left": 0.0, "width": 0.0}
    left = min(100.0, max(0.0, 100 * row["began"] / whole))
    return {"left": round(left, 2), "width": round(min(100 - left, max(0.0, 100 * (row["seconds"] or 0.0) / whole)), 2)}


def _loadgen(result: Result, events: Sequence[Event]) -> list[tuple[str, str]]:
    """Key of a text and what there is to say of LoadGen's run; empty of a role without LoadGen."""
    if result.case.role not in inference.SCENARIOS:
        return []
    run = latency.told(events)
    bound, tried = run.get("latency_bound"), reading.listing(run.get("searched"))
    found = [
        ("scenario", inference.SCENARIOS[result.case.role][0]),
        ("ranked", inference.ranking(result)),
        ("validity", inference.validity(result)),
        ("rules", inference.rules(result)),
        ("bound", f"{bound:g} ms" if latency.is_figure(bound) else ""),
        ("tried", str(len(tried)) if tried else ""),
        ("version", str(run.get("version", ""))),
    ]
    return [(name, text) for name, text in found if text]
