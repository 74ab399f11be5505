"""What a verification finds: figures that do not follow, and what a reader has to know."""

from __future__ import annotations

import math
from collections.abc import Iterable
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field
from typing import Any

from pytest_flagperf.errors import FlagPerfError


# What reading a file that somebody made up may raise, beside our own errors.
UNREADABLE = (
    FlagPerfError,
    OSError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    ArithmeticError,
    RecursionError,
)

# Sums of many figures differ in the last digits where another version of Python adds them up.
CLOSE = 1e-9


@dataclass(frozen=True)
class Problem:
    """A figure of a file that is not what it has to be; ``figure`` is empty where the file as a whole is meant."""

    file: str
    figure: str
    message: str

    def __str__(self) -> str:
        return f"{self.file}: {self.figure + ': ' if self.figure else ''}{self.message}"


@dataclass
class Findings:
    """Collects. ``figures`` counts what was computed again, ``results`` and ``rounds`` what it was of."""

    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    figures: int = 0
    results: int = 0
    rounds: int = 0

    def problem(self, file: str, figure: str, message: str) -> None:
        """Something that is not as it has to be."""
        self.problems.append(Problem(file, figure, message))

    def note(self, text: str) -> None:
        """Something that a reader has to know, once."""
        if text not in self.notes:
            self.notes.append(text)

    def same(self, file: str, figure: str, found: Any, expected: Any, source: str, *, within: float = 0.0) -> bool:
        """Count a figure that was computed again; a problem where it differs. ``within`` is a distance that is none."""
        self.figures += 1
        if same(found, expected, within):
            return True
        self.problem(file, figure, f"{shown(found)} is written there; {shown(expected)} follows from {source}")
        return False

    def same_table(
        self, file: str, prefix: str, found: Mapping[str, Any], expected: Mapping[str, Any], source: str
    ) -> None:
        """The same for each entry of a table; entries that only one side has are problems too."""
        for name in dict.fromkeys([*expected, *found]):
            self.same(file, prefix + str(name), found.get(name), expected.get(name), source)


def same(found: Any, expected: Any, within: float = 0.0) -> bool:
    """Whether two values are equal, figures to nine digits."""
    if _is_number(found) and _is_number(expected):
        return math.isclose(found, expected, rel_tol=CLOSE, abs_tol=within)
    if isinstance(found, Mapping) and isinstance(expected, Mapping):
        return found.keys() == expected.keys() and all(same(found[key], expected[key], within) for key in found)
    if isinstance(found, (list, tuple)) and isinstance(expected, (list, tuple)):
        return len(found) == len(expected) and all(map(same, found, expected))
    return bool(found == expected)


def shown(value: Any) -> str:
    """A value for a person: figures with all their digits, nothing that fills a screen."""
    if value is None:
        return "nothing"
    text = repr(value) if isinstance(value, (float, str)) else str(value)
    return text if len(text) <= 200 else f"{text[:200]}…"


def listed(names: Iterable[str]) -> str:
    """Names with commas, a few of them."""
    every = sorted(names)
    return ", ".join(every[:8]) + (f" and {len(every) - 8} more" if len(every) > 8 else "")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
