"""From the text that a vendor's tool printed to readings, by what ``vendor.toml`` says of it.

Whatever the text holds, the answer is readings or a ``ProbeError`` that names the vendor and shows the text.
"""

from __future__ import annotations

import csv
import importlib.util
import json
import re
import shlex
import sys
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING
from typing import Any

import msgspec

from pytest_flagperf.devices.reading import FIELDS
from pytest_flagperf.devices.reading import UNITS
from pytest_flagperf.devices.reading import Process
from pytest_flagperf.devices.reading import Reading
from pytest_flagperf.devices.reading import checked
from pytest_flagperf.devices.reading import convert
from pytest_flagperf.devices.reading import is_unknown
from pytest_flagperf.devices.reading import quantity
from pytest_flagperf.devices.reading import whole
from pytest_flagperf.errors import ConfigurationError
from pytest_flagperf.errors import ProbeError


if TYPE_CHECKING:
    from pytest_flagperf.devices.vendor import Layout
    from pytest_flagperf.devices.vendor import Output
    from pytest_flagperf.devices.vendor import Vendor


# A host of 16 devices prints about a megabyte at its most talkative.
MOST_BYTES = 4 * 2**20
_SHOWN = 800
_LONGEST_ROW = 10_000


def parse(vendor: Vendor, name: str, printed: bytes | str) -> list[Reading]:
    """The devices that ``printed``, the output called ``name``, tells of.

    Raises ``ProbeError`` that names the vendor and shows the text where it is empty, cut off, not this output, or says
    what is not possible.
    """
    text = printed.decode("utf-8", errors="replace") if isinstance(printed, bytes) else printed
    output = vendor.output[name]
    try:
        if len(text) > MOST_BYTES:
            raise ProbeError(f"it printed more than {MOST_BYTES >> 20} MiB")
        if not text.strip():
            raise ProbeError("it printed nothing")
        readings = checked(_reader(vendor, output)(text))
        if not readings and not _only_processes(vendor, name):
            raise ProbeError("no device is in it")
        return readings
    except ProbeError as error:
        problem = _short(str(error))
        raise ProbeError(f"{vendor.name}: the output {name} cannot be understood: {problem}{shown(text)}") from None
    except (ArithmeticError, LookupError, ValueError, TypeError, AttributeError, RecursionError, csv.Error) as error:
        # A parser stumbled over what its author did not think of: the text says more than its traceback.
        problem = _short(f"{type(error).__name__}: {error}")
        raise ProbeError(f"{vendor.name}: the output {name} cannot be understood: {problem}{shown(text)}") from error


def _only_processes(vendor: Vendor, name: str) -> bool:
    """Whether an output is a list of processes alone: an idle host has an empty one."""
    used = {probe.output for probe in vendor.probe}
    return name not in used and any(probe.processes_output == name for probe in vendor.probe)


def _short(problem: str) -> str:
    # A problem may quote a cell, and a cell may be as long as the text.
    return problem if len(problem) <= _SHOWN else f"{problem[:_SHOWN]}…"


def shown(text: str) -> str:
    """The beginning of a tool's text for a message, safe for a terminal, or that there was none."""
    if not text.strip():
        return ""
    start = "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text[:_SHOWN]).strip()
    more = f"\n… {len(text) - _SHOWN:,} characters more" if len(text) > _SHOWN else ""
    return "\nit printed:\n" + "\n".join(f"  {line}" for line in start.splitlines()) + more


def _reader(vendor: Vendor, output: Output) -> Callable[[str], Iterable[Reading]]:
    if output.parser:
        found: Callable[[str], Iterable[Reading]] = module_attribute(vendor.directory, output.parser)
        return found
    read = {"csv": _csv, "words": _words, "json": _json, "pattern": _pattern}[output.format]
    return lambda text: read(text, output, vendor.unknown)


def module_attribute(directory: Path, text: str) -> Any:
    """What ``file.py:name`` beside a vendor file names. Raises ``ConfigurationError`` where it cannot be had."""
    file, _, name = text.partition(":")
    path = directory / file
    try:
        return getattr(_module(path), name)
    except AttributeError:
        raise ConfigurationError(f"{path} has no {name}") from None


