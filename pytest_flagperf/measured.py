"""What one round gave, before it is judged."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from typing import Any

from pytest_flagperf import generation_log
from pytest_flagperf import inference_metrics
from pytest_flagperf import loadgen_log
from pytest_flagperf import metrics
from pytest_flagperf import perflog
from pytest_flagperf import samples
from pytest_flagperf.case import ResolvedCase
from pytest_flagperf.devices.vendor import Chip
from pytest_flagperf.devices.vendor import Vendor
from pytest_flagperf.errors import InvalidMeasurement
from pytest_flagperf.perflog import Event
from pytest_flagperf.result import LoadGenResult


# Beside a round's case.json: when its job started and ended, as JobTimes.
TIMES = "times.json"

# Without these a round of ours is no measurement.
REQUIRED = ("e2e_time", "train_time", "p_whole", "p_train", "p_core", "memory_peak")


@dataclass(frozen=True)
class Measured:
    """Metrics, evaluations, the precision in force, and what a reader has to know about them."""

    figures: Mapping[str, float]
    evaluations: Sequence[metrics.Evaluation] = ()
    precision: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    chip: str | None = None
    loadgen: LoadGenResult | None = None


def measure(
    vendor: Vendor,
    case: ResolvedCase,
    ranks: Sequence[Sequence[Event]],
    times: metrics.JobTimes,
    seen: samples.Samples | None = None,
) -> Measured:
    """A round of ours from the events of its ranks and what the monitor saw meanwhile.

    Raises ``InvalidMeasurement`` for what cannot be trusted.
    """
    if seen is not None:
        samples.refuse_foreign(seen)
    precision = next((event.value for event in ranks[0] if event.name == perflog.PRECISION), {})
    found = _chip(vendor, str(precision.get("device_name", "")), seen)
    # A stand-in's figures say nothing of the vendor's chip.
    peak = found[1].ceiling(case.selection.precision) if found and not case.stand_in else None
    figures, history = _figures(case, ranks, times, peak * 1e12 if peak is not None else None)
    took = figures.get("inference_time", figures.get("train_time", 0.0))
    shortest = case.config.get("minimum_time")
    if case.role != "convergence" and shortest and took < shortest:
        raise InvalidMeasurement(
            f"measured for {took:.3g} s, the case asks for {shortest:g} s at least: too short to trust"
        )
    watched = _watched(vendor, found[1] if found else None, ranks[0], seen)
    return Measured(
        {**figures, **watched.figures},
        history,
        precision,
        notes=(*watched.notes, *_notes(ranks[0])),
        chip=found[0] if found else None,
        loadgen=loadgen_log.said(ranks[0]),
    )


def _figures(
    case: ResolvedCase, ranks: Sequence[Sequence[Event]], times: metrics.JobTimes, peak: float | None
) -> tuple[dict[str, float], list[metrics.Evaluation]]:
    """Metrics and evaluations, by the kind of the case. Raises ``InvalidMeasurement`` where one is missing."""
    if case.case.kind == "inference":
        figures = inference_metrics.inference_metrics(
            ranks[0], times, targets=case.targets, flops=case.scale.flops, peak=peak
        )
        missing, history = inference_metrics.missing(figures, case.role), inference_metrics.evaluations(ranks[0])
    else:
        figures = metrics.training_metrics(ranks, times, targets=case.targets, flops=case.scale.flops, peak=peak)
        missing, history = [name for name in REQUIRED if name not in figures], metrics.evaluations(ranks[0])
    if missing:
        raise InvalidMeasurement(f"not measured: {', '.join(missing)}")
    return figures, history


def _notes(log: Sequence[Event]) -> list[str]:
    """What the events of an inference run have to say beside their figures."""
    loaded = next((event for event in log if event.name == perflog.LOAD_END), None)
    of_loadgen = loadgen_log.notes(log)
    random = loaded is not None and loaded.value.get("random_weights")
    return [
        *(["the weights are random: only the speed was measured, there is no quality"] if random else []),
        *of_loadgen,
        *generation_log.notes(log),
    ]


def _chip(vendor: Vendor, device_name: str, seen: samples.Samples | None) -> tuple[str, Chip] | None:
    """The chip that framework and driver tell of. Raises ``InvalidMeasurement`` where they tell of different ones."""
    framework, driver = vendor.chip(device_name), chip_of(vendor, seen) if seen else None
    if framework and driver and framework[0] != driver[0]:
        raise InvalidMeasurement(
            f"the framework ran on {device_name!r} ({framework[0]}), and the driver tells of {driver[0]}: check which "
            "devices the ranks see"
        )
    return framework or driver


def chip_of(vendor: Vendor, seen: samples.Samples) -> tuple[str, Chip] | None:
    """The chip that the watched devices call themselves by; ``None`` where they differ or say nothing."""
    names = {str(one.figures["name"]) for one in seen.samples if "name" in one.figures}
    return vendor.chip(names.pop()) if len(names) == 1 else None


def _watched(vendor: Vendor, chip: Chip | None, log: Sequence[Event], seen: samples.Samples | None) -> samples.Seen:
    """What the monitor saw in the measured window."""
    window = measured_window(log)
    if seen is None or window is None:
        return samples.Seen()
    watched = samples.metrics_of(seen, window, cards=cards(vendor, chip, seen.devices), hot=vendor.hot)
    metrics.refuse_impossible(watched.figures)
    return watched


def measured_window(log: Sequence[Event]) -> samples.Window | None:
    """TRAIN_START to TRAIN_END of a rank, of inference INFERENCE_BEGIN to _END, by the host's monotonic clock."""
    begins, closes = (perflog.TRAIN_START, perflog.INFERENCE_BEGIN), (perflog.TRAIN_END, perflog.INFERENCE_END)
    ends = [
        next((event.monotonic for event in reversed(log) if event.name in names), None) for names in (begins, closes)
    ]
    return (ends[0], ends[1]) if ends[0] is not None and ends[1] is not None else None


def cards(vendor: Vendor, chip: Chip | None, devices: Sequence[int]) -> dict[int, int] | None:
    """Device → card where power may be told for a card; ``None`` where it is for each device, empty where nobody knows.

    A chip of which a card has several devices may tell its power on one of them, whatever its vendor does as a rule.
    """
    dies = chip.dies_per_card if chip else None
    if vendor.power_scope == "device" and (dies or 1) == 1:
        return None
    if dies is None:
        return {}
    return {index: index // dies for index in range((max(devices, default=0) // dies + 1) * dies)}
