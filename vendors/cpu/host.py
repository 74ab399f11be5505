"""The host's own processor and memory as one device, through psutil and Linux's powercap."""

from __future__ import annotations

import time
from collections.abc import Callable
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytest_flagperf.devices.reading import Reading
from pytest_flagperf.errors import ProbeError


# One domain for each package; the domains inside it (core, dram, uncore) have two numbers and are part of it.
_DOMAINS = "intel-rapl:[0-9]*"
# What the drivers of processors call themselves: Intel, AMD, some Arm boards.
_SENSORS = ("coretemp", "k10temp", "zenpower", "cpu_thermal")


class Host:
    """The host. Raises ``ProbeError`` where psutil cannot be imported.

    Utilization is that of the time since the look before, as is power, which the kernel counts as energy: the first
    look has neither. Energy is told only where the counters may be read, since Linux 5.10 by root alone.
    """

    def __init__(
        self,
        powercap: Path = Path("/sys/class/powercap"),
        cpuinfo: Path = Path("/proc/cpuinfo"),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        try:
            import psutil
        except ImportError as error:
            raise ProbeError(f"psutil cannot be imported: {error}") from error
        self._psutil: Any = psutil
        self._clock = clock
        self._name = _model(cpuinfo)
        self._domains = [_Counter(path) for path in sorted(powercap.glob(_DOMAINS)) if path.name.count(":") == 1]
        self._busy: tuple[float, float] | None = None
        self._before: tuple[float, float] | None = None

    def read(self) -> list[Reading]:
        """The one device there is."""
        memory = self._psutil.virtual_memory()
        energy, power = self._energy()
        return [
            Reading(
                0,
                name=self._name,
                temperature=self._temperature(),
                power=power,
                energy=energy,
                memory_used=(memory.total - memory.available) / 2**30,
                memory_total=memory.total / 2**30,
                utilization=self._utilization(),
                clock=self._frequency(),
            )
        ]

    def close(self) -> None:
        """Nothing is held."""

    def _utilization(self) -> float | None:
        # Not cpu_percent(): its memory of the call before is shared with everybody in this process.
        times = self._psutil.cpu_times()
        # A guest's time is counted as user time too.
        total = sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)
        idle = times.idle + getattr(times, "iowait", 0.0)
        before, self._busy = self._busy, (total - idle, total)
        if before is None or total <= before[1]:
            return None
        busy: float = (self._busy[0] - before[0]) / (total - before[1])
        return min(max(busy, 0.0), 1.0)

    def _temperature(self) -> float | None:
        """The hottest of the processor's sensors, °C."""
        # psutil has no sensors on some platforms.
        sensors: Mapping[str, Any] = getattr(self._psutil, "sensors_temperatures", dict)()
        readings: list[float] = [one.current for name in _SENSORS for one in sensors.get(name, ()) if one.current]
        return max(readings, default=None)

    def _frequency(self) -> float | None:
        try:
            frequency = self._psutil.cpu_freq()
        except (OSError, NotImplementedError):
            return None
        # Inside many virtual machines it is 0: not told.
        return frequency.current or None if frequency else None

    def _energy(self) -> tuple[float | None, float | None]:
        """Joules that all packages used since the first look, and watts since the look before."""
        told = [domain.joules() for domain in self._domains]
        now = self._clock()
        known = [one for one in told if one is not None]
        # The energy of one of two packages is not the host's.
        if not known or len(known) < len(told):
            self._before = None
            return None, None
        energy = sum(known)
        before, self._before = self._before, (energy, now)
        if before is None or now <= before[1]:
            return energy, None
        return energy, (energy - before[0]) / (now - before[1])


class _Counter:
    """The energy counter of one package, which begins again at 0 after ``max_energy_range_uj``."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._range = self._read("max_energy_range_uj")
        self._last: int | None = None
        self._used = 0

    def joules(self) -> float | None:
        """Energy since the first look in J; ``None`` where it cannot be read, or began again at a value not known."""
        now = self._read("energy_uj")
        if now is None:
            return None
        if self._last is not None:
            used = now - self._last
            if used < 0:
                if self._range is None:
                    return None
                used += self._range + 1
            self._used += used
        self._last = now
        return self._used / 1e6

    def _read(self, name: str) -> int | None:
        try:
            return int((self._path / name).read_text())
        except (OSError, ValueError):
            return None


def _model(cpuinfo: Path) -> str | None:
    """What the kernel calls the processor; on Arm it has no name for it."""
    try:
        lines = cpuinfo.read_text(errors="replace").splitlines()
    except OSError:
        return None
    return next((line.partition(":")[2].strip() or None for line in lines if line.startswith("model name")), None)
