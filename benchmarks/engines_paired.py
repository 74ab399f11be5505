"""Engines against their own tools: ``p_inference_core`` must be at least 97 % of a bare loop's or the tool's rate.

One side is the plugin's loop as it runs in a case: its batches, its adapter, its clock. The other is the same model,
compiled by the engine's own means and called as a person would call it, with its inputs prepared:
``torch.utils.benchmark`` for what PyTorch executes, a loop of ``session.run`` for ONNX Runtime, ``infer`` of one
request for OpenVINO, ``run`` of a predictor and a call of a graph. The sides take turns in one process, some calls
each. OpenVINO is held against ``benchmark_app`` too, which is a process of its own and takes turns with longer windows.

Each engine has a process to itself: frameworks do not get on with each other in one. With one thread, which never waits
for anybody, the bound is judged by processor time, which neighbours do not take part in; with several by wall time.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import itertools
import multiprocessing
import os
import runpy
import sys
import tempfile
import time
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import paired
from engines_bare import BARE
from engines_bare import TOOL
from engines_bare import TOOL_WINDOW
from engines_bare import WARM
from engines_bare import Rate
from engines_bare import benchmark_app
from engines_bare import tool

from pytest_flagperf import overlay
from pytest_flagperf import perflog
from pytest_flagperf.case import FRAMEWORK_MODULES
from pytest_flagperf.case import Selection
from pytest_flagperf.case import Topology
from pytest_flagperf.devices import vendor as vendors
from pytest_flagperf.launch.context import RankContext
from pytest_flagperf.worker.inference import batches
from pytest_flagperf.worker.inference import main as worker
from pytest_flagperf.worker.inference import registry
from pytest_flagperf.worker.inference.answers import Answers
from pytest_flagperf.worker.inference.answers import Seen
from pytest_flagperf.worker.inference.engine import BaseCompiled
from pytest_flagperf.worker.inference.engine import Compiled
from pytest_flagperf.worker.inference.engine import CompileOptions
from pytest_flagperf.worker.inference.flow import UnderTest
from pytest_flagperf.worker.inference.workload import InferenceWorkload


BOUND = 0.97
SUITE = Path(__file__).resolve().parent.parent / "suites" / "inference" / "resnet50" / "test_resnet50.py"
ENGINES = (
    *("pytorch.eager", "pytorch.inductor", "pytorch.aotinductor", "pytorch.onnxruntime", "pytorch.openvino"),
    *("paddle.eager", "paddle.paddle_inference", "mindspore.eager", "mindspore.mindir"),
)
# Scale → samples of a batch, random weights and images; full is the network of MLPerf, at 224 x 224.
SHAPES = {"lite": 50, "full": 4}
# Turns beside ``benchmark_app``.
TOOL_PAIRS = 6
# Different batches that a bare loop goes through.
PREPARED = 4


def main() -> int:
    parser = paired.arguments(__doc__, pairs=60)
    parser.add_argument("--engine", choices=ENGINES, action="append", help="measure only this one (default: all)")
    parser.add_argument("--scale", choices=SHAPES, action="append", help="measure only this one (default: both)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=0.1, help="of one turn, at least one call of the model")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(options.threads)
    setting = {"model": "resnet50", "precision": "fp32", "threads": options.threads, "weights": "random"}
    report = paired.Report("engines_paired", setting)
    for scale, engine in itertools.product(options.scale or SHAPES, options.engine or ENGINES):
        framework = engine.partition(".")[0]
        if find_spec(FRAMEWORK_MODULES[framework]) is None:
            report.not_measured[f"{engine}, {scale}"] = f"{framework} is not installed"
            continue
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            rows, not_measured = pool.submit(measure, engine, scale, options).result()
        report.rows += rows
        report.not_measured.update(not_measured)
    return report.finish(options.json)


def measure(engine: str, scale: str, options: argparse.Namespace) -> tuple[list[paired.Row], dict[str, str]]:
    """The rows of one engine: the ratio of the rates, that of the bare loop to itself, and the bare loop's rate.

    With them what of it was not measured, and why.
    """
    framework, _, name = engine.partition(".")
    label = f"{engine}, {scale}"
    why_not = registry.load(framework, name).available()
    if why_not:
        return [], {label: why_not}
    with tempfile.TemporaryDirectory() as directory, contextlib.ExitStack() as stack:
        try:
            bench = Bench(framework, name, scale, options, Path(directory))
            stack.callback(bench.compiled.release)
            bare = BARE[engine](bench)
        except ImportError as error:
            return [], {label: f"it is installed, and cannot be imported: {error}"}
        calls = max(1, round(options.seconds / bench.once()))
        sides: dict[str, Callable[[], Rate]] = {
            "ours": lambda: bench.ours(calls),
            "bare": lambda: bare(calls),
            "again": lambda: bare(calls),
        }
        found = paired.take_turns(sides, options.pairs)
        judged = "cpu" if options.threads == 1 else "wall"
        rows = [
            *(_row(f"{label}: ours / bare", found["ours"], found["bare"], clock, judged) for clock in ("cpu", "wall")),
            *(_row(f"{label}: bare / bare (noise)", found["again"], found["bare"], clock) for clock in ("cpu", "wall")),
            paired.Row(f"{label}: bare", "images/s wall", [one.wall for one in found["bare"]]),
        ]
        if name != "openvino":
            return rows, {}
        if tool() is None:
            why_not = f"there is no {TOOL} on PATH or beside this Python: the package openvino brings it"
            return rows, {f"{label}: ours / {TOOL}": why_not}
        return rows + _beside_tool(bench, label), {}


def _row(name: str, ours: Sequence[Rate], theirs: Sequence[Rate], clock: str, judged: str = "") -> paired.Row:
    values = [getattr(one, clock) / getattr(other, clock) for one, other in zip(ours, theirs, strict=True)]
    return paired.Row(name, f"images/s {clock}", values, at_least=BOUND if clock == judged else None)


def _beside_tool(bench: Bench, label: str) -> list[paired.Row]:
    calls = max(1, round(TOOL_WINDOW / bench.once()))
    found = paired.take_turns({"ours": lambda: bench.ours(calls), TOOL: lambda: benchmark_app(bench)}, TOOL_PAIRS)
    return [
        _row(f"{label}: ours / {TOOL}", found["ours"], found[TOOL], "wall", "wall"),
        paired.Row(f"{label}: {TOOL}", "images/s wall", [one.wall for one in found[TOOL]]),
    ]


class Window(InferenceWorkload):
    """Some batches of a workload: what the plugin's loop takes for the whole dataset."""

    def __init__(self, inner: InferenceWorkload, count: int) -> None:
        self.inner, self.count = inner, count
        self.labels = ()

    def samples(self) -> int:
        return self.count

    def inputs(self, indices: Any) -> Any:
        return self.inner.inputs(np.asarray(indices) % self.inner.samples())


