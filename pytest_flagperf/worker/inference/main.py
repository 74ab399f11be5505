"""The part of a rank that is of inference: builds the workload, picks the role, runs the flow."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING
from typing import Any

from pytest_flagperf.errors import ConfigurationError
from pytest_flagperf.perflog import EventWriter
from pytest_flagperf.worker.inference import workload as workloads
from pytest_flagperf.worker.inference.flow import Flow
from pytest_flagperf.worker.inference.flow import Role
from pytest_flagperf.worker.inference.plan import Plan
from pytest_flagperf.worker.inference.plan import batch_size
from pytest_flagperf.worker.workload import Config
from pytest_flagperf.worker.workload import Data


if TYPE_CHECKING:
    from pytest_flagperf.launch.context import RankContext

_HERE = "pytest_flagperf.worker.inference"

# Role → module:function that measures it, called with an UnderTest.
ROLES = {
    "throughput": f"{_HERE}.batches:throughput",
    "edge": f"{_HERE}.batches:edge",
    "single_stream": f"{_HERE}.loadgen:single_stream",
    "multi_stream": f"{_HERE}.loadgen:multi_stream",
    "server": f"{_HERE}.loadgen:server",
    "offline": f"{_HERE}.loadgen:offline",
    "generation": f"{_HERE}.generation:generation",
}


def run(
    context: RankContext, case: dict[str, Any], events: EventWriter, versions: Callable[[], dict[str, str]]
) -> Callable[[], None]:
    """Run this rank's part of an inference case. Returns the framework's teardown."""
    framework = importlib.import_module(f"{_HERE}.{case['framework']}")
    runtime = framework.Runtime(context, case)
    flow = _flow(case["role"])(runtime, events, Plan.of(case), Path(context.host_dir))
    flow.run(lambda: build(runtime, case), role(case["role"]), versions())
    return runtime.teardown  # type: ignore[no-any-return]


def _flow(role: str) -> type[Flow]:
    if role != "generation":
        return Flow
    from pytest_flagperf.worker.inference.generation_flow import GenerationFlow

    return GenerationFlow


def role(name: str) -> Role:
    """What measures a role. Raises ``ConfigurationError`` for one that inference does not have."""
    module, _, function = ROLES.get(name, "").partition(":")
    if not module:
        raise ConfigurationError(f"inference has no role {name!r}; it has {', '.join(ROLES)}")
    try:
        found: Role = getattr(importlib.import_module(module), function)
    except ModuleNotFoundError as error:
        raise ConfigurationError(f"role {name} cannot be measured: {error}") from error
    return found


def build(runtime: Any, case: dict[str, Any]) -> workloads.InferenceWorkload:
    """The case's workload."""
    data, weights = case["dataset"], case.get("weights") or {}
    directory = case.get("workload_directory", case["directory"])
    workload: workloads.InferenceWorkload = workloads.load(directory, case["workload"], standard=case["directory"])(
        config=Config(case["config"]),
        data=Data(
            name=data["name"], path=Path(data["path"]) if data.get("path") else None, synthetic=data["synthetic"]
        ),
        weights=workloads.Weights(
            name=weights.get("name", ""),
            path=Path(weights["path"]) if weights.get("path") else None,
            origin=weights.get("origin", ""),
            checksum=weights.get("checksum", ""),
        ),
        seed=int(case["seed"]),
        batch_size=batch_size(case),
        device=runtime.device,
    )
    return workload