def _module(path: Path) -> ModuleType:
    name = f"pytest_flagperf_vendor.{path.parent.name}.{path.stem}"
    loaded = sys.modules.get(name)
    if loaded is not None and loaded.__file__ == str(path):
        return loaded
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ConfigurationError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (ImportError, SyntaxError) as error:
        del sys.modules[name]
        raise ConfigurationError(f"{path} cannot be loaded: {error}") from error
    return module


def _reading(cells: Mapping[str, str], output: Output, unknown: Sequence[str], number: int) -> Reading:
    values = convert(dict(cells), output.units, unknown=unknown)
    # Tools that print no index list their devices in its order.
    values.setdefault("index", number)
    return Reading(**values)  # type: ignore[arg-type]


def _csv(text: str, output: Output, unknown: Sequence[str]) -> list[Reading]:
    rows = [[cell.strip() for cell in row] for row in csv.reader(whole(text).splitlines()) if row]
    header, units = list(output.columns), dict(output.units)
    if not header:
        wanted = {name for _, names in _alternatives(output) for name in names}
        while rows and not wanted & {_unitless(cell) for cell in rows[0]}:
            rows.pop(0)  # a warning of the driver before the table
        if not rows:
            raise ProbeError(f"no row has the columns {', '.join(sorted(wanted))}")
        header = rows.pop(0)
    names = [_unitless(cell) for cell in header]
    places: dict[str, int] = {}
    for field, choices in _alternatives(output):
        place = next((names.index(choice) for choice in choices if choice in names), None)
        if place is not None:
            places[field] = place
            inside = re.search(r"\[([^\]]+)\]$", header[place])
            if inside:
                units[field] = inside[1]
    output = msgspec.structs.replace(output, units=units)
    found = []
    for number, row in enumerate(rows):
        if len(row) != len(header):
            raise ProbeError(f"row {number + 1} has {len(row)} columns of {len(header)}")
        found.append(_reading({field: row[place] for field, place in places.items()}, output, unknown, number))
    return found


def _unitless(cell: str) -> str:
    return re.sub(r"\s*\[[^\]]*\]$", "", cell).strip()


def _alternatives(output: Output) -> list[tuple[str, list[str]]]:
    return [(f, [str(one) for one in (w if isinstance(w, list) else [w])]) for f, w in output.fields.items()]


def _words(text: str, output: Output, unknown: Sequence[str]) -> list[Reading]:
    found = []
    for number, line in enumerate(line for line in whole(text).splitlines() if line.strip()):
        # shlex takes quadratic time for a long word.
        if len(line) > _LONGEST_ROW:
            raise ProbeError(f"row {number + 1} has {len(line):,} characters")
        try:
            cells = shlex.split(line)
        except ValueError as error:
            raise ProbeError(f"row {number + 1}: {error}") from None
        most = max(int(str(place)) for place in output.fields.values())
        if len(cells) < most:
            raise ProbeError(f"row {number + 1} has {len(cells)} fields, {most} are needed")
        places = {field: int(str(place)) - 1 for field, place in output.fields.items()}
        found.append(_reading({field: cells[place] for field, place in places.items()}, output, unknown, number))
    return found


def _json(text: str, output: Output, unknown: Sequence[str]) -> list[Reading]:
    # Drivers warn before and after the document, some of them in brackets: [WARNING] ...
    start = re.search(r"^[ \t]*[\[{](?=\s|[\"\[{}\]])", text, re.MULTILINE)
    if start is None:
        raise ProbeError("there is no JSON in it")
    try:
        document, _ = json.JSONDecoder().raw_decode(text, start.end() - 1)
    except json.JSONDecodeError as error:
        raise ProbeError(f"it is no whole JSON document: {error}") from None
    devices = None
    for path in output.devices or [""]:
        devices = _follow(document, path)
        if isinstance(devices, (list, dict)) and devices:
            break
    rows: list[tuple[str, Any]] = []
    if isinstance(devices, list):
        rows = [(str(number), one) for number, one in enumerate(devices)]
    elif isinstance(devices, dict):
        rows = [(key, one) for key, one in devices.items() if re.search(output.key or ".", key)]
    found = []
    for number, (key, device) in enumerate(rows):
        if not isinstance(device, dict):
            raise ProbeError(f"device {key} is {type(device).__name__}, not a table")
        cells = {}
        for field, choices in _alternatives(output):
            told = [cell for cell in (_cell(device, key, choice, output.key) for choice in choices) if cell is not None]
            if told:
                cells[field] = next((cell for cell in told if not is_unknown(cell, unknown)), told[0])
        found.append(_reading(cells, output, unknown, number))
    return found


