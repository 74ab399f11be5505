"""Files of engines and compilers: all of them below the engine's own directory, and what is said where one fails."""

from __future__ import annotations

import contextlib
import errno
import os
import re
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

_CACHES = ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR")


@contextlib.contextmanager
def inductor_caches(directory: Path) -> Iterator[None]:
    """Inductor's and Triton's caches below ``directory``, and temporary files of the compilers that they start.

    What ``compile_time`` is must not depend on who has compiled this before. The headers that Inductor compiles once
    for all go into the directory of temporary files whatever its cache is; so do the files of a C++ compiler, which
    stay where one is killed.

    The caches stay where they are until the process ends, as the case does: compiled code comes back to them, such as
    for a shape that it has not met. Where it fails there is none, and all is as it was before.
    """
    caches, temporary = directory / "inductor", directory / "tmp"
    temporary.mkdir(parents=True, exist_ok=True)
    before = {name: os.environ.get(name) for name in (*_CACHES, "TMPDIR")}
    default = tempfile.tempdir
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(caches)
    os.environ["TRITON_CACHE_DIR"] = str(caches / "triton")
    os.environ["TMPDIR"] = tempfile.tempdir = str(temporary)
    try:
        yield
    except BaseException:
        for left in (caches, temporary):
            shutil.rmtree(left, ignore_errors=True)
        for name in _CACHES:
            _restore(name, before[name])
        raise
    finally:
        tempfile.tempdir = default
        _restore("TMPDIR", before["TMPDIR"])


def _restore(name: str, value: str | None) -> None:
    """An environment variable, as it was before."""
    if value is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = value


@contextlib.contextmanager
def written(path: Path) -> Iterator[None]:
    """Makes the directory of ``path``. Raises ``ConfigurationError`` that names it where it cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except Exception as error:
        number = _number(error)
        if number not in _NO_PLACE:
            raise
        raise ConfigurationError(
            f"{path} cannot be written: {os.strerror(number)}. Make room there, or name another place with "
            "--flagperf-dir"
        ) from error


def _number(error: Exception) -> int:
    """Of an error of the operating system: its own, or as libraries in Rust tell it, such as safetensors; else 0."""
    if isinstance(error, OSError):
        return error.errno or 0
    told = re.search(r"\(os error (\d+)\)", str(error))
    return int(told[1]) if told else 0


def size_of(path: Path) -> int:
    """Bytes of an exported model: of the file and of the weights that an exporter put beside it, or of a directory.

    ONNX holds 2 GiB at most; the weights of a larger model are in ``<name>.data``.
    """
    if path.is_dir():
        return sum(one.stat().st_size for one in path.rglob("*") if one.is_file())
    beside = path.with_name(path.name + ".data")
    return sum(one.stat().st_size for one in (path, beside) if one.is_file())


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
