"""``--resume`` of what was not decided: ``--on-inconclusive=rerun`` gives it its rounds, once and no oftener."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from pytest_flagperf import result as results
from pytest_flagperf import sessions
from pytest_flagperf.judging import grants
from pytest_flagperf.launching import Launcher
from tests.test_result import make


CASE = "linear-convergence-pytorch-fp32-1x1-lite"
RERUN = "--on-inconclusive=rerun"
# One stored sample and four new ones are too few to decide: the tolerance alone counts, and 0.85 is far outside of it.
BASELINE = f"""
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
targets = {{ top1 = 0.5 }}

[case.configuration]
global_batch_size = 100
epochs = 1
learning_rate = 0.5
fault = ""
cpu_threads = 1
warmup_steps = 2
measured_steps = 10

[case.metric.top1]
unit = "ratio"
better = "higher"
tolerance = 0.2
samples = {{ before = [FIGURE] }}
"""


class Done:
    """A pytest of the linear suite's convergence test that has ended."""

    def __init__(self, suite: Path, *options: str, usual: float = 1.2) -> None:
        place = suite.parent / f"run{len(list(suite.parent.glob('run*')))}"
        place.mkdir()
        (place / "baseline.toml").write_text(BASELINE.replace("FIGURE", str(usual)))
        command = [sys.executable, "-m", "pytest", "suite", "-k", "converges", "-p", "no:cacheprovider", *options]
        done = subprocess.run(
            [*command, "--target=top1=0.5", f"--flagperf-dir={place}", f"--baseline={place / 'baseline.toml'}"],
            cwd=suite.parent,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        self.code, self.output = done.returncode, done.stdout + done.stderr
        (path,) = place.glob(f"*/{CASE}/result.json")
        self.session = path.parent.parent
        self.result: dict[str, Any] = json.loads(path.read_text())

    def ledger(self, event: str) -> list[dict[str, Any]]:
        return [line for line in sessions.ledger(self.session) if line["event"] == event]

    @property
    def is_taken(self) -> bool:
        return bool(self.ledger("resumed")) and not self.ledger("round_start")


@pytest.mark.slow
@pytest.mark.pytorch
def test_what_was_not_decided_gets_its_rounds_when_it_is_resumed_with_rerun_and_only_then(suite, monkeypatch):
    monkeypatch.setenv("LINEAR_EPOCHS", "1")
    first = Done(suite)
    assert (first.code, first.result["verdict"]) == (0, "inconclusive"), first.output

    kept = Done(suite, f"--resume={first.session}")
    assert (kept.code, kept.result["verdict"], kept.is_taken) == (0, "inconclusive", True), kept.output
    decided = Done(suite, f"--resume={first.session}", RERUN, usual=0.8)
    assert (decided.code, decided.result["verdict"], decided.is_taken) == (0, "passed", True), decided.output

    again = Done(suite, f"--resume={first.session}", RERUN, "--max-rounds=4")
    assert (again.code, again.result["verdict"], again.is_taken) == (0, "inconclusive", False), again.output
    assert [one["seed"] for one in again.result["rounds"]] == [1, 2, 3, 4]
    (elsewhere,) = again.ledger("elsewhere")
    assert elsewhere["rounds"] == [f"{first.session.name}: round 1 (seed 1, finished)"]
    (note,) = [note for note in again.result["notes"] if note.startswith("not taken from session")]
    assert "it is inconclusive after 1 round, and --on-inconclusive=rerun grants up to 4" in note
    assert f"do not count here: {first.session.name}: round 1 (seed 1, finished)" in note
    assert "not decided after 4 rounds, which is all that --max-rounds=4 grants" in again.result["notes"]

    last = Done(suite, f"--resume={again.session}", RERUN, "--max-rounds=4")
    assert (last.code, last.result["verdict"], last.is_taken) == (0, "inconclusive", True), last.output
    assert last.result["metrics"] == again.result["metrics"]


@pytest.mark.slow
@pytest.mark.pytorch
def test_what_runs_again_is_first_looked_at_after_as_many_rounds_as_it_had(suite, monkeypatch):
    monkeypatch.setenv("LINEAR_EPOCHS", "1")
    first = Done(suite, "--rounds=3")
    assert first.result["verdict"] == "inconclusive", first.output
    again = Done(suite, f"--resume={first.session}", RERUN, "--max-rounds=4")
    assert [one["seed"] for one in again.result["rounds"]] == [1, 2, 3, 4], again.output
    # The first three were granted without a look at fewer of them.
    assert "rounds added to decide the comparison: 1" in again.result["notes"]


@pytest.mark.parametrize("seconds", [0.5, 60.0, 123456.789, 1e15])
def test_a_budget_is_read_back_from_the_note_that_says_it_was_spent(tmp_path, seconds):
    note = grants.undecided(12, grants.budget(seconds))
    assert grants.spent(msgspec.structs.replace(make(tmp_path), notes=["another", note])) == seconds
    assert grants.spent(make(tmp_path)) is None


# --- which results lack rounds


def lacking(
    tmp_path: Path, *, rounds: int = 1, judged: str = "inconclusive", notes: tuple[str, ...] = (), **options: object
) -> str:
    """What is said of a result of so many rounds that is ``judged`` beside the baseline of today."""
    recorded = make(tmp_path)
    recorded = msgspec.structs.replace(recorded, rounds=recorded.rounds[:1] * rounds, notes=list(notes))
    given = {"on_inconclusive": "rerun", "max_rounds": 10, "rerun_budget": None, **options}

    def gate(result: results.Result) -> results.Result:
        return msgspec.structs.replace(result, verdict=judged)

    session: Any = SimpleNamespace(options=SimpleNamespace(**given), gate=SimpleNamespace(judged=gate))
    unused: Any = None
    return Launcher(session, unused, unused)._rounds_lacking(recorded)


def test_more_rounds_than_there_were_are_a_reason_to_run_again(tmp_path):
    assert "inconclusive after 1 round, and --on-inconclusive=rerun grants up to 10" in lacking(tmp_path)
    assert "after 5 rounds" in lacking(tmp_path, rounds=5)


@pytest.mark.parametrize("option", ["pass", "fail"])
def test_without_rerun_no_rounds_are_granted(tmp_path, option):
    assert lacking(tmp_path, on_inconclusive=option) == ""


@pytest.mark.parametrize("judged", ["passed", "regressed", "improved", "missed", "no baseline", "not comparable"])
def test_what_is_decided_beside_the_baseline_of_today_lacks_nothing(tmp_path, judged):
    assert lacking(tmp_path, judged=judged) == ""


def test_who_had_all_the_rounds_gets_no_second_attempt(tmp_path):
    assert lacking(tmp_path, rounds=10) == ""
    assert lacking(tmp_path, rounds=10, max_rounds=20) != ""


def test_who_spent_the_same_time_or_more_gets_no_second_attempt_and_a_larger_budget_is_one(tmp_path):
    spent = ("not decided after 3 rounds, which is all that --rerun-budget=60 grants",)
    assert lacking(tmp_path, rounds=3, notes=spent, rerun_budget=60.0) == ""
    assert lacking(tmp_path, rounds=3, notes=spent, rerun_budget=59.0) == ""
    assert lacking(tmp_path, rounds=3, notes=spent, rerun_budget=0.5) == ""
    assert lacking(tmp_path, rounds=3, notes=spent, rerun_budget=600.0) != ""
    assert lacking(tmp_path, rounds=3, notes=spent) != ""
    assert lacking(tmp_path, rounds=3, rerun_budget=60.0) != ""
