"""The ImageFolder layout, ``SPLIT/CLASS/*.JPEG``: counted file by file, sizes sampled."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pytest_flagperf.datasets.model import Dataset
from pytest_flagperf.datasets.model import Survey
from pytest_flagperf.datasets.surveys import incomplete


IMAGES = (".jpeg", ".jpg")
SHOWN = 3  # examples in a message


@dataclass(frozen=True)
class ImageFolder:
    """Looks at ``splits``, each with the same ``classes`` folders; sizes are read of one image in ``sampled``.

    A size costs a system call an image, minutes for ImageNet on a network file system; a name costs almost none.
    """

    classes: int
    splits: tuple[str, ...] = ("train", "val")
    sampled: int = 10

    def entry(self, path: Path) -> Path:
        """The folder that holds the splits."""
        return path

    def fingerprint(self, path: Path) -> str:
        """The modification time of every class folder: it changes when an image is added, removed or renamed."""
        digest = hashlib.sha256()
        for split in self.splits:
            for name in _folders(path / split):
                digest.update(f"{split}/{name} {os.stat(path / split / name).st_mtime_ns}\n".encode())
        return digest.hexdigest()

    def survey(self, dataset: Dataset, path: Path) -> Survey:
        """Compare classes between splits and images with ``dataset.splits``; raise with everything found wrong."""
        digest = hashlib.sha256()
        classes = {split: _folders(path / split) for split in self.splits}
        counts: dict[str, int] = {}
        problems = list(self._class_problems(classes))
        for split, names in classes.items():
            counts[split], corrupt = self._count(path, split, names, digest)
            problems += corrupt
            problems += _count_problems(path / split, split, counts[split], dataset.splits[split])
        if problems:
            raise incomplete(dataset, path, problems)
        note = (
            f"checked: {self.classes:,} classes, the name of every image, the size of one image in {self.sampled}; "
            "no image was decoded"
        )
        return Survey(counts, digest.hexdigest(), (note,))

    def _class_problems(self, classes: dict[str, list[str]]) -> Iterator[str]:
        for split, names in classes.items():
            if len(names) != self.classes:
                yield f"{split}: {len(names):,} class folders, expected {self.classes:,}"
        first, *others = self.splits
        for other in others:
            for here, there in ((first, other), (other, first)):
                only = sorted(set(classes[here]) - set(classes[there]))
                if only and classes[there]:
                    yield f"{len(only):,} classes are in {here}/ and not in {there}/: {_some(only)}"

    def _count(self, path: Path, split: str, names: Sequence[str], digest: hashlib._Hash) -> tuple[int, list[str]]:
        total = 0
        empty_folders, empty_images = [], []
        for name in names:
            images = sorted(_images(path / split / name))
            total += len(images)
            if not images:
                empty_folders.append(f"{split}/{name}")
            for index, image in enumerate(images):
                relative = f"{split}/{name}/{image}"
                size = os.stat(path / relative).st_size if index % self.sampled == 0 else None
                digest.update(f"{relative} {size}\n".encode())
                if size == 0:
                    empty_images.append(relative)
        problems = [f"{split}: class folders without an image: {_some(empty_folders)}"] if empty_folders else []
        if empty_images:
            problems.append(
                f"{split}: corrupt, {len(empty_images):,} of the sampled images have zero bytes: {_some(empty_images)}"
            )
        return total, problems


def _count_problems(folder: Path, split: str, found: int, expected: int) -> Iterator[str]:
    if not folder.is_dir():
        yield f"{split}: there is no folder {folder} ({expected:,} images missing)"
        return
    if found != expected:
        difference = f"{expected - found:,} missing" if found < expected else f"{found - expected:,} too many"
        yield f"{split}: {found:,} images in {folder}, expected {expected:,} ({difference})"
    with os.scandir(folder) as entries:
        files = [entry.name for entry in entries if not entry.is_dir()]
    flat = sum(name.lower().endswith(IMAGES) for name in files)
    archives = sum(name.endswith(".tar") for name in files)
    if flat:
        yield f"{split}: {flat:,} images lie in {folder} itself; each must be moved into the folder of its class"
    if archives:
        yield f"{split}: {archives:,} archives in {folder} are still packed; unpack each into a folder of its name"


def _folders(path: Path) -> list[str]:
    if not path.is_dir():
        return []
    with os.scandir(path) as entries:
        return sorted(entry.name for entry in entries if not entry.name.startswith(".") and entry.is_dir())


def _images(path: Path) -> Iterator[str]:
    with os.scandir(path) as entries:
        # Dot files are what macOS leaves beside copied images ("._n01440764_18.JPEG").
        yield from (e.name for e in entries if e.name.lower().endswith(IMAGES) and not e.name.startswith("."))


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else "")
