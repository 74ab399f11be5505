"""Standard case + vendor overlay + command line → effective case, with the origin of every value.

A vendor's ``vendors/<vendor>/<model>.toml`` may set what the case declares tunable, and nothing else: an undeclared
key, and a target above all, is an error that names file and key.

.. code-block:: toml

    [[overlay]]
    topology = "1x8"              # optional selectors: framework, precision, topology, scale (default: full)
    config = { batch_size = 512 }
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from pytest_flagperf.case import ResolvedCase
from pytest_flagperf.case import Selection
from pytest_flagperf.case import Setting
from pytest_flagperf.case import Target
from pytest_flagperf.case import Topology
from pytest_flagperf.case import TrainingCase
from pytest_flagperf.errors import ConfigurationError
from pytest_flagperf.words import SCALES


class Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One ``[[overlay]]``: selectors, and the configuration it sets where all of them hold."""

    config: dict[str, Any]
    framework: str | None = None
    precision: str | None = None
    topology: str | None = None
    scale: str = "full"

    def selects(self, selection: Selection) -> bool:
        """Whether every selector that is set equals the selection's."""
        wanted = {"framework": self.framework, "precision": self.precision, "topology": self.topology}
        chosen = {
            "framework": selection.framework,
            "precision": selection.precision,
            "topology": str(selection.topology),
        }
        return self.scale == selection.scale and all(wanted[k] in (None, chosen[k]) for k in wanted)


class Overlay(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The content of a vendor's ``<model>.toml``."""

    overlay: list[Entry] = []


def read(path: Path, case: TrainingCase) -> Overlay:
    """Read and check an overlay. Raises ``ConfigurationError`` naming file and key."""
    try:
        overlay = msgspec.toml.decode(path.read_bytes(), type=Overlay)
    except (OSError, UnicodeDecodeError, msgspec.DecodeError) as error:
        raise ConfigurationError(f"{path}: {error}") from error
    for number, entry in enumerate(overlay.overlay, 1):
        _check_selectors(case, entry, f"{path}: overlay {number}")
        for key, value in entry.config.items():
            _check(case, key, value, f"{path}: overlay {number}")
            if key not in case.keys(entry.scale):
                raise ConfigurationError(
                    f"{path}: overlay {number}: {key} does nothing at scale {entry.scale}, which sets "
                    f"{', '.join(sorted(case.keys(entry.scale) & set(case.tunable)))}"
                )
    return overlay


def _check_selectors(case: TrainingCase, entry: Entry, where: str) -> None:
    # A misspelt selector would select nothing, and nobody would miss the overlay.
    for key, value, known in (
        ("framework", entry.framework, tuple(case.workloads)),
        ("precision", entry.precision, tuple(case.precisions)),
        ("scale", entry.scale, SCALES),
    ):
        if value is not None and value not in known:
            raise ConfigurationError(f"{where}: {key} = {value!r} selects nothing; {case.model} has {', '.join(known)}")
    if entry.topology is not None:
        try:
            Topology.parse(entry.topology)
        except ConfigurationError as error:
            raise ConfigurationError(f"{where}: {error}") from error


def _check(case: TrainingCase, key: str, value: Any, where: str) -> None:
    if key in {target.metric for scale in case.scales.values() for target in scale.targets}:
        raise ConfigurationError(f"{where}: {key} is a target of {case.model}; a vendor cannot change a target")
    if key not in case.tunable:
        raise ConfigurationError(
            f"{where}: {key} is not tunable in {case.model}; tunable: {', '.join(sorted(case.tunable)) or 'nothing'}"
        )
    kinds = {type(v) for v in _standard_values(case, key)}
    if kinds and not any(_fits(value, kind) for kind in kinds):
        wanted = " or ".join(sorted(kind.__name__ for kind in kinds))
        raise ConfigurationError(f"{where}: {key} = {value!r} is a {type(value).__name__}, the case has {wanted}")


def _standard_values(case: TrainingCase, key: str) -> Iterable[Any]:
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
    case: TrainingCase,
    selection: Selection,
    *,
    role: str,
    vendor: str,
    overlay: tuple[Path, Overlay] | None,
    targets: Mapping[str, float],
    directory: Path,
) -> ResolvedCase:
    """The effective case. ``targets`` replaces the bounds of the case's own targets, by metric."""
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
    if overlay is not None:
        path, content = overlay
        layers += [(str(path), entry.config) for entry in content.overlay if entry.selects(selection)]
    deviations = []
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
        targets=_targets(scale.targets, targets, deviations),
        directory=directory,
        deviations=tuple(deviations),
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
