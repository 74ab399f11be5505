"""The shipped suites on two ranks: every model in every framework, with samples counted over both."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import SUITES


pytestmark = pytest.mark.slow


# ResNet-50 of the others converges on one rank, among the tests of its suite.
@pytest.mark.parametrize(
    ("framework", "model"),
    [
        pytest.param(framework, model, marks=getattr(pytest.mark, framework))
        for framework, model in [
            ("pytorch", "resnet50"),
            *((name, "wide_deep") for name in ("pytorch", "paddle", "mindspore")),
        ]
    ],
)
def test_a_model_converges_on_two_ranks(framework: str, model: str, tmp_path: Path) -> None:
    result, directory = run(tmp_path, f"{model} and {framework} and convergence", "--topology=1x2")
    assert result["verdict"] == "passed"
    ranks = [events(directory, rank) for rank in range(2)]
    ended = [value(rank, "TRAIN_END") for rank in ranks]
    # Both ranks trained as much, and what is reported is the sum.
    assert ended[0]["rank_samples"] == ended[1]["rank_samples"] > 0
    samples = ended[0]["rank_samples"] + ended[1]["rank_samples"]
    assert {end["num_trained_samples"] for end in ended} == {samples}
    batch = result["configuration"]["global_batch_size"]["value"]
    assert samples == ended[0]["global_steps"] * batch
    rate = result["metrics"]["p_whole"]["value"] * result["metrics"]["train_time"]["value"]
    assert rate == pytest.approx(samples)
    # The worker refuses to finish otherwise; the digests show what it compared.
    digests = {value(rank, "FINISHED")["parameters_digest"] for rank in ranks}
    assert len(digests) == 1


FULL = {
    # The dataset, trainable parameters, and what is shortened so that a few steps fit a processor.
    "resnet50": ("imagenet2012", 25_557_032, {'"batch_size": 256': '"batch_size": 2', '"minimum_time": 5.0': ""}),
    "wide_deep": ("criteo_kaggle", 44_693_657, {'"batch_size": 4096': '"batch_size": 8', '"minimum_time": 2.0': ""}),
}


@pytest.mark.pytorch
@pytest.mark.parametrize("model", FULL)
def test_the_full_network_is_the_standard_one(model: str, tmp_path: Path) -> None:
    """A few steps at full scale on synthetic data; the result says so, and nothing of it is a quality."""
    dataset, parameters, shorter = FULL[model]
    suite = tmp_path / model
    shutil.copytree(SUITES / "training" / model, suite, ignore=shutil.ignore_patterns("__pycache__"))
    module = suite / f"test_{model}.py"
    text = module.read_text()
    for old, new in {**shorter, '"warmup_steps": 50': '"warmup_steps": 1'}.items():
        assert old in text
        text = text.replace(old, new).replace("                ,\n", "")
    module.write_text(re.sub(r'"measured_steps": \d+', '"measured_steps": 2', text))
    options = ["--scale=full", f"--dataset={dataset}=synthetic"]
    result, directory = run(tmp_path, f"{model} and pytorch and throughput", *options, suite=suite)
    assert result["dataset"] == {"name": dataset, "synthetic": True, "checksum": "", "splits": {}}
    assert result["targets"] == []
    assert value(events(directory, 0), "INIT_END")["parameters"] == parameters


def run(directory: Path, markers: str, *options: str, suite: Path = SUITES) -> tuple[dict[str, Any], Path]:
    """Run the shipped suites; gives the one result and the directory of its first round on this host."""
    results = directory / "results"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", str(suite), "-m", markers, f"--flagperf-dir={results}", *options],
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = results.glob("*/*/result.json")
    (host,) = path.parent.glob("round1/*/rank0.events.jsonl")
    return json.loads(path.read_text()), host.parent


def events(directory: Path, rank: int) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (directory / f"rank{rank}.events.jsonl").read_text().splitlines()]


def value(log: list[dict[str, Any]], name: str) -> dict[str, Any]:
    (found,) = [event["value"] for event in log if event["event"] == name]
    return found
