"""``criteo_kaggle``: the arrays that workloads map, of ``train.txt``. Runs in child processes only.

The file is cut into chunks of whole rows. Their rows are counted, which says where each chunk's rows go, and then
parsed: both in one process a core. The cuts depend on the file alone, so the bytes written do too.
"""

from __future__ import annotations

import ctypes
import itertools
import multiprocessing
import os
import time
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from concurrent.futures import Executor
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from pytest_flagperf.datasets.criteo import CATEGORIES
from pytest_flagperf.datasets.criteo import LONGEST_LINE
from pytest_flagperf.datasets.criteo_parser import VOCABULARY
from pytest_flagperf.datasets.criteo_parser import Rows
from pytest_flagperf.datasets.criteo_parser import parse
from pytest_flagperf.datasets.criteo_parser import shapes
from pytest_flagperf.datasets.npy import npy_header
from pytest_flagperf.datasets.npy import write_npy
from pytest_flagperf.errors import DatasetError
from pytest_flagperf.launch.processes import die_with_parent


CHUNK = 32 << 20  # bytes: the work of a process between two signs of life, a fifth of a second
BLOCK = 512 << 10  # bytes: what is parsed at once stays in the cache of a core
SECONDS = 1.0, 10.0  # between two lines of progress: at least, and at most

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h


@dataclass(frozen=True)
class _Chunk:
    """Whole rows, ``start`` to ``end`` in bytes; ``first`` counts the rows before it."""

    start: int
    end: int
    first: int = 0


def prepare(
    source: Path,
    destination: Path,
    splits: Mapping[str, int],
    say: Callable[[str], None],
    *,
    processes: int | None = None,
    chunk: int = CHUNK,
) -> None:
    """Write, for each split, ``_categorical.npy`` int32 [N, 26], ``_dense.npy`` float32 [N, 13] and ``_labels.npy``
    float32 [N], 0 or 1, and ``vocabulary_sizes.npy`` int64 [26]. Rows stay in the order of the file, the first
    split's first. ``processes`` is by default one for each core that this process may run on.

    Dense columns are log(max(x, 0) + 1), and 0 when empty: Naumov et al., "Deep Learning Recommendation Model", as
    its code does (facebookresearch/dlrm, data_utils.py and dlrm_data_pytorch.py). Categories are hashed field by field
    (Weinberger et al. 2009, "Feature Hashing for Large Scale Multitask Learning"): 1 + token mod 100,000, the tokens
    being hashes already; 0 when empty.

    Raises ``DatasetError`` for a malformed row, another number of rows or a process that was killed.
    """
    cuts = _cut(source, chunk)
    processes = max(1, min(processes or len(os.sched_getaffinity(0)), len(cuts)))
    try:
        with _pool(processes) as pool:
            counting = pool.map(partial(_count, source), cuts)
            counts = list(_reported(counting, cuts, say, f"counting the rows of {source}"))
            _check_rows(source, sum(counts), splits)
            _create(destination, splits)
            firsts = itertools.accumulate(counts, initial=0)
            chunks = [_Chunk(cut.start, cut.end, first) for cut, first in zip(cuts, firsts, strict=False)]
            converting = pool.map(partial(_convert, source, destination, dict(splits)), chunks)
            doing = f"preparing {sum(counts):,} rows in {processes} processes"
            converted = sum(_reported(converting, chunks, say, doing))
    except BrokenProcessPool as error:
        raise DatasetError(f"a process that parsed {source} was killed; is there enough memory? {error}") from error
    _check_rows(source, converted, splits)


@contextmanager
def _pool(processes: int) -> Iterator[Executor]:
    """Processes that end with this one, however it goes. What has not begun when one fails is not begun."""
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(processes, context, initializer=_start_worker, initargs=(os.getpid(),))
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _start_worker(parent: int) -> None:
    die_with_parent()
    if os.getppid() != parent:
        os._exit(1)
    # A block's arrays of a few MB are allocated over and over; given back to the kernel each time, as glibc does by
    # default, faulting their pages in again takes twice as long as parsing. Another libc may lack mallopt.
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, 32 << 20)
        mallopt(_M_TRIM_THRESHOLD, 1 << 30)


