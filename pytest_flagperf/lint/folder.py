"""A vendor's folder: ``vendor.toml``, overlays, parser modules, and whatever else lies in it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from collections.abc import Sequence
from pathlib import Path

from pytest_flagperf.devices import vendor as vendors
from pytest_flagperf.devices.vendor import Vendor
from pytest_flagperf.importing import source
from pytest_flagperf.lint import modules
from pytest_flagperf.lint import overlays
from pytest_flagperf.lint import text as texts
from pytest_flagperf.lint import vendor_file
from pytest_flagperf.lint.overlays import Cases
from pytest_flagperf.lint.problem import Problem


_SHELL = (".sh", ".bash", ".zsh", ".csh", ".ksh", ".fish")
_SHEBANG = re.compile(r"#!.*\b(?:ba|z|k|c|da|fi)?sh\b")
# Where the overlays of a kind of cases are, below the vendor's folder.
_PLACES = {"training": ".", "inference": "inference"}
_ALWAYS_READ = re.compile(r"README(\.[\w-]+)?\.md|LICENSE.*|NOTICE.*|__init__\.py")


def is_one(directory: Path) -> bool:
    """Whether a directory has a vendor file, or overlays alone."""
    if (directory / "vendor.toml").is_file():
        return True
    return any(overlays.looks_like_one(path) for place in _PLACES.values() for path in _overlays(directory / place))


def is_part(directory: Path) -> bool:
    """Whether a directory is that of a vendor's overlays of inference: its parent is the vendor's folder."""
    return directory.name in _PLACES.values() and is_one(directory.parent)


def _overlays(directory: Path) -> list[Path]:
    return sorted(one for one in directory.glob("*.toml") if one.name != "vendor.toml")


def check(directory: Path, cases: Cases, others: Sequence[Vendor]) -> Iterator[Problem]:
    """The problems of one vendor's folder.

    ``cases`` are those that overlays are checked against, ``others`` the vendors that are known or checked with it.
    """
    path = directory / "vendor.toml"
    vendor: Vendor | None = None
    named: set[str] = set()
    if path.is_file():
        problems, vendor = vendor_file.check(path, others)
        yield from problems
        named = vendor_file.files(vendor) if vendor is not None else set()
    else:
        # Overlays alone, as flagperf import writes them, are for a vendor that is known.
        known = vendors.names([*vendors.installed(), vendors.bundled()])
        vendor = vendors.load(known[directory.name]) if directory.name in known else None
    read = {*modules.reached(directory, named), path}
    for kind, place in _PLACES.items():
        for one in _overlays(directory / place):
            yield from overlays.check(one, kind, cases, vendor)
            read |= {one, *modules.reached(one.parent, overlays.workloads(one))}
    for one in sorted(directory.rglob("*")):
        if one.is_file() and "__pycache__" not in one.parts:
            yield from _file(one, directory, read, understood=vendor is not None)


def _file(path: Path, directory: Path, read: set[Path], *, understood: bool) -> Iterator[Problem]:
    relative = path.relative_to(directory)
    is_baseline = relative.parts[0] == "baselines" and path.suffix == ".toml"
    try:
        text = source.text_of(path)
    except ValueError as error:
        yield Problem(path, 0, "FP029", f"nobody reads this: it {error}")
        return
    if path.suffix in _SHELL or _SHEBANG.match(text):
        yield Problem(path, 1, "FP028", "is a shell script, and none is run: say it in vendor.toml, or in Python")
    elif understood and path not in read and not is_baseline and not _ALWAYS_READ.fullmatch(path.name):
        yield Problem(path, 1, "FP029", "neither vendor.toml nor an overlay names it")
    yield from texts.check(path, text)
    if path.suffix == ".py":
        yield from modules.calls(path, text)
