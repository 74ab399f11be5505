"""Engines that can be run here, run: on the tests' small model, those of other frameworks on ResNet-50, lite."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from pytest_flagperf.errors import ConfigurationError
from pytest_flagperf.errors import PrecisionUnavailable
from pytest_flagperf.worker.inference import registry
from tests.conftest import ROOT
from tests.conftest import SUITES
from tests.inference.engine_bench import options
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
