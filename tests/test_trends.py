"""Where a series changed: found where it is, seldom where nothing is, with what changed beside it."""

from __future__ import annotations

import random

import pytest

from pytest_flagperf import trends
from pytest_flagperf.reports import trend
from pytest_flagperf.series import Key
from pytest_flagperf.series import Point
from pytest_flagperf.series import Series


BEGIN, DAY = 1_780_000_000.0, 86_400.0
TOY = Key("toy", "acme", "A1", "", "training", "convergence")


def series_of(
    figures: list[float], *, stacks: dict[int, dict[str, str]] | None = None, better: str = "higher"
) -> Series:
    points, stack = [], {"torch": "2.9.0"}
    for index, value in enumerate(figures):
        stack = (stacks or {}).get(index, stack)
        points.append(
            Point(
                BEGIN + index * DAY, f"s{index}", value, (value,), None, None, "passed", "", "h", "c", "", stack, False
            )
        )
    return Series(TOY, "p_train", "samples/s", better, tuple(points))


def noisy(levels: list[tuple[int, float]], seed: int, cv: float = 0.02) -> list[float]:
    noise = random.Random(seed)
    return [noise.gauss(level, cv * level) for count, level in levels for _ in range(count)]


def test_series_without_a_change_have_none_in_99_of_100_cases():
    alarms = sum(bool(trends.splits(noisy([(30, 100.0)], seed))) for seed in range(1000))
    assert alarms <= 15


@pytest.mark.parametrize(("before", "after"), [(20, 8), (8, 20), (15, 15)])
def test_a_change_of_a_tenth_is_found_where_it_is(before, after):
    places = [trends.splits(noisy([(before, 100.0), (after, 90.0)], seed)) for seed in range(100)]
    right = [found for found in places if any(abs(index - before) <= 2 for index, _ in found)]
    assert len(right) >= 95


def test_several_changes_are_found_each():
    levels = [(20, 100.0), (20, 80.0), (20, 95.0)]
    places = [tuple(index for index, _ in trends.splits(noisy(levels, seed))) for seed in range(100)]
    # Three parts are looked through again, each with its own chance of a false alarm.
    assert sum(found == (20, 40) for found in places) >= 90
    found = trends.change_points(series_of(noisy(levels, 1)))
    assert [change.index for change in found] == [20, 40]
    assert [change.better for change in found] == [False, True]
    assert found[0].change == pytest.approx(-0.2, abs=0.02)


def test_one_slow_run_is_no_change():
    figures = noisy([(30, 100.0)], 5)
    figures[15] = figures[29] = 50.0
    assert trends.change_points(series_of(figures)) == []


def test_equal_figures_have_no_change_and_a_step_between_equal_ones_has():
    assert trends.splits([3.5] * 40) == []
    assert [index for index, _ in trends.splits([3.5] * 10 + [3.6] * 10)] == [10]


def test_what_is_certain_and_smaller_than_one_percent_is_not_told():
    assert trends.splits([100.0] * 20 + [100.5] * 20)
    assert trends.change_points(series_of([100.0] * 20 + [100.5] * 20)) == []


@pytest.mark.parametrize("figures", [[], [1.0], [1.0, 2.0], [1.0] * 5])
def test_too_few_runs_have_no_change(figures):
    assert trends.splits(figures) == []


def test_the_probability_is_that_of_mann_and_whitney():
    # scipy.stats.mannwhitneyu([1, 2, 3, 9, 5], [4, 6, 7, 8, 10, 11, 12], method="exact").pvalue
    assert trends._exact(20, 5, 7) == pytest.approx(0.04797979797979798)


def test_less_of_a_time_is_better():
    (change,) = trends.change_points(series_of([10.0] * 10 + [8.0] * 10, better="lower"))
    assert change.better


def test_a_change_says_what_changed_with_it():
    figures = noisy([(15, 100.0), (15, 90.0)], 1)
    (change,) = trends.change_points(series_of(figures, stacks={15: {"torch": "2.10.0", "driver": "550"}}))
    assert change.reasons == ("torch 2.9.0 → 2.10.0", "driver (none) → 550")


def test_commit_host_code_and_what_is_not_committed_are_told():
    (before,) = series_of([1.0]).points
    after = Point(**{**vars(before), "commit": "abcdef0123456789 (changed)", "host": "h2", "code": "y"})
    assert trends.differences(before, after) == ("commit c → abcdef0123 (changed)", "host h → h2")
    assert trends.differences(after, after) == ("files that are not committed",)
    coded = Point(**{**vars(after), "code": "z", "commit": before.commit})
    assert "code or configuration" in trends.differences(after, coded)


def test_the_plot_keeps_levels_and_stays_within_its_width():
    drawn = trend.plot(series_of([1.0] * 500 + [2.0] * 500), [])
    rows = drawn.splitlines()
    assert len(rows) == trend.HEIGHT + 1
    assert max(map(len, rows)) < 100
    assert rows[0].endswith("█" * (trend.WIDTH // 2))
    assert trend.sparkline([1.0, 2.0, 3.0]) == "▁▅█"
    assert trend.plot(series_of([5.0]), [])
    assert "\n" not in trend.sparkline([0.0] * 100)
