"""``efsmi -q``: sections of indented ``key : value`` lines, one section a device; keys changed between 1.2 and 1.4."""

from __future__ import annotations

import re

from pytest_flagperf.devices.reading import Reading
from pytest_flagperf.devices.reading import convert
from pytest_flagperf.devices.reading import sections
from pytest_flagperf.errors import ProbeError


# Field → what it is called, the newest name first.
_FIELDS = {
    "name": ("Device Info/Dev Name",),
    "uuid": ("Device Info/Dev UUID",),
    "serial": ("Device Info/Dev SN",),
    "health": ("Device Info/Health",),
    "memory_total": ("Device Mem Info/Total Size", "Device Mem Info/Mem Size"),
    "memory_used": ("Device Mem Info/Used Size", "Device Mem Info/Mem Usage"),
    "temperature": ("Temperature Info/GCU Temp",),
    "power": ("Power Info/Cur Power",),
    "power_limit": ("Power Info/Power Capa",),
    "utilization": ("Device Usage Info/GCU Usage",),
    "memory_clock": ("Clock Info/Mem CLK",),
    # Double-bit errors, which are those that cannot be corrected.
    "ecc_errors": ("RMA Info/Total DBE", "RMA Info/DBE"),
}
_NEEDED = ("name", "memory_total", "memory_used", "temperature", "power", "utilization")
_BUS = tuple(f"PCIe Info/{part}" for part in ("Domain", "Bus", "Dev", "Func"))


def query(text: str) -> list[Reading]:
    """The devices. Raises ``ProbeError`` for a section that lacks what every one has."""
    found = []
    for index, values in sections(text, re.compile(r"DEV ID (\d+)\s*$")):
        told = {field: next((path for path in paths if path in values), "") for field, paths in _FIELDS.items()}
        missing = [" or ".join(_FIELDS[field]) for field in _NEEDED if not told[field]]
        if missing:
            raise ProbeError(f"DEV ID {index}: {', '.join(missing)} is missing")
        cells = {"index": index} | {field: values[path] for field, path in told.items() if path}
        # The sign for degrees comes in several spellings.
        cells["temperature"] = cells["temperature"].partition(" ")[0]
        if all(part in values for part in _BUS):
            cells["bus_id"] = "{}:{}:{}.{}".format(*(values[part] for part in _BUS))
        found.append(Reading(**convert(cells, {"temperature": "C", "ecc_errors": "count"})))  # type: ignore[arg-type]
    return found
