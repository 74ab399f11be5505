"""Where a series of figures changed, and what of the software changed with it. Pure functions, standard library only.

A change point is found as Pettitt's test does (A. N. Pettitt, A non-parametric approach to the change-point problem,
Applied Statistics 28, 1979): at the split whose two sides differ most by the rank-sum statistic of Wilcoxon, Mann and
Whitney. Here the statistic is standardised, so that changes near the end count as much as those in the middle, and its
probability is that of Mann and Whitney (exact for few points without ties, else normal with the correction for ties)
times the number of splits tried (Bonferroni). Ranks, because one slow run is no change. The sides are split further in
the same way (binary segmentation: A. J. Scott and M. Knott, Biometrics 30, 1974).

It is deterministic, and late: beside twenty runs before it a change takes four runs to be seen. Runs are taken to be
independent: where all of a day are neighbours, a warm day looks like a change.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from pytest_flagperf.judging.statistics import change as change_of
from pytest_flagperf.series import Point
from pytest_flagperf.series import Series


# How often a series without a change may be said to have one, for each split tried.
SIGNIFICANCE = 0.01
# A change of which that many runs are on one side is no news yet.
LEAST_RUNS = 3
# What is certain but smaller is of no interest.
LEAST_CHANGE = 0.01
# Up to so many points the distribution is counted out.
_EXACT = 40


@dataclass(frozen=True)
class ChangePoint:
    """``index`` is the first point after the change, ``change`` median after / median before - 1.

    ``better`` says whether it is one to the better. ``reasons`` is what of commit, configuration, host and software
    differs between the last point before and the first one after.
    """

    index: int
    before: float
    after: float
    change: float
    probability: float
    better: bool
    reasons: tuple[str, ...]


def change_points(series: Series) -> list[ChangePoint]:
    """The changes of a series, in order of time."""
    values = [point.value for point in series.points]
    found = splits(values)
    bounds = [0, *(index for index, _ in found), len(values)]
    medians = [statistics.median(values[begin:end]) for begin, end in itertools.pairwise(bounds)]
    points = []
    for number, (index, probability) in enumerate(found):
        before, after = medians[number], medians[number + 1]
        by = change_of(after, before)
        change = math.copysign(math.inf, after) if by is None else by
        if abs(change) < LEAST_CHANGE:
            continue
        points.append(
            ChangePoint(
                index,
                before,
                after,
                change,
                probability,
                (change > 0) == (series.better == "higher"),
                differences(series.points[index - 1], series.points[index]),
            )
        )
    return points


def splits(values: Sequence[float]) -> list[tuple[int, float]]:
    """(index of the first value after, probability) of every change, in order."""
    found: list[tuple[int, float]] = []
    parts = [(0, len(values))]
    while parts:
        begin, end = parts.pop()
        best = best_split(values[begin:end])
        if best is None or best[1] >= SIGNIFICANCE:
            continue
        middle = begin + best[0]
        found.append((middle, best[1]))
        parts += [(begin, middle), (middle, end)]
    return sorted(found)


def best_split(values: Sequence[float]) -> tuple[int, float] | None:
    """The split whose sides differ most, and the probability of such a difference; ``None`` with too few values."""
    count = len(values)
    if count < 2 * LEAST_RUNS:
        return None
    ranks, ties = _ranks(values)
    # Of the rank sum of n1 out of n values: mean n1 (n + 1) / 2, variance n1 n2 / 12 (n + 1 - ties).
    spread = (count + 1) - ties / (count * (count - 1))
    if spread <= 0:
        return None
    best, score, total = 0, -1.0, 0.0
    for first in range(1, count - LEAST_RUNS + 1):
        total += ranks[first - 1]
        if first < LEAST_RUNS:
            continue
        away = max(0.0, abs(total - first * (count + 1) / 2) - 0.5)
        standardised = away / math.sqrt(first * (count - first) * spread / 12)
        if standardised > score:
            best, score = first, standardised
    tried = count - 2 * LEAST_RUNS + 1
    if ties == 0 and count <= _EXACT:
        one = _exact(round(math.fsum(ranks[:best])), best, count - best)
    else:
        one = math.erfc(score / math.sqrt(2))
    return best, min(1.0, one * tried)


def _ranks(values: Sequence[float]) -> tuple[list[float], float]:
    """The rank of each value, equal ones sharing theirs; and the sum of t^3 - t over groups of t equal values."""
    order = sorted(range(len(values)), key=values.__getitem__)
    ranks, ties, begin = [0.0] * len(values), 0.0, 0
    for _, group in itertools.groupby(order, key=values.__getitem__):
        equal = list(group)
        for index in equal:
            ranks[index] = begin + (len(equal) + 1) / 2
        begin += len(equal)
        ties += float(len(equal) ** 3 - len(equal))
    return ranks, ties


def _exact(rank_sum: int, first: int, second: int) -> float:
    """The two-sided probability of a rank sum of ``first`` values beside ``second`` others, without ties."""
    statistic = rank_sum - first * (first + 1) // 2
    least = min(statistic, first * second - statistic)
    counts = _orders(min(first, second), max(first, second))
    return min(1.0, 2 * sum(counts[: least + 1]) / math.comb(first + second, first))


@lru_cache(maxsize=256)
def _orders(first: int, second: int) -> tuple[int, ...]:
    """How many orders of two samples have each value of Mann and Whitney's U: the Gaussian binomial coefficient."""
    counts = [1] + [0] * (first * second)
    for one in range(1, first + 1):
        # Multiplied by 1 - q^(second + one), divided by 1 - q^one.
        for index in range(len(counts) - 1, second + one - 1, -1):
            counts[index] -= counts[index - second - one]
        for index in range(one, len(counts)):
            counts[index] += counts[index - one]
    return tuple(counts)


def differences(before: Point, after: Point) -> tuple[str, ...]:
    """What differs between two runs beside their figures, in words."""
    found = [
        f"{name} {old or '(none)'} → {new or '(none)'}"
        for name, old, new in versions_changed(before.stack, after.stack)
    ]
    if before.commit != after.commit:
        found.append(f"commit {_short(before.commit)} → {_short(after.commit)}")
    elif after.commit.endswith("(changed)"):
        found.append("files that are not committed")
    if before.code and after.code and before.code != after.code:
        found.append("code or configuration")
    if before.host != after.host:
        found.append(f"host {before.host or '(unknown)'} → {after.host or '(unknown)'}")
    return tuple(found)


def versions_changed(before: Mapping[str, str], after: Mapping[str, str]) -> list[tuple[str, str, str]]:
    """(name, before, after) of the software that differs; what one of the two does not tell is empty."""
    names = dict.fromkeys([*before, *after])
    pairs = [(name, str(before.get(name, "")), str(after.get(name, ""))) for name in names]
    return [(name, old, new) for name, old, new in pairs if old != new]


def _short(commit: str) -> str:
    name, _, changed = commit.partition(" ")
    return (f"{name[:10]} {changed}".strip()) or "(none)"
