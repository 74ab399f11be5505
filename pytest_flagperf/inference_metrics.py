"""Events of an inference run to metrics: every formula, once. The names are registered in :mod:`.metrics`."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

from pytest_flagperf import loadgen_log
from pytest_flagperf import metrics
from pytest_flagperf import perflog
from pytest_flagperf.errors import InvalidMeasurement
from pytest_flagperf.metrics import Evaluation
from pytest_flagperf.metrics import JobTimes
from pytest_flagperf.perflog import Event


# Without these a round is no measurement.
REQUIRED = ("e2e_time", "init_time", "compile_time", "p_validation_whole", "p_validation_core", "output_error")
REQUIRED_OF_ROLE: Mapping[str, tuple[str, ...]] = {
    "throughput": ("p_inference_whole", "p_inference_core"),
    "edge": ("p_inference_whole", "p_inference_core", "latency_p99"),
    "single_stream": ("latency_p90",),
    "multi_stream": ("latency_p99",),
    "server": ("qps", "latency_p99"),
    "offline": ("p_inference_whole",),
    "generation": ("ttft", "tpot", "tokens_per_second_per_device"),
}

PERCENTILES = {"latency_p50": 0.5, "latency_p90": 0.9, "latency_p99": 0.99, "latency_p999": 0.999}

# What a role may tell in INFERENCE_END of its own figures, beside what is computed here.
TOLD = ("ttft", "tpot", "tokens_per_second_per_device")

_MIB = 2**20


def inference_metrics(
    events: Sequence[Event],
    times: JobTimes,
    *,
    targets: Sequence[Any] = (),
    flops: float | None = None,
    peak: float | None = None,
) -> dict[str, float]:
    """The metrics of one round of inference on one device.

    ``flops`` is the forward FLOPs a sample, ``peak`` the FLOP/s of the device at the precision in force; with either
    missing ``mfu`` is absent. Raises ``InvalidMeasurement`` where the log is incomplete or contradicts itself.
    """
    log = {event.name: event for event in events}
    finished = _event(log, perflog.FINISHED)
    loaded = _event(log, perflog.LOAD_END)
    begin, end = _event(log, perflog.INFERENCE_BEGIN), _event(log, perflog.INFERENCE_END)
    found: dict[str, float] = {"e2e_time": times.ended - times.started}
    if loaded.monotonic is not None:
        found["init_time"] = loaded.monotonic - times.started
    found |= _rates("p_validation", _event(log, perflog.VALIDATION_END))
    found |= _compilation(log)
    found |= _accuracy(log, targets)
    found |= _performance(begin, end)
    found |= latencies(events)
    found |= loadgen_log.figures(end)
    core = found.get("p_inference_core")
    if core is not None and flops is not None and peak is not None:
        found["mfu"] = core * flops / peak
    found |= {name: finished.value[name] for name in ("memory_peak", "memory_total") if name in finished.value}
    metrics.refuse_impossible(found)
    return found


def missing(figures: Mapping[str, float], role: str) -> list[str]:
    """Metrics without which a round of the role is no measurement, and that are not there."""
    return [name for name in (*REQUIRED, *REQUIRED_OF_ROLE.get(role, ())) if name not in figures]


def evaluations(events: Sequence[Event]) -> list[Evaluation]:
    """Quality of the reference (step 0) and of the engine (step 1); ``seconds`` counts from the start of the load."""
    start = next((event for event in events if event.name == perflog.LOAD_BEGIN), None)
    found = []
    for step, name in enumerate((perflog.VALIDATION_END, perflog.ACCURACY_END)):
        event = next((event for event in events if event.name == name), None)
        if event is not None and start is not None and event.value.get("quality"):
            found.append(Evaluation(0.0, step, event.seconds_since(start), _quality(event)))
    return found


def latencies(events: Sequence[Event]) -> dict[str, float]:
    """Mean and percentiles in ms of all QUERIES, from the scheduled arrival of a query to its answer."""
    chunks = (event.value.get("latencies_ns", ()) for event in events if event.name == perflog.QUERIES)
    ordered = sorted(itertools.chain.from_iterable(chunks))
    if not ordered:
        return {}
    found = {name: percentile(ordered, share) / 1e6 for name, share in PERCENTILES.items()}
    return {"latency_mean": sum(ordered) / len(ordered) / 1e6, **found}


def percentile(ordered: Sequence[float], share: float) -> float:
    """The smallest of the ordered values that ``share`` of them lie below, as LoadGen takes it: no interpolation."""
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)]


def quality_ratio(
    reference: Mapping[str, float], engine: Mapping[str, float], names: Sequence[str] = ()
) -> float | None:
    """The smallest share of the reference's quality that the engine keeps, over ``names`` or else all of them.

    Of a metric where lower is better it is the reference's figure by the engine's. ``None`` where there is none.
    """
    chosen = [name for name in names if name in reference] or list(reference)
    ratios = [_ratio(name, reference[name], engine[name]) for name in chosen if name in engine]
    return min(ratios, default=None)


def _ratio(name: str, reference: float, engine: float) -> float:
    over, under = (engine, reference) if metrics.get(name).better == "higher" else (reference, engine)
    if under == 0:
        if over == 0:
            return 1.0
        raise InvalidMeasurement(f"{name} of {'the reference' if under is reference else 'the engine'} is 0: no ratio")
    return over / under


def _event(log: Mapping[str, Event], name: str) -> Event:
    if name not in log:
        raise InvalidMeasurement(f"the run wrote no {name}: it is incomplete")
    return log[name]


def _compilation(log: Mapping[str, Event]) -> dict[str, float]:
    seconds = _event(log, perflog.EXPORT_END).seconds_since(_event(log, perflog.EXPORT_BEGIN))
    compiled = _event(log, perflog.COMPILE_END)
    seconds += compiled.seconds_since(_event(log, perflog.COMPILE_BEGIN))
    size = compiled.value.get("size_bytes")
    return {"compile_time": seconds, **({"engine_size": size / _MIB} if size else {})}


def _accuracy(log: Mapping[str, Event], targets: Sequence[Any]) -> dict[str, float]:
    """The engine's quality, what of the reference's it kept, and how far its outputs are from the reference's."""
    accuracy = _event(log, perflog.ACCURACY_END)
    reference, engine = _quality(_event(log, perflog.VALIDATION_END)), _quality(accuracy)
    if set(reference) != set(engine):
        raise InvalidMeasurement(
            f"quality was {sorted(reference)} of the reference, and {sorted(engine)} of the engine"
        )
    found = {**engine, "output_error": _figure(accuracy, "output_error")}
    ratio = quality_ratio(reference, engine, [target.metric for target in targets])
    return found if ratio is None else {**found, "quality_ratio": ratio}


