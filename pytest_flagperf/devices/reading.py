"""What a driver says of a device at one moment, in one set of units.

Standard library only: the monitor and the parsers of vendors import it.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from dataclasses import fields
from dataclasses import replace

from pytest_flagperf.errors import ProbeError


@dataclass(frozen=True)
class Process:
    """A process that a driver sees on a device; ``memory`` in GiB, where it says."""

    pid: int
    memory: float | None = None


@dataclass(frozen=True)
class Reading:
    """One device at one moment. What the driver did not say is ``None``, never 0.

    ``temperature`` °C, ``power`` and ``power_limit`` W, ``energy`` J counted by the device since some start,
    ``memory_used`` and ``memory_total`` GiB, ``utilization``, ``memory_utilization`` and ``fan`` ratios, ``clock`` and
    ``memory_clock`` MHz, ``ecc_errors`` the count of uncorrected errors, ``throttle`` the reasons that lower the
    clock now (an empty tuple says that the driver told there is none). ``processes`` is ``None`` where the driver did
    not list them. ``index`` is the number that the visible-devices variable knows the device by.
    """

    index: int
    name: str | None = None
    uuid: str | None = None
    serial: str | None = None
    bus_id: str | None = None
    health: str | None = None
    temperature: float | None = None
    power: float | None = None
    power_limit: float | None = None
    energy: float | None = None
    memory_used: float | None = None
    memory_total: float | None = None
    utilization: float | None = None
    memory_utilization: float | None = None
    fan: float | None = None
    clock: float | None = None
    memory_clock: float | None = None
    ecc_errors: float | None = None
    throttle: tuple[str, ...] | None = None
    processes: tuple[Process, ...] | None = None


# Unit → how much of the field's own unit it is.
UNITS: dict[str, float] = {
    "C": 1.0,
    "W": 1.0,
    "mW": 1e-3,
    "uW": 1e-6,
    "J": 1.0,
    "mJ": 1e-3,
    "uJ": 1e-6,
    "%": 0.01,
    "ratio": 1.0,
    "MHz": 1.0,
    "kHz": 1e-3,
    "Hz": 1e-6,
    "GHz": 1e3,
    "B": 2.0**-30,
    "KiB": 2.0**-20,
    "MiB": 2.0**-10,
    "GiB": 1.0,
    "kB": 1e3 / 2**30,
    "MB": 1e6 / 2**30,
    "GB": 1e9 / 2**30,
    "count": 1.0,
}

# The kind of each field that is a figure: the units it may have, and the range that is physically possible.
_MEMORY = ("B", "KiB", "MiB", "GiB", "kB", "MB", "GB")
_RATIO = ("%", "ratio")
_FIGURES: dict[str, tuple[tuple[str, ...], float, float]] = {
    "temperature": (("C",), -60.0, 250.0),
    "power": (("W", "mW", "uW"), 0.0, 20_000.0),
    "power_limit": (("W", "mW", "uW"), 0.0, 20_000.0),
    "energy": (("J", "mJ", "uJ"), 0.0, math.inf),
    "memory_used": (_MEMORY, 0.0, 2.0**20),
    "memory_total": (_MEMORY, 0.0, 2.0**20),
    "utilization": (_RATIO, 0.0, 1.05),
    "memory_utilization": (_RATIO, 0.0, 1.05),
    "fan": (_RATIO, 0.0, 1.5),
    "clock": (("MHz", "kHz", "Hz", "GHz"), 0.0, 20_000.0),
    "memory_clock": (("MHz", "kHz", "Hz", "GHz"), 0.0, 50_000.0),
    "ecc_errors": (("count",), 0.0, math.inf),
}
FIELDS = tuple(field.name for field in fields(Reading) if field.name != "processes")
FIGURES = tuple(_FIGURES)
PROCESS_FIELDS = ("index", "pid", "memory", "memory_unit")
UNIT_GROUPS = tuple(f"{name}_unit" for name in _FIGURES)

_NUMBER = re.compile(r"\s*([+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?)\s*([%A-Za-z°℃]*)\s*\Z")
_SPELLINGS = {unit.casefold(): unit for unit in UNITS} | {"c": "C", "°c": "C", "℃": "C", "mib": "MiB", "gib": "GiB"}
# These two differ only in case from others and by a factor of a thousand or a million.
_SPELLINGS["mw"] = "mW"
_SPELLINGS["mj"] = "mJ"

# What tools print where they have no value.
UNKNOWN = frozenset(
    text.casefold()
    for text in (
        "",
        "-",
        "--",
        "n/a",
        "[n/a]",
        "na",
        "none",
        "null",
        "unknown",
        "[unknown error]",
        "unknown error",
        "not supported",
        "[not supported]",
        "not available",
        "[not available]",
        "not applicable",
        "requested functionality has been deprecated",
        "[requested functionality has been deprecated]",
        "insufficient permissions",
        "[insufficient permissions]",
    )
)


def is_unknown(text: str, more: Iterable[str] = ()) -> bool:
    """Whether a cell says that there is no value; ``more`` are texts a vendor uses beside the usual ones."""
    folded = text.strip().casefold()
    return folded in UNKNOWN or folded in {one.casefold() for one in more}


def _unit(written: str) -> str:
    # Tools are free with capitals; here they would make a milliwatt of a megawatt.
    return "" if written in ("MW", "MJ") else _SPELLINGS.get(written.casefold(), "")


def quantity(field: str, text: str, unit: str = "", *, unknown: Iterable[str] = ()) -> float | None:
    """The figure in a cell, in the field's own unit; ``None`` for a cell without a value.

    The unit in the cell wins over ``unit``. Raises ``ProbeError`` for what is no figure, has no unit or a wrong one,
    or is physically impossible.
    """
    if is_unknown(text, unknown):
        return None
    match = _NUMBER.match(text)
    if match is None:
        raise ProbeError(f"{field}: {text.strip()!r} is no figure")
    written = match[2]
    # N/A % and the like: the unit is printed, the value is not.
    found = _unit(written) if written else unit
    allowed, least, most = _FIGURES[field]
    if not found:
        raise ProbeError(f"{field}: {text.strip()!r} has no unit" if not written else f"{field}: unit {written!r}")
    if found not in allowed:
        raise ProbeError(f"{field}: {text.strip()!r} is in {found}, not in {' or '.join(allowed)}")
    value = float(match[1]) * UNITS[found]
    if not (least <= value <= most and math.isfinite(value)):
        raise ProbeError(f"{field}: {text.strip()!r} is not possible")
    return value


def convert(cells: dict[str, str], units: dict[str, str], *, unknown: Iterable[str] = ()) -> dict[str, object]:
    """The cells of one device, by field, as values for a ``Reading``; fields without a value are left out."""
    found: dict[str, object] = {}
    for field, text in cells.items():
        if field == "index":
            if not text.strip().isdecimal():
                raise ProbeError(f"index: {text.strip()!r} is no device number")
            found[field] = int(text)
        elif field in _FIGURES:
            value = quantity(field, text, units.get(field, ""), unknown=unknown)
            if value is not None:
                found[field] = value
        elif not is_unknown(text, unknown):
            found[field] = text.strip()
    return found


# A device that is there draws power, is not at 0 °C to the digit, and has memory: a driver that prints 0 does not know.
_NEVER_ZERO = ("temperature", "power", "power_limit", "memory_total")


def _without_zeros(one: Reading) -> Reading:
    zeros = [name for name in _NEVER_ZERO if getattr(one, name) == 0]
    return replace(one, **dict.fromkeys(zeros)) if zeros else one  # type: ignore[arg-type]


def checked(readings: Iterable[Reading]) -> list[Reading]:
    """Readings in the order of their index. Raises ``ProbeError`` for two of one index, or more used than there is."""
    ordered = sorted(map(_without_zeros, readings), key=lambda one: one.index)
    for before, after in itertools.pairwise(ordered):
        if before.index == after.index:
            raise ProbeError(f"device {after.index} is there twice")
    for one in ordered:
        if one.memory_used is not None and one.memory_total is not None and one.memory_used > 1.05 * one.memory_total:
            used = f"{one.memory_used:.4g} GiB of {one.memory_total:.4g} GiB"
            raise ProbeError(f"device {one.index}: memory_used {used} is not possible")
    return ordered


def blocks(text: str) -> list[list[list[str]]]:
    """The rows between the rules of a table drawn with ``+``, ``-``, ``=`` and ``|``: each a list of stripped cells.

    What is no row closes a block too. The last block is empty where a rule closed the one before.
    Raises ``ProbeError`` where the last line is cut off.
    """
    found: list[list[list[str]]] = [[]]
    for line in whole(text).splitlines():
        line = line.strip()
        if line.startswith("|") and line.endswith("|") and line.strip("|-=+"):
            found[-1].append([cell.strip() for cell in line[1:-1].split("|")])
        elif found[-1]:
            found.append([])
    return found


def sections(text: str, heading: re.Pattern[str]) -> list[tuple[str, dict[str, str]]]:
    """The devices of a text of indented ``key : value`` lines: the first group of ``heading``, and values by path.

    A path is the keys from the outermost in, with ``/`` between them. Raises ``ProbeError`` where the last line is cut
    off, and where a device has a path twice, as when the line that begins the next one is missing; what stands
    below ``Processes`` may repeat.
    """
    found: list[tuple[str, dict[str, str]]] = []
    above: list[tuple[int, str]] = []
    for line in whole(text).splitlines():
        if match := heading.match(line):
            found.append((match[1], {}))
            above = []
        elif found and line.strip():
            depth = len(line) - len(line.lstrip())
            key, _, value = (part.strip() for part in line.partition(":"))
            above = [*((at, name) for at, name in above[:8] if at < depth), (depth, key)]
            path = "/".join(name for _, name in above)
            device, values = found[-1]
            if path in values and not path.startswith("Processes/"):
                raise ProbeError(f"device {device}: {path} is there twice")
            values[path] = value
        elif ":" in line and line[0].isspace():
            raise ProbeError("values stand before the first device")
    return found


def whole(text: str) -> str:
    """The text, where its last line ends. Raises ``ProbeError``: of 98304, 98 is a figure too."""
    if not text.endswith("\n"):
        raise ProbeError("its last line is cut off")
    return text
