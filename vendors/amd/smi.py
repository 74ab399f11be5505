"""What ``amd-smi`` prints: the JSON of ``metric`` and ``process``, and the texts of its commands."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from collections.abc import Mapping
from typing import Any

from pytest_flagperf.devices.reading import Process
from pytest_flagperf.devices.reading import Reading
from pytest_flagperf.devices.reading import convert
from pytest_flagperf.devices.reading import quantity
from pytest_flagperf.devices.reading import whole
from pytest_flagperf.errors import ProbeError


IDLE = ("No running processes detected", "N/A")
# amd-smi divides bytes by 1024 and writes MB: the 192 GiB of an MI300X, 206141652992 bytes, are its 196592 MB.
_BINARY = {"KB": "KiB", "MB": "MiB", "GB": "GiB"}
_UNITS = {"ecc_errors": "count"}
_MEMORY = ("memory_used", "memory_total")

# Field → where it is in a device of `metric --json`; the first place that has a figure counts.
_METRIC: dict[str, tuple[str, ...]] = {
    "temperature": ("temperature.hotspot", "temperature.edge"),
    "power": ("power.socket_power", "power.current_socket_power", "power.average_socket_power"),
    "energy": ("energy.total_energy_consumption",),
    "memory_used": ("mem_usage.used_vram",),
    "memory_total": ("mem_usage.total_vram",),
    "utilization": ("usage.gfx_activity",),
    "memory_utilization": ("usage.umc_activity",),
    "fan": ("fan.usage",),
    "clock": ("clock.gfx_0.clk", "clock.gfx.clk"),
    "memory_clock": ("clock.mem_0.clk", "clock.mem.clk"),
    "ecc_errors": ("ecc.total_uncorrectable_count",),
}
# What has been limiting the clock, of `metric --json` since AMDSMI 25; power.throttle_status before names no reason.
_VIOLATIONS = ("prochot", "ppt", "socket_thermal", "vr_thermal", "hbm_thermal")
_STATIC = {
    "name": "ASIC/MARKET_NAME",
    "serial": "ASIC/ASIC_SERIAL",
    "bus_id": "BUS/BDF",
    "power_limit": "LIMIT/SOCKET_POWER",
    "memory_total": "VRAM/SIZE",
}
# The same in a device of `static --json`.
_STATIC_JSON = {
    "name": "asic.market_name",
    "serial": "asic.asic_serial",
    "bus_id": "bus.bdf",
    "power_limit": "limit.socket_power",
    "memory_total": "vram.size",
}
_MONITOR = {
    "GPU": "index",
    "POWER": "power",
    "GPU_TEMP": "temperature",
    "GFX_UTIL": "utilization",
    "MEM_UTIL": "memory_utilization",
    "GFX_CLOCK": "clock",
    "MEM_CLOCK": "memory_clock",
    "DOUBLE_ECC": "ecc_errors",
    "VRAM_USED": "memory_used",
    "VRAM_TOTAL": "memory_total",
}


def metric(text: str) -> list[Reading]:
    """``metric --json``: a list of devices, or a table with such a list as ``gpu_data``."""
    found = []
    for index, device in _devices(text):
        cells = {"index": str(index)}
        for field, paths in _METRIC.items():
            told = [cell for cell in (_cell(device, path, field) for path in paths) if cell is not None]
            if told:
                cells[field] = told[0]
        values = convert(cells, _UNITS)
        found.append(Reading(**{**values, "throttle": _throttle(device)}))  # type: ignore[arg-type]
    return found


def static_json(text: str) -> list[Reading]:
    """``static --json``: what does not change of each device. Its limits have other names in other versions."""
    found = []
    for index, device in _devices(text):
        told = {field: _cell(device, path, field) for field, path in _STATIC_JSON.items()}
        cells = {field: cell for field, cell in told.items() if cell is not None}
        found.append(Reading(index, **convert(cells, {})))  # type: ignore[arg-type]
    return found


def _throttle(device: Mapping[str, Any]) -> tuple[str, ...] | None:
    told = {name: _follow(device, f"throttle.{name}_violation_status") for name in _VIOLATIONS}
    states = {state for state in told.values() if isinstance(state, str)}
    # Without one of them nobody can say that nothing limits the clock.
    if None not in told.values() and {"ACTIVE", "NOT ACTIVE"} & states:
        return tuple(name for name, state in told.items() if state == "ACTIVE")
    state = _follow(device, "power.throttle_status")
    return ("throttled",) if state == "THROTTLED" else () if state == "UNTHROTTLED" else None


def processes(text: str) -> list[Reading]:
    """``process --json``: of every device the processes that the driver counts on it."""
    return [Reading(index, processes=tuple(_listed(device))) for index, device in _devices(text)]


def _listed(device: Mapping[str, Any]) -> Iterator[Process]:
    entries = device.get("process_list")
    if not isinstance(entries, list):
        raise ProbeError(f"device {device['gpu']} has no process_list")
    for entry in entries:
        told = entry.get("process_info") if isinstance(entry, dict) else None
        if isinstance(told, str) and told in IDLE:
            continue
        if not isinstance(told, dict) or not isinstance(told.get("pid"), int):
            raise ProbeError(f"device {device['gpu']}: {str(entry)[:80]} is no process")
        # AMDSMI 26 tells one amount alone.
        memory = _cell(told, "memory_usage.vram_mem" if "memory_usage" in told else "mem_usage", "memory_used")
        yield Process(told["pid"], None if memory is None else quantity("memory_used", memory))


def _devices(text: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    # Warnings of the driver come first, some of them in brackets.
    start = re.search(r"^[\[{](?=\s|[\"\[{}\]])", text, re.MULTILINE)
    if start is None:
        raise ProbeError("there is no JSON in it")
    try:
        document, _ = json.JSONDecoder().raw_decode(text, start.start())
    except json.JSONDecodeError as error:
        raise ProbeError(f"it is no whole JSON document: {error}") from None
    devices = document.get("gpu_data") if isinstance(document, dict) else document
    if not isinstance(devices, list):
        raise ProbeError("there is neither a list of devices nor gpu_data in it")
    for device in devices:
        index = device.get("gpu") if isinstance(device, dict) else None
        if not isinstance(index, int) or isinstance(index, bool):
            raise ProbeError("a device has no number called gpu")
        yield index, device


def _follow(document: Any, path: str) -> Any:
    for name in path.split("."):
        document = document.get(name) if isinstance(document, dict) else None
    return document


def _cell(device: Mapping[str, Any], path: str, field: str) -> str | None:
    """A value with its unit as one text; ``None`` where the leaf is missing or ``N/A``."""
    leaf = _follow(device, path)
    value, unit = (leaf.get("value"), str(leaf.get("unit", ""))) if isinstance(leaf, dict) else (leaf, "")
    if value == "N/A" or value is None or isinstance(value, (bool, dict, list)):
        return None
    return _unit(field, f"{value} {unit}".strip())


def _unit(field: str, cell: str) -> str:
    number, _, unit = cell.strip().partition(" ")
    return f"{number} {_BINARY.get(unit, unit)}".strip() if field in _MEMORY else cell


def _lines(text: str) -> list[str]:
    # The command itself, in texts that were kept with it.
    return [line for line in whole(text).splitlines() if not line.startswith("$ ")]


def monitor(text: str) -> list[Reading]:
    """``monitor``: one row a device under a heading, and with ``-q`` one for each process, ``N/A`` where none is."""
    columns: list[str] = []
    devices: list[dict[str, object]] = []
    running: dict[int, list[Process]] = {}
    for line in _lines(text):
        # Cells hold one blank between figure and unit, and are set apart by two at least.
        row = re.split(r" {2,}", line.strip(" "))
        if row[0] == "GPU":
            columns = row
        elif columns and row[0].isdecimal():
            if len(row) != len(columns):
                raise ProbeError(f"the row of device {row[0]} has {len(row)} columns of {len(columns)}")
            cells = dict(zip(columns, row, strict=True))
            if "PID" in cells:
                running.setdefault(int(cells["GPU"]), []).extend(_row_process(cells))
                continue
            named = {field: _unit(field, cells[name]) for name, field in _MONITOR.items() if name in cells}
            devices.append(convert(named, _UNITS))
    listed = ({**one, "processes": _told(running, one["index"])} for one in devices)
    return [Reading(**one) for one in listed]  # type: ignore[arg-type]


def _told(running: Mapping[int, list[Process]], index: Any) -> tuple[Process, ...] | None:
    return tuple(running[index]) if index in running else None


def _row_process(cells: Mapping[str, str]) -> Iterator[Process]:
    if cells["PID"] != "N/A":
        yield _process(cells["PID"], cells.get("VRAM_MEM", "N/A"))


def _process(pid: str, memory: str) -> Process:
    if not pid.isdecimal():
        raise ProbeError(f"pid: {pid!r} is no process number")
    return Process(int(pid), quantity("memory_used", _unit("memory_used", memory)))


def process(text: str) -> list[Reading]:
    """``process``: every device with the number and memory of each process on it."""
    found: dict[int, list[Process]] = {}
    for index, values in _sections(text):
        pids = [value for path, value in values if path.endswith("/PID")]
        memories = [value for path, value in values if path.endswith("/VRAM_MEM")]
        idle = any(path == "PROCESS_INFO" and value in IDLE for path, value in values)
        if len(pids) != len(memories) or not (pids or idle):
            raise ProbeError(f"the processes of device {index} are cut off")
        found[index] = [_process(pid, memory) for pid, memory in zip(pids, memories, strict=True)]
    return [Reading(index, processes=tuple(listed)) for index, listed in found.items()]


def static(text: str) -> list[Reading]:
    """``static``: what does not change of each device: its name, bus id, memory and power limit."""
    found = []
    for index, values in _sections(text):
        told = {path: value for path, value in values if path in _STATIC.values()}
        if sorted(told) != sorted(path for path, _ in values if path in _STATIC.values()):
            raise ProbeError(f"the lines of device {index} are those of two")
        if "VRAM/SIZE" not in told:
            raise ProbeError(f"the lines of device {index} are cut off")
        cells = {field: _unit(field, told[path]) for field, path in _STATIC.items() if path in told}
        found.append(Reading(index, **convert(cells, {})))  # type: ignore[arg-type]
    return found


def _sections(text: str) -> Iterator[tuple[int, list[tuple[str, str]]]]:
    """The number of each device and the path and value of the lines that are indented below it."""
    index: int | None = None
    values: list[tuple[str, str]] = []
    parents: list[tuple[int, str]] = []
    for line in _lines(text):
        label, _, value = line.partition(":")
        indent = len(label) - len(label.lstrip())
        if label == "GPU" and value.strip().isdecimal():
            if index is not None:
                yield index, values
            index, values, parents = int(value), [], []
        elif label.strip():
            while parents and parents[-1][0] >= indent:
                parents.pop()
            parents.append((indent, label.strip()))
            values.append(("/".join(name for _, name in parents), value.strip()))
    if index is not None:
        yield index, values
