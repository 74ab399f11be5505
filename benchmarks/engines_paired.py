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
import copy
import importlib
import itertools
import json
import multiprocessing
import os
import runpy
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import paired

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
TOOL = "benchmark_app"
# Seconds of one side's turn beside ``benchmark_app``, and how many turns.
TOOL_WINDOW, TOOL_PAIRS = 2.0, 6
# Different batches that a bare loop goes through.
PREPARED = 4
# Calls before each turn's clock runs.
WARM = 2


@dataclass(frozen=True)
class Rate:
    """Samples a second of execution, by elapsed time and by processor time of all threads."""

    wall: float
    cpu: float


# What one side does in its turn: calls of the model → how fast they were.
Side = Callable[[int], Rate]


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
            print(f"{engine}: {framework} is not installed", file=sys.stderr)
            continue
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            report.rows += pool.submit(measure, engine, scale, options).result()
    return report.finish(options.json)


def measure(engine: str, scale: str, options: argparse.Namespace) -> list[paired.Row]:
    """The rows of one engine: the ratio of the rates, that of the bare loop to itself, and the bare loop's rate."""
    framework, _, name = engine.partition(".")
    with tempfile.TemporaryDirectory() as directory, contextlib.ExitStack() as stack:
        bench = Bench(framework, name, scale, options, Path(directory))
        stack.callback(bench.compiled.release)
        bare = BARE[engine](bench)
        calls = max(1, round(options.seconds / bench.once()))
        sides: dict[str, Callable[[], Rate]] = {
            "ours": lambda: bench.ours(calls),
            "bare": lambda: bare(calls),
            "again": lambda: bare(calls),
        }
        found = paired.take_turns(sides, options.pairs)
        label = f"{engine}, {scale}"
        judged = "cpu" if options.threads == 1 else "wall"
        rows = [
            *(_row(f"{label}: ours / bare", found["ours"], found["bare"], clock, judged) for clock in ("cpu", "wall")),
            *(_row(f"{label}: bare / bare (noise)", found["again"], found["bare"], clock) for clock in ("cpu", "wall")),
            paired.Row(f"{label}: bare", "images/s wall", [one.wall for one in found["bare"]]),
        ]
        return rows + (_beside_tool(bench, label) if name == "openvino" and shutil.which(TOOL) else [])


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


# --- the other side: compiled and called without the plugin


def timed(
    bench: Bench, call: Callable[[Any], Any], batches_of: Callable[[Any], Any] = lambda arrays: arrays[0]
) -> Side:
    """A bare loop of ``call`` over prepared inputs: one clock around all calls."""
    inputs = itertools.cycle([batches_of(one) for one in bench.prepared()])

    def side(calls: int) -> Rate:
        for _ in range(WARM):
            call(next(inputs))
        cpu, wall = time.process_time(), time.perf_counter()
        for _ in range(calls):
            call(next(inputs))
        samples = calls * bench.batch_size
        return Rate(samples / (time.perf_counter() - wall), samples / (time.process_time() - cpu))

    return side


def by_torch(bench: Bench, call: Callable[[Any], Any]) -> Side:
    """``torch.utils.benchmark`` with tensors that are on the device."""
    import torch
    from torch.utils.benchmark import Timer

    inputs = itertools.cycle([torch.from_numpy(arrays[0]).to(bench.device) for arrays in bench.prepared()])
    names = {"call": call, "inputs": inputs}
    marks: list[float] = []

    def clock() -> float:
        marks.append(time.process_time())
        return time.perf_counter()

    timer = Timer("call(next(inputs))", globals=names, num_threads=bench.threads, timer=clock)

    def side(calls: int) -> Rate:
        with torch.inference_mode():
            wall = timer.timeit(calls).mean
        return Rate(bench.batch_size / wall, calls * bench.batch_size / (marks[-1] - marks[-2]))

    return side


def eager(bench: Bench) -> Side:
    return by_torch(bench, copy.deepcopy(bench.model).to(bench.device))


def inductor(bench: Bench) -> Side:
    import torch

    return by_torch(bench, torch.compile(copy.deepcopy(bench.model).to(bench.device)))


