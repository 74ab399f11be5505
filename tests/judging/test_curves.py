"""Curves: the band of the baseline's rounds, and convergence that is too fast."""

from __future__ import annotations

import random

import msgspec
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
    assert "0.747571, and at least 0.717308 was to be expected" in reason
    assert "A1.toml" in reason


def test_a_run_that_learns_faster_is_not_stopped():
    band = curves.band(learning(), baseline(*EIGHT))
    assert band.outside(3, {"top1": 0.99}) is None


def test_the_band_is_that_of_one_more_round_by_hand():
    # Of 5 rounds with mean 0.5 and deviation 0.01, one evaluation: t(0.995, 4) = 4.6041, times sqrt(1 + 1/5).
    values = [0.5 + 0.01 * one * (2 / 10**0.5) for one in (-2, -1, 0, 1, 2)]
    rounds = [[(1.0, value)] for value in values]
    band = curves.band(learning(), baseline(*rounds))
    (point,) = band.points["top1"]
    assert (point.mean, point.deviation) == pytest.approx((0.5, 0.01), rel=1e-5)
    assert band.limit("top1", 1.0) == pytest.approx(0.5 - 4.6041 * 0.01 * 1.2**0.5, rel=1e-4)


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
    assert curves.too_fast(learning(*runs(2), [(1.0, 0.1)]), baseline(*TEN)) is None


def test_the_epoch_of_the_target_is_that_of_the_first_evaluation_at_which_all_hold():
    columns = {"epoch": [1.0, 2.0, 3.0], "top1": [0.9, 0.7, 0.95], "top5": [0.8, 0.99, 0.99]}
    assert curves.epochs_to_targets(columns, {"top1": 0.9}) == 1
    assert curves.epochs_to_targets(columns, {"top1": 0.9, "top5": 0.9}) == 3
    assert curves.epochs_to_targets(columns, {"top1": 0.99}) is None
    assert curves.epochs_to_targets(columns, {}) is None


def test_a_result_of_the_same_distribution_is_hardly_ever_called_too_fast():
    chance = random.Random(5)

    def drawn(count):
        return runs(*(max(1.0, round(4 * chance.gauss(8, 1.5)) / 4) for _ in range(count)))

    found = [
        curves.too_fast(learning(*drawn(count)), baseline(*drawn(stored))) is not None
        for count, stored in ((1, 5), (5, 5), (5, 10))
        for _ in range(200)
    ]
    assert sum(found) <= 6


def test_neither_a_dropped_round_nor_many_rounds_switch_the_test_off():
    dropped = learning(*runs(2, 2, 2, 2), [(0.25 * k, 0.4) for k in range(1, 9)])
    last = msgspec.structs.replace(dropped.rounds[-1], dropped="did not converge")
    dropped = replaced(dropped, rounds=[*dropped.rounds[:-1], last])
    assert curves.too_fast(dropped, baseline(*TEN)) is not None
    assert curves.too_fast(learning(*runs(*[2] * 10)), baseline(*TEN)) is not None


def test_a_case_of_the_same_distribution_hardly_ever_leaves_its_band():
    """Two metrics, evaluated twice as often and twice as long as the baseline was, in two rounds."""
    chance = random.Random(6)

    def one(count, step):
        return {step * k: {"top1": chance.gauss(0.8, 0.02), "top5": chance.gauss(0.9, 0.01)} for k in range(1, count)}

    left = 0
    for _ in range(300):
        columns = {}
        for number in range(8):
            found = one(9, 1.0)
            columns[str(number)] = {"epoch": list(found)} | {
                name: [each[name] for each in found.values()] for name in ("top1", "top5")
            }
        band = curves.Band({name: curves.points(columns, name) for name in ("top1", "top5")}, rounds=2)
        evaluations = [item for _ in range(2) for item in one(33, 0.5).items()]
        left += any(band.outside(epoch, each, look) for look, (epoch, each) in enumerate(evaluations, 1))
    assert left <= 7


def test_the_more_is_looked_at_the_wider_is_the_band():
    points = [curves.Point(float(k), 0.8, 0.01, 8) for k in range(1, 5)]
    one, two = curves.Band({"top1": points}), curves.Band({"top1": points, "top5": points})
    more = curves.Band({"top1": points}, rounds=5)
    assert one.limit("top1", 1) > two.limit("top1", 1)
    assert one.limit("top1", 1) > more.limit("top1", 1)
    assert one.limit("top1", 1, look=4) == one.limit("top1", 1)
    assert one.limit("top1", 1, look=4) > one.limit("top1", 1, look=8) > one.limit("top1", 1, look=50)


def test_the_band_that_is_shown_has_the_limit_that_a_stopped_run_is_told():
    stored = baseline(*EIGHT)
    band = curves.band(learning(), stored, rounds=2)
    run = [(epoch, 0.3) for epoch in range(1, 10)]
    result = learning(run, run)
    shown = dict(curves.along(band, "top1", result))
    assert list(shown) == [100.0 * epoch for epoch in range(1, 10)]
    assert shown[300.0].low == shown[300.0].limit == band.limit("top1", 3)
    assert (shown[300.0].low + shown[300.0].high) / 2 == pytest.approx(shown[300.0].mean)
    # The second round's ninth evaluation is the eighteenth look; the band has six points for each of two rounds.
    reason = band.outside(9, {"top1": 0.3}, look=18)
    assert f"at least {shown[900.0].limit:.6g} was to be expected" in reason
    assert shown[900.0].limit < shown[600.0].limit


def test_an_evaluation_that_holds_the_target_is_no_look_and_the_band_goes_on_where_the_run_does_not():
    band = curves.band(learning(), baseline(*EIGHT))
    never = learning([(epoch, 0.3) for epoch in range(1, 10)])
    held = learning([(epoch, 0.9) for epoch in range(1, 10)])
    early = learning([(1, 0.9)])
    assert dict(curves.along(band, "top1", held))[900.0].limit > dict(curves.along(band, "top1", never))[900.0].limit
    assert [step for step, _ in curves.along(band, "top1", early)] == [100.0 * epoch for epoch in range(1, 7)]


def test_curves_without_steps_are_shown_nowhere():
    band = curves.Band({"top1": [curves.Point(1.0, 0.8, 0.01, 8)]})
    assert curves.along(band, "top1", learning()) == []
    assert curves.along(band, "top5", learning()) == []
