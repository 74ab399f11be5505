"""Vendors are data: ``vendors/<vendor>/vendor.toml``, read against a schema."""

from __future__ import annotations

import glob
import math
import re
from collections.abc import Iterable
from importlib.metadata import entry_points
from pathlib import Path
from typing import Literal

import msgspec

from pytest_flagperf.errors import ConfigurationError
from pytest_flagperf.words import FRAMEWORKS
from pytest_flagperf.words import PRECISIONS


ENTRY_POINTS = "pytest_flagperf.vendors"


class Detection(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the vendor's devices show on a host, without running anything of the vendor's.

    One match of ``device_nodes`` (glob patterns) is one device. ``pci_vendors`` are PCI vendor ids (``0x10de``): where
    the node alone is not proof, because another vendor's driver makes the same, one of them has to be there too.
    """

    device_nodes: list[str] = []
    pci_vendors: list[str] = []


class Layout(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One way the rows of a text table are laid out, for ``format = "pattern"``.

    ``device`` is a regular expression (multi-line mode) that matches one device; its named groups are fields, as in
    ``Output.fields``. ``start`` matches what every device begins with: where it matches more often than ``device``,
    rows are missing or malformed, and the text is refused. ``process`` matches one row of the process table, with the
    groups ``index``, ``pid`` and, where printed, ``memory``. A row with an unknown pid says that its device has none,
    one without an index that no device has.
    """

    device: str
    start: str = ""
    process: str = ""
    units: dict[str, str] = {}


class Output(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A text that one of the vendor's tools prints, and how it maps to the fields of a ``Reading``.

    Either ``parser`` (``file.py:function``, a file beside ``vendor.toml``) reads it, or ``format`` says how:

    * ``csv``: a header and a row a device; ``fields`` maps a field to a column's name. Without a header (``columns``
      lists the names) too.
    * ``words``: a row a device, split as a shell would; ``fields`` maps a field to a column's number, from 1.
    * ``json``: ``devices`` is the path to the list or table of devices (dots between keys; empty for the whole
      document; several are tried in turn); ``fields`` maps a field to a path in one device. Where the devices are a
      table, ``@key`` is the key itself.
    * ``pattern``: ``layouts``, tried in order.

    A path or column that a tool's versions name differently is written as a list of alternatives. ``units`` gives the
    unit of a field whose cell does not carry one.
    """

    parser: str = ""
    format: Literal["", "csv", "words", "json", "pattern"] = ""
    columns: list[str] = []
    devices: list[str] = []
    key: str = ""
    fields: dict[str, int | str | list[str]] = {}
    units: dict[str, str] = {}
    layouts: list[Layout] = []


class Probe(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One way to ask the vendor's driver; the first of a vendor's that is there is used.

    Either ``library`` (``file.py:Class``, a file beside ``vendor.toml``) or a ``command`` whose text is the ``output``
    of that name. A program is looked for on PATH, then in ``directories``. ``timeout`` in seconds bounds one call.

    ``processes`` is a second command, for tools that list processes elsewhere: of its ``processes_output`` only the
    processes are taken, joined to the devices by uuid, bus id or index, whichever both have.
    """

    library: str = ""
    command: list[str] = []
    output: str = ""
    directories: list[str] = []
    environment: dict[str, str] = {}
    timeout: float = 10.0
    processes: list[str] = []
    processes_output: str = ""


class FrameworkSupport(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one framework calls this vendor's devices and how its ranks talk to each other.

    ``precisions`` narrows the vendor's where the framework has fewer there.
    """

    device: str
    backend: str = ""
    module: str = ""
    amp_dtype: str = "bf16"
    precisions: list[str] | None = None
    tf32_switches: list[str] = []
    environment: dict[str, str] = {}


class Container(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a container needs to use leased devices. ``{index}`` repeats an entry for each of them.

    ``devices`` are device nodes, ``mounts`` host paths mounted read-only (what is not there is left out), ``groups``
    additional groups; ``options`` what a runtime (``docker``, ``podman``, ``apptainer``) is told beside that.
    ``{indices}`` is the list of leased devices, with commas.
    """

    devices: list[str] = []
    mounts: list[str] = []
    groups: list[str] = []
    environment: dict[str, str] = {}
    options: dict[str, list[str]] = {}


class Link(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The interconnect between chips: GB/s of one chip over all its links, and in which sense."""

    name: str
    bandwidth: float
    direction: Literal["unidirectional", "bidirectional"]
    source: str


class Chip(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A chip's figures: dense peaks in TFLOP/s (TOP/s for int8), memory in GB and GB/s, TDP in W.

    ``names`` are what frameworks and drivers call the device; ``family`` is what people call it, as FlagPerf's
    hardware names do. ``source`` holds for every figure that ``sources`` has no other for. A figure that is listed in
    ``unverified`` is shown as such and never decides a verdict. A figure without a public source is absent.
    """

    source: str
    names: list[str] = []
    family: str = ""
    peak: dict[str, float] = {}
    memory: float | None = None
    memory_bandwidth: float | None = None
    tdp: float | None = None
    link: Link | None = None
    dies_per_card: int | None = None
    sources: dict[str, str] = {}
    unverified: list[str] = []
    note: str = ""

    def ceiling(self, precision: str) -> float | None:
        """The peak that may decide whether a figure is possible, in TFLOP/s; ``None`` without a verified one."""
        return None if f"peak.{precision}" in self.unverified else self.peak.get(precision)


class Vendor(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A vendor file.

    ``shared`` says that the ranks of a host share its one device between them, as on a processor;
    ``visible_devices`` is the variable that selects devices for a process, ``also_visible`` others that a caller may
    have set for the same end. ``power_scope`` is ``card`` where a driver tells the power of a card of several devices
    on one of them. ``hot`` is the temperature in °C from which a device is called hot. ``directory`` is where the file
    was found.
    """

    schema_version: int
    name: str
    title: str
    precisions: list[str]
    frameworks: dict[str, FrameworkSupport]
    aliases: list[str] = []
    detection: Detection = Detection()
    probe: list[Probe] = []
    output: dict[str, Output] = {}
    unknown: list[str] = []
    visible_devices: str = ""
    also_visible: list[str] = []
    shared: bool = False
    power_scope: Literal["device", "card"] = "device"
    hot: float | None = None
    environment: dict[str, str] = {}
    container: Container = Container()
    chips: dict[str, Chip] = {}
    directory: Path = Path()

    def count(self) -> int:
        """Devices of this vendor on this host, by what can be seen without asking the driver."""
        if self.shared:
            return 1
        if self.detection.pci_vendors and not _on_pci(self.detection.pci_vendors):
            return 0
        return len({path for pattern in self.detection.device_nodes for path in glob.glob(pattern)})

    def chip(self, device_name: str) -> tuple[str, Chip] | None:
        """The chip a device calls itself by, or ``None`` for one the vendor file does not know."""
        wanted = device_name.casefold()
        for name, chip in self.chips.items():
            if wanted in {name.casefold(), *(other.casefold() for other in chip.names)}:
                return name, chip
        return None


# Of PCI's classes: display controllers, processors (co-processor), processing accelerators. A vendor's network cards
# and the bridges of its processors are no devices of ours.
_PCI_CLASSES = ("0x03", "0x0b", "0x12")


def _on_pci(vendors: Iterable[str], devices: Path = Path("/sys/bus/pci/devices")) -> bool:
    """Whether an accelerator of one of these PCI vendors is on this host; where nobody can say, it may be."""
    if not devices.is_dir():
        return True
    wanted = {vendor.casefold() for vendor in vendors}
    for path in devices.glob("*/vendor"):
        try:
            known = path.read_text().strip().casefold() in wanted
            if known and path.with_name("class").read_text().startswith(_PCI_CLASSES):
                return True
        except OSError:
            continue
    return False


def bundled() -> Path:
    """The directory of vendors that comes with the plugin: inside the installed package, or beside it in a clone."""
    package = Path(__file__).resolve().parent.parent
    inside = package / "vendors"
    return inside if inside.is_dir() else package.parent / "vendors"


def installed() -> list[Path]:
    """The directories of vendors that installed packages bring, by the entry point group ``pytest_flagperf.vendors``.

    An entry point is a package that holds ``<vendor>/vendor.toml``, or a function that gives the directory, or several.
    Raises ``ConfigurationError`` that names the entry point where it cannot be loaded.
    """
    found: list[Path] = []
    for entry in sorted(entry_points(group=ENTRY_POINTS), key=lambda one: one.name):
        try:
            loaded = entry.load()
            given = loaded() if callable(loaded) else [Path(path) for path in loaded.__path__]
        except Exception as error:  # somebody else's package: whatever it raises is told with its name
            raise ConfigurationError(
                f"entry point {entry.name} = {entry.value} of {ENTRY_POINTS}: {type(error).__name__}: {error}"
            ) from error
        found += [Path(given)] if isinstance(given, (str, Path)) else [Path(path) for path in given]
    return found


def names(directories: Iterable[Path]) -> dict[str, Path]:
    """Vendor name → its ``vendor.toml``; an earlier directory wins."""
    found: dict[str, Path] = {}
    for directory in directories:
        for path in sorted(directory.glob("*/vendor.toml")):
            found.setdefault(path.parent.name, path)
    return found


def load(path: Path) -> Vendor:
    """Read one vendor file. Raises ``ConfigurationError`` that names the file and the key."""
    try:
        document = msgspec.toml.decode(path.read_bytes())
        if isinstance(document, dict) and "directory" in document:
            raise ConfigurationError(f"{path}: unknown field `directory`")
        vendor = msgspec.convert(document, type=Vendor)
    except (OSError, UnicodeDecodeError, msgspec.DecodeError) as error:
        raise ConfigurationError(f"{path}: {error}") from error
    if vendor.schema_version != 1:
        raise ConfigurationError(f"{path}: schema_version {vendor.schema_version} is not one this version reads (1)")
    if vendor.name != path.parent.name:
        raise ConfigurationError(f"{path}: name is {vendor.name!r}, the directory {path.parent.name!r}")
    for precision in vendor.precisions:
        _known(path, "precisions", precision, PRECISIONS)
    for framework in vendor.frameworks:
        _known(path, "frameworks", framework, FRAMEWORKS)
    for name, chip in vendor.chips.items():
        _check_chip(path, f"chips.{name}", chip)
    for number, probe in enumerate(vendor.probe, 1):
        _check_probe(path, f"probe {number}", probe, vendor)
    for name, output in vendor.output.items():
        _check_output(path, f"output.{name}", output)
    return msgspec.structs.replace(vendor, directory=path.parent)


def _check_chip(path: Path, key: str, chip: Chip) -> None:
    figures: dict[str, float | None] = {f"peak.{precision}": peak for precision, peak in chip.peak.items()}
    for name in ("memory", "memory_bandwidth", "tdp", "dies_per_card"):
        figures[name] = getattr(chip, name)
    figures["link.bandwidth"] = chip.link.bandwidth if chip.link else None
    for name, value in figures.items():
        if value is not None and not 0 < value < math.inf:
            raise ConfigurationError(f"{path}: {key}.{name} is {value:g}: it is above zero, or absent where not known")
    for precision in chip.peak:
        _known(path, f"{key}.peak", precision, PRECISIONS)
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
    ):
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
    from pytest_flagperf.devices import reading

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


def find(name: str, directories: Iterable[Path]) -> Vendor:
    """The vendor called ``name``, by its name or an alias. Raises ``ConfigurationError`` that lists what exists."""
    found = names(directories)
    if name in found:
        return load(found[name])
    for path in found.values():
        vendor = load(path)
        if name in vendor.aliases:
            return vendor
    raise ConfigurationError(f"unknown vendor {name!r}. Known: {', '.join(sorted(found))}")


def detect(directories: Iterable[Path]) -> Vendor:
    """The vendor whose accelerator is on this host, else the one whose device is the host itself."""
    vendors = [load(path) for path in names(directories).values()]
    present = [vendor for vendor in vendors if not vendor.shared and vendor.count() > 0]
    if len(present) > 1:
        listed = ", ".join(vendor.name for vendor in present)
        raise ConfigurationError(f"devices of several vendors are on this host ({listed}): choose with --vendor")
    if present:
        return present[0]
    return next(vendor for vendor in vendors if vendor.shared)
