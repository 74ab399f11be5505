"""The pool of warm workers: a fault costs its own problem, devices are never shared, and nothing is left running."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest

from pytest_flagperf import records
from pytest_flagperf import result
from pytest_flagperf.devices import lease
from pytest_flagperf.errors import JobTimedOut
from pytest_flagperf.errors import LaunchFailed
from pytest_flagperf.errors import RankCrashed
from pytest_flagperf.operators import pool as pools
from pytest_flagperf.operators.engine import Engine
from pytest_flagperf.operators.warm import Limit
from pytest_flagperf.provision import Devices
from tests.conftest import ROOT
from tests.conftest import wait_for
from tests.operators.conftest import FAKE


LIMIT = 20.0
REQUEST = {"problem": {}, "precision": "fp32"}
CPU = Devices("cpu", (0,), 1)

# Found and not imported: pytester forgets what was imported in a test, and NumPy does not survive that.
needs_torch = pytest.mark.skipif(find_spec("torch") is None, reason="needs PyTorch")


def ask(pool, one, limit: float | Limit = LIMIT, devices: Devices = CPU):
    from pytest_flagperf.operators.problems import to_json

    return pool.ask(
        one, devices, {"problem": to_json(one.problem)}, limit if isinstance(limit, Limit) else Limit(limit)
    )


def served(pool) -> list[str]:
    return sorted(str(path.parent) for path in pool.directory.rglob("served"))


# --- one worker


def test_problems_share_a_worker(make_pool, session, gemm):
    pool = make_pool(session)
    for _ in range(20):
        assert ask(pool, gemm()).reply["status"] == "measured"
    assert len(served(pool)) == 1


@pytest.mark.parametrize(
    ("fault", "error", "said"),
    [("crash", RankCrashed, "ordered to crash"), ("killed", RankCrashed, "out-of-memory killer")],
)
def test_a_worker_that_dies_fails_its_problem_and_the_next_one_gets_a_new(make_pool, session, gemm, fault, error, said):
    pool = make_pool(session)
    ask(pool, gemm())
    with pytest.raises(error, match=said):
        ask(pool, gemm(fault))
    assert ask(pool, gemm()).reply["status"] == "measured"
    assert len(served(pool)) == 2


@pytest.mark.parametrize("fault", ["hang", "stubborn"])
def test_a_call_that_does_not_end_is_ended_at_its_limit(make_pool, session, gemm, marked, fault):
    pool = make_pool(session)
    ask(pool, gemm())
    begin = time.monotonic()
    with pytest.raises(JobTimedOut, match=r"no answer after 0\.5 s"):
        ask(pool, gemm(fault), limit=0.5)
    assert time.monotonic() - begin < 10
    assert not marked()
    assert ask(pool, gemm()).reply["status"] == "measured"


def test_a_limit_of_silence_begins_again_with_every_sign_of_life(make_pool, session, gemm):
    pool, limit = make_pool(session), Limit(6.0, of_silence=True)
    ask(pool, gemm())
    begin = time.monotonic()
    assert ask(pool, gemm("slow and alive"), limit=limit).reply["status"] == "measured"
    assert time.monotonic() - begin > limit.seconds
    with pytest.raises(JobTimedOut, match="no sign of life for 6 s"):
        ask(pool, gemm("hang"), limit=limit)


def test_a_worker_whose_device_is_lost_is_not_blamed_on_the_next_problem(make_pool, session, gemm):
    pool = make_pool(session)
    assert ask(pool, gemm("lost")).reply["status"] == "failed"
    assert ask(pool, gemm()).reply["status"] == "measured"


def test_a_worker_that_never_gets_ready_is_said_so(make_pool, session, gemm, monkeypatch, tmp_path):
    entry = tmp_path / "silent.py"
    entry.write_text("import time\ndef main(context):\n    time.sleep(60)\n")
    monkeypatch.setattr(pools, "ENTRY", f"{entry}:main")
    session.options = type(session.options)(**{**vars(session.options), "stall_timeout": 0.5})
    pool = make_pool(session)
    for _ in range(2):
        with pytest.raises(LaunchFailed, match=r"not ready after 0\.5 s"):
            ask(pool, gemm(), limit=0.1)
    tried = sorted(pool.directory.rglob("supervisor.json"))
    assert tried
    with pytest.raises(LaunchFailed, match="no worker of pytorch starts here; not tried again"):
        ask(pool, gemm(), limit=0.1)
    assert sorted(pool.directory.rglob("supervisor.json")) == tried


def test_the_time_in_which_a_worker_starts_belongs_to_no_problem(make_pool, session, gemm, monkeypatch, tmp_path):
    entry = tmp_path / "late.py"
    entry.write_text(
        "import runpy, time\n"
        "def main(context):\n"
        "    time.sleep(1.5)\n"
        f"    runpy.run_path({FAKE.removesuffix(':main')!r})['main'](context)\n"
    )
    monkeypatch.setattr(pools, "ENTRY", f"{entry}:main")
    pool = make_pool(session)
    begin = time.monotonic()
    first, second = (ask(pool, gemm()).window for _ in range(2))
    assert first[1] - begin >= 1.5
    assert 0 <= first[1] - first[0] < 1.0
    assert second[0] >= first[1]


def test_a_monitor_that_still_runs_has_not_ended_early_and_one_that_was_killed_has(make_pool, session, gemm):
    session.options = replace(session.options, monitor=0.1)
    pool = make_pool(session)
    early = "the monitor ended before the job did"
    assert wait_for(lambda: ask(pool, gemm()).seen.devices, 30)
    outcome = Engine(session, pool).measure(gemm(), CPU, rerun=[])
    assert outcome.result.verdict == "passed"
    assert not [note for note in outcome.result.notes if early in note]
    watcher = next(iter(pool._slots.values()))._watcher
    watcher.kill()
    watcher.wait()
    assert any(early in note for note in Engine(session, pool).measure(gemm(), CPU, rerun=[]).result.notes)


def test_closing_ends_an_idle_worker_at_once(make_pool, session, gemm, marked):
    pool = make_pool(session)
    ask(pool, gemm())
    assert marked()
    begin = time.monotonic()
    pool.close()
    assert time.monotonic() - begin < LIMIT / 2
    assert not marked()


# --- devices


def test_on_a_shared_device_the_lease_ends_with_the_problem_and_the_worker_stays(make_pool, session, gemm, marked):
    pool = make_pool(session)
    ask(pool, gemm())
    assert lease.held_by("cpu", 0) == ""
    assert marked()
    events = [line["event"] for line in records.read_lines(session.directory / "ledger.jsonl")]
    assert events == ["lease_start", "lease_end"]


def test_on_others_worker_and_lease_are_kept_until_somebody_waits(make_pool, accelerator, gemm, marked):
    pool = make_pool(accelerator)
    ask(pool, gemm())
    assert lease.held_by("cpu", 0)
    with lease.leased("cpu", (0,), 1, owner="somebody else"):
        # The idle worker was in the way: it is gone.
        assert not marked()
    assert ask(pool, gemm()).reply["status"] == "measured"
    assert len(served(pool)) == 2
    pool.close()
    assert lease.held_by("cpu", 0) == ""


def test_between_two_problems_the_devices_are_given_up_once_they_were_held_a_while(
    make_pool, accelerator, gemm, monkeypatch
):
    monkeypatch.setattr(pools, "HOLD", 0.0)
    pool, granted = make_pool(accelerator), threading.Event()
    ask(pool, gemm())

    def other() -> None:
        with lease.leased("cpu", (0,), 1, owner="somebody else"):
            granted.set()

    thread = threading.Thread(target=other)
    measuring = threading.Thread(target=lambda: ask(pool, gemm("slow")))
    measuring.start()
    thread.start()
    measuring.join(LIMIT)
    assert granted.wait(LIMIT)
    thread.join(LIMIT)


def test_two_frameworks_of_one_process_do_not_wait_for_each_other(make_pool, accelerator, gemm):
    accelerator.options = type(accelerator.options)(
        **{**vars(accelerator.options), "pythons": {"pytorch": sys.executable, "paddle": sys.executable}}
    )
    pool = make_pool(accelerator)
    for framework in ("pytorch", "paddle", "pytorch"):
        begin = time.monotonic()
        assert ask(pool, gemm(framework=framework)).reply["status"] == "measured"
        assert time.monotonic() - begin < LIMIT / 2


def test_a_ticket_tells_who_holds_that_somebody_waits(monkeypatch, tmp_path):
    monkeypatch.setenv("FLAGPERF_LEASE_DIR", str(tmp_path / "leases"))
    entered = threading.Event()

    def wait() -> None:
        with lease.leased("cpu", (0, 1), 2, owner="waits"):
            entered.set()

    with lease.leased("cpu", (0,), 1, owner="holds"):
        assert not lease.contended("cpu", (0,))
        thread = threading.Thread(target=wait)
        thread.start()
        assert wait_for(lambda: lease.contended("cpu", (0,)), 5)
        assert not lease.contended("cpu", (7,))
        assert not lease.contended("nvidia", (0,))
    thread.join(5)
    assert entered.is_set()
    assert not lease.contended("cpu", (0,))


# --- through pytest


def test_each_fault_is_an_error_of_its_own_problem_and_the_others_pass(pytester, faults, marked):
    faults("", "crash", "", "killed", "out_of_memory", "nan", "tf32", "failed", "wrong", "unsupported", "hang", "")
    done = pytester.runpytest_subprocess("-rfsE", "--timeout=6", "-p", "no:timeout")
    done.assert_outcomes(passed=3, failed=8, skipped=1)
    output = done.stdout.str()
    for error in ("RankCrashed", "DeviceOutOfMemory", "InvalidMeasurement", "OperatorFailed", "WrongResult"):
        assert error in output
    assert "JobTimedOut" in output
    assert "no int8 convolution in this framework" in output
    assert "time is nan" in output
    assert "TF32 was in force" in output
    assert "rerun:  pytest 'test_faults.py::test_gemm[" in output
    assert not marked()
    (session,) = (pytester.path / "flagperf-results").iterdir()
    verdicts = [one.verdict for one in result.read_results(session / "operators" / "main" / "results.jsonl")]
    assert sorted(verdicts) == ["invalid"] * 7 + ["passed"] * 3 + ["unsupported", "wrong"]


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_of_a_pytest_that_is_ended_while_it_measures(pytester, faults, marked, signum):
    faults("", "hang")
    command = [sys.executable, "-m", "pytest", "-q", str(pytester.path)]
    process = subprocess.Popen(command, cwd=pytester.path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert wait_for(lambda: list(pytester.path.rglob("served")) and _lines(pytester.path), 60)
    os.kill(process.pid, signum)
    process.communicate(timeout=60)
    assert wait_for(lambda: not marked(), 15)


def _lines(directory: Path) -> bool:
    return any(path.read_text() for path in directory.rglob("served"))


@pytest.mark.slow
def test_workers_of_xdist_and_two_sessions_never_overlap_on_a_device(pytester, faults, marked):
    faults(*["slow"] * 6)
    command = [sys.executable, "-m", "pytest", "-q", "-n", "2", str(pytester.path)]
    sessions = [
        subprocess.Popen(command, cwd=pytester.path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) for _ in range(2)
    ]
    for process in sessions:
        output, _ = process.communicate(timeout=120)
        assert process.returncode == 0, output.decode()
    held = []
    for ledger in pytester.path.rglob("ledger.jsonl"):
        starts: dict[tuple[int, str], float] = {}
        for line in records.read_lines(ledger):
            key = (line["pid"], line["case"])
            if line["event"] == "lease_start":
                starts[key] = line["time"]
            elif line["event"] == "lease_end":
                held.append((starts.pop(key), line["time"]))
        assert not starts
    assert len(held) == 12
    held.sort()
    assert all(before[1] <= after[0] + 0.002 for before, after in itertools.pairwise(held))
    assert not marked()


# --- real workers


REAL = """
from pytest_flagperf.operators.case import OperatorCase
from pytest_flagperf.operators.problems import Gemm

