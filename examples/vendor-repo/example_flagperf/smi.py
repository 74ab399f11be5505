"""``example-smi``: prints the state of the devices as CSV, as the management program of a driver does.

The example's device is the processor of this host, and every figure is measured on it. Your vendor has a program of its
own, and then this file is not needed.
"""

from __future__ import annotations

import csv
import sys

import psutil


FIELDS = (
    "index",
    "name",
    "utilization [%]",
    "memory.used [MiB]",
    "memory.total [MiB]",
    "temperature [C]",
    "clock [MHz]",
)


def main() -> None:
    """Print a header and one row a device; what cannot be measured here is N/A."""
    memory = psutil.virtual_memory()
    clock = psutil.cpu_freq()
    row = (
        0,
        "Example E1",
        psutil.cpu_percent(interval=0.05),
        (memory.total - memory.available) // 2**20,
        memory.total // 2**20,
        _temperature(),
        round(clock.current) if clock and clock.current else "N/A",
    )
    csv.writer(sys.stdout, lineterminator="\n").writerows((FIELDS, row))


def _temperature() -> float | str:
    # Only some systems have sensors, and psutil this function.
    sensors = getattr(psutil, "sensors_temperatures", dict)()
    found = [one.current for group in sensors.values() for one in group]
    return max(found) if found else "N/A"
