"""Whole jobs, without a framework: every way a rank, a launcher, the supervisor or pytest itself can end."""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pytest_flagperf import errors
from pytest_flagperf.launch import ports
from pytest_flagperf.launch import processes
from pytest_flagperf.launch import records
from pytest_flagperf.launch.job import JobOutcome
from pytest_flagperf.launch.job import JobSpec
from pytest_flagperf.launch.job import failure
from pytest_flagperf.launch.job import run_job
from tests.conftest import switches


MakeSpec = Callable[..., JobSpec]
Left = Callable[[], list[int]]
Wait = Callable[[Callable[[], Any]], Any]

pytestmark = pytest.mark.usefixtures("no_leftovers")


def run(spec: JobSpec) -> tuple[JobOutcome, errors.FlagPerfError | None]:
    outcome = run_job(spec)
    return outcome, failure(outcome, spec.host_dir)


# --- jobs that succeed


def test_a_good_job_has_no_failure(make_spec: MakeSpec) -> None:
    before = time.monotonic()
    spec = make_spec("good", "fake", 2)
    outcome, error = run(spec)
    assert error is None and outcome.ok and outcome.reason == "exit" and outcome.launcher_exit_code == 0
    assert [rank.state for rank in outcome.ranks] == ["ok", "ok"]
    assert before <= outcome.started < outcome.ended <= time.monotonic()
    assert outcome.time_started < outcome.time_ended
    assert outcome.swept == 0
    for number, rank in enumerate(outcome.ranks):
        report = json.loads((spec.host_dir / f"report{number}.json").read_text())
        assert (report["rank"], report["local_rank"], report["world_size"]) == (number, number, 2)
        assert outcome.started < rank.started < rank.ended <= rank.exited <= outcome.ended
        assert (spec.host_dir / f"rank{number}.log").read_text() == f"hello from {number}\n"


def test_a_rank_finds_the_package_with_nothing_added_to_its_path(make_spec: MakeSpec) -> None:
    spec = make_spec("good", env={"PYTHONPATH": ""})
    _, error = run(spec)
    assert error is None
    report = json.loads((spec.host_dir / "report0.json").read_text())
    script = "import json, sys; print(json.dumps(sys.path[1:]))"  # but for the script's own directory
    path = json.loads(subprocess.check_output([sys.executable, "-c", script], env={**spec.env}))
    assert report["path"] == path
    assert "pytest_flagperf.launch.context" in report["modules"]
    assert "pytest" not in report["modules"]


def test_variables_of_another_launcher_do_not_reach_the_rank(make_spec: MakeSpec) -> None:
    spec = make_spec("good", env={"RANK": "5", "WORLD_SIZE": "8", "PADDLE_TRAINER_ID": "3", "MS_ROLE": "MS_SCHED"})
    _, error = run(spec)
    assert error is None
    assert json.loads((spec.host_dir / "report0.json").read_text())["world_size"] == 1


def test_a_rank_is_bound_to_its_cpus(make_spec: MakeSpec) -> None:
    cpu = max(os.sched_getaffinity(0))
    spec = make_spec("good", env={records.AFFINITY_VARIABLE: json.dumps([[cpu]])})
    run(spec)
    assert json.loads((spec.host_dir / "report0.json").read_text())["affinity"] == [cpu]


@pytest.mark.parametrize("entry", ["aborts_in_teardown", "raises_in_teardown"])
def test_what_fails_after_the_outcome_is_not_a_failure(make_spec: MakeSpec, entry: str) -> None:
    outcome, error = run(make_spec(entry, "fake", 2))
    assert error is None and outcome.ok and outcome.launcher_exit_code == 0
    assert outcome.ranks[0].signal_at_exit == ("SIGABRT" if entry == "aborts_in_teardown" else None)


def test_a_teardown_that_hangs_is_swept_after_linger(make_spec: MakeSpec) -> None:
    outcome, error = run(make_spec("hangs_in_teardown", linger=0.5))
    assert error is None and outcome.ok and outcome.swept == 2
    assert outcome.ended - outcome.started < 25


def test_a_launcher_that_stays_is_swept_after_linger(make_spec: MakeSpec) -> None:
    outcome, error = run(make_spec("good", "fake", 2, linger=0.5, env={"FAKE_LAUNCHER_LINGERS": "1"}))
    assert error is None and outcome.ok and outcome.swept == 1


def test_grandchildren_in_sessions_of_their_own_are_swept(make_spec: MakeSpec, no_leftovers: Left) -> None:
    outcome, error = run(make_spec("leaves_grandchildren"))
    assert error is None and outcome.swept == 2 and not no_leftovers()


