"""What ``hl-smi`` prints, as a table and as CSV."""

from __future__ import annotations

from collections.abc import Sequence

from pytest_flagperf.devices.reading import Reading
from tests.devices.printers import Layout
from tests.devices.printers import cell
from tests.devices.printers import mib
from tests.devices.printers import percent


_HEAD = """\
+-----------------------------------------------------------------------------+
| HL-SMI Version:                                hl-1.17.1-fw-51.5.0          |
| Driver Version:                                     1.17.1-78932ae          |
|-------------------------------+----------------------+----------------------+
| AIP  Name        Persistence-M| Bus-Id        Disp.A | Volatile Uncorr. ECC |
| Fan  Temp  Perf  Pwr:Usage/Cap|         Memory-Usage | AIP-Util  Compute M. |
|===============================+======================+======================|
"""
_RULE = "|-------------------------------+----------------------+----------------------+\n"
_PROCESSES = """\
| Compute Processes:                                               AIP Memory |
|  AIP       PID   Type   Process name                             Usage      |
|=============================================================================|
"""


def table(devices: Sequence[Reading], unit: str = "MiB") -> str:
    """``hl-smi``: a device without a process has a row of N/A."""
    text = _HEAD
    for one in devices:
        power = f"{cell(one.power, '{:.0f}W'):>6} / {cell(one.power_limit, '{:.0f}W')}"
        memory = f"{mib(one.memory_used, '{:.0f}' + unit):>10} / {mib(one.memory_total, '{:.0f}' + unit):>8}"
        text += (
            f"|{one.index:>4}  {one.name or 'N/A':<20}N/A  | {one.bus_id or 'N/A':<16} N/A |"
            f"{cell(one.ecc_errors):>20}  |\n"
            f"| {percent(one.fan):<4}{cell(one.temperature, '{:.0f}C'):>5}   N/A {power} |"
            f"{memory} |{percent(one.utilization):>7}           N/A |\n{_RULE}"
        )
    text += _PROCESSES
    for one in devices:
        for process in one.processes or ():
            text += f"|{one.index:>4}   {process.pid:>8}     C    {'python3':<41}{mib(process.memory):<11}|\n"
        if not one.processes:
            text += f"|{one.index:>4}        N/A   N/A    {'N/A':<41}{'N/A':<11}|\n"
    return text + f"+{'=' * 77}+\n"


def query(devices: Sequence[Reading]) -> str:
    """``hl-smi -Q ... -f csv``, by module ids, as this project asks for it."""
    text = (
        "module_id, uuid, name, bus_id, memory.total [MiB], memory.used [MiB], power.draw [W], "
        "temperature.aip [C], utilization.aip [%]\n"
    )
    for one in devices:
        cells = (
            str(one.index),
            one.uuid or "N/A",
            one.name or "N/A",
            one.bus_id or "N/A",
            mib(one.memory_total, "{:.0f} MiB"),
            mib(one.memory_used, "{:.0f} MiB"),
            cell(one.power, "{:.0f} W"),
            cell(one.temperature, "{:.0f} C"),
            percent(one.utilization, "{:.0f} %"),
        )
        text += ", ".join(cells) + "\n"
    return text


def rows(devices: Sequence[Reading]) -> str:
    """``hl-smi -Q ... -f csv,noheader``, as other tools ask for it."""
    text = ""
    for one in devices:
        cells = (
            str(one.index),
            one.uuid or "N/A",
            one.name or "N/A",
            "1.22.1-97ec1a4",
            mib(one.memory_total, "{:.0f} MiB"),
            mib(one.memory_used, "{:.0f} MiB"),
            "7 MiB",
            cell(one.power, "{:.0f} W"),
            cell(one.power_limit, "{:.0f} W"),
            cell(one.temperature, "{:.0f} C"),
            percent(one.utilization, "{:.0f} %"),
        )
        text += ", ".join(cells) + "\n"
    return text


_SHOWS = frozenset({"index", "name", "power", "temperature", "utilization", "memory_used", "memory_total"})

LAYOUTS = {
    "table": Layout("table", table, _SHOWS | {"bus_id", "ecc_errors", "fan", "power_limit", "processes"}),
    "query": Layout("query", query, _SHOWS | {"uuid", "bus_id"}),
    "rows": Layout("rows", rows, _SHOWS | {"uuid", "power_limit"}),
}
_COLUMNS = "module_id,uuid,name,bus_id,memory.total,memory.used,power.draw,temperature.aip,utilization.aip"
COMMANDS = {("hl-smi", "-Q", _COLUMNS, "-f", "csv"): "query", ("hl-smi",): "table"}
