"""Figures that others published, as data: ``data/flagperf_nvidia.toml`` holds FlagPerf's for NVIDIA.

They are there to compare with, and decide no verdict: hyper-parameters, software and clocks were not ours.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import msgspec
import tabulate

from pytest_flagperf import metrics
from pytest_flagperf.case import Topology
from pytest_flagperf.errors import ConfigurationError
from pytest_flagperf.words import PRECISIONS


class Figure(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A published figure that no metric of ours is: with its unit."""

    name: str
    value: float
    unit: str


class Row(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One published row.

    ``metrics`` and ``bounds`` are by our names and in our units; ``target`` and ``limit`` are what the publisher wrote
    about when training ends. ``precision`` is empty where the publisher does not say it. ``note`` says what to mind.
    """

    model: str
    framework: str
    chip: str
    topology: str
    source: str
    precision: str = ""
    metrics: dict[str, float] = {}
    other: list[Figure] = []
    target: str = ""
    bounds: dict[str, float] = {}
    limit: str = ""
    note: str = ""


class Reference(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The rows that one publisher has for one vendor's chips."""

    schema_version: int
    vendor: str
    publisher: str
    row: list[Row]


def bundled() -> list[Path]:
    """The files of published figures that come with the plugin."""
    return sorted((Path(__file__).parent / "data").glob("*.toml"))


def load(path: Path) -> Reference:
    """Read one file. Raises ``ConfigurationError`` that names the file, the row and the key."""
    try:
        reference = msgspec.toml.decode(path.read_bytes(), type=Reference)
    except (OSError, UnicodeDecodeError, msgspec.DecodeError) as error:
        raise ConfigurationError(f"{path}: {error}") from error
    if reference.schema_version != 1:
        raise ConfigurationError(f"{path}: schema_version {reference.schema_version} is not one this version reads (1)")
    for number, row in enumerate(reference.row, 1):
        try:
            _check(row)
        except ConfigurationError as error:
            raise ConfigurationError(f"{path}: row {number} ({row.model}): {error}") from error
    return reference


def rows(model: str | None = None) -> list[Row]:
    """Every published row, or those of one model. Raises ``ConfigurationError`` that lists the models there are."""
    found = [row for path in bundled() for row in load(path).row]
    if model is None:
        return found
    chosen = [row for row in found if row.model == model]
    if not chosen:
        known = ", ".join(sorted({row.model for row in found}))
        raise ConfigurationError(f"nothing is published here for {model!r}. Models: {known}")
    return chosen


def table(found: Sequence[Row]) -> str:
    """The rows for a person: the figures, the target, and what to mind of each below."""
    cells: list[tuple[str, ...]] = []
    notes: list[str] = []
    for row in found:
        mark = ""
        if row.note:
            notes.append(f"[{len(notes) + 1}] {row.model}: {row.note}")
            mark = f" [{len(notes)}]"
        where = (row.framework, row.chip, row.topology, row.precision or "-")
        cells.append((row.model + mark, *where, _figures(row), row.target or "-", row.limit or "-"))
    headers = ("model", "framework", "chip", "topology", "precision", "published", "target", "limit")
    text: str = tabulate.tabulate(cells, headers=headers, disable_numparse=True)
    sources = f"Source: {found[0].source}" if len(found) == 1 else "Sources: flagperf reference --json"
    return "\n".join([text, "", *notes, sources])


def _figures(row: Row) -> str:
    own = [f"{name} {value:.10g} {_unit(name)}".rstrip() for name, value in row.metrics.items()]
    return "\n".join([*own, *(f"{one.name} {one.value:.10g} {one.unit}" for one in row.other)]) or "-"


def _unit(name: str) -> str:
    unit = metrics.get(name).unit
    return "" if unit in ("ratio", "1") else unit


def _check(row: Row) -> None:
    Topology.parse(row.topology)
    if row.precision and row.precision not in PRECISIONS:
        raise ConfigurationError(f"unknown precision {row.precision!r}; known: {', '.join(PRECISIONS)}")
    if not row.source.strip():
        raise ConfigurationError("source is empty: every figure has a source")
    if not (row.metrics or row.other):
        raise ConfigurationError("holds no figure")
    for name, value in (*row.metrics.items(), *row.bounds.items()):
        if metrics.get(name).unit == "ratio" and not 0 <= value <= 1:
            raise ConfigurationError(f"{name} is {value:g}: a ratio lies between 0 and 1, percent are not ratios")
    for name, value in (*row.metrics.items(), *((one.name, one.value) for one in row.other)):
        if not math.isfinite(value):
            raise ConfigurationError(f"{name} is {value}: not a figure")