def test_a_child_that_the_worker_forked_does_not_speak_for_the_rank(make_spec: MakeSpec) -> None:
    outcome, error = run(make_spec("forks_and_raises"))
    assert error is None and outcome.ok


# --- ranks that fail


def test_an_exception_is_reported_with_its_traceback(make_spec: MakeSpec) -> None:
    spec = make_spec("raises", "fake", 2)
    outcome, error = run(spec)
    assert type(error) is errors.RankCrashed
    assert outcome.reason == "rank failed" and outcome.ranks[1].state == "exception"
    assert outcome.ranks[0].state == "stopped"
    text = str(error)
    assert text.startswith("rank 1 of 2 raised ValueError: boom on purpose")
    assert 'raise ValueError("boom on purpose")' in text and str(spec.host_dir / "rank1.log") in text
    assert "boom on purpose" in (spec.host_dir / "rank1.log").read_text()
    assert outcome.ended - outcome.started < 25


def test_an_error_of_ours_keeps_its_class(make_spec: MakeSpec) -> None:
    _, error = run(make_spec("nan"))
    assert type(error) is errors.NonFiniteLoss and "loss is nan at step 3" in str(error)


def test_sys_exit_is_reported_with_its_code(make_spec: MakeSpec) -> None:
    outcome, error = run(make_spec("exits_7"))
    assert (outcome.ranks[0].state, outcome.ranks[0].exit_code) == ("exit", 7)
    assert "exited early with code 7" in str(error)


def test_an_early_exit_with_0_is_a_crash(make_spec: MakeSpec) -> None:
    outcome, error = run(make_spec("exits_early", "fake", 2))
    assert type(error) is errors.RankCrashed and "exited early with code 0" in str(error)
    assert outcome.launcher_exit_code != 0


def test_an_entry_that_returns_nonsense_is_told_so(make_spec: MakeSpec) -> None:
    _, error = run(make_spec("returns_nonsense"))
    assert "returned int: expected None or a function for teardown" in str(error)


def test_an_entry_that_does_not_exist_is_reported(make_spec: MakeSpec) -> None:
    _, error = run(make_spec("no_such_entry"))
    assert "AttributeError" in str(error) and "no_such_entry" in str(error)


def test_a_killed_rank_is_the_cause(make_spec: MakeSpec) -> None:
    outcome, error = run(make_spec("is_killed", "fake", 2))
    assert (outcome.ranks[1].state, outcome.ranks[1].signal) == ("signal", "SIGKILL")
    assert str(error).startswith("rank 1 of 2 was ended by SIGKILL")
    assert outcome.ended - outcome.started < 25


def test_a_rank_killed_with_its_shim_is_lost(make_spec: MakeSpec) -> None:
    outcome, error = run(make_spec("kills_its_shim", "fake", 2))
    assert [rank.state for rank in outcome.ranks] == ["stopped", "lost"]
    assert "rank 1 of 2 vanished without a record" in str(error)


def test_a_victim_that_fails_first_is_not_the_cause(make_spec: MakeSpec) -> None:
    outcome, error = run(make_spec("connection_lost", "fake", 2))
    assert outcome.ranks[0].ended < outcome.ranks[1].ended
    assert str(error).startswith("rank 1 of 2 was ended by SIGKILL")
    assert "rank 0: RuntimeError" in str(error)


def test_hostile_bytes_in_a_log_do_not_break_the_report(make_spec: MakeSpec) -> None:
    _, error = run(make_spec("writes_hostile_bytes"))
    text = str(error)
    assert "exited early with code 3" in text and "red" in text and "last words" in text
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", text)
    text.encode("utf-8")


# --- ranks that hang


def test_a_stopped_rank_is_found_by_its_silence(make_spec: MakeSpec) -> None:
    spec = make_spec("stops", "fake", 2, stall_timeout=1.0)
    outcome, error = run(spec)
    assert type(error) is errors.RankStalled and outcome.reason == "stalled"
    assert outcome.ranks[1].process_state == "T (stopped)" and outcome.ranks[1].silent_for > 1.0
    assert outcome.ranks[0].silent_for < outcome.ranks[1].silent_for
    assert "os.kill" in str(error) or "in stops" in str(error)
    assert "process state T (stopped)" in str(error)
    assert outcome.ended - outcome.started < 25


def test_a_hang_in_c_is_found_with_its_stack(make_spec: MakeSpec) -> None:
    outcome, error = run(make_spec("hangs_in_c", stall_timeout=1.0))
    assert type(error) is errors.RankStalled and "in hangs_in_c" in str(error)
    assert outcome.ended - outcome.started < 25


