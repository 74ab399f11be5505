"""``--require METRIC>=BOUND``: what the figures across the cases of a session have to hold.

They are known only when the last case has run. So each requirement is a test of its own that the reporting process
runs after all others: terminal, JUnit, Allure and the exit code then agree about it, serial and under xdist.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from pytest_flagperf import bounds
from pytest_flagperf import metrics
from pytest_flagperf.errors import ConfigurationError
from pytest_flagperf.judging.derived import NAMES
from pytest_flagperf.judging.derived import Derived
from pytest_flagperf.judging.derived import RequirementResult


_WRITTEN = re.compile(r"\s*(\w+)\s*(>=|<=)\s*(\S+)\s*\Z")
_DIRECTIONS = {">=": "at least", "<=": "at most"}


@dataclass(frozen=True)
class Requirement:
    """A bound on every figure of one name."""

    metric: str
    sign: str
    bound: float

    def __str__(self) -> str:
        return f"{self.metric}{self.sign}{self.bound:g}"

    def check(self, derived: Derived) -> RequirementResult:
        """It is met where there is such a figure, and every one holds the bound."""
        found = [one for one in derived.metrics if one.name == self.metric]
        missed = [
            f"{one.label}: {one.value:.4g}"
            for one in found
            if not bounds.holds(one.value, self.bound, _DIRECTIONS[self.sign])
        ]
        return RequirementResult(str(self), bool(found) and not missed, len(found), missed)


def parse(text: str) -> Requirement:
    """``scaling_efficiency>=0.9``. Raises ``ConfigurationError`` for anything else."""
    written = _WRITTEN.match(text)
    if written is None:
        raise ConfigurationError(f"--require: {text!r} is not written METRIC>=BOUND or METRIC<=BOUND")
    name, sign, number = written.groups()
    if name not in NAMES:
        of_one = (
            f" It is a figure of one case: write bound = … under its {name} in a baseline file, and name that with "
            "--baseline"
        )
        raise ConfigurationError(
            f"--require: {name!r} is no figure across cases. Known: {', '.join(NAMES)}."
            + (of_one if name in metrics.known() else "")
        )
    try:
        bound = float(number)
    except ValueError:
        raise ConfigurationError(f"--require: {text}: {number!r} is not a number") from None
    if not math.isfinite(bound):
        raise ConfigurationError(f"--require: {text}: {number} is not a bound")
    return Requirement(name, sign, bound)


def checked(derived: Derived, wanted: Sequence[Requirement]) -> Derived:
    """The same with what came of each requirement."""
    return msgspec.structs.replace(derived, requirements=[one.check(derived) for one in wanted])


def message(one: RequirementResult, derived: Derived) -> str:
    """What a requirement that is not met says: where it does not hold, or why there is nothing that could."""
    if one.missed:
        return "\n".join([f"{one.text} does not hold in {len(one.missed)} of {one.found} cases", *_listed(one.missed)])
    name = re.split("[<>]", one.text)[0]
    lines = [f"{one.text} cannot be checked: no two cases of this session give {name}"]
    return "\n".join([*lines, *_listed([text for text in derived.left_out if text.startswith(name)])])


def _listed(lines: Sequence[str]) -> list[str]:
    return [f"  {line}" for line in lines]
