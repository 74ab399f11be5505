"""What reading FlagPerf's files gives beside values: what was not taken, where it stands and why."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytest_flagperf.reports.progress import printable


# Longer texts of somebody's file are cut in messages.
_SHOWN = 100


class Refused(Exception):
    """Something that is not taken; the text says why."""


@dataclass(frozen=True)
class NotTaken:
    """Something of FlagPerf's that has no place in ours.

    ``needed`` is False where nothing is lost by it, because ours gets the same from elsewhere. Line 0 means the whole
    file.
    """

    file: Path
    line: int
    what: str
    reason: str
    needed: bool = True

    @property
    def where(self) -> str:
        """``file:line``, as editors read it."""
        return f"{self.file}:{self.line}" if self.line else str(self.file)


@dataclass(frozen=True)
class Value:
    """A value that a file gives a name, and where."""

    value: Any
    file: Path
    line: int

    def refused(self, what: str, reason: str, *, needed: bool = True) -> NotTaken:
        """This value, named as one that is not taken."""
        return NotTaken(self.file, self.line, what, reason, needed)


@dataclass(frozen=True)
class Item:
    """One entry of a dictionary display, in the order of the file."""

    key: Any
    value: Value


@dataclass(frozen=True)
class Source:
    """One file read as data: its names, and what in it is not data.

    ``tables`` holds the entries of every dictionary that a name was given, also where some of them could not be read.
    """

    values: dict[str, Value]
    tables: dict[str, tuple[Item, ...]]
    not_taken: tuple[NotTaken, ...]


def shown(text: object) -> str:
    """A short text of somebody's file, without what could drive a terminal."""
    try:
        clean = printable(str(text))
    except ValueError:
        return "a number of thousands of digits"
    return clean if len(clean) <= _SHOWN else clean[:_SHOWN] + "…"
