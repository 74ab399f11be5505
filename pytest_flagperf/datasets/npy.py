"""Writing ``.npy`` files whose bytes depend on nothing but the array, and how many rows one has; no numpy."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from pathlib import Path
from typing import Any


# numpy.lib.format, "Format Version 1.0": the magic, the length of the header in 2 bytes, the header padded so
# that the data begin at a multiple of 64. numpy.save changes the padding between versions (1.23 did), and
# the sha256 of these files is pinned.
_MAGIC = b"\x93NUMPY\x01\x00"
_ALIGNMENT = 64


def npy_header(descr: str, shape: Sequence[int]) -> bytes:
    """What precedes the data of a C-contiguous array; ``descr`` is numpy's ``dtype.str``, such as ``<f4``."""
    header = repr({"descr": descr, "fortran_order": False, "shape": tuple(map(int, shape))})
    padding = -(len(_MAGIC) + 2 + len(header) + 1) % _ALIGNMENT
    text = header.encode("latin1") + b" " * padding + b"\n"
    return _MAGIC + len(text).to_bytes(2, "little") + text


def write_npy(path: Path, array: Any) -> None:
    """Write a contiguous little-endian numpy array; ``numpy.load`` reads it, memory-mapped too."""
    with path.open("wb") as file:
        file.write(npy_header(array.dtype.str, array.shape))
        file.write(array.tobytes(order="C"))


def npy_rows(path: Path) -> int:
    """The length of the first axis of the array in a file; raises ``ValueError`` where it holds none."""
    with path.open("rb") as file:
        magic = file.read(8)
        # Bytes of the length of the header, by the version of the format (numpy.lib.format).
        digits = {1: 2, 2: 4, 3: 4}.get(magic[6] if len(magic) == 8 and magic[:6] == _MAGIC[:6] else 0)
        if digits is None:
            raise ValueError("it is no array that numpy.save wrote")
        header = file.read(int.from_bytes(file.read(digits), "little"))
    try:
        shape = ast.literal_eval(header.decode("utf-8").strip())["shape"]
        return int(shape[0])
    except (SyntaxError, KeyError, IndexError, TypeError) as error:
        raise ValueError(f"its header is damaged: {error}") from error