CASE = OperatorCase(
    family="gemm",
    title="real ones",
    problems=[Gemm(m, m, m, sets=("train",)) for m in (64, {sizes}, 65)],
)


def test_gemm(case, devices, operators):
    assert operators.measure(case, devices).correct()
"""


@pytest.fixture
def real(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], Path]:
    monkeypatch.setenv("FLAGPERF_LEASE_DIR", str(pytester.path / "leases"))
    pytester.makeini("[pytest]\nflagperf_vendor = cpu\naddopts = -p no:cacheprovider\n")

    def make(*sizes: int) -> Path:
        return pytester.makepyfile(test_real=REAL.format(sizes=", ".join(map(str, sizes))))

    return make


@pytest.mark.slow
@pytest.mark.pytorch
@needs_torch
def test_an_allocation_beyond_memory_and_a_call_beyond_its_limit_fail_alone(pytester, real, marked):
    real(500_000, 8192)
    done = pytester.runpytest_subprocess("--flagperf-timeout=3", "--framework=pytorch", timeout=200)
    done.assert_outcomes(passed=2, failed=2)
    assert "DeviceOutOfMemory" in done.stdout.str()
    assert "JobTimedOut" in done.stdout.str()
    assert not marked()


@pytest.mark.slow
@pytest.mark.pytorch
@needs_torch
def test_a_worker_that_is_killed_in_the_middle_of_a_problem_fails_that_one_alone(pytester, real, marked):
    real(8192)
    command = [sys.executable, "-m", "pytest", "-q", "--framework=pytorch", str(pytester.path)]
    process = subprocess.Popen(command, cwd=pytester.path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert wait_for(lambda: "8192" in _events(pytester.path), 90)
    (started,) = pytester.path.rglob("rank0.started.json")
    os.kill(json.loads(started.read_text())["pid"], signal.SIGKILL)
    output = process.communicate(timeout=120)[0].decode()
    assert "1 failed, 2 passed" in output
    assert "RankCrashed" in output
    assert str(ROOT) in output or "gemm" in output
    assert not marked()


def _events(directory: Path) -> str:
    return "".join(path.read_text() for path in directory.rglob("rank0.events.jsonl"))


@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["alone", "xdist"])
def test_every_report_has_every_operator(pytester, faults, workers):
    faults("", "wrong", "crash", "unsupported")
    options = ("--junitxml=junit.xml", "--alluredir=allure", "--framework=pytorch")
    done = pytester.runpytest_subprocess(*options, *workers)
    done.assert_outcomes(passed=1, failed=2, skipped=1)
    done.stdout.fnmatch_lines(["gemm: *", "all figures: *operators.csv*"])
    (session,) = (pytester.path / "flagperf-results").iterdir()
    assert len((session / "operators.csv").read_text().splitlines()) == 5
    assert len(json.loads((session / "operators.json").read_text())["results"]) == 4
    assert json.loads((session / "session.json").read_text())["exit_status"] == 1
    cases = ElementTree.parse(pytester.path / "junit.xml").getroot().iter("testcase")
    verdicts = [one.get("value") for case in cases for one in case.iter("property") if "verdict" in one.get("name", "")]
    assert sorted(verdicts) == ["invalid", "passed", "unsupported", "wrong"]
    statuses = [json.loads(path.read_text())["status"] for path in (pytester.path / "allure").glob("*-result.json")]
    assert sorted(statuses) == ["broken", "failed", "passed", "skipped"]
