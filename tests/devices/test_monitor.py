"""The monitor: what it writes, what it survives, and that it is gone when the job is."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_flagperf import samples
from pytest_flagperf.devices import monitor
from pytest_flagperf.launch import processes


ROWS = "index, name, power, temperature, used\\n0, Acme A1, 61, 40, 512\\n1, Acme A1, 62, 41, 513"
GOOD = f"if sys.argv[1] == '--csv': print('{ROWS}')"
ROUND = "d0c5"


def spec(vendor, path: Path, **changed) -> monitor.Spec:
    given = {
        "vendor_file": str(vendor.directory / "vendor.toml"),
        "devices": (0, 1),
        "interval": 0.1,
        "output": str(path / "monitor.jsonl"),
        "round": ROUND,
        "owner": os.getpid(),
    }
    return monitor.Spec(**{**given, **changed})


def lines(path: Path) -> list[dict]:
    file = path / "monitor.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def watch(vendor, path: Path, until: Callable[[list[dict]], bool], **changed) -> list[dict]:
    """Run a monitor until its lines satisfy ``until``; its lines when it has ended."""
    deadline = time.monotonic() + 20
    with monitor.watching(spec(vendor, path, **changed)):
        while not until(lines(path)):
            assert time.monotonic() < deadline, lines(path)
            time.sleep(0.02)
    return lines(path)


def count(event: str, at_least: int) -> Callable[[list[dict]], bool]:
    return lambda found: sum(line["event"] == event for line in found) >= at_least


def only(found: list[dict], event: str) -> list[dict]:
    return [line for line in found if line["event"] == event]


def test_a_sample_has_device_time_and_figures_and_the_host_has_its_own(acme, tmp_path: Path):
    found = watch(acme(GOOD), tmp_path, lambda f: count("sample", 6)(f) and count("host", 3)(f))
    first = only(found, "sample")[0]
    assert (first["device"], first["name"], first["power"], first["memory_used"]) == (0, "Acme A1", 61.0, 0.5)
    assert abs(first["time"] - time.time()) < 60
    assert [one["device"] for one in only(found, "sample")[:4]] == [0, 1, 0, 1]
    hosts = only(found, "host")
    assert "cpu_utilization" not in hosts[0], "the first look has no interval to be of"
    assert all(0 <= one["cpu_utilization"] <= 1 for one in hosts[1:])
    assert only(found, "monitor_end")[0]["cpu_time"] > 0
    assert not (tmp_path / "monitor.log").exists()


def test_it_looks_once_more_when_the_job_is_over(acme, tmp_path: Path):
    with monitor.watching(spec(acme(GOOD), tmp_path, interval=60)):
        deadline = time.monotonic() + 20
        while not count("sample", 2)(lines(tmp_path)):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        over = time.monotonic()
    late = [one for one in only(lines(tmp_path), "sample") if one["monotonic"] > over]
    assert [one["device"] for one in late] == [0, 1]


def test_it_looks_once_more_though_the_job_ended_in_the_middle_of_a_look(acme, tmp_path: Path):
    slow = f"time.sleep(0.5)\n{GOOD}"
    with monitor.watching(spec(acme(slow), tmp_path, interval=0.05)):
        deadline = time.monotonic() + 20
        while not count("sample", 2)(lines(tmp_path)):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        over = time.monotonic()
    assert [one["device"] for one in only(lines(tmp_path), "sample") if one["monotonic"] > over] == [0, 1]


def test_only_the_leased_devices_are_written(acme, tmp_path: Path):
    found = watch(acme(GOOD), tmp_path, count("sample", 3), devices=(1,))
    assert {one["device"] for one in only(found, "sample")} == {1}


def test_a_hung_driver_is_a_gap_with_its_reason_and_is_asked_again(acme, tmp_path: Path):
    flag = tmp_path / "asked"
    code = (
        f"import pathlib\nf = pathlib.Path({str(flag)!r})\nif not f.exists():\n    f.touch(); time.sleep(300)\n{GOOD}"
    )
    found = watch(acme(code), tmp_path, count("sample", 2))
    gap = only(found, "gap")[0]
    assert "acme-smi did not end within 1 s" in gap["error"]
    assert 0.9 < gap["seconds"] < 30
    assert found.index(gap) < found.index(only(found, "sample")[0])


def test_a_driver_that_vanishes_is_told_once_in_full(acme, tmp_path: Path):
    vendor = acme(GOOD)
    program = tmp_path / "tools" / "acme-smi"

    def until(found: list[dict]) -> bool:
        if count("sample", 2)(found) and program.exists():
            program.unlink()
        return count("gap", 3)(found)

    gaps = only(watch(vendor, tmp_path, until), "gap")
    # It may vanish between the kernel's look at it and its interpreter's.
    assert re.search("cannot be started|is not in PATH|can't open file", gaps[0]["error"])
    assert sum("error" in gap for gap in gaps) < len(gaps)


def test_a_device_that_falls_off_the_bus_is_a_gap_and_the_others_are_sampled(acme, tmp_path: Path):
    found = watch(acme(GOOD), tmp_path, count("gap", 2), devices=(0, 7))
    assert "did not tell of device 7" in only(found, "gap")[0]["error"]
    assert {one["device"] for one in only(found, "sample")} == {0}


def test_it_ends_at_once_while_its_driver_hangs(acme, tmp_path: Path):
    with monitor.watching(spec(acme("time.sleep(300)"), tmp_path)):
        deadline = time.monotonic() + 10
        while not lines(tmp_path) and time.monotonic() < deadline:
            time.sleep(0.02)
        began = time.monotonic()
    assert time.monotonic() - began < 20
    assert lines(tmp_path)[-1]["event"] == "monitor_end"


def test_it_dies_with_a_pytest_that_is_killed(acme, tmp_path: Path):
    given = spec(acme(GOOD), tmp_path)
    code = (
        "import sys, time\nfrom pytest_flagperf.devices import monitor\n"
        f"with monitor.watching(monitor.Spec(*{tuple(given)!r})):\n    time.sleep(300)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code]) as parent:
        deadline = time.monotonic() + 20
        while not count("sample", 1)(lines(tmp_path)):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        pid = lines(tmp_path)[0]["pid"]
        parent.send_signal(signal.SIGKILL)
    until = time.monotonic() + 5
    while processes.is_alive(pid) and time.monotonic() < until:
        time.sleep(0.02)
    assert not processes.is_alive(pid)


@pytest.mark.parametrize("mine", [True, False])
def test_a_process_of_somebody_else_on_a_leased_device_is_named(acme, tmp_path: Path, mine):
    environment = {**os.environ, monitor.ROUND_VARIABLE: ROUND if mine else "another"}
    # A grandchild of nobody here: its parent has gone, as the user of another terminal is not ours either.
    code = "import os, time\nif os.fork() == 0:\n    os.setsid(); print(os.getpid(), flush=True); time.sleep(300)"
    with subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True) as starter:
        pid = int(starter.stdout.readline())
        starter.wait()
        try:
            listed = f"print('device 0\\ndevice 1\\nprocess 1 {pid}\\nprocess 1 4194305\\n-----')"
            found = watch(acme(f"{GOOD}\nelse: {listed}"), tmp_path, count("sample", 4))
        finally:
            os.kill(pid, signal.SIGKILL)
    told = only(found, "processes")
    assert all(one["device"] == 1 for one in told)
    assert told[0]["unseen"] == [4194305]
    seen = samples.read(tmp_path / "monitor.jsonl")
    if mine:
        assert told[0]["foreign"] == []
        samples.refuse_foreign(seen)
    else:
        assert "time.sleep(300)" in told[0]["foreign"][0]["command"]
        with pytest.raises(samples.InvalidMeasurement, match=rf"device 1: pid {pid} .*time\.sleep"):
            samples.refuse_foreign(seen)


def test_a_descendant_of_ours_belongs_to_the_round_though_its_environment_was_emptied():
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"], env={}) as child:
        assert monitor.belongs(child.pid, ROUND, os.getpid()) is True
        child.kill()
    assert monitor.belongs(os.getpid(), ROUND, owner=0) is False
    assert monitor.belongs(4194305, ROUND, os.getpid()) is None
