"""The charts of inference: how latencies are distributed, and how they grow with the load of a server.

LoadGen keeps no latency of its own but in a trace that nobody asks it for: of its runs the percentiles are drawn that
its summary has.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any
from typing import TypeGuard

from pytest_flagperf import perflog
from pytest_flagperf.evidence.findings import UNREADABLE
from pytest_flagperf.perflog import Event
from pytest_flagperf.reports import reading
from pytest_flagperf.reports.html import series
from pytest_flagperf.result import Result
from pytest_flagperf.result import RoundResult
from pytest_flagperf.worker.inference import loadgen_results


Seen = Sequence[tuple[RoundResult, Sequence[Event]]]

# What is marked in a distribution.
PERCENTILES = {"p50": "latency_p50", "p90": "latency_p90", "p99": "latency_p99"}
# Where the largest value is so many times the smallest, an axis is logarithmic.
WIDE = 20
MOST_RATES = 200
_PERCENTILE = re.compile(r"(\d+(?:\.\d+)?) percentile latency \(ns\)")
_ENDS = {"Min latency (ns)": 0.0, "Max latency (ns)": 1.0}


def charts(result: Result, seen: Seen, most: int) -> list[dict[str, Any]]:
    """The charts of the rounds' ``seen`` events that anything is to be drawn in; ``most`` points a curve."""
    found = [_distribution(result, seen, most), _load(result, seen[-1][1])] if seen else []
    return [chart for chart in found if chart["series"]]


def told(events: Sequence[Event]) -> dict[str, Any]:
    """What INFERENCE_BEGIN and INFERENCE_END tell of LoadGen's run, the last of each; empty without LoadGen."""
    values = {event.name: event.value for event in events}
    begin = values.get(perflog.INFERENCE_BEGIN, {})
    loadgen = values.get(perflog.INFERENCE_END, {}).get("loadgen")
    return {**begin, **(loadgen if isinstance(loadgen, dict) else {})} if "scenario" in begin else {}


def distribution(latencies: Sequence[float], most: int) -> list[series.Point]:
    """At most ``most`` points of the cumulative distribution: latency, and the share of queries that took no longer.

    Half of them are even in the share, the other half reach into the tail, where a thousandth of the queries counts.
    """
    ordered = sorted(latencies)
    count = len(ordered)
    if count <= most:
        return [(value, (number + 1) / count) for number, value in enumerate(ordered)]
    half = most // 2
    even = {round(number * (count - 1) / (half - 1)) for number in range(half)}
    tail = {count - max(1, round(count ** (number / (half - 1)))) for number in range(half)}
    return [(ordered[rank], (rank + 1) / count) for rank in sorted(even | tail)]


def _distribution(result: Result, seen: Seen, most: int) -> dict[str, Any]:
    """A curve for each round, with the percentiles of the result."""
    curves = [(one, _latencies(events)) for one, events in seen]
    counted = [(one, distribution(values, most), len(values)) for one, values in curves if values]
    summaries = [] if counted else [(one, _summary(events)) for one, events in seen]
    drawn = [series.drawn(f"{one.round}", points, count) for one, points, count in counted]
    drawn += [series.drawn(f"{one.round}", points, len(points)) for one, points in summaries if points]
    marks = [
        {"at": series.short(result.metrics[name].value), "name": text}
        for text, name in PERCENTILES.items()
        if name in result.metrics and reading.is_trusted(result)
    ]
    bound = told(seen[-1][1]).get("latency_bound") if seen else None
    if is_figure(bound):
        marks.append({"at": series.short(bound), "name": "bound"})
    of_summary = {"hint": "latency.loadgen"} if summaries else {}
    chart = series.chart("latency", "", "ratio", "ms", drawn, lines=marks, y="share", rounds=True, **of_summary)
    return {**chart, "log_x": _is_wide([x for one in drawn for x in one["x"]])}


def _latencies(events: Sequence[Event]) -> list[float]:
    """Milliseconds of every query; nothing where somebody made them up."""
    try:
        found = [
            float(value) / 1e6
            for event in events
            if event.name == perflog.QUERIES
            for value in event.value.get("latencies_ns", ())
        ]
    except UNREADABLE:
        return []
    return [value for value in found if math.isfinite(value)]


def _summary(events: Sequence[Event]) -> list[series.Point]:
    """Latency and share of the percentiles that LoadGen prints; none of Offline, whose samples all arrive at once."""
    try:
        outcome = loadgen_results.parse(told(events)["summary"])
        if outcome.scenario == "Offline":
            return []
        shares = {key: float(found[1]) / 100 for key in outcome.summary if (found := _PERCENTILE.fullmatch(key))}
        return sorted((outcome.nanoseconds(key) / 1e6, share) for key, share in {**_ENDS, **shares}.items())
    except UNREADABLE:
        return []


def _load(result: Result, events: Sequence[Event]) -> dict[str, Any]:
    """The 99th percentile over the rate, of each rate that was tried, and of the run that is the result."""
    run = told(events)
    tried = [one for one in reading.listing(run.get("searched"))[:MOST_RATES] if _is_try(one)]
    points = {
        "held": [(one["rate"], one["latency_p99_ns"] / 1e6) for one in tried if one.get("valid") is True],
        "exceeded": [(one["rate"], one["latency_p99_ns"] / 1e6) for one in tried if one.get("valid") is not True],
    }
    final = result.metrics.get("latency_p99") if reading.is_trusted(result) else None
    if tried and final is not None and is_figure(run.get("rate")):
        points["result"] = [(float(run["rate"]), final.value)]
    drawn = [series.drawn(name, sorted(found), len(found)) for name, found in points.items() if found]
    bound = run.get("latency_bound")
    chart = series.chart("load", "", "ms", "rate", drawn, bounds=[bound] if is_figure(bound) else [], points=True)
    heights = [y for one in drawn for y in one["y"]]
    return {**chart, "log_y": _is_wide(heights), "hint": "load"}


def _is_try(one: Any) -> bool:
    return isinstance(one, dict) and is_figure(one.get("rate")) and is_figure(one.get("latency_p99_ns"))


def is_figure(value: Any) -> TypeGuard[float]:
    """Whether a value that anybody may have written is a number that a chart can show."""
    return type(value) in (int, float) and abs(value) < 1e15 and math.isfinite(value)


def _is_wide(values: Sequence[float]) -> bool:
    return bool(values) and min(values) > 0 and max(values) / min(values) > WIDE
