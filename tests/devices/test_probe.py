"""Asking a driver: bounded in time, in what it prints and in what it leaves behind."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pytest_flagperf.devices import bounded
from pytest_flagperf.devices import occupied
from pytest_flagperf.devices import probe
from pytest_flagperf.devices import vendor as vendors
from pytest_flagperf.devices.reading import Process
from pytest_flagperf.errors import DeviceUnavailable
from pytest_flagperf.errors import ProbeError
from pytest_flagperf.launch import processes


HEADER = "index, name, power, temperature, used"


def prints(*rows: str) -> str:
    return f"print({chr(10).join((HEADER, *rows))!r})"


def test_a_driver_that_answers_is_read_in_our_units(acme):
    (one,) = probe.devices(acme(prints("3, Acme A1, 61.5, 40, 512")))
    assert (one.index, one.name, one.power, one.temperature, one.memory_used) == (3, "Acme A1", 61.5, 40.0, 0.5)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("time.sleep(300)", "acme-smi did not end within 1 s"),
        ("print('index, na', end='', flush=True); time.sleep(300)", "did not end within 1 s\nit printed:\n  index, na"),
        ("os.close(1); os.close(2); time.sleep(300)", "closed its output and did not end within 1 s"),
        ("sys.stdout.write('x' * 10_000_000)", "printed more than 4 MiB\nit printed:\n  xxx"),
        ("print('driver is not loaded', file=sys.stderr); sys.exit(9)", "exit code 9\nit printed:\n  driver is not l"),
        ("os.kill(os.getpid(), 11)", "acme-smi failed with SIGSEGV"),
        ("pass", "it printed nothing"),
        ("os.write(1, bytes(range(128, 256)) + b'\\n')", "no row has the columns"),
        (f"print({HEADER!r}, end='')", "last line is cut off"),
        (prints("0, Acme A1, 61.5"), "row 1 has 3 columns of 5"),
        (prints("0, Acme A1, sixty, 40, 512"), "power: 'sixty' is no figure"),
        (prints("0, Acme A1, 61, 40 F, 512"), "temperature: unit 'F'"),
        (prints("0, Acme A1, -61, 40, 512"), "power: '-61' is not possible"),
        (prints("0, A, 61, 40, 512", "0, A, 61, 40, 512"), "device 0 is there twice"),
    ],
)
def test_a_driver_that_does_not_answer_well_is_an_error_that_names_the_vendor_and_shows_the_text(acme, code, message):
    vendor, began = acme(code), time.monotonic()
    with pytest.raises(ProbeError) as caught:
        probe.devices(vendor)
    assert "acme: " in str(caught.value)
    assert message in str(caught.value)
    assert time.monotonic() - began < 60


def test_what_a_hung_program_started_is_ended_with_it(acme, tmp_path: Path):
    vendor = acme(
        f"import subprocess\np = subprocess.Popen(['sleep', '300'])\n"
        f"open({str(tmp_path / 'pid')!r}, 'w').write(str(p.pid))\ntime.sleep(300)"
    )
    with pytest.raises(ProbeError, match="did not end"):
        probe.devices(vendor)
    pid = int((tmp_path / "pid").read_text())
    until = time.monotonic() + 5
    while processes.is_alive(pid) and time.monotonic() < until:
        time.sleep(0.02)
    assert not processes.is_alive(pid)


def test_terminal_escapes_of_a_driver_do_not_reach_the_message(acme):
    with pytest.raises(ProbeError) as caught:
        probe.devices(acme("print('\\x1b[2J\\x1b]0;owned\\x07 no driver')"))
    assert "no driver" in str(caught.value)
    assert "\x1b" not in str(caught.value)


def test_a_call_that_nobody_waits_for_any_more_ends_at_once(acme):
    vendor = acme("time.sleep(300)")
    reader, writer = os.pipe()
    os.close(writer)
    try:
        with pytest.raises(bounded.Cancelled):  # at its limit it would be a ProbeError
            probe.Program(
                vendor, vendor.probe[0], probe.find_program("acme-smi", vendor.probe[0]), cancel=reader
            ).read()
    finally:
        os.close(reader)


def test_processes_come_from_the_second_command(acme):
    rows = prints("0, Acme A1, 61, 40, 512", "1, Acme A1, 61, 40, 512")
    listed = "print('device 0\\ndevice 1\\nprocess 1 4711\\nprocess 1 4712\\n-----')"
    prober = probe.prober(acme(f"if sys.argv[1] == '--csv':\n    {rows}\nelse:\n    {listed}"))
    prober.read()
    assert prober.processes() == {0: (), 1: (Process(4711), Process(4712))}


def test_a_process_table_that_is_cut_off_is_an_error_and_not_an_empty_one(acme):
    rows = prints("0, Acme A1, 61, 40, 512")
    listed = "print('=====\\ndevice 0\\nprocess 0 4711')"
    prober = probe.prober(acme(f"if sys.argv[1] == '--csv':\n    {rows}\nelse:\n    {listed}"))
    prober.read()
    with pytest.raises(ProbeError, match="the processes in the output processes cannot be told"):
        prober.processes()


def test_a_text_without_rules_lists_the_processes_that_it_lists(acme):
    rows = prints("0, Acme A1, 61, 40, 512")
    listed = "print('device 0\\nprocess 0 4711' if os.path.exists('busy') else 'device 0')"
    prober = probe.prober(acme(f"if sys.argv[1] == '--csv':\n    {rows}\nelse:\n    {listed}"))
    prober.read()
    assert prober.processes() == {0: ()}


def test_somebody_on_a_device_is_refused_before_the_job_with_pid_command_and_what_to_do(acme):
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"]) as child:
        rows = prints("0, Acme A1, 61, 40, 512", "1, Acme A1, 61, 40, 512")
        listed = f"print('device 0\\ndevice 1\\nprocess 1 {child.pid}')"
        vendor = acme(f"if sys.argv[1] == '--csv':\n    {rows}\nelse:\n    {listed}")
        occupied.refuse(vendor, [0], "round", owner=0)
        occupied.refuse(vendor, [1], "round", owner=os.getpid())
        with pytest.raises(DeviceUnavailable, match=rf"device 1: pid {child.pid} .*time.sleep") as caught:
            occupied.refuse(vendor, [0, 1], "round", owner=0)
        child.kill()
    assert "End it" in str(caught.value)


def test_a_driver_that_cannot_list_processes_is_no_reason_to_refuse(acme):
    occupied.refuse(acme("sys.exit(3)"), [0], "round", owner=0)


def test_without_a_driver_the_message_says_what_was_looked_for(acme, tmp_path: Path):
    vendor = acme("pass")
    (tmp_path / "tools" / "acme-smi").unlink()
    assert probe.devices(vendor) == []
    assert f"acme-smi is not in PATH, {tmp_path / 'tools'}" in probe.looked_for(vendor)


LIBRARY = """
import os, time
from pytest_flagperf.devices.reading import Reading

