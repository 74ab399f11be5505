"""Engines that can be run here, run: on the tests' small model, those of other frameworks on ResNet-50, lite."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import weakref
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pytest_flagperf.errors import ConfigurationError
from pytest_flagperf.errors import PrecisionUnavailable
from pytest_flagperf.worker.inference import registry
from pytest_flagperf.worker.inference.engines import eager
from tests.conftest import ROOT
from tests.conftest import SUITES
from tests.inference.engine_bench import options
from tests.inference.engine_bench import put
from tests.inference.engine_bench import workload


def require(module: str) -> None:
    """Skip where it is not installed. It is not imported: frameworks do not get on with each other in one process."""
    if find_spec(module) is None:
        pytest.skip(f"{module} is not installed")


def for_engines(perceptron: Path, *names: str) -> None:
    """Define the perceptron for these engines."""
    module = perceptron / "test_perceptron.py"
    listed = ", ".join(f'"{name}"' for name in ("eager", *names))
    module.write_text(module.read_text().replace('"eager", "inductor", "onnxruntime"', listed))


@pytest.mark.slow
def test_openvino_computes_in_what_was_asked_for_and_answers_as_eager_does(perceptron, run):
    require("openvino")
    for_engines(perceptron, "openvino")
    done, results = run("-m", "throughput", "--engine=openvino", "--precision=fp32")
    done.assert_outcomes(passed=1)
    result = results["openvino"]
    metrics = {name: one["value"] for name, one in result["metrics"].items()}
    assert metrics["output_error"] < 1e-3
    assert metrics["quality_ratio"] == pytest.approx(1, abs=0.01)
    assert metrics["engine_size"] > 0.09
    assert result["stack"]["openvino"]
    in_force = result["rounds"][0]["precision"]
    assert in_force["inference_precision"] == "f32"
    assert set(in_force["operations"]) <= {"f32", "i64", "i32"}


@pytest.mark.slow
def test_openvino_quantised_by_nncf_executes_in_int8_and_keeps_the_quality(perceptron, run):
    require("nncf")
    for_engines(perceptron, "openvino")
    done, results = run("-m", "edge", "--engine=openvino", "--precision=int8")
    done.assert_outcomes(passed=1)
    result = results["openvino"]
    assert result["metrics"]["quality_ratio"]["value"] >= 0.99
    # Quantised, its outputs differ visibly.
    assert result["metrics"]["output_error"]["value"] > 1e-4
    assert {"i8", "u8"} & set(result["rounds"][0]["precision"]["operations"])


@pytest.mark.slow
@pytest.mark.parametrize("role", ["throughput", "edge"])
def test_a_package_of_aotinductor_answers_as_eager_does_for_any_batch_or_one(perceptron, run, role):
    for_engines(perceptron, "aotinductor")
    done, results = run("-m", role, "--engine=aotinductor")
    done.assert_outcomes(passed=1)
    result = results["aotinductor"]
    assert result["metrics"]["output_error"]["value"] < 1e-3
    assert result["metrics"]["engine_size"]["value"] > 0.09
    assert result["rounds"][0]["precision"]["outputs"] == "torch.float32"


@pytest.mark.slow
@pytest.mark.pytorch
def test_inductor_takes_as_many_batch_sizes_as_a_server_has(tmp_path):
    import torch

    torch._dynamo.reset()
    before = torch._dynamo.config.recompile_limit
    model, one = torch.nn.Linear(4, 3).eval(), workload()
    sizes = tuple(range(10, 0, -1))
    compiled = registry.load("pytorch", "inductor").compile(
        model, one, options(tmp_path, precision="fp32", batch_sizes=sizes)
    )
    # Another mode of the process makes all of them compile again.
    torch._dynamo.reset()
    for size in sizes:
        (found,) = compiled.run(one.inputs(range(size)))
        expected = model(torch.from_numpy(one.rows[:size])).detach().numpy()
        assert np.allclose(found, expected, rtol=1e-4, atol=1e-4)
    compiled.release()
    assert torch._dynamo.config.recompile_limit == before


class Device:
    """Stands in for the memory of an accelerator, of which PyTorch's allocator keeps ``cached`` bytes for later."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        import torch

        self.taken, self.cached, self.peak = 10, 0, 0
        for name, stands_in in {
            "get_memory_info": lambda device: (2**30 - self.taken - self.cached, 2**30),
            "empty_cache": lambda: setattr(self, "cached", 0),
            "reset_peak_memory_stats": lambda device: setattr(self, "peak", self.cached),
            "max_memory_reserved": lambda device: self.peak,
        }.items():
            monkeypatch.setattr(torch.accelerator, name, stands_in, raising=False)


