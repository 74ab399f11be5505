"""The comparison with a baseline inside real sessions: stopped early, too fast, undecided, and what each says."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT


pytestmark = [pytest.mark.slow, pytest.mark.pytorch]

CASE = "linear-convergence-pytorch-fp32-1x1-lite"


class Done:
    """A pytest of the linear suite's convergence test that has ended."""

    def __init__(self, directory: Path, *options: str, epochs: int = 1) -> None:
        command = [sys.executable, "-m", "pytest", "suite", "-k", "converges", "-p", "no:cacheprovider"]
        self.results = directory / f"results{len(list(directory.glob('results*')))}"
        done = subprocess.run(
            [*command, f"--flagperf-dir={self.results}", *options],
            cwd=directory,
            env={**os.environ, "LINEAR_EPOCHS": str(epochs)},
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        self.code, self.output = done.returncode, done.stdout + done.stderr

    @property
    def session(self) -> Path:
        (found,) = self.results.iterdir()
        return found

    def result(self) -> dict[str, Any]:
        (path,) = self.results.glob("*/*/result.json")
        found: dict[str, Any] = json.loads(path.read_text())
        return found

    def ledger(self, event: str) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in (self.session / "ledger.jsonl").read_text().splitlines()]
        return [line for line in lines if line["event"] == event]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("gate")
    shutil.copytree(ROOT / "tests" / "suite", made / "suite", ignore=shutil.ignore_patterns("__pycache__"))
    return made


@pytest.fixture
def baseline(tmp_path: Path) -> Callable[..., str]:
    """Writes a baseline of the case, and gives the option that names it."""

    def write(samples: list[float], *, tolerance: float, bound: float, epochs: int = 1, curve: str = "") -> str:
        path = tmp_path / "baseline.toml"
        path.write_text(f"""
schema_version = 1
vendor = "cpu"

[[case]]
id = "{CASE}"
model = "linear"
kind = "training"
role = "convergence"
framework = "pytorch"
precision = "fp32"
topology = "1x1"
scale = "lite"
dataset = "digits"
targets = {{ top1 = {bound} }}

[case.configuration]
global_batch_size = 100
epochs = {epochs}
learning_rate = 0.5
fault = ""
cpu_threads = 1
warmup_steps = 2
measured_steps = 10

[case.metric.top1]
unit = "ratio"
better = "higher"
tolerance = {tolerance}

[case.metric.top1.samples]
before = {samples}
{curve}
""")
        return f"--baseline={path}"

    return write


def curves(*rounds: list[tuple[float, float]]) -> str:
    """Epoch and top1 of each round."""
    return "".join(
        f'[case.curve."before round {number}"]\nepoch = {[float(epoch) for epoch, _ in one]}\n'
        f"step = {[40.0 * epoch for epoch, _ in one]}\ntop1 = {[value for _, value in one]}\n"
        for number, one in enumerate(rounds, 1)
    )


def test_a_run_that_leaves_the_band_of_its_baseline_is_stopped_and_says_so(directory, baseline, marked):
    better = [[(1, 0.99 + number / 1000), (2, 0.99 + number / 1000)] for number in range(6)]
    option = baseline([0.99] * 6, tolerance=0.01, bound=0.9999, epochs=100_000, curve=curves(*better))
    done = Done(directory, option, "--target=top1=0.9999", "--junitxml=junit.xml", epochs=100_000)
    assert done.code == 1, done.output
    result = done.result()
    assert (result["verdict"], result["error"]["type"]) == ("regressed", "Regressed")
    assert "stopped early, convergence left the band of its baseline: top1 is 0.8" in result["error"]["message"]
    assert "6 rounds of the baseline had 0.9925" in done.output
    assert 1 <= len(result["rounds"][0]["evaluations"]) < 1000
    (comparison,) = result["comparisons"]
    assert (comparison["metric"], comparison["verdict"]) == ("top1", "regressed")
    assert comparison["source"].endswith("baseline.toml")
    (end,) = done.ledger("round_end")
    assert end["outcome"] == "Regressed"
    assert "<failure" in (directory / "junit.xml").read_text()
    assert "rerun:" in done.output
    assert not marked()


def test_a_run_that_converges_impossibly_fast_is_no_measurement(directory, baseline):
    late = [[(10, 0.1), (20, 0.2), (30, 0.3), (40 + number % 2, 0.9)] for number in range(6)]
    option = baseline([0.9] * 6, tolerance=0.5, bound=0.5, curve=curves(*late))
    done = Done(directory, option, "--target=top1=0.5")
    assert done.code == 1, done.output
    result = done.result()
    assert (result["verdict"], result["error"]["type"]) == ("invalid", "InvalidMeasurement")
    assert "converged too fast to be believed: the target was reached after 1 epochs" in done.output
    assert result["metrics"] == {}


@pytest.fixture(scope="module")
def recorded(directory: Path) -> Path:
    """A session to judge again and again."""
    done = Done(directory, "--target=top1=0.5")
    assert done.code == 0, done.output
    assert "no baseline" not in done.output, "nobody asked for a comparison"
    assert done.result()["comparisons"] == []
    return done.session


def replayed(directory: Path, recorded: Path, *options: str) -> Done:
    return Done(directory, f"--replay={recorded}", "--target=top1=0.5", *options)


