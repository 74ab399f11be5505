"""How others call our models: ``models.toml``."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path

import msgspec

from pytest_flagperf.errors import ConfigurationError


class Model(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A model's names: ``task`` in FlagPerf's tables, ``network`` and ``type`` in MindSpore's."""

    name: str
    network: str
    task: str = ""
    type: str = ""
    source: str = ""


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    schema_version: int
    model: list[Model]


def find(name: str) -> Model:
    """The names of a model; one that is not listed is called by its own."""
    return _known().get(name, Model(name, name))


@functools.cache
def _known() -> Mapping[str, Model]:
    path = Path(__file__).with_name("models.toml")
    try:
        found = msgspec.toml.decode(path.read_bytes(), type=_File)
    except (OSError, msgspec.DecodeError) as error:
        raise ConfigurationError(f"{path}: {error}") from error
    return {one.name: one for one in found.model}
