"""A session's directory, read for reports: on this machine or copied from another. Nothing is computed here."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from pathlib import PurePosixPath
from typing import Any

import msgspec

from pytest_flagperf import records
from pytest_flagperf import result as results
from pytest_flagperf.errors import ReplayError
from pytest_flagperf.result import Result
from pytest_flagperf.result import RoundResult


DESCRIPTION, LEDGER, RESULT = "session.json", "ledger.jsonl", "result.json"


@dataclass(frozen=True)
class SessionFiles:
    """What a session left on disk.

    ``results`` holds the last Result of each test, models before operators, and ``files`` the file that each is from.
    ``unfinished`` are the rounds that started and did not end, and the operators that look changed and were not yet
    measured again; ``problems`` says in words what could not be read.
    """

    directory: Path
    name: str
    description: Mapping[str, Any]
    results: tuple[Result, ...]
    unfinished: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    files: tuple[Path, ...] = ()

    @property
    def time_started(self) -> float | None:
        """When the session began, in Unix seconds; ``None`` where nobody wrote it down."""
        found = self.description.get("time_started")
        return float(found) if isinstance(found, (int, float)) and math.isfinite(found) else None


def read(directory: Path) -> SessionFiles:
    """The session in ``directory``. Raises ``ReplayError`` where there is none."""
    directory = directory.resolve()
    paths = [*model_files(directory), *operator_files(directory)]
    if not paths and not (directory / DESCRIPTION).is_file() and not (directory / LEDGER).is_file():
        raise ReplayError(
            f"{directory} is no session: it holds neither {DESCRIPTION} nor {RESULT}. Give a directory below "
            "flagperf-results/, as the end of a run names it"
        )
    problems: list[str] = []
    description = _description(directory, problems)
    found: dict[str, tuple[Result, Path]] = {}
    lines: dict[str, list[Result]] = {}
    for path in paths:
        for number, result in enumerate(results_of(path, problems)):
            found[result.case.node_id or f"{path}:{number}"] = (result, path)
            lines.setdefault(result.case.node_id, []).append(result)
    return SessionFiles(
        directory,
        str(description.get("session") or directory.name),
        description,
        tuple(result for result, _ in found.values()),
        (*_unfinished(directory, problems), *_measured_once(lines)),
        tuple(problems),
        tuple(path for _, path in found.values()),
    )


def read_all(paths: Iterable[Path]) -> list[SessionFiles]:
    """The sessions in ``paths``, each a session or a directory that holds some; in the order they were started."""
    found = {one: read(one) for path in paths for one in find(path)}
    return sorted(found.values(), key=lambda one: (one.time_started or 0.0, one.name))


def find(path: Path) -> list[Path]:
    """The sessions at ``path``: itself, or those directly below it. Raises ``ReplayError`` where there are none."""
    path = path.resolve()
    if is_session(path):
        return [path]
    below = sorted(one for one in path.iterdir() if is_session(one)) if path.is_dir() else []
    if not below:
        raise ReplayError(f"{path} is no session, and holds none. Sessions are directories below flagperf-results/")
    return below


def is_session(directory: Path) -> bool:
    """Whether a directory holds a session; what a killed one left is one too."""
    return (directory / DESCRIPTION).is_file() or bool(model_files(directory) or operator_files(directory))


def ledger(directory: Path) -> list[dict[str, Any]]:
    """The whole lines of the session's ledger; none where it has no ledger."""
    path = directory / LEDGER
    try:
        return records.read_lines(path) if path.is_file() else []
    except OSError:
        # ``SessionFiles.problems`` says so.
        return []


def unfinished(directory: Path) -> tuple[str, ...]:
    """``SessionFiles.unfinished`` of a session, or of one case's directory."""
    return (*_unfinished(directory, []), *_measured_once(operator_lines(directory)))


def round_directory(session: SessionFiles, result: Result, one: RoundResult) -> Path:
    """Where a round's files are, in a copied session too.

    A Result holds the absolute path on the machine that made it. A round that was replayed lies outside of its session:
    then this is the path as it was recorded, which need not be here.
    """
    inside = inside_session(one.directory)
    if inside is not None:
        # A case's own directory may have been given for a session.
        for path in (session.directory / inside, session.directory / inside.name):
            if path.is_dir():
                return path
    return Path(one.directory)


