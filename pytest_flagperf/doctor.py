"""``flagperf devices`` and ``flagperf doctor``: what this host has, and why a case would or would not run on it."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import shutil
import sys
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import asdict
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
import tabulate

from pytest_flagperf import datasets
from pytest_flagperf import engines
from pytest_flagperf.case import FRAMEWORK_MODULES
from pytest_flagperf.devices import bounded
from pytest_flagperf.devices import lease
from pytest_flagperf.devices import monitor
from pytest_flagperf.devices import probe
from pytest_flagperf.devices import vendor as vendors
from pytest_flagperf.devices import visible
from pytest_flagperf.devices.reading import Process
from pytest_flagperf.devices.reading import Reading
from pytest_flagperf.devices.vendor import Vendor
from pytest_flagperf.errors import ConfigurationError
from pytest_flagperf.errors import DeviceUnavailable
from pytest_flagperf.errors import FlagPerfError
from pytest_flagperf.errors import ProbeError
from pytest_flagperf.reports.progress import printable


DISTRIBUTIONS = (
    "pytest",
    "pytest-xdist",
    "allure-pytest",
    "msgspec",
    "psutil",
    "nvidia-ml-py",
    "numpy",
    "mlcommons-loadgen",
)
_IMPORT_LIMIT = 120.0
_LOW_DISK = 5 * 2**30

_PRESENT = Path(__file__).resolve().parent / "worker" / "present.py"


@dataclass(frozen=True)
class Seen:
    """One vendor on this host: its devices, or why none was seen."""

    vendor: Vendor
    source: str = ""
    readings: tuple[Reading, ...] = ()
    processes: Mapping[int, tuple[Process, ...]] | None = None
    problem: str = ""

    @property
    def there(self) -> bool:
        """Whether this host has the vendor's devices."""
        return bool(self.readings)


def look(vendor: Vendor) -> Seen:
    """Ask the vendor's driver, else count device nodes."""
    try:
        prober = probe.prober(vendor)
    except ProbeError:
        readings = tuple(Reading(index) for index in range(vendor.count()))
        problem = "" if readings and vendor.shared else probe.looked_for(vendor)
        return Seen(vendor, "device nodes" if readings else "", readings, None, problem)
    readings = ()
    try:
        readings = tuple(prober.read())
        return Seen(vendor, prober.source, readings, prober.processes())
    except ProbeError as error:
        return Seen(vendor, prober.source, readings, problem=str(error))
    finally:
        prober.close()


def directories() -> list[Path]:
    """Where vendors are looked for outside pytest: those of installed packages, then the plugin's own."""
    return [*vendors.installed(), vendors.bundled()]


def chosen(name: str | None) -> list[Vendor]:
    """The vendor called ``name``, or all of them."""
    where = directories()
    if name is not None:
        return [vendors.find(name, where)]
    return [vendors.load(path) for path in vendors.names(where).values()]


# --- flagperf devices


def devices(name: str | None, *, as_json: bool) -> int:
    """Print the devices of this host. Returns 1 where there is none, or a driver that is there fails."""
    seen = [look(vendor) for vendor in chosen(name)]
    if as_json:
        print(json.dumps([device for one in seen for device in _documents(one)], indent=2))
    elif any(one.there for one in seen):
        print(_device_table([one for one in seen if one.there]))
    failed = [one for one in seen if one.problem and (one.source or name is not None) and not one.there]
    for one in failed:
        print(f"flagperf: {_text(_problem(one))}", file=sys.stderr)
    return 1 if failed or not any(one.there for one in seen) else 0


def _text(text: str) -> str:
    """Safe for a terminal, line by line."""
    return "\n".join(printable(line) for line in text.splitlines())


def _problem(one: Seen) -> str:
    # What a program said names its vendor already.
    if one.source:
        return one.problem
    return f"no device of {one.vendor.name} is on this host. Looked for: {one.problem}"


def _documents(one: Seen) -> list[dict[str, Any]]:
    documents = []
    for reading in one.readings:
        chip = one.vendor.chip(reading.name) if reading.name else None
        figures = {k: v for k, v in asdict(probe.without_processes(reading)).items() if v is not None}
        document = {"vendor": one.vendor.name, "chip": chip[0] if chip else None, "source": one.source, **figures}
        if one.processes is not None:
            document["processes"] = [
                {"pid": process.pid, "command": monitor.command(process.pid), "memory": process.memory}
                for process in one.processes.get(reading.index, ())
            ]
        documents.append(document)
    return documents


_COLUMNS = ("device", "name", "chip", "temperature", "power", "utilization", "memory", "processes", "lease")


