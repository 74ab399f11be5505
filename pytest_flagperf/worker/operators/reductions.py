"""Reductions to one value or along a dimension: references from their definitions, and trials that need each part."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from pytest_flagperf.operators.problems import Operator
from pytest_flagperf.worker.operators import data
from pytest_flagperf.worker.operators import reference
from pytest_flagperf.worker.operators.correctness import ROUNDED_ONCE
from pytest_flagperf.worker.operators.correctness import ROUNDED_TWICE
from pytest_flagperf.worker.operators.correctness import SAFETY
from pytest_flagperf.worker.operators.correctness import STORED
from pytest_flagperf.worker.operators.correctness import allowed
from pytest_flagperf.worker.operators.correctness import product_bound
from pytest_flagperf.worker.operators.correctness import relative_error
from pytest_flagperf.worker.operators.elements import Tensors
from pytest_flagperf.worker.operators.elements import wide
from pytest_flagperf.worker.operators.kernel import Check


def _chunks(tensors: Tensors, name: str) -> Any:
    """All of a tensor, a chunk at a time."""
    size = math.prod(tensors.shape(name))
    for start in range(0, size, 1 << 24):
        yield wide(tensors.flat(name, np.arange(start, min(size, start + (1 << 24)))))


def sum_or_mean(problem: Operator, precision: str, tensors: Tensors, seed: int) -> Check:
    """Relative to the norm of the elements: the data are such that the sum is much smaller than that.

    Nobody adds so many elements one after the other: blocks or a tree lose the logarithm of the number.
    """
    count = math.prod(problem.inputs[0])
    total, squares = tensors.reference(lambda: _sums(tensors))
    found = float(tensors.flat("out0", np.zeros(1, int))[0])
    if not math.isfinite(found):
        return Check(math.nan, 0.0)
    if total == 0.0:
        return Check(math.inf, 0.0)
    if precision not in STORED:
        return Check(abs(found - total) / abs(total), 0.0)
    norm, roundings = math.sqrt(squares), ROUNDED_ONCE
    if problem.name == "mean":
        norm, total, roundings = norm / count, total / count, ROUNDED_TWICE
    accumulated = SAFETY * math.log2(max(count, 2)) * norm / abs(total)
    allowance = float(allowed(total, precision, roundings, accumulated))
    return Check(abs(found - total) / norm, allowance / norm)


def _sums(tensors: Tensors) -> tuple[float, float]:
    total, squares = 0.0, 0.0
    for chunk in _chunks(tensors, "in0"):
        total += float(chunk.sum())
        squares += float(np.square(chunk).sum())
    return total, squares


def product_of_all(problem: Operator, precision: str, tensors: Tensors, seed: int) -> Check:
    count = math.prod(problem.inputs[0])
    total = tensors.reference(lambda: math.prod(float(np.prod(chunk)) for chunk in _chunks(tensors, "in0")))
    return Check(relative_error(tensors.flat("out0", np.zeros(1, int)), [total]), product_bound(precision, count))


def extremum(problem: Operator, precision: str, tensors: Tensors, seed: int) -> Check:
    choices: dict[str, Callable[[Any], Any]] = {"max": np.max, "min": np.min, "all": np.all}
    choose = choices[problem.name]
    expected = tensors.reference(lambda: choose([choose(chunk) for chunk in _chunks(tensors, "in0")]))
    return Check(relative_error(tensors.flat("out0", np.zeros(1, int)), np.asarray([expected])), 0.0)


@dataclass(frozen=True)
class Trial:
    """One element changed, and the scalar that the reduction has to give then, exactly."""

    place: int
    value: float
    expected: float


def trials(problem: Operator, direction: str, precision: str, tensors: Tensors, seed: int) -> list[Trial]:
    """What a reduction to one value is asked besides: each time another element, in another part, decides.

    One answer of one extremum, or of a truth value, is right by half of the data or by none. Empty for other operators.
    """
    if direction != "fwd" or problem.name not in ("max", "min", "all", "prod"):
        return []
    if problem.name != "all" and precision not in STORED:
        # Of whole numbers in [-127, 127] the largest is everywhere.
        return []
    places = data.quarters(math.prod(problem.inputs[0]), seed)
    if problem.name == "all":
        return [Trial(int(place), 0.0, 0.0) for place in places]
    if problem.name == "prod":
        # The sign changes; the magnitude has been judged.
        total = float(tensors.flat("out0", np.zeros(1, int))[0])
        elements = wide(tensors.flat("in0", places))
        return [Trial(int(place), -float(x), -total) for place, x in zip(places, elements, strict=True)]
    values = data.planted(seed, len(places)) * (1 if problem.name == "max" else -1)
    return [Trial(int(place), float(value), float(value)) for place, value in zip(places, values, strict=True)]


class Tried:
    """A check with its trials: all of them when it first finds the answer right, and one in turn each time after."""

    def __init__(self) -> None:
        self._times = 0

    def __call__(self, found: Check, trials: Callable[[], list[Trial]], answer: Callable[[Trial], Any]) -> Check:
        """``found``, or the first trial whose ``answer`` is another."""
        if not found.correct:
            return found
        asked = trials()
        if asked and self._times:
            asked = [asked[self._times % len(asked)]]
        self._times += 1
        for trial in asked:
            given = float(np.asarray(answer(trial), np.float64).ravel()[0])
            check = Check(abs(given - trial.expected) / (abs(trial.expected) or 1.0), 0.0)
            if not check.correct:
                return check
        return found


def sampled_along(problem: Operator, seed: int) -> Any:
    """Sampled indices of the first dimension, for operators along another."""
    rest = math.prod(problem.inputs[0][1:])
    return reference.sampled(problem.inputs[0][0], max(2, reference.BLOCK_ELEMENTS // 4 // rest), seed)


def largest(problem: Operator, precision: str, tensors: Tensors, seed: int) -> Check:
    rows = sampled_along(problem, seed)
    x, found = wide(tensors.rows("in0", rows)), tensors.rows("out0", rows)
    dim = int(dict(problem.arguments)["dim"])
    expected = x.max(axis=dim)
    if problem.name == "argmax":
        if ((found < 0) | (found >= x.shape[dim])).any():
            return Check(math.inf, 0.0)
        # Of equal values any may be named.
        found = np.take_along_axis(x, np.expand_dims(found, dim), dim).squeeze(dim)
    return Check(relative_error(found, expected), 0.0)
