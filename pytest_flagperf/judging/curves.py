"""Convergence judged as a curve: a run that leaves the band of its baseline, and one that converges impossibly fast.

The band is that of the baseline's rounds, evaluation by evaluation. The other is MLPerf Training's test against
reference convergence points (training rules, "Hyperparameters and optimizer", and ``rcp_checker`` of mlperf-logging
4.1.68): a mean of epochs to the target that is too small to be chance is refused.
"""

from __future__ import annotations

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


# Rounds of the baseline that make a band. Of fewer the spread is a guess.
FEWEST = 5

# The chance that a run of the same distribution leaves the band at any of its evaluations.
STOPPED_BY_CHANCE = 0.01

# Rounds that agree to the last digit do so because a small evaluation set is coarse, not because they are precise.
SMALLEST_SPREAD = 0.005

# MLPerf Training's level of the test for convergence that is too fast.
ALPHA = 0.05


@dataclass(frozen=True)
class Point:
    """What the baseline's rounds had reached after ``epoch``: mean and standard deviation of ``rounds`` of them."""

    epoch: float
    mean: float
    deviation: float
    rounds: int


@dataclass(frozen=True)
class Band:
    """Where a run of the case should be, by quality metric; ``origin`` says where the curves are from."""

    points: Mapping[str, Sequence[Point]]
    origin: str = ""

    def limit(self, metric: str, epoch: float) -> float | None:
        """The worst quality that is still inside after ``epoch``; ``None`` before the band begins.

        A bound of the prediction interval of one more round, narrower by the number of evaluations that are looked at.
        After the last evaluation of the band it stays: from there on most rounds had reached their target.
        """
        points = self.points.get(metric, ())
        here = _between(points, epoch)
        if here is None:
            return None
        spread = max(here.deviation, SMALLEST_SPREAD * abs(here.mean)) * math.sqrt(1 + 1 / here.rounds)
        reach = statistics.t_quantile(1 - STOPPED_BY_CHANCE / len(points), here.rounds - 1) * spread
        return here.mean - reach if known()[metric].better == "higher" else here.mean + reach

    def outside(self, epoch: float, quality: Mapping[str, float]) -> str | None:
        """Why an evaluation is outside of the band, on its worse side; ``None`` where it is inside, or nobody knows."""
        for metric in self.points:
            limit, value = self.limit(metric, epoch), quality.get(metric)
            if limit is None or value is None:
                continue
            direction = "at least" if known()[metric].better == "higher" else "at most"
            if not bounds.holds(value, limit, direction):
                expected = _between(self.points[metric], epoch)
                assert expected is not None
                return (
                    f"{metric} is {value:.6g} after epoch {epoch:g}; {expected.rounds} rounds of the baseline had "
                    f"{expected.mean:.6g}, and {direction} {limit:.6g} was to be expected ({self.origin})"
                )
        return None


def band(result: Result, baseline: Baseline | None, hardware: str = "") -> Band | None:
    """The band that the rounds of a case are to stay in.

    ``None`` where the baseline does not compare, has fewer than five rounds of the case, or the case has no target.
    ``result`` says what is to run; it needs no figures yet.
    """
    stored = comparable(result, baseline, hardware)
    if stored is None or baseline is None:
        return None
    names = [name for name in stored.targets if name in known()]
    found = {name: points(stored.curve, name) for name in names}
    kept = {name: curve for name, curve in found.items() if curve}
    return Band(kept, baseline.origin) if kept else None


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
    for columns in rounds.values():
        for epoch, value in zip(columns.get("epoch", ()), columns.get(metric, ()), strict=False):
            values.setdefault(round(epoch, 6), []).append(value)
    return [
        Point(epoch, statistics.mean(found), statistics.deviation(found), len(found))
        for epoch, found in sorted(values.items())
        if len(found) >= FEWEST
    ]


def _between(points: Sequence[Point], epoch: float) -> Point | None:
    """The point at ``epoch``, between two by straight lines; after the last one that one, before the first none."""
    if not points or epoch < points[0].epoch - 1e-6:
        return None
    after = next((place for place, one in enumerate(points) if one.epoch >= epoch - 1e-6), None)
    if after is None:
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


@dataclass(frozen=True)
class ReferencePoint:
    """Epochs to the target at one batch size: olympic mean, standard deviation of all, and how many runs there were."""

    batch_size: float
    mean: float
    deviation: float
    runs: int

    @property
    def counted(self) -> int:
        """The runs in the mean."""
        return _counted(self.runs)