def on(device: str) -> Any:
    import torch

    return torch.device(device)


@pytest.mark.pytorch
def test_what_an_engine_takes_from_the_device_beside_pytorch_s_allocator_counts_and_the_compilation_does_not(
    monkeypatch,
):
    memory = Device(monkeypatch)
    memory.cached = 500
    eager.give_back(on("cuda:0"))
    before = eager.free_and_total(on("cuda:0"))
    assert before == (2**30 - 10, 2**30)
    compiled = eager.Loaded(None, ["torch.float16"], 7, before, options(Path(), device="cuda:0"))
    # Weights by the code itself, activations by PyTorch's allocator.
    memory.taken += 300
    memory.cached = 40
    assert compiled.memory() == {"memory_peak": 340 / 2**30, "memory_total": 1.0}
    assert eager.free_and_total(on("cpu")) is None
    assert eager.Loaded(None, [], 7, None, options(Path())).memory() == {}


@pytest.mark.pytorch
def test_the_peak_of_pytorch_s_allocator_begins_after_the_compilation(monkeypatch):
    import torch

    memory = Device(monkeypatch)
    model = torch.nn.Linear(4, 3)
    compiled = eager.Eagerly(model, model, options(Path(), device="cuda:0"))
    memory.peak = memory.cached = 500
    compiled.forget_peak()
    assert compiled.memory() == {"memory_peak": 0.0, "memory_total": 1.0}


@pytest.mark.pytorch
@pytest.mark.parametrize("name", ["eager", "inductor"])
def test_an_engine_that_pytorch_compiles_forgets_the_peak_of_its_compilation(tmp_path, monkeypatch, name):
    import torch

    ran = []
    monkeypatch.setattr(torch, "compile", lambda model, **settings: model)
    monkeypatch.setattr(eager.Eagerly, "execute", lambda self: ran.append("compilation"))
    monkeypatch.setattr(eager.Eagerly, "outputs", lambda self: ())
    monkeypatch.setattr(eager.Eagerly, "forget_peak", lambda self: ran.append("forgotten"))
    registry.load("pytorch", name).compile(torch.nn.Linear(4, 3), workload(), options(tmp_path, batch_sizes=(4, 2)))
    assert ran == ["compilation"] * (2 if name == "inductor" else 0) + ["forgotten"]


@pytest.mark.pytorch
def test_torch_tensorrt_keeps_nothing_of_the_uncompiled_model_and_counts_what_it_takes_itself(tmp_path, monkeypatch):
    import torch

    from pytest_flagperf.worker.inference.engines import onnxruntime
    from pytest_flagperf.worker.inference.engines import torch_tensorrt

    placed = []

    def compile_(model, **settings):
        placed.append(weakref.ref(model))
        return lambda rows: rows * 2

    put(monkeypatch, "torch_tensorrt", Input=lambda **arguments: arguments, compile=compile_)
    monkeypatch.setattr(onnxruntime, "kind_of", lambda device: "cuda")
    told = iter([(1000, 4096), (400, 4096)])
    monkeypatch.setattr(torch_tensorrt, "free_and_total", lambda device: next(told))
    monkeypatch.setattr(eager, "free_and_total", lambda device: next(told))
    model = torch.nn.Linear(4, 3).eval()
    compiled = registry.load("pytorch", "torch_tensorrt").compile(model, workload(), options(tmp_path))
    gc.collect()
    assert placed[0]() is None
    assert compiled.memory() == {"memory_peak": 600 / 2**30, "memory_total": 4096 / 2**30}
    assert compiled.size_bytes == 15 * 2
    assert compiled.precision() == {
        "parameters": "torch.float16",
        "outputs": "torch.float16",
        "cast": "the whole model",
    }