def _device_table(seen: Sequence[Seen]) -> str:
    rows = []
    for one in seen:
        for reading in one.readings:
            chip = one.vendor.chip(reading.name) if reading.name else None
            listed = None if one.processes is None else one.processes.get(reading.index, ())
            cells = (
                f"{one.vendor.name} {reading.index}",
                reading.name or "",
                chip[0] if chip else "",
                _figure(reading.temperature, "{:.0f} °C"),
                _figure(reading.power, "{:.0f} W") + _figure(reading.power_limit, " / {:.0f} W"),
                _figure(reading.utilization, "{:.0%}"),
                _memory(reading),
                "" if listed is None else str(len(listed)),
                lease.held_by(one.vendor.name, reading.index),
            )
            rows.append([printable(cell) for cell in cells])
    used = [place for place in range(len(_COLUMNS)) if any(row[place] for row in rows)]
    shown = [[row[place] for place in used] for row in rows]
    return str(tabulate.tabulate(shown, headers=[_COLUMNS[place] for place in used], disable_numparse=True))


def _figure(value: float | None, shape: str) -> str:
    return "" if value is None else shape.format(value)


def _memory(reading: Reading) -> str:
    used, total = _figure(reading.memory_used, "{:.1f}"), _figure(reading.memory_total, "{:.1f} GiB")
    return f"{used or '?'} / {total}" if total else f"{used} GiB" if used else ""


# --- flagperf doctor


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's report. ``level`` is ``ok``, ``note`` or ``problem``."""

    level: str
    topic: str
    text: str


def doctor(name: str | None, *, as_json: bool, data_root: Path | None) -> int:
    """Print what is installed, detected, free and in the way. Returns 1 where something keeps cases from running."""
    findings = [*_versions(), *_vendors(name), *_engines(), *_host(data_root), *_datasets(data_root)]
    if as_json:
        print(json.dumps([asdict(one) for one in findings], indent=2))
    else:
        marks = {"ok": "ok", "note": "--", "problem": "!!"}
        rows = [(marks[one.level], one.topic, _text(one.text)) for one in findings]
        print(tabulate.tabulate(rows, tablefmt="plain", disable_numparse=True))
    return 1 if any(one.level == "problem" for one in findings) else 0


