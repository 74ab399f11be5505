"""What DeepBench published: a column of comparison, read only when somebody asks for it.

5,428 rows of 18 result workbooks, 2016 to 2019. A published time is the mean of many calls, cut to whole microseconds;
the rates are computed from the times anew, since some sheets' formulas are wrong (``notes`` says where).
"""

from __future__ import annotations

import lzma
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import replace
from functools import cache
from pathlib import Path

import msgspec

from pytest_flagperf.errors import ConfigurationError
from pytest_flagperf.operators.problems import Problem


SCHEMA_VERSION = 1

# Family, problem id, direction, precision.
Key = tuple[str, str, str, str]

_FILE = Path(__file__).parents[1] / "data" / "deepbench_published.json.xz"


@dataclass(frozen=True)
class Published:
    """One published time.

    ``time`` in µs, ``tflops`` in TFLOP/s (int8: TOP/s; None for an all-reduce). ``arithmetic`` is what the precision
    meant there. ``dense_time`` (µs) stands beside sparse products, ``ranks`` beside an all-reduce. ``again`` are the
    times of the same problem further down the list, where DeepBench measures it twice.
    """

    processor: str
    set: str
    family: str
    id: str
    direction: str
    precision: str
    arithmetic: str
    time: float
    tflops: float | None
    workbook: str
    sheet: str
    row: int
    notes: tuple[str, ...] = ()
    dense_time: float | None = None
    ranks: int | None = None
    again: tuple[float, ...] = ()

    @property
    def source(self) -> str:
        """Where it stands: workbook, sheet and row."""
        return f"DeepBench {self.workbook}, sheet {self.sheet!r}, row {self.row}"


class _Row(msgspec.Struct, frozen=True, array_like=True):
    processor: int
    set: str
    family: str
    id: str
    precision: str
    arithmetic: int
    figures: list[tuple[str, float, float | None]]
    sheet: int
    row: int
    notes: list[int]
    dense_time: float | None
    ranks: int | None


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    schema_version: int
    source: dict[str, str]
    processors: list[str]
    sheets: list[tuple[str, str]]
    arithmetic: list[str]
    notes: list[str]
    records: list[_Row]


def key(problem: Problem, direction: str, precision: str, ranks: int | None = None) -> Key:
    """Where a problem's time is found in `times`; ``ranks`` for an all-reduce, which has one time for each number."""
    return _key(problem.family, problem.id, direction, precision, ranks)


def processors() -> list[str]:
    """The full names of the processors there are results of, sorted."""
    return sorted(_read().processors)


def find(name: str) -> str:
    """The full name of the processor that ``name`` means: ``V100``, ``t4``, ``1080 Ti``.

    A whole name counts before words of it, and words before parts of words. Raises ``ConfigurationError`` for a name
    that means none, or more than one, and lists the candidates.
    """
    wanted = name.casefold().split()
    for match in (_is_name, _ends_in, _has_part):
        found = [full for full in processors() if match(full.casefold(), wanted)]
        if len(found) == 1:
            return found[0]
        if found:
            raise ConfigurationError(f"published results: {name!r} may be any of {', '.join(found)}")
    raise ConfigurationError(f"published results: there are none of {name!r}; there are of {', '.join(processors())}")


def times(processor: str) -> Mapping[Key, Published]:
    """All published times of one processor, by `key`. ``processor`` as `find` understands it, with its errors."""
    return _times(find(processor))


def families(processor: str) -> set[str]:
    """The families that anything is published of for a processor; named as `find` understands it, with its errors."""
    return {family for family, *_ in times(processor)}


@cache
def _times(processor: str) -> Mapping[Key, Published]:
    file = _read()
    found: dict[Key, Published] = {}
    for row in file.records:
        if file.processors[row.processor] != processor:
            continue
        for direction, time, tflops in row.figures:
            where = _key(row.family, row.id, direction, row.precision, row.ranks)
            if where in found:
                found[where] = replace(found[where], again=(*found[where].again, time))
            else:
                found[where] = _published(file, row, direction, time, tflops)
    return found


def _published(file: _File, row: _Row, direction: str, time: float, tflops: float | None) -> Published:
    workbook, sheet = file.sheets[row.sheet]
    return Published(
        processor=file.processors[row.processor],
        set=row.set,
        family=row.family,
        id=row.id,
        direction=direction,
        precision=row.precision,
        arithmetic=file.arithmetic[row.arithmetic],
        time=time,
        tflops=tflops,
        workbook=workbook,
        sheet=sheet,
        row=row.row,
        notes=tuple(file.notes[note] for note in row.notes),
        dense_time=row.dense_time,
        ranks=row.ranks,
    )


def _key(family: str, problem: str, direction: str, precision: str, ranks: int | None) -> Key:
    return family, problem if ranks is None else f"{problem}-ranks{ranks}", direction, precision


@cache
def _read() -> _File:
    try:
        file = msgspec.json.decode(lzma.decompress(_FILE.read_bytes()), type=_File)
    except (OSError, lzma.LZMAError, msgspec.DecodeError) as error:
        raise ConfigurationError(f"{_FILE}: the published results cannot be read: {error}") from error
    if file.schema_version != SCHEMA_VERSION:
        raise ConfigurationError(
            f"{_FILE}: schema_version is {file.schema_version}; this version reads {SCHEMA_VERSION}"
        )
    return file


def _is_name(full: str, wanted: list[str]) -> bool:
    return full.split() == wanted


def _ends_in(full: str, wanted: list[str]) -> bool:
    """All words but the maker's or the product line's in front: ``v100`` of ``nvidia v100``."""
    return full.split()[-len(wanted) :] == wanted


def _has_part(full: str, wanted: list[str]) -> bool:
    return "".join(wanted) in full.replace(" ", "")
