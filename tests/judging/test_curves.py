"""Curves: the band of the baseline's rounds, and convergence that is too fast, also beside MLPerf's own checker."""

from __future__ import annotations

import io
import json
import logging
import random

import pytest

from pytest_flagperf.judging import baselines
from pytest_flagperf.judging import curves
from pytest_flagperf.judging import gathering
from tests.judging.conftest import make_result
from tests.judging.conftest import replaced


def curve(seed, shift=0.0, epochs=6, length=1.0):
    """Top-1 of a run that learns: 1 - 1/(1 + epoch), with noise."""
    chance = random.Random(seed)
    return [(e, 1 - 1 / (1 + e * length) + shift + chance.gauss(0, 0.01)) for e in range(1, epochs + 1)]


def learning(*found, target=0.8, **changes):
    figures = {"time_to_target": [10.0] * len(found)} if found else {}
    return make_result(figures, curves=found, target=target, role="convergence", **changes)


def baseline(*found, **changes):
    case = gathering.of_result(learning(*found, **changes), "before")
    return baselines.Baseline(vendor="acme", chip="A1", case=[case], origin="A1.toml")


EIGHT = [curve(seed) for seed in range(8)]


def test_a_run_like_those_before_stays_in_the_band():
    band = curves.band(learning(), baseline(*EIGHT))
    for seed in range(100, 300):
        assert not [epoch for epoch, value in curve(seed) if band.outside(epoch, {"top1": value})]


def test_a_run_that_does_not_learn_leaves_the_band_and_it_is_said_by_how_much():
    band = curves.band(learning(), baseline(*EIGHT))
    assert band.outside(1, {"top1": 0.5}) is None
    reason = band.outside(3, {"top1": 0.5})
    assert reason.startswith("top1 is 0.5 after epoch 3; 8 rounds of the baseline had 0.7")
    assert "0.747571, and at least 0.720915 was to be expected" in reason
    assert "A1.toml" in reason


def test_a_run_that_learns_faster_is_not_stopped():
    band = curves.band(learning(), baseline(*EIGHT))
    assert band.outside(3, {"top1": 0.99}) is None


def test_the_band_is_that_of_one_more_round_by_hand():
    # Of 5 rounds with mean 0.5 and deviation 0.01, one evaluation: t(0.99, 4) = 3.7469, times sqrt(1 + 1/5).
    values = [0.5 + 0.01 * one * (2 / 10**0.5) for one in (-2, -1, 0, 1, 2)]
    rounds = [[(1.0, value)] for value in values]
    band = curves.band(learning(), baseline(*rounds))
    (point,) = band.points["top1"]
    assert (point.mean, point.deviation) == pytest.approx((0.5, 0.01), rel=1e-5)
    assert band.limit("top1", 1.0) == pytest.approx(0.5 - 3.7469 * 0.01 * 1.2**0.5, rel=1e-4)


def test_between_two_evaluations_the_band_is_a_straight_line_and_after_the_last_it_stays():
    band = curves.band(learning(), baseline(*EIGHT))
    one, two = band.limit("top1", 1), band.limit("top1", 2)
    assert one < band.limit("top1", 1.5) < two
    assert band.limit("top1", 0.5) is None
    assert band.limit("top1", 60) == band.limit("top1", 6)


def test_a_metric_that_falls_is_worse_above_its_band():
    points = [curves.Point(1.0, 50.0, 1.0, 8)]
    band = curves.Band({"perplexity": points})
    assert band.outside(1, {"perplexity": 40}) is None
    assert "at most" in band.outside(1, {"perplexity": 60})


def test_rounds_that_agree_to_the_last_digit_leave_some_room():
    band = curves.Band({"top1": [curves.Point(1.0, 0.8, 0.0, 8)]})
    assert band.outside(1, {"top1": 0.79}) is None
    assert band.outside(1, {"top1": 0.7}) is not None


@pytest.mark.parametrize(
    ("result", "stored"),
    [
        (learning(), None),
        (learning(), baseline(*EIGHT[:4])),
        (replaced(learning(), chip="B2"), baseline(*EIGHT)),
        (learning(target=0.7), baseline(*EIGHT)),
        (learning(target=None), baseline(*EIGHT, target=None)),
        (replaced(learning(), id="other"), baseline(*EIGHT)),
    ],
)
def test_there_is_no_band_where_there_is_nothing_to_compare_with(result, stored):
    assert curves.band(result, stored) is None


def test_an_evaluation_without_the_metric_says_nothing():
    assert curves.band(learning(), baseline(*EIGHT)).outside(1, {"top5": 0.1}) is None


def runs(*epochs, grid=0.25):
    """Rounds that reach 0.8 at these epochs, evaluated on a grid."""
    return [[(grid * k, 0.8 if grid * k >= end else 0.4) for k in range(1, int(end / grid) + 1)] for end in epochs]


TEN = runs(4, 4.25, 4.5, 4.5, 4.75, 4.75, 5, 5, 5.25, 5.5)


def test_a_run_that_converges_as_before_is_believed():
    assert curves.too_fast(learning(*runs(4.25)), baseline(*TEN)) is None
    assert curves.too_fast(learning(*runs(4.5, 4.5, 4.75, 5, 5)), baseline(*TEN)) is None


