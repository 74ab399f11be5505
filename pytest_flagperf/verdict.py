"""Is it good enough? Pure functions from figures and bounds to a verdict."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Mapping
from dataclasses import dataclass

from pytest_flagperf.case import Target


PASSED = "passed"
MISSED = "missed"
INVALID = "invalid"
# Of operators: the kernel's answer is wrong; the framework has no such kernel on this device.
WRONG = "wrong"
UNSUPPORTED = "unsupported"
# Of comparisons with a baseline.
REGRESSED = "regressed"
IMPROVED = "improved"
INCONCLUSIVE = "inconclusive"
NO_BASELINE = "no baseline"
NOT_COMPARABLE = "not comparable"
# With these nothing is amiss.
WELL = (PASSED, UNSUPPORTED, IMPROVED, NO_BASELINE, NOT_COMPARABLE)


@dataclass(frozen=True)
class Judged:
    """A target beside what was measured; ``value`` is ``None`` where nothing was."""

    target: Target
    value: float | None

    @property
    def met(self) -> bool:
        """Whether the target holds."""
        return self.target.holds(self.value)

    def __str__(self) -> str:
        found = "not measured" if self.value is None else f"{self.value:.6g}"
        return f"{self.target}: {found} ({'met' if self.met else 'missed'}; {self.target.source})"


def judge(targets: Iterable[Target], metrics: Mapping[str, float]) -> tuple[Judged, ...]:
    """Each target beside the metric it bounds."""
    return tuple(Judged(target, metrics.get(target.metric)) for target in targets)


def of_targets(judged: Iterable[Judged]) -> str:
    """``passed`` where every target is met, else ``missed``."""
    return PASSED if all(one.met for one in judged) else MISSED
