"""Which of several failures is the cause, and what is said of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pytest_flagperf import errors
from pytest_flagperf.launch.diagnosis import clean
from pytest_flagperf.launch.diagnosis import failure
from pytest_flagperf.launch.diagnosis import innermost_lines
from pytest_flagperf.launch.diagnosis import root_cause
from pytest_flagperf.launch.diagnosis import tail
from pytest_flagperf.launch.outcome import JobOutcome
from pytest_flagperf.launch.outcome import RankOutcome


def job(*ranks: RankOutcome, reason: str = "rank failed", stop: float = 9.0) -> JobOutcome:
    return JobOutcome(reason, "", ranks, 1, None, 0, (), 0.0, 10.0, 0.0, 10.0, stop)


def rank(number: int, state: str, ended: float = 5.0, message: str | None = None, **more: Any) -> RankOutcome:
    exception = {"exception_type": more.pop("kind", "RuntimeError"), "exception_message": message} if message else {}
    return RankOutcome(number, state, started=1.0, ended=ended, **exception, **more)


GLOO = "[gloo/transport/tcp/pair.cc:553] Connection closed by peer [127.0.0.1]:1"
PADDLE_GLOO = "[gloo/transport/tcp/pair.cc:584] TIMEOUT self_rank = 0 pair_rank = 1 peer_str = [127.0.0.1]:36780"

CAUSES = {
    "the earlier of two": [rank(0, "exception", 2.0, "x"), rank(1, "exception", 1.0, "y")],
    "not who lost its peer": [rank(0, "exception", 1.0, GLOO), rank(1, "exception", 2.0, "y")],
    "not who timed out on it": [rank(0, "exception", 1.0, PADDLE_GLOO), rank(1, "exit", 2.0, exit_code=0)],
    "not who aborted of it": [rank(0, "signal", 1.0, signal="SIGABRT"), rank(1, "signal", 2.0, signal="SIGSEGV")],
    "who aborted, if the other lost its peer": [rank(0, "exception", 1.0, GLOO), rank(1, "signal", signal="SIGABRT")],
    "not who was told to end": [rank(0, "stopped", 1.0, signal="SIGTERM"), rank(1, "exception", 2.0, GLOO)],
    "not what came after our stop": [rank(0, "exception", 9.5, "x"), rank(1, "exception", 8.0, GLOO)],
    "not who succeeded": [rank(0, "ok", 1.0), rank(1, "lost", 2.0)],
}


@pytest.mark.parametrize("ranks", CAUSES.values(), ids=CAUSES.keys())
def test_the_cause_is(ranks: list[RankOutcome]) -> None:
    cause = root_cause(job(*ranks))
    assert cause is not None and cause.rank == 1


def test_a_lone_victim_is_still_reported(tmp_path: Path) -> None:
    error = failure(job(rank(0, "exception", 1.0, GLOO)), tmp_path)
    assert type(error) is errors.RankCrashed and "Connection closed by peer" in str(error)


def test_a_good_job_has_no_failure(tmp_path: Path) -> None:
    assert failure(job(rank(0, "ok"), reason="exit"), tmp_path) is None


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("DatasetError", errors.DatasetError),
        ("PrecisionUnavailable", errors.PrecisionUnavailable),
        ("TargetMissed", errors.RankCrashed),  # in that module, but not of this family
        ("annotations", errors.RankCrashed),
        ("ValueError", errors.RankCrashed),
    ],
)
def test_errors_of_ours_keep_their_class(tmp_path: Path, kind: str, expected: type[Exception]) -> None:
    assert type(failure(job(rank(0, "exception", 1.0, "x", kind=kind)), tmp_path)) is expected


def test_a_rank_without_a_traceback_is_shown_by_the_end_of_its_log(tmp_path: Path) -> None:
    log = tmp_path / "rank0.log"
    log.write_text("".join(f"line {number}\n" for number in range(100)))
    text = str(failure(job(rank(0, "signal", signal="SIGSEGV")), tmp_path))
    assert "was ended by SIGSEGV" in text and str(log) in text
    assert "line 85" in text and "line 99" in text and "line 84" not in text


def test_only_the_cause_has_its_traceback_shown(tmp_path: Path) -> None:
    first = rank(0, "exception", 1.0, "x", traceback="Traceback: the cause")
    second = rank(1, "exception", 2.0, GLOO, traceback="Traceback: the consequence")
    text = str(failure(job(first, second), tmp_path))
    assert "the cause" in text and "the consequence" not in text and "(then rank 1: RuntimeError)" in text


def test_a_failed_launcher_is_shown_with_what_its_ranks_printed(tmp_path: Path) -> None:
    (tmp_path / "launcher.log").write_text("usage: torchrun\n")
    (tmp_path / "launcher").mkdir()
    (tmp_path / "launcher" / "worker_0.log").write_text("no module named shim\n")
    outcome = replace(job(RankOutcome(0, "unknown"), reason="launcher failed"), detail="it left")
    error = failure(outcome, tmp_path)
    assert type(error) is errors.LaunchFailed
    for part in ("it left (exit code 1)", "0 of 1 ranks", "usage: torchrun", "no module named shim"):
        assert part in str(error)


def test_the_main_thread_is_the_last_of_a_stack_dump(tmp_path: Path) -> None:
    dump = tmp_path / "rank0.stacks.txt"
    dump.write_text(
        'Thread 0x01 (most recent call first):\n  File "queue.py", line 1 in get\n\n'
        'Current thread 0x02 (most recent call first):\n  File "a.py", line 2 in inner\n'
        '  File "a.py", line 9 in outer\n'
    )
    assert innermost_lines(dump, 1) == ['File "a.py", line 2 in inner']
    assert innermost_lines(tmp_path / "none") == []


def test_hostile_text_is_cleaned() -> None:
    assert clean("\x1b[31mred\x1b[0m\x00\x07 \x1b]0;title\x07a\r\nb\rc\ud800\x9b") == "red a\nb\nc"


def test_the_tail_of_a_huge_log_is_cheap(tmp_path: Path) -> None:
    log = tmp_path / "huge.log"
    with open(log, "wb") as file:
        file.truncate(10**10)  # sparse
        file.seek(0, 2)
        file.write(b"\nlast\xff\n")
    assert tail(log)[-1] == "last\N{REPLACEMENT CHARACTER}"
    assert tail(tmp_path / "none") == []
