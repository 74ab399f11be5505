"""What a vendor file may say: the schema of ``vendors/<vendor>/vendor.toml``."""

from __future__ import annotations

import glob
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import msgspec


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
    processes are taken, joined to the devices by uuid, bus id or index, whichever both have. ``identity`` is another,
    asked once, for tools that say elsewhere which devices they are: of its ``identity_output`` a device takes, by
    index, the name, uuid, serial number and bus id that ``output`` does not tell.
    """

    library: str = ""
    command: list[str] = []
    output: str = ""
    directories: list[str] = []
    environment: dict[str, str] = {}
    timeout: float = 10.0
    processes: list[str] = []
    processes_output: str = ""
    identity: list[str] = []
    identity_output: str = ""


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
    additional groups; ``options`` what a runtime (``docker``, ``podman``, ``apptainer``) is told beside that, of those
    that :mod:`pytest_flagperf.launch.confinement` allows. ``{indices}`` is the list of leased devices, with commas.
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
    """A chip's figures, all of one device: dense peaks in TFLOP/s (TOP/s for int8), memory in GB and GB/s, TDP in W.

    ``names`` are what frameworks and drivers call the device; ``family`` is what people call it, as FlagPerf's
    hardware names do. ``matrix`` has the peaks of the matrix units where ``peak`` is that of the vector units.
    ``dies_per_card`` is how many devices one card shows as: 1 where a card is one device, of however many dies.
    ``source`` holds for every figure that ``sources`` has no other for. A figure that is listed in
    ``unverified`` is shown as such and never decides a verdict. A figure without a public source is absent.
    """

    source: str
    names: list[str] = []
    family: str = ""
    peak: dict[str, float] = {}
    matrix: dict[str, float] = {}
    memory: float | None = None
    memory_bandwidth: float | None = None
    tdp: float | None = None
    link: Link | None = None
    dies_per_card: int | None = None
    sources: dict[str, str] = {}
    unverified: list[str] = []
    note: str = ""

    def ceiling(self, precision: str) -> float | None:
        """The peak that may decide whether a figure is possible, in TFLOP/s; ``None`` without a verified one.

        The highest, as nobody asks a framework which units it computed with.
        """
        tables = {"peak": self.peak, "matrix": self.matrix}
        verified = (
            table[precision]
            for name, table in tables.items()
            if precision in table and f"{name}.{precision}" not in self.unverified
        )
        return max(verified, default=None)


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
