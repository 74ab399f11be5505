"""`pytest suites -m wide_deep --vendor=V` the whole way on a box without V's hardware.

What is V's is real here except the devices: found, leased, exposed to the rank and watched through programs of V's
names that print V's layouts. The workload runs on the processor by the hook that exists for this; the result says so.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_flagperf.devices import vendor as vendors
from pytest_flagperf.devices.reading import Reading
from pytest_flagperf.devices.vendor import Vendor
from tests.conftest import ROOT


VENDORS = {name: vendors.load(path) for name, path in vendors.names([vendors.bundled()]).items()}
WITH_PROGRAM = sorted(name for name, vendor in VENDORS.items() if not vendor.shared)

STAND_IN = """
import pytest

@pytest.hookimpl
def pytest_flagperf_workload_device(config, framework):
    return {"device": "cpu", "backend": "gloo"}
"""

# Runs in every Python of the job: what the rank sees, as the rank sees it.
WITNESS = """
import json, os, sys
if any(argument.endswith("shim.py") for argument in sys.orig_argv):
    with open(os.path.join(os.environ["FLAGPERF_WITNESS"], "rank.json"), "w") as file:
        json.dump(dict(os.environ), file)
"""

PROGRAM = """#!{python} -IS
import json, os, sys
with open({texts!r}) as file:
    texts = json.load(file)
command = " ".join([os.path.basename(sys.argv[0]), *sys.argv[1:]])
if command not in texts:
    sys.exit(f"unknown command: {{command}}")
sys.stdout.write(texts[command])
"""


def first_chip(vendor: Vendor) -> str:
    """The chip whose devices are shown where a test does not choose another."""
    return next(iter(vendor.chips), "")


def some(vendor: Vendor, name: str) -> list[Reading]:
    """Two devices of the vendor, of the chip of that name, with a figure in every field."""
    chip = vendor.chips.get(name)
    one = Reading(
        index=0,
        name=chip.names[0] if chip and chip.names else "Chip",
        uuid="GPU-00000000-0000-0000-0000-00000000000a",
        serial="SN0000000001",
        bus_id="00000000:1A:00.0",
        health="OK",
        temperature=41.0,
        power=120.0,
        power_limit=350.0,
        energy=5000.0,
        memory_used=2.0,
        memory_total=32.0,
        utilization=0.25,
        memory_utilization=0.06,
        fan=0.3,
        clock=1400.0,
        memory_clock=1600.0,
        ecc_errors=0.0,
        throttle=(),
        processes=(),
    )
    uuid = "GPU-00000000-0000-0000-0000-00000000000b"
    return [one, replace(one, index=1, uuid=uuid, serial="SN0000000002", bus_id="00000000:1B:00.0")]


@pytest.fixture
def programs(tmp_path: Path):
    """Puts a vendor's programs into a directory; gives it."""

    def install(name: str, devices: list[Reading] | None = None, layout: str = "") -> Path:
        printer = importlib.import_module(f"tests.devices.printers.{name}")
        shown = some(VENDORS[name], first_chip(VENDORS[name])) if devices is None else devices
        texts = {
            " ".join(command): printer.LAYOUTS[layout or usual].render(shown)
            for command, usual in printer.COMMANDS.items()
        }
        file = tmp_path / "texts.json"
        file.write_text(json.dumps(texts))
        tools = tmp_path / "tools"
        tools.mkdir()
        for program in {command[0] for command in printer.COMMANDS}:
            (tools / program).write_text(PROGRAM.format(python=sys.executable, texts=str(file)))
            (tools / program).chmod(0o755)
        return tools

    return install


