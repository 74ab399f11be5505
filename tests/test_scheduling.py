"""Scheduling of cases on a host of eight devices, by real pytest sessions with xdist workers that lease them.

The devices are a vendor's of the test's own: eight files. What a case does with its lease is replaced: the suite's
``conftest.py`` puts a stand-in in the place of ``pytest_flagperf.launching.Round``, which holds the devices for a known
time and writes the ledger's lines as the real one does. Everything else is the real thing: collection, xdist, fixtures,
leases, ledger and results. Overlaps, the order of service and the makespan are read from ``ledger.jsonl`` alone.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pytest_flagperf import records
from pytest_flagperf import result
from tests.conftest import wait_for


pytestmark = pytest.mark.slow

DEVICES = 8
# Of the bound below, which nothing can beat: what the order of cases and waiting in turn may cost in all.
ALLOWED = 1.25

VENDOR = """
schema_version = 1
name = "acme"
title = "Acme"
precisions = ["fp32"]
visible_devices = "ACME_VISIBLE_DEVICES"

[detection]
device_nodes = ["{directory}/acme[0-9]"]

[frameworks.pytorch]
device = "acme"
backend = "gloo"
"""

CONFTEST = """
import os
import time
from pathlib import Path

from pytest_flagperf import launching
from pytest_flagperf.measured import Measured


def pytest_flagperf_vendors(config):
    return [config.rootpath / "vendors"]


class HoldsItsDevices:
    '''In the place of Round: the devices are busy for the time that the case says, and nothing is launched.'''

    container = None

    def __init__(self, session, case, directory, number, lease, dataset, progress, *more, **and_more):
        self.session, self.case, self.directory = session, case, directory / f"round{number}"
        self.number, self.lease = number, lease

    def run(self, rounds):
        identity = {"case": self.case.id, "round": self.number, "directory": str(self.directory)}
        self.session.ledger("round_start", **identity, devices=self.lease.devices)
        self.hold()
        self.session.ledger("round_end", **identity, outcome="finished")
        return Measured({})

    def hold(self):
        seconds = self.case.config["seconds"]
        if seconds:
            time.sleep(seconds)
            return
        # Until as many hold devices at the same time as the test waits for, or somebody ends this process.
        meeting = Path(os.environ["MEETING"])
        (meeting / self.case.model).touch()
        deadline = time.monotonic() + 60
        while len(list(meeting.iterdir())) < int(os.environ["MEMBERS"]):
            assert time.monotonic() < deadline, f"only {sorted(p.name for p in meeting.iterdir())} came"
            time.sleep(0.02)


launching.Round = HoldsItsDevices
"""

CASE = """
import pytest
from pytest_flagperf import Scale, TrainingCase

CASE = TrainingCase(
    model="{model}",
    title="{model}",
    workloads={{"pytorch": "pytorch:Nothing"}},
    scales={{"lite": Scale(dataset="digits", targets=[], config={{"seconds": {seconds}}})}},
)


@pytest.mark.throughput
def test_throughput(case, devices, dataset, launcher):
    launcher.run(case, devices, dataset)
"""


@dataclass(frozen=True)
class Held:
    """A lease, as the ledger has it."""

    case: str
    devices: tuple[int, ...]
    available: tuple[int, ...]
    requested: float
    granted: float
    start: float
    end: float

    @property
    def seconds(self) -> float:
        return self.end - self.start


@dataclass(frozen=True)
class Session:
    """A pytest session in a process of its own."""

    process: subprocess.Popen[str]
    results: Path

    def end(self, seconds: float = 300) -> str:
        output, _ = self.process.communicate(timeout=seconds)
        assert self.process.returncode == 0, output
        return output

    def ledger(self) -> list[dict[str, Any]]:
        lines = [path.read_text().splitlines() for path in self.results.glob("*/ledger.jsonl")]
        return [json.loads(line) for line in itertools.chain(*lines)]

    def started(self) -> list[str]:
        """Cases that were given their devices so far."""
        return [line["case"] for line in self.ledger() if line["event"] == "lease_start"]

    def leases(self) -> list[Held]:
        """Every lease of the session; none is left open."""
        open_leases: dict[tuple[int, str], dict[str, Any]] = {}
        found = []
        for line in self.ledger():
            key = (line["pid"], line["case"])
            if line["event"] == "lease_start":
                open_leases[key] = line
            elif line["event"] == "lease_end":
                start = open_leases.pop(key)
                assert (start["devices"], start["vendor"]) == (line["devices"], "acme")
                times = (start["requested"], start["granted"], start["time"], line["time"])
                found.append(Held(line["case"], tuple(line["devices"]), tuple(start["available"]), *times))
        assert not open_leases
        return found


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with the suite, the vendor and its devices."""
    monkeypatch.setenv("FLAGPERF_LEASE_DIR", str(tmp_path / "locks"))
    monkeypatch.delenv("ACME_VISIBLE_DEVICES", raising=False)
    for name in [name for name in os.environ if name.startswith("PYTEST_")]:
        monkeypatch.delenv(name)
    for number in range(DEVICES):
        (tmp_path / f"acme{number}").touch()
    vendor = tmp_path / "vendors" / "acme" / "vendor.toml"
    vendor.parent.mkdir(parents=True)
    vendor.write_text(VENDOR.format(directory=tmp_path))
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    # Each worker loads the plugins: without those that do not matter here, eight of them start in seconds.
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    (tmp_path / "meeting").mkdir()
    monkeypatch.setenv("MEETING", str(tmp_path / "meeting"))
    return tmp_path


