"""``npu-smi info``: a device is a chip, in two rows between rules; which columns there are depends on the version.

20.2 has neither huge pages nor HBM, 21 to 25 have one or both, 25 on hosts with two chips a package (A3) has a column
Phy-ID, and the widths change with every one of them: the headings tell what is what, no position does.
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

# What it calls MB are MiB: 65536 of a device of 64 GiB.
_UNITS = {"power": "W", "temperature": "C", "utilization": "%", "memory_used": "MiB", "memory_total": "MiB"}
_NO_PROCESS = re.compile(r"No running processes found in NPU (\d+)")


def info(text: str) -> list[Reading]:
    """The chips in the order that the visible-devices variable counts them in, with their processes where listed."""
    found: list[tuple[tuple[str, str], Reading]] = []
    processes: dict[str, list[tuple[str, Process]]] = {}
    heading: Sequence[str] = ()
    listing = False
    parts = blocks(text)
    for number, block in enumerate(parts):
        if block[:1] and len(block[0]) == 4 and block[0][1] == "Process id":
            listing = True
        elif block[:1] and len(block[0]) == 3 and block[0][0].startswith("NPU") and len(block) == 2:
            heading = block[1]
        elif listing and number < len(parts) - 1:
            _add_processes(block, processes)
        elif heading and block and not listing:
            found.append(_device(block, heading, len(found)))
    if not heading:
        raise ProbeError("there is no table of devices in it")
    return [_with_processes(one, *place, processes) for place, one in found]


def _device(block: Block, heading: Sequence[str], number: int) -> tuple[tuple[str, str], Reading]:
    if len(block) != 2 or any(len(row) != 3 for row in block):
        raise ProbeError(f"device {number} is not two rows of three cells between rules")
    (card, health, state), (chip, bus, use) = block
    npu, _, name = card.partition(" ")
    chip, *logic = chip.split()
    # Power, temperature, and the huge pages that no reading has.
    power, temperature, *_ = [*state.split(), "", ""]
    # 20701/ 65536 has no blank before the slash.
    utilization, *amounts = use.replace("/", " / ").split()
    if len(amounts) != 3 * heading[2].count("-Usage") or set(amounts[1::3]) != {"/"}:
        raise ProbeError(f"device {number}: {use[:100]!r} is not what {heading[2]!r} announces")
    # The last one is HBM where a device has it; its other memory is then the control processor's.
    used, _, total = amounts[-3:]
    cells = {
        "index": logic[0] if logic else str(number),
        "name": name,
        "health": health,
        "bus_id": bus,
        # A chip without a sensor prints 0.0, and 0 / 0 where it has no such memory.
        "power": power if power.strip("0.") else "",
        "temperature": temperature,
        "utilization": utilization,
        "memory_used": used if total != "0" else "",
        "memory_total": total if total != "0" else "",
    }
    return (npu, chip), Reading(**convert(cells, _UNITS))  # type: ignore[arg-type]


def _add_processes(block: Block, processes: dict[str, list[tuple[str, Process]]]) -> None:
    for row in block:
        none = _NO_PROCESS.fullmatch(row[0]) if len(row) == 1 else None
        if none:
            processes.setdefault(none[1], [])
            continue
        if len(row) != 4 or len(row[0].split()) != 2 or not row[1].isdecimal():
            raise ProbeError(f"a row of processes is {' | '.join(row)[:100]!r}")
        npu, chip = row[0].split()
        processes.setdefault(npu, []).append((chip, Process(int(row[1]), quantity("memory_used", row[3], "MiB"))))


def _with_processes(one: Reading, npu: str, chip: str, processes: dict[str, list[tuple[str, Process]]]) -> Reading:
    # An NPU that the list does not name may be one that was cut off it.
    if npu not in processes:
        return one
    return replace(one, processes=tuple(process for at, process in processes[npu] if at == chip))
