"""Vendors are data: ``vendors/<vendor>/vendor.toml``, read against a schema."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from importlib.metadata import entry_points
from pathlib import Path

import msgspec

from pytest_flagperf.devices import checks
from pytest_flagperf.devices.schema import Chip
from pytest_flagperf.devices.schema import Container
from pytest_flagperf.devices.schema import Detection
from pytest_flagperf.devices.schema import FrameworkSupport
from pytest_flagperf.devices.schema import Layout
from pytest_flagperf.devices.schema import Link
from pytest_flagperf.devices.schema import Output
from pytest_flagperf.devices.schema import Probe
from pytest_flagperf.devices.schema import Vendor
from pytest_flagperf.errors import ConfigurationError


__all__ = [
    "Chip",
    "Container",
    "Detection",
    "FrameworkSupport",
    "Layout",
    "Link",
    "Output",
    "Probe",
    "Vendor",
    "bundled",
    "detect",
    "find",
    "installed",
    "load",
    "names",
]


ENTRY_POINTS = "pytest_flagperf.vendors"


def bundled() -> Path:
    """The directory of vendors that comes with the plugin: inside the installed package, or beside it in a clone."""
    package = Path(__file__).resolve().parent.parent
    inside = package / "vendors"
    return inside if inside.is_dir() else package.parent / "vendors"


def installed() -> list[Path]:
    """The directories of vendors that installed packages bring, by the entry point group ``pytest_flagperf.vendors``.

    An entry point is a package that holds ``<vendor>/vendor.toml``, or a function that gives the directory, or several.
    One that cannot be loaded is left out with a warning that names it: it is not everybody's problem.
    """
    found: list[Path] = []
    for entry in sorted(entry_points(group=ENTRY_POINTS), key=lambda one: one.name):
        try:
            loaded = entry.load()
            given = loaded() if callable(loaded) else [Path(path) for path in loaded.__path__]
        except Exception as error:  # somebody else's package: whatever it raises is told with its name
            what = f"entry point {entry.name} = {entry.value} of {ENTRY_POINTS}"
            warnings.warn(f"{what} cannot be loaded: {type(error).__name__}: {error}", stacklevel=2)
            continue
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
    except msgspec.ValidationError as error:
        raise ConfigurationError(f"{path}: {checks.explained(document, error)}") from error
    except RecursionError:
        raise ConfigurationError(f"{path}: it is nested too deeply") from None
    except (OSError, UnicodeDecodeError, msgspec.DecodeError) as error:
        raise ConfigurationError(f"{path}: {error}") from error
    if vendor.schema_version != 1:
        raise ConfigurationError(f"{path}: schema_version {vendor.schema_version} is not one this version reads (1)")
    if vendor.name != path.parent.name:
        raise ConfigurationError(f"{path}: name is {vendor.name!r}, the directory {path.parent.name!r}")
    checks.check(path, vendor)
    return msgspec.structs.replace(vendor, directory=path.parent)


def find(name: str, directories: Iterable[Path]) -> Vendor:
    """The vendor called ``name``, by its name or an alias. Raises ``ConfigurationError`` that lists what exists."""
    found = names(directories)
    if name in found:
        return load(found[name])
    every = [load(path) for path in found.values()]
    called = [vendor for vendor in every if name in vendor.aliases]
    if len(called) > 1:
        files = ", ".join(str(vendor.directory / "vendor.toml") for vendor in called)
        raise ConfigurationError(f"{name!r} is an alias in {files}: use a name")
    if called:
        return called[0]
    known = ", ".join(
        vendor.name + (f" ({', '.join(vendor.aliases)})" if vendor.aliases else "")
        for vendor in sorted(every, key=lambda one: one.name)
    )
    raise ConfigurationError(f"unknown vendor {name!r}. Known: {known}")


def detect(directories: Iterable[Path]) -> Vendor:
    """The vendor whose accelerator is on this host, else the one whose device is the host itself."""
    vendors = [load(path) for path in names(directories).values()]
    present = [vendor for vendor in vendors if not vendor.shared and vendor.count() > 0]
    if len(present) > 1:
        listed = ", ".join(vendor.name for vendor in present)
        raise ConfigurationError(f"devices of several vendors are on this host ({listed}): choose with --vendor")
    if present:
        return present[0]
    # What somebody installed beside us may share the host's processor too; nobody asked for it.
    shared = [vendor for vendor in vendors if vendor.shared]
    return next((vendor for vendor in shared if vendor.directory.parent == bundled()), shared[0])
