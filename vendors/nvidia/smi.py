"""What ``nvidia-smi`` prints as tables: its queries, the table without arguments, ``-L`` and ``dmon``."""

from __future__ import annotations

import csv
import itertools
import re
from collections.abc import Iterator
from collections.abc import Sequence
from dataclasses import replace

from pytest_flagperf.devices.reading import Process
from pytest_flagperf.devices.reading import Reading
from pytest_flagperf.devices.reading import convert
from pytest_flagperf.devices.reading import is_unknown
from pytest_flagperf.devices.reading import quantity
from pytest_flagperf.devices.reading import whole
from pytest_flagperf.errors import ProbeError


UNKNOWN = ("ERR!", "[Not Found]", "[GPU requires reset]", "GPU requires reset")

# The bits of clocks_event_reasons.active (NVML's constants), by what --help-query-gpu calls them.
# 0x1, gpu_idle, lowers the clock of a device that has nothing to do: that is no throttle.
IDLE = 0x1
REASONS = {
    0x2: "applications_clocks_setting",
    0x4: "sw_power_cap",
    0x8: "hw_slowdown",
    0x10: "sync_boost",
    0x20: "sw_thermal_slowdown",
    0x40: "hw_thermal_slowdown",
    0x80: "hw_power_brake_slowdown",
    0x100: "display_clocks_setting",
    0x200: "board_limit",
    0x400: "reliability",
}

_COLUMNS = {
    "index": ("index",),
    "name": ("name", "gpu_name"),
    "uuid": ("uuid", "gpu_uuid"),
    "serial": ("serial", "gpu_serial"),
    "bus_id": ("pci.bus_id", "gpu_bus_id"),
    "temperature": ("temperature.gpu",),
    "power": ("power.draw",),
    "power_limit": ("enforced.power.limit", "power.limit"),
    "memory_used": ("memory.used",),
    "memory_total": ("memory.total",),
    "utilization": ("utilization.gpu",),
    "memory_utilization": ("utilization.memory",),
    "fan": ("fan.speed",),
    "clock": ("clocks.current.sm", "clocks.sm"),
    "memory_clock": ("clocks.current.memory", "clocks.mem"),
    "ecc_errors": ("ecc.errors.uncorrected.volatile.total",),
}
_THROTTLE = ("clocks_event_reasons.active", "clocks_throttle_reasons.active")
_CARRIED = ("name", "uuid", "serial", "bus_id")
_UNITS = {"temperature": "C", "ecc_errors": "count"}
_DMON = {
    "pwr": ("power", "W"),
    "gtemp": ("temperature", "C"),
    "sm": ("utilization", "%"),
    "mem": ("memory_utilization", "%"),
    "mclk": ("memory_clock", "MHz"),
    "pclk": ("clock", "MHz"),
}


def query_gpu(text: str) -> list[Reading]:
    """``--query-gpu=... --format=csv``: a heading with units, then one row for each device."""
    found = []
    rows = list(_rows(text, "uuid"))
    for number, row in enumerate(rows):
        if row.get("count", str(len(rows))) != str(len(rows)):
            raise ProbeError(f"it announces {row['count']} devices, {len(rows)} are in it")
        cells = _chosen(row)
        values = convert(cells, _UNITS, unknown=UNKNOWN)
        mask = next((row[name] for name in _THROTTLE if name in row), "")
        found.append(Reading(**{"index": number, **values, "throttle": throttle(mask)}))  # type: ignore[arg-type]
    return found


def compute_apps(text: str) -> list[Reading]:
    """``--query-compute-apps=... --format=csv``: the processes of each device that has some; none is no error.

    No device number is printed: ``index`` counts the devices as they come, the uuid or the bus id tells which it is.
    """
    found: dict[str, Reading] = {}
    for row in _rows(text, "pid"):
        cells = {field: row[name] for field in _CARRIED for name in _COLUMNS[field] if name in row}
        values = convert(cells, {}, unknown=UNKNOWN)
        device = str(values.get("uuid") or values.get("bus_id") or "")
        if not device:
            raise ProbeError("a process is listed without the uuid or the bus id of its device")
        before = found.get(device) or Reading(len(found), processes=(), **values)  # type: ignore[arg-type]
        memory = row.get("used_gpu_memory", row.get("used_memory", ""))
        found[device] = replace(before, processes=(*(before.processes or ()), process(row["pid"], memory)))
    return list(found.values())


def throttle(mask: str) -> tuple[str, ...] | None:
    """The names of the reasons in a bit mask such as ``0x0000000000000004``; ``None`` where it is not told."""
    if is_unknown(mask, UNKNOWN):
        return None
    try:
        bits = int(mask, 16)
    except ValueError:
        raise ProbeError(f"throttle: {mask!r} is no bit mask") from None
    set_bits = [1 << place for place in range(bits.bit_length()) if bits >> place & 1]
    return tuple(REASONS.get(bit, f"reason {bit:#x}") for bit in set_bits if bit != IDLE)


def process(pid: str, memory: str) -> Process:
    """One row of a process list; the memory cell carries its unit, or says that it is not known."""
    if not pid.strip().isdecimal():
        raise ProbeError(f"pid: {pid.strip()!r} is no process number")
    return Process(int(pid), quantity("memory_used", memory, unknown=UNKNOWN))


def _lines(text: str) -> list[str]:
    # HAMi, which divides a device between containers, reports its own exit into the tool's output.
    return [line for line in whole(text).splitlines() if not line.startswith("[HAMI-core ")]


