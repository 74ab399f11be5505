"""LoadGen's own account of a run, as metrics: its summary is in INFERENCE_END as LoadGen wrote it.

Nothing is computed here but milliseconds from nanoseconds, so that our figures are LoadGen's to the digit.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pytest_flagperf import perflog
from pytest_flagperf.errors import InvalidMeasurement
from pytest_flagperf.perflog import Event
from pytest_flagperf.result import LoadGenResult
from pytest_flagperf.worker.inference import loadgen_results
from pytest_flagperf.worker.inference.loadgen_results import Outcome


# LoadGen's scenario → the metric that its rate is. Of Server it is what was completed, of the others samples/s.
RATE_METRICS = {"SingleStream": "p_inference_whole", "Server": "qps", "Offline": "p_inference_whole"}

# Latency grows steeply where a server is near its limit: below this share of the bound it is hardly there.
IDLE = 0.1


def figures(end: Event) -> dict[str, float]:
    """Metrics of a run by LoadGen, from its INFERENCE_END; empty of one without LoadGen.

    Latencies in ms count from the scheduled arrival; of MultiStream they are those of queries. Offline has none: all
    its samples arrive at once. The estimate of early stopping is there where LoadGen made one. Raises
    ``InvalidMeasurement`` for a run that LoadGen calls invalid, with its reasons, and for a summary that is torn or
    missing.
    """
    told = end.value.get("loadgen")
    if told is None:
        return {}
    outcome = _outcome(told)
    outcome.refuse()
    found: dict[str, float] = {}
    rate = outcome.rate()
    if rate is not None:
        found[RATE_METRICS[outcome.scenario]] = rate
    if outcome.scenario != "Offline":
        found |= {name: outcome.nanoseconds(key) / 1e6 for name, key in loadgen_results.LATENCIES.items()}
    estimate = outcome.estimate()
    if estimate is not None:
        found["latency_early_stopping"] = estimate / 1e6
    return found


def notes(log: Sequence[Event]) -> list[str]:
    """What a reader has to know of a run by LoadGen: what of MLPerf's rules was shortened, which rate gave way."""
    events = {event.name: event.value for event in log}
    begin, end = events.get(perflog.INFERENCE_BEGIN, {}), events.get(perflog.INFERENCE_END, {})
    told = end.get("loadgen")
    if told is None:
        return []
    found = []
    short = [f"{name} {here:g} of {asked:g}" for name, (here, asked) in begin.get("shortened", {}).items()]
    if short:
        scenario = begin.get("scenario", "a scenario")
        found.append(f"{scenario} was shortened, no MLPerf result: {', '.join(short)} (s, samples or queries)")
    if not told.get("samples_in_memory", True):
        found.append("samples differ in shape and were prepared while they were measured: the data pipeline counts")
    if told.get("steps_down"):
        found.append(
            f"{told['found']:.5g} queries/s did not hold the bound again; {told['rate']:.5g} did, "
            f"{told['steps_down']} steps below"
        )
    return [*found, *_disturbed(begin, end)]


def _disturbed(begin: Mapping[str, Any], end: Mapping[str, Any]) -> list[str]:
    """Where the rate that was found leaves most of the bound: that the search for it may have been disturbed."""
    bound = begin.get("latency_bound")
    try:
        outcome = _outcome(end.get("loadgen"))
        latency = outcome.nanoseconds(loadgen_results.LATENCIES["latency_p99"]) / 1e6 if bound else 0.0
    except InvalidMeasurement:
        return []
    if not bound or latency >= IDLE * bound:
        return []
    return [
        f"at the rate that was found p99 is {latency:.3g} ms of {bound:g}: a higher one may hold, if the host was "
        "disturbed while the rate was searched for"
    ]


def said(log: Sequence[Event]) -> LoadGenResult | None:
    """What LoadGen said of the run that counts; ``None`` where it said nothing, or what it said is torn."""
    events = {event.name: event.value for event in log}
    begin, end = events.get(perflog.INFERENCE_BEGIN, {}), events.get(perflog.INFERENCE_END, {})
    try:
        outcome = _outcome(end.get("loadgen"))
    except InvalidMeasurement:
        return None
    short = {str(name): [float(here), float(asked)] for name, (here, asked) in begin.get("shortened", {}).items()}
    return LoadGenResult(outcome.scenario, outcome.valid, [] if outcome.valid else outcome.reasons, short)


def said_in(directory: Path) -> LoadGenResult | None:
    """As above, of a round by its files; of one that failed there may be none."""
    found = sorted(directory.glob("*/rank0.events.jsonl"))
    return said(perflog.read_events(found[0])) if found else None


def _outcome(told: object) -> Outcome:
    summary = told.get("summary") if isinstance(told, dict) else None
    if not isinstance(told, dict) or not isinstance(summary, str):
        raise InvalidMeasurement(f"{perflog.INFERENCE_END} has no summary of LoadGen's")
    outcome = loadgen_results.parse(summary, tuple(map(str, told.get("errors", ()))))
    # The detailed log, which is not here, may have said so.
    return replace(outcome, detail={"result_validity": "INVALID"}) if told.get("valid") is False else outcome
