"""What ``hy-smi`` and the ``rocm-smi`` of DTK print for people: the table, and lists of one figure a line."""

from __future__ import annotations

import re
from collections.abc import Iterator

from pytest_flagperf.devices.reading import Reading
from pytest_flagperf.devices.reading import convert
from pytest_flagperf.devices.reading import whole
from pytest_flagperf.errors import ProbeError


# DCU became HCU with DTK 25; columns come and go.
_COLUMNS = {
    "DCU": "index",
    "HCU": "index",
    "Temp": "temperature",
    "AvgPwr": "power",
    "Fan": "fan",
    "PwrCap": "power_limit",
    "DCU%": "utilization",
    "HCU%": "utilization",
}
_LISTED = {
    "DCU use (%)": ("utilization", "%"),
    "HCU use (%)": ("utilization", "%"),
    "vram Total Memory (MiB)": ("memory_total", "MiB"),
    "vram Total Used Memory (MiB)": ("memory_used", "MiB"),
}


def concise(text: str) -> list[Reading]:
    """The table without arguments; its VRAM% is a share of an amount that it does not print."""
    columns: list[str] = []
    found = []
    for line in _lines(text):
        row = line.split()
        if row[:2] in (["DCU", "Temp"], ["HCU", "Temp"]):
            columns = row
        elif columns and row and row[0].isdecimal():
            if len(row) != len(columns):
                raise ProbeError(f"the row of device {row[0]} has {len(row)} columns of {len(columns)}")
            cells = {_COLUMNS[name]: cell for name, cell in zip(columns, row, strict=True) if name in _COLUMNS}
            found.append(Reading(**convert(cells, {})))  # type: ignore[arg-type]
    return found


def listing(text: str) -> list[Reading]:
    """Lists such as ``--showmeminfo vram``: ``HCU[0] : vram Total Memory (MiB): 65520``."""
    found: dict[int, dict[str, object]] = {}
    for index, name, value in _listed(text):
        field, unit = _LISTED.get(name, ("", ""))
        if field:
            found.setdefault(index, {}).update(convert({field: value}, {field: unit}))
    return [Reading(index, **values) for index, values in found.items()]  # type: ignore[arg-type]


def _listed(text: str) -> Iterator[tuple[int, str, str]]:
    for line in _lines(text):
        device, _, rest = line.partition(":")
        match = re.fullmatch(r"[DH]CU\[(\d+)\]\s*", device)
        if match:
            name, _, value = rest.rpartition(": ")
            yield int(match[1]), name.strip(), value.strip()


def _lines(text: str) -> list[str]:
    # What begins with the tool's heading and lacks its end was cut, and may lack devices.
    if "System Management Interface" in text and not re.search(r"= ?End of (?:ROCm )?SMI Log ?=", text):
        raise ProbeError("its end is missing")
    return whole(text).splitlines()
