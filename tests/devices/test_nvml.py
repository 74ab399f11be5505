"""NVIDIA's devices through NVML: against a library of our own, and the real one without a driver."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from dataclasses import fields
from types import ModuleType
from types import SimpleNamespace
from typing import Any

import pytest

from pytest_flagperf.devices import outputs
from pytest_flagperf.devices import vendor as vendors
from pytest_flagperf.devices.reading import Process
from pytest_flagperf.devices.reading import Reading
from pytest_flagperf.errors import ProbeError


NVIDIA = vendors.find("nvidia", [vendors.bundled()])
real = pytest.mark.skipif(importlib.util.find_spec("pynvml") is None, reason="nvidia-ml-py is not installed")

ANSWERS: dict[str, Any] = {
    "Name": "NVIDIA H200",
    "UUID": "GPU-87365e57-f8ce-5985-79e3-8d229070843c",
    "Serial": "1324021000001",
    "PciInfo": SimpleNamespace(busId="00000000:83:00.0"),
    "Temperature": 52,
    "PowerUsage": 596_400,
    "EnforcedPowerLimit": 700_000,
    "TotalEnergyConsumption": 1_234_567,
    "UtilizationRates": SimpleNamespace(gpu=96, memory=5),
    "MemoryInfo": SimpleNamespace(total=141 * 2**30, used=30 * 2**30, free=111 * 2**30),
    "FanSpeed": 43,
    "TotalEccErrors": 0,
    "CurrentClocksEventReasons": 0x1,
    "MigMode": (0, 0),
    "ComputeRunningProcesses": [
        SimpleNamespace(pid=10291, usedGpuMemory=2**31),
        SimpleNamespace(pid=10293, usedGpuMemory=None),
    ],
}
CONSTANTS = {
    "NVML_TEMPERATURE_GPU": 0,
    "NVML_CLOCK_SM": 1,
    "NVML_CLOCK_MEM": 2,
    "NVML_MEMORY_ERROR_TYPE_UNCORRECTED": 1,
    "NVML_VOLATILE_ECC": 0,
    "nvmlMemory_v2": 33554472,
}
BITS = {
    "GpuIdle": 0x1,
    "ApplicationsClocksSetting": 0x2,
    "SwPowerCap": 0x4,
    "HwSlowdown": 0x8,
    "SyncBoost": 0x10,
    "SwThermalSlowdown": 0x20,
    "HwThermalSlowdown": 0x40,
    "HwPowerBrakeSlowdown": 0x80,
    "DisplayClockSetting": 0x100,
}


class Library(ModuleType):
    """pynvml as far as it is asked: each device answers, or raises what is in its answers."""

    def __init__(self, *devices: dict[str, Any], reasons: str = "Event") -> None:
        super().__init__("pynvml")
        self.devices = [ANSWERS | one for one in devices]
        self.calls: list[str] = []
        for name, error in (("NVMLError", Exception), ("NVMLError_NotSupported", None), ("NVMLError_GpuIsLost", None)):
            setattr(self, name, type(name, (error or self.NVMLError,), {}))
        for name, value in CONSTANTS.items():
            setattr(self, name, value)
        for name, bit in BITS.items():
            setattr(self, f"nvmlClocks{reasons}Reason{name}", bit)
        for name in ANSWERS:
            setattr(self, f"nvmlDeviceGet{name}", self.answer(name))
        self.nvmlInit = lambda: self.calls.append("init")
        self.nvmlShutdown = lambda: self.calls.append("shutdown")
        self.nvmlDeviceGetCount = lambda: len(self.devices)
        self.nvmlDeviceGetHandleByIndex = lambda index: index
        self.nvmlDeviceGetClockInfo = lambda handle, which: {1: 1980, 2: 3201}[which]

    def answer(self, name: str) -> Callable[..., Any]:
        def function(handle: int, *arguments: Any) -> Any:
            found = self.devices[handle][name]
            if isinstance(found, str) and found.startswith("raise "):
                raise getattr(self, found.removeprefix("raise "))(found)
            return found

        return function


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> Callable[[ModuleType], Any]:
    """Gives NVIDIA's probe over a library."""

    def make(library: ModuleType) -> Any:
        monkeypatch.setitem(sys.modules, "pynvml", library)
        return outputs.module_attribute(NVIDIA.directory, NVIDIA.probe[0].library)()

    return make


def test_a_device_is_read_in_our_units(nvml):
    assert nvml(Library({})).read() == [
        Reading(
            0,
            name="NVIDIA H200",
            uuid="GPU-87365e57-f8ce-5985-79e3-8d229070843c",
            serial="1324021000001",
            bus_id="00000000:83:00.0",
            temperature=52,
            power=pytest.approx(596.4),
            power_limit=700,
            energy=pytest.approx(1234.567),
            memory_used=30,
            memory_total=141,
            utilization=0.96,
            memory_utilization=0.05,
            fan=pytest.approx(0.43),
            clock=1980,
            memory_clock=3201,
            ecc_errors=0,
            throttle=(),
            processes=(Process(10291, 2.0), Process(10293, None)),
        )
    ]


