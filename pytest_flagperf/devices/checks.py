"""What the schema of a vendor file cannot say: figures above zero, names that exist, patterns that compile."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from pytest_flagperf.devices import reading
from pytest_flagperf.devices.schema import Chip
from pytest_flagperf.devices.schema import Container
from pytest_flagperf.devices.schema import Detection
from pytest_flagperf.devices.schema import FrameworkSupport
from pytest_flagperf.devices.schema import Output
from pytest_flagperf.devices.schema import Probe
from pytest_flagperf.devices.schema import Vendor
from pytest_flagperf.errors import ConfigurationError
from pytest_flagperf.launch import confinement
from pytest_flagperf.words import FRAMEWORKS
from pytest_flagperf.words import PRECISIONS


def check(path: Path, vendor: Vendor) -> None:
    """Raise ``ConfigurationError`` that names the file and the key, and says what there could have been."""
    for precision in vendor.precisions:
        _known(path, "precisions", precision, PRECISIONS)
    for framework, support in vendor.frameworks.items():
        _known(path, "frameworks", framework, FRAMEWORKS)
        if support.device.casefold() == "cpu" and not vendor.shared:
            raise ConfigurationError(
                f"{path}: frameworks.{framework}.device is {support.device!r}: the workload would run on the host's "
                "processor and be called this vendor's. Only a vendor with shared = true is the processor"
            )
        _check_environment(path, f"frameworks.{framework}.environment", support.environment)
    _check_environment(path, "environment", vendor.environment)
    _check_environment(path, "container.environment", vendor.container.environment)
    for name, chip in vendor.chips.items():
        _check_chip(path, f"chips.{name}", chip)
    for number, probe in enumerate(vendor.probe, 1):
        _check_probe(path, f"probe {number}", probe, vendor)
    for name, output in vendor.output.items():
        _check_output(path, f"output.{name}", output)
    confinement.check(vendor.container, str(path))


# With these a vendor file would replace code, or be another precision than was asked for.
_CODE = re.compile(r"PYTHON.*|PYTEST_.*|FLAGPERF_.*|LD_(PRELOAD|AUDIT)|PATH|HOME|BASH_ENV|ENV|IFS")
_TF32 = re.compile(r".*(TF32|HF32).*")


def _check_environment(path: Path, key: str, environment: dict[str, str]) -> None:
    for name, value in environment.items():
        if _CODE.fullmatch(name):
            raise ConfigurationError(f"{path}: {key}.{name}: a vendor file sets what tunes its devices, not what runs")
        if _TF32.fullmatch(name) and value not in ("", "0", "false", "off"):
            raise ConfigurationError(
                f"{path}: {key}.{name} = {value!r} would make fp32 another precision than it says: ask for tf32 instead"
            )


_TABLES: dict[str, type[msgspec.Struct]] = {
    "chips": Chip,
    "frameworks": FrameworkSupport,
    "output": Output,
    "probe": Probe,
    "detection": Detection,
    "container": Container,
}


def explained(document: Any, error: msgspec.ValidationError) -> str:
    """The error with the entry it is about, and what there could have been: the schema's own says ``$.chips[...]``."""
    for table, kind in _TABLES.items() if isinstance(document, dict) else ():
        found = document.get(table, {})
        for name, entry in _entries(found, alone=table in ("detection", "container")):
            try:
                msgspec.convert(entry, type=kind)
            except msgspec.ValidationError as inner:
                key = table + (f" {name}" if isinstance(name, int) else f".{name}" if name else "")
                return f"{key}: {_with_key(str(inner), entry)}{_fields(kind, inner)}"
    return f"{error}{_fields(Vendor, error)}"


def _with_key(text: str, entry: Any) -> str:
    """The schema's error with the key of a table of figures, for which it says ``$.peak[...]``."""
    match = re.search(r"Expected `float`.*`\$\.(\w+)\[\.\.\.\]`", text)
    figures = entry.get(match[1]) if match and isinstance(entry, dict) else None
    wrong = [k for k, v in figures.items() if not isinstance(v, (int, float))] if isinstance(figures, dict) else []
    return text.replace("[...]", f".{wrong[0]}") if wrong else text


def _entries(found: Any, *, alone: bool) -> Iterable[tuple[str | int, Any]]:
    if alone:
        return [("", found)]
    if isinstance(found, dict):
        return list(found.items())
    return list(enumerate(found, 1)) if isinstance(found, list) else []


