"""The data root: its lock for each dataset, and what to say when the disk refuses."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from collections.abc import Callable
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pytest_flagperf.errors import DatasetError


LOCKS = ".locks"
_FULL = {errno.ENOSPC, errno.EDQUOT}
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}


@contextmanager
def locked(data_root: Path, name: str, say: Callable[[str], None]) -> Iterator[int]:
    """Hold ``DATA_ROOT/.locks/NAME.lock`` exclusively; gives the file descriptor, to hand on to a child.

    An flock belongs to the open file: it ends when the last process that holds the descriptor is gone, however
    it went. So a child that outlives its parent keeps the lock, and nothing seen under it is still being written.
    """
    (data_root / LOCKS).mkdir(parents=True, exist_ok=True)
    descriptor = os.open(data_root / LOCKS / f"{name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting for another process that prepares dataset {name} in {data_root} ...")
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def explained(name: str, data_root: Path) -> Iterator[None]:
    """Turn an ``OSError`` of the data root into a ``DatasetError`` that says what to do."""
    try:
        yield
    except OSError as error:
        raise storage_error(name, data_root, error) from error


def storage_error(name: str, data_root: Path, error: OSError) -> DatasetError:
    """The message for a full, a read-only or another troubled data root."""
    elsewhere = "choose another one with --data-root (FLAGPERF_DATA_ROOT)"
    if error.errno in _FULL:
        return DatasetError(
            f"dataset {name} could not be prepared: no space left in the data root {data_root} "
            f"({_free(data_root)} free there). Free some, or {elsewhere}. {error}"
        )
    if error.errno in _FORBIDDEN:
        return DatasetError(
            f"dataset {name} must be prepared and the data root {data_root} cannot be written. Prepare it there "
            f"once as a user who may write, or {elsewhere}. {error}"
        )
    return DatasetError(f"dataset {name} could not be prepared in the data root {data_root}: {error}; or {elsewhere}.")


def check_space(name: str, path: Path, needed: int) -> None:
    """Raise ``DatasetError`` where fewer than ``needed`` bytes are free for ``path``: better now than in an hour."""
    free = _free_bytes(path)
    if free < needed:
        raise DatasetError(
            f"dataset {name} could not be prepared: {path} needs {needed:,} bytes and {free:,} are free there. "
            "Free some, or choose another data root with --data-root (FLAGPERF_DATA_ROOT)."
        )


def _free(path: Path) -> str:
    return f"{_free_bytes(path) / 1e6:,.1f} MB"


def _free_bytes(path: Path) -> int:
    existing = next(folder for folder in (path, *path.parents) if folder.exists())
    return shutil.disk_usage(existing).free


def sync(path: Path) -> None:
    """Make a file, or the names in a folder, survive a crash of the machine."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
