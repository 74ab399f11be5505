"""``ppu-smi --query-compute-apps``: the processes, each with the uuid of its device."""

from __future__ import annotations

import csv

from pytest_flagperf.devices.reading import Process
from pytest_flagperf.devices.reading import Reading
from pytest_flagperf.devices.reading import quantity
from pytest_flagperf.devices.reading import whole
from pytest_flagperf.errors import ProbeError


_HEADING = ["uuid", "pid", "used_ppu_memory [MiB]"]


def compute_apps(text: str) -> list[Reading]:
    """The devices that have processes, by uuid; no device number is printed, so ``index`` only counts them."""
    heading, *rows = [[cell.strip() for cell in row] for row in csv.reader(whole(text).splitlines()) if row]
    if heading != _HEADING:
        raise ProbeError(f"its heading is not {', '.join(_HEADING)}")
    found: dict[str, list[Process]] = {}
    for number, row in enumerate(rows, 1):
        if len(row) != len(heading) or not row[1].isdecimal():
            raise ProbeError(f"row {number} is not a uuid, a process number and an amount of memory")
        found.setdefault(row[0], []).append(Process(int(row[1]), quantity("memory_used", row[2])))
    return [Reading(at, uuid=uuid, processes=tuple(found[uuid])) for at, uuid in enumerate(found)]
