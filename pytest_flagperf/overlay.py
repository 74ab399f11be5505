"""Standard case + vendor overlay + command line → effective case, with the origin of every value.

A vendor's ``vendors/<vendor>/<model>.toml``, of inference ``vendors/<vendor>/inference/<model>.toml``, may set what the
case declares tunable, and nothing else: an undeclared key, and a target above all, is an error that names file and key.

.. code-block:: toml

    [[overlay]]
    # Optional selectors: chip, framework, precision, topology, scale (default: full), of inference engine.
    topology = "1x8"
    config = { batch_size = 512 }

    [[overlay]]
    division = "open"             # code of the vendor's own; the result is labelled, and the diff goes with it
    framework = "pytorch"
    workload = "fused:ResNet50"   # the class ResNet50 of fused.py beside this file
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING
from typing import Any
from typing import Literal

import msgspec
from msgspec.structs import replace as replace_struct

from pytest_flagperf import open_division
from pytest_flagperf.case import ModelCase
from pytest_flagperf.case import Replacement
from pytest_flagperf.case import ResolvedCase
from pytest_flagperf.case import Selection
from pytest_flagperf.case import Setting
from pytest_flagperf.case import Target
from pytest_flagperf.case import Topology
from pytest_flagperf.errors import ConfigurationError
from pytest_flagperf.words import SCALES
from pytest_flagperf.worker.inference import registry


if TYPE_CHECKING:
    from pytest_flagperf.devices.vendor import Chip
    from pytest_flagperf.devices.vendor import Vendor


class Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One ``[[overlay]]``: selectors, and what it changes where all of them hold.

    ``chip`` is a chip of the vendor file or a family of them; ``engine`` is for cases of inference. ``workload``
    replaces the workload's code: that is the ``open`` division.
    """

    config: dict[str, Any] = {}
    division: Literal["closed", "open"] = "closed"
    workload: str = ""
    chip: str | None = None
    framework: str | None = None
    engine: str | None = None
    precision: str | None = None
    topology: str | None = None
    scale: str = "full"

    def selects(self, selection: Selection, chip: Callable[[], tuple[str, Chip] | None]) -> bool:
        """Whether every selector that is set equals the selection's. ``chip`` is asked only where it matters."""
        wanted = {
            "framework": self.framework,
            "engine": self.engine,
            "precision": self.precision,
            "topology": self.topology,
        }
        chosen = {
            "framework": selection.framework,
            "engine": selection.engine,
            "precision": selection.precision,
            "topology": str(selection.topology),
        }
        if self.scale != selection.scale or any(wanted[k] not in (None, chosen[k]) for k in wanted):
            return False
        if self.chip is None:
            return True
        found = chip()
        return found is not None and self.chip in (found[0], found[1].family)

    def undecided(self, selection: Selection, chip: Callable[[], tuple[str, Chip] | None]) -> bool:
        """Whether it would be applied if only it were known which chip this is."""
        applies = self.chip is not None and replace_struct(self, chip=None).selects(selection, chip)
        return applies and chip() is None


