"""Rows of Criteo's text to arrays, a block of lines at a time. Runs in child processes only.

Eight bytes are handled as one 64-bit word, in all rows of a block at once: a loop over rows in Python takes seven
times as long. That a row is well formed is decided twice, here for a block, in ``criteo.row_problem`` for a row.
"""

from __future__ import annotations

from typing import Any
from typing import NamedTuple

import numpy as np

from pytest_flagperf.datasets.criteo import CATEGORIES
from pytest_flagperf.datasets.criteo import COLUMNS
from pytest_flagperf.datasets.criteo import DIGITS
from pytest_flagperf.datasets.criteo import INTEGERS
from pytest_flagperf.datasets.criteo import row_problem
from pytest_flagperf.datasets.criteo import shown
from pytest_flagperf.errors import DatasetError


BUCKETS = 100_000
VOCABULARY = BUCKETS + 1  # of each field: id 0 is for an empty one

_WORD = 8  # bytes
_TAB, _NEWLINE, _RETURN, _MINUS, _ZERO = b"\t\n\r-0"


def _each(byte: int) -> Any:
    """A word of eight equal bytes."""
    return np.uint64(byte * 0x0101010101010101)


def _u(value: int) -> Any:
    return np.uint64(value)


class Rows(NamedTuple):
    """``categorical`` int32 [N, 26], ``dense`` float32 [N, 13], ``labels`` float32 [N]."""

    categorical: Any
    dense: Any
    labels: Any


def parse(block: bytes, first_row: int) -> Rows:
    """Every line of ``block``, each of which ends with a newline; ``first_row`` is the number of the first, from 1.

    Raises ``DatasetError`` that names the first malformed row and shows it.
    """
    rows = _parse(block)
    if rows is None:
        for number, line in enumerate(block.split(b"\n")[:-1], start=first_row):
            problem = row_problem(line)
            if problem:
                raise DatasetError(f"row {number:,}: {problem}: {shown(line)}")
        raise AssertionError(f"rows from {first_row:,} on are malformed as a block and well formed one by one")
    return rows


def _parse(block: bytes) -> Rows | None:
    """Nothing where any row is malformed."""
    padded = np.frombuffer(bytes(_WORD) + block + bytes(_WORD), np.uint8)
    # A row holds no other byte under 13, the carriage return; what does is found to be no separator.
    separators = np.flatnonzero(padded[_WORD:-_WORD] < _RETURN) + _WORD
    if len(separators) % COLUMNS:
        return None
    # [40, N]: a column is contiguous.
    ends = np.ascontiguousarray(separators.reshape(-1, COLUMNS).T)
    if not ((padded[ends[:-1]] == _TAB).all() and (padded[ends[-1]] == _NEWLINE).all()):
        return None
    starts = np.empty_like(ends)
    starts[0, 0], starts[0, 1:], starts[1:] = _WORD, ends[-1, :-1] + 1, ends[:-1] + 1
    ends[-1] -= padded[ends[-1] - 1] == _RETURN
    words: Any = np.ndarray(len(padded) - _WORD + 1, "<u8", padded, strides=(1,))  # the eight bytes from any byte on
    labels = _labels(padded, starts[0], ends[0])
    dense = _dense(padded, words, starts[1 : 1 + INTEGERS], ends[1 : 1 + INTEGERS])
    categorical = _categorical(words, starts[1 + INTEGERS :], ends[1 + INTEGERS :])
    if labels is None or dense is None or categorical is None:
        return None
    return Rows(categorical, dense, labels)


def _labels(padded: Any, starts: Any, ends: Any) -> Any:
    values = padded[starts] - np.uint8(_ZERO)  # wraps below "0"
    return values.astype("<f4") if (ends - starts == 1).all() and (values <= 1).all() else None


def _dense(padded: Any, words: Any, starts: Any, ends: Any) -> Any:
    """float32 [N, 13]: log(max(x, 0) + 1), and 0 for an empty field; None where one is no integer."""
    negative = (padded[starts] == _MINUS) & (ends > starts)
    starts = starts + negative
    lengths = ends - starts
    if (negative & (lengths == 0)).any() or lengths.max(initial=0) > DIGITS:
        return None
    values, valid = _decimal(words[starts], np.minimum(lengths, _WORD))
    for column, row in np.argwhere(lengths > _WORD):  # none in the challenge's file
        text = padded[starts[column, row] : ends[column, row]].tobytes()
        if not text.isdigit():
            return None
        values[column, row] = int(text)
    if not valid.all():
        return None
    values[negative] = 0
    # Rounded once, from float64: the same bytes on every processor.
    return np.ascontiguousarray(np.log(values + 1.0).astype("<f4").T)


def _decimal(words: Any, lengths: Any) -> tuple[Any, Any]:
    """The integer in the first ``lengths`` bytes (at most 8) of each word, and whether all of them are digits."""
    # Digits move to the upper bytes, where the last ones of a number are; what moves in below counts as zeros.
    shift = ((_WORD - lengths) * 8).astype(np.uint64)
    digits = np.where(lengths > 0, (words ^ _each(_ZERO)) << (shift & _u(63)), _u(0))
    valid = ((digits + _each(6)) | digits) & _each(0xF0) == 0
    pairs = (digits * _u(10) + (digits >> _u(8))) & _u(0x00FF00FF00FF00FF)
    fours = (pairs * _u(100) + (pairs >> _u(16))) & _u(0x0000FFFF0000FFFF)
    return (fours * _u(10_000) + (fours >> _u(32))) & _u(0xFFFFFFFF), valid


def _categorical(words: Any, starts: Any, ends: Any) -> Any:
    """int32 [N, 26]: 0 for an empty field, else 1 + token mod 100,000; None where one is no token."""
    lengths = ends - starts
    empty = lengths == 0
    if not (empty | (lengths == _WORD)).all():
        return None
    tokens, valid = _hexadecimal(words[starts])
    if not (valid | empty).all():
        return None
    # numpy divides by a constant with a multiplication, and has nothing of the kind for the remainder.
    ids = tokens - tokens // np.uint32(BUCKETS) * np.uint32(BUCKETS) + np.uint32(1)
    ids[empty] = 0
    return np.ascontiguousarray(ids.astype("<i4").T)


def _hexadecimal(words: Any) -> tuple[Any, Any]:
    """The number that each word's eight lower-case digits make, uint32, and whether all eight are such digits."""
    letter = (words >> _u(6)) & _each(1)
    digits = (words & _each(0x0F)) + letter * _u(9)  # 10 to 15 for a letter
    invalid = (words & _each(0xF0)) ^ (_each(0x30) + letter * _u(0x30))  # "0" is 0x30, "a" is 0x61
    invalid |= digits & _each(0xF0)
    invalid |= ((digits + _each(6)) >> _u(4) & _each(1)) ^ letter
    pairs = (digits << _u(4) | digits >> _u(8)) & _u(0x00FF00FF00FF00FF)
    fours = (pairs << _u(8) | pairs >> _u(16)) & _u(0x0000FFFF0000FFFF)
    return (fours << _u(16) | fours >> _u(32)).astype(np.uint32), invalid == 0


def shapes(rows: int) -> dict[str, tuple[str, tuple[int, ...]]]:
    """``part: (dtype, shape)`` of a split's three arrays."""
    return {"categorical": ("<i4", (rows, CATEGORIES)), "dense": ("<f4", (rows, INTEGERS)), "labels": ("<f4", (rows,))}
