"""What one round gave, before it is judged."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from typing import Any

from pytest_flagperf import metrics


# Beside a round's case.json: when its job started and ended, as JobTimes.
TIMES = "times.json"


@dataclass(frozen=True)
class Measured:
    """Metrics, evaluations, the precision in force, and what a reader has to know about them."""

    figures: Mapping[str, float]
    evaluations: Sequence[metrics.Evaluation] = ()
    precision: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    chip: str | None = None