class Overlay(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The content of a vendor's ``<model>.toml``."""

    overlay: list[Entry] = []


def read(path: Path, case: ModelCase, vendor: Vendor | None = None) -> Overlay:
    """Read and check an overlay, of ``vendor`` where it is given. Raises ``ConfigurationError`` naming file and key."""
    try:
        overlay = msgspec.toml.decode(path.read_bytes(), type=Overlay)
    except (OSError, UnicodeDecodeError, msgspec.DecodeError) as error:
        raise ConfigurationError(f"{path}: {error}") from error
    for number, entry in enumerate(overlay.overlay, 1):
        if not entry.config and not entry.workload:
            raise ConfigurationError(f"{path}: overlay {number} changes nothing: it has neither config nor workload")
        _check_selectors(case, entry, f"{path}: overlay {number}")
        if vendor is not None:
            _check_chip(vendor, entry, f"{path}: overlay {number}")
        _check_workload(path, entry, f"{path}: overlay {number}")
        for key, value in entry.config.items():
            _check(case, key, value, f"{path}: overlay {number}")
            if key not in case.keys(entry.scale):
                raise ConfigurationError(
                    f"{path}: overlay {number}: {key} does nothing at scale {entry.scale}, which sets "
                    f"{', '.join(sorted(case.keys(entry.scale) & set(case.tunable)))}"
                )
    return overlay


def _check_selectors(case: ModelCase, entry: Entry, where: str) -> None:
    # A misspelt selector would select nothing, and nobody would miss the overlay.
    for key, value, known in (
        ("framework", entry.framework, tuple(case.workloads)),
        ("engine", entry.engine, _engines(case, entry.engine)),
        ("precision", entry.precision, tuple(case.precisions)),
        ("scale", entry.scale, SCALES),
    ):
        if value is not None and value not in known:
            raise ConfigurationError(
                f"{where}: {key} = {value!r} selects nothing; {case.model} has {', '.join(known) or 'none'}"
            )
    if entry.topology is not None:
        try:
            Topology.parse(entry.topology)
        except ConfigurationError as error:
            raise ConfigurationError(f"{where}: {error}") from error


def _engines(case: ModelCase, wanted: str | None) -> tuple[str, ...]:
    """Those that the case is defined for, and ``wanted`` where another package brings it: it runs any case."""
    own = tuple(getattr(case, "engines", ()))
    return (*own, wanted) if wanted and own and wanted not in own and wanted in registry.names() else own


def _check_chip(vendor: Vendor, entry: Entry, where: str) -> None:
    known = {*vendor.chips, *(chip.family for chip in vendor.chips.values() if chip.family)}
    if entry.chip is not None and entry.chip not in known:
        raise ConfigurationError(
            f"{where}: chip = {entry.chip!r} selects nothing; {vendor.name} has {', '.join(sorted(known)) or 'no chip'}"
        )


def _check_workload(path: Path, entry: Entry, where: str) -> None:
    if bool(entry.workload) != (entry.division == "open"):
        raise ConfigurationError(
            f"{where}: code of one's own is the open division: division = 'open' and workload = 'module:Class' "
            "go together"
        )
    if not entry.workload:
        return
    module, _, name = entry.workload.partition(":")
    if not (module.isidentifier() and name.isidentifier()):
        raise ConfigurationError(f"{where}: workload = {entry.workload!r} is not written module:Class")
    if entry.framework is None:
        raise ConfigurationError(f"{where}: a workload is of one framework: set framework too")
    if not (path.parent / f"{module}.py").is_file():
        raise ConfigurationError(f"{where}: workload: there is no {path.parent / module}.py")


def _check(case: ModelCase, key: str, value: Any, where: str) -> None:
    if key in {target.metric for scale in case.scales.values() for target in scale.targets}:
        raise ConfigurationError(f"{where}: {key} is a target of {case.model}; a vendor cannot change a target")
    if key not in case.tunable:
        raise ConfigurationError(
            f"{where}: {key} is not tunable in {case.model}; tunable: {', '.join(sorted(case.tunable)) or 'nothing'}"
        )
    kinds = {type(v) for v in _standard_values(case, key)}
    standard = list(_standard_values(case, key))
    if _is_figure(value) and value <= 0 and standard and all(_is_figure(one) and one > 0 for one in standard):
        raise ConfigurationError(f"{where}: {key} = {value!r} is not above zero, the case has {standard[0]!r}")
    if kinds and not any(_fits(value, kind) for kind in kinds):
        wanted = " or ".join(sorted(kind.__name__ for kind in kinds))
        raise ConfigurationError(f"{where}: {key} = {value!r} is a {type(value).__name__}, the case has {wanted}")


def _is_figure(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _standard_values(case: ModelCase, key: str) -> Iterable[Any]:
    layers: list[Mapping[str, Any]] = [case.config]
    for scale in case.scales.values():
        layers += [scale.config, *scale.frameworks.values()]
    return [layer[key] for layer in layers if key in layer]


def _fits(value: Any, kind: type) -> bool:
    if kind is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, kind)


def resolve(
    case: ModelCase,
    selection: Selection,
    *,
    role: str,
    vendor: str,
    overlay: tuple[Path, Overlay] | None,
    targets: Mapping[str, float],
    directory: Path,
    chip: Callable[[], tuple[str, Chip] | None] = lambda: None,
    stand_in: str = "",
) -> ResolvedCase:
    """The effective case. ``targets`` replaces the bounds of the case's own targets, by metric.

    ``chip`` tells the chip that is here, for overlays that select by it.
    """
    scale = case.scales[selection.scale]
    settings: dict[str, Setting] = {}
    layers: list[tuple[str, Mapping[str, Any]]] = [
        (f"case {case.model}", case.config),
        (f"case {case.model}, scale {selection.scale}", scale.config),
        (
            f"case {case.model}, scale {selection.scale}, {selection.framework}",
            scale.frameworks.get(selection.framework, {}),
        ),
    ]
    deviations: list[str] = []
    notes: list[str] = []
    replaced = None
    if overlay is not None:
        path, content = overlay
        selected = [entry for entry in content.overlay if entry.selects(selection, chip)]
        layers += [(str(path), entry.config) for entry in selected]
        notes += [
            f"{path}: overlay {number} is for chip {entry.chip} and was not applied: which chip this is, is not known"
            for number, entry in enumerate(content.overlay, 1)
            if entry.undecided(selection, chip)
        ]
        replaced = _replaced(case, selection, directory, path, selected)
        if replaced is not None:
            standard = case.workloads[selection.framework]
            deviations.append(
                f"workload = {replaced.workload!r} (standard case: {standard!r}), open division, from {path}"
            )
    for origin, layer in layers:
        for key, value in layer.items():
            if overlay is not None and origin == str(overlay[0]):
                was = settings[key].value if key in settings else None
                deviations.append(f"{key} = {value!r} (standard case: {was!r}), from {origin}")
            settings[key] = Setting(value, origin)
    return ResolvedCase(
        case=case,
        selection=selection,
        role=role,
        vendor=vendor,
        settings=settings,
        targets=_targets(case.targets(selection), targets, deviations),
        directory=directory,
        deviations=tuple(deviations),
        notes=tuple(notes),
        division="closed" if replaced is None else "open",
        replaced=replaced,
        stand_in=stand_in,
    )


def _replaced(
    case: ModelCase, selection: Selection, directory: Path, path: Path, selected: Iterable[Entry]
) -> Replacement | None:
    """The vendor's own workload, with what differs from the standard one line by line."""
    chosen = [entry.workload for entry in selected if entry.workload]
    if not chosen:
        return None
    return open_division.replacement(
        case.model, case.workloads[selection.framework], directory, chosen[-1], path.parent
    )


def _targets(standard: Iterable[Target], replaced: Mapping[str, float], deviations: list[str]) -> tuple[Target, ...]:
    found = []
    for target in standard:
        if target.metric in replaced and replaced[target.metric] != target.bound:
            deviations.append(
                f"target {target.metric} = {replaced[target.metric]:g} (standard case: {target.bound:g}), "
                "from the command line"
            )
            found.append(replace(target, bound=replaced[target.metric], source="command line"))
        else:
            found.append(target)
    return tuple(found)