def _cut(source: Path, size: int) -> list[_Chunk]:
    """Chunks of about ``size`` bytes, each of which ends after a newline or where the file does."""
    total = source.stat().st_size
    ends = []
    with source.open("rb") as file:
        for offset in range(size, total, size):
            file.seek(offset)
            # Where a line is too long, there is no cut: it is found malformed when its chunk is parsed.
            if file.readline(LONGEST_LINE).endswith(b"\n"):
                ends.append(file.tell())
    edges = sorted({0, *ends, total})
    return [_Chunk(start, end) for start, end in itertools.pairwise(edges)]


def _reported(results: Iterable[int], chunks: list[_Chunk], say: Callable[[str], None], doing: str) -> Iterator[int]:
    """Pass on what each chunk gave, in their order, and say how far it is: every tenth, or every ten seconds."""
    start = said = time.monotonic()
    total, tenths = chunks[-1].end if chunks else 0, 0
    least, most = SECONDS
    for chunk, result in zip(chunks, results, strict=True):
        now = time.monotonic()
        tenth = chunk.end * 10 // total
        if chunk.end == total or (tenth > tenths and now - said >= least) or now - said >= most:
            said, tenths = now, tenth
            say(f"{doing}: {chunk.end / total:.0%} in {now - start:.0f} s")
        yield result


def _count(source: Path, chunk: _Chunk) -> int:
    """Rows, one that no newline ends included."""
    rows = 0
    with source.open("rb") as file:
        file.seek(chunk.start)
        left, block = chunk.end - chunk.start, b"\n"
        while left and (block := file.read(min(left, BLOCK))):
            rows += block.count(b"\n")
            left -= len(block)
    return rows + (not block.endswith(b"\n"))


def _check_rows(source: Path, rows: int, splits: Mapping[str, int]) -> None:
    if rows != sum(splits.values()):
        raise DatasetError(f"{source} has {rows:,} rows, expected {sum(splits.values()):,}")


def _create(destination: Path, splits: Mapping[str, int]) -> None:
    """Every file, its header written, as long as it is going to be."""
    write_npy(destination / "vocabulary_sizes.npy", np.full(CATEGORIES, VOCABULARY, "<i8"))
    for split, rows in splits.items():
        for part, (descr, shape) in shapes(rows).items():
            header = npy_header(descr, shape)
            with (destination / f"{split}_{part}.npy").open("wb") as file:
                file.write(header)
                file.truncate(len(header) + int(np.prod(shape)) * np.dtype(descr).itemsize)


def _convert(source: Path, destination: Path, splits: Mapping[str, int], chunk: _Chunk) -> int:
    """Parse a chunk and write its rows where they belong; gives their number."""
    row = chunk.first
    for block in _blocks(source, chunk):
        rows = parse(block, row + 1)
        _write(destination, splits, rows, row)
        row += len(rows.labels)
    return row - chunk.first


def _blocks(source: Path, chunk: _Chunk) -> Iterator[bytes]:
    """Whole lines, half a MB at a time; the last line of the file gets the newline that it may lack."""
    with source.open("rb") as file:
        file.seek(chunk.start)
        rest, left = b"", chunk.end - chunk.start
        while left and (read := file.read(min(left, BLOCK))):
            left -= len(read)
            lines, newline, rest = (rest + read).rpartition(b"\n")
            if newline:
                yield lines + newline
            if len(rest) > LONGEST_LINE:
                break  # no row is that long: parsed as it is, it is found malformed
        if rest:
            yield rest + b"\n"


def _write(destination: Path, splits: Mapping[str, int], rows: Rows, first: int) -> None:
    """Rows from number ``first``, from 0, into the files of the split, or of both splits, that they are in.

    Not through a mapping: on a full disk that ends in SIGBUS, and a write in an error that says so.
    """
    start = 0
    for split, count in splits.items():
        begin, end = max(first, start), min(first + len(rows.labels), start + count)
        for part, (descr, shape) in shapes(count).items():
            if begin < end:
                array = getattr(rows, part)[begin - first : end - first]
                header = len(npy_header(descr, shape))
                _write_at(destination / f"{split}_{part}.npy", header + (begin - start) * array[0].nbytes, array)
        start += count


def _write_at(path: Path, offset: int, array: Any) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(array.data)
