"""FlagPerf's names and ours, as data: ``names.toml``."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import msgspec

from pytest_flagperf.errors import ConfigurationError


class ForeignTarget(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A target key of FlagPerf's: our metric, and whether FlagPerf writes it in percent."""

    metric: str
    percent: bool = False


class Setting(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Why a setting has no place in ours; ``needed`` is false where nothing is lost by that."""

    reason: str
    needed: bool = True


class Names(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The content of ``names.toml``; its comments say what each table is."""

    schema_version: int
    vendors: dict[str, str]
    models: dict[str, dict[str, str]]
    frameworks: dict[str, str]
    datasets: dict[str, list[str]]
    precisions: dict[str, str]
    precision_texts: dict[str, str]
    keys: dict[str, str]
    targets: dict[str, ForeignTarget]
    settings: dict[str, Setting]
    container: dict[str, str]
    ignored: dict[str, str]

    def vendor(self, name: str) -> str:
        """Our name of a vendor directory of FlagPerf's."""
        return self.vendors.get(name, name)

    def model(self, kind: str, name: str) -> str:
        """Our name of a model or operator of FlagPerf's; ``kind`` is that of our case."""
        return self.models.get(kind, {}).get(name, name.lower())

    def framework(self, text: str) -> str | None:
        """Our framework for ``pytorch_1.13``, or ``None`` where this version has none."""
        return self.frameworks.get(text.partition("_")[0])

    def has_layout(self, model: str, dataset: str) -> bool:
        """Whether FlagPerf's data directory of ``model`` is laid out as our ``dataset``."""
        return model in self.datasets.get(dataset, ())


@cache
def load() -> Names:
    """Read ``names.toml``, once. Raises ``ConfigurationError`` where it is damaged."""
    path = Path(__file__).with_name("names.toml")
    try:
        return msgspec.toml.decode(path.read_bytes(), type=Names)
    except (OSError, msgspec.DecodeError) as error:
        raise ConfigurationError(f"{path}: {error}: reinstall pytest-flagperf") from error