def _versions() -> list[Finding]:
    from pytest_flagperf import __version__

    found = [f"pytest-flagperf {__version__}", f"Python {platform.python_version()}"]
    for distribution in DISTRIBUTIONS:
        try:
            found.append(f"{distribution} {importlib.metadata.version(distribution)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return [Finding("ok", "installed", ", ".join(found))]


def _vendors(name: str | None) -> list[Finding]:
    found: list[Finding] = []
    seen = []
    for path in [vendors.find(name, directories()).directory / "vendor.toml"] if name else _files():
        try:
            seen.append(look(vendors.load(path)))
        except ConfigurationError as error:
            found.append(Finding("problem", "vendor file", str(error)))
    for one in seen:
        found += _vendor(one, wanted=name is not None)
    wanted = {name for name in [name] if name}
    if name is None:
        try:
            wanted = {vendors.detect(directories()).name}
            found.append(Finding("ok", "detected", f"{min(wanted)}: what pytest runs on without --vendor"))
        except ConfigurationError as error:
            found.append(Finding("problem", "detected", str(error)))
    # On what pytest would run on, and on every accelerator that is there.
    for one in seen:
        if one.there and (not one.vendor.shared or one.vendor.name in wanted or name is not None):
            found += _frameworks(one)
    return found


def _files() -> list[Path]:
    return list(vendors.names(directories()).values())


def _vendor(one: Seen, *, wanted: bool) -> list[Finding]:
    topic = f"vendor {one.vendor.name}"
    if not one.there:
        # A driver that is there and fails is a problem; hardware that nobody asked for and is not there is none.
        return [Finding("problem" if one.source or wanted else "note", topic, one.problem)]
    names = sorted({reading.name or "without a name" for reading in one.readings})
    count = len(one.readings)
    found = [Finding("ok", topic, f"{count} device{'s' if count > 1 else ''} ({', '.join(names)}), by {one.source}")]
    if one.problem:
        what = "who uses the devices cannot be told" if one.source != "device nodes" else "devices cannot be watched"
        found.append(Finding("problem", topic, f"{what}: {one.problem}"))
    found += _visible(one)
    unknown = [name for name in names if one.vendor.chips and one.vendor.chip(name) is None]
    if unknown:
        found.append(
            Finding("note", topic, f"no chip of the vendor file is called {', '.join(unknown)}: no peak, so no mfu")
        )
    found += [
        Finding("problem", topic, f"device {index}: pid {process.pid} {monitor.command(process.pid)} is on it")
        for index, listed in (one.processes or {}).items()
        for process in listed
    ]
    return found


def _visible(one: Seen) -> list[Finding]:
    """What the caller's visible-devices variables leave, where one is set."""
    names = [name for name in (one.vendor.visible_devices, *one.vendor.also_visible) if name in os.environ]
    if not names:
        return []
    topic = f"vendor {one.vendor.name}"
    told = " and ".join(f"{name}={os.environ[name]!r}" for name in names)
    try:
        left = visible.visible(one.vendor, one.readings)
    except DeviceUnavailable as error:
        return [Finding("problem", topic, str(error))]
    text = f"{told} leaves {len(left)} of {len(one.readings)}: {', '.join(map(str, left)) or 'none'}"
    return [Finding("note" if left else "problem", topic, text)]


def _frameworks(one: Seen) -> list[Finding]:
    found = []
    for framework, support in one.vendor.frameworks.items():
        topic = f"{framework} on {one.vendor.name}"
        if find_spec(FRAMEWORK_MODULES[framework]) is None:
            found.append(Finding("note", topic, "not installed for this Python; --python names another"))
            continue
        argv = [sys.executable, "-P", str(_PRESENT), framework, support.device, support.module]
        env = {**os.environ, **one.vendor.environment, **support.environment}
        try:
            printed = bounded.run(argv, timeout=_IMPORT_LIMIT, env=env).decode("utf-8", errors="replace")
            answer = json.loads(printed.splitlines()[-1])
        except (ProbeError, ValueError, IndexError) as error:
            found.append(Finding("problem", topic, f"it cannot use {support.device}: {error}"))
            continue
        text = f"{answer['version']}, sees {answer['devices']} of device {support.device!r}"
        level = "ok" if answer["devices"] else "problem"
        if level == "ok" and answer["devices"] != len(one.readings):
            level, text = "note", f"{text}, where {one.source} tells of {len(one.readings)}"
        found.append(Finding(level, topic, text))
    return found


def _engines() -> list[Finding]:
    """Which engines of inference this Python has for each framework, and what the others need."""
    found = []
    for framework, module in FRAMEWORK_MODULES.items():
        if find_spec(module) is None:
            continue
        topic = f"engines of {framework}"
        try:
            seen = engines.look(sys.executable, framework)
        except ConfigurationError as error:
            found.append(Finding("problem", topic, str(error)))
            continue
        usable = [f"{name} ({', '.join(one.precisions)})" for name, one in seen.items() if not one.missing]
        found.append(Finding("ok" if usable else "note", topic, "; ".join(usable) or "none can be used"))
        found += [Finding("note", topic, one.missing) for one in seen.values() if one.missing]
    return found


def _host(data_root: Path | None) -> list[Finding]:
    memory = psutil.virtual_memory()
    usable = len(os.sched_getaffinity(0))
    found = [
        Finding("ok", "processors", f"{usable} usable of {os.cpu_count()}, load {os.getloadavg()[0]:.1f}"),
        Finding("ok", "memory", f"{memory.available / 2**30:.1f} GiB available of {memory.total / 2**30:.1f} GiB"),
    ]
    governor = _governor()
    if governor is not None:
        steady = governor == {"performance"}
        text = ", ".join(sorted(governor)) + ("" if steady else ": clocks vary; 'performance' gives steadier figures")
        found.append(Finding("ok" if steady else "note", "clock governor", text))
    for topic, path in (("results", Path.cwd()), ("data root", data_root or datasets.default_data_root())):
        free = shutil.disk_usage(_existing(path)).free
        level = "note" if free < _LOW_DISK else "ok"
        found.append(Finding(level, f"disk for {topic}", f"{free / 2**30:.1f} GiB free in {path}"))
    try:
        where = lease.directory()
        found.append(Finding("ok", "leases", f"lock files are in {where}"))
    except FlagPerfError as error:
        found.append(Finding("problem", "leases", str(error)))
    return found


def _governor() -> set[str] | None:
    found = set()
    for path in Path("/sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq/scaling_governor"):
        try:
            found.add(path.read_text().strip())
        except OSError:
            continue
    return found or None


def _existing(path: Path) -> Path:
    return next(one for one in (path, *path.absolute().parents) if one.exists())


def _datasets(data_root: Path | None) -> list[Finding]:
    root = data_root or datasets.default_data_root()
    found = []
    for dataset in datasets.known().values():
        here = root / dataset.name
        text = f"in {here}" if here.exists() else "not there; `flagperf datasets` says how to get it"
        found.append(Finding("ok" if here.exists() else "note", f"dataset {dataset.name}", text))
    return found