def _cell(device: dict[str, Any], key: str, path: str, pattern: str) -> str | None:
    if path == "@key":
        match = re.search(pattern or "(.*)", key)
        return match[1] if match else None
    value = _follow(device, path)
    if isinstance(value, dict) and "value" in value:
        return f"{value['value']} {value.get('unit') or ''}".strip()
    if value is None or isinstance(value, (dict, list, bool)):
        return None
    # rocm-smi writes units into its keys, "Power (W)", and clocks in parentheses, "(300Mhz)".
    cell, unit = re.sub(r"^\(([^()]+)\)$", r"\1", str(value)), re.search(r"\(([^()]+)\)$", path)
    return f"{cell} {unit[1]}" if unit and unit[1] in UNITS and re.fullmatch(r"[-+\d.]+", cell) else cell


def _follow(document: Any, path: str) -> Any:
    """The value at a path: names between dots, a name itself first where it has dots in it."""
    if not path:
        return document
    if isinstance(document, dict):
        stripped = {str(name).strip(): value for name, value in document.items()}
        if path in stripped:
            return stripped[path]
        name, _, rest = path.partition(".")
        return _follow(stripped[name], rest) if rest and name in stripped else None
    return None


def _pattern(text: str, output: Output, unknown: Sequence[str]) -> list[Reading]:
    text = whole(text)
    begun = 0
    for layout in output.layouts:
        matches = list(re.finditer(layout.device, text, re.MULTILINE))
        starts = sum(1 for _ in re.finditer(layout.start, text, re.MULTILINE))
        if matches and starts <= len(matches):
            return _matched(text, layout, matches, unknown)
        if matches:
            raise ProbeError(f"{starts} devices begin in it, {len(matches)} are whole")
        begun = max(begun, starts)
    raise ProbeError(f"{begun} devices begin in it, none is whole" if begun else "no device is in it")


def _matched(text: str, layout: Layout, matches: Sequence[re.Match[str]], unknown: Sequence[str]) -> list[Reading]:
    found = []
    processes = _processes(text, layout)
    for number, match in enumerate(matches):
        groups = {name: value for name, value in match.groupdict().items() if value is not None}
        cells = {
            name: value + groups.get(f"{name}_unit", "") if not is_unknown(value, unknown) else value
            for name, value in groups.items()
            if name in FIELDS
        }
        values = convert(cells, layout.units, unknown=unknown)
        index = values.setdefault("index", number)
        if processes is not None:
            values["processes"] = tuple(processes.get(int(str(index)), ()))
        found.append(Reading(**values))  # type: ignore[arg-type]
    return found


# What closes a table: where the last row of processes has none after it, rows are missing. A text without any such line
# ends where it ends.
_RULE = re.compile(r"[^\n]*\n[ |+]*[-=]{5}[-=+| ]*\n")
_ANY_RULE = re.compile(r"^[ |+]*[-=]{5}[-=+| ]*$", re.MULTILINE)


def _processes(text: str, layout: Layout) -> dict[int, list[Process]] | None:
    """The processes by device; ``None`` where their table is not there, or is not closed by a rule as the others are.

    A match without an index says that there is no process at all, a row with an unknown pid that its device has none.
    """
    matches = list(re.finditer(layout.process, text, re.MULTILINE)) if layout.process else []
    rows = [groups for groups in (match.groupdict() for match in matches) if groups.get("index")]
    if layout.process and not _ANY_RULE.search(text):
        pass  # no tables in it: rows are all there are, or there are none
    elif not matches or (rows and not _RULE.match(text, matches[-1].end())):
        return None
    found: dict[int, list[Process]] = {}
    for row in rows:
        if not is_unknown(row["pid"]):
            found.setdefault(int(row["index"]), []).append(Process(int(row["pid"]), _process_memory(row)))
    return found


def _process_memory(row: Mapping[str, str | None]) -> float | None:
    return quantity("memory_used", row.get("memory") or "", row.get("memory_unit") or "MiB")
