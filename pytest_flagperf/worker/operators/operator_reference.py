"""References of FlagPerf's operators, from their definitions. NumPy only; the kernels of every framework use them.

An operator is judged at sampled elements, rows or images, in fp64; a full reduction needs all of its operand. What a
framework has is reached through :class:`Tensors`, so that only what is sampled leaves the device.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from pytest_flagperf.operators.problems import Operator
from pytest_flagperf.worker.operators import reference
from pytest_flagperf.worker.operators.correctness import ROUNDED_ONCE
from pytest_flagperf.worker.operators.correctness import ROUNDED_TWICE
from pytest_flagperf.worker.operators.correctness import SAFETY
from pytest_flagperf.worker.operators.correctness import UNIT_ROUNDOFF
from pytest_flagperf.worker.operators.correctness import product_bound
from pytest_flagperf.worker.operators.correctness import relative_error
from pytest_flagperf.worker.operators.correctness import rounding_bound
from pytest_flagperf.worker.operators.elements import DIVIDED
from pytest_flagperf.worker.operators.elements import OPERATIONS
from pytest_flagperf.worker.operators.elements import POINTWISE
from pytest_flagperf.worker.operators.elements import POINTWISE_GRADIENTS
from pytest_flagperf.worker.operators.elements import SAMPLED
from pytest_flagperf.worker.operators.elements import Tensors
from pytest_flagperf.worker.operators.elements import pointwise
from pytest_flagperf.worker.operators.elements import pointwise_gradient
from pytest_flagperf.worker.operators.elements import wide
from pytest_flagperf.worker.operators.elements import within
from pytest_flagperf.worker.operators.kernel import Check
from pytest_flagperf.worker.operators.reductions import Trial
from pytest_flagperf.worker.operators.reductions import Tried
from pytest_flagperf.worker.operators.reductions import extremum
from pytest_flagperf.worker.operators.reductions import largest
from pytest_flagperf.worker.operators.reductions import product_of_all
from pytest_flagperf.worker.operators.reductions import sampled_along
from pytest_flagperf.worker.operators.reductions import sum_or_mean
from pytest_flagperf.worker.operators.reductions import trials
from pytest_flagperf.worker.operators.request import Request


# Zero share of a dropout: this many standard deviations may lie between it and p.
DEVIATIONS = 6.0
# Added under the root of a normalization's variance, by every framework's default.
EPSILON = 1e-5


def judge(kernel: Tensors, request: Request, tried: Tried, answer: Callable[[Trial], Any]) -> Check:
    """The error of a kernel's last call, and its bound; where that is right, also those of its trials.

    ``answer`` gives what the call makes of a trial. Raises ``KeyError`` for an operator without a reference.
    """
    problem, direction = request.problem, request.direction
    assert isinstance(problem, Operator)
    shapes = (problem.inputs[0],) if direction == "bwd" else problem.outputs
    if any(tuple(kernel.shape(f"out{i}")) != shape for i, shape in enumerate(shapes)):
        return Check(math.inf, 0.0)
    reference_of = (GRADIENTS if direction == "bwd" else FORWARD)[problem.name]
    found = reference_of(problem, request.precision, kernel, request.seed)
    return tried(found, lambda: trials(problem, direction, request.precision, kernel, request.seed), answer)


# --- softmax and losses


def _softmax(x: Any, dim: int) -> Any:
    shifted = np.exp(x - x.max(axis=dim, keepdims=True))
    return shifted / shifted.sum(axis=dim, keepdims=True)


def _softmaxes(problem: Operator, precision: str, tensors: Tensors, seed: int) -> Check:
    rows, dim = sampled_along(problem, seed), int(dict(problem.arguments)["dim"])
    x = wide(tensors.rows("in0", rows))
    expected, found = _softmax(x, dim), tensors.rows("out0", rows)
    if problem.name == "softmax":
        return within(found, expected, precision, magnitude=np.abs(expected))
    inherited = _logarithm_of_sum(expected, dim)
    expected = np.log(expected)
    return within(found, expected, precision, magnitude=np.abs(x) + np.abs(expected), inherited=inherited)


def _logarithm_of_sum(y: Any, dim: int) -> Any:
    """What log_softmax subtracts beside the largest element; it may have been rounded to the type of the result."""
    return -np.log(y.max(axis=dim, keepdims=True))


def _softmax_gradients(problem: Operator, precision: str, tensors: Tensors, seed: int) -> Check:
    rows, dim = sampled_along(problem, seed), int(dict(problem.arguments)["dim"])
    gradient = wide(tensors.rows("gradient", rows))
    y = _softmax(wide(tensors.rows("in0", rows)), dim)
    if problem.name == "softmax":
        along = (gradient * y).sum(axis=dim, keepdims=True)
        expected = y * (gradient - along)
        inherited = y * np.abs(gradient * y).sum(axis=dim, keepdims=True)
        terms = np.abs(y * gradient) + inherited
    else:
        total = gradient.sum(axis=dim, keepdims=True)
        expected = gradient - y * total
        # The exponential of a logarithm that was rounded, and the product.
        inherited = np.abs(y * total) * (1.0 - np.log(y) + _logarithm_of_sum(y, dim))
        terms = np.abs(gradient) + y * np.abs(gradient).sum(axis=dim, keepdims=True)
    found = tensors.rows("out0", rows)
    return within(found, expected, precision, magnitude=terms, inherited=inherited)


def _cross_entropy(problem: Operator, precision: str, tensors: Tensors, seed: int) -> Check:
    expected = tensors.reference(lambda: _mean_loss(tensors, problem.inputs[0][0]))
    # The logarithms, their sum, and the mean are rounded.
    return within(tensors.flat("out0", np.zeros(1, int)), np.array([expected]), precision, OPERATIONS)


def _mean_loss(tensors: Tensors, count: int) -> float:
    losses = []
    for start in range(0, count, 64):
        rows = np.arange(start, min(count, start + 64))
        y = _softmax(wide(tensors.rows("in0", rows)), 1)
        losses.append(-np.log(y[np.arange(len(rows)), tensors.rows("in1", rows)]))
    return float(np.concatenate(losses).mean())


def _cross_entropy_gradient(problem: Operator, precision: str, tensors: Tensors, seed: int) -> Check:
    count = problem.inputs[0][0]
    rows = reference.sampled(count, 8, seed)
    expected = _softmax(wide(tensors.rows("in0", rows)), 1)
    factor = float(wide(tensors.flat("gradient", np.zeros(1, int)))[0]) / count
    # The exponential of a logarithm that was rounded.
    inherited = np.abs(factor) * expected * (_logarithm_of_sum(expected, 1) - np.log(expected))
    expected[np.arange(len(rows)), tensors.rows("in1", rows)] -= 1.0
    expected *= factor
    found = tensors.rows("out0", rows)
    return within(found, expected, precision, magnitude=np.abs(expected), inherited=inherited)


# --- products


def _matrix(problem: Operator, precision: str, tensors: Tensors, seed: int) -> Check:
    """Sampled rows of the result."""
    name = problem.name
    left, right, added = {"addmm": ("in1", "in2", "in0")}.get(name, ("in0", "in1", ""))
    rows = reference.sampled(problem.outputs[0][0], 8, seed)
    x = wide(tensors.rows(left, rows))
    length = x.shape[-1]
    if name == "bmm":
        expected = x @ wide(tensors.rows(right, rows))
    elif name == "outer":
        other = wide(tensors.rows(right, np.arange(problem.inputs[1][0])))
        expected = np.outer(x, other)
    else:
        y = wide(tensors.rows(right, np.arange(tensors.shape(right)[0])))
        expected = x @ (y.T if name == "linear" else y)
        if added:
            expected = expected + wide(tensors.rows(added, rows))
    found = tensors.rows("out0", rows)
    if name == "outer":
        return within(found, expected, precision, ROUNDED_ONCE, 0.0)
    return Check(relative_error(found, expected), product_bound(precision, length))


def _upper(problem: Operator, precision: str, tensors: Tensors, seed: int) -> Check:
    rows = reference.sampled(problem.inputs[0][0], 64, seed)
    x = tensors.rows("in0", rows)
    expected = np.where(np.arange(x.shape[1]) >= rows[:, None], x, np.zeros_like(x))
    return Check(relative_error(tensors.rows("out0", rows), expected), 0.0)


# --- normalizations and dropout


def _normalized(problem: Operator, tensors: Tensors, rows: Any) -> tuple[Any, Any, Any, Any]:
    """(normalized, mean / deviation, 1 / deviation, weight) of sampled images; groups are (images, groups, elements).

    The deviation is the standard one.
    """
    x = wide(tensors.rows("in0", rows))
    groups = int(dict(problem.arguments).get("groups", 1))
    grouped = x.reshape(len(rows), groups, -1)
    if problem.name == "layer_norm":
        # Over the trailing dimensions that the weight has.
        grouped = x.reshape(len(rows), -1, math.prod(problem.inputs[1]))
    inverse = 1.0 / np.sqrt(grouped.var(axis=2, keepdims=True) + EPSILON)
    mean = grouped.mean(axis=2, keepdims=True)
    normalized = (grouped - mean) * inverse
    weight = wide(tensors.rows("in1", np.arange(problem.inputs[1][0])))
    return normalized, mean * inverse, inverse, weight


def _norm(problem: Operator, precision: str, tensors: Tensors, seed: int) -> Check:
    rows = sampled_along(problem, seed)
    normalized, mean, _, weight = _normalized(problem, tensors, rows)
    bias = wide(tensors.rows("in2", np.arange(problem.inputs[2][0])))
    shape = (len(rows), *problem.inputs[0][1:])
    if problem.name != "layer_norm":
        weight, bias = weight[:, None], bias[:, None]
    expected = normalized.reshape(shape) * weight + bias
    # Mean and deviation may have been rounded to the type of the result.
    inherited = (np.abs(normalized) + np.abs(mean)).reshape(shape) * np.abs(weight)
    approximated = _accumulated(normalized.shape[2])
    found, terms = tensors.rows("out0", rows), inherited + np.abs(bias)
    return within(found, expected, precision, ROUNDED_TWICE, approximated, terms, inherited)


def _accumulated(length: int) -> float:
    """The error of the sums of a normalization, in unit roundoffs."""
    return SAFETY * math.sqrt(length)


def _norm_gradient(problem: Operator, precision: str, tensors: Tensors, seed: int) -> Check:
    rows = sampled_along(problem, seed)
    normalized, centre, inverse, weight = _normalized(problem, tensors, rows)
    gradient = (wide(tensors.rows("gradient", rows)) * weight[:, None]).reshape(normalized.shape)
    mean = gradient.mean(axis=2, keepdims=True)
    along = (gradient * normalized).mean(axis=2, keepdims=True)
    shape = (len(rows), *problem.inputs[0][1:])
    expected = (inverse * (gradient - mean - normalized * along)).reshape(shape)
    # Mean and deviation may have been rounded to the type of the result.
    inherited = inverse * (np.abs(gradient) + np.abs(mean) + (np.abs(normalized) + np.abs(centre)) * np.abs(along))
    approximated = _accumulated(normalized.shape[2])
    # The means are sums of terms that may cancel.
    usual, usual_along = (np.abs(each).mean(axis=2, keepdims=True) for each in (gradient, gradient * normalized))
    terms = inverse * (np.abs(gradient) + usual + (np.abs(normalized) + np.abs(centre)) * usual_along)
    found = tensors.rows("out0", rows)
    return within(
        found, expected, precision, ROUNDED_TWICE, approximated, terms.reshape(shape), inherited.reshape(shape)
    )


def _dropout(problem: Operator, precision: str, tensors: Tensors, seed: int) -> Check:
    places, p = reference.sampled(problem.elements, SAMPLED, seed), float(dict(problem.arguments)["p"])
    found = wide(tensors.flat("out0", places))
    kept = found != 0
    if "out1" in problem_outputs(problem) and (tensors.flat("out1", places).astype(bool) != kept).any():
        return Check(math.inf, rounding_bound(precision))
    return _dropped(wide(tensors.flat("in0", places)), found, kept, p, precision)


def _dropout_gradient(problem: Operator, precision: str, tensors: Tensors, seed: int) -> Check:
    places, p = reference.sampled(problem.elements, SAMPLED, seed), float(dict(problem.arguments)["p"])
    kept = tensors.flat("forward", places) != 0
    found = wide(tensors.flat("out0", places))
    return _dropped(wide(tensors.flat("gradient", places)), found, kept, p, precision)


def _dropped(x: Any, found: Any, kept: Any, p: float, precision: str) -> Check:
    """What is kept is scaled by 1 / (1 - p), and about p of it is not kept."""
    share = 1.0 - float(np.mean(kept))
    if abs(share - p) > DEVIATIONS * math.sqrt(p * (1 - p) / len(kept)) + UNIT_ROUNDOFF["bf16"]:
        return Check(math.inf, rounding_bound(precision))
    # The factor is rounded, and the product.
    return within(found, np.where(kept, x / (1 - p), 0.0), precision, ROUNDED_TWICE, DIVIDED["div"])


def problem_outputs(problem: Operator) -> list[str]:
    """The names of the results."""
    return [f"out{i}" for i in range(len(problem.outputs))]


Judge = Callable[[Operator, str, Tensors, int], Check]

FORWARD: dict[str, Judge] = {
    **dict.fromkeys(POINTWISE, pointwise),
    "sum": sum_or_mean,
    "mean": sum_or_mean,
    "prod": product_of_all,
    **dict.fromkeys(("max", "min", "all"), extremum),
    **dict.fromkeys(("amax", "argmax"), largest),
    **dict.fromkeys(("softmax", "log_softmax"), _softmaxes),
    "cross_entropy_loss": _cross_entropy,
    **dict.fromkeys(("mm", "linear", "bmm", "addmm", "mv", "outer"), _matrix),
    "triu": _upper,
    **dict.fromkeys(("group_norm", "layer_norm", "native_group_norm"), _norm),
    **dict.fromkeys(("dropout", "native_dropout"), _dropout),
}
GRADIENTS: dict[str, Judge] = {
    **dict.fromkeys(POINTWISE_GRADIENTS, pointwise_gradient),
    **dict.fromkeys(("softmax", "log_softmax"), _softmax_gradients),
    "cross_entropy_loss": _cross_entropy_gradient,
    "native_group_norm": _norm_gradient,
    "native_dropout": _dropout_gradient,
}