def reference_point(batch_size: float, epochs: Sequence[float]) -> ReferencePoint:
    """The reference of runs at one batch size; as in MLPerf the deviation divides by their number."""
    centre = statistics.mean(epochs)
    deviation = math.sqrt(math.fsum((one - centre) ** 2 for one in epochs) / len(epochs))
    return ReferencePoint(batch_size, _olympic(epochs), deviation, len(epochs))


def fastest(reference: ReferencePoint, runs: int, *, counted: int | None = None) -> float:
    """The smallest mean of epochs to the target that ``runs`` runs may have, by a one-sided t-test at 5 %.

    Equal variances, that of the reference for both. ``counted`` replaces the number of the reference's runs.
    """
    there, here = counted or reference.counted, _counted(runs)
    if reference.deviation == 0 or there + here < 3:
        return reference.mean
    error = reference.deviation * math.sqrt(1 / there + 1 / here)
    return max(0.0, reference.mean - statistics.t_quantile(1 - ALPHA, there + here - 2) * error)


def pruned(references: Sequence[ReferencePoint]) -> list[ReferencePoint]:
    """The references without batch sizes that converged slower than others make one expect (MLPerf's pruning).

    What is smaller than the batch size of the fastest mean goes; then each that is slower than the straight line
    between its neighbours.
    """
    ordered = sorted(references, key=lambda one: one.batch_size)
    first = min(ordered, key=lambda one: one.mean)
    kept = [one for one in ordered if one.batch_size >= first.batch_size]
    place = 1
    while place < len(kept) - 1:
        line = interpolated(kept[place].batch_size, kept[place - 1], kept[place + 1])
        if kept[place].mean > line.mean:
            del kept[place]
        else:
            place += 1
    return kept


def interpolated(batch_size: float, low: ReferencePoint, high: ReferencePoint) -> ReferencePoint:
    """The reference between two batch sizes: mean and deviation by straight lines."""
    share = (batch_size - low.batch_size) / (high.batch_size - low.batch_size)
    return ReferencePoint(
        batch_size,
        low.mean + share * (high.mean - low.mean),
        low.deviation + share * (high.deviation - low.deviation),
        min(low.runs, high.runs),
    )


def reference_at(batch_size: float, references: Sequence[ReferencePoint]) -> ReferencePoint | None:
    """The reference that applies: that of the batch size, else between its neighbours, below all the smallest.

    ``None`` above the largest: that takes new reference runs.
    """
    ordered = sorted(references, key=lambda one: one.batch_size)
    after = next((place for place, one in enumerate(ordered) if one.batch_size >= batch_size), None)
    if after is None:
        return None
    if after == 0 or ordered[after].batch_size == batch_size:
        return ordered[after]
    return interpolated(batch_size, ordered[after - 1], ordered[after])


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

    It takes twice as many rounds in the baseline as the result has, and five at least. Epochs are counted in
    evaluations, so nothing that lies within the grid of these is too fast.
    """
    stored = comparable(result, baseline, hardware)
    if stored is None or not stored.targets:
        return None
    before = [epochs_to_targets(columns, stored.targets) for columns in stored.curve.values()]
    reference = [one for one in before if one is not None]
    measured = [epochs_to_targets(gathering.columns(one.evaluations), stored.targets) for one in result.rounds]
    reached = [one for one in measured if one is not None]
    if not reached or len(reached) < len(measured) or len(reference) < max(FEWEST, 2 * len(reached)):
        return None
    point = reference_point(float(stored.configuration.get("global_batch_size", 0)), reference)
    grid = _step(stored.curve)
    point = ReferencePoint(point.batch_size, point.mean, max(point.deviation, grid / math.sqrt(12)), point.runs)
    least, found = fastest(point, len(reached)), _olympic(reached)
    if found >= least or point.mean - found <= grid:
        return None
    return (
        f"the target was reached after {found:.4g} epochs; {len(reference)} rounds of the baseline took "
        f"{point.mean:.4g}, and fewer than {least:.4g} are no chance (MLPerf's test of convergence, alpha {ALPHA:g})"
    )


def _step(rounds: Mapping[str, Mapping[str, Sequence[float]]]) -> float:
    """The widest gap between two evaluations of a round, in epochs."""
    gaps = [b - a for one in rounds.values() for a, b in zip(one["epoch"], one["epoch"][1:], strict=False)]
    return max(gaps, default=0.0)


def _counted(runs: int) -> int:
    return runs - 2 if runs >= statistics.OLYMPIC else runs


def _olympic(figures: Sequence[float]) -> float:
    ordered = sorted(figures)
    return statistics.mean(ordered[1:-1] if len(ordered) >= statistics.OLYMPIC else ordered)
