"""Events to metrics: every name, unit, direction and formula, once.

Durations are in seconds, memory in GiB (2^30 bytes), rates in the SI sense. A metric that was not measured is
absent; it is never zero.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pytest_flagperf import perflog
from pytest_flagperf.errors import ConfigurationError
from pytest_flagperf.errors import InvalidMeasurement
from pytest_flagperf.perflog import Event


@dataclass(frozen=True)
class Metric:
    """A registered metric. ``better`` is ``higher`` or ``lower``; ``quality`` says it may be a target of training."""

    name: str
    unit: str
    better: str
    description: str
    quality: bool = False


_REGISTRY: dict[str, Metric] = {}


def register(name: str, unit: str, better: str, description: str, *, quality: bool = False) -> Metric:
    """Add a metric to the registry. A suite of one's own may add quality metrics; a name means one thing only."""
    if better not in ("higher", "lower"):
        raise ConfigurationError(f"metric {name}: better is 'higher' or 'lower'")
    metric = Metric(name, unit, better, description, quality)
    if _REGISTRY.setdefault(name, metric) != metric:
        raise ConfigurationError(f"metric {name!r} is registered already, as {_REGISTRY[name]}")
    return metric


def known() -> Mapping[str, Metric]:
    """All registered metrics by name."""
    return dict(sorted(_REGISTRY.items()))


