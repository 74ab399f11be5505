"""What ``cnmon`` prints, in versions 4 and 5."""

from __future__ import annotations

from collections.abc import Sequence

from pytest_flagperf.devices.reading import Reading
from tests.devices.printers import Layout
from tests.devices.printers import cell
from tests.devices.printers import mib
from tests.devices.printers import percent


_RULE = "+-------------------------------+----------------------+-----------------------+\n"
_END = "+------------------------------------------------------------------------------+\n"
_HEAD_5 = f"""\
{_END}| CNMON v5.10.13                                               Driver v5.10.13 |
{_RULE}| Card  VF  Name       Firmware |               Bus-Id | Util        Ecc-Error |
| Fan   Temp      Pwr:Usage/Cap |         Memory-Usage | SR-IOV   Compute-Mode |
|===============================+======================+=======================|
"""
_HEAD_4 = f"""\
Sat Oct  8 11:22:22 2022
{_END}| CNMON v4.20.11                                                               |
{_RULE}| Card  VF  Name       Firmware | Inited        Driver | Util        Ecc-Error |
| Fan   Temp      Pwr:Usage/Cap |         Memory-Usage |         vMemory-Usage |
|===============================+======================+=======================|
"""


def _first(one: Reading) -> str:
    return f"| {one.index:<6}/   {one.name or 'N/A':<13}v1.1.6 |"


def _second(one: Reading) -> str:
    power = f"{cell(one.power, '{:.0f} W'):>12}/{cell(one.power_limit, '{:.0f} W'):>6}"
    memory = f"{mib(one.memory_used, '{:.0f} MiB'):>10}/{mib(one.memory_total, '{:.0f} MiB'):>10}"
    return f"| {percent(one.fan):>3}   {cell(one.temperature, '{:.0f}C'):<4}{power} |{memory} |"


def _processes(devices: Sequence[Reading]) -> str:
    text = f"\n{_END}| Processes:{'':<67}|\n|  Card  MI  PID     Command Line{'':<29}MLU Memory Usage |\n|{'=' * 78}|\n"
    rows = [(one.index, process) for one in devices for process in one.processes or ()]
    for index, process in rows:
        memory = mib(process.memory, "{:.0f} MiB")
        text += f"|  {index:<6}/   {process.pid:<8}{'python3':<41}{memory:>16}  |\n"
    if not rows:
        text += f"|{'  No running processes found':<78}|\n"
    return text + _END


def version_5(devices: Sequence[Reading]) -> str:
    """``cnmon`` 5: the bus, and the compute mode."""
    text = _HEAD_5
    for one in devices:
        text += f"{_first(one)}{one.bus_id or 'N/A':>21} | {percent(one.utilization):<4}{cell(one.ecc_errors):>17} |\n"
        text += f"{_second(one)} N/A           Default |\n{_RULE}"
    return text + _processes(devices)


def version_4(devices: Sequence[Reading]) -> str:
    """``cnmon`` 4: no bus, and virtual memory instead of the compute mode."""
    text = _HEAD_4
    for one in devices:
        text += f"{_first(one)} On          v4.20.11 | {percent(one.utilization):<12}{cell(one.ecc_errors):<9} |\n"
        text += f"{_second(one)} 10240 MiB/1048576 MiB |\n{_RULE}"
    return text + _processes(devices)


_SHOWS = frozenset(
    {
        "index",
        "name",
        "utilization",
        "ecc_errors",
        "fan",
        "temperature",
        "power",
        "power_limit",
        "memory_used",
        "memory_total",
        "processes",
    }
)

LAYOUTS = {
    "version 5": Layout("table", version_5, _SHOWS | {"bus_id"}),
    "version 4": Layout("table", version_4, _SHOWS),
}
COMMANDS = {("cnmon",): "version 5"}
