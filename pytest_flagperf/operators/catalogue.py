"""Files of problems: sizes as data, each checked when it is read.

A file is JSON: ``schema_version``, ``family``, ``title``, ``source`` and ``problems``, one problem a line. What a
problem may say are the fields of its family's class in `problems`, of their types; the family is the file's.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from pytest_flagperf.errors import ConfigurationError
from pytest_flagperf.operators.problems import FAMILIES
from pytest_flagperf.operators.problems import Problem
from pytest_flagperf.operators.problems import from_json
from pytest_flagperf.words import SETS


SCHEMA_VERSION = 1


class Source(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the sizes come from."""

    name: str
    url: str
    license: str
    commit: str = ""
    comment: str = ""

    @property
    def label(self) -> str:
        """What every problem of the file carries as its ``source``: ``DeepBench da81ba7``."""
        return f"{self.name} {self.commit[:7]}".strip()


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    schema_version: int
    family: str
    title: str
    source: Source
    problems: list[dict[str, Any]]


@dataclass(frozen=True)
class Catalogue:
    """A file of problems that was read: ``sha256`` of its bytes goes into the report, so that sizes cannot drift."""

    path: Path
    family: str
    title: str
    source: Source
    sha256: str
    problems: tuple[Problem, ...]


def load(path: Path) -> list[Problem]:
    """The problems of a file, in its order. Raises ``ConfigurationError`` as `read` does."""
    return list(read(path).problems)


def read(path: Path) -> Catalogue:
    """A file and its problems. ``ConfigurationError`` names the file, and the problem that is wrong."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read: {error.strerror}") from error
    try:
        file = msgspec.json.decode(content, type=_File)
    except msgspec.DecodeError as error:
        raise ConfigurationError(f"{path}: not a file of problems: {error}") from error
    if file.schema_version != SCHEMA_VERSION:
        raise ConfigurationError(
            f"{path}: schema_version is {file.schema_version}; this version reads {SCHEMA_VERSION}"
        )
    if file.family not in FAMILIES:
        raise ConfigurationError(f"{path}: unknown family {file.family!r}; the families are {', '.join(FAMILIES)}")
    problems = tuple(_problem(path, file, number, given) for number, given in enumerate(file.problems, start=1))
    _refuse_repeated(path, problems)
    sha256 = hashlib.sha256(content).hexdigest()
    return Catalogue(path, file.family, file.title, file.source, sha256, problems)


def _problem(path: Path, file: _File, number: int, given: dict[str, Any]) -> Problem:
    """One problem, its names and values checked by its class and its types by msgspec."""
    if "family" in given:
        raise ConfigurationError(f"{path}: problem {number}: the family is the file's; a problem says none of its own")
    given = {"source": file.source.label, **given}
    try:
        problem = from_json({"family": file.family, **given})
        checked = msgspec.convert(given, type=FAMILIES[file.family])
    except (ValueError, msgspec.ValidationError) as error:
        raise ConfigurationError(f"{path}: problem {number}: {error}: {msgspec.json.encode(given).decode()}") from error
    if not problem.sets or set(problem.sets) - set(SETS):
        raise ConfigurationError(
            f"{path}: problem {number} ({problem.id}): its sets are {list(problem.sets)}; "
            f"it needs at least one, of {', '.join(SETS)}"
        )
    return checked


def _refuse_repeated(path: Path, problems: tuple[Problem, ...]) -> None:
    seen: set[str] = set()
    for number, problem in enumerate(problems, start=1):
        if problem.id in seen:
            raise ConfigurationError(f"{path}: problem {number} ({problem.id}): the file has it before")
        seen.add(problem.id)
