"""NVIDIA's devices through NVML, the library under ``nvidia-smi``: a look takes a millisecond and starts no process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pytest_flagperf.devices.reading import Process
from pytest_flagperf.devices.reading import Reading
from pytest_flagperf.errors import ProbeError


# The constants of NVML's clock event reasons, by what nvidia-smi calls them; GpuIdle is no throttle.
# Driver 535 renamed them from nvmlClocksThrottleReason* to nvmlClocksEventReason*, the last two apart.
_REASONS = {
    "ApplicationsClocksSetting": "applications_clocks_setting",
    "SwPowerCap": "sw_power_cap",
    "HwSlowdown": "hw_slowdown",
    "SyncBoost": "sync_boost",
    "SwThermalSlowdown": "sw_thermal_slowdown",
    "HwThermalSlowdown": "hw_thermal_slowdown",
    "HwPowerBrakeSlowdown": "hw_power_brake_slowdown",
    "DisplayClockSetting": "display_clocks_setting",
    "BoardLimit": "board_limit",
    "Reliability": "reliability",
}
# After these nothing that the library says of the device is true; every other error is a question it cannot answer.
_FATAL = ("NVMLError_GpuIsLost", "NVMLError_Uninitialized", "NVMLError_DriverNotLoaded")


class Nvml:
    """NVML, held open. Raises ``ProbeError`` where ``nvidia-ml-py`` is not installed or there is no driver."""

    def __init__(self) -> None:
        try:
            import pynvml
        except ImportError:
            raise ProbeError("pynvml is not installed (pip install nvidia-ml-py)") from None
        self._nvml: Any = pynvml
        self._fatal = tuple(getattr(pynvml, name) for name in _FATAL if hasattr(pynvml, name))
        try:
            pynvml.nvmlInit()
        except pynvml.NVMLError as error:
            raise ProbeError(f"NVML cannot be initialised: {error}") from error

    def read(self) -> list[Reading]:
        """Every device now, in the order of the PCI bus."""
        try:
            count = self._nvml.nvmlDeviceGetCount()
        except self._nvml.NVMLError as error:
            raise ProbeError(f"NVML does not tell how many devices there are: {error}") from error
        return [self._device(index) for index in range(count)]

    def close(self) -> None:
        """Let go of the library."""
        self._nvml.nvmlShutdown()

    def _device(self, index: int) -> Reading:
        try:
            handle = self._nvml.nvmlDeviceGetHandleByIndex(index)
            return self._reading(index, handle)
        except self._nvml.NVMLError as error:
            raise ProbeError(f"device {index}: {error}") from error

    def _reading(self, index: int, handle: Any) -> Reading:
        nvml = self._nvml
        busy = None if self._has_instances(handle) else self._ask("nvmlDeviceGetUtilizationRates", handle)
        memory = self._memory(handle)
        pci = self._ask("nvmlDeviceGetPciInfo", handle)
        return Reading(
            index,
            name=_text(self._ask("nvmlDeviceGetName", handle)),
            uuid=_text(self._ask("nvmlDeviceGetUUID", handle)),
            serial=_text(self._ask("nvmlDeviceGetSerial", handle)),
            bus_id=None if pci is None else _text(pci.busId),
            temperature=self._figure("nvmlDeviceGetTemperature", handle, nvml.NVML_TEMPERATURE_GPU),
            power=self._figure("nvmlDeviceGetPowerUsage", handle, scale=1e-3),
            power_limit=self._figure("nvmlDeviceGetEnforcedPowerLimit", handle, scale=1e-3),
            energy=self._figure("nvmlDeviceGetTotalEnergyConsumption", handle, scale=1e-3),
            memory_used=None if memory is None else memory.used / 2**30,
            memory_total=None if memory is None else memory.total / 2**30,
            utilization=None if busy is None else busy.gpu / 100,
            memory_utilization=None if busy is None else busy.memory / 100,
            fan=self._figure("nvmlDeviceGetFanSpeed", handle, scale=1e-2),
            clock=self._figure("nvmlDeviceGetClockInfo", handle, nvml.NVML_CLOCK_SM),
            memory_clock=self._figure("nvmlDeviceGetClockInfo", handle, nvml.NVML_CLOCK_MEM),
            ecc_errors=self._figure(
                "nvmlDeviceGetTotalEccErrors", handle, nvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, nvml.NVML_VOLATILE_ECC
            ),
            throttle=self._throttle(handle),
            processes=self._processes(handle),
        )

    def _ask(self, name: str, *arguments: Any) -> Any:
        """What a function answers; ``None`` where this device, driver or version of the library does not support it."""
        function: Callable[..., Any] | None = getattr(self._nvml, name, None)
        if function is None:
            return None
        try:
            return function(*arguments)
        except self._fatal:
            raise
        except self._nvml.NVMLError:
            return None

    def _figure(self, name: str, *arguments: Any, scale: float = 1.0) -> float | None:
        value = self._ask(name, *arguments)
        return None if value is None else value * scale

    def _has_instances(self, handle: Any) -> bool:
        # NVML tells no utilization of a device that is divided by MIG, and old versions answer 0.
        mode = self._ask("nvmlDeviceGetMigMode", handle)
        return mode is not None and mode[0] == 1

    def _memory(self, handle: Any) -> Any:
        """Since driver 510 there is a second version that counts what the driver reserves apart, as nvidia-smi does."""
        version = getattr(self._nvml, "nvmlMemory_v2", None)
        memory = None if version is None else self._ask("nvmlDeviceGetMemoryInfo", handle, version)
        return self._ask("nvmlDeviceGetMemoryInfo", handle) if memory is None else memory

    def _throttle(self, handle: Any) -> tuple[str, ...] | None:
        bits = self._ask("nvmlDeviceGetCurrentClocksEventReasons", handle)
        if bits is None:
            bits = self._ask("nvmlDeviceGetCurrentClocksThrottleReasons", handle)
        if bits is None:
            return None
        names = {self._reason("GpuIdle"): ""} | {self._reason(name): ours for name, ours in _REASONS.items()}
        active = [1 << place for place in range(bits.bit_length()) if bits >> place & 1]
        return tuple(name for bit in active if (name := names.get(bit, f"reason {bit:#x}")))

    def _reason(self, name: str) -> int | None:
        nvml = self._nvml
        older = getattr(nvml, f"nvmlClocksThrottleReason{name}", None)
        newer: int | None = getattr(nvml, f"nvmlClocksEventReason{name}", older)
        return newer

    def _processes(self, handle: Any) -> tuple[Process, ...] | None:
        running = self._ask("nvmlDeviceGetComputeRunningProcesses", handle)
        if running is None:
            return None
        return tuple(
            Process(one.pid, None if one.usedGpuMemory is None else one.usedGpuMemory / 2**30) for one in running
        )


def _text(value: Any) -> str | None:
    # Until version 11.5 the library's texts were bytes.
    return value.decode() if isinstance(value, bytes) else value
