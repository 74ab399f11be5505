"""The suites of inference that ship, for their speed alone: without data, without weights."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys

import pytest

from pytest_flagperf.worker.inference import workload as workloads
from pytest_flagperf.worker.inference.workload import InferenceWorkload
from pytest_flagperf.worker.inference.workload import Weights
from pytest_flagperf.worker.workload import Config
from pytest_flagperf.worker.workload import Data
from tests.conftest import SUITES


MODELS = sorted(one.parent.name for one in SUITES.glob("inference/*/test_*.py"))
# A pip package that the model's network or data is of.
NEEDS = {"vit": "transformers", "bert": "transformers", "llama": "transformers", "unet": "diffusers"}
# Of all of them, those that take seconds.
MEASURED = ("crnn", "unet", "vit")


def case(model):
    return importlib.import_module(f"suites.inference.{model}.test_{model}").CASE


@pytest.mark.pytorch
@pytest.mark.parametrize("model", MODELS)
def test_a_lite_model_answers_without_data_and_without_weights(model):
    torch = pytest.importorskip("torch")
    pytest.importorskip(NEEDS.get(model, "torch"))
    found = case(model)
    scale = found.scales["lite"]
    config = Config({**found.config, **scale.config})
    kind = workloads.load(str(SUITES / "inference" / model), found.workloads["pytorch"])
    workload = kind(config, Data(scale.dataset, None, True), Weights(scale.weights), 1, config.batch_size, "cpu")
    assert workload.samples() >= config.batch_size
    inputs = workload.inputs(range(2))
    with torch.inference_mode():
        outputs = workload.model()(*map(torch.from_numpy, inputs))
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    assert [len(one) for one in outputs] == [2] * len(workload.output_names)
    assert all(torch.isfinite(one).all() for one in outputs)
    if type(workload).calibration is not InferenceWorkload.calibration:
        assert [len(batch) for batch in next(iter(workload.calibration(4)))] == [4] * len(workload.input_names)


@pytest.mark.slow
@pytest.mark.pytorch
def test_lite_cases_are_measured_on_synthetic_data_with_random_weights(tmp_path):
    pytest.importorskip("transformers")
    pytest.importorskip("diffusers")
    scales = {model: case(model).scales["lite"] for model in MEASURED}
    given = [f"--dataset={one}=synthetic" for one in sorted({scale.dataset for scale in scales.values()})]
    given += [f"--weights={scale.weights}=random" for scale in scales.values()]
    command = [
        sys.executable,
        "-m",
        "pytest",
        str(SUITES / "inference"),
        "-m",
        f"lite and throughput and ({' or '.join(MEASURED)})",
    ]
    done = subprocess.run(
        [*command, "--framework=pytorch", "--engine=eager", *given, f"--flagperf-dir={tmp_path / 'results'}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=1500,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = {one["case"]["model"]: one for path in tmp_path.glob("results/*/*/result.json") if (one := read(path))}
    assert sorted(found) == sorted(MEASURED)
    for one in found.values():
        assert one["metrics"]["p_inference_core"]["value"] > 0
        assert "quality_ratio" not in one["metrics"]


def read(path):
    return json.loads(path.read_text())
