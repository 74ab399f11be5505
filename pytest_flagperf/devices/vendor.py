"""Vendors are data: ``vendors/<vendor>/vendor.toml``, read against a schema."""

from __future__ import annotations

import glob
from collections.abc import Iterable
from pathlib import Path

import msgspec

from pytest_flagperf.errors import ConfigurationError
from pytest_flagperf.words import FRAMEWORKS
from pytest_flagperf.words import PRECISIONS


class Detection(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the vendor's devices show on a host: one match of ``device_nodes`` (glob patterns) is one device."""

    device_nodes: list[str] = []


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


class Chip(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A chip's figures by its maker: dense peaks in TFLOP/s (TOP/s for int8), memory in GB and GB/s, TDP in W.

    ``names`` are what frameworks and drivers call the device.
    """

    source: str
    names: list[str] = []
    peak: dict[str, float] = {}
    memory: float | None = None
    memory_bandwidth: float | None = None
    tdp: float | None = None


class Vendor(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A vendor file.

    ``shared`` says that the ranks of a host share its one device between them, as on a processor;
    ``visible_devices`` is the variable that selects devices for a process.
    """

    schema_version: int
    name: str
    title: str
    precisions: list[str]
    frameworks: dict[str, FrameworkSupport]
    aliases: list[str] = []
    detection: Detection = Detection()
    visible_devices: str = ""
    shared: bool = False
    environment: dict[str, str] = {}
    chips: dict[str, Chip] = {}

    def count(self) -> int:
        """Devices of this vendor on this host."""
        if self.shared:
            return 1
        return len({path for pattern in self.detection.device_nodes for path in glob.glob(pattern)})

    def chip(self, device_name: str) -> tuple[str, Chip] | None:
        """The chip a device calls itself by, or ``None`` for one the vendor file does not know."""
        for name, chip in self.chips.items():
            if device_name == name or device_name in chip.names:
                return name, chip
        return None


def bundled() -> Path:
    """The directory of vendors that comes with the plugin: inside the installed package, or beside it in a clone."""
    package = Path(__file__).resolve().parent.parent
    inside = package / "vendors"
    return inside if inside.is_dir() else package.parent / "vendors"


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
        vendor = msgspec.toml.decode(path.read_bytes(), type=Vendor)
    except (OSError, UnicodeDecodeError, msgspec.DecodeError) as error:
        raise ConfigurationError(f"{path}: {error}") from error
    if vendor.schema_version != 1:
        raise ConfigurationError(f"{path}: schema_version {vendor.schema_version} is not one this version reads (1)")
    if vendor.name != path.parent.name:
        raise ConfigurationError(f"{path}: name is {vendor.name!r}, the directory {path.parent.name!r}")
    for chip, figures in vendor.chips.items():
        for precision, peak in figures.peak.items():
            if not 0 < peak < float("inf"):
                raise ConfigurationError(f"{path}: chips.{chip}.peak.{precision} is {peak:g}: a peak is above zero")
            _known(path, f"chips.{chip}.peak", precision, PRECISIONS)
    for precision in vendor.precisions:
        _known(path, "precisions", precision, PRECISIONS)
    for framework in vendor.frameworks:
        _known(path, "frameworks", framework, FRAMEWORKS)
    return vendor


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
