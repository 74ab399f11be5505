"""The shipped suites on two ranks: every model in every framework, with samples counted over both."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.conftest import SUITES


pytestmark = pytest.mark.slow


@pytest.mark.parametrize("model", ["resnet50", "wide_deep"])
@pytest.mark.parametrize(
    "framework", [pytest.param(name, marks=getattr(pytest.mark, name)) for name in ("pytorch", "paddle", "mindspore")]
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


@pytest.mark.pytorch
@pytest.mark.parametrize("model", ["resnet50", "wide_deep"])
def test_the_full_network_is_the_standard_one(model: str, tmp_path: Path) -> None:
    """A few steps at full scale on synthetic data; the result says so, and nothing of it is a quality."""
    dataset = {"resnet50": "imagenet2012", "wide_deep": "criteo_kaggle"}[model]
    overlay = tmp_path / "vendors" / "cpu"
    overlay.mkdir(parents=True)
    (overlay / "vendor.toml").write_bytes((ROOT / "vendors" / "cpu" / "vendor.toml").read_bytes())
    (overlay / f"{model}.toml").write_text("[[overlay]]\nconfig = { batch_size = 1 }\n")
    (tmp_path / "own_vendor.py").write_text(
        "from pathlib import Path\n"
        "def pytest_flagperf_vendors(config):\n"
        "    return [Path(__file__).parent / 'vendors']\n"
    )
    result, directory = run(
        tmp_path,
        f"{model} and pytorch and throughput",
        "--scale=full",
        f"--dataset={dataset}=synthetic",
        "-p",
        "own_vendor",
        environment={"PYTHONPATH": str(tmp_path)},
    )
    assert result["dataset"] == {"name": dataset, "synthetic": True, "checksum": "", "splits": {}}
    assert result["targets"] == []
    assert any(text.startswith("batch_size = 1") for text in result["deviations"])
    parameters = {"resnet50": 25_557_032, "wide_deep": 44_693_657}[model]
    assert value(events(directory, 0), "INIT_END")["parameters"] == parameters


def run(
    directory: Path, markers: str, *options: str, environment: dict[str, str] | None = None
) -> tuple[dict[str, Any], Path]:
    """Run the shipped suites; gives the one result and the directory of its first round on this host."""
    results = directory / "results"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", str(SUITES), "-m", markers, f"--flagperf-dir={results}", *options],
        cwd=directory,
        env={**os.environ, **(environment or {})},
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
