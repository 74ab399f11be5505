"""What Hygon's ``hy-smi`` and the ``rocm-smi`` of DTK print."""

from __future__ import annotations

import json
from collections.abc import Sequence

from pytest_flagperf.devices import vendor as vendors
from pytest_flagperf.devices.reading import Reading
from tests.devices.printers import Layout
from tests.devices.printers import cell
from tests.devices.printers import mib
from tests.devices.printers import percent


def _json(devices: Sequence[Reading], prefix: str) -> str:
    document = {
        f"card{one.index}": {
            "Card Series": one.name or "N/A",
            "Card Vendor": "Chengdu Haiguang IC Design Co., Ltd.",
            "Serial Number": one.serial or "N/A",
            "Unique ID": one.uuid or "N/A",
            "Average Graphics Package Power (W)": cell(one.power, "{:.1f}"),
            "Temperature (Sensor edge) (C)": "N/A",
            "Temperature (Sensor junction) (C)": cell(one.temperature, "{:.1f}"),
            "Temperature (Sensor mem) (C)": "99.5",
            "": "",
            f"{prefix} use (%)": percent(one.utilization, "{:.0f}"),
            "vram Total Memory (MiB)": mib(one.memory_total, "{:.0f}"),
            "vram Total Used Memory (MiB)": mib(one.memory_used, "{:.0f}"),
        }
        for one in devices
    }
    return json.dumps(document, indent=2) + "\n"


def newer_json(devices: Sequence[Reading]) -> str:
    """``hy-smi ... --json`` of DTK 25, in which a DCU is an HCU."""
    return _json(devices, "HCU")


def older_json(devices: Sequence[Reading]) -> str:
    """``rocm-smi ... --json`` of DTK 24."""
    return _json(devices, "DCU")


def table(devices: Sequence[Reading]) -> str:
    """``hy-smi`` of DTK 26: with codecs."""
    heading = "HCU     Temp     AvgPwr     Perf     PwrCap     VRAM%      HCU%      Dec%      Enc%      Mode"
    return _table(
        97,
        heading,
        [
            f"{one.index:<8}{cell(one.temperature, '{:.1f}C'):<9}{cell(one.power, '{:.1f}W'):<11}auto     "
            f"{cell(one.power_limit, '{:.1f}W'):<11}1%         {percent(one.utilization, '{:.1f}%'):<10}"
            "0.0%      0.0%      Normal"
            for one in devices
        ],
    )


def older_table(devices: Sequence[Reading]) -> str:
    """``rocm-smi`` of the first DTKs: a fan, no mode, and a small c for degrees."""
    return _table(
        52,
        "DCU  Temp   AvgPwr  Fan   Perf  PwrCap  VRAM%  DCU%",
        [
            f"{one.index:<5}{cell(one.temperature, '{:.1f}c'):<7}{cell(one.power, '{:.1f}W'):<8}"
            f"{percent(one.fan, '{:.1f}%'):<6}auto  {cell(one.power_limit, '{:.1f}W'):<8}  1%   "
            f"{percent(one.utilization)}"
            for one in devices
        ],
    )


def _table(width: int, heading: str, rows: Sequence[str]) -> str:
    first, last = f"{' System Management Interface ':=^{width}}", f"{' End of SMI Log ':=^{width}}"
    return "\n".join(["", first, "=" * width, heading, *rows, "=" * width, last]) + "\n"


def listing(devices: Sequence[Reading]) -> str:
    """``hy-smi --showuse --showmeminfo vram``."""
    lines = [f"{' System Management Interface ':=^97}"]
    for one in devices:
        lines += [
            f"HCU[{one.index}]          : HCU use (%): {percent(one.utilization, '{:.1f}')}",
            f"HCU[{one.index}]          : vram Total Memory (MiB): {mib(one.memory_total, '{:.0f}')}",
            f"HCU[{one.index}]          : vram Total Used Memory (MiB): {mib(one.memory_used, '{:.0f}')}",
        ]
    return "\n".join([*lines, f"{' End of SMI Log ':=^97}"]) + "\n"


_JSON = frozenset({"name", "serial", "uuid", "power", "temperature", "utilization", "memory_used", "memory_total"})
_TABLE = frozenset({"temperature", "power", "power_limit", "utilization"})
LAYOUTS = {
    "json": Layout("json", newer_json, _JSON),
    "older-json": Layout("json", older_json, _JSON),
    "table": Layout("table", table, _TABLE),
    "older-table": Layout("table", older_table, _TABLE | {"fan"}),
    "list": Layout("list", listing, frozenset({"utilization", "memory_used", "memory_total"})),
}

_HY_SMI, _ROCM_SMI = vendors.find("dcu", [vendors.bundled()]).probe
COMMANDS = {
    tuple(_HY_SMI.command): "json",
    tuple(_ROCM_SMI.command): "older-json",
    ("hy-smi",): "table",
    ("rocm-smi",): "older-table",
}
