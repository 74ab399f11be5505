"""Convergence judged as a curve: a run that leaves the band of its baseline, and one that converges impossibly fast.

The band is that of the baseline's rounds, evaluation by evaluation. The other is after MLPerf Training's test against
reference convergence points (training rules, "Hyperparameters and optimizer"): a mean of epochs to the target that is
too small to be chance is refused. MLPerf tests at 5 % and corrects the score of who fails; a result that is called
invalid takes more.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass

from pytest_flagperf import bounds
from pytest_flagperf.judging import compare
from pytest_flagperf.judging import gathering
from pytest_flagperf.judging import statistics
from pytest_flagperf.judging.baselines import Baseline
from pytest_flagperf.judging.baselines import CaseBaseline
from pytest_flagperf.metrics import known
from pytest_flagperf.result import Result
from pytest_flagperf.result import RoundResult


# Rounds of the baseline that make a band. Of fewer the spread is a guess.
FEWEST = 5

# The chance that a case of the same distribution leaves the band, at any evaluation of any round in any metric. A half
# of it is for as many evaluations as the band has points; the other, for those beyond, becomes less and never ends.
STOPPED_BY_CHANCE = 0.01

# Rounds that agree to the last digit do so because a small evaluation set is coarse, not because they are precise.
SMALLEST_SPREAD = 0.005

# The chance that a result of the same distribution is called too fast.
ALPHA = 0.005


@dataclass(frozen=True)
class Point:
    """What the baseline's rounds had reached after ``epoch``: mean and standard deviation of ``rounds`` of them.

    ``step`` is the training step that this is, where the curves say it.
    """

    epoch: float
    mean: float
    deviation: float
    rounds: int
    step: float | None = None


@dataclass(frozen=True)
class Expected:
    """What a round should reach: the mean of ``rounds`` of the baseline, and ``low`` to ``high`` around it.

    ``limit`` is the worse of these two, and the only one that is judged by.
    """

    mean: float
    low: float
    high: float
    limit: float
    rounds: int


@dataclass(frozen=True)
class Band:
    """Where the ``rounds`` of a case should be, by quality metric; ``origin`` says where the curves are from."""

    points: Mapping[str, Sequence[Point]]
    origin: str = ""
    rounds: int = 1

    def expected(self, metric: str, epoch: float, look: int = 1) -> Expected | None:
        """The prediction interval of one more round after ``epoch``; ``None`` before the band begins.

        The wider the more metrics and evaluations are looked at; ``look`` counts these from 1, over all rounds. After
        the last evaluation of the band it stays: from there on most rounds had reached their target.
        """
        points = self.points.get(metric, ())
        here = _between(points, epoch)
        if here is None:
            return None
        spread = max(here.deviation, SMALLEST_SPREAD * abs(here.mean)) * math.sqrt(1 + 1 / here.rounds)
        reach = statistics.t_quantile(1 - self._chance(len(points), look), here.rounds - 1) * spread
        low, high = here.mean - reach, here.mean + reach
        return Expected(here.mean, low, high, low if known()[metric].better == "higher" else high, here.rounds)

    def limit(self, metric: str, epoch: float, look: int = 1) -> float | None:
        """The worst quality that is still inside after ``epoch``, as :meth:`expected` tells it."""
        found = self.expected(metric, epoch, look)
        return None if found is None else found.limit

    def _chance(self, points: int, look: int) -> float:
        """What of the chance is spent at one look at one metric."""
        half, expected = STOPPED_BY_CHANCE / 2 / len(self.points), points * self.rounds
        beyond = look - expected
        return half / expected if beyond <= 0 else half / (beyond * (beyond + 1))

    def outside(self, epoch: float, quality: Mapping[str, float], look: int = 1) -> str | None:
        """Why an evaluation is outside of the band, on its worse side; ``None`` where it is inside, or nobody knows."""
        for metric in self.points:
            found, value = self.expected(metric, epoch, look), quality.get(metric)
            if found is None or value is None:
                continue
            direction = "at least" if known()[metric].better == "higher" else "at most"
            if not bounds.holds(value, found.limit, direction):
                return (
                    f"{metric} is {value:.6g} after epoch {epoch:g}; {found.rounds} rounds of the baseline had "
                    f"{found.mean:.6g}, and {direction} {found.limit:.6g} was to be expected ({self.origin})"
                )
        return None


def band(result: Result, baseline: Baseline | None, hardware: str = "", rounds: int = 1) -> Band | None:
    """The band that the ``rounds`` of a case are to stay in.

    ``None`` where the baseline does not compare, has fewer than five rounds of the case, or the case has no target.
    ``result`` says what is to run; it needs no figures yet.
    """
    stored = comparable(result, baseline, hardware)
    if stored is None or baseline is None:
        return None
    names = [name for name in stored.targets if name in known()]
    found = {name: points(stored.curve, name) for name in names}
    kept = {name: curve for name, curve in found.items() if curve}
    return Band(kept, baseline.origin, rounds) if kept else None


def comparable(result: Result, baseline: Baseline | None, hardware: str = "") -> CaseBaseline | None:
    """The baseline of a result's case where the two compare."""
    stored = baseline.of(result.case.id) if baseline is not None else None
    if baseline is None or stored is None or result.case.kind == "operator":
        return None
    refused = compare.obstacles(result, gathering.of_result(result, "now"), baseline, stored, hardware)
    return None if refused else stored


