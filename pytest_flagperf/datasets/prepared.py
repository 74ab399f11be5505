"""Preparing a folder: once per data root, in a child process, published whole or not at all.

Package datasets are read here too, every byte verified at every use; a user's are in ``user_arrays``.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import uuid
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from dataclasses import dataclass
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from pytest_flagperf import children
from pytest_flagperf.datasets.model import Dataset
from pytest_flagperf.datasets.model import FoundDataset
from pytest_flagperf.datasets.storage import check_space
from pytest_flagperf.datasets.storage import explained
from pytest_flagperf.datasets.storage import locked
from pytest_flagperf.datasets.storage import storage_error
from pytest_flagperf.datasets.storage import sync
from pytest_flagperf.errors import DatasetError


MANIFEST = "manifest.json"
FORMAT_VERSION = 1
_PREPARING, _REPLACED = "preparing", "replaced"


@dataclass(frozen=True)
class Job:
    """A folder to be prepared. ``read`` gives what is in it, or raises ``DatasetError`` where it must be prepared.

    ``child`` is the command of ``__main__`` with its function, ``argument`` what it is given besides the folder;
    ``source`` goes into the manifest and names the ``origin``. ``check`` has the last word before the folder is
    published. Temporary folders beside ``target`` called ``.<temporaries>.preparing-...`` are this dataset's.
    """

    dataset: Dataset
    data_root: Path
    target: Path
    temporaries: str
    source: Mapping[str, Any]
    child: tuple[str, str]
    argument: Mapping[str, Any]
    read: Callable[[], FoundDataset]
    bytes_needed: int = 0
    check: Callable[[], None] = lambda: None


def package_job(dataset: Dataset, data_root: Path, origin: Path) -> Job:
    """Prepare ``DATA_ROOT/NAME`` from the package at ``origin``."""
    assert dataset.source is not None
    source = {
        "origin": str(origin),
        "package": dataset.source.package,
        "version": dataset.source.version,
        "files": dict(dataset.source.files),
    }
    target = data_root / dataset.name
    read = partial(read_prepared, dataset, target)
    return Job(dataset, data_root, target, dataset.name, source, ("prepare", dataset.prepare), source, read)


def read_prepared(dataset: Dataset, path: Path) -> FoundDataset:
    """Verify every byte of a prepared folder; ``DatasetError`` says what does not hold."""
    manifest = read_manifest(dataset, path)
    # Without pins (a vendor's dataset) the manifest at least says which bytes were written.
    expected = dataset.payload or manifest["files"]
    check_files(path, expected)
    return FoundDataset(
        name=dataset.name,
        path=path,
        splits=dict(dataset.splits),
        checksum=payload_checksum(expected),
        verified=bool(dataset.payload),
        notes=("checked: sha256 of every file of the payload",),
    )


def read_manifest(dataset: Dataset, path: Path) -> dict[str, Any]:
    """The manifest of a prepared folder; ``DatasetError`` where it is none or another dataset's."""
    manifest = _read_manifest(path)
    if manifest.get("dataset") != dataset.name or manifest.get("format") != FORMAT_VERSION:
        raise DatasetError(
            f"{path / MANIFEST} is of dataset {manifest.get('dataset')!r}, format {manifest.get('format')!r}; "
            f"expected {dataset.name!r}, format {FORMAT_VERSION}"
        )
    return manifest


def check_files(path: Path, expected: Mapping[str, str]) -> None:
    """Hold the bytes of files in ``path`` against their sha256; ``DatasetError`` names the first that differs."""
    names = sorted(expected)
    for filename, actual in zip(names, _sha256_all(path / name for name in names), strict=True):
        if isinstance(actual, OSError):
            raise DatasetError(f"{path / filename} cannot be read: {actual}") from actual
        if actual != expected[filename]:
            raise DatasetError(f"{path / filename} is corrupt: sha256 {actual}, expected {expected[filename]}")


def payload_checksum(files: Mapping[str, str]) -> str:
    """One sha256 for a payload: of the lines ``<sha256>  <file>`` sorted by file, as ``sha256sum`` prints them."""
    lines = [f"{checksum}  {filename}\n" for filename, checksum in sorted(files.items())]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def prepare_once(job: Job, say: Callable[[str], None]) -> FoundDataset:
    """Prepare the folder of a job unless another process does it first.

    Raises ``DatasetError`` when the preparation fails or gives other bytes than those pinned; nothing is
    published then, and nothing half-written is ever under the final name.
    """
    dataset, target = job.dataset, job.target
    with explained(dataset.name, job.data_root), locked(job.data_root, dataset.name, say) as lock:
        _remove_abandoned(job)
        try:
            return job.read()
        except DatasetError as error:
            reason = str(error)
        check_space(dataset.name, target, job.bytes_needed)
        say(f"preparing dataset {dataset.name} (once per machine) in {target} ...")
        temporary = _sibling(target, _PREPARING)
        temporary.mkdir(parents=True)
        try:
            _fill(job, temporary, lock, say)
            job.check()
            notes = _publish(job, temporary, reason)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        for note in notes:
            say(note)
        found = job.read()
    return replace(found, notes=found.notes + notes)


def _read_manifest(path: Path) -> dict[str, Any]:
    try:
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DatasetError(f"there is no {path / MANIFEST}") from error
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path} is not a prepared dataset, it has no readable {MANIFEST}: {error}") from error
    if not isinstance(manifest, dict) or not isinstance(manifest.get("files"), dict):
        raise DatasetError(f"{path / MANIFEST} does not describe a prepared dataset")
    return manifest


