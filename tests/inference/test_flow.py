"""The whole flow of inference with an engine of NumPy: its memory, its latencies, and the files that stay."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from pytest_flagperf import perflog
from pytest_flagperf.errors import InvalidMeasurement
from pytest_flagperf.perflog import EventWriter
from pytest_flagperf.worker.inference import main
from pytest_flagperf.worker.inference import memory
from pytest_flagperf.worker.inference import registry
from pytest_flagperf.worker.inference.engine import BaseCompiled
from pytest_flagperf.worker.inference.engine import BaseEngine
from pytest_flagperf.worker.inference.flow import Flow
from pytest_flagperf.worker.inference.plan import Plan
from pytest_flagperf.worker.inference.workload import InferenceWorkload
from pytest_flagperf.worker.inference.workload import Weights
from pytest_flagperf.worker.workload import Config
from pytest_flagperf.worker.workload import Data


MIB = 2**20


class Numbers(InferenceWorkload):
    """A sample is its own number; preparing a batch takes ``pause`` seconds."""

    count = 20
    pause = 0.0

    def model(self) -> Any:
        return SimpleNamespace()

    def samples(self) -> int:
        return self.count

    def inputs(self, indices: Sequence[int]) -> Any:
        if self.pause:
            time.sleep(self.pause)
        return (np.asarray(indices, np.float32)[:, None],)


class Wide(BaseCompiled):
    """Each answer is a thousand floats: a view of more, as a framework's outputs may be. ``held`` is the engine's."""

    def __init__(self, held: int = 0, used: int = 0) -> None:
        self.held, self.used = np.ones(held, np.uint8), used

    def load(self, inputs: Any) -> None:
        (self.rows,) = inputs

    def execute(self) -> None:
        np.ones(self.used, np.uint8)

    def outputs(self) -> Any:
        return (np.repeat(self.rows, 1001, axis=1)[:, :1000],)


class Engine(BaseEngine):
    """Writes ``files`` when it exports: name → bytes."""

    name = "numbers"
    files: Mapping[str, int] = {}
    fault: Exception | None = None
    held = used = 0

    def export(self, model: Any, workload: Any, options: Any) -> Path | None:
        for name, count in self.files.items():
            path = options.directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(bytes(count))
        return options.directory / next(iter(self.files)) if self.files else None

    def compile(self, model: Any, workload: Any, options: Any) -> Any:
        if self.fault is not None:
            raise self.fault
        return Wide(self.held, self.used)


class Reference(BaseEngine):
    name = "eager"

    def compile(self, model: Any, workload: Any, options: Any) -> Any:
        return Wide()


@pytest.fixture
def flow(tmp_path, monkeypatch):
    """Runs the flow of a role, with what is changed of the workload and of the engine; gives the events."""

    def flow(role: str, *, engine: dict[str, Any] | None = None, **changes: Any) -> list[dict[str, Any]]:
        made = Engine()
        vars(made).update(engine or {})
        engines = {"numbers": made, "eager": Reference()}
        monkeypatch.setattr(registry, "load", lambda framework, name, role="": engines[name])
        case = {
            "role": role,
            "engine": "numbers",
            "framework": "pytorch",
            "precision": "fp32",
            "config": {"batch_size": 10, "repeat": 1, "warmup_batches": 1},
            "dataset": {"synthetic": True},
            "seed": 1,
        }
        runtime: Any = SimpleNamespace(device="cpu", threads=1, count=lambda model: 0, state=dict)
        kind = type("Changed", (Numbers,), changes)
        path = tmp_path / "rank0.jsonl"
        path.unlink(missing_ok=True)
        events = EventWriter(path, 0)
        plan = Plan.of(case)
        try:
            Flow(runtime, events, plan, tmp_path).run(
                lambda: kind(Config({}), Data("none", None, True), Weights(), 1, plan.batch_size, "cpu"),
                main.role(role),
                {},
            )
        finally:
            events.close()
        return [json.loads(line) for line in path.read_text().splitlines()]

    return flow


def value(log: list[dict[str, Any]], name: str) -> dict[str, Any]:
    (found,) = [event["value"] for event in log if event["event"] == name]
    return found


def peak(log: list[dict[str, Any]]) -> float:
    """In MiB. Where the system forbids to reset it, it is that of the whole process: nothing can be said of it."""
    found = value(log, perflog.FINISHED)
    resident = memory.Resident()
    resident.restart()
    if resident.since != memory.RESTARTED:
        pytest.skip("this system forbids resetting the peak of memory")
    assert found["memory_since"] == memory.RESTARTED
    return found["memory_peak"] * 1024


@pytest.mark.parametrize("role", ["throughput", "edge"])
def test_memory_does_not_grow_with_the_samples_whose_answers_are_kept(flow, role):
    # 20,000 answers are 76 MiB, of the reference as of the engine; at most 4,096 are looked at while it is measured.
    few, many = peak(flow(role, count=500)), peak(flow(role, count=20_000))
    assert abs(many - few) < 8


def test_memory_has_what_the_engine_holds_and_what_it_uses_for_a_moment(flow):
    least = peak(flow("throughput", count=500))
    found = peak(flow("throughput", count=500, engine={"held": 64 * MIB, "used": 96 * MIB}))
    assert found - least == pytest.approx(160, abs=8)


def test_a_latency_at_the_edge_begins_when_the_sample_is_prepared_and_the_throughput_has_the_preparation(flow):
    log = flow("edge", pause=0.02)
    (queries,) = [event for event in log if event["event"] == perflog.QUERIES]
    assert len(queries["value"]["latencies_ns"]) == 20
    assert float(np.median(queries["value"]["latencies_ns"])) < 10e6
    at = {event["event"]: event["metadata"]["monotonic_ns"] for event in log}
    assert at[perflog.INFERENCE_END] - at[perflog.INFERENCE_BEGIN] > 20 * 20e6


def test_latencies_come_in_chunks_each_of_them_once(flow, monkeypatch):
    from pytest_flagperf.worker.inference import batches

    monkeypatch.setattr(batches, "CHUNK", 8)
    chunks = [event["value"]["latencies_ns"] for event in flow("edge") if event["event"] == perflog.QUERIES]
    assert [len(chunk) for chunk in chunks] == [8, 8, 4]
    assert len({latency for chunk in chunks for latency in chunk}) > 1


FILES = {"model.onnx": 1000, "model.onnx.data": 3 * MIB, "caches/kernel.so": 2 * MIB, "caches/trtexec.log": 2 * MIB}


def test_a_run_that_succeeds_leaves_nothing_of_its_engine(flow, tmp_path):
    log = flow("throughput", engine={"files": FILES})
    assert not (tmp_path / "engine").exists()
    # The weights of a large model are in a file beside.
    assert value(log, perflog.EXPORT_END)["bytes"] == 1000 + 3 * MIB


def test_a_run_that_fails_leaves_logs_and_small_files_and_the_names_of_those_that_are_removed(flow, tmp_path):
    with pytest.raises(InvalidMeasurement, match="no kernel"):
        flow("throughput", engine={"files": FILES, "fault": InvalidMeasurement("no kernel")})
    kept = {str(path.relative_to(tmp_path / "engine")) for path in tmp_path.glob("engine/**/*") if path.is_file()}
    assert kept == {"model.onnx", "caches/trtexec.log", "removed.txt"}
    assert (tmp_path / "engine" / "removed.txt").read_text() == (
        f"bytes\tremoved when the run had failed\n{3 * MIB}\tmodel.onnx.data\n{2 * MIB}\tcaches/kernel.so\n"
    )


def test_a_run_whose_answers_are_refused_leaves_no_large_file(flow, tmp_path, monkeypatch):
    monkeypatch.setattr(Wide, "outputs", lambda self: (np.full((len(self.rows), 1), np.nan),))
    with pytest.raises(InvalidMeasurement, match="NaN"):
        flow("throughput", engine={"files": {"model.onnx": 1000, "model.onnx.data": 3 * MIB}})
    assert not (tmp_path / "engine" / "model.onnx.data").exists()
