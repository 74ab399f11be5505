"""What ``rocm-smi`` prints for people: the concise table, and lists of one figure a line."""

from __future__ import annotations

import re
from collections.abc import Iterator

from pytest_flagperf.devices.reading import Reading
from pytest_flagperf.devices.reading import convert
from pytest_flagperf.devices.reading import whole
from pytest_flagperf.errors import ProbeError


UNKNOWN = ("Unsupported",)
_COLUMNS = {
    "Device": "index",
    "GPU": "index",
    "Temp": "temperature",
    "Power": "power",
    "AvgPwr": "power",
    "SCLK": "clock",
    "MCLK": "memory_clock",
    "Fan": "fan",
    "PwrCap": "power_limit",
    "GPU%": "utilization",
}
_LISTED = {
    "GPU use (%)": ("utilization", "%"),
    "VRAM Total Memory (B)": ("memory_total", "B"),
    "VRAM Total Used Memory (B)": ("memory_used", "B"),
}


def concise(text: str) -> list[Reading]:
    """The table without arguments; its VRAM% is a share of an amount that it does not print."""
    columns: list[str] = []
    found = []
    for line in _lines(text):
        # DID and GUID share a column, with blanks between them.
        row = re.split(r" {2,}", re.sub(r"(0x[0-9A-Fa-f]{1,8}),\s{1,16}(?=\d)", r"\1,", line.strip()))
        if row[0] in ("Device", "GPU") and "Temp" in row:
            columns = row
        elif columns and row[0].isdecimal():
            if len(row) != len(columns):
                raise ProbeError(f"the row of device {row[0]} has {len(row)} columns of {len(columns)}")
            cells = {_COLUMNS[name]: cell for name, cell in zip(columns, row, strict=True) if name in _COLUMNS}
            found.append(Reading(**convert(cells, {}, unknown=UNKNOWN)))  # type: ignore[arg-type]
    return found


def listing(text: str) -> list[Reading]:
    """Lists such as ``-u --showmeminfo vram``: ``GPU[0] : VRAM Total Memory (B): 206141652992``."""
    found: dict[int, dict[str, object]] = {}
    for index, name, value in _listed(text):
        field, unit = _LISTED.get(name, ("", ""))
        if field:
            found.setdefault(index, {}).update(convert({field: value}, {field: unit}, unknown=UNKNOWN))
    return [Reading(index, **values) for index, values in found.items()]  # type: ignore[arg-type]


def _listed(text: str) -> Iterator[tuple[int, str, str]]:
    for line in _lines(text):
        device, _, rest = line.partition(":")
        match = re.fullmatch(r"GPU\[(\d+)\]\s*", device)
        if match:
            name, _, value = rest.rpartition(": ")
            yield int(match[1]), name.strip(), value.strip()


def _lines(text: str) -> list[str]:
    # What begins with the tool's heading and lacks its end was cut, and may lack devices.
    if "System Management Interface" in text and not re.search(r"= ?End of (?:ROCm )?SMI Log ?=", text):
        raise ProbeError("its end is missing")
    return whole(text).splitlines()
