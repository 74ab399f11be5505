"""A dataset of a user that is a folder with named files: which are there, how many, and that none is empty."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field
from pathlib import Path

from pytest_flagperf.datasets.model import Dataset
from pytest_flagperf.datasets.model import Survey
from pytest_flagperf.datasets.surveys import incomplete


@dataclass(frozen=True)
class Folder:
    """Looks for every path of ``files``, and for the samples of each split.

    ``samples`` maps a split to a pattern below the folder (``val2017/*.jpg``, ``**`` for any depth), of which there
    have to be as many files as the dataset's split has samples. Names and sizes are looked at, no content is read.
    """

    files: tuple[str, ...] = ()
    samples: Mapping[str, str] = field(default_factory=dict)

    def entry(self, path: Path) -> Path:
        """The folder itself."""
        return path

    def fingerprint(self, path: Path) -> str:
        """Names, sizes and times of the listed files and of the folders that hold samples."""
        digest = hashlib.sha256()
        parents = {found.parent for pattern in self.samples.values() for found in path.glob(pattern)}
        for one in (*(path / name for name in self.files), *sorted(parents)):
            state = os.stat(one) if one.exists() else None
            digest.update(f"{one} {state and (state.st_size, state.st_mtime_ns)}\n".encode())
        return digest.hexdigest()

    def survey(self, dataset: Dataset, path: Path) -> Survey:
        """Count; raises ``DatasetError`` with everything that is missing, superfluous or empty."""
        digest = hashlib.sha256()
        problems = list(self._missing(path))
        counts = dict(dataset.splits)
        for split, pattern in self.samples.items():
            found = sorted(one for one in path.glob(pattern) if one.is_file())
            counts[split] = len(found)
            if len(found) != dataset.splits[split]:
                problems.append(f"{split}: {len(found):,} files {pattern}, expected {dataset.splits[split]:,}")
            problems += [f"{one} is empty" for one in found if not one.stat().st_size][:3]
            for one in found:
                digest.update(f"{one.relative_to(path)} {one.stat().st_size}\n".encode())
        if problems:
            raise incomplete(dataset, path, problems)
        for name in self.files:
            digest.update(f"{name} {(path / name).stat().st_size}\n".encode())
        return Survey(counts, digest.hexdigest(), ("checked: names and sizes; no file was read",))

    def _missing(self, path: Path) -> Iterator[str]:
        for name in self.files:
            if not (path / name).is_file():
                yield f"there is no {name}"
            elif not (path / name).stat().st_size:
                yield f"{name} is empty"
