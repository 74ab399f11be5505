"""A user's dataset that is prepared as well: looked at, then made into the arrays that workloads map.

The arrays are in ``DATA_ROOT/NAME/<checksum>-<version>/``: another source or another preparation, another folder.
Their manifest's source is ``{"origin", "checksum", "preparation"}``: the path, the sha256 and the version.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from pytest_flagperf.datasets.model import Dataset
from pytest_flagperf.datasets.model import FoundDataset
from pytest_flagperf.datasets.model import Preparation
from pytest_flagperf.datasets.model import Survey
from pytest_flagperf.datasets.model import Surveyor
from pytest_flagperf.datasets.prepared import MANIFEST
from pytest_flagperf.datasets.prepared import Job
from pytest_flagperf.datasets.prepared import check_files
from pytest_flagperf.datasets.prepared import prepare_once
from pytest_flagperf.datasets.prepared import read_manifest
from pytest_flagperf.datasets.surveys import find_user_dataset
from pytest_flagperf.datasets.surveys import incomplete
from pytest_flagperf.datasets.surveys import survey_once
from pytest_flagperf.errors import DatasetError


CHECKSUM_DIGITS = 16


def find_user_arrays(dataset: Dataset, path: Path, data_root: Path, say: Callable[[str], None]) -> FoundDataset:
    """The arrays made of the dataset at ``path``, prepared when they are not there; or those that ``path`` holds.

    Raises ``DatasetError`` when the dataset is missing, incomplete or corrupt, when it changes meanwhile, or when
    the data root is in the way.
    """
    if os.path.isfile(path / MANIFEST):
        return _given(dataset, path, data_root, say)
    assert dataset.preparation is not None
    place = _place(dataset, data_root)
    _point_at_prepared(dataset, path, place)
    source = find_user_dataset(dataset, path, data_root, say)
    target = place / f"{source.checksum[:CHECKSUM_DIGITS]}-{dataset.preparation.version}"
    read = partial(_read, dataset, target, data_root, say, source.checksum)
    try:
        found = read()
    except DatasetError:
        found = prepare_once(_job(dataset, dataset.preparation, data_root, source, target, read), say)
    return replace(found, verified=True, notes=(*source.notes, f"prepared from {source.path}", *found.notes))


def _place(dataset: Dataset, data_root: Path) -> Path:
    """Where the arrays go: beside ``DATA_ROOT/NAME``, not below it, when that leads to the user's own files."""
    folder = data_root / dataset.name
    users = os.path.islink(folder) or os.path.isfile(folder)
    return data_root / f"{dataset.name}.prepared" if users else folder


def _point_at_prepared(dataset: Dataset, path: Path, place: Path) -> None:
    """Without the source nothing says that arrays are of it; the user may say so."""
    assert dataset.surveyor is not None
    assert dataset.preparation is not None
    entry = dataset.surveyor.entry(path)
    here = sorted(place.glob(f"*-{dataset.preparation.version}/{MANIFEST}"))
    if here and not os.path.exists(entry):
        hints = [f"prepared already: --dataset {dataset.name}={manifest.parent}" for manifest in here]
        raise incomplete(dataset, path, [f"there is no {entry}", *hints])


def _job(
    dataset: Dataset,
    preparation: Preparation,
    data_root: Path,
    source: FoundDataset,
    target: Path,
    read: Callable[[], FoundDataset],
) -> Job:
    origin, splits = str(source.path), dict(dataset.splits)
    return Job(
        dataset=dataset,
        data_root=data_root,
        target=target,
        temporaries="*",
        source={"origin": origin, "checksum": source.checksum, "preparation": preparation.version},
        child=("prepare-user", preparation.function),
        argument={"origin": origin, "splits": splits, "parent": os.getpid()},
        read=read,
        bytes_needed=sum(splits.values()) * preparation.sample_bytes,
        check=_unchanged(dataset, source.path),
    )


def _unchanged(dataset: Dataset, entry: Path) -> Callable[[], None]:
    surveyor = dataset.surveyor
    assert surveyor is not None
    before = _fingerprint(surveyor, entry)

    def check() -> None:
        if _fingerprint(surveyor, entry) != before:
            raise DatasetError(f"dataset {dataset.name}: {entry} was changed while it was prepared; run again")

    return check


def _fingerprint(surveyor: Surveyor, entry: Path) -> str:
    try:
        return surveyor.fingerprint(entry)
    except OSError as error:
        return f"gone: {error}"


def _given(dataset: Dataset, path: Path, data_root: Path, say: Callable[[str], None]) -> FoundDataset:
    try:
        found = _read(dataset, path, data_root, say)
    except DatasetError as error:
        raise DatasetError(
            f"dataset {dataset.name}: the prepared folder {path} cannot be used: {error}. Copy it again, or give what "
            f"it is prepared from: {dataset.how_to_get}"
        ) from error
    note = "given prepared: what it was prepared from, whose checksum its manifest tells, was not looked at"
    return replace(found, notes=(note, *found.notes))


def _read(
    dataset: Dataset, path: Path, data_root: Path, say: Callable[[str], None], checksum: str | None = None
) -> FoundDataset:
    """What is in a prepared folder, of a source with that ``checksum``; hashed once, until a file of it changes."""
    source = _checked_manifest(dataset, path)["source"]
    if checksum not in (None, source["checksum"]):
        raise DatasetError(f"{path} was prepared from another source, of sha256 {source['checksum']}")
    assert dataset.preparation is not None
    try:
        survey, notes = survey_once(dataset, PreparedFolder(dataset.preparation.version), path, data_root, say)
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error}") from error
    return FoundDataset(dataset.name, path, survey.splits, survey.checksum, verified=False, notes=survey.notes + notes)


def _checked_manifest(dataset: Dataset, path: Path) -> dict[str, Any]:
    preparation = dataset.preparation
    assert preparation is not None
    manifest = read_manifest(dataset, path)
    source = manifest.get("source")
    if not isinstance(source, Mapping) or not isinstance(source.get("checksum"), str):
        raise DatasetError(f"{path / MANIFEST} does not say what it was prepared from")
    if source.get("preparation") != preparation.version:
        raise DatasetError(
            f"{path} was prepared by version {source.get('preparation')} of the preparation, not {preparation.version}"
        )
    if manifest.get("splits") != dict(dataset.splits):
        raise DatasetError(f"{path} has the splits {manifest.get('splits')}, expected {dict(dataset.splits)}")
    missing = sorted(set(preparation.files) - set(manifest["files"]))
    if missing:
        raise DatasetError(f"{path / MANIFEST} does not list {', '.join(missing)}")
    return manifest


@dataclass(frozen=True)
class PreparedFolder:
    """Looks at a prepared folder: the sha256 of every file. GBs, so the outcome is remembered."""

    version: int

    def entry(self, path: Path) -> Path:
        """The folder itself."""
        return path

    def fingerprint(self, path: Path) -> str:
        """Size and modification time of every file."""
        with os.scandir(path) as entries:
            statuses = sorted((entry.name, entry.stat()) for entry in entries)
        return "\n".join(f"{name} {status.st_size} {status.st_mtime_ns}" for name, status in statuses)

    def survey(self, dataset: Dataset, path: Path) -> Survey:
        """Hold every file against the manifest."""
        manifest = _checked_manifest(dataset, path)
        check_files(path, manifest["files"])
        return Survey(
            dict(dataset.splits), manifest["source"]["checksum"], ("checked: sha256 of every file of the arrays",)
        )