def aotinductor(bench: Bench) -> Side:
    import torch

    example = torch.from_numpy(bench.prepared()[0][0]).to(bench.device)
    with torch.inference_mode():
        program = torch.export.export(copy.deepcopy(bench.model).to(bench.device), (example,))
    package = torch._inductor.aoti_compile_and_package(program, package_path=str(bench.directory / "bare.pt2"))
    return by_torch(bench, torch._inductor.aoti_load_package(package))


def onnxruntime(bench: Bench) -> Side:
    import onnxruntime as runtime

    settings = runtime.SessionOptions()
    settings.intra_op_num_threads = bench.threads
    session = runtime.InferenceSession(str(bench.exported), settings, providers=["CPUExecutionProvider"])
    return timed(bench, lambda images: session.run(None, {"images": images}))


def openvino(bench: Bench) -> Side:
    from pytest_flagperf.worker.inference.engines.openvino import library

    runtime = library()
    core = runtime.Core()
    model = core.read_model(bench.exported)
    model.reshape({"images": list(bench.prepared()[0][0].shape)})
    hints = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": bench.threads, "NUM_STREAMS": 1}
    request = core.compile_model(model, "CPU", hints).create_infer_request()
    return timed(bench, lambda tensor: request.infer({"images": tensor}), lambda arrays: runtime.Tensor(arrays[0]))


def benchmark_app(bench: Bench) -> Rate:
    """One synchronous run of OpenVINO's own tool with as many threads and the same batch: images a second."""
    folder = bench.directory / "report"
    shape = ",".join(map(str, bench.prepared()[0][0].shape))
    command = [TOOL, "-m", str(bench.exported), "-d", "CPU", "-shape", f"[{shape}]", "-api", "sync", "-hint", "none"]
    command += ["-nstreams", "1", "-nthreads", str(bench.threads), "-infer_precision", "f32"]
    command += ["-t", str(round(TOOL_WINDOW)), "-report_type", "no_counters", "-json_stats", "-report_folder"]
    folder.mkdir(exist_ok=True)
    subprocess.run([*command, str(folder)], check=True, stdout=subprocess.DEVNULL)
    (report,) = folder.glob("benchmark_report.json")
    rate = float(json.loads(report.read_text())["execution_results"]["throughput"])
    # Its processor time has the compilation in it.
    return Rate(rate, float("nan"))


def paddle_eager(bench: Bench) -> Side:
    import paddle

    def call(images: Any) -> None:
        with paddle.no_grad():
            bench.model(images)

    return timed(bench, call, lambda arrays: paddle.to_tensor(arrays[0]))


def paddle_inference(bench: Bench) -> Side:
    from paddle import inference

    assert bench.exported is not None
    config = inference.Config(str(bench.exported / "model.json"), str(bench.exported / "model.pdiparams"))
    config.disable_glog_info()
    config.disable_gpu()
    config.set_cpu_math_library_num_threads(bench.threads)
    predictor = inference.create_predictor(config)
    predictor.get_input_handle("images").copy_from_cpu(bench.prepared()[0][0])
    return timed(bench, lambda _: predictor.run())


def mindspore_eager(bench: Bench) -> Side:
    import mindspore

    return timed(bench, lambda images: bench.model(images).asnumpy(), lambda arrays: mindspore.Tensor(arrays[0]))


def mindir(bench: Bench) -> Side:
    import mindspore

    assert bench.exported is not None
    graph = mindspore.nn.GraphCell(mindspore.load(str(next(bench.exported.iterdir()))))
    return timed(bench, lambda images: graph(images).asnumpy(), lambda arrays: mindspore.Tensor(arrays[0]))


BARE: Mapping[str, Callable[[Bench], Side]] = {
    "pytorch.eager": eager,
    "pytorch.inductor": inductor,
    "pytorch.aotinductor": aotinductor,
    "pytorch.onnxruntime": onnxruntime,
    "pytorch.openvino": openvino,
    "paddle.eager": paddle_eager,
    "paddle.paddle_inference": paddle_inference,
    "mindspore.eager": mindspore_eager,
    "mindspore.mindir": mindir,
}


if __name__ == "__main__":
    sys.exit(main())
