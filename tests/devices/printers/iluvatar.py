"""What ``ixsmi`` prints."""

from __future__ import annotations

from collections.abc import Sequence

from pytest_flagperf.devices.reading import Reading
from tests.devices.printers import Layout
from tests.devices.printers import cell
from tests.devices.printers import mib
from tests.devices.printers import percent


_HEAD = """\
Timestamp    Wed Nov 12 14:01:27 2025
+-----------------------------------------------------------------------------+
|  IX-ML: 4.3.0       Driver Version: 4.3.0       CUDA Version: 10.2          |
|-------------------------------+----------------------+----------------------|
| GPU  Name                     | Bus-Id               | Clock-SM  Clock-Mem  |
| Fan  Temp  Perf  Pwr:Usage/Cap|      Memory-Usage    | GPU-Util  Compute M. |
|===============================+======================+======================|
"""
_RULE = "+-------------------------------+----------------------+----------------------+\n"
_PROCESSES = """\

+-----------------------------------------------------------------------------+
| Processes:                                                       GPU Memory |
|  GPU        PID      Process name                                Usage(MiB) |
|=============================================================================|
"""
_END = "+-----------------------------------------------------------------------------+\n"


def table(devices: Sequence[Reading]) -> str:
    """``ixsmi``, with the table of processes, whose memory has no unit."""
    text = _HEAD
    for one in devices:
        power = f"{cell(one.power, '{:.0f}W')} / {cell(one.power_limit, '{:.0f}W')}"
        memory = f"{mib(one.memory_used)} / {mib(one.memory_total)}"
        text += (
            f"| {one.index:<5}{one.name or 'N/A':<25}| {one.bus_id or 'N/A':<21}|"
            f" {cell(one.clock, '{:.0f}MHz'):<10}{cell(one.memory_clock, '{:.0f}MHz'):<11}|\n"
            f"| {percent(one.fan):<5}{cell(one.temperature, '{:.0f}C'):<6}P0    {power:<13}|"
            f" {memory:<21}| {percent(one.utilization):<10}Default    |\n{_RULE}"
        )
    text += _PROCESSES
    rows = [(one.index, process) for one in devices for process in one.processes or ()]
    for index, process in rows:
        text += f"|{index:>5}{process.pid:>11}      {'python3':<40}{mib(process.memory, '{:.0f}'):>14} |\n"
    if not rows:
        text += f"|{'  No running processes found':<77}|\n"
    return text + _END


def query(devices: Sequence[Reading]) -> str:
    """``ixsmi --query-gpu=index,name,memory.total,memory.used,utilization.gpu,temperature.gpu``, no heading."""
    text = ""
    for one in devices:
        total, used = mib(one.memory_total, "{:.0f} MiB"), mib(one.memory_used, "{:.0f} MiB")
        utilization, temperature = percent(one.utilization, "{:.0f} %"), cell(one.temperature, "{:.0f} C")
        text += f"{one.index}, {one.name or 'N/A'}, {total}, {used}, {utilization}, {temperature}\n"
    return text


_SHOWS = frozenset({"index", "name", "memory_used", "memory_total", "utilization", "temperature"})

LAYOUTS = {
    "table": Layout(
        "table",
        table,
        _SHOWS | {"bus_id", "clock", "memory_clock", "fan", "power", "power_limit", "processes"},
    ),
    "query": Layout("query", query, _SHOWS),
}
COMMANDS = {("ixsmi",): "table"}