def _fields(kind: type[msgspec.Struct], error: msgspec.ValidationError) -> str:
    text = str(error)
    if "unknown field" not in text or " - at " in text:
        return ""
    return f"; known: {', '.join(name for name in kind.__struct_fields__ if name != 'directory')}"


def _check_chip(path: Path, key: str, chip: Chip) -> None:
    peaks = {"peak": chip.peak, "matrix": chip.matrix}
    figures: dict[str, float | None] = {
        f"{name}.{p}": peak for name, table in peaks.items() for p, peak in table.items()
    }
    for name in ("memory", "memory_bandwidth", "tdp", "dies_per_card"):
        figures[name] = getattr(chip, name)
    figures["link.bandwidth"] = chip.link.bandwidth if chip.link else None
    for name, value in figures.items():
        if value is not None and not 0 < value < math.inf:
            raise ConfigurationError(f"{path}: {key}.{name} is {value:g}: it is above zero, or absent where not known")
    for name, table in peaks.items():
        for precision in table:
            _known(path, f"{key}.{name}", precision, PRECISIONS)
    given = {name for name, value in figures.items() if value is not None}
    for what, listed in (("sources", chip.sources), ("unverified", chip.unverified)):
        for name in listed:
            if name not in given:
                raise ConfigurationError(f"{path}: {key}.{what}: {name} is no figure given for this chip")
    if not chip.source.strip():
        raise ConfigurationError(f"{path}: {key}.source is empty: every figure has a source")


def _check_probe(path: Path, key: str, probe: Probe, vendor: Vendor) -> None:
    if bool(probe.library) == bool(probe.command):
        raise ConfigurationError(f"{path}: {key} has either a library or a command")
    for what, command, output in (
        ("output", probe.command, probe.output),
        ("processes_output", probe.processes, probe.processes_output),
        ("identity_output", probe.identity, probe.identity_output),
    ):
        if command and not output:
            raise ConfigurationError(f"{path}: {key}.{what} is missing: which [output.…] its text is")
        if command and output not in vendor.output:
            known = ", ".join(vendor.output) or "none"
            raise ConfigurationError(f"{path}: {key}.{what}: there is no [output.{output}]; there is {known}")
    if not 0 < probe.timeout < math.inf:
        raise ConfigurationError(f"{path}: {key}.timeout is {probe.timeout:g}: a time above zero, in seconds")
    if probe.library:
        _check_module(path, f"{key}.library", probe.library)


def _check_module(path: Path, key: str, text: str) -> None:
    file, _, name = text.partition(":")
    if not re.fullmatch(r"[A-Za-z_]\w*\.py", file) or not name.isidentifier():
        raise ConfigurationError(f"{path}: {key} = {text!r} is not written file.py:name")
    if not (path.parent / file).is_file():
        raise ConfigurationError(f"{path}: {key}: there is no {path.parent / file}")


def _check_output(path: Path, key: str, output: Output) -> None:
    if bool(output.parser) == bool(output.format):
        raise ConfigurationError(f"{path}: {key} has either a parser or a format")
    if output.parser:
        _check_module(path, f"{key}.parser", output.parser)
    for field in output.fields:
        _known(path, f"{key}.fields", field, reading.FIELDS)
    for units in (output.units, *(layout.units for layout in output.layouts)):
        for field, unit in units.items():
            _known(path, f"{key}.units", field, reading.FIGURES)
            _known(path, f"{key}.units.{field}", unit, tuple(reading.UNITS))
    if (output.format == "pattern") != bool(output.layouts):
        raise ConfigurationError(f"{path}: {key}: layouts belong to format pattern, which needs one at least")
    for number, layout in enumerate(output.layouts, 1):
        for what in ("device", "start", "process"):
            known = reading.PROCESS_FIELDS if what == "process" else (*reading.FIELDS, *reading.UNIT_GROUPS)
            _check_pattern(path, f"{key}.layouts {number}.{what}", getattr(layout, what), known)
        if not layout.start:
            raise ConfigurationError(
                f"{path}: {key}.layouts {number}.start is missing: what every device begins with. Without it a row "
                "that is cut off would be one device less, and nobody would notice"
            )


def _check_pattern(path: Path, key: str, pattern: str, known: Iterable[str]) -> None:
    try:
        groups = re.compile(pattern).groupindex
    except re.error as error:
        raise ConfigurationError(f"{path}: {key} is not a regular expression: {error}") from error
    for name in groups:
        _known(path, key, name, tuple(known))


def _known(path: Path, key: str, word: str, known: tuple[str, ...]) -> None:
    if word not in known:
        raise ConfigurationError(f"{path}: {key}: unknown {word!r}; known: {', '.join(known)}")