def points(rounds: Mapping[str, Mapping[str, Sequence[float]]], metric: str) -> list[Point]:
    """Mean and spread of the rounds at every epoch at which five or more of them were evaluated."""
    values: dict[float, list[float]] = {}
    steps: dict[float, float] = {}
    for columns in rounds.values():
        epochs = [round(one, 6) for one in columns.get("epoch", ())]
        # Rounds of one configuration take the same steps to an epoch.
        steps.update(zip(epochs, columns.get("step", ()), strict=False))
        for epoch, value in zip(epochs, columns.get(metric, ()), strict=False):
            values.setdefault(epoch, []).append(value)
    return [
        Point(epoch, statistics.mean(found), statistics.deviation(found), len(found), steps.get(epoch))
        for epoch, found in sorted(values.items())
        if len(found) >= FEWEST
    ]


def along(band: Band, metric: str, result: Result) -> list[tuple[float, Expected]]:
    """The band over training steps, at each as wide as it was for the last round of a result that was looked at there.

    At the evaluations of the baseline, and beyond the last of these at those of the rounds. Empty where the baseline's
    curves do not tell their steps.
    """
    points = band.points.get(metric, ())
    places = [(one.epoch, one.step) for one in points if one.step is not None]
    if not places:
        return []
    looks = _looks(result)
    places += [(epoch, step) for epoch, step, _ in looks if step > places[-1][1] and epoch > points[-1].epoch]
    epochs = [epoch for epoch, *_ in looks]
    found = []
    for epoch, step in places:
        before = bisect.bisect_right(epochs, epoch + 1e-6)
        expected = band.expected(metric, epoch, looks[before - 1][2] if before else 1)
        if expected is not None:
            found.append((step, expected))
    return found


def _looks(result: Result) -> list[tuple[float, float, int]]:
    """Epoch, step, and the number of the look, of every step's last evaluation; looks count over all rounds."""
    number, found = 0, {}
    for one in result.rounds:
        for each in one.evaluations:
            # One that holds every target ends the run anyway: nobody looks whether it is inside.
            held = (bounds.holds(each.quality.get(t.metric), t.bound, t.direction) for t in result.targets)
            number += not all(held)
            found[each.step] = each.epoch, float(each.step), max(1, number)
    return sorted(found.values())


def _between(points: Sequence[Point], epoch: float) -> Point | None:
    """The point at ``epoch``, between two by straight lines; after the last one that one, before the first none."""
    if not points or epoch < points[0].epoch - 1e-6:
        return None
    after = bisect.bisect_left(points, epoch - 1e-6, key=lambda one: one.epoch)
    if after == len(points):
        return points[-1]
    if after == 0 or abs(points[after].epoch - epoch) <= 1e-6:
        return points[after]
    low, high = points[after - 1], points[after]
    share = (epoch - low.epoch) / (high.epoch - low.epoch)
    return Point(
        epoch,
        low.mean + share * (high.mean - low.mean),
        low.deviation + share * (high.deviation - low.deviation),
        min(low.rounds, high.rounds),
    )


def epochs_to_targets(columns: Mapping[str, Sequence[float]], targets: Mapping[str, float]) -> float | None:
    """The epoch of the first evaluation at which every target holds; ``None`` where there is none."""
    names = [name for name in targets if name in known()]
    if not targets or len(names) < len(targets):
        return None
    directions = {name: "at least" if known()[name].better == "higher" else "at most" for name in names}
    for place, epoch in enumerate(columns.get("epoch", ())):
        held = (
            name in columns and bounds.holds(columns[name][place], bound, directions[name])
            for name, bound in targets.items()
        )
        if all(held):
            return epoch
    return None


def too_fast(result: Result, baseline: Baseline | None, hardware: str = "") -> str | None:
    """Why the rounds of a result converged too fast to be believed; ``None`` where they did not, or nobody knows.

    It takes five rounds in the baseline. A one-sided t test of the mean of epochs, with the variance of the baseline
    alone: rounds that all leak their evaluation data agree with each other. Epochs are counted in evaluations, so
    nothing that lies within the grid of these is too fast. A round that was dropped took its last evaluation's epoch at
    least.
    """
    stored = comparable(result, baseline, hardware)
    if stored is None or not stored.targets:
        return None
    before = [epochs_to_targets(columns, stored.targets) for columns in stored.curve.values()]
    reference = [one for one in before if one is not None]
    measured = [_epochs(one, stored.targets) for one in result.rounds]
    reached = [one for one in measured if one is not None]
    if not reached or len(reached) < len(measured) or len(reference) < FEWEST:
        return None
    grid = _step(stored.curve)
    centre, found = statistics.mean(reference), statistics.mean(reached)
    spread = max(statistics.deviation(reference), grid / math.sqrt(12))
    error = spread * math.sqrt(1 / len(reference) + 1 / len(reached))
    least = max(0.0, centre - statistics.t_quantile(1 - ALPHA, len(reference) - 1) * error)
    if found >= least or centre - found <= grid:
        return None
    return (
        f"the target was reached after {found:.4g} epochs; {len(reference)} rounds of the baseline took "
        f"{centre:.4g}, and fewer than {least:.4g} are no chance (after MLPerf's test of convergence, at {ALPHA:.1%})"
    )


def _epochs(one: RoundResult, targets: Mapping[str, float]) -> float | None:
    columns = gathering.columns(one.evaluations)
    found = epochs_to_targets(columns, targets)
    return columns["epoch"][-1] if found is None and one.dropped and columns else found


def _step(rounds: Mapping[str, Mapping[str, Sequence[float]]]) -> float:
    """The widest gap between two evaluations of a round, in epochs."""
    gaps = [b - a for one in rounds.values() for a, b in zip(one["epoch"], one["epoch"][1:], strict=False)]
    return max(gaps, default=0.0)
