"""What one round gave, before it is judged."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from typing import Any

from pytest_flagperf import metrics
from pytest_flagperf import perflog
from pytest_flagperf.case import ResolvedCase
from pytest_flagperf.devices.vendor import Vendor
from pytest_flagperf.errors import InvalidMeasurement
from pytest_flagperf.perflog import Event


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


def measure(vendor: Vendor, case: ResolvedCase, ranks: Sequence[Sequence[Event]], times: metrics.JobTimes) -> Measured:
    """A round of ours from the events of its ranks. Raises ``InvalidMeasurement`` for what cannot be trusted."""
    precision = next((event.value for event in ranks[0] if event.name == perflog.PRECISION), {})
    found = vendor.chip(str(precision.get("device_name", "")))
    peak = found[1].peak.get(case.selection.precision) if found else None
    figures = metrics.training_metrics(
        ranks,
        times,
        targets=case.targets,
        flops=case.scale.flops,
        peak=peak * 1e12 if peak is not None else None,
    )
    missing = [name for name in REQUIRED if name not in figures]
    if missing:
        raise InvalidMeasurement(f"not measured: {', '.join(missing)}")
    shortest = case.config.get("minimum_time")
    if case.role == "throughput" and shortest and figures["train_time"] < shortest:
        raise InvalidMeasurement(
            f"measured for {figures['train_time']:.3g} s, the case asks for {shortest:g} s at least: too short to trust"
        )
    return Measured(figures, metrics.evaluations(ranks[0]), precision, chip=found[0] if found else None)
