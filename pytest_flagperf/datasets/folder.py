"""A dataset of a user that is a folder with named files: which are there, how many samples, and that none is empty."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field
from pathlib import Path

from pytest_flagperf.datasets.model import Dataset
from pytest_flagperf.datasets.model import Survey
from pytest_flagperf.datasets.npy import npy_rows
from pytest_flagperf.datasets.surveys import incomplete


# Bytes of a named file whose content is part of the checksum; a text, a list and an array have less.
LARGEST_READ = 2**28
WILDCARDS = "*?["
MOST_NAMED = 3


@dataclass(frozen=True)
class Folder:
    """Looks for every path of ``files``, and for the samples of each split.

    ``samples`` maps a split to a pattern below the folder (``val2017/*.jpg``, ``**`` for any depth) of its files,
    ``lines`` to a text in UTF-8 with a sample on each line that is not empty, ``rows`` to arrays (``.npy``) with a
    sample in each row. A split may be in several. All of them have to have as many as the dataset's split, where that
    says how many. What is counted by none of them is not in the survey.

    Of the files that a pattern finds names and sizes are looked at. The content of those that are named is part of the
    checksum, up to ``LARGEST_READ`` bytes each.
    """

    files: tuple[str, ...] = ()
    samples: Mapping[str, str] = field(default_factory=dict)
    lines: Mapping[str, str] = field(default_factory=dict)
    rows: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def entry(self, path: Path) -> Path:
        """The folder itself."""
        return path

    def fingerprint(self, path: Path) -> str:
        """Sizes and times of the files that are named, and of the folders that hold samples."""
        digest = hashlib.sha256()
        parents = {found.parent for pattern in self._patterns().values() for found in path.glob(pattern)}
        for one in (*(path / name for name in self._named()), *sorted(parents)):
            state = os.stat(one) if one.exists() else None
            digest.update(f"{one} {state and (state.st_size, state.st_mtime_ns)}\n".encode())
        return digest.hexdigest()

    def survey(self, dataset: Dataset, path: Path) -> Survey:
        """Count; raises ``DatasetError`` with everything that is missing, superfluous or empty."""
        digest = hashlib.sha256()
        counts: dict[str, int] = {}
        problems = list(self._missing(path))
        for split, what, count in self._counted(path, problems):
            expected = dataset.splits.get(split, counts.get(split, count))
            counts.setdefault(split, count)
            if count != expected:
                problems.append(f"{split}: {count:,} {what}, expected {expected:,}")
        for pattern in self._patterns().values():
            found = _found(path, pattern)
            problems += [f"{one} is empty" for one in found if not one.stat().st_size][:MOST_NAMED]
            for one in found:
                digest.update(f"{one.relative_to(path)} {one.stat().st_size}\n".encode())
        if problems:
            raise incomplete(dataset, path, problems)
        for name in self._named():
            digest.update(f"{name} {_content(path / name)}\n".encode())
        read = ", ".join(self._named())
        return Survey(counts, digest.hexdigest(), (f"checked: {f'the content of {read}; ' if read else ''}{_SIZES}",))

    def _patterns(self) -> dict[str, str]:
        """Of ``samples`` those that may be several files."""
        return {split: one for split, one in self.samples.items() if _is_pattern(one)}

    def _named(self) -> tuple[str, ...]:
        """All that are files by their names, each once."""
        single = (one for one in self.samples.values() if not _is_pattern(one))
        arrays = (name for names in self.rows.values() for name in names)
        return tuple(dict.fromkeys((*self.files, *single, *self.lines.values(), *arrays)))

    def _counted(self, path: Path, problems: list[str]) -> Iterator[tuple[str, str, int]]:
        """Split, what was counted, and how many; what cannot be counted is a problem more."""
        for split, pattern in self._patterns().items():
            yield split, f"files {pattern}", len(_found(path, pattern))
        for split, name in self.lines.items():
            yield from _one(split, f"lines in {name}", path / name, _lines, problems)
        for split, names in self.rows.items():
            for name in names:
                yield from _one(split, f"rows in {name}", path / name, npy_rows, problems)

    def _missing(self, path: Path) -> Iterator[str]:
        for name in self._named():
            if not (path / name).is_file():
                yield f"there is no {name}"
            elif not (path / name).stat().st_size:
                yield f"{name} is empty"


_SIZES = "names and sizes of all other files, which were not read"


def _is_pattern(name: str) -> bool:
    return any(one in name for one in WILDCARDS)


def _found(path: Path, pattern: str) -> list[Path]:
    return sorted(one for one in path.glob(pattern) if one.is_file())


def _one(
    split: str, what: str, path: Path, count: Callable[[Path], int], problems: list[str]
) -> Iterator[tuple[str, str, int]]:
    """The count of one file, where it is there."""
    if not (path.is_file() and path.stat().st_size):
        return
    try:
        yield split, what, count(path)
    except ValueError as error:
        problems.append(f"{path} cannot be read: {error}")


def _lines(path: Path) -> int:
    """Lines of a text in UTF-8 that are not empty; raises ``ValueError`` for another encoding."""
    return sum(bool(line.strip()) for line in path.read_text(encoding="utf-8").splitlines())


def _content(path: Path) -> str:
    """What a file is known by: its SHA-256, or of a very large one its size."""
    size = path.stat().st_size
    if size > LARGEST_READ:
        return str(size)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