def get(name: str) -> Metric:
    """The metric ``name``. Raises ``ConfigurationError`` that lists what exists."""
    try:
        return _REGISTRY[name]
    except KeyError:
        near = difflib.get_close_matches(name, _REGISTRY, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ConfigurationError(f"unknown metric {name!r}.{hint} Known: {', '.join(sorted(_REGISTRY))}") from None


for _name, _unit, _better, _description in (
    ("e2e_time", "s", "lower", "job start, before the first process is spawned, to the exit of the last rank"),
    ("init_time", "s", "lower", "job start to TRAIN_START; of inference to the model with its weights"),
    ("train_time", "s", "lower", "TRAIN_START to TRAIN_END, evaluation included"),
    ("time_to_target", "s", "lower", "TRAIN_START to the EVALUATE at which every target holds"),
    ("p_whole", "samples/s", "higher", "samples trained / train_time"),
    ("p_train", "samples/s", "higher", "samples trained / (train_time - time in evaluation)"),
    ("p_core", "samples/s", "higher", "samples trained / time in forward, backward and optimizer"),
    ("mfu", "ratio", "higher", "model FLOPs per second / (peak of the precision x devices)"),
    (
        "memory_peak",
        "GiB",
        "lower",
        "highest of the ranks: allocator's peak; on CPU peak RSS, of inference the model's part",
    ),
    ("memory_total", "GiB", "higher", "memory of one device; on CPU that of the host"),
    ("final_loss", "1", "lower", "training loss at the last step that was logged"),
    ("power", "W", "lower", "mean power of the case's devices together, as their driver tells it"),
    ("energy", "J", "lower", "energy of the case's devices together, by their counter or the trapezoid of power"),
    ("temperature", "°C", "lower", "highest temperature of any of the devices"),
    ("device_utilization", "ratio", "higher", "mean utilization of the devices, as their driver tells it"),
    ("memory_device_peak", "GiB", "lower", "highest memory in use that the monitor saw on one device"),
    ("clock", "MHz", "higher", "mean clock of the compute units of the devices"),
    ("throttled", "ratio", "lower", "share of samples in which a device had its clock lowered"),
    ("ecc_errors", "1", "lower", "uncorrected memory errors that the devices counted during the job"),
    ("cpu_utilization", "ratio", "lower", "mean utilization of the host's processors"),
    ("host_memory_used", "GiB", "lower", "highest memory in use on the host"),
):
    register(_name, _unit, _better, _description)

# Of inference; memory, mfu, e2e_time and init_time are those above.
for _name, _unit, _better, _description in (
    ("p_validation_whole", "samples/s", "higher", "samples / time of the reference's pass: eager, fp32, data pipeline"),
    ("p_validation_core", "samples/s", "higher", "samples / time in the reference's forward pass"),
    ("p_inference_whole", "samples/s", "higher", "samples / inference_time: data pipeline, copies and forward pass"),
    ("p_inference_core", "samples/s", "higher", "samples / time in the engine's forward pass, inputs on the device"),
    ("inference_time", "s", "lower", "INFERENCE_BEGIN to INFERENCE_END"),
    ("compile_time", "s", "lower", "export and compilation"),
    ("engine_size", "MiB", "lower", "what the engine compiled the model to: its file, or its weights"),
    ("quality_ratio", "ratio", "higher", "the engine's quality / that of the framework's eager execution in fp32"),
    ("output_error", "ratio", "lower", "largest error of a sample's outputs against eager fp32, by their norm"),
    ("latency_mean", "ms", "lower", "mean time from the scheduled arrival of a query to its answer"),
    ("latency_p50", "ms", "lower", "median of the latency of queries"),
    ("latency_p90", "ms", "lower", "90th percentile of the latency of queries"),
    ("latency_p99", "ms", "lower", "99th percentile of the latency of queries"),
    ("latency_p999", "ms", "lower", "99.9th percentile of the latency of queries"),
    (
        "latency_early_stopping",
        "ms",
        "lower",
        "p90 or p99 of a stream as early stopping estimates it",
    ),
    ("qps", "queries/s", "higher", "highest rate of queries at which the bound of latency holds"),
    ("ttft", "ms", "lower", "time from a prompt to its first token"),
    ("tpot", "ms", "lower", "time for each further token"),
    ("tokens_per_second_per_device", "tokens/s", "higher", "tokens generated / time, on one device"),
):
    register(_name, _unit, _better, _description)

# Of several cases of a session together.
for _name, _unit, _better, _description in (
    ("amp_speedup", "ratio", "higher", "p_train in amp / p_train in fp32, same topology"),
    ("scaling_efficiency", "ratio", "higher", "p_train at n devices / (n x p_train at 1), same precision and batch"),
    ("reference_ratio", "ratio", "higher", "a rate / the published one of another chip; of a time the reciprocal"),
):
    register(_name, _unit, _better, _description)

# Of operators and hardware.
for _name, _unit, _better, _description in (
    ("time", "µs", "lower", "median time of one call over the measured iterations"),
    ("time_mean", "µs", "lower", "mean time of one call"),
    ("time_min", "µs", "lower", "shortest time of one call"),
    ("time_p99", "µs", "lower", "99th percentile of the time of one call"),
    ("cv", "ratio", "lower", "coefficient of variation of the time: standard deviation / mean"),
    ("first_call", "µs", "lower", "time of the first call, cold, by the host's clock"),
    ("wall_time", "µs", "lower", "median time of one call by the host's clock, queueing included"),
    ("dense_time", "µs", "lower", "median time of the dense call of the same size and precision"),
    ("speedup_vs_dense", "ratio", "higher", "dense_time / time"),
    ("tflops", "TFLOP/s", "higher", "declared FLOPs of the problem / time; for int8 TOP/s"),
    ("bandwidth", "GB/s", "higher", "declared bytes of the problem / time, one direction of a link"),
    ("algbw", "GB/s", "higher", "bytes of one rank's message / time"),
    ("busbw", "GB/s", "higher", "algbw x 2 (P - 1) / P over P ranks: what each link carries, in one direction"),
    ("capacity", "GiB", "higher", "memory that could be allocated and written on the device"),
    ("utilization", "ratio", "higher", "achieved / peak of that precision, or of the memory or link that was measured"),
    (
        "max_relative_error",
        "ratio",
        "lower",
        "largest error of the timed call's result, against a reference of higher precision",
    ),
):
    register(_name, _unit, _better, _description)

for _name, _unit, _better, _description in (
    ("top1", "ratio", "higher", "share of samples whose most probable class is right"),
    ("top5", "ratio", "higher", "share of samples whose class is among the five most probable"),
    ("accuracy", "ratio", "higher", "share of right answers"),
    ("mlm_accuracy", "ratio", "higher", "share of masked tokens predicted right"),
    ("auc", "ratio", "higher", "area under the ROC curve"),
    ("bleu", "BLEU", "higher", "corpus BLEU, 0..100, as sacrebleu gives it"),
    ("map", "ratio", "higher", "mean average precision, COCO's definition"),
    ("box_ap", "ratio", "higher", "COCO average precision of boxes"),
    ("mask_ap", "ratio", "higher", "COCO average precision of masks"),
    ("rouge1", "ratio", "higher", "ROUGE-1 F-measure"),
    ("perplexity", "1", "lower", "exp of the mean negative log likelihood a token"),
    ("evaluation_loss", "1", "lower", "loss on the evaluation split"),
    ("wer", "ratio", "lower", "word error rate"),
    ("cer", "ratio", "lower", "character error rate"),
    ("recall_at_1", "ratio", "higher", "share of queries whose nearest text is the right one"),
    ("mrr", "ratio", "higher", "mean of 1 / the rank of the right text"),
    ("noise_mse", "1", "lower", "mean squared error of the noise that a denoising step predicts"),
    ("win_rate", "ratio", "higher", "share of games won"),
):
    register(_name, _unit, _better, _description, quality=True)


@dataclass(frozen=True)
class JobTimes:
    """When a job started and ended, by the host's monotonic clock and by Unix time, in seconds."""

    started: float
    ended: float
    time_started: float
    time_ended: float


@dataclass(frozen=True)
class Evaluation:
    """One evaluation of a run: when, after how much training, and what it found."""

    epoch: float
    step: int
    seconds: float
    quality: Mapping[str, float]


def evaluations(events: Sequence[Event]) -> list[Evaluation]:
    """The evaluations of one rank, in order; ``seconds`` counts from TRAIN_START."""
    start = _first(events, perflog.TRAIN_START)
    found = []
    for event in events:
        if event.name == perflog.EVALUATE and start is not None:
            quality = {k: v for k, v in event.value.items() if k not in ("epoch", "global_steps")}
            for name, value in quality.items():
                if not get(name).quality:
                    raise InvalidMeasurement(f"the evaluation gave {name}: the harness measures it, no workload may")
                if isinstance(value, bool) or not isinstance(value, (int, float)):
                    raise InvalidMeasurement(f"the evaluation gave {name} = {value!r}: not a figure")
            found.append(
                Evaluation(
                    epoch=float(event.value.get("epoch", 0)),
                    step=int(event.value.get("global_steps", 0)),
                    seconds=event.seconds_since(start),
                    quality=quality,
                )
            )
    return found


def training_metrics(
    ranks: Sequence[Sequence[Event]],
    times: JobTimes,
    *,
    targets: Sequence[Any] = (),
    flops: float | None = None,
    peak: float | None = None,
) -> dict[str, float]:
    """The metrics of one round of training, from the events of every rank.

    ``flops`` is the model's FLOPs a sample, ``peak`` the FLOP/s of one device at the precision in force; with
    either missing ``mfu`` is absent. Raises ``InvalidMeasurement`` where the log contradicts itself.
    """
    if not ranks or any(_first(events, perflog.FINISHED) is None for events in ranks):
        raise InvalidMeasurement("not every rank wrote FINISHED: the run is incomplete")
    log = ranks[0]
    start, end = _first(log, perflog.TRAIN_START), _first(log, perflog.TRAIN_END)
    if start is None or end is None:
        raise InvalidMeasurement("rank 0 wrote FINISHED without TRAIN_START and TRAIN_END")

    found: dict[str, float] = {"e2e_time": times.ended - times.started, "train_time": end.seconds_since(start)}
    if start.monotonic is not None:
        found["init_time"] = start.monotonic - times.started
    samples = sum(_training_total(events, "rank_samples") for events in ranks)
    found["p_whole"] = _rate(samples, found["train_time"], "train_time")
    found["p_train"] = _rate(samples, found["train_time"] - _evaluation_time(log), "train_time less evaluation")
    core = max(_training_total(events, "core_time") for events in ranks)
    found["p_core"] = _rate(samples, core, "time in forward, backward and optimizer")
    if flops is not None and peak is not None:
        found["mfu"] = found["p_train"] * flops / (peak * len(ranks))

    finished = [_first(events, perflog.FINISHED) for events in ranks]
    peaks = [event.value["memory_peak"] for event in finished if event is not None and "memory_peak" in event.value]
    if len(peaks) == len(ranks):
        found["memory_peak"] = max(peaks)
    totals = [event.value["memory_total"] for event in finished if event is not None and "memory_total" in event.value]
    if totals:
        found["memory_total"] = min(totals)
    losses = [event.value["loss"] for event in log if event.name == perflog.STEP_END and "loss" in event.value]
    if losses:
        found["final_loss"] = losses[-1]

    history = evaluations(log)
    if history:
        found.update(history[-1].quality)
        reached = time_to_target(history, targets)
        if reached is not None:
            found["time_to_target"] = reached
    refuse_impossible(found)
    return found


def time_to_target(history: Sequence[Evaluation], targets: Sequence[Any]) -> float | None:
    """Seconds to the first evaluation at which every target holds; ``None`` where none does, or there is no target."""
    for evaluation in history:
        if targets and all(target.holds(evaluation.quality.get(target.metric)) for target in targets):
            return evaluation.seconds
    return None


def _first(events: Sequence[Event], name: str) -> Event | None:
    return next((event for event in events if event.name == name), None)


def _training_total(events: Sequence[Event], key: str) -> float:
    end = _first(events, perflog.TRAIN_END)
    if end is None or not isinstance(end.value.get(key), (int, float)):
        raise InvalidMeasurement(f"a rank's TRAIN_END lacks {key}")
    return float(end.value[key])


def _evaluation_time(events: Sequence[Event]) -> float:
    seconds, begin = 0.0, None
    for event in events:
        if event.name == perflog.EVALUATE_BEGIN:
            begin = event
        elif event.name == perflog.EVALUATE and begin is not None:
            seconds += event.seconds_since(begin)
            begin = None
    return seconds


def _rate(samples: float, seconds: float, what: str) -> float:
    if samples <= 0:
        raise InvalidMeasurement("no sample was trained")
    if seconds <= 0:
        raise InvalidMeasurement(f"{what} is {seconds:g} s: not a time")
    return samples / seconds


_NEVER_NEGATIVE = (
    "s",
    "ms",
    "MiB",
    "queries/s",
    "tokens/s",
    "samples/s",
    "GiB",
    "ratio",
    "W",
    "J",
    "MHz",
    "µs",
    "TFLOP/s",
    "GB/s",
)

# Above the peak by more than its own uncertainty: the clock, the FLOP count or the peak is wrong.
UTILIZATION_LIMIT = 1.05


def refuse_impossible(found: Mapping[str, float]) -> None:
    """Raise ``InvalidMeasurement`` for NaN, infinite and negative figures and for a utilization above 105 %."""
    for name, value in found.items():
        metric = get(name)
        if not math.isfinite(value):
            raise InvalidMeasurement(f"{name} is {value}: not a figure")
        if value < 0 and metric.unit in _NEVER_NEGATIVE:
            raise InvalidMeasurement(f"{name} is {value:g} {metric.unit}: it cannot be negative")
        if metric.unit == "ratio" and metric.quality and value > 1:
            raise InvalidMeasurement(f"{name} is {value:g}: a ratio lies between 0 and 1, percent are not ratios")
    if found.get("mfu", 0.0) > UTILIZATION_LIMIT:
        raise InvalidMeasurement(
            f"mfu is {found['mfu']:.4g}: more than the chip's peak. Suspect the peak in the vendor file, the "
            "case's FLOPs, or a clock that stopped before the work did"
        )
