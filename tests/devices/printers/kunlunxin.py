"""What ``xpu-smi`` (XRE 5) and its predecessor ``xpu_smi`` (XRE 4) print."""

from __future__ import annotations

from collections.abc import Sequence

from pytest_flagperf.devices.reading import Reading
from tests.devices.printers import Layout
from tests.devices.printers import cell
from tests.devices.printers import mib
from tests.devices.printers import percent


_RULE = "+-------------------------------+----------------------+----------------------+"
_HEAD = """\
+-----------------------------------------------------------------------------+
| XPU-SMI               Driver Version: 5.0.21.26    XPU-RT Version: 5.0.21   |
|-------------------------------+----------------------+----------------------+
| XPU  Name        Persistence-M| Bus-Id        Disp.A | Volatile Uncorr. ECC |
| Fan  Temp  Perf  Pwr:Usage/Cap|         Memory-Usage | XPU-Util  Compute M. |
|                               |             L3-Usage |            SR-IOV M. |
|===============================+======================+======================|
"""
_PROCESSES = """\

+-----------------------------------------------------------------------------+
| Processes:                                                                  |
|  XPU   XI   CI        PID   Type   Process name                  XPU Memory |
|        ID   ID                                                   Usage      |
|=============================================================================|
"""
_END = "+-----------------------------------------------------------------------------+\n"


def machine(devices: Sequence[Reading]) -> str:
    """``xpu-smi -m``: 32 columns a device, the name in quotes."""
    text = ""
    for one in devices:
        memory = f"{mib(one.memory_used, '{:.0f}')} {mib(one.memory_total, '{:.0f}')}"
        clocks = " ".join(6 * [cell(one.clock)])
        text += (
            f"{one.bus_id or 'N/A'} {one.index} {one.index} {one.serial or 'N/A'} {cell(one.temperature)} 0 0 0 "
            f"{cell(one.power)} {clocks} 2 96 {memory} {percent(one.utilization, '{:.0f}')} 1.0:2.6:1.39.1.7 "
        )
        text += f'"{one.name}"' if one.name else "N/A"
        text += " 0" * 10 + "\n"
    return text


def table(devices: Sequence[Reading]) -> str:
    """``xpu-smi``, with the table of processes."""
    text = _HEAD
    for one in devices:
        limits = f"{cell(one.power, '{:.0f}W'):>7} / {cell(one.power_limit, '{:.0f}W')}"
        text += (
            f"|{one.index:>4}  {one.name or 'N/A':<19}N/A   | {one.bus_id or 'N/A':<16} N/A |"
            f"{cell(one.ecc_errors):>21} |\n"
            f"| {percent(one.fan):<4} {cell(one.temperature, '{:.0f}C'):>4}  N/A {limits} |"
            f"{mib(one.memory_used):>10} /{mib(one.memory_total):>9} |{percent(one.utilization):>8}      Default |\n"
            f"|                               |      0MiB /    92MiB |             Disabled |\n{_RULE}\n"
        )
    text += _PROCESSES
    rows = [(one.index, process) for one in devices for process in one.processes or ()]
    for index, process in rows:
        text += f"|{index:>5}  N/A  N/A{process.pid:>11}      C   {'python3':<30}{mib(process.memory):>11} |\n"
    if not rows:
        text += f"|{'  No running processes found':<77}|\n"
    return text + _END


