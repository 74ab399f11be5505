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