def test_a_job_past_its_deadline_is_ended_with_stacks(make_spec: MakeSpec) -> None:
    outcome, error = run(make_spec("wait_for_ever", "fake", 2, timeout=2.0))
    assert type(error) is errors.JobTimedOut and outcome.reason == "timed out"
    assert str(error).count("in wait_for_ever") == 2
    assert [rank.state for rank in outcome.ranks] == ["stopped", "stopped"]


def test_a_rank_that_ignores_sigterm_is_killed_after_the_grace_period(make_spec: MakeSpec) -> None:
    outcome, error = run(make_spec("ignores_sigterm", timeout=1.0, grace=0.5))
    assert type(error) is errors.JobTimedOut and outcome.swept >= 1
    assert outcome.ended - outcome.started < 25


def test_a_rank_that_never_starts_is_a_stall(make_spec: MakeSpec, tmp_path: Path) -> None:
    spec = make_spec("good", stall_timeout=1.0)
    spec.host_dir.mkdir()
    os.mkfifo(spec.host_dir / "rank0.log")  # opening it for writing blocks
    _, error = run(spec)
    assert type(error) is errors.RankStalled and "never started" in str(error)


# --- launchers


def test_a_launcher_that_fails_at_once_is_quoted(make_spec: MakeSpec) -> None:
    outcome, error = run(make_spec("good", "fake", 2, env={"FAKE_LAUNCHER_FAILS": "1"}))
    assert type(error) is errors.LaunchFailed and outcome.launcher_exit_code == 3
    assert "Traceback: no such module" in str(error) and "0 of 2 ranks had started" in str(error)


def test_an_interpreter_that_does_not_exist_is_a_failed_launch(make_spec: MakeSpec) -> None:
    spec = make_spec("good")
    spec = JobSpec(**{**spec.__dict__, "python": "/no/such/python"})
    _, error = run(spec)
    assert type(error) is errors.LaunchFailed and "/no/such/python" in str(error)


def test_a_killed_launcher_is_the_cause_not_its_ranks(make_spec: MakeSpec) -> None:
    outcome, error = run(make_spec("kills_the_launcher", "fake", 2))
    assert type(error) is errors.LaunchFailed and "the launcher was ended by SIGKILL" in str(error)
    assert [rank.state for rank in outcome.ranks] == ["lost", "lost"]


def test_a_launcher_that_somebody_else_stops_is_not_our_doing(make_spec: MakeSpec) -> None:
    spec = make_spec("wait_for_ever", "fake", 2)
    sent: list[int] = []

    def stop_once() -> None:
        if not sent and (spec.host_dir / "waiting0").exists() and (spec.host_dir / "waiting1").exists():
            sent.append(supervisor_of(spec))  # the parent of a shim: here the launcher
            os.kill(sent[0], signal.SIGTERM)

    outcome = run_job(spec, stop_once, 0.05)
    error = failure(outcome, spec.host_dir)
    assert type(error) is errors.RankCrashed
    assert "was told to end by SIGTERM, which did not come from its supervisor" in str(error)