def query(devices: Sequence[Reading]) -> str:
    """``xpu-smi -q``."""
    text = (
        "==============XPUSMI LOG==============\n\n"
        f"{'Driver Version':<42}: 5.0.21.26\n{'XPU-RT Version':<42}: 10.2\n\n{'Attached XPUs':<42}: {len(devices)}\n"
    )
    for one in devices:
        text += f"XPU {one.bus_id or 'N/A'}\n"
        for depth, key, value in (
            (1, "Product Name", one.name or "N/A"),
            (1, "Product Brand", "KUNLUNXIN"),
            (1, "Serial Number", one.serial or "N/A"),
            (1, "XPU UUID", one.uuid or "N/A"),
            (1, "Minor Number", one.index),
            (1, "Firmware Version", None),
            (2, "PBL Version", "1.0"),
            (1, "PCI", None),
            (2, "Bus Id", one.bus_id or "N/A"),
            (2, "XPU Link Info", None),
            (3, "PCIe Generation", None),
            (4, "Max", 4),
            (4, "Current", 3),
            (3, "Link Width", None),
            (4, "Max", "16x"),
            (4, "Current", "16x"),
            (1, "Memory Usage", None),
            (2, "Total", mib(one.memory_total, "{:.0f} MiB")),
            (2, "Reserved", "0 MiB"),
            (2, "Used", mib(one.memory_used, "{:.0f} MiB")),
            (1, "L3 Usage", None),
            (2, "Total", "95 MiB"),
            (2, "Used", "0 MiB"),
            (1, "Utilization", None),
            (2, "Xpu", percent(one.utilization, "{:.0f} %")),
            (1, "ECC Errors", None),
            (2, "Volatile", None),
            (3, "DRAM Correctable", 0),
            (3, "DRAM Uncorrectable", cell(one.ecc_errors)),
            (2, "Aggregate", None),
            (3, "DRAM Correctable", 0),
            (3, "DRAM Uncorrectable", 7),
            (1, "Temperature", None),
            (2, "XPU Current Temp", cell(one.temperature, "{:.0f} C")),
            (1, "Power Readings", None),
            (2, "Enforced Power Limit", cell(one.power_limit, "{:.2f} W")),
            (2, "Power Draw", cell(one.power, "{:.2f} W")),
            (1, "Clocks", None),
            (2, "Cluster", cell(one.clock, "{:.0f} MHz")),
            (2, "CDNN", "1450 MHz"),
            (1, "Processes", "None"),
        ):
            line = "    " * depth + key
            text += f"{line}\n" if value is None else f"{line:<42}: {value}\n"
    return text


def old(devices: Sequence[Reading]) -> str:
    """``xpu_smi`` of XRE 4: what it calls MB are MiB."""
    rule = "-" * 91 + "\n"
    text = "Runtime Version: 4.31\nDriver Version: 4.0\n  DEVICES\n" + rule
    text += "| DevID |   PCI Addr   | Model |   SN   |    INODE   | UseRate |    L3     |    Memory    |\n" + rule
    for one in devices:
        memory = f"{mib(one.memory_used, '{:.0f}')} / {mib(one.memory_total, '{:.0f}')} MB"
        text += (
            f"|{one.index:>6} | {one.bus_id or 'N/A':<12} | {one.name or 'N/A':<5} | {one.serial or 'N/A'} |"
            f" /dev/xpu{one.index}  | {percent(one.utilization, '{:>5.0f} %'):>7} | 0 / 63 MB | {memory} |\n"
        )
    text += rule + "  VIDEO\n" + "-" * 83 + "\n| DevID | Model |         DEC         |\n" + "-" * 83 + "\n"
    for one in devices:
        text += f"|{one.index:>6} |  R300 | 0 %, 0 fps, 800 MHz |\n"
    text += "-" * 83 + "\n  PROCESSES\n" + "-" * 49 + "\n| DevID | PID | Streams | L3 | Memory | Command |\n"
    return text + "-" * 49 + "\n" + "-" * 49 + "\n"


_TABLE = {"index", "name", "bus_id", "ecc_errors", "fan", "temperature", "power", "power_limit"}
_USE = {"memory_used", "memory_total", "utilization"}

LAYOUTS = {
    "machine": Layout(
        "machine", machine, frozenset({"index", "name", "bus_id", "serial", "temperature", "power", "clock"} | _USE)
    ),
    "table": Layout("table", table, frozenset(_TABLE | _USE | {"processes"})),
    "query": Layout("query", query, frozenset((_TABLE - {"fan"}) | _USE | {"serial", "uuid", "clock"})),
    "old": Layout("old", old, frozenset({"index", "name", "bus_id", "serial"} | _USE)),
}
COMMANDS = {
    ("xpu-smi", "-m"): "machine",
    ("xpu-smi",): "table",
    ("xpu_smi", "-m"): "machine",
    ("xpu_smi",): "table",
}
