"""Which datasets exist: those of the catalogue, and what a vendor repository registers."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from types import MappingProxyType

from pytest_flagperf.datasets.catalogue import CATALOGUE
from pytest_flagperf.datasets.model import Dataset
from pytest_flagperf.errors import ConfigurationError


_registered: dict[str, Dataset] = {dataset.name: dataset for dataset in CATALOGUE}


def known() -> Mapping[str, Dataset]:
    """Every dataset by its name, sorted; a read-only copy."""
    return MappingProxyType(dict(sorted(_registered.items())))


def get(name: str) -> Dataset:
    """The dataset of this name; ``ConfigurationError`` lists what exists and the nearest name."""
    if name in _registered:
        return _registered[name]
    nearest = difflib.get_close_matches(name, _registered, n=1)
    hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
    raise ConfigurationError(f"no dataset is called {name!r}.{hint} Known: {', '.join(sorted(_registered))}.")


def register(dataset: Dataset) -> None:
    """Add a dataset, as a vendor repository does from its plugin; registering the same one again is harmless.

    Raises ``ConfigurationError`` when the name belongs to another dataset: results under one name must rest
    on one dataset.
    """
    existing = _registered.setdefault(dataset.name, dataset)
    if existing != dataset:
        raise ConfigurationError(
            f"dataset {dataset.name!r} is registered already ({existing.title}); choose another name"
        )