def write_cases(host: Path, seconds: Sequence[float]) -> None:
    """One model for each of ``seconds``."""
    for number, each in enumerate(seconds):
        model = f"model{number}"
        (host / f"test_{model}.py").write_text(CASE.format(model=model, seconds=each))


@pytest.fixture
def run(host: Path) -> Iterator[Callable[..., Session]]:
    """Start a pytest session on the host."""
    started: list[subprocess.Popen[str]] = []

    def start(*options: str) -> Session:
        results = host / f"results{len(started)}"
        plugins = ["-p", "no:cacheprovider", "-p", "xdist", "-p", "pytest_flagperf.plugin"]
        command = [sys.executable, "-m", "pytest", "-q", *plugins, "--vendor=acme"]
        ours = ["--framework=pytorch", "--dataset=digits=synthetic", f"--flagperf-dir={results}"]
        process = subprocess.Popen(
            [*command, *ours, *options], cwd=host, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        started.append(process)
        return Session(process, results)

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def clashes(leases: Sequence[Held]) -> list[tuple[Held, Held]]:
    """Pairs of leases that had a device at the same time."""
    return [
        (one, other)
        for one, other in itertools.combinations(leases, 2)
        if set(one.devices) & set(other.devices) and one.start < other.end and other.start < one.end
    ]


def overtaken(leases: Sequence[Held]) -> list[tuple[Held, Held]]:
    """Pairs of which the one that asked later was served first, although both could use the same devices."""
    ordered = sorted(leases, key=lambda lease: lease.requested)
    return [
        (one, other)
        for one, other in itertools.combinations(ordered, 2)
        if set(one.available) & set(other.available) and other.granted < one.granted
    ]


def ratio(leases: Sequence[Held], workers: int) -> float:
    """The time from the first lease to the last one's end, as a multiple of what it takes at least.

    At least: every device busy all the time, or every worker, or the longest case alone.
    """
    makespan = max(lease.end for lease in leases) - min(lease.start for lease in leases)
    busy_devices = sum(lease.seconds * len(lease.devices) for lease in leases) / DEVICES
    busy_workers = sum(lease.seconds for lease in leases) / workers
    bound = max(busy_devices, busy_workers, *(lease.seconds for lease in leases))
    print(f"{len(leases)} leases, makespan {makespan:.2f} s, bound {bound:.2f} s, ratio {makespan / bound:.3f}")
    return makespan / bound


def most_at_once(leases: Sequence[Held]) -> int:
    """The most devices that were leased at one moment."""
    changes = [(lease.start, len(lease.devices)) for lease in leases]
    changes += [(lease.end, -len(lease.devices)) for lease in leases]
    return max(itertools.accumulate(change for _, change in sorted(changes)))


TOPOLOGIES = "--topology=1x1,1x2,1x4,1x8"
# Of each of ten models; four topologies make forty cases of them.
SECONDS = (0.5, 0.6, 0.7, 0.5, 0.6, 0.7, 0.5, 0.6, 0.7, 0.6)


def ratio_of(run, sessions: int, cases: int) -> float:
    """The ratio of a run of ``sessions`` at once, of four workers each, whose leases are as they should be."""
    started = [run(TOPOLOGIES, "-n", "4") for _ in range(sessions)]
    for session in started:
        session.end()
    leases = [lease for session in started for lease in session.leases()]
    assert sorted(len(lease.devices) for lease in leases) == sorted([1, 2, 4, 8] * cases * sessions)
    assert clashes(leases) == []
    assert overtaken(leases) == []
    return ratio(leases, workers=4 * sessions)


def packed(run, sessions: int, cases: int) -> bool:
    """Whether one of three runs stays within what is allowed: a machine that stands still for a second or two makes
    one too long, and a mistake in the packing makes all of them so."""
    return any(ratio_of(run, sessions, cases) <= ALLOWED for _ in range(3))


def test_forty_cases_of_four_workers_never_share_a_device_and_are_packed(host, run):
    write_cases(host, SECONDS)
    assert packed(run, 1, 10)


def test_two_sessions_at_once_never_share_a_device_and_are_packed_together(host, run):
    write_cases(host, SECONDS[:6])
    assert packed(run, 2, 6)


def test_eight_workers_of_one_device_each_use_all_eight_at_the_same_time(host, run, monkeypatch):
    """Each case holds its device until eight hold one: were two in turn, none of them would end."""
    monkeypatch.setenv("MEMBERS", str(DEVICES))
    write_cases(host, [0] * DEVICES)
    session = run("-n", "8")
    session.end()
    leases = session.leases()
    assert sorted(lease.devices for lease in leases) == [(number,) for number in range(DEVICES)]
    assert most_at_once(leases) == DEVICES


def test_a_killed_session_frees_its_devices_and_who_waits_for_them_goes_on(host, run, monkeypatch):
    monkeypatch.setenv("MEMBERS", "2")
    write_cases(host, [0])
    holder = run("--topology=1x8")
    assert wait_for(holder.started, 30)
    # Another meeting for who waits: it ends as soon as it has its devices.
    monkeypatch.setenv("MEMBERS", "1")
    waiter = run("--topology=1x8")
    assert wait_for(lambda: list((host / "locks").glob("acme-ticket-*.lock")), 30)
    holder.process.send_signal(signal.SIGKILL)
    holder.process.wait()
    killed = time.time()
    waiter.end()
    # The time itself is a few hundredths of a second; a busy machine may not come to it at once.
    assert waiter.leases()[0].granted - killed < 20
    assert [line["event"] for line in holder.ledger()] == ["lease_start", "round_start"]
    shown = subprocess.run(
        [sys.executable, "-m", "pytest_flagperf.cli", "show", str(next(holder.results.iterdir()))],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "started and not ended: model0-throughput-pytorch-fp32-1x8-lite round 1\n" in shown.stderr


def test_the_biggest_cases_run_first_under_xdist_only_and_other_tests_keep_their_place(host, run):
    write_cases(host, [0.01, 0.01])
    (host / "test_between.py").write_text("def test_it(): pass\n")
    order = ("test_model0.py", "test_between.py", "test_model1.py", "--topology=1x1,1x4,1x2", "-vv")
    serial, distributed, shared = run(*order), run(*order, "-n", "1"), run(*order, "-n", "1", "--vendor=cpu")

    def ran(session: Session) -> list[str]:
        wanted = [line for line in session.end().splitlines() if "PASSED" in line]
        return [part for line in wanted for part in line.split() if "::" in part]

    names = [f"test_model{n}.py::test_throughput[pytorch-fp32-1x{d}-lite]" for n in range(2) for d in (1, 4, 2)]
    as_collected = [*names[:3], "test_between.py::test_it", *names[3:]]
    assert ran(serial) == as_collected
    big_first = [names[1], names[4], names[2], names[5], names[0], names[3]]
    assert ran(distributed) == [*big_first[:3], "test_between.py::test_it", *big_first[3:]]
    assert ran(shared) == as_collected, "all want the one device there is"


def test_show_names_a_case_that_was_killed_between_two_rounds_and_none_that_ended(tmp_path):
    ledger = tmp_path / "ledger.jsonl"

    def write(pid: int, event: str, case: str, **more: object) -> None:
        records.append_line(ledger, {"event": event, "pid": pid, "case": case, **more})

    for pid, case in ((1, "ended"), (2, "between"), (3, "inside")):
        write(pid, "lease_start", case, devices=[0])
        write(pid, "round_start", case, round=1, directory=f"{case}/round1")
        write(pid, "round_end", case, round=1, directory=f"{case}/round1")
    write(1, "lease_end", "ended", devices=[0])
    write(3, "round_start", "inside", round=2, directory="inside/round2")
    write(4, "lease_start", "ended", devices=[0])
    write(4, "lease_end", "ended", devices=[0])
    assert result.unfinished(ledger) == ["inside round 2", "between"]
