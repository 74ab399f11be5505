"""`flagperf devices` and `flagperf doctor`: what this host has, and what is in the way, for a person and as JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_flagperf import doctor
from pytest_flagperf import engines
from pytest_flagperf.cli import main
from pytest_flagperf.devices import lease
from pytest_flagperf.devices import vendor as vendors
from pytest_flagperf.engines import Seen


VENDOR = """
schema_version = 1
name = "acme"
title = "Acme"
precisions = ["fp32"]
visible_devices = "ACME_VISIBLE_DEVICES"

[detection]
device_nodes = ["@/acme[0-9]*"]

[frameworks.pytorch]
device = "cuda"

[[probe]]
command = ["acme-smi"]
output = "csv"
directories = ["@"]
timeout = 5
processes = ["acme-smi", "processes"]
processes_output = "processes"

[output.csv]
format = "csv"
fields = { index = "index", name = "name", power = "power", memory_used = "used", memory_total = "total" }
units = { power = "W", memory_used = "MiB", memory_total = "MiB" }

[output.processes]
format = "pattern"
[[output.processes.layouts]]
device = '''^device (?P<index>\\d+)'''
start = "^device"
process = '''^process (?P<index>\\d+) (?P<pid>\\d+|none)'''

[chips.A1]
names = ["Acme A1"]
source = "datasheet"
"""


IDLE = "device 0\ndevice 1\nprocess 0 none\nprocess 1 none\n-----\n"


@pytest.fixture
def acme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The vendor acme, and cpu; ``acme-smi`` prints what a test wrote, or is not there."""

    def make(printed: str | None, listed: str = IDLE) -> None:
        folder = tmp_path / "vendors" / "acme"
        folder.mkdir(parents=True)
        (folder / "vendor.toml").write_text(VENDOR.replace("@", str(tmp_path)))
        if printed is not None:
            program = tmp_path / "acme-smi"
            texts = f"import sys\nsys.stdout.write({listed!r} if sys.argv[1:] else {printed!r})\n"
            program.write_text(f"#!{sys.executable} -IS\n{texts}")
            program.chmod(0o755)
        cpu = tmp_path / "vendors" / "cpu"
        cpu.symlink_to(vendors.bundled() / "cpu")
        monkeypatch.setattr(vendors, "bundled", lambda: tmp_path / "vendors")
        monkeypatch.setenv("FLAGPERF_LEASE_DIR", str(tmp_path / "leases"))

    return make


GOOD = "index, name, power, used, total\n0, Acme A1, 61, 512, 32768\n1, Acme Z9, 62, N/A, 32768\n"