def _performance(begin: Event, end: Event) -> dict[str, float]:
    seconds = end.seconds_since(begin)
    found = {"inference_time": seconds}
    units = end.value.get("units", end.value.get("samples"))
    if units is not None:
        found["p_inference_whole"] = _rate(units, seconds, "inference_time")
        if "core_time" in end.value:
            found["p_inference_core"] = _rate(units, _figure(end, "core_time"), "time in the forward pass")
    return found | {name: _figure(end, name) for name in TOLD if name in end.value}


def _rates(name: str, event: Event) -> dict[str, float]:
    units = _figure(event, "units")
    return {
        f"{name}_whole": _rate(units, _figure(event, "whole_time"), "the time of the validation"),
        f"{name}_core": _rate(units, _figure(event, "core_time"), "time in the forward pass of the validation"),
    }


def _rate(units: float, seconds: float, what: str) -> float:
    if units <= 0:
        raise InvalidMeasurement("no sample was answered")
    if seconds <= 0:
        raise InvalidMeasurement(f"{what} is {seconds:g} s: not a time")
    return units / seconds


def _figure(event: Event, key: str) -> float:
    value = event.value.get(key)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise InvalidMeasurement(f"{event.name} lacks {key}")
    return float(value)


def _quality(event: Event) -> dict[str, float]:
    """Quality metrics of an event. Raises ``InvalidMeasurement`` for what no workload may measure."""
    found = {}
    for name, value in (event.value.get("quality") or {}).items():
        value = perflog.from_json_number(value)
        if not metrics.get(name).quality:
            raise InvalidMeasurement(f"the evaluation gave {name}: the harness measures it, no workload may")
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise InvalidMeasurement(f"the evaluation gave {name} = {value!r}: not a figure")
        found[name] = float(value)
    return found