@pytest.mark.parametrize(
    ("name", "absent"),
    [
        ("PowerUsage", "power"),
        ("EnforcedPowerLimit", "power_limit"),
        ("TotalEnergyConsumption", "energy"),
        ("Temperature", "temperature"),
        ("UtilizationRates", "utilization memory_utilization"),
        ("MemoryInfo", "memory_used memory_total"),
        ("FanSpeed", "fan"),
        ("TotalEccErrors", "ecc_errors"),
        ("CurrentClocksEventReasons", "throttle"),
        ("ComputeRunningProcesses", "processes"),
        ("Serial", "serial"),
        ("PciInfo", "bus_id"),
        ("MigMode", ""),
    ],
)
def test_what_a_device_does_not_support_is_absent_and_nothing_else(nvml, name, absent):
    whole = nvml(Library({})).read()[0]
    one = nvml(Library({name: "raise NVMLError_NotSupported"})).read()[0]
    differing = {f.name for f in fields(Reading) if getattr(one, f.name) != getattr(whole, f.name)}
    assert differing == set(absent.split())
    assert all(getattr(one, field) is None for field in differing)


def test_a_function_that_an_older_library_lacks_is_absent(nvml):
    library = Library({})
    del library.nvmlDeviceGetTotalEnergyConsumption, library.nvmlMemory_v2
    one = nvml(library).read()[0]
    assert (one.energy, one.memory_total) == (None, 141)


@pytest.mark.parametrize(
    ("bits", "names"),
    [
        (0x0, ()),
        (0x1, ()),
        (0x5, ("sw_power_cap",)),
        (0x48, ("hw_slowdown", "hw_thermal_slowdown")),
        (0x1020, ("sw_thermal_slowdown", "reason 0x1000")),
    ],
)
@pytest.mark.parametrize("generation", ["Event", "Throttle"])
def test_the_bits_of_the_throttle_reasons_have_names_and_idling_is_none(nvml, bits, names, generation):
    library = Library({"CurrentClocksEventReasons": bits}, reasons=generation)
    if generation == "Throttle":
        library.nvmlDeviceGetCurrentClocksThrottleReasons = library.nvmlDeviceGetCurrentClocksEventReasons
        del library.nvmlDeviceGetCurrentClocksEventReasons
    assert nvml(library).read()[0].throttle == names


def test_a_device_divided_by_mig_has_no_utilization_though_the_library_answers(nvml):
    told = nvml(Library({"MigMode": (1, 1)}, {})).read()
    assert [one.utilization for one in told] == [None, 0.96]
    assert [one.memory_utilization for one in told] == [None, 0.05]


def test_texts_that_old_bindings_give_as_bytes_are_texts(nvml):
    one = nvml(Library({"Name": b"Tesla V100", "UUID": b"GPU-1"})).read()[0]
    assert (one.name, one.uuid) == ("Tesla V100", "GPU-1")


def test_a_device_that_fell_off_the_bus_is_named(nvml):
    probe = nvml(Library({}, {"PowerUsage": "raise NVMLError_GpuIsLost"}))
    with pytest.raises(ProbeError, match=r"device 1: .*GpuIsLost"):
        probe.read()


def test_the_library_is_let_go_of(nvml):
    library = Library({})
    nvml(library).close()
    assert library.calls == ["init", "shutdown"]


def test_without_the_binding_the_error_says_what_to_install(nvml, monkeypatch):
    with pytest.raises(ProbeError, match=r"pip install nvidia-ml-py"):
        nvml(None)


def test_a_driver_that_does_not_start_is_a_reason(nvml):
    library = Library()

    def fail() -> None:
        raise library.NVMLError("Driver/library version mismatch")

    library.nvmlInit = fail
    with pytest.raises(ProbeError, match="NVML cannot be initialised: Driver/library version mismatch"):
        nvml(library)


@real
def test_the_real_binding_without_a_driver_gives_a_reason():
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        with pytest.raises(ProbeError, match="NVML cannot be initialised: "):
            outputs.module_attribute(NVIDIA.directory, NVIDIA.probe[0].library)()
        return
    pynvml.nvmlShutdown()
    probe = outputs.module_attribute(NVIDIA.directory, NVIDIA.probe[0].library)()
    assert [one.index for one in probe.read()] == list(range(len(probe.read())))
    probe.close()


@real
def test_the_real_binding_has_every_function_and_constant_that_is_asked():
    import pynvml

    lacking = [
        f"nvmlDeviceGet{name}" for name in (*ANSWERS, "ClockInfo") if not hasattr(pynvml, f"nvmlDeviceGet{name}")
    ]
    assert lacking == []
    assert {name: getattr(pynvml, name) for name in CONSTANTS} == CONSTANTS
    assert {name: getattr(pynvml, f"nvmlClocksEventReason{name}") for name in BITS} == BITS


def test_nvml_and_nvidia_smi_call_the_reasons_alike():
    """A run that was watched by the one can be compared with one that was watched by the other."""
    library = outputs.module_attribute(NVIDIA.directory, "nvml.py:_REASONS")
    assert list(library.values()) == list(outputs.module_attribute(NVIDIA.directory, "smi.py:REASONS").values())