def inside_session(directory: str) -> PurePosixPath | None:
    """``<case directory>/round<k>`` of a round's recorded directory; ``None`` where that is no such path.

    It is the case's own directory, which is called ``<case id>~2`` for another run of it in the same session.
    """
    parts = PurePosixPath(directory).parts[-2:]
    return PurePosixPath(*parts) if len(parts) == 2 and ".." not in parts and "/" not in parts else None


def table(document: Mapping[str, Any], key: str) -> dict[str, Any]:
    """A part of a description; empty where there is none, or something else in its place."""
    found = document.get(key)
    return found if isinstance(found, dict) else {}


def commit_of(description: Mapping[str, Any]) -> str:
    """The commit that a session ran at, with ``(changed)`` where files had been changed since; empty where unknown."""
    source = table(description, "source")
    commit = str(source.get("commit") or "")
    return f"{commit} (changed)" if commit and source.get("changed") else commit


def model_files(directory: Path) -> list[Path]:
    """The ``result.json`` of a session or of one case's directory, a case's first run before its later ones."""
    found = [*directory.glob(RESULT), *directory.glob(f"*/{RESULT}")]
    return sorted(found, key=lambda path: _in_order(path.parent.name))


def operator_files(directory: Path) -> list[Path]:
    """The ``results.jsonl`` of a session, one for each of its processes, or the one of a process' directory."""
    found = [*directory.glob(f"operators/*/{results.RESULTS}"), *directory.glob(results.RESULTS)]
    return sorted(found, key=lambda path: (path.stat().st_mtime, len(str(path)), str(path)))  # gw10 after gw2


def results_of(path: Path, problems: list[str]) -> Iterator[Result]:
    """Every result in one file; what cannot be read is told in ``problems`` and keeps no other from being read."""
    if path.name == RESULT:
        try:
            yield results.read_result(path)
        except ReplayError as error:
            problems.append(str(error))
        return
    try:
        lines = records.read_whole(path).split(b"\n")
    except OSError as error:
        problems.append(f"{path} cannot be read: {error}")
        return
    if lines[-1]:
        problems.append(f"{path}, line {len(lines)} is torn: its process was killed while it wrote")
    for number, line in enumerate(lines[:-1], 1):
        try:
            yield msgspec.json.decode(line, type=Result)
        except records.UNDECODABLE as error:
            problems.append(f"{path}, line {number} cannot be read as a result: {error}")


def operator_lines(directory: Path) -> dict[str, list[Result]]:
    """Test → every result of its operator, in the order they were written: the measurements of one problem."""
    found: dict[str, list[Result]] = {}
    for path in operator_files(directory):
        for one in results_of(path, []):
            found.setdefault(one.case.node_id, []).append(one)
    return found


def _measured_once(lines: Mapping[str, Sequence[Result]]) -> list[str]:
    """Operators whose only word is that they look changed: the measurement that is to tell is missing."""
    # It needs this module.
    from pytest_flagperf.judging import compare

    return [
        f"{every[-1].case.id} measurement 2, without which it is not {every[-1].verdict}"
        for every in lines.values()
        if next(filter(compare.alarming, every), None) is every[-1]
    ]


def _in_order(name: str) -> tuple[str, int]:
    case, _, number = name.rpartition("~")
    return (case, int(number)) if case and re.fullmatch(r"\d+", number) else (name, 1)


def _description(directory: Path, problems: list[str]) -> dict[str, Any]:
    path = directory / DESCRIPTION
    try:
        # Stricter than the standard library: it refuses a text that no file can hold, and a number that is none.
        found = msgspec.json.decode(records.read_whole(path))
    except (OSError, *records.UNDECODABLE) as error:
        problems.append(f"{path} cannot be read: {error}")
        return {}
    if not isinstance(found, dict):
        problems.append(f"{path} does not describe a session")
        return {}
    return found


def _unfinished(directory: Path, problems: list[str]) -> tuple[str, ...]:
    path = directory / LEDGER
    if not path.is_file():
        return ()
    try:
        return tuple(results.unfinished(path))
    except OSError as error:
        problems.append(f"{path} cannot be read: {error}")
        return ()
