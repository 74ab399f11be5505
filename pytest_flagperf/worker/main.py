"""The entry of a rank: reads ``case.json``, picks the framework's adapter, runs the loop."""

from __future__ import annotations

import importlib
import json
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pytest_flagperf import perflog
from pytest_flagperf.launch.context import RankContext
from pytest_flagperf.perflog import EventWriter
from pytest_flagperf.worker import workload as workloads
from pytest_flagperf.worker.loop import LOG_INTERVAL
from pytest_flagperf.worker.loop import Plan
from pytest_flagperf.worker.loop import Training
from pytest_flagperf.worker.loop import rank_batch_size


_FRAMEWORKS = ("torch", "paddle", "mindspore")


def main(context: RankContext) -> Callable[[], None]:
    """Run this rank's part of the case. Returns the framework's teardown, to be called once the outcome is recorded."""
    case = json.loads(Path(context.case_file).read_text(encoding="utf-8"))
    events = EventWriter(Path(context.host_dir) / f"rank{context.rank}.events.jsonl", context.rank)
    events.write(perflog.LAUNCH_TRAINING, other="Launch training")
    events.write(
        perflog.SUBMIT_INFO,
        {"vendor": case["vendor"], "model": case["model"], "config_path": context.case_file, "config": case["config"]},
    )
    events.write(perflog.INIT_START)
    module = str(case["device"].get("module", ""))
    if case.get("kind") == "inference":
        from pytest_flagperf.worker.inference.main import run

        return run(context, case, events, lambda: _versions(module))
    backend = importlib.import_module(f"pytest_flagperf.worker.{case['framework']}").Backend(context, case)
    workload = build_workload(backend, case, events)
    training = Training(backend, workload, events, Plan.of(case), _versions(module))
    training.prepare()
    if case["role"] == "throughput":
        training.measure()
    else:
        training.converge()
    training.finish()
    if case.get("weights_to"):
        backend.save(case["weights_to"])
    return backend.teardown  # type: ignore[no-any-return]


def _versions(module: str) -> dict[str, str]:
    """Python, and the frameworks that are imported here: only the rank knows what its interpreter holds."""
    found = {"python": platform.python_version()}
    for name in (*_FRAMEWORKS, module):
        version = getattr(sys.modules.get(name), "__version__", None)
        if version is not None:
            found[name] = str(version)
    return found


def build_workload(backend: Any, case: dict[str, Any], events: EventWriter) -> workloads.Workload:
    """The case's workload, on this rank."""
    config = workloads.Config(case["config"])
    data = case["dataset"]
    directory = case.get("workload_directory", case["directory"])
    workload: workloads.Workload = workloads.load(directory, case["workload"], standard=case["directory"])(
        config=config,
        data=workloads.Data(
            name=data["name"], path=Path(data["path"]) if data.get("path") else None, synthetic=data["synthetic"]
        ),
        ranks=LoggedRanks(backend, events),
        seed=int(case["seed"]),
        batch_size=rank_batch_size(config, backend.world_size),
        device=backend.device,
    )
    return workload


class LoggedRanks:
    """The ranks as a workload sees them: the backend's collectives, and signs of life in the event log."""

    def __init__(self, backend: Any, events: EventWriter) -> None:
        self.rank: int = backend.rank
        self.world_size: int = backend.world_size
        self._backend = backend
        self._events = events

    def sum(self, values: Any) -> list[float]:
        """See :class:`~pytest_flagperf.worker.workload.Ranks`."""
        return self._backend.sum(values)  # type: ignore[no-any-return]

    def gather(self, array: Any) -> Any:
        """See :class:`~pytest_flagperf.worker.workload.Ranks`."""
        return self._backend.gather(array)

    def progress(self, what: str, done: int, total: int) -> None:
        """See :class:`~pytest_flagperf.worker.workload.Ranks`."""
        if time.monotonic() - self._events.last_written >= LOG_INTERVAL:
            self._events.write(perflog.PROGRESS, {"what": what, "done": done, "total": total})
