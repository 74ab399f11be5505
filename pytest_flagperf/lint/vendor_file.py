"""``vendor.toml``: whether it loads, its figures and their sources, its aliases, and the modules that it names."""

from __future__ import annotations

import re
from collections.abc import Iterable
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pytest_flagperf.devices import vendor as vendors
from pytest_flagperf.devices.vendor import Vendor
from pytest_flagperf.errors import ConfigurationError
from pytest_flagperf.lint import document
from pytest_flagperf.lint import modules
from pytest_flagperf.lint.positions import Key
from pytest_flagperf.lint.positions import Positions
from pytest_flagperf.lint.problem import Problem


_UNSOURCED = re.compile(r"\W*(?:todo|tbd|fixme|unknown|internal|n/?a|none|measured|x+)?\W*", re.IGNORECASE)
_SAID = re.compile(r"is above zero|\.source is empty|missing required field `source`")


def check(path: Path, others: Iterable[Vendor]) -> tuple[list[Problem], Vendor | None]:
    """The problems of one file, and the vendor where it loads. ``others`` are the vendors beside it."""
    read = document.read(path, "FP001")
    if isinstance(read, Problem):
        return [read], None
    chips = read.document.get("chips", {})
    problems = [one for name in (chips if isinstance(chips, dict) else ()) for one in _chip(path, read, name)]
    try:
        vendor = vendors.load(path)
    except ConfigurationError as error:
        message = str(error).replace(f"{path}: ", "", 1)
        # What is wrong with a figure was said above, of all of them.
        if all(one.is_warning for one in problems) or not _SAID.search(message):
            problems.append(Problem(path, read.named(message), "FP001", message))
        return problems, None
    return [*problems, *_named(path, read, vendor), *_names(path, read, vendor, others)], vendor


def files(vendor: Vendor) -> set[str]:
    """The files that ``vendor.toml`` names."""
    return {text.partition(":")[0] for _, text in _modules(vendor)}


def _modules(vendor: Vendor) -> list[tuple[Key, str]]:
    probes: list[tuple[Key, str]] = [(("probe", n, "library"), one.library) for n, one in enumerate(vendor.probe, 1)]
    outputs: list[tuple[Key, str]] = [(("output", name, "parser"), one.parser) for name, one in vendor.output.items()]
    return [(key, text) for key, text in (*probes, *outputs) if text]


def _named(path: Path, read: Positions, vendor: Vendor) -> Iterator[Problem]:
    for key, text in _modules(vendor):
        file, _, name = text.partition(":")
        reason = modules.missing(path.parent / file, name)
        if reason:
            yield Problem(path, read.line(key), "FP001", f"{key[-1]} = {text!r}: {reason}")


def _names(path: Path, read: Positions, vendor: Vendor, others: Iterable[Vendor]) -> Iterator[Problem]:
    """Names that ``--vendor`` would find two vendors for."""
    for other in others:
        # A vendor of the same name stands in for the other.
        if other.name == vendor.name:
            continue
        if vendor.name in other.aliases:
            yield Problem(path, read.line(("name",)), "FP007", f"the name {vendor.name!r} is an alias of {other.name}")
        for number, alias in enumerate(vendor.aliases, 1):
            if alias == other.name or alias in other.aliases:
                what = "the name of a vendor" if alias == other.name else f"an alias of {other.name} too"
                yield Problem(path, read.line(("aliases", number)), "FP007", f"the alias {alias!r} is {what}")


def _chip(path: Path, read: Positions, name: str) -> Iterator[Problem]:
    chip, key = read.document["chips"][name], ("chips", name)
    if not isinstance(chip, dict):
        return
    link: dict[str, Any] = chip["link"] if isinstance(chip.get("link"), dict) else {}
    for inner, value in _figures(chip, link):
        if isinstance(value, (int, float)) and not 0 < value < float("inf"):
            message = f"{name}: {'.'.join(inner)} is {value:g}: leave out what is not known"
            yield Problem(path, read.line((*key, *inner)), "FP006", message)
    if not chip.get("peak"):
        message = f"{name} has no peak: no utilization can be told, and none is refused"
        yield Problem(path, read.line(key), "W001", message)
    sources: list[tuple[tuple[str, ...], Any]] = [(("source",), chip.get("source"))]
    given = chip.get("sources")
    sources += [(("sources", one), text) for one, text in given.items()] if isinstance(given, dict) else []
    sources += [(("link", "source"), link.get("source"))] if link else []
    for inner, value in sources:
        if value is None or (isinstance(value, str) and _UNSOURCED.fullmatch(value)):
            message = f"{name}: {'.'.join(inner)} is {value!r}: say where the figures can be read"
            yield Problem(path, read.line((*key, *inner)), "FP005", message)


def _figures(chip: dict[str, Any], link: dict[str, Any]) -> Iterator[tuple[tuple[str, ...], Any]]:
    peaks = chip.get("peak", {})
    yield from ((("peak", one), value) for one, value in (peaks.items() if isinstance(peaks, dict) else ()))
    matrix = chip.get("matrix", {})
    yield from ((("matrix", one), value) for one, value in (matrix.items() if isinstance(matrix, dict) else ()))
    yield from (((one,), chip[one]) for one in ("memory", "memory_bandwidth", "tdp", "dies_per_card") if one in chip)
    if "bandwidth" in link:
        yield ("link", "bandwidth"), link["bandwidth"]