def _sha256_all(paths: Iterable[Path]) -> list[str | OSError]:
    """Of every file, some at a time: hashlib lets other threads run."""
    with ThreadPoolExecutor(min(4, len(os.sched_getaffinity(0)))) as threads:
        return list(threads.map(_sha256_or_error, paths))


def _sha256_or_error(path: Path) -> str | OSError:
    try:
        return _sha256(path)
    except OSError as error:
        return error


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sibling(target: Path, purpose: str) -> Path:
    # A dot first and dots inside: no dataset can have such a name.
    return target.with_name(f".{target.name}.{purpose}-{uuid.uuid4().hex[:12]}")


def _remove_abandoned(job: Job) -> None:
    """Called under the lock, where every temporary folder is that of a process which is gone."""
    for purpose in (_PREPARING, _REPLACED):
        for folder in job.target.parent.glob(f".{job.temporaries}.{purpose}-*"):
            shutil.rmtree(folder, ignore_errors=True)


def _fill(job: Job, folder: Path, lock: int, say: Callable[[str], None]) -> None:
    """Payload, checked, then the manifest, last; all of it on the disk when this returns."""
    dataset = job.dataset
    versions = _run_child(job, folder, lock, say)
    paths = sorted(folder.iterdir())
    files = {path.name: _raised(checksum) for path, checksum in zip(paths, _sha256_all(paths), strict=True)}
    if dataset.payload and files != dict(dataset.payload):
        differ = sorted(name for name in {*files, *dataset.payload} if files.get(name) != dataset.payload.get(name))
        raise DatasetError(
            f"dataset {dataset.name}: preparing it here gave other bytes than those that targets rest on, in "
            f"{', '.join(differ)} (with {versions}). Please report this; meanwhile copy the folder from a machine "
            f"where it works and give --dataset {dataset.name}=/path/to/folder."
        )
    manifest = _Manifest(FORMAT_VERSION, dataset.name, dict(dataset.splits), files, dict(job.source), versions)
    (folder / MANIFEST).write_text(json.dumps(asdict(manifest), indent=2) + "\n", encoding="utf-8")
    for path in (*sorted(folder.iterdir()), folder):
        sync(path)


def _raised(checksum: str | OSError) -> str:
    if isinstance(checksum, OSError):
        raise checksum
    return checksum


@dataclass(frozen=True)
class _Manifest:
    format: int
    dataset: str
    splits: dict[str, int]
    files: dict[str, str]  # name: sha256
    source: dict[str, Any]  # package: origin, package, version, files with their sha256; user: see user_arrays
    versions: dict[str, str]  # of what prepared it


def _run_child(job: Job, folder: Path, lock: int, say: Callable[[str], None]) -> dict[str, str]:
    """numpy lives in the child; the versions it used come back, and lines for ``say`` meanwhile."""
    command, function = job.child
    with (
        tempfile.TemporaryFile() as errors,
        subprocess.Popen(
            children.command(
                "pytest_flagperf.datasets", command, function, str(folder), json.dumps(dict(job.argument))
            ),
            cwd=folder,
            env=children.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            encoding="utf-8",
            errors="replace",
            pass_fds=(lock,),  # a child that outlives this process keeps the lock: see storage.locked
        ) as child,
    ):  # fmt: skip
        assert child.stdout is not None
        try:
            report = _listen(child.stdout, say)
        except BaseException:  # an interrupt, say: the child's work has become useless
            child.kill()
            raise
        status = child.wait()
        errors.seek(0)
        last_words = errors.read().decode("utf-8", "replace").strip()[-2000:]
    if status == 0 and "versions" in report:
        return {str(name): str(version) for name, version in report["versions"].items()}
    if report.get("errno") in (errno.ENOSPC, errno.EDQUOT):
        raise storage_error(job.dataset.name, job.data_root, OSError(report["errno"], os.strerror(report["errno"])))
    reason = report.get("error") or _reason(status, last_words)
    raise DatasetError(f"dataset {job.dataset.name} could not be prepared from {job.source['origin']}: {reason}")


def _reason(status: int, last_words: str) -> str:
    if status >= 0:
        return last_words or f"exit status {status}"
    killed = f"its process was killed by {signal.Signals(-status).name}; is there enough memory?"
    return f"{killed} {last_words}".rstrip()


def _listen(lines: Iterable[str], say: Callable[[str], None]) -> dict[str, Any]:
    """Pass on what the child says until it ends; its last line is its report."""
    report: dict[str, Any] = {}
    for line in lines:
        report = _json(line)
        if "say" in report:
            say(str(report["say"]))
    return report


def _json(line: str) -> dict[str, Any]:
    try:
        report = json.loads(line)
    except ValueError:
        return {}
    return report if isinstance(report, dict) else {}


def _publish(job: Job, temporary: Path, reason: str) -> tuple[str, ...]:
    """Rename into place. What stood there and was prepared by us goes; anything else is set aside, never deleted."""
    dataset, target = job.dataset, job.target
    notes: tuple[str, ...] = ()
    if os.path.lexists(target):
        ours = not target.is_symlink() and _prepared_by_us(dataset, target)
        aside = _sibling(target, _REPLACED if ours else "set-aside")
        os.rename(target, aside)
        kept = "" if ours else f"; what was there is now {aside}"
        notes = (f"dataset {dataset.name} was prepared again: {reason}{kept}",)
    os.rename(temporary, target)
    sync(target.parent)
    _remove_abandoned(job)
    return notes


def _prepared_by_us(dataset: Dataset, path: Path) -> bool:
    try:
        return bool(_read_manifest(path).get("dataset") == dataset.name)
    except DatasetError:
        return False
