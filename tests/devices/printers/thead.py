"""What ``ppu-smi`` prints."""

from __future__ import annotations

from collections.abc import Sequence

from pytest_flagperf.devices.reading import Reading
from tests.devices.printers import Layout
from tests.devices.printers import cell
from tests.devices.printers import mib
from tests.devices.printers import percent


_COLUMNS = (
    "index,name,uuid,serial,pci.bus_id,memory.total,memory.used,utilization.ppu,utilization.memory,temperature.ppu,"
    "power.draw,power.limit"
)


def query(devices: Sequence[Reading]) -> str:
    """``ppu-smi --query-ppu=... --format=csv``, as this project asks for it."""
    text = (
        "index, name, uuid, serial, pci.bus_id, memory.total [MiB], memory.used [MiB], utilization.ppu [%], "
        "utilization.memory [%], temperature.ppu, power.draw [W], power.limit [W]\n"
    )
    for one in devices:
        cells = (
            str(one.index),
            *(value or "N/A" for value in (one.name, one.uuid, one.serial, one.bus_id)),
            mib(one.memory_total, "{:.0f} MiB"),
            mib(one.memory_used, "{:.0f} MiB"),
            percent(one.utilization, "{:.0f} %"),
            percent(one.memory_utilization, "{:.0f} %"),
            cell(one.temperature, "{:.0f} C"),
            cell(one.power, "{:.2f} W"),
            cell(one.power_limit, "{:.2f} W"),
        )
        text += ", ".join(cells) + "\n"
    return text


def processes(devices: Sequence[Reading]) -> str:
    """``ppu-smi --query-compute-apps=uuid,pid,used_ppu_memory --format=csv``: only devices that have some."""
    text = "uuid, pid, used_ppu_memory [MiB]\n"
    for one in devices:
        for process in one.processes or ():
            text += f"{one.uuid}, {process.pid}, {mib(process.memory, '{:.0f} MiB')}\n"
    return text


def listing(devices: Sequence[Reading]) -> str:
    """``ppu-smi -L``, with an instance of each device."""
    return "".join(
        f"PPU {one.index}: {one.name} (UUID: {one.uuid})\n    MIG g1.c1.i1, Device 0 (UUID: MIG-4c07dc9f)\n"
        for one in devices
    )


def identity(devices: Sequence[Reading]) -> str:
    """``ppu-smi --query-ppu=gpu_bus_id,memory.total,power.limit,gpu_serial --format=csv,noheader``."""
    return "".join(
        f"{one.bus_id or 'N/A'}, {mib(one.memory_total, '{:.0f} MiB')}, {cell(one.power_limit, '{:.2f} W')}, "
        f"{one.serial or 'N/A'}\n"
        for one in devices
    )


def metrics(devices: Sequence[Reading]) -> str:
    """``--query-ppu=gpu_bus_id,utilization.ppu,temperature.ppu,power.draw,gpu_serial --format=csv,noheader``."""
    return "".join(
        f"{one.bus_id or 'N/A'}, {percent(one.utilization, '{:.0f} %')}, {cell(one.temperature, '{:.0f} C')}, "
        f"{cell(one.power, '{:.2f} W')}, {one.serial or 'N/A'}\n"
        for one in devices
    )


_FIGURES = {
    "memory_total",
    "memory_used",
    "utilization",
    "memory_utilization",
    "temperature",
    "power",
    "power_limit",
}

LAYOUTS = {
    "query": Layout("query", query, frozenset({"index", "name", "uuid", "serial", "bus_id"} | _FIGURES)),
    "processes": Layout("processes", processes, frozenset({"uuid", "processes"})),
    "list": Layout("list", listing, frozenset({"index", "name", "uuid"})),
    "identity": Layout("identity", identity, frozenset({"bus_id", "serial", "memory_total", "power_limit"})),
    "metrics": Layout("metrics", metrics, frozenset({"bus_id", "serial", "utilization", "temperature", "power"})),
}
COMMANDS = {
    ("ppu-smi", f"--query-ppu={_COLUMNS}", "--format=csv"): "query",
    ("ppu-smi", "--query-compute-apps=uuid,pid,used_ppu_memory", "--format=csv"): "processes",
}