def _rows(text: str, needed: str) -> Iterator[dict[str, str]]:
    """The rows below the heading, by column name without its unit: the cells carry theirs."""
    rows = [[cell.strip() for cell in row] for row in csv.reader(_lines(text)) if row]
    heading = next((at for at, row in enumerate(rows) if any(_unitless(cell).endswith(needed) for cell in row)), None)
    if heading is None:
        raise ProbeError(f"no row names a column {needed}")
    names = [_unitless(cell) for cell in rows[heading]]
    for number, row in enumerate(rows[heading + 1 :], 1):
        if len(row) != len(names):
            raise ProbeError(f"row {number} has {len(row)} columns of {len(names)}")
        yield dict(zip(names, row, strict=True))


def _unitless(cell: str) -> str:
    return cell.partition(" [")[0]


def _chosen(row: dict[str, str]) -> dict[str, str]:
    chosen = {}
    for field, names in _COLUMNS.items():
        told = [row[name] for name in names if name in row]
        if told:
            chosen[field] = next((cell for cell in told if not is_unknown(cell, UNKNOWN)), told[0])
    return chosen


def table(text: str) -> list[Reading]:
    """What ``nvidia-smi`` alone prints, in the widths of drivers 418 to 595; a device is two lines, three with MIG."""
    lines = _lines(text)
    devices_end = next((at for at, line in enumerate(lines) if line.startswith("| Processes:")), None)
    # The tool dates what it prints. An undated text is a part that somebody chose; a dated one is all or cut off.
    if devices_end is None and re.match(r"[A-Z][a-z]{2} [A-Z][a-z]{2} ", text.lstrip()):
        raise ProbeError("its process table is missing")
    found = []
    head = [line for line in lines[:devices_end] if line.startswith("|")]
    for first, second in itertools.pairwise([*head, ""]):
        if first.startswith("| MIG devices:"):
            break
        cells = _cells(first)
        if len(cells) == 3 and cells[0] and cells[0][0].isdecimal():
            found.append(_table_device(cells, _cells(second)))
    if devices_end is None:
        return found
    processes = _table_processes(lines[devices_end:])
    if processes is None:
        return found
    return [replace(one, processes=tuple(processes.get(one.index, ()))) for one in found]


def _cells(line: str) -> list[list[str]]:
    return [cell.split() for cell in line.strip().strip("|").split("|")] if line.rstrip().endswith("|") else []


def _table_device(first: list[list[str]], second: list[list[str]]) -> Reading:
    index = first[0][0]
    state = second[0] if len(second) == 3 else []
    memory, use = (second[1], second[2]) if state else ([], [])
    if len(state) != 6 or state[4] != "/" or len(memory) != 3 or memory[1] != "/" or not use or len(first[1]) != 2:
        raise ProbeError(f"the lines of device {index} are not as this layout has them")
    cells = {
        "index": index,
        # The last word is the persistence mode, or on Windows the driver model.
        "name": " ".join(first[0][1:-1]),
        "bus_id": first[1][0],
        "fan": state[0],
        "temperature": state[1],
        "power": state[3],
        "power_limit": state[5],
        "memory_used": memory[0],
        "memory_total": memory[2],
        "utilization": use[0],
        "ecc_errors": first[2][0] if first[2] else "",
    }
    # With MIG the column says On: the instances have the counts.
    return Reading(**convert(cells, _UNITS, unknown=(*UNKNOWN, "On")))  # type: ignore[arg-type]


def _table_processes(lines: Sequence[str]) -> dict[int, list[Process]] | None:
    """Compute processes by device; ``None`` where the table has no end, and so may lack some."""
    rule = next((at for at, line in enumerate(lines) if line.startswith("|==")), len(lines))
    rows = lines[rule + 1 :]
    end = next((at for at, line in enumerate(rows) if line.startswith("+--")), None)
    if end is None:
        return None
    found: dict[int, list[Process]] = {}
    for row in rows[:end]:
        words = row.strip().strip("|").split()
        if not words or not words[0].isdecimal():
            continue
        # GPU [GI CI] PID Type Name... Memory: the instance columns came with driver 450.
        at = 1 if len(words) > 2 and words[1].isdecimal() and not words[2].isdecimal() and words[2] != "N/A" else 3
        if len(words) < at + 3:
            raise ProbeError(f"the process row {row.strip()!r} is not as this layout has it")
        if "C" in words[at + 1]:
            found.setdefault(int(words[0]), []).append(process(words[at], words[-1]))
    return found


def listing(text: str) -> list[Reading]:
    """``-L``: number, name and uuid of each device; lines of MIG instances are passed over."""
    found = []
    for line in _lines(text):
        if not line.strip() or line.startswith("  MIG "):
            continue
        match = re.fullmatch(r"GPU (\d+): (\S.*) \(UUID: ([^\s()]+)\)", line.rstrip())
        if match is None:
            raise ProbeError(f"{line.strip()[:80]!r} is no line of a device")
        found.append(Reading(int(match[1]), name=match[2], uuid=match[3]))
    return found


def dmon(text: str) -> list[Reading]:
    """``dmon``: a row a device and second, under a heading that comes again; the last of each device counts."""
    names: list[str] = []
    found: dict[int, Reading] = {}
    for line in _lines(text):
        words = line.split()
        if words[:2] == ["#", "gpu"]:
            names = words[1:]
        elif words and not words[0].startswith("#"):
            if len(words) != len(names):
                raise ProbeError(f"a row has {len(words)} columns of {len(names)}")
            row = dict(zip(names, words, strict=True))
            cells = {"index": row["gpu"]} | {field: row[name] for name, (field, _) in _DMON.items() if name in row}
            values = convert(cells, dict(_DMON.values()), unknown=UNKNOWN)
            reading = Reading(**values)  # type: ignore[arg-type]
            found[reading.index] = reading
    return list(found.values())
