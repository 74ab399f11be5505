"""What goes wrong ends within seconds, with the right error, exit code and ledger entry, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import wait_for


pytestmark = [pytest.mark.slow, pytest.mark.pytorch]

# From the fault to the end of everything.
SECONDS = 15


@dataclass
class Session:
    """A pytest that runs the linear suite in a process of its own."""

    process: subprocess.Popen[str]
    results: Path

    def find(self, pattern: str) -> Path | None:
        return next(iter(sorted(self.results.glob(f"*/*/round1/*/{pattern}"))), None)

    def wait_until_training(self, ranks: int) -> list[int]:
        """Wait until every rank has trained a step; gives their process ids."""

        def training() -> bool:
            files = [self.find(f"rank{rank}.events.jsonl") for rank in range(ranks)]
            return all(file is not None and "STEP_END" in file.read_text() for file in files)

        assert wait_for(lambda: training() or self.process.poll() is not None, 60)
        assert self.process.poll() is None, self.process.communicate()[0]
        return [json.loads(self.find(f"rank{rank}.started.json").read_text())["pid"] for rank in range(ranks)]

    def end(self, since: float) -> tuple[int, str]:
        output, _ = self.process.communicate(timeout=60)
        took = time.monotonic() - since
        assert took < SECONDS, f"it took {took:.1f} s\n{output}"
        return self.process.returncode, output

    def end_after_the_rank_failed(self) -> tuple[int, str]:
        """As :meth:`end`, counted from when a rank recorded its failure."""
        output, _ = self.process.communicate(timeout=120)
        now = time.monotonic()
        stamps = [
            json.loads(p.read_text())["monotonic_ns"] for p in self.results.glob("*/*/round1/*/rank*.outcome.json")
        ]
        assert stamps, output
        took = now - min(stamps) / 1e9
        assert took < SECONDS, f"it took {took:.1f} s\n{output}"
        return self.process.returncode, output

    def ledger(self) -> list[dict[str, Any]]:
        (path,) = self.results.glob("*/ledger.jsonl")
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        return [line for line in lines if line["event"].startswith("round_")]

    def result(self) -> dict[str, Any]:
        (path,) = self.results.glob("*/*/result.json")
        return json.loads(path.read_text())


@pytest.fixture(params=[[], ["-n", "2"]], ids=["serial", "n2"])
def run(
    request: pytest.FixtureRequest, suite: Path, marked: Callable[[], list[int]], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Session]]:
    """Start the suite's ``test_converges`` with a fault."""
    started: list[subprocess.Popen[str]] = []

    def start(fault: str = "", *options: str, epochs: int = 3) -> Session:
        monkeypatch.setenv("LINEAR_FAULT", fault)
        monkeypatch.setenv("LINEAR_EPOCHS", str(epochs))
        results = suite.parent / "results"
        command = [sys.executable, "-m", "pytest", "suite", "-k", "converges", "-p", "no:cacheprovider"]
        process = subprocess.Popen(
            [*command, f"--flagperf-dir={results}", *request.param, *options],
            cwd=suite.parent,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        return Session(process, results)

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
            process.communicate()


def ended(session: Session, outcome: str) -> None:
    start, end = session.ledger()
    assert (start["event"], end["event"]) == ("round_start", "round_end")
    assert end["outcome"] == outcome
    assert (start["case"], start["round"], start["seed"]) == (end["case"], end["round"], end["seed"])


def test_a_killed_rank_ends_the_job_and_is_named(run):
    session = run("endless", "--topology=1x2", epochs=10_000)
    _, victim = session.wait_until_training(2)
    since = time.monotonic()
    os.kill(victim, signal.SIGKILL)
    code, output = session.end(since)
    assert code == 1
    assert "RankCrashed" in output
    assert "rank 1 of 2" in output
    assert "SIGKILL" in output
    ended(session, "RankCrashed")
    assert session.result()["verdict"] == "invalid"
    assert session.result()["metrics"] == {}


def test_a_stopped_rank_is_a_stall_with_everybodys_stacks(run):
    # Shorter than this, importing a framework counts as a stall on a busy machine.
    stall = 10
    session = run("endless", "--topology=1x2", f"--stall-timeout={stall}", epochs=10_000)
    _, victim = session.wait_until_training(2)
    since = time.monotonic()
    os.kill(victim, signal.SIGSTOP)
    code, output = session.end(since + stall)
    assert code == 1
    assert "RankStalled" in output
    assert "stopped" in output
    for rank in range(2):
        assert "File" in session.find(f"rank{rank}.stacks.txt").read_text()
    ended(session, "RankStalled")


def test_an_exception_in_the_evaluation_fails_with_its_traceback(run):
    session = run("evaluation")
    code, output = session.end_after_the_rank_failed()
    assert code == 1
    assert "RankCrashed" in output
    assert "RuntimeError: the evaluation <b>broke</b>" in output
    assert "pytorch.py" in output
    assert "\x1b[31m on purpose" not in output
    assert "rerun:" in output
    ended(session, "RankCrashed")


def test_a_nan_in_the_loss_names_the_step(run):
    session = run("nan", "--target=top1=0.99")
    code, output = session.end_after_the_rank_failed()
    assert code == 1
    # The second epoch of 40 steps is the first with NaN.
    assert "NonFiniteLoss" in output
    assert "the training loss is nan at step 41" in output
    ended(session, "NonFiniteLoss")


def test_ranks_that_end_with_different_parameters_are_refused(run):
    session = run("diverge", "--topology=1x2")
    code, output = session.end_after_the_rank_failed()
    assert code == 1
    assert "ParametersDiverged" in output
    ended(session, "ParametersDiverged")


def test_the_timeout_ends_a_round_that_takes_too_long(run):
    session = run("endless", "--timeout=6", epochs=10_000)
    code, output = session.end(time.monotonic() + 6)
    assert code == 1
    assert "JobTimedOut" in output
    ended(session, "JobTimedOut")


def test_ctrl_c_ends_everything_and_closes_the_ledger(run):
    session = run("endless", epochs=10_000)
    session.wait_until_training(1)
    since = time.monotonic()
    os.killpg(session.process.pid, signal.SIGINT)
    code, _ = session.end(since)
    assert code == 2
    ended(session, "interrupted")


def test_sigterm_ends_everything_and_closes_the_ledger(run):
    session = run("endless", epochs=10_000)
    session.wait_until_training(1)
    since = time.monotonic()
    session.process.send_signal(signal.SIGTERM)
    code, _ = session.end(since)
    assert code in (128 + signal.SIGTERM, -signal.SIGTERM)
    assert wait_for(lambda: len(session.ledger()) == 2, SECONDS - (time.monotonic() - since))
    ended(session, "interrupted")


def test_a_killed_pytest_leaves_no_process_and_an_open_ledger_entry(run, marked):
    session = run("endless", epochs=10_000)
    session.wait_until_training(1)
    since = time.monotonic()
    session.process.kill()
    session.process.wait()
    assert wait_for(lambda: not marked(), SECONDS - (time.monotonic() - since)), marked()
    first = session.ledger()[0]
    assert first["event"] == "round_start"
    assert not list(session.results.glob("*/*/result.json"))