class Kept:
    """Events, which nobody reads but the last."""

    last: Mapping[str, Any] = {}

    def write(self, event: str, value: Mapping[str, Any] | None = None) -> None:
        if event == perflog.INFERENCE_END:
            self.last = value or {}


class Clocked(BaseCompiled):
    """A compiled model whose forward passes are clocked by processor time too."""

    def __init__(self, inner: Compiled) -> None:
        self.inner, self.cpu = inner, 0.0
        self.load, self.outputs, self.release = inner.load, inner.outputs, inner.release  # type: ignore[method-assign]

    def execute(self) -> None:
        began = time.process_time()
        self.inner.execute()
        self.cpu += time.process_time() - began


class Bench:
    """A model with random weights, compiled by the plugin's adapter for one batch size, and its inputs."""

    def __init__(self, framework: str, engine: str, scale: str, options: argparse.Namespace, directory: Path) -> None:
        self.batch_size, self.directory = SHAPES[scale], directory
        self.threads = options.threads
        case = describe(framework, engine, scale, self.batch_size)
        context = RankContext(directory / "case.json", directory, rank=0, local_rank=0, world_size=1)
        runtime = importlib.import_module(f"pytest_flagperf.worker.inference.{framework}").Runtime(context, case)
        self.device, self.config = runtime.device, case["config"]
        self.workload = worker.build(runtime, case)
        self.model = self.workload.model()
        self.engine = registry.load(framework, engine)
        chosen = self.options(directory / "ours")
        exported = self.engine.export(self.model, self.workload, chosen)
        self.compiled = Clocked(self.engine.compile(self.model, self.workload, replace(chosen, exported=exported)))
        self.exported = exported
        self.warm = self.workload.inputs(range(self.batch_size))
        self.random = np.random.default_rng(1)

    def options(self, directory: Path) -> CompileOptions:
        """As the flow gives them where the batch size divides the dataset."""
        directory.mkdir(parents=True, exist_ok=True)
        return CompileOptions(
            precision="fp32",
            batch_sizes=(self.batch_size,),
            dynamic=True,
            directory=directory,
            device=self.device,
            threads=self.threads,
            settings=self.config,
        )

    def prepared(self) -> list[Any]:
        """Different batches for a bare loop to go through."""
        starts = range(0, PREPARED * self.batch_size, self.batch_size)
        return [self.workload.inputs(range(start, start + self.batch_size)) for start in starts]

    def once(self) -> float:
        """Seconds of one forward pass, by the shortest of a few."""
        return min(self.batch_size / self.ours(1).wall for _ in range(5))

    def ours(self, calls: int) -> Rate:
        """``p_inference_core`` of the plugin's loop over that many batches."""
        workload, events = Window(self.workload, calls * self.batch_size), Kept()
        test: Any = UnderTest(
            workload=workload,
            compiled=self.compiled,
            events=events,  # type: ignore[arg-type]
            config={"repeat": 1},
            batch_size=self.batch_size,
            seed=int(self.random.integers(2**31)),
            directory=self.directory,
            accuracy=Answers(workload, self.batch_size),
            seen=Seen(workload, 1),
            alive=lambda what, done, total: None,
        )
        # As the Timer of PyTorch does: the other side has had the caches.
        for _ in range(WARM):
            self.compiled.run(self.warm)
        self.compiled.cpu = 0.0
        batches.throughput(test)
        samples = float(events.last["samples"])
        return Rate(samples / events.last["core_time"], samples / self.compiled.cpu)


def describe(framework: str, engine: str, scale: str, batch_size: int) -> dict[str, Any]:
    """What a rank reads of its ``case.json``."""
    case = overlay.resolve(
        runpy.run_path(str(SUITE))["CASE"],
        Selection(framework, "fp32", Topology(1, 1), scale, engine),
        role="throughput",
        vendor="cpu",
        overlay=None,
        targets={},
        directory=SUITE.parent,
    )
    cpu = vendors.find("cpu", [vendors.bundled()]).frameworks[framework]
    return {
        "role": case.role,
        "framework": framework,
        "engine": engine,
        "precision": "fp32",
        "vendor": case.vendor,
        "model": case.model,
        "seed": int(case.config["seed"]),
        "directory": str(case.directory),
        "workload": case.workload,
        "config": {**case.config, "batch_size": batch_size},
        "targets": [],
        "device": {"device": cpu.device, "backend": cpu.backend, "module": cpu.module, "amp_dtype": cpu.amp_dtype},
        "dataset": {"name": case.scale.dataset, "synthetic": True},
    }


if __name__ == "__main__":
    sys.exit(main())
