"""What ``efsmi`` prints, as a table and, with ``-q``, as sections."""

from __future__ import annotations

from collections.abc import Sequence

from pytest_flagperf.devices.reading import Reading
from tests.devices.printers import Layout
from tests.devices.printers import cell
from tests.devices.printers import mib
from tests.devices.printers import percent


_BANNER = f"""\
{"-" * 78}
-------------------- Enflame System Management Interface ---------------------
--------- Enflame Tech, All Rights Reserved. 2024-2025 Copyright (C) ---------
{"-" * 78}
"""


def table(devices: Sequence[Reading]) -> str:
    """``efsmi`` 1.4: power and cap apart by blanks, or one - for both."""
    rule = f"|{'-' * 76}|\n"
    text = (
        f"{_BANNER}\n+2025-07-21, 03:50:09 UTC{'-' * 52}+\n| EFSMI    1.4.0.505       Driver Ver: 1.4.4.501{'':<29}|\n"
    )
    text += rule
    heading = (
        "| DEV    NAME                 | FW VER           | BUS-ID      ECC           |\n"
        "| TEMP   Dpm   Pwr(Usage/Cap) | Mem     GCU Virt | DUsed       SN            |\n"
    )
    text += rule + heading
    for one in devices:
        power = f"{cell(one.power, '{:.0f}W', '-'):<6}{cell(one.power_limit, '{:.0f}W', '')}"
        text += (
            f"{rule}| {one.index:<7}{one.name or '-':<21}| 33.6.5           | {one.bus_id or '-':<11} Enable        |\n"
            f"| {cell(one.temperature, '{:.0f} C', '-'):<7}Sleep    {power:<12}|"
            f" {mib(one.memory_total, absent='-')} Disable |"
            f" {percent(one.utilization, '{:.1f}%', '-'):<12}{one.serial or '-':<14}|\n+{'-' * 76}+\n"
        )
    return text


def table_1_7(devices: Sequence[Reading]) -> str:
    """``efsmi`` 1.7: a slash between power and cap, and no sign for degrees."""
    rule = "+-----------------------------+-------------------+---------------------------+\n"
    text = (
        f"{_BANNER}\n+2026-03-06, 10:12:03 CST{'-' * 53}+\n| EFSMI: 1.7.2.14          Driver Ver: 1.7.2.14{'':<31}|\n"
    )
    text += (
        f"{rule}| DEV    NAME                 | Boot FW VER       | BUS-ID      ECC           |\n"
        "| TEMP   Lpm   Pwr(Usage/Cap) | Mem      GCU Virt | DUsed       SN            |\n"
        f"|{'=' * 77}|\n"
    )
    for one in devices:
        power = "N/A" if one.power is None else f"{one.power:.0f}W / {cell(one.power_limit, '{:.0f}W')}"
        text += (
            f"| {one.index:<7}{one.name or 'N/A':<21}| 40.2.8.3          | {one.bus_id or 'N/A':<11} Enable        |\n"
            f"| {cell(one.temperature):<7}LP1      {power:<12}| {mib(one.memory_total):<9} Disable |"
            f" {percent(one.utilization):<12}{one.serial or 'N/A':<14}|\n{rule}"
        )
    return text


def _query(devices: Sequence[Reading], *, newer: bool) -> str:
    text = ""
    for one in devices:
        domain, bus, rest = (one.bus_id or "N/A:N/A:N/A.N/A").split(":")
        device, function = rest.split(".")
        total, used = mib(one.memory_total, "{:.0f} MiB"), mib(one.memory_used, "{:.0f} MiB")
        ecc = cell(one.ecc_errors)
        text += f"DEV ID {one.index}\n"
        for section, pairs in (
            ("Driver Info", [("Ver", "1.4.3.4" if newer else "1.2.4.12")]),
            (
                "Device Info",
                [
                    ("Dev Name", one.name or "N/A"),
                    ("Dev UUID", one.uuid or "N/A"),
                    ("Dev SN", one.serial or "N/A"),
                    ("Health", one.health or "N/A"),
                ],
            ),
            (
                "PCIe Info",
                [("Vendor ID", "1e36"), ("Domain", domain), ("Bus", bus), ("Dev", device), ("Func", function)],
            ),
            ("Clock Info", [("Mem CLK", cell(one.memory_clock, "{:.0f} MHz"))]),
            (
                "Power Info",
                [("Power Capa", cell(one.power_limit, "{:.0f} W")), ("Cur Power", cell(one.power, "{:>3.0f} W"))],
            ),
            (
                "Device Mem Info",
                [("Total Size", total), ("Reserved Size", "1096 MiB"), ("Used Size", used), ("Free Size", "7 MiB")]
                if newer
                else [("Mem Size", total), ("Mem Usage", used), ("Mem Ecc", "enable")],
            ),
            ("Temperature Info", [("GCU Temp", cell(one.temperature, "{:.0f} ℃" if newer else "{:.0f} C"))]),
            ("Device Usage Info", [("GCU Usage", percent(one.utilization, "{:.1f} %"))]),
            ("RMA Info", [("Flags", "False"), ("Total DBE" if newer else "DBE", ecc)]),
            ("VPU Info", [("Encoder Usage", "0 %"), ("Decoder Usage", "0 %")]),
        ):
            text += f"    {section}\n" + "".join(f"        {key:<24}: {value}\n" for key, value in pairs)
    return text


def query_1_2(devices: Sequence[Reading]) -> str:
    """``efsmi -q`` 1.2: Mem Size and Mem Usage."""
    return _query(devices, newer=False)


def query_1_4(devices: Sequence[Reading]) -> str:
    """``efsmi -q`` 1.4: Total Size and Used Size, and another sign for degrees."""
    return _query(devices, newer=True)


_TABLE = frozenset(
    {"index", "name", "bus_id", "serial", "temperature", "power", "power_limit", "memory_total", "utilization"}
)
_QUERY = _TABLE | {"uuid", "health", "memory_used", "memory_clock", "ecc_errors"}

LAYOUTS = {
    "table 1.4": Layout("table", table, _TABLE),
    "table 1.7": Layout("table", table_1_7, _TABLE),
    "query 1.2": Layout("query", query_1_2, _QUERY),
    "query 1.4": Layout("query", query_1_4, _QUERY),
}
COMMANDS = {("efsmi", "-q"): "query 1.4"}
