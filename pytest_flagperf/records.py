"""Files of a run directory: written whole or by the line, by several processes, and read whatever became of them."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec


# What is decoded as a whole: many times the largest session of operators.
MOST_BYTES = 512 * 2**20

# What decoding of bytes that anybody may have written raises: msgspec tells of a text that is no UTF-8 as Python does.
UNDECODABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def read_whole(path: Path) -> bytes:
    """The content of a file that is decoded as a whole. Raises ``OSError`` for one larger than any honest one."""
    with open(path, "rb") as file:
        content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise OSError(errno.EFBIG, f"it is larger than {MOST_BYTES / 2**20:g} MiB")
    return content


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that a reader sees all of it or nothing, whatever happens in between."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def write_json(path: Path, document: Any) -> None:
    """Write JSON atomically, indented for a person."""
    write_atomically(path, json.dumps(document, indent=2, sort_keys=False, default=str).encode() + b"\n")


def append_line(path: Path, record: Mapping[str, Any], *, sync: bool = True) -> None:
    """Append one JSON line that several processes may append to; with ``sync`` it is on the disk afterwards.

    Without, it outlives this process, but not a host that loses power in the next seconds.
    A torn last line, left by a process that was killed while it wrote, is ended first, so that it spoils no other.
    """
    with open(path, "a+b", buffering=0) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        end = file.seek(0, os.SEEK_END)
        torn = False
        if end:
            file.seek(end - 1)
            torn = file.read(1) != b"\n"
        file.write((b"\n" if torn else b"") + json.dumps(record, default=str).encode() + b"\n")
        if sync:
            os.fsync(file.fileno())


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a JSON-lines file; a torn one is left out."""
    found = []
    for line in read_whole(path).decode("utf-8", errors="replace").splitlines():
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(record, dict):
            found.append(record)
    return found
