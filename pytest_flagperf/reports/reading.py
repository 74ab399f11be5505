"""What every report of Results has to tell a reader with the figures, said once: marks, requirements, digits, units."""

from __future__ import annotations

import math
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace
from pathlib import Path
from typing import Any

from pytest_flagperf import records
from pytest_flagperf import result as results
from pytest_flagperf import words
from pytest_flagperf.errors import ConfigurationError
from pytest_flagperf.errors import ReplayError
from pytest_flagperf.judging import derived as figures
from pytest_flagperf.judging.derived import Derived
from pytest_flagperf.judging.derived import DerivedMetric
from pytest_flagperf.judging.derived import RequirementResult
from pytest_flagperf.result import Result
from pytest_flagperf.sessions import SessionFiles


STAND_IN, OPEN, SYNTHETIC, RANDOM = "stand_in", "open", "synthetic", "random"
# Figures of these are no measurements of what they are named after.
UNTRUSTED = ("invalid", "wrong")
WORST_FIRST = (
    *("invalid", "wrong", "missed", "regressed", "inconclusive"),
    *("improved", "passed", "no baseline", "not comparable", "unsupported"),
)
_FEWEST_DIGITS, _MOST_DIGITS = 4, 12


@dataclass(frozen=True)
class Summary:
    """What a session says over its cases. ``problem`` is why ``derived.json`` could not be read, else empty."""

    metrics: Sequence[DerivedMetric] = ()
    requirements: Sequence[RequirementResult] = ()
    left_out: Sequence[str] = ()
    problem: str = ""


def over_cases(session: SessionFiles) -> Summary:
    """The figures across cases and what ``--require`` asked of them; nothing of it is worth losing a report for."""
    try:
        found: Derived | None = figures.read(session.directory)
    except ReplayError as error:
        return Summary(problem=str(error))
    return Summary() if found is None else Summary(found.metrics, found.requirements, found.left_out)


def problems(session: SessionFiles) -> list[str]:
    """What of a session could not be read, in words."""
    unread = over_cases(session).problem
    return [*session.problems, *([unread] if unread else [])]


def not_met(session: SessionFiles) -> list[RequirementResult]:
    """What ``--require`` asked for and does not hold."""
    return [one for one in over_cases(session).requirements if not one.met]


def said(one: RequirementResult) -> str:
    """Why a requirement is not met."""
    return "; ".join(one.missed) or "no two cases of the session give this figure"


def marks(result: Result) -> list[str]:
    """What makes a figure another thing than it looks: ``stand_in``, ``open``, ``synthetic``; empty for most.

    ``random`` are the weights of a model of inference: there is no quality, only speed.
    """
    case = result.case
    found = [STAND_IN] if case.stand_in else []
    found += [OPEN] if case.division == "open" else []
    # What operators compute with is always generated.
    found += [SYNTHETIC] if result.dataset.synthetic and case.kind != "operator" else []
    return found + ([RANDOM] if result.weights is not None and result.weights.origin == RANDOM else [])


def severity(verdict: str) -> int:
    """Rank of a verdict, 0 the worst; one that a later version adds counts as worse than all."""
    return WORST_FIRST.index(verdict) if verdict in WORST_FIRST else -1


def comparison_order(verdict: str, change: float | None) -> float:
    """What sorts comparisons with a baseline: the worst verdict first, of one the largest change (ratio)."""
    return round(severity(verdict) - (0 if change is None else abs(change) / (1 + abs(change))), 6)


def is_trusted(result: Result) -> bool:
    """Whether the figures of a result may stand in a table without a word."""
    return result.verdict not in UNTRUSTED


def unit(result: Result, name: str) -> str:
    """The unit of a metric, of one that nobody measured too; the operations of integers are TOP/s."""
    found = result.metrics.get(name)
    if name == "tflops" and result.case.precision in ("int8", *words.ELEMENT_TYPES):
        return "TOP/s"
    if found is not None:
        return results.unit_of(result, name)
    try:
        return results.with_units({name: 0.0})[name].unit
    except ConfigurationError:
        return ""


def figure(value: float | None, *beside: float | None) -> str:
    """A figure for a person: ``43,956``, ``0.9671``, ``1.2e-07``.

    Four digits that count, more where the value would else look as if it held a bound ``beside`` it that it misses.
    """
    if value is None:
        return ""
    others = [one for one in beside if one is not None and one != value and math.isfinite(one)]
    for digits in range(_FEWEST_DIGITS, _MOST_DIGITS + 1):
        text = _digits(value, digits)
        shown = float(text.replace(",", ""))
        if all((shown < one) == (value < one) and (shown > one) == (value > one) for one in others):
            return text
    return repr(value)


def _digits(value: float, digits: int) -> str:
    if not math.isfinite(value) or abs(value) < 1000:
        return f"{value:.{digits}g}"
    before = len(f"{abs(value):.0f}")
    return f"{value:,.{max(0, digits - before) if digits > _FEWEST_DIGITS else 0}f}"


def apart(sessions: Iterable[SessionFiles]) -> list[SessionFiles]:
    """The sessions under names that differ: a second one of a name is ``<name>~2``."""
    found: list[SessionFiles] = []
    taken: set[str] = set()
    for one in sessions:
        name, number = one.name, 1
        while name in taken:
            number += 1
            name = f"{one.name}~{number}"
        taken.add(name)
        found.append(one if name == one.name else replace(one, name=name))
    return found


def mapping(value: Any) -> Mapping[str, Any]:
    """A part of ``session.json`` that should be a table; empty where it is something else."""
    return value if isinstance(value, dict) else {}


def listing(value: Any) -> list[Any]:
    """A part of ``session.json`` that should be a list; empty where it is something else."""
    return value if isinstance(value, list) else []


def write(output: Path, content: bytes) -> None:
    """Write a report, whole or not at all. Raises ``ConfigurationError`` that names a path which cannot be written."""
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        records.write_atomically(output, content)
    except OSError as error:
        raise ConfigurationError(
            f"the report cannot be written to {output}: {error}. Name a file in a directory you may write to"
        ) from error
