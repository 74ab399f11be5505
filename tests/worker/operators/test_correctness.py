"""How wrong an answer may be, what is no data, and which indices are none."""

from __future__ import annotations

import dataclasses
import importlib.util
import math

import pytest


pytestmark = pytest.mark.skipif(importlib.util.find_spec("numpy") is None, reason="numpy is not installed")


@pytest.fixture
def np():
    return pytest.importorskip("numpy")


@pytest.fixture
def correctness():
    from pytest_flagperf.worker.operators import correctness

    return correctness


@pytest.fixture
def data():
    from pytest_flagperf.worker.operators import data

    return data


def test_a_bound_grows_with_the_square_root_of_the_length(correctness):
    short, long = (correctness.product_bound("fp32", length) for length in (100, 10_000))
    assert long / short == pytest.approx(10, rel=0.1)


def test_the_bounds_are_in_the_order_of_the_precisions(correctness):
    bounds = [correctness.product_bound(precision, 1024) for precision in ("fp64", "fp32", "tf32", "bf16")]
    assert bounds == sorted(bounds)
    assert correctness.product_bound("int8", 1024) == 0.0


@pytest.mark.parametrize("length", [64, 4096, 65536])
def test_a_sequential_sum_in_fp32_keeps_its_bound_and_one_in_fp16_does_not(np, correctness, length):
    random = np.random.default_rng(3)
    a, b = random.uniform(-1, 1, (2, 64, length)).astype(np.float32)
    expected = (a.astype(np.float64) * b).sum(axis=1)
    total, half = np.zeros(64, np.float32), np.zeros(64, np.float16)
    for i in range(length):
        total += a[:, i] * b[:, i]
        half += (a[:, i] * b[:, i]).astype(np.float16)
    bound = correctness.product_bound("fp32", length)
    assert 0 < correctness.relative_error(total, expected) <= bound
    assert correctness.relative_error(half, expected) > bound


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_an_answer_that_is_not_finite_is_never_correct(np, correctness, value):
    from pytest_flagperf.worker.operators.kernel import Check

    answer = np.array([1.0, value, 3.0])
    error = correctness.relative_error(answer, np.array([1.0, 2.0, 3.0]))
    assert math.isnan(error)
    assert not Check(error, 1.0).correct


def test_zeros_for_an_answer_are_an_error_of_one(np, correctness):
    assert correctness.relative_error(np.zeros(4), np.array([1.0, -2.0, 3.0, 1.0])) == 1.0


def test_whole_numbers_are_compared_exactly(np, correctness):
    expected = np.array([100, -7, 3], np.int64)
    assert correctness.relative_error(expected.astype(np.int32), expected) == 0.0
    assert correctness.relative_error(expected + np.array([0, 1, 0]), expected) == 0.01


def test_operands_of_zeros_or_of_a_constant_are_refused(np, data):
    from pytest_flagperf.worker.operators.kernel import WrongAnswer

    good = np.random.default_rng(1).uniform(-1, 1, 5000)
    assert data.proof({"a": good}) == 1.0
    for name, bad in (("zeros", np.zeros(5000)), ("constant", np.full(5000, 3.0)), ("half", good.clip(0))):
        with pytest.raises(WrongAnswer, match=name):
            data.proof({"a": good, name: bad})


def test_a_sparse_pattern_has_as_many_entries_as_asked_for_everywhere(np, data):
    pattern = data.sparse_pattern(300, 200, 3000, seed=5)
    data.validate(pattern, 300, 200, 3000)
    assert pattern.nonzeros == 3000
    # 10 a row and 15 a column on average; an empty half would show.
    assert np.bincount(pattern.columns, minlength=200).min() > 0
    assert pattern.columns.max() > 195
    assert (data.sparse_pattern(300, 200, 3000, seed=6).columns != pattern.columns).any()


def test_indices_that_are_out_of_range_or_unsorted_or_twice_there_are_refused(np, data):
    from pytest_flagperf.worker.operators.kernel import WrongAnswer

    pattern = data.sparse_pattern(50, 40, 500, seed=5)
    for change, words in (
        (lambda columns: columns.__setitem__(0, 40), "within"),
        (lambda columns: columns.__setitem__(1, columns[0]), "unique"),
        (lambda columns: columns.__setitem__(slice(0, 2), columns[1::-1].copy()), "sorted"),
    ):
        columns = pattern.columns.copy()
        change(columns)
        with pytest.raises(WrongAnswer, match=words):
            data.validate(dataclasses.replace(pattern, columns=columns), 50, 40, 500)
    with pytest.raises(WrongAnswer, match="501"):
        data.validate(pattern, 50, 40, 501)