def test_a_run_that_converges_impossibly_fast_is_refused():
    reason = curves.too_fast(learning(*runs(2)), baseline(*TEN))
    assert reason.startswith(
        "the target was reached after 2 epochs; 10 rounds of the baseline took 4.75, and fewer than"
    )
    assert curves.too_fast(learning(*runs(3, 3, 3.25, 3.25, 3)), baseline(*TEN)) is not None


def test_what_lies_within_the_grid_of_evaluations_is_not_too_fast():
    coarse = runs(*[4.0] * 10, grid=1.0)
    assert curves.too_fast(learning(*runs(3.0, grid=1.0)), baseline(*coarse)) is None
    assert curves.too_fast(learning(*runs(1.0, grid=1.0)), baseline(*coarse)) is not None


def test_too_few_rounds_to_say_and_rounds_that_missed_are_not_judged():
    assert curves.too_fast(learning(*runs(2)), baseline(*TEN[:4])) is None
    assert curves.too_fast(learning(*runs(2, 2, 2, 2, 2, 2)), baseline(*TEN)) is None
    assert curves.too_fast(learning(*runs(2), [(1.0, 0.1)]), baseline(*TEN)) is None


def test_the_epoch_of_the_target_is_that_of_the_first_evaluation_at_which_all_hold():
    columns = {"epoch": [1.0, 2.0, 3.0], "top1": [0.9, 0.7, 0.95], "top5": [0.8, 0.99, 0.99]}
    assert curves.epochs_to_targets(columns, {"top1": 0.9}) == 1
    assert curves.epochs_to_targets(columns, {"top1": 0.9, "top5": 0.9}) == 3
    assert curves.epochs_to_targets(columns, {"top1": 0.99}) is None
    assert curves.epochs_to_targets(columns, {}) is None


def test_the_fastest_mean_is_that_of_a_t_test_by_hand():
    # 10 reference runs (8 count), 5 runs (3 count): t(0.95, 9) = 1.8331, deviation 1, sqrt(1/8 + 1/3)
    point = curves.ReferencePoint(256, 40.0, 1.0, 10)
    assert curves.fastest(point, 5) == pytest.approx(40 - 1.8331 * (1 / 8 + 1 / 3) ** 0.5, abs=1e-4)
    assert curves.fastest(curves.ReferencePoint(256, 40.0, 0.0, 10), 5) == 40


def test_between_batch_sizes_is_a_straight_line_below_them_the_smallest_and_above_nothing():
    points = [curves.ReferencePoint(100, 40.0, 1.0, 10), curves.ReferencePoint(200, 60.0, 3.0, 10)]
    assert curves.reference_at(150, points) == curves.ReferencePoint(150, 50.0, 2.0, 10)
    assert curves.reference_at(100, points) == points[0]
    assert curves.reference_at(10, points) == points[0]
    assert curves.reference_at(201, points) is None


def test_slow_reference_points_are_pruned():
    means = {64: 45.0, 100: 40.0, 200: 60.0, 300: 50.0}
    points = [curves.ReferencePoint(size, mean, 1.0, 10) for size, mean in means.items()]
    assert [one.batch_size for one in curves.pruned(points)] == [100, 300]


def test_it_is_what_mlperfs_own_checker_says():
    module = pytest.importorskip("mlperf_logging.rcp_checker.rcp_checker")
    logging.disable(logging.CRITICAL)
    chance = random.Random(3)
    epochs = {size: [chance.gauss(mean, 1.5) for _ in range(10)] for size, mean in ((256, 38), (512, 42), (1024, 52))}
    records = {
        f"resnet_{size}": {"Benchmark": "resnet", "BS": size, "Hyperparams": {}, "Epochs to converge": list(found)}
        for size, found in epochs.items()
    }
    try:
        checker = module.RCP_Checker("training", "5.0.0", "resnet", False, io.StringIO(json.dumps(records)))
        points = [curves.reference_point(size, found) for size, found in epochs.items()]
        for point in points:
            theirs = checker._find_rcp(point.batch_size, "full_rcps")
            assert (point.mean, point.deviation) == pytest.approx((theirs["RCP Mean"], theirs["RCP Stdev"]))
            assert curves.fastest(point, 5) == pytest.approx(theirs["Min Epochs"], abs=2e-4)
        kept = [one["BS"] for one in checker.pruned_rcp_data.values()]
        assert [one.batch_size for one in curves.pruned(points)] == kept
        low, high = (checker._find_rcp(size, "full_rcps") for size in (256, 512))
        theirs = checker._create_interp_rcp(300, low, high)[1]
        ours = curves.reference_at(300, points)
        assert (ours.mean, ours.deviation) == pytest.approx((theirs["RCP Mean"], theirs["RCP Stdev"]))
        # Between batch sizes it takes all of the reference's runs, also those that it drops.
        assert curves.fastest(ours, 5, counted=10) == pytest.approx(theirs["Min Epochs"], abs=2e-4)
    finally:
        logging.disable(logging.NOTSET)