def run(name: str, tmp_path: Path, tools: Path | None, data_root: Path, *options: str, **environment: str):
    plugins = tmp_path / "plugins"
    plugins.mkdir()
    (plugins / "stand_in.py").write_text(STAND_IN)
    (plugins / "sitecustomize.py").write_text(WITNESS)
    path = os.pathsep.join(filter(None, (str(tools) if tools else "", os.environ["PATH"])))
    command = [sys.executable, "-m", "pytest", "-p", "stand_in", str(ROOT / "suites"), "-m", "wide_deep and throughput"]
    return subprocess.run(
        [
            *command,
            "--framework=pytorch",
            f"--vendor={name}",
            f"--flagperf-dir={tmp_path / 'results'}",
            "--monitor=0.2",
            *options,
        ],
        cwd=tmp_path,
        env={
            **os.environ,
            "PATH": path,
            "PYTHONPATH": str(plugins),
            "FLAGPERF_WITNESS": str(tmp_path),
            "FLAGPERF_DATA_ROOT": str(data_root),
            "FLAGPERF_LEASE_DIR": str(tmp_path / "leases"),
            **environment,
        },
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.pytorch
@pytest.mark.parametrize("name", WITH_PROGRAM)
def test_a_case_runs_the_whole_way_on_the_device_that_the_caller_left_visible(
    name: str, programs, tmp_path: Path, data_root: Path
) -> None:
    vendor = VENDORS[name]
    done = run(name, tmp_path, programs(name), data_root, **{vendor.visible_devices: "1"})
    assert done.returncode == 0, done.stdout + done.stderr

    seen = json.loads((tmp_path / "rank.json").read_text())
    assert seen[vendor.visible_devices] == "1"
    assert not [variable for variable in vendor.also_visible if variable in seen]

    (path,) = (tmp_path / "results").glob("*/*/result.json")
    result = json.loads(path.read_text())
    assert (result["verdict"], result["case"]["vendor"], result["case"]["devices"]) == ("passed", name, [1])
    assert result["case"]["stand_in"] == "cpu"
    assert "mfu" not in result["metrics"]
    assert f"ran on cpu: no measurement of {name}" in done.stdout

    metrics = {key: figure["value"] for key, figure in result["metrics"].items()}
    shown = shows(name)
    expected = {
        "temperature": ("temperature", 41.0),
        "device_utilization": ("utilization", 0.25),
        "memory_device_peak": ("memory_used", 2.0),
        "clock": ("clock", 1400.0),
    }
    assert {"temperature", "utilization", "memory_used"} & shown
    for metric, (field, value) in expected.items():
        if field in shown:
            assert metrics[metric] == pytest.approx(value, rel=0.01), metric
    if "power" in shown and not of_a_card(vendor, first_chip(vendor)):
        assert metrics["power"] == pytest.approx(120, rel=0.01)
        assert metrics["energy"] == pytest.approx(120 * metrics["train_time"], rel=0.01)
    assert 0 <= metrics["cpu_utilization"] <= 1


def of_a_card(vendor: Vendor, chip: str) -> bool:
    """Whether a card of that chip shows as several devices, or nobody knows, so that one device may not tell power."""
    dies = vendor.chips[chip].dies_per_card if chip in vendor.chips else None
    return dies != 1 if vendor.power_scope == "card" else (dies or 1) > 1


# Vendor → a chip of which a card is two devices, the layout that shows it, and the devices on which power is told.
CARDS = {
    "amd": ("MI250", "", (0, 1)),
    "ascend": ("910C", "25", (0,)),
    "cambricon": ("MLU370-X8", "", (0, 1)),
    "iluvatar": ("BI-V150", "", (1,)),
}


def test_every_vendor_that_tells_power_for_a_card_is_tried_on_one():
    on_cards = {name for name, vendor in VENDORS.items() if vendor.power_scope == "card"}
    on_cards |= {name for name, vendor in VENDORS.items() if of_a_card(vendor, first_chip(vendor))}
    assert on_cards == set(CARDS)


@pytest.mark.slow
@pytest.mark.pytorch
@pytest.mark.parametrize("name", sorted(CARDS))
def test_power_that_is_told_for_a_card_is_that_of_a_case_on_the_whole_card(
    name: str, programs, tmp_path: Path, data_root: Path
) -> None:
    vendor = VENDORS[name]
    chip, layout, tellers = CARDS[name]
    devices = [
        one if one.index in tellers else replace(one, power=None, power_limit=None) for one in some(vendor, chip)
    ]
    tools = programs(name, devices, layout)
    done = run(name, tmp_path, tools, data_root, "--topology=1x2", **{vendor.visible_devices: "0,1"})
    assert done.returncode == 0, done.stdout + done.stderr

    (path,) = (tmp_path / "results").glob("*/*/result.json")
    result = json.loads(path.read_text())
    assert (result["verdict"], result["case"]["devices"]) == ("passed", [0, 1])
    metrics = {key: figure["value"] for key, figure in result["metrics"].items()}
    assert "power" in shows(name)
    assert metrics["power"] == pytest.approx(120 * len(tellers), rel=0.01), result["notes"]
    assert metrics["energy"] == pytest.approx(120 * len(tellers) * metrics["train_time"], rel=0.01)


def shows(name: str) -> frozenset[str]:
    """The fields that the vendor's preferred command prints."""
    printer = importlib.import_module(f"tests.devices.printers.{name}")
    probe = next(probe for probe in VENDORS[name].probe if probe.command)
    return printer.LAYOUTS[printer.COMMANDS[tuple(probe.command)]].shows


@pytest.mark.parametrize("name", WITH_PROGRAM)
def test_without_the_hardware_the_error_says_what_was_looked_for(name: str, tmp_path: Path, data_root: Path) -> None:
    done = run(name, tmp_path, None, data_root)
    assert done.returncode == 1, done.stdout + done.stderr
    assert f"no device of {name} is on this host. Looked for: " in done.stdout
    for probe in VENDORS[name].probe:
        if probe.command:
            assert f"{probe.command[0]} is not in PATH" in done.stdout
    for node in VENDORS[name].detection.device_nodes:
        assert node in done.stdout
