"""``mx-smi``: a device is two rows between rules, in one of three layouts.

2.1: number and name, then temperature and power, in the first column. 2.2.4 to 2.2.8: persistence mode and performance
state after them. From 2.2.9: the board's number, name and power in a column of their own before the device's.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from pytest_flagperf.devices.reading import Process
from pytest_flagperf.devices.reading import Reading
from pytest_flagperf.devices.reading import blocks
from pytest_flagperf.devices.reading import convert
from pytest_flagperf.devices.reading import quantity
from pytest_flagperf.errors import ProbeError


Block = Sequence[Sequence[str]]

_UNITS = {"memory_used": "MiB", "memory_total": "MiB"}
_ATTACHED = re.compile(r"^Attached GPUs +: +(\d+) *$", re.MULTILINE)


def table(text: str) -> list[Reading]:
    """The devices, with their processes where the table of them is there and whole."""
    found: list[Reading] = []
    processes: dict[int, list[Process]] | None = None
    heading: Block = ()
    listing = False
    parts = blocks(text)
    for number, block in enumerate(parts):
        if not block:
            continue
        if listing and number < len(parts) - 1:
            processes = _processes(block)
        elif block[0][0].startswith("Process"):
            listing = True
        elif block[0][-2:-1] == ["Bus-id"] and len(block) == 2:
            heading = block
        elif heading and not listing:
            found.append(_device(block, heading[0]))
    if not heading:
        raise ProbeError("there is no table of devices in it")
    attached = _ATTACHED.search(text)
    if attached and int(attached[1]) != len(found):
        raise ProbeError(f"{attached[1]} devices are attached, {len(found)} are in it")
    if processes is None:
        return found
    return [replace(one, processes=tuple(processes.get(one.index, ()))) for one in found]


def _device(block: Block, heading: Sequence[str]) -> Reading:
    if len(block) != 2 or any(len(row) != len(heading) for row in block):
        raise ProbeError(f"a device is not two rows of {len(heading)} cells: {block[0][0][:40]!r}")
    (*who, bus, use), (*state, memory, _) = block
    if len(heading) == 4:
        name = who[0].partition(" ")[2]
        index = who[1].partition(" ")[0]
        temperature = state[1].partition(" ")[0]
        power = state[0]
    else:
        index, _, name = who[0].partition(" ")
        if "Persistence" in heading[0]:
            name = name.rpartition(" ")[0]
        temperature, _, power = state[0].partition(" ")
    # 26W / 225W   P0, where 2.1.6 has 44W and no more.
    watts = [*power.split(), "", ""]
    used, slash, total = memory.partition("/")
    cells = {
        "index": index,
        "name": name.strip(),
        "bus_id": bus,
        "utilization": use.partition(" ")[0],
        "temperature": temperature,
        "power": watts[0],
        "power_limit": watts[2] if watts[1] == "/" else "",
        "memory_used": used if slash and memory != "N/A" else "",
        "memory_total": total if slash and memory != "N/A" else "",
    }
    return Reading(**convert(cells, _UNITS))  # type: ignore[arg-type]


def _processes(block: Block) -> dict[int, list[Process]]:
    found: dict[int, list[Process]] = {}
    for row in block:
        words = row[0].split()
        if words[:2] == ["no", "process"]:
            continue
        if len(words) < 4 or not (words[0] + words[1]).isdecimal():
            raise ProbeError(f"a row of processes is {row[0][:100]!r}")
        found.setdefault(int(words[0]), []).append(Process(int(words[1]), quantity("memory_used", words[-1], "MiB")))
    return found
