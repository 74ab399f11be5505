"""What ``nvidia-smi -q`` tells of every device, as text and, with ``-x``, as XML: names changed with the drivers."""

from __future__ import annotations

import re
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
from xml.etree import ElementTree

from pytest_flagperf.devices.reading import Process
from pytest_flagperf.devices.reading import Reading
from pytest_flagperf.devices.reading import convert
from pytest_flagperf.devices.reading import is_unknown
from pytest_flagperf.devices.reading import quantity
from pytest_flagperf.devices.reading import whole
from pytest_flagperf.errors import ProbeError


UNKNOWN = ("ERR!", "GPU requires reset")
_UNITS = {"ecc_errors": "count"}
# Lowers the clock of a device that has nothing to do: no throttle.
_IDLE = ("gpu_idle", "idle")

# Field → where it is; the first place that has a figure counts. Schemas v10 to v13.
_XML: dict[str, tuple[str, ...]] = {
    "name": ("product_name",),
    "uuid": ("uuid",),
    "serial": ("serial",),
    "bus_id": ("pci/pci_bus_id",),
    "temperature": ("temperature/gpu_temp",),
    "power": (
        "gpu_power_readings/power_draw",
        "gpu_power_readings/average_power_draw",
        "gpu_power_readings/instant_power_draw",
        "power_readings/power_draw",
    ),
    "power_limit": (
        "gpu_power_readings/current_power_limit",
        "power_readings/enforced_power_limit",
        "power_readings/power_limit",
    ),
    "memory_used": ("fb_memory_usage/used",),
    "memory_total": ("fb_memory_usage/total",),
    "utilization": ("utilization/gpu_util",),
    "memory_utilization": ("utilization/memory_util",),
    "fan": ("fan_speed",),
    "clock": ("clocks/sm_clock",),
    "memory_clock": ("clocks/mem_clock",),
}
_XML_ECC = (
    "sram_uncorrectable",
    "sram_uncorrectable_parity",
    "sram_uncorrectable_secded",
    "dram_uncorrectable",
)
_TEXT: dict[str, tuple[str, ...]] = {
    "name": ("Product Name",),
    "uuid": ("GPU UUID",),
    "serial": ("Serial Number",),
    "bus_id": ("PCI/Bus Id",),
    "temperature": ("Temperature/GPU Current Temp",),
    "power": (
        "GPU Power Readings/Power Draw",
        "GPU Power Readings/Average Power Draw",
        "GPU Power Readings/Instantaneous Power Draw",
        "Power Readings/Power Draw",
    ),
    "power_limit": (
        "GPU Power Readings/Current Power Limit",
        "Power Readings/Enforced Power Limit",
        "Power Readings/Power Limit",
    ),
    "memory_used": ("FB Memory Usage/Used",),
    "memory_total": ("FB Memory Usage/Total",),
    "utilization": ("Utilization/GPU", "Utilization/Gpu"),
    "memory_utilization": ("Utilization/Memory",),
    "fan": ("Fan Speed",),
    "clock": ("Clocks/SM",),
    "memory_clock": ("Clocks/Memory",),
}
_TEXT_ECC = (
    "SRAM Uncorrectable",
    "SRAM Uncorrectable Parity",
    "SRAM Uncorrectable SEC-DED",
    "DRAM Uncorrectable",
)


def xml(text: str) -> list[Reading]:
    """``-q -x``: every device in the order of ``nvidia-smi``, with its compute processes."""
    start = text.find("<?xml")
    if start < 0 or "<!ENTITY" in text:
        raise ProbeError("it is no XML document of nvidia-smi")
    try:
        root = ElementTree.fromstring(text[start:].strip())  # noqa: S314 (without entities it is harmless)
    except ElementTree.ParseError as error:
        raise ProbeError(f"it is no whole XML document: {error}") from None
    devices = root.findall("gpu")
    _check_count(root.findtext("attached_gpus", "").strip(), len(devices))
    return [_xml_device(number, device) for number, device in enumerate(devices)]


def _xml_device(number: int, device: ElementTree.Element) -> Reading:
    reasons: dict[str, str] = {}
    for group, prefix in (
        ("clocks_event_reasons", "clocks_event_reason_"),
        ("clocks_throttle_reasons", "clocks_throttle_reason_"),
    ):
        reasons |= {one.tag.removeprefix(prefix): one.text or "" for one in device.findall(f"{group}/*")}
    processes = None
    if device.find("processes") is not None:
        rows = device.findall("processes/process_info")
        processes = [tuple(row.findtext(name, "") for name in ("pid", "type", "used_memory")) for row in rows]
    counts = [device.findtext(f"ecc_errors/volatile/{name}", "") for name in _XML_ECC]
    return _reading(number, _XML, lambda path: device.findtext(path, ""), counts, reasons, processes)


