"""From the rounds of a case to its figures: which rounds count, and by which figure a metric goes.

MLPerf Training's rules T8 and T9: of five rounds or more the fastest and the slowest are dropped, and one that did not
converge may count as the slowest; a second one is a miss. Every round that was started stays visible: one that a result
does not hold is told by :func:`unaccounted`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from pathlib import PurePath
from typing import Any

import msgspec

from pytest_flagperf.case import Target
from pytest_flagperf.judging import statistics
from pytest_flagperf.result import Result
from pytest_flagperf.result import RoundResult
from pytest_flagperf.result import SpreadResult


UNCONVERGED = "did not converge: counts as the slowest round, which the olympic mean drops (MLPerf Training)"
# What a run that ends at its target takes. A round that never reached it has none of these, however early it stopped.
TO_TARGET = ("time_to_target", "train_time", "e2e_time", "energy")


def drop(rounds: Sequence[RoundResult], targets: Sequence[Target]) -> list[RoundResult]:
    """The rounds, with the one that did not converge marked as dropped where it is the only one of five or more."""
    missed = [one for one in rounds if not converged(one, targets)]
    if len(rounds) < statistics.OLYMPIC or len(missed) != 1:
        return list(rounds)
    return [msgspec.structs.replace(one, dropped=UNCONVERGED) if one is missed[0] else one for one in rounds]


def converged(one: RoundResult, targets: Sequence[Target]) -> bool:
    """Whether every target holds in a round; without targets every round does."""
    figures = {name: metric.value for name, metric in one.metrics.items()}
    return all(target.holds(figures.get(target.metric)) for target in targets)


def may_drop(rounds: Sequence[RoundResult], targets: Sequence[Target], of: int) -> bool:
    """Whether a case of ``of`` rounds may go on after its last round did not converge: it was the first."""
    return of >= statistics.OLYMPIC and sum(not converged(one, targets) for one in rounds) == 1


def of_rounds(rounds: Sequence[RoundResult]) -> tuple[dict[str, float], dict[str, SpreadResult]]:
    """The figures of a case and how each came of its rounds. A metric that a round which counts lacks is absent."""
    kept = [one for one in rounds if not one.dropped]
    figures: dict[str, float] = {}
    spreads: dict[str, SpreadResult] = {}
    for name in kept[0].metrics if kept else ():
        if all(name in one.metrics for one in kept):
            spread, figures[name] = _spread(name, rounds, kept)
            spreads[name] = spread
    return figures, spreads


def _spread(name: str, rounds: Sequence[RoundResult], kept: Sequence[RoundResult]) -> tuple[SpreadResult, float]:
    slowest = name in TO_TARGET and len(kept) < len(rounds)
    counted = kept if slowest else [one for one in rounds if name in one.metrics]
    samples = [one.metrics[name].value for one in counted]
    summary = statistics.summarize([*samples, math.inf] if slowest else samples)
    spread = statistics.cv(samples)
    return SpreadResult(samples, summary.method, _finite(summary.low), _finite(summary.high), spread), summary.value


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def unaccounted(ledger: Iterable[Mapping[str, Any]], result: Result) -> list[str]:
    """Rounds of the case that the session's ledger saw start and the result does not hold, in words.

    ``ledger`` are the lines of ``ledger.jsonl``. Other tests may run the same case: their rounds are theirs.
    """
    held = {place(one.directory) for one in result.rounds}
    own = {one[0] for one in held}
    found: dict[tuple[str, ...], str] = {}
    for line in ledger:
        at = place(str(line.get("directory")))
        same_test = line.get("test", result.case.node_id) == result.case.node_id or at[0] in own
        if line.get("case") != result.case.id or not same_test or at in held:
            continue
        if line.get("event") == "round_start":
            found[at] = f"{'/'.join(at)} (seed {line.get('seed')}, not ended)"
        elif line.get("event") == "round_end" and at in found:
            found[at] = f"{'/'.join(at)} (seed {line.get('seed')}, {line.get('outcome')})"
    return list(found.values())


def place(directory: str) -> tuple[str, ...]:
    """``<case directory>``, ``round<k>``: the same in a session that was copied."""
    return PurePath(directory).parts[-2:]


def chosen(left: Sequence[str], what: str = "round") -> list[str]:
    """The note that a result gets which holds fewer rounds, or an operator's measurements, than were started."""
    if not left:
        return []
    counted = f"1 {what}" if len(left) == 1 else f"{len(left)} {what}s"
    return [f"started for this case beside those that count: {counted}: {', '.join(left)}"]