def test_devices_are_a_table_of_what_the_driver_tells(acme, capsys) -> None:
    acme(GOOD)
    assert main(["devices", "--vendor=acme"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["device", "name", "chip", "power", "memory", "processes"]
    assert lines[2].split() == ["acme", "0", "Acme", "A1", "A1", "61", "W", "0.5", "/", "32.0", "GiB", "0"]
    assert lines[3].split() == ["acme", "1", "Acme", "Z9", "62", "W", "?", "/", "32.0", "GiB", "0"]


def test_devices_as_json_have_every_figure_and_nothing_that_is_not_known(acme, capsys) -> None:
    acme(GOOD)
    assert main(["devices", "--vendor=acme", "--json"]) == 0
    first, second = json.loads(capsys.readouterr().out)
    assert (first["vendor"], first["chip"], first["power"], first["memory_used"]) == ("acme", "A1", 61.0, 0.5)
    assert second["chip"] is None
    assert "memory_used" not in second
    assert "temperature" not in first


def test_a_lease_shows_who_holds_the_device_and_is_gone_with_its_holder(acme, capsys) -> None:
    acme(GOOD)
    with lease.leased("acme", [0, 1], 1, owner="resnet50 convergence"):
        main(["devices", "--vendor=acme"])
        shown = capsys.readouterr().out
    assert f"pid {os.getpid()}, resnet50 convergence" in shown
    main(["devices", "--vendor=acme"])
    assert "resnet50" not in capsys.readouterr().out


def test_the_variable_that_hides_devices_is_told(acme, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    acme(GOOD)
    monkeypatch.setattr(doctor, "find_spec", lambda name: None)
    monkeypatch.setenv("ACME_VISIBLE_DEVICES", "1")
    main(["doctor", "--vendor=acme", "--json"])
    assert "ACME_VISIBLE_DEVICES='1' leaves 1 of 2: 1" in [one["text"] for one in findings(capsys)["vendor acme"]]
    monkeypatch.setenv("ACME_VISIBLE_DEVICES", "7")
    assert main(["doctor", "--vendor=acme", "--json"]) == 1


def test_a_vendor_that_was_asked_for_and_is_not_there_is_a_problem(acme, capsys) -> None:
    acme(None)
    assert main(["doctor", "--vendor=acme", "--json"]) == 1
    assert findings(capsys)["vendor acme"][0]["level"] == "problem"


def test_the_record_of_a_killed_holder_is_not_shown_as_a_lease(acme, capsys) -> None:
    acme(GOOD)
    code = (
        "import os, signal\nfrom pytest_flagperf.devices import lease\n"
        "with lease.leased('acme', [0, 1], 1, owner='killed'):\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=False)
    main(["devices", "--vendor=acme"])
    assert "killed" not in capsys.readouterr().out


def test_without_the_hardware_devices_says_what_was_looked_for_and_fails(acme, capsys, tmp_path: Path) -> None:
    acme(None)
    assert main(["devices", "--vendor=acme"]) == 1
    said = capsys.readouterr().err
    assert "no device of acme is on this host. Looked for: acme-smi is not in PATH" in said
    assert f"no device node {tmp_path}/acme[0-9]*" in said


def test_a_driver_that_prints_nonsense_is_shown_and_fails(acme, capsys) -> None:
    acme("\x1b[31mdriver mismatch\n")
    assert main(["devices", "--vendor=acme"]) == 1
    said = capsys.readouterr().err
    assert "driver mismatch" in said
    assert "\x1b" not in said


def test_an_unknown_vendor_lists_those_that_are_known(acme, capsys) -> None:
    acme(None)
    assert main(["devices", "--vendor=amce"]) == 1
    assert "unknown vendor 'amce'. Known: acme, cpu (host)" in capsys.readouterr().err


def findings(capsys: pytest.CaptureFixture[str]) -> dict[str, list[dict]]:
    found: dict[str, list[dict]] = {}
    for one in json.loads(capsys.readouterr().out):
        found.setdefault(one["topic"], []).append(one)
    return found


def test_the_doctor_names_a_foreign_process_an_unknown_chip_and_a_framework_that_sees_nothing(
    acme, capsys, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    acme(GOOD, f"device 0\ndevice 1\nprocess 1 {os.getpid()}\n-----\n")
    blind = tmp_path / "present.py"
    blind.write_text('print(\'{"version": "9.9", "devices": 0}\')\n')
    monkeypatch.setattr(doctor, "_PRESENT", blind)
    monkeypatch.setattr(doctor, "find_spec", lambda name: object())
    assert main(["doctor", "--vendor=acme", "--json"]) == 1
    found = findings(capsys)
    texts = [one["text"] for one in found["vendor acme"]]
    assert texts[0].startswith("2 devices (Acme A1, Acme Z9), by acme-smi (")
    assert any("no chip of the vendor file is called Acme Z9" in text for text in texts)
    assert any(text.startswith(f"device 1: pid {os.getpid()} ") and text.endswith("is on it") for text in texts)
    (framework,) = found["pytorch on acme"]
    assert (framework["level"], framework["text"]) == ("problem", "9.9, sees 0 of device 'cuda'")


def test_the_doctor_finds_this_host_and_says_why_another_vendor_is_not_detected(
    acme, capsys, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    acme(None)
    monkeypatch.setattr(doctor, "find_spec", lambda name: None)
    assert main(["doctor", "--json", f"--data-root={tmp_path / 'data'}"]) == 0
    found = findings(capsys)
    assert found["detected"][0]["text"].startswith("cpu:")
    assert found["vendor cpu"][0]["level"] == "ok"
    assert (found["vendor acme"][0]["level"], "acme-smi is not in PATH" in found["vendor acme"][0]["text"]) == (
        "note",
        True,
    )
    assert found["dataset digits"][0]["level"] == "note"
    assert "GiB free" in found["disk for results"][0]["text"]
    assert {"processors", "memory", "leases", "installed"} <= set(found)
    assert "not installed" in found["pytorch on cpu"][0]["text"]


def test_a_vendor_file_that_is_wrong_is_a_problem_and_the_rest_is_still_told(acme, capsys, tmp_path: Path) -> None:
    acme(None)
    path = tmp_path / "vendors" / "acme" / "vendor.toml"
    path.write_text(path.read_text().replace('title = "Acme"', "titel = 1"))
    assert main(["doctor", "--json"]) == 1
    found = findings(capsys)
    assert "vendor.toml" in found["vendor file"][0]["text"]
    assert found["vendor cpu"][0]["level"] == "ok"


def test_the_doctor_lists_the_engines_of_a_framework_and_what_the_others_need(
    acme, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    acme(None)
    asked = []

    def look(python: str, framework: str) -> dict[str, Seen]:
        asked.append((python, framework))
        return {
            "eager": Seen(precisions=("fp32", "bf16")),
            "fastrt": Seen("engine fastrt needs it: pip install fastrt"),
        }

    monkeypatch.setattr(engines, "look", look)
    monkeypatch.setattr(doctor, "find_spec", lambda name: object() if name == "torch" else None)
    monkeypatch.setattr(doctor, "_frameworks", lambda one: [])
    assert main(["doctor", "--json"]) == 0
    told = findings(capsys)
    assert asked == [(sys.executable, "pytorch")]
    assert [(one["level"], one["text"]) for one in told["engines of pytorch"]] == [
        ("ok", "eager (fp32, bf16)"),
        ("note", "engine fastrt needs it: pip install fastrt"),
    ]
    assert "engines of paddle" not in told


def test_an_interpreter_that_cannot_tell_its_engines_is_a_problem(acme, capsys, monkeypatch) -> None:
    acme(None)
    monkeypatch.setattr(doctor, "find_spec", lambda name: object() if name == "torch" else None)
    monkeypatch.setattr(doctor, "_frameworks", lambda one: [])
    monkeypatch.setattr(engines, "_MODULE", "no_such_module")
    assert main(["doctor", "--json"]) == 1
    (told,) = findings(capsys)["engines of pytorch"]
    assert told["level"] == "problem"
    assert "No module named no_such_module" in told["text"]


@pytest.mark.slow
@pytest.mark.pytorch
def test_a_framework_is_asked_in_an_interpreter_of_its_own(acme, capsys) -> None:
    acme(GOOD)
    main(["doctor", "--vendor=acme"])
    main(["doctor", "--vendor=cpu"])
    import torch

    shown = capsys.readouterr().out
    assert f"{torch.__version__}, sees 1 of device 'cpu'" in shown
    assert f"{torch.__version__}, sees 0 of device 'cuda'" in shown