def test_a_reference_of_zeros_alone_makes_no_answer_right(np, correctness):
    """A call that does nothing would give them, and drawn data do not."""
    for zeros in (np.zeros(5), np.zeros(5, np.int32), np.zeros(5, bool)):
        assert correctness.relative_error(zeros, zeros) == math.inf
        assert correctness.recurrent_error(zeros, zeros) == math.inf


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_rounding_is_allowed_relative_to_the_element_and_not_to_its_neighbours(np, correctness, precision):
    kind = {"fp32": np.float32, "fp16": np.float16}[precision]
    exact = np.concatenate([np.random.default_rng(1).uniform(-1, 1, 10000), [1e-3, -2e-4]])
    allowance = correctness.allowed(exact, precision, correctness.ROUNDED_ONCE)
    rounded = exact.astype(kind)
    assert 0.9 < correctness.share_of_allowed(rounded, exact, allowance) <= 1.0
    for wrong in (1.05 * exact, np.nextafter(np.nextafter(rounded, kind(2)), kind(2)), rounded + kind(1e-3)):
        assert correctness.share_of_allowed(wrong, exact, allowance) > 1.0
    small = rounded.copy()
    small[-1] *= kind(1.05)
    assert correctness.share_of_allowed(small, exact, allowance) > 1.0


def test_an_error_in_all_states_of_a_recurrent_layer_shows_before_a_rounding_of_some_does(np, correctness):
    random = np.random.default_rng(2)
    exact, bound = random.uniform(-1, 1, (50, 16)), correctness.recurrent_bound("lstm", "bf16", 64)
    unit = correctness.UNIT_ROUNDOFF["bf16"]
    assert correctness.recurrent_error(exact + random.normal(0, 0.7 * unit, exact.shape), exact) < bound
    assert correctness.recurrent_error(1.02 * exact, exact) > bound
    spike = exact.copy()
    spike[20, 3] += 0.1
    assert correctness.recurrent_error(spike, exact) > bound


@pytest.mark.parametrize("zeros", [0, 1, 600, 3000])
def test_a_dense_pattern_is_exact_and_costs_no_more_than_its_size(np, data, monkeypatch, zeros):
    drawn = []
    original = data._places
    monkeypatch.setattr(
        data, "_places", lambda random, size, count: drawn.append(count) or original(random, size, count)
    )
    pattern = data.sparse_pattern(300, 200, 60000 - zeros, seed=5)
    data.validate(pattern, 300, 200, 60000 - zeros)
    assert drawn == [zeros]


def test_a_sparse_pattern_is_the_one_it_has_always_been(np, data):
    """Results of the same seed stay comparable."""
    for sparsity in (0.95, 0.9, 0.5):
        m, k = 96, 64
        nonzeros = round(m * k * (1 - sparsity))
        random = np.random.default_rng([7, 1])
        places = np.empty(0, np.int64)
        while places.size < nonzeros:
            more = random.integers(0, m * k, int((nonzeros - places.size) * 1.1) + 16)
            places = np.unique(np.concatenate([places, more]))
        if places.size > nonzeros:
            places = np.delete(places, random.choice(places.size, places.size - nonzeros, replace=False))
        pattern = data.sparse_pattern(m, k, nonzeros, seed=7)
        assert (pattern.rows() * k + pattern.columns == places).all()


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_each_part_of_a_cancelling_sum_shows_in_it(np, data, seed):
    size = 1 << 15
    plan = data.cancelling(size, 2.0**-126, seed)
    x = np.random.default_rng(seed).choice([-1, 1], size) * np.random.default_rng(seed).uniform(0.5, 1, size)
    x[plan.half :] = -np.roll(x[: plan.half], plan.shift)
    x[plan.ones] = 1.0
    total = x.sum()
    # As bf16 stores it.
    unit = 2.0**-8 * abs(total)
    assert 0 < abs(total) < 10
    for part in (
        slice(8),
        slice(-8, None),
        slice(size // 2),
        slice(size // 4, None, 4),
        slice(1, None, 2),
        slice(0, 1),
    ):
        assert abs(x[part].sum()) > unit, part


def test_the_planted_maxima_are_unique_and_in_every_quarter(np, data):
    for shape, dim in (((40, 64), 1), ((64, 40), 0), ((5, 16, 8), 1)):
        array = np.random.default_rng(1).uniform(-1, 1, shape)
        places, values = data.extrema(shape, dim, seed=4)
        array.reshape(-1)[places] = values
        assert (array.max(axis=dim).ravel() == values).all()
        assert ((array > 1).sum(axis=dim) == 1).all()
        assert set(array.argmax(axis=dim).ravel() * 4 // shape[dim]) == {0, 1, 2, 3}
        assert (np.float16(values) == values).all()
    places = data.quarters(1000, seed=4)
    assert {0, 999} < set(places)
    assert set(places * 4 // 1000) == {0, 1, 2, 3}
    assert list(data.quarters(1, seed=4)) == [0]