def test_a_port_that_was_taken_is_replaced_once(make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as squatter:
        squatter.bind(("127.0.0.1", 0))
        squatter.listen()
        offered = [squatter.getsockname()[1], ports.free_port()]
        monkeypatch.setattr(ports, "free_port", lambda: offered.pop(0))
        spec = make_spec("good", "fake", 2)
        outcome, error = run(spec)
    assert error is None and outcome.ok and not offered
    assert "Address already in use" in (spec.host_dir / "attempt1" / "launcher.log").read_text()


def test_a_directory_takes_one_job(make_spec: MakeSpec) -> None:
    run(make_spec("good"))
    with pytest.raises(errors.ConfigurationError, match="already holds a job"):
        run_job(make_spec("good"))


# --- the supervisor, and the process that asked for the job


def test_a_missing_heartbeat_stops_the_job(make_spec: MakeSpec, wait_until: Wait) -> None:
    spec = make_spec("good")
    spec.host_dir.mkdir()
    sleeper = [sys.executable, "-c", "import time; time.sleep(600)"]
    details = {"argv": sleeper, "cwd": str(spec.host_dir), "host_dir": str(spec.host_dir), "ranks": [0]}
    times = {"timeout": None, "stall_timeout": 60.0, "grace": 1.0, "linger": 1.0, "heartbeat": 0.5}
    others = {"stop_signal": "SIGTERM", "discard": [], "parent_pid": None}
    (spec.host_dir / "spec.json").write_text(json.dumps({**details, **times, **others}))
    script = Path(processes.__file__).with_name("supervisor.py")
    command = [sys.executable, "-I", str(script), str(spec.host_dir / "spec.json")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, env=spec.env) as supervisor:
        for _ in range(4):  # kept alive beyond one heartbeat's time by beating
            supervisor.stdin.write(b".")
            supervisor.stdin.flush()
            with pytest.raises(subprocess.TimeoutExpired):
                supervisor.wait(0.2)
        supervisor.wait(10)
    job = records.read(spec.host_dir / records.JOB)
    assert job["reason"] == "stopped" and job["detail"].startswith("no heartbeat")


def supervisor_of(spec: JobSpec) -> int:
    """The parent of a single job's shim."""
    started = records.read(spec.host_dir / "rank0.started.json")
    return processes.read_stat(started["shim_pid"]).parent


def test_a_killed_supervisor_takes_the_job_with_it(make_spec: MakeSpec, no_leftovers: Left) -> None:
    spec = make_spec("hangs_with_grandchildren")

    def kill_once() -> None:
        if (spec.host_dir / "waiting0").exists():
            processes.send_signal(supervisor_of(spec), signal.SIGKILL)

    outcome = run_job(spec, kill_once, 0.05)
    assert outcome.reason == "launcher failed" and not no_leftovers()
    error = failure(outcome, spec.host_dir)
    assert type(error) is errors.LaunchFailed and "supervisor was ended by SIGKILL" in str(error)


def test_sigterm_to_the_supervisor_stops_the_job(make_spec: MakeSpec) -> None:
    spec = make_spec("wait_for_ever")
    sent: list[int] = []

    def stop_once() -> None:
        if not sent and (spec.host_dir / "waiting0").exists():
            sent.append(supervisor_of(spec))
            os.kill(sent[0], signal.SIGTERM)

    outcome = run_job(spec, stop_once, 0.05)
    assert outcome.reason == "stopped"
    assert "SIGTERM to the supervisor" in str(failure(outcome, spec.host_dir))


def test_an_interrupt_ends_the_job_and_goes_on(make_spec: MakeSpec, no_leftovers: Left) -> None:
    spec = make_spec("wait_for_ever", "fake", 2)

    def interrupt() -> None:
        if (spec.host_dir / "waiting0").exists() and (spec.host_dir / "waiting1").exists():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_job(spec, interrupt, 0.05)
    assert not no_leftovers()
    assert records.read(spec.host_dir / records.JOB)["reason"] == "stopped"


@pytest.mark.parametrize("entry", ["hangs_with_grandchildren", "ignores_sigterm"])
def test_sigkill_of_the_parent_leaves_nothing_and_keeps_the_lease_until_then(
    make_spec: MakeSpec, tmp_path: Path, no_leftovers: Left, wait_until: Wait, entry: str
) -> None:
    spec = make_spec(entry)
    lock = tmp_path / "device.lock"
    arguments = [str(spec.case_file), str(spec.host_dir), spec.entry, str(lock)]
    parent = subprocess.Popen([sys.executable, str(Path(__file__).with_name("parent.py")), *arguments], env=spec.env)
    wait_until((spec.host_dir / "waiting0").exists)
    os.kill(parent.pid, signal.SIGSTOP)  # its death must be what ends the job
    with open(lock, "w") as lease:
        with pytest.raises(BlockingIOError):
            fcntl.flock(lease, fcntl.LOCK_EX | fcntl.LOCK_NB)
        parent.kill()
        parent.wait()
        fcntl.flock(lease, fcntl.LOCK_EX)  # as the next job waits for it
        assert not no_leftovers()
    assert records.read(spec.host_dir / records.JOB)["reason"] == "stopped"


def test_no_process_of_the_job_inherits_the_lease(make_spec: MakeSpec, tmp_path: Path) -> None:
    with open(tmp_path / "device.lock", "w") as lease:
        spec = make_spec("wait_for_ever", lease_fds=(lease.fileno(),))
        holders: set[int] = set()

        def look() -> None:
            if (spec.host_dir / "waiting0").exists():
                supervisor = supervisor_of(spec)
                for pid in [supervisor, *processes.descendants(supervisor)]:
                    for entry in Path(f"/proc/{pid}/fd").iterdir():
                        if os.path.realpath(entry) == lease.name:
                            holders.add(pid)
                assert holders == {supervisor}
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            run_job(spec, look, 0.05)


def test_watching_costs_next_to_nothing(make_spec: MakeSpec) -> None:
    spec = make_spec("wait_for_ever", timeout=4.0)
    counted: list[tuple[float, int, float]] = []

    def measure() -> None:
        if (spec.host_dir / "waiting0").exists() and time.monotonic() - started < 3.5:
            counted.append((time.monotonic(), *switches(supervisor_of(spec))))

    started = time.monotonic()
    run_job(spec, measure, 0.2)
    (began, slept_before, used_before), (ended, slept, used) = counted[0], counted[-1]
    assert slept - slept_before < 30 * (ended - began)  # ten times a second, and for what there is to read
    assert used - used_before < 0.2 * (ended - began)
