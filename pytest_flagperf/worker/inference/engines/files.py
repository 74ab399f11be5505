"""Files of engines and compilers: all of them below the engine's own directory, and what is said where one fails."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from pytest_flagperf.errors import ConfigurationError
from pytest_flagperf.errors import FlagPerfError
from pytest_flagperf.errors import InvalidMeasurement


_NO_PLACE = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS),
    *(errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST, errno.EISDIR),
)


@contextlib.contextmanager
def inductor_caches(directory: Path) -> Iterator[None]:
    """Inductor's and Triton's caches below ``directory``, and temporary files of the compilers that they start.

    What ``compile_time`` is must not depend on who has compiled this before. The headers that Inductor compiles once
    for all go into the directory of temporary files whatever its cache is; so do the files of a C++ compiler, which
    stay where one is killed.
    """
    caches, temporary = directory / "inductor", directory / "tmp"
    temporary.mkdir(parents=True, exist_ok=True)
    before = os.environ.get("TMPDIR"), tempfile.tempdir
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(caches)
    os.environ["TRITON_CACHE_DIR"] = str(caches / "triton")
    os.environ["TMPDIR"] = tempfile.tempdir = str(temporary)
    try:
        yield
    except BaseException:
        for left in (caches, temporary):
            shutil.rmtree(left, ignore_errors=True)
        raise
    finally:
        tempfile.tempdir = before[1]
        if before[0] is None:
            del os.environ["TMPDIR"]
        else:
            os.environ["TMPDIR"] = before[0]


@contextlib.contextmanager
def written(path: Path) -> Iterator[None]:
    """Makes the directory of ``path``. Raises ``ConfigurationError`` that names it where it cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        if error.errno not in _NO_PLACE:
            raise
        raise ConfigurationError(
            f"{path} cannot be written: {error.strerror}. Make room there, or name another place with --flagperf-dir"
        ) from error


@contextlib.contextmanager
def read(path: Path, engine: str) -> Iterator[None]:
    """Raises ``InvalidMeasurement`` that names the file where the engine cannot make anything of it."""
    try:
        yield
    except FlagPerfError:
        raise
    except Exception as error:
        # Each engine raises types of its own, some of them below Exception; what it says is what there is.
        raise InvalidMeasurement(f"engine {engine} cannot use {path}: {error}") from error