@pytest.mark.pytorch
def test_aotinductor_counts_all_packages_and_has_given_back_what_their_compilation_took(tmp_path, monkeypatch):
    import torch
    import torch._inductor

    memory = Device(monkeypatch)
    exported = []

    def export_load(path):
        found = torch.nn.Linear(4, 3)
        exported.append(weakref.ref(found))
        return found

    def compile_(program, package_path):
        memory.cached += 5000
        Path(package_path).write_bytes(bytes(7))
        return package_path

    def load(path, device_index):
        assert exported[-1]() is None
        memory.taken += 300
        return None

    monkeypatch.setattr(torch.export, "load", export_load)
    monkeypatch.setattr(torch._inductor, "aoti_compile_and_package", compile_)
    monkeypatch.setattr(torch._inductor, "aoti_load_package", load)
    # The export's.
    memory.cached = 1000
    chosen = options(tmp_path, device="cuda:0", batch_sizes=(4, 2), dynamic=False, exported=tmp_path)
    compiled = registry.load("pytorch", "aotinductor").compile(None, workload(), chosen)
    memory.cached = 40
    assert compiled.memory()["memory_peak"] == 640 / 2**30
    assert compiled.size_bytes == 14


@pytest.mark.slow
def test_int8_for_tensorrt_has_no_zero_points_and_answers_as_the_model_does(tmp_path):
    """TensorRT reads QDQ form with scales alone; the very file is executed here by ONNX Runtime."""
    import onnx
    import onnxruntime
    import torch
    from onnx import numpy_helper

    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 32), torch.nn.ReLU(), torch.nn.Linear(32, 4)).eval()
    one = workload()
    chosen = options(tmp_path, precision="int8", calibration=lambda: iter([one.inputs(range(10))]))
    path = registry.load("pytorch", "tensorrt").export(model, one, chosen)
    graph = onnx.load(str(path)).graph
    constants = {found.name: numpy_helper.to_array(found) for found in graph.initializer}
    quantised = [node for node in graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert quantised
    assert not [node for node in quantised if len(node.input) > 2 and np.any(constants[node.input[2]])]
    assert all(constants[node.input[2]].dtype == np.int8 for node in quantised if len(node.input) > 2)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"rows": one.rows})
    expected = model(torch.from_numpy(one.rows)).detach().numpy()
    assert np.linalg.norm(found - expected) < 0.05 * np.linalg.norm(expected)


def test_openvino_refuses_a_precision_or_a_device_before_it_exports(tmp_path):
    require("openvino")
    engine = registry.load("pytorch", "openvino")
    with pytest.raises(ConfigurationError, match="engine openvino has no device for 'npu'"):
        engine.export(None, workload(), options(tmp_path, device="npu"))
    with pytest.raises(PrecisionUnavailable, match="OpenVINO computes no fp16 on this CPU; it does "):
        engine.export(None, workload(), options(tmp_path, precision="fp16"))


def test_openvino_in_int8_without_nncf_says_what_to_install(tmp_path, monkeypatch):
    from pytest_flagperf.worker.inference.engines import openvino

    monkeypatch.setattr(openvino, "find_spec", lambda name: None)
    with pytest.raises(ConfigurationError, match=r"engine openvino in int8 needs nncf, .*: pip install nncf"):
        registry.load("pytorch", "openvino").export(None, workload(), options(tmp_path, precision="int8"))


@pytest.mark.slow
def test_openvino_and_nncf_report_to_nobody(tmp_path):
    """Their telemetry begins with files in the home directory, as soon as they are imported."""
    require("nncf")
    code = "from pytest_flagperf.worker.inference.engines import openvino; openvino.library(); import nncf"
    environment = {**os.environ, "HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True)
    assert not list(tmp_path.rglob("*telemetry*")) + list(tmp_path.rglob("*_cid"))


@pytest.mark.slow
@pytest.mark.parametrize(("framework", "engine"), [("paddle", "paddle_inference"), ("mindspore", "mindir")])
def test_resnet50_of_another_framework_answers_as_right_on_weights_of_pytorch(tmp_path, framework, engine):
    require(framework)
    command = [sys.executable, "-m", "pytest", str(SUITES / "inference"), "-m", "resnet50 and lite and throughput"]
    done = subprocess.run(
        [*command, f"--framework={framework}", f"--flagperf-dir={tmp_path / 'results'}", "-p", "no:cacheprovider"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = [json.loads(path.read_text()) for path in tmp_path.glob("results/*/*/result.json")]
    assert {one["case"]["engine"] for one in found} == {"eager", engine}
    for one in found:
        assert one["verdict"] == "passed"
        # The very answers of PyTorch, but for a digit or two on the edge.
        assert one["metrics"]["top1"]["value"] == pytest.approx(one["weights"]["quality"]["top1"], abs=0.003)
        assert one["metrics"]["output_error"]["value"] < 1e-3
        assert "float32" in one["rounds"][0]["precision"].get("parameters", "float32").lower()
