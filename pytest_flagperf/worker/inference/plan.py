"""What a run of inference does, as its ``case.json`` says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pytest_flagperf.worker.inference import scenarios


# Seconds that an export or a compilation may take where the case does not say.
COMPILE_TIMEOUT = 600.0


@dataclass(frozen=True)
class Plan:
    """What a run does, from its ``case.json``."""

    role: str
    engine: str
    framework: str
    precision: str
    batch_size: int
    warmup_batches: int
    calibration_samples: int
    compile_timeout: float
    stall_timeout: float
    dynamic: bool
    parameters: int | None
    random_weights: bool
    synthetic: bool
    seed: int
    config: Mapping[str, Any]

    @classmethod
    def of(cls, case: Mapping[str, Any]) -> Plan:
        """The plan in a ``case.json``. At the edge a batch is one sample."""
        config = case["config"]
        timeout = float(config.get("compile_timeout", COMPILE_TIMEOUT))
        return cls(
            role=case["role"],
            engine=case["engine"],
            framework=case["framework"],
            precision=case["precision"],
            batch_size=batch_size(case),
            warmup_batches=int(config.get("warmup_batches", 3)),
            calibration_samples=int(config.get("calibration_samples", 128)),
            compile_timeout=timeout,
            stall_timeout=float(case.get("stall_timeout", timeout)),
            dynamic=bool(config.get("dynamic", True)),
            parameters=case.get("parameters"),
            random_weights=not (case.get("weights") or {}).get("path"),
            synthetic=bool(case["dataset"]["synthetic"]),
            seed=int(case["seed"]),
            config=config,
        )

    @property
    def has_quality(self) -> bool:
        """Whether answers can be right: real weights, and real data with labels."""
        return not (self.random_weights or self.synthetic)


def batch_size(case: Mapping[str, Any]) -> int:
    """Samples of a batch; one at the edge."""
    return scenarios.batch_size(case["role"], int(case["config"]["batch_size"]))
