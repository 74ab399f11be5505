"""What ``mx-smi`` prints, in versions 2.1, 2.2.8 and 2.2.9."""

from __future__ import annotations

from collections.abc import Sequence

from pytest_flagperf.devices.reading import Reading
from tests.devices.printers import Layout
from tests.devices.printers import cell
from tests.devices.printers import mib
from tests.devices.printers import percent


_END = f"+{'-' * 81}+\n"
_A = "+------------------------------------+---------------------+----------------------+\n"
_B = "+------------------+-----------------+---------------------+----------------------+\n"


def _log(devices: Sequence[Reading]) -> str:
    return (
        "=================== MetaX System Management Interface Log ===================\n"
        f"{'Timestamp':<50}: Wed Feb 11 09:55:49 2026\n\n{'Attached GPUs':<50}: {len(devices)}\n"
    )


def _title(version: str) -> str:
    return (
        f"{_END}| MX-SMI {version:<28}Kernel Mode Driver Version: 3.4.4{'':<12}|\n"
        f"| MACA Version: 3.3.0.15             BIOS Version: 1.30.0.0{'':<23}|\n"
    )


def _memory(one: Reading) -> str:
    if one.memory_total is None:
        return "N/A"
    return f"{mib(one.memory_used, '{:.0f}', 'NA')}/{mib(one.memory_total, '{:.0f}')} MiB"


def _power(one: Reading) -> str:
    return f"{cell(one.power, '{:.0f}W', 'NA')} / {cell(one.power_limit, '{:.0f}W', 'NA')}"


def _processes(devices: Sequence[Reading]) -> str:
    text = (
        f"\n{_END}| Process:{'':<72}|\n"
        "|  GPU                    PID         Process Name                 GPU Memory     |\n"
        f"|{'':<66}Usage(MiB)     |\n|{'=' * 81}|\n"
    )
    rows = [(one.index, process) for one in devices for process in one.processes or ()]
    for index, process in rows:
        text += f"|  {index:<23}{process.pid:<12}{'python3.10':<29}{mib(process.memory, '{:.0f}'):<15}|\n"
    if not rows:
        text += f"|{'  no process found':<81}|\n"
    return text + _END


def version_2_1(devices: Sequence[Reading]) -> str:
    """No persistence mode, no performance state."""
    text = _log(devices) + _title("2.1.12") + "|" + _A[1:]
    text += "| GPU         NAME                   | Bus-id              | GPU-Util             |\n"
    text += "| Temp        Pwr:Usage/Cap          | Memory-Usage        |                      |\n"
    text += "|====================================+=====================+======================|\n"
    for one in devices:
        text += (
            f"| {one.index:<12}{one.name or 'N/A':<23}| {one.bus_id or 'N/A':<20}| {percent(one.utilization):<21}|\n"
        )
        temperature = cell(one.temperature, "{:.0f}C")
        text += f"| {temperature:<12}{_power(one):<23}| {_memory(one):<20}| {'':<21}|\n{_A}"
    return text + _processes(devices)


def version_2_2_8(devices: Sequence[Reading]) -> str:
    """Both, behind the name and the power."""
    text = "mx-smi  version: 2.2.8\n\n" + _log(devices) + _title("2.2.8") + "|" + _A[1:]
    text += "| GPU     NAME         Persistence-M | Bus-id              | GPU-Util      sGPU-M |\n"
    text += "| Temp    Pwr:Usage/Cap         Perf | Memory-Usage        | GPU-State            |\n"
    text += "|====================================+=====================+======================|\n"
    for one in devices:
        temperature = cell(one.temperature, "{:.0f}C")
        utilization = percent(one.utilization)
        text += f"| {one.index:<8}{one.name or 'N/A':<23}Off | {one.bus_id or 'N/A':<20}| {utilization:<14}Native |\n"
        text += f"| {temperature:<8}{_power(one):<24}P0 | {_memory(one):<20}| {'Available':<21}|\n{_A}"
    return text + _processes(devices) + "\nEnd of Log\n"


def version_2_2_9(devices: Sequence[Reading]) -> str:
    """The board, with its power, in a column of its own."""
    text = "    " + _log(devices) + _title("2.2.9") + "|" + _B[1:-2] + "|\n"
    text += "| Board       Name | GPU   Persist-M | Bus-id              | GPU-Util      sGPU-M |\n"
    text += "| Pwr:Usage/Cap    | Temp       Perf | Memory-Usage        | GPU-State            |\n"
    text += "|==================+=================+=====================+======================|\n"
    for one in devices:
        temperature = cell(one.temperature, "{:.0f}C")
        utilization = percent(one.utilization)
        text += f"| {one.index:<6}{one.name or 'N/A':<11}| {one.index:<12}Off | {one.bus_id or 'N/A':<20}|"
        text += f" {utilization:<12}Disabled |\n"
        text += f"| {_power(one):<17}| {temperature:<13}P0 | {_memory(one):<20}| {'Available':<21}|\n{_B}"
    return text + _processes(devices)


def topology(devices: Sequence[Reading]) -> str:
    """``mx-smi topo -m``: the devices, and how they are linked."""
    names = [f"GPU{one.index}" for one in devices]
    text = _log(devices) + "Device link type matrix\n"
    text += f"{'':<8}{''.join(f'{name:<8}' for name in names)}Node Affinity  CPU Affinity\n"
    for name in names:
        links = "".join(f"{'X' if other == name else 'MX':<8}" for other in names)
        text += f"{name:<8}{links}0              0-31,64-95\n"
    return text + "\nLegend:\n  X    = Self\n  MX   = Connection traversing MetaXLink\n"


_SHOWS = frozenset(
    {
        "index",
        "name",
        "bus_id",
        "utilization",
        "temperature",
        "power",
        "power_limit",
        "memory_used",
        "memory_total",
        "processes",
    }
)

LAYOUTS = {
    "version 2.1": Layout("table", version_2_1, _SHOWS),
    "version 2.2.8": Layout("table", version_2_2_8, _SHOWS),
    "version 2.2.9": Layout("table", version_2_2_9, _SHOWS),
    "topology": Layout("topology", topology, frozenset({"index"})),
}
COMMANDS = {("mx-smi",): "version 2.2.9"}
