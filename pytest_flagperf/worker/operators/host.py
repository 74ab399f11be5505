"""The host as a device: its name, its free memory, its last-level cache. Linux; the standard library only."""

from __future__ import annotations

import platform
from functools import cache
from pathlib import Path


UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


@cache
def processor_name() -> str:
    """The processor's model name."""
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def available_memory() -> int | None:
    """Bytes a new workload can take without swapping (MemAvailable), or the container's rest where that is less."""
    found = [_mem_available(), _control_group_rest()]
    known = [size for size in found if size is not None]
    return min(known) if known else None


def _mem_available() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)


def _control_group_rest() -> int | None:
    """What the control group (version 2) of a container may still take; ``None`` where it has no limit."""
    group = Path("/sys/fs/cgroup")
    try:
        limit = (group / "memory.max").read_text(encoding="ascii").strip()
        used = int((group / "memory.current").read_text(encoding="ascii"))
        statistics = (group / "memory.stat").read_text(encoding="ascii").splitlines()
    except (OSError, ValueError):
        return None
    if limit == "max":
        return None
    # Pages of files can be dropped: they are used, but not taken.
    files = next((int(line.split()[1]) for line in statistics if line.startswith("inactive_file ")), 0)
    return max(0, int(limit) - used + files)


@cache
def last_level_cache() -> int:
    """Bytes of the first processor's largest cache; 0 where the kernel does not say."""
    sizes = [0]
    for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        text = path.read_text(encoding="ascii").strip()
        sizes.append(int(text.rstrip("KMG")) * UNITS.get(text[-1], 1))
    return max(sizes)