def text(printed: str) -> list[Reading]:
    """``-q``: labels and values in the order of ``nvidia-smi``, indented by what they belong to."""
    count, devices = _sections(whole(printed))
    _check_count(count, len(devices))
    return [_text_device(number, device) for number, device in enumerate(devices)]


def _sections(printed: str) -> tuple[str, list[list[tuple[str, str]]]]:
    """The number of devices that it announces, and of each the path and value of every line below its heading."""
    count = ""
    devices: list[list[tuple[str, str]]] = []
    parents: list[tuple[int, str]] = []
    for line in printed.splitlines():
        if re.match(r"GPU [0-9A-Fa-f]+:", line):
            devices.append([])
            parents = []
            continue
        label, colon, value = line.partition(" : ")
        if not devices:
            count = value.strip() if label.strip() == "Attached GPUs" else count
            continue
        indent = len(label) - len(label.lstrip())
        while parents and parents[-1][0] >= indent:
            parents.pop()
        name = label.strip()
        if name:
            devices[-1].append(("/".join([*(parent for _, parent in parents), name]), value.strip() if colon else ""))
            # A process has its name and memory indented below its number.
            parents.append((indent, name))
    return count, devices


def _text_device(number: int, lines: list[tuple[str, str]]) -> Reading:
    values: dict[str, str] = {}
    for path, value in lines:
        values.setdefault(path, value)
    # It comes after everything that is read here.
    if "Processes" not in values:
        raise ProbeError(f"the lines of device {number} are cut off")
    # Drivers before 535 say throttle for event.
    reasons = {
        re.sub(r"\W+", "_", path.rpartition("/")[2].casefold()): value
        for path, value in values.items()
        if re.match(r"Clocks (?:Event|Throttle) Reasons/", path)
    }
    counts = [values.get(f"ECC Errors/Volatile/{name}", "") for name in _TEXT_ECC]
    return _reading(number, _TEXT, lambda path: values.get(path, ""), counts, reasons, _text_processes(lines))


def _text_processes(lines: list[tuple[str, str]]) -> list[tuple[str, ...]] | None:
    """Number, type and memory of each; ``None`` where nothing follows them, and so some may be cut off."""
    inside = [at for at, (path, _) in enumerate(lines) if path.startswith("Processes")]
    if inside[-1] + 1 == len(lines) and lines[-1] != ("Processes", "None"):
        return None
    found: list[list[str]] = []
    for path, value in (lines[at] for at in inside):
        name = path.rpartition("/")[2]
        if name == "Process ID":
            found.append([value, "", ""])
        elif found and name in ("Type", "Used GPU Memory"):
            found[-1][1 if name == "Type" else 2] = value
    return [tuple(one) for one in found]


def _check_count(announced: str, found: int) -> None:
    if not announced.isdecimal():
        raise ProbeError("the number of attached GPUs is not in it")
    if int(announced) != found:
        raise ProbeError(f"it announces {announced} devices, {found} are in it")


def _reading(
    number: int,
    places: Mapping[str, tuple[str, ...]],
    cell: Callable[[str], str],
    counts: Iterable[str],
    reasons: Mapping[str, str],
    processes: list[tuple[str, ...]] | None,
) -> Reading:
    """One device; neither form prints its number, both follow the order of ``nvidia-smi``."""
    cells = {}
    for field, paths in places.items():
        told = [value for value in (cell(path) for path in paths) if not is_unknown(value, UNKNOWN)]
        if told:
            cells[field] = told[0]
    values = convert(cells, _UNITS, unknown=UNKNOWN)
    errors = [quantity("ecc_errors", one, "count", unknown=UNKNOWN) for one in counts]
    known = [one for one in errors if one is not None]
    if known:
        values["ecc_errors"] = sum(known)
    told_reasons = {name: value.strip() for name, value in reasons.items()}
    if {"Active", "Not Active"} & set(told_reasons.values()):
        active = (name for name, value in told_reasons.items() if value == "Active" and name not in _IDLE)
        values["throttle"] = tuple(active)
    if processes is not None:
        values["processes"] = tuple(_process(*one) for one in processes if "C" in one[1])
    return Reading(number, **values)  # type: ignore[arg-type]


def _process(pid: str, kind: str, memory: str) -> Process:
    if not pid.strip().isdecimal():
        raise ProbeError(f"pid: {pid.strip()!r} is no process number")
    return Process(int(pid), quantity("memory_used", memory, unknown=UNKNOWN))
