"""``xpu-smi -q``: sections of indented ``key : value`` lines, one section a device."""

from __future__ import annotations

import re

from pytest_flagperf.devices.reading import Reading
from pytest_flagperf.devices.reading import convert
from pytest_flagperf.devices.reading import sections
from pytest_flagperf.errors import ProbeError


_FIELDS = {
    "index": "Minor Number",
    "name": "Product Name",
    "serial": "Serial Number",
    "uuid": "XPU UUID",
    "memory_total": "Memory Usage/Total",
    "memory_used": "Memory Usage/Used",
    "utilization": "Utilization/Xpu",
    "ecc_errors": "ECC Errors/Volatile/DRAM Uncorrectable",
    "temperature": "Temperature/XPU Current Temp",
    "power": "Power Readings/Power Draw",
    "power_limit": "Power Readings/Enforced Power Limit",
    "clock": "Clocks/Cluster",
}
# Every version has these, the last of a section among them: without one of them the section is cut off.
_NEEDED = ("index", "name", "memory_total", "memory_used", "utilization", "temperature", "power")


def query(text: str) -> list[Reading]:
    """The devices. Raises ``ProbeError`` for a section that lacks what every one has."""
    found = []
    for bus, values in sections(text, re.compile(r"XPU ([0-9A-Fa-f]{4,8}:[0-9A-Fa-f]{2}:[0-9A-Fa-f]{2}\.\d)\s*$")):
        missing = [_FIELDS[field] for field in _NEEDED if _FIELDS[field] not in values]
        if "Processes" not in values:
            missing.append("Processes")
        if missing:
            raise ProbeError(f"XPU {bus}: {', '.join(missing)} is missing")
        cells = {field: values[path] for field, path in _FIELDS.items() if path in values}
        found.append(Reading(**convert({**cells, "bus_id": bus}, {"ecc_errors": "count"})))  # type: ignore[arg-type]
    return found
