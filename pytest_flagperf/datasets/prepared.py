"""Package datasets: prepared once per data root, published whole or not at all, verified at every use."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Callable
from collections.abc import Mapping
from dataclasses import asdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytest_flagperf.datasets.model import Dataset
from pytest_flagperf.datasets.model import FoundDataset
from pytest_flagperf.datasets.storage import explained
from pytest_flagperf.datasets.storage import locked
from pytest_flagperf.datasets.storage import storage_error
from pytest_flagperf.datasets.storage import sync
from pytest_flagperf.errors import DatasetError


MANIFEST = "manifest.json"
FORMAT_VERSION = 1
_PREPARING, _REPLACED = "preparing", "replaced"


def read_prepared(dataset: Dataset, path: Path) -> FoundDataset:
    """Verify every byte of a prepared folder; ``DatasetError`` says what does not hold."""
    manifest = _read_manifest(path)
    if manifest.get("dataset") != dataset.name or manifest.get("format") != FORMAT_VERSION:
        raise DatasetError(
            f"{path / MANIFEST} is of dataset {manifest.get('dataset')!r}, format {manifest.get('format')!r}; "
            f"expected {dataset.name!r}, format {FORMAT_VERSION}"
        )
    # Without pins (a vendor's dataset) the manifest at least says which bytes were written.
    expected = dataset.payload or manifest.get("files", {})
    for filename, checksum in sorted(expected.items()):
        _check_file(path / filename, checksum)
    return FoundDataset(
        name=dataset.name,
        path=path,
        splits=dict(dataset.splits),
        checksum=payload_checksum(expected),
        verified=bool(dataset.payload),
        notes=("checked: sha256 of every file of the payload",),
    )


def payload_checksum(files: Mapping[str, str]) -> str:
    """One sha256 for a payload: of the lines ``<sha256>  <file>`` sorted by file, as ``sha256sum`` prints them."""
    lines = [f"{checksum}  {filename}\n" for filename, checksum in sorted(files.items())]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def prepare_once(dataset: Dataset, data_root: Path, origin: Path, say: Callable[[str], None]) -> FoundDataset:
    """Prepare ``DATA_ROOT/NAME`` from ``origin`` unless another process does it first.

    Raises ``DatasetError`` when the preparation fails or gives other bytes than those pinned; nothing is
    published then, and nothing half-written is ever under the final name.
    """
    with explained(dataset.name, data_root), locked(data_root, dataset.name, say) as lock:
        target = data_root / dataset.name
        _remove_abandoned(dataset.name, data_root)
        try:
            return read_prepared(dataset, target)
        except DatasetError as error:
            reason = str(error)
        say(f"preparing dataset {dataset.name} (once per machine) in {target} ...")
        temporary = _sibling(target, _PREPARING)
        temporary.mkdir()
        try:
            _fill(dataset, temporary, origin, data_root, lock)
            notes = _publish(dataset, temporary, target, reason)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        for note in notes:
            say(note)
        found = read_prepared(dataset, target)
    return FoundDataset(**{**vars(found), "notes": found.notes + notes})


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


def _check_file(path: Path, expected: str) -> None:
    try:
        actual = _sha256(path)
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error}") from error
    if actual != expected:
        raise DatasetError(f"{path} is corrupt: sha256 {actual}, expected {expected}")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _sibling(target: Path, purpose: str) -> Path:
    # A dot first and dots inside: no dataset can have such a name.
    return target.with_name(f".{target.name}.{purpose}-{uuid.uuid4().hex[:12]}")


def _remove_abandoned(name: str, data_root: Path) -> None:
    """Called under the lock, where every temporary folder is that of a process which is gone."""
    for purpose in (_PREPARING, _REPLACED):
        for folder in data_root.glob(f".{name}.{purpose}-*"):
            shutil.rmtree(folder, ignore_errors=True)


def _fill(dataset: Dataset, folder: Path, origin: Path, data_root: Path, lock: int) -> None:
    """Payload, checked, then the manifest, last; all of it on the disk when this returns."""
    versions = _run_child(dataset, folder, origin, data_root, lock)
    files = {path.name: _sha256(path) for path in sorted(folder.iterdir())}
    if dataset.payload and files != dict(dataset.payload):
        differ = sorted(name for name in {*files, *dataset.payload} if files.get(name) != dataset.payload.get(name))
        raise DatasetError(
            f"dataset {dataset.name}: preparing it here gave other bytes than those that targets rest on, in "
            f"{', '.join(differ)} (with {versions}). Please report this; meanwhile copy the folder from a machine "
            f"where it works and give --dataset {dataset.name}=/path/to/folder."
        )
    manifest = _Manifest(FORMAT_VERSION, dataset.name, dict(dataset.splits), files, _source(dataset, origin), versions)
    (folder / MANIFEST).write_text(json.dumps(asdict(manifest), indent=2) + "\n", encoding="utf-8")
    for path in (*sorted(folder.iterdir()), folder):
        sync(path)


@dataclass(frozen=True)
class _Manifest:
    format: int
    dataset: str
    splits: dict[str, int]
    files: dict[str, str]  # name: sha256
    source: dict[str, Any]  # origin, package, version, files with their sha256
    versions: dict[str, str]  # of what prepared it


def _source(dataset: Dataset, origin: Path) -> dict[str, Any]:
    assert dataset.source is not None
    source = dataset.source
    return {
        "origin": str(origin),
        "package": source.package,
        "version": source.version,
        "files": dict(source.files),
    }


def _run_child(dataset: Dataset, folder: Path, origin: Path, data_root: Path, lock: int) -> dict[str, str]:
    """numpy lives in the child; the versions it used come back."""
    command = [
        sys.executable, "-m", "pytest_flagperf.datasets", "prepare", dataset.prepare, str(folder),
        json.dumps(_source(dataset, origin)),
    ]  # fmt: skip
    child = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": _python_path()},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        pass_fds=(lock,),  # a child that outlives this process keeps the lock: see storage.locked
        check=False,
    )
    report = _last_line(child.stdout)
    if child.returncode == 0 and "versions" in report:
        return {str(name): str(version) for name, version in report["versions"].items()}
    if report.get("errno") in (errno.ENOSPC, errno.EDQUOT):
        raise storage_error(dataset.name, data_root, OSError(report["errno"], os.strerror(report["errno"])))
    reason = report.get("error") or child.stderr.strip()[-2000:] or f"exit status {child.returncode}"
    raise DatasetError(f"dataset {dataset.name} could not be prepared from {origin}: {reason}")


def _python_path() -> str:
    """This package for the child, wherever pytest found it, then what the user set; absolute, as cwd differs."""
    own = str(Path(__file__).resolve().parents[2])
    users = [os.path.abspath(path) for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    return os.pathsep.join([own, *users])


def _last_line(stdout: str) -> dict[str, Any]:
    try:
        report = json.loads(stdout.splitlines()[-1])
    except (IndexError, ValueError):
        return {}
    return report if isinstance(report, dict) else {}


def _publish(dataset: Dataset, temporary: Path, target: Path, reason: str) -> tuple[str, ...]:
    """Rename into place. What stood there and was prepared by us goes; anything else is set aside, never deleted."""
    notes: tuple[str, ...] = ()
    if os.path.lexists(target):
        ours = not target.is_symlink() and _prepared_by_us(dataset, target)
        aside = _sibling(target, _REPLACED if ours else "set-aside")
        os.rename(target, aside)
        kept = "" if ours else f"; what was there is now {aside}"
        notes = (f"dataset {dataset.name} was prepared again: {reason}{kept}",)
    os.rename(temporary, target)
    sync(target.parent)
    _remove_abandoned(dataset.name, target.parent)
    return notes


def _prepared_by_us(dataset: Dataset, path: Path) -> bool:
    try:
        return bool(_read_manifest(path).get("dataset") == dataset.name)
    except DatasetError:
        return False
