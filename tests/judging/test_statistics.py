"""Statistics against published tables, scipy where it is there, and what has to hold whatever the samples."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_flagperf.judging import statistics


positive = st.floats(min_value=1e-6, max_value=1e9, allow_nan=False)


@pytest.mark.parametrize(
    ("p", "degrees", "expected"),
    # NIST/SEMATECH e-Handbook of Statistical Methods, table 1.3.6.7.2
    [
        (0.95, 1, 6.314),
        (0.975, 2, 4.303),
        (0.99, 4, 3.747),
        (0.975, 10, 2.228),
        (0.995, 10, 3.169),
        (0.95, 30, 1.697),
        (0.999, 5, 5.893),
        (0.975, 100, 1.984),
    ],
)
def test_quantiles_of_students_t_are_those_of_the_published_table(p, degrees, expected):
    assert statistics.t_quantile(p, degrees) == pytest.approx(expected, abs=6e-4)
    assert statistics.t_quantile(1 - p, degrees) == -statistics.t_quantile(p, degrees)


@pytest.mark.parametrize(("ratio", "degrees"), [(6.94, (2, 4)), (3.33, (5, 10)), (2.35, (10, 20))])
def test_the_f_distribution_is_that_of_the_published_table(ratio, degrees):
    # NIST/SEMATECH e-Handbook, table 1.3.6.7.3, upper critical values of 5 %
    assert statistics.f_survival(ratio, *degrees) == pytest.approx(0.05, abs=3e-4)


def test_distributions_are_those_of_scipy():
    stats = pytest.importorskip("scipy.stats")
    for degrees in (1, 1.5, 2, 4.13, 8, 23, 58, 400, 1e5):
        for p in (1e-6, 0.005, 0.05, 0.5, 0.9, 0.995, 0.99999):
            assert statistics.t_quantile(p, degrees) == pytest.approx(stats.t.ppf(p, degrees), rel=1e-7, abs=1e-12)
        for t in (-40, -3, -0.1, 0, 0.1, 2.5, 40):
            assert statistics.t_cdf(t, degrees) == pytest.approx(stats.t.cdf(t, degrees), rel=1e-9, abs=1e-14)
        for ratio in (0.01, 0.9, 4, 100):
            expected = stats.f.sf(ratio, 4, degrees)
            assert statistics.f_survival(ratio, 4, degrees) == pytest.approx(expected, rel=1e-8, abs=1e-14)


@pytest.mark.parametrize("p", [0, 1, -0.5, 2])
def test_a_quantile_that_is_none_is_refused(p):
    with pytest.raises(ValueError, match="no quantile"):
        statistics.t_quantile(p, 5)


def test_one_sample_is_itself_and_says_nothing_of_its_spread():
    assert statistics.summarize([3.5]) == statistics.Summary(3.5, "single")


def test_of_two_to_four_samples_the_median_is_the_figure_and_has_no_interval():
    found = statistics.summarize([1.0, 9.0, 2.0])
    assert (found.value, found.method, found.low, found.high) == (2.0, "median", None, None)
    assert found.cv == pytest.approx(math.sqrt(19) / 4)
    assert statistics.summarize([1.0, 2.0, 3.0, 10.0]).value == 2.5


def test_of_five_samples_lowest_and_highest_do_not_count():
    found = statistics.summarize([100, 10, 12, 11, 0.1])
    assert (found.value, found.method) == (11, "olympic mean")

    found = statistics.summarize([10, 12, 11, 9, 13])
    # By hand: deviation sqrt(10 / 4), over sqrt 5; t(0.975, 4) = 2.7764
    assert found.high - 11 == pytest.approx(2.7764 * math.sqrt(2.5 / 5), rel=1e-4)
    assert 11 - found.low == pytest.approx(found.high - 11)


def test_no_sample_is_an_error_and_a_mean_of_zero_has_no_cv():
    with pytest.raises(ValueError, match="no sample"):
        statistics.summarize([])
    assert statistics.summarize([0.0, 0.0]).cv is None


@given(st.lists(positive, min_size=1, max_size=30))
def test_the_figure_lies_in_its_interval(samples):
    found = statistics.summarize(samples)
    assert min(samples) <= found.value * (1 + 1e-9)
    assert found.value <= max(samples) * (1 + 1e-9)
    if found.low is not None:
        assert found.low <= found.value <= found.high


def test_the_interval_of_the_olympic_mean_holds_the_mean_about_as_often_as_it_says():
    chance = random.Random(7)
    held = 0
    for _ in range(2000):
        found = statistics.summarize([chance.gauss(100, 2) for _ in range(5)])
        held += found.low <= 100 <= found.high
    assert 0.93 < held / 2000 < 0.98


def test_a_change_is_a_ratio_and_of_zero_there_is_none():
    assert statistics.change(110.0, 100.0) == pytest.approx(0.1)
    assert statistics.change(1.0, 0.0) is None


def test_a_difference_is_that_of_students_t_test():
    stats = pytest.importorskip("scipy.stats")
    new, old = [105.0, 103.0, 106.0, 104.0, 107.0], [100.0, 101.0, 99.0, 102.0, 98.0, 100.5, 99.5, 101.5]
    found = statistics.compare_samples(new, [old], assumed=0.0)
    expected = stats.ttest_ind([math.log(x) for x in new], [math.log(x) for x in old]).confidence_interval(0.99)
    assert (found.low, found.high) == pytest.approx((math.expm1(expected.low), math.expm1(expected.high)))
    assert (found.test, found.degrees) == ("Student's t", 11)


def test_rounds_that_spread_more_than_the_baseline_are_not_made_precise_by_it():
    stats = pytest.importorskip("scipy.stats")
    new, old = [100.0, 140.0, 80.0, 130.0], [100 + 0.1 * k for k in range(12)]
    found = statistics.compare_samples(new, [old], assumed=0.0)
    test = stats.ttest_ind([math.log(x) for x in new], [math.log(x) for x in old], equal_var=False)
    expected = test.confidence_interval(0.99)
    assert found.test == "Welch's t"
    assert (found.low, found.high) == pytest.approx((math.expm1(expected.low), math.expm1(expected.high)), rel=1e-6)


def test_one_new_sample_is_compared_with_the_spread_of_the_baseline():
    found = statistics.compare_samples([110.0], [[one] for one in (100.0, 101.0, 99.0, 100.0, 100.5, 99.5)])
    assert found.degrees == pytest.approx(5)
    assert found.low > 0.05


def test_a_session_is_predicted_from_the_means_of_sessions():
    """By hand: t(0.995, 3) = 5.8409 times the deviation of four means, of one session more."""
    levels = [98.0, 99.0, 101.0, 102.0]
    found = statistics.compare_samples([100.0] * 5, [[level] * 5 for level in levels])
    logs = [math.log(level) for level in levels]
    reach = 5.8409 * statistics.deviation(logs) * math.sqrt(1 + 1 / 4)
    centre = math.log(100) - statistics.mean(logs)
    assert (found.low, found.high) == pytest.approx((math.expm1(centre - reach), math.expm1(centre + reach)), rel=1e-4)
    assert found.degrees == pytest.approx(3)


def test_a_session_of_fewer_rounds_is_less_certain():
    old = [
        [99.0, 101.0, 100.0, 100.5],
        [98.5, 100.5, 99.5, 101.5],
        [100.0, 99.0, 102.0, 100.0],
        [99.0, 98.0, 101.0, 100.0],
    ]
    one, four = (statistics.compare_samples([100.0] * count, old) for count in (1, 4))
    assert one.high - one.low > four.high - four.low


def test_what_sessions_are_taken_to_deviate_by_widens_the_interval_and_not_what_is_cleared():
    known, assumed = (statistics.compare_samples([100.0] * 5, [[99.0, 101.0] * 5], assumed=one) for one in (0.0, 0.025))
    # sqrt(2) times 2.5 %, at 2.576 of the normal distribution
    assert assumed.high > 1.41 * 0.025 * 2.576 > known.high
    assert assumed.cleared_high == known.cleared_high


def test_samples_that_do_not_spread_differ_exactly_by_what_they_differ():
    found = statistics.compare_samples([2.2, 2.2], [[2.0] * 5, [2.0]])
    assert (found.low, found.change, found.high) == pytest.approx((0.1, 0.1, 0.1))


@pytest.mark.parametrize(
    "samples", [([1.0], [[1.0]]), ([], [[1.0, 2.0, 3.0]]), ([1.0, 2.0], [[0.0], [1.0]]), ([-1.0], [[1], [2]])]
)
def test_what_cannot_be_compared_is_refused(samples):
    with pytest.raises(ValueError, match="sample"):
        statistics.compare_samples(*samples)


@given(*2 * [st.lists(st.floats(min_value=1e-2, max_value=1e2), min_size=2, max_size=8)])
def test_twice_as_much_and_half_as_much_are_equally_far(new, old):
    there = statistics.compare_samples(new, [[one] for one in old])
    back = statistics.compare_samples([1 / one for one in new], [[1 / one] for one in old])
    assert back.change == pytest.approx(1 / (1 + there.change) - 1, rel=1e-6, abs=1e-9)
    assert there.low <= there.change <= there.high
    assert there.low <= there.cleared_low <= there.cleared_high <= there.high
