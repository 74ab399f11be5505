"""What ``mthreads-gmi`` prints, as a table and as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from pytest_flagperf.devices.reading import Reading
from tests.devices.printers import Layout
from tests.devices.printers import cell
from tests.devices.printers import mib
from tests.devices.printers import percent


_RULE = "-" * 69 + "\n"
_HEAD = f"""\
Tue Jun 23 17:48:04 2026
{_RULE}    mthreads-gmi:2.4.1           Driver Version:5.1.0-server
{_RULE}ID   Name                 |PCIe                |%GPU  Mem
     Device Type   Perf   |Pcie Lane Width     |Temp  MPC Capable
                                               |      ECC Mode
"""
_BETWEEN = f"+{'-' * 67}+\n"
_PROCESSES = f"""\

{_RULE}Processes:
ID   PID           Process name                           GPU Memory
                                                               Usage
{_BETWEEN}"""


def table(devices: Sequence[Reading]) -> str:
    """``mthreads-gmi``: no power."""
    text = _HEAD
    for one in devices:
        text += (
            f"{_BETWEEN}{one.index:<5}{one.name or 'N/A':<21}|{one.bus_id or 'N/A':<20}|"
            f"{percent(one.utilization):<6}{mib(one.memory_used)}({mib(one.memory_total)})\n"
            f"     Physical      P0     |16x(16x)            |{cell(one.temperature, '{:.0f}C'):<6}YES\n"
            f"{'':<47}|      On-die, EDC\n"
        )
    text += _RULE + _PROCESSES
    rows = [(one.index, process) for one in devices for process in one.processes or ()]
    for index, process in rows:
        text += f"{index:<5}{process.pid:<14}{'/usr/bin/python3':<39}{mib(process.memory):>10}\n"
    if not rows:
        text += "   No running processes found\n"
    return text + _RULE


def query(devices: Sequence[Reading]) -> str:
    """``mthreads-gmi -q --json``: numbers with a unit, in strings, and one key with a blank behind it."""
    listed: list[dict[str, Any]] = [
        {
            "Index": str(one.index),
            "Product Name": one.name or "N/A",
            "Product Brand": "MTT",
            "GPU UUID": one.uuid or "N/A",
            "Serial Number": one.serial or "N/A",
            "PCI": {"Bus": "0x2A", "Bus ID": one.bus_id or "N/A", "Vendor ID": "0x1ED5"},
            "FB Memory Usage": {"Total": mib(one.memory_total), "Used": mib(one.memory_used), "Free": "0MiB"},
            "Utilization": {"Gpu": percent(one.utilization), "Memory": percent(one.memory_utilization)},
            "Temperature": {"GPU Current Temp": cell(one.temperature, "{:.0f}C")},
            "Power Readings": {
                "Power Draw ": cell(one.power, "{:.2f}W"),
                "Current Power Limit": cell(one.power_limit, "{:.2f}W"),
            },
        }
        for one in devices
    ]
    document = {
        "Timestamp": "Wed Jul 22 16:07:29 2026",
        "Driver Version": "3.3.5-server",
        "Attached GPUs": str(len(devices)),
        "GPU": listed,
    }
    return json.dumps(document, indent=4) + "\n"


_SHOWS = frozenset({"index", "name", "bus_id", "utilization", "memory_used", "memory_total", "temperature"})

LAYOUTS = {
    "table": Layout("table", table, _SHOWS | {"processes"}),
    "json": Layout("json", query, _SHOWS | {"uuid", "serial", "memory_utilization", "power", "power_limit"}),
}
COMMANDS = {("mthreads-gmi", "-q", "--json"): "json", ("mthreads-gmi",): "table"}