def test_a_result_says_which_software_and_which_code_it_rests_on(recorded):
    (path,) = recorded.glob("*/result.json")
    result = json.loads(path.read_text())
    assert {"torch", "python", "pytest-flagperf"} <= set(result["stack"])
    assert len(result["code"]) == 64
    assert result["spreads"]["top1"]["method"] == "single"


def test_a_replay_of_fewer_rounds_than_were_started_says_so(directory, recorded, tmp_path):
    session = shutil.copytree(recorded, tmp_path / "session")
    ledger = session / "ledger.jsonl"
    lines = ledger.read_text().splitlines()
    start = next(line for line in lines if '"round_start"' in line)
    ledger.write_text("\n".join([*lines, start.replace("round1", "round2")]) + "\n")
    done = replayed(directory, session)
    assert done.code == 0, done.output
    (note,) = [note for note in done.result()["notes"] if note.startswith("started for this case beside")]
    assert f"1 round: {CASE}/round2 (seed 1, not ended)" in note


def test_what_is_not_decided_passes_with_its_verdict_or_fails_where_that_is_wanted(directory, recorded, baseline):
    option = baseline([1.2], tolerance=0.2, bound=0.5)
    passed = replayed(directory, recorded, option)
    assert passed.code == 0, passed.output
    assert passed.result()["verdict"] == "inconclusive"
    failed = replayed(directory, recorded, option, "--on-inconclusive=fail")
    assert failed.code == 1, failed.output
    assert failed.result()["verdict"] == "inconclusive"
    assert "Undecided: linear convergence [pytorch-fp32-1x1-lite] cannot be told from its baseline" in failed.output
    assert "decide:   more rounds (--rounds), or --on-inconclusive=rerun" in failed.output


def test_a_regression_names_both_figures_the_file_and_the_command_to_accept_it(directory, recorded, baseline):
    option = baseline([3.0] * 5, tolerance=0.05, bound=0.5)
    done = replayed(directory, recorded, option)
    assert done.code == 1, done.output
    (line,) = [line for line in done.output.splitlines() if line.startswith("E ") and "top1: 0." in line]
    assert "baseline 3 [3, 3] of 5 samples; -7" in line
    assert "tolerance 5 %" in line
    path = option.removeprefix("--baseline=")
    assert f"baseline: {path}" in done.output
    (accept,) = [line for line in done.output.splitlines() if line.startswith("E ") and "accept:" in line]
    for part in (
        f"flagperf rebase {done.session}",
        f"--baseline {path}",
        f"--case {CASE}",
        "--metric top1",
        "--reason",
    ):
        assert part in accept


def test_a_case_that_the_baseline_does_not_have_says_so_and_passes(directory, recorded, tmp_path):
    (tmp_path / "empty.toml").write_text('schema_version = 1\nvendor = "cpu"\n')
    done = replayed(directory, recorded, f"--baseline={tmp_path / 'empty.toml'}")
    assert (done.code, done.result()["verdict"]) == (0, "no baseline"), done.output


def test_another_configuration_is_not_compared_and_the_difference_is_named(directory, recorded, baseline):
    done = replayed(directory, recorded, baseline([3.0], tolerance=0.05, bound=0.5, epochs=7))
    assert (done.code, done.result()["verdict"]) == (0, "not comparable"), done.output
    assert any("epochs was 7, is 1" in reason for reason in done.result()["comparisons"][0]["reasons"])


def test_a_session_is_a_baseline_too(directory, recorded):
    done = replayed(directory, recorded, f"--baseline={recorded}")
    assert (done.code, done.result()["verdict"]) == (0, "passed"), done.output
    # A baseline's samples are rounded, for a person to read.
    assert all(abs(one["change"]) < 1e-5 for one in done.result()["comparisons"])


def test_rounds_are_added_while_the_comparison_is_not_decided(directory, baseline):
    option = baseline([1.2], tolerance=0.2, bound=0.5)
    done = Done(directory, option, "--target=top1=0.5", "--on-inconclusive=rerun", "--max-rounds=5")
    assert done.code == 0 or "Regressed" in done.output, done.output
    result = done.result()
    assert [one["seed"] for one in result["rounds"]] == [1, 2, 3, 4, 5]
    assert result["spreads"]["top1"]["method"] == "olympic mean"
    assert len(done.ledger("round_start")) == 5
    assert "rounds added to decide the comparison: 4" in result["notes"]


@pytest.mark.parametrize(("bad", "code"), [(1, 0), (2, 1)])
def test_of_five_rounds_one_may_fail_to_converge_and_two_are_a_miss(directory, recorded, tmp_path, bad, code):
    session = shutil.copytree(recorded, tmp_path / "session")
    for number in range(2, 6):
        shutil.copytree(session / CASE / "round1", session / CASE / f"round{number}")
    for number in range(2, 2 + bad):
        (events,) = (session / CASE / f"round{number}").glob("*/rank0.events.jsonl")
        events.write_text(re.sub(r'("event": "EVALUATE", "value": \{"top1": )[\d.]+', r"\g<1>0.1", events.read_text()))
    done = replayed(directory, session)
    assert done.code == code, done.output
    result = done.result()
    assert result["verdict"] == ("missed" if code else "passed")
    dropped = [one["round"] for one in result["rounds"] if one["dropped"]]
    assert dropped == ([] if code else [2])
    (target,) = result["targets"]
    assert target["met"] is (code == 0)
    assert ("missed its target" in done.output) is (code == 1)
