"""The other side of ``engines_paired.py``: models compiled by an engine's own means and called without the plugin."""

from __future__ import annotations

import copy
import itertools
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from typing import Any


if TYPE_CHECKING:
    from engines_paired import Bench


TOOL = "benchmark_app"
# Seconds of a turn of ``benchmark_app``.
TOOL_WINDOW = 2.0
# Calls before each turn's clock runs.
WARM = 2


@dataclass(frozen=True)
class Rate:
    """Samples a second of execution, by elapsed time and by processor time of all threads."""

    wall: float
    cpu: float


# What one side does in its turn: calls of the model → how fast they were.
Side = Callable[[int], Rate]


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


def tool() -> str | None:
    """Where ``benchmark_app`` is: on PATH, or beside the Python that runs this."""
    return shutil.which(TOOL, path=os.pathsep.join((os.environ.get("PATH", ""), str(Path(sys.executable).parent))))


def benchmark_app(bench: Bench) -> Rate:
    """One synchronous run of OpenVINO's own tool with as many threads and the same batch: images a second."""
    folder = bench.directory / "report"
    shape = ",".join(map(str, bench.prepared()[0][0].shape))
    command = [tool() or TOOL, "-m", str(bench.exported), "-d", "CPU", "-shape", f"[{shape}]"]
    command += ["-api", "sync", "-hint", "none"]
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
