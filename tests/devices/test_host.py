"""The host as a device: the real one, and counters of energy that this host may not have."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from pytest_flagperf.devices import outputs
from pytest_flagperf.devices import vendor as vendors
from pytest_flagperf.devices.reading import checked


CPU = vendors.find("cpu", [vendors.bundled()])
Host: Any = outputs.module_attribute(CPU.directory, CPU.probe[0].library)


class Powercap:
    """A directory of energy counters as the kernel has it, and a clock beside it."""

    def __init__(self, path: Path) -> None:
        self.path, self.now = path, 100.0

    def domain(self, name: str, energy: int, most: int = 262_143_328_850) -> Path:
        directory = self.path / name
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "max_energy_range_uj").write_text(f"{most}\n")
        (directory / "energy_uj").write_text(f"{energy}\n")
        return directory / "energy_uj"

    def host(self) -> Any:
        return Host(powercap=self.path, clock=lambda: self.now)


@pytest.fixture
def powercap(tmp_path: Path) -> Powercap:
    return Powercap(tmp_path / "powercap")


def test_this_host_is_one_device_that_says_how_it_is():
    host = Host()
    (first,), (second,) = checked(host.read()), checked(host.read())
    host.close()
    assert (first.index, first.processes) == (0, None)
    assert 0 < first.memory_used < first.memory_total
    assert first.memory_total == pytest.approx(psutil.virtual_memory().total / 2**30)
    assert first.utilization is None, "the first look has nothing to compare with"
    assert first.power is None
    assert second.utilization is None or 0 <= second.utilization <= 1
    assert first.clock is None or first.clock > 0


def test_the_processor_is_called_what_the_kernel_calls_it(tmp_path):
    info = tmp_path / "cpuinfo"
    info.write_text("processor\t: 0\nmodel name\t: Acme 9000 @ 2.50GHz: turbo\nmodel name\t: other\n")
    assert Host(cpuinfo=info).read()[0].name == "Acme 9000 @ 2.50GHz: turbo"
    info.write_text("processor\t: 0\nBogoMIPS\t: 50\n")
    assert Host(cpuinfo=info).read()[0].name is None
    assert Host(cpuinfo=tmp_path / "none").read()[0].name is None


def test_utilization_is_that_of_the_time_between_two_looks(monkeypatch):
    def times(user: float, idle: float, iowait: float = 0.0, guest: float = 0.0) -> Any:
        return type(psutil.cpu_times())(**dict.fromkeys(psutil.cpu_times()._fields, 0.0) | locals())

    looks = iter([times(100, 100), times(103, 100.5, 0.5), times(103, 100.5, 0.5), times(105, 100.5, guest=2)])
    monkeypatch.setattr(psutil, "cpu_times", lambda: next(looks))
    host = Host()
    found = [host.read()[0].utilization for _ in range(4)]
    assert found == [None, 0.75, None, 1.0]


def test_power_is_the_energy_of_all_packages_over_the_time_between(powercap):
    first, second = powercap.domain("intel-rapl:0", 5_000_000), powercap.domain("intel-rapl:1", 7_000_000)
    # Parts of the first package, and another driver's view of the same: counted already.
    for part in ("intel-rapl:0:0", "intel-rapl-mmio:0"):
        powercap.domain(part, 10**12)
    host = powercap.host()
    (one,) = host.read()
    assert (one.energy, one.power) == (0.0, None)
    first.write_text("25000000\n")
    second.write_text("17000000\n")
    powercap.now += 2
    (two,) = host.read()
    assert (two.energy, two.power) == (30.0, 15.0)


def test_a_counter_that_begins_again_counts_on(powercap):
    counter = powercap.domain("intel-rapl:0", 9_000_000, most=9_999_999)
    host = powercap.host()
    host.read()
    counter.write_text("1000000\n")
    powercap.now += 1
    (one,) = host.read()
    assert (one.energy, one.power) == (2.0, 2.0)


def test_a_counter_that_begins_again_at_an_unknown_value_tells_nothing(powercap):
    counter = powercap.domain("intel-rapl:0", 9_000_000)
    (counter.parent / "max_energy_range_uj").unlink()
    host = powercap.host()
    host.read()
    counter.write_text("1000000\n")
    powercap.now += 1
    (one,) = host.read()
    assert (one.energy, one.power) == (None, None)


def make_unreadable(path: Path) -> None:
    path.chmod(0)


def remove(path: Path) -> None:
    path.unlink()


def garble(path: Path) -> None:
    path.write_text("none\n")


@pytest.mark.parametrize("spoil", [make_unreadable, remove, garble])
def test_the_energy_of_one_package_of_two_is_not_the_hosts(powercap, spoil: Callable[[Path], None]):
    if spoil is make_unreadable and os.geteuid() == 0:
        pytest.skip("root reads every file")
    powercap.domain("intel-rapl:0", 5_000_000)
    spoil(powercap.domain("intel-rapl:1", 5_000_000))
    host = powercap.host()
    for _ in range(2):
        (one,) = host.read()
        assert (one.energy, one.power) == (None, None)
        powercap.now += 1


def test_a_host_without_counters_and_sensors_has_neither_figure(powercap, monkeypatch):
    monkeypatch.setattr(psutil, "sensors_temperatures", dict, raising=False)
    monkeypatch.setattr(psutil, "cpu_freq", lambda: None)
    (one,) = powercap.host().read()
    assert (one.energy, one.power, one.temperature, one.clock) == (None, None, None, None)


def test_the_temperature_is_that_of_the_hottest_part_of_the_processor(powercap, monkeypatch):
    sensors = {
        "coretemp": [SimpleNamespace(current=41.0), SimpleNamespace(current=57.0)],
        "nvme": [SimpleNamespace(current=80.0)],
    }
    monkeypatch.setattr(psutil, "sensors_temperatures", lambda: sensors, raising=False)
    monkeypatch.setattr(psutil, "cpu_freq", lambda: SimpleNamespace(current=0.0))
    (one,) = powercap.host().read()
    assert (one.temperature, one.clock) == (57.0, None)