class Driver:
    def __init__(self):
        {init}

    def read(self):
        {read}

    def close(self):
        raise OSError("the device is gone")
"""


@pytest.fixture
def library(acme, tmp_path: Path):
    """The vendor with a library before its program; both tell of one device."""

    def make(init: str = "pass", read: str = "return [Reading(0, name='L', power=5.0, processes=())]") -> object:
        vendor = acme(prints("0, Acme A1, 61, 40, 512"))
        text = (vendor.directory / "vendor.toml").read_text()
        (vendor.directory / "driver.py").write_text(LIBRARY.format(init=init, read=read))
        with_library = '[[probe]]\nlibrary = "driver.py:Driver"\ntimeout = 2\n\n[[probe]]\ncommand'
        (vendor.directory / "vendor.toml").write_text(text.replace("[[probe]]\ncommand", with_library, 1))
        return vendors.load(vendor.directory / "vendor.toml")

    return make


def test_a_library_is_asked_in_a_process_of_its_own(library):
    vendor = library(read="return [Reading(0, name=str(os.getpid()), processes=())]")
    prober = probe.prober(vendor)
    first, second = prober.read(), prober.read()
    assert {str(os.getpid()), first[0].name, second[0].name} - {str(os.getpid())} == {first[0].name, second[0].name}
    assert prober.processes() == {0: ()}
    prober.close()


@pytest.mark.parametrize(
    ("init", "read"),
    [
        ("import nosuchmodule", "return []"),
        ("raise RuntimeError('no driver')", "return []"),
        ("os.kill(os.getpid(), 11)", "return []"),
        ("time.sleep(300)", "return []"),
        ("pass", "raise KeyError('power')"),
        ("pass", "return []"),
    ],
)
def test_a_library_that_cannot_be_used_leaves_the_turn_to_the_next_way(library, init, read):
    vendor = library(init, read)
    (one,) = probe.devices(vendor)
    assert one.name == "Acme A1"
    (vendor.directory.parents[1] / "tools" / "acme-smi").unlink()
    assert "Driver" in probe.looked_for(vendor)


def test_a_module_that_cannot_be_loaded_is_told_and_is_no_crash(library):
    vendor = library()
    (vendor.directory / "driver.py").write_text("import nosuchmodule\n")
    (one,) = probe.devices(vendor)
    assert one.name == "Acme A1"


def test_names_come_from_a_command_that_is_asked_once(acme, tmp_path: Path):
    asked = tmp_path / "asked"
    rows = prints("0, N/A, 61, 40, 512", "1, Own, 61, 40, 512")
    names = prints("0, Acme A1, 1, 1, 1", "1, Other, 1, 1, 1")
    count = f"open({str(asked)!r}, 'a').write('x')"
    vendor = acme(f"if sys.argv[1] == '--csv':\n    {rows}\nelif sys.argv[1] == 'static':\n    {count}; {names}")
    file = vendor.directory / "vendor.toml"
    file.write_text(
        file.read_text().replace(
            "timeout = 1.0", 'timeout = 5.0\nidentity = ["acme-smi", "static"]\nidentity_output = "csv"'
        )
    )
    prober = probe.prober(vendors.load(file))
    for _ in range(3):
        first, second = prober.read()
    assert (first.name, first.power, second.name) == ("Acme A1", 61.0, "Own")
    assert asked.read_text() == "x"
