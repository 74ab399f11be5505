"""References of FlagPerf's operators, from their definitions. NumPy only; the kernels of every framework use them.

An operator is judged at sampled elements, rows or images, in fp64; a full reduction needs all of its operand. What a
framework has is reached through :class:`Tensors`, so that only what is sampled leaves the device.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any
from typing import Protocol

import numpy as np

from pytest_flagperf.operators.problems import Operator
from pytest_flagperf.worker.operators import reference
from pytest_flagperf.worker.operators.correctness import UNIT_ROUNDOFF
from pytest_flagperf.worker.operators.correctness import exact_error
from pytest_flagperf.worker.operators.correctness import function_bound
from pytest_flagperf.worker.operators.correctness import pointwise_bound
from pytest_flagperf.worker.operators.correctness import product_bound
from pytest_flagperf.worker.operators.correctness import relative_error
from pytest_flagperf.worker.operators.kernel import Check
from pytest_flagperf.worker.operators.reference import sigmoid


SAMPLED = 1 << 16
# Zero share of a dropout: this many standard deviations may lie between it and p.
DEVIATIONS = 6.0
# Added under the root of a normalization's variance, by every framework's default.
EPSILON = 1e-5


class Tensors(Protocol):
    """Operands ``in0``, ``in1`` ..., the outputs' gradient ``gradient`` and results ``out0`` ..., as NumPy arrays."""

    def shape(self, name: str) -> tuple[int, ...]:
        """The tensor's shape."""

    def flat(self, name: str, indices: Any) -> Any:
        """Elements by their place in row-major order."""

    def rows(self, name: str, indices: Any) -> Any:
        """Slices along the first dimension."""


_error_function = np.vectorize(math.erf, otypes=[float])

POINTWISE: dict[str, Callable[..., Any]] = {
    "abs": np.abs,
    "add": np.add,
    "sub": np.subtract,
    "rsub": lambda a, b: b - a,
    "mul": lambda a, other: a * other,
    "div": lambda a, other: a / other,
    "pow": lambda a, exponent: a**exponent,
    "neg": np.negative,
    "cos": np.cos,
    "sin": np.sin,
    "exp": np.exp,
    "reciprocal": np.reciprocal,
    "rsqrt": lambda a: 1.0 / np.sqrt(a),
    "relu": lambda a: np.maximum(a, 0.0),
    "sigmoid": sigmoid,
    "silu": lambda a: a * sigmoid(a),
    "tanh": np.tanh,
    "gelu": lambda a: 0.5 * a * (1.0 + _error_function(a / math.sqrt(2.0))),
    "eq": np.equal,
    "ne": np.not_equal,
    "ge": np.greater_equal,
    "gt": np.greater,
    "le": np.less_equal,
    "lt": np.less,
    "isinf": np.isinf,
    "isnan": np.isnan,
    "bitwise_and": np.bitwise_and,
    "bitwise_or": np.bitwise_or,
    "bitwise_not": np.bitwise_not,
}
# Rounded once; the other functions are approximated.
ARITHMETIC = frozenset({"abs", "add", "sub", "rsub", "mul", "div", "neg", "relu"})
# Given the input and the output's gradient.
POINTWISE_GRADIENTS: dict[str, Callable[[Any, Any], Any]] = {
    "relu": lambda x, g: np.where(x > 0, g, 0.0),
    "sigmoid": lambda x, g: g * sigmoid(x) * (1 - sigmoid(x)),
    "silu": lambda x, g: g * sigmoid(x) * (1 + x * (1 - sigmoid(x))),
    "tanh": lambda x, g: g * (1 - np.tanh(x) ** 2),
}


def check(problem: Operator, direction: str, precision: str, tensors: Tensors, seed: int) -> Check:
    """The error of the last call, and its bound. Raises ``KeyError`` for an operator without a reference."""
    judge = (GRADIENTS if direction == "bwd" else FORWARD)[problem.name]
    return judge(problem, precision, tensors, seed)


def shapes_hold(problem: Operator, tensors: Tensors) -> bool:
    """Whether the results have the shapes that the problem says; the rest of a check relies on it."""
    return all(tuple(tensors.shape(f"out{i}")) == shape for i, shape in enumerate(problem.outputs))


def _wide(array: Any) -> Any:
    return array if array.dtype.kind in "bui" else array.astype(np.float64)


def _pointwise(problem: Operator, precision: str, tensors: Tensors, seed: int) -> Check:
    places = reference.sampled(math.prod(problem.outputs[0]), SAMPLED, seed)
    operands = [_wide(tensors.flat(f"in{i}", places)) for i in range(len(problem.inputs))]
    expected = POINTWISE[problem.name](*operands, *(value for _, value in problem.arguments))
    found = tensors.flat("out0", places)
    if found.dtype.kind in "bui":
        return Check(exact_error(found, np.asarray(expected)), 0.0)
    bound = pointwise_bound(precision) if problem.name in ARITHMETIC else function_bound(precision)
    return Check(relative_error(found, expected), bound)


def _pointwise_gradient(problem: Operator, precision: str, tensors: Tensors, seed: int) -> Check:
    places = reference.sampled(math.prod(problem.inputs[0]), SAMPLED, seed)
    x, gradient = _wide(tensors.flat("in0", places)), _wide(tensors.flat("gradient", places))
    expected = POINTWISE_GRADIENTS[problem.name](x, gradient)
    bound = function_bound(precision, gradient=True)
    return Check(relative_error(tensors.flat("out0", places), expected), bound)


# --- reductions


def _chunks(tensors: Tensors, name: str) -> Any:
    """All of a tensor, a chunk at a time."""
    size = math.prod(tensors.shape(name))
    for start in range(0, size, 1 << 24):
        yield _wide(tensors.flat(name, np.arange(start, min(size, start + (1 << 24)))))


def _sum(problem: Operator, precision: str, tensors: Tensors, seed: int) -> Check:
    total, squares, count = 0.0, 0.0, math.prod(problem.inputs[0])
    for chunk in _chunks(tensors, "in0"):
        total += float(chunk.sum())
        squares += float(np.square(chunk).sum())
    found = float(tensors.flat("out0", np.zeros(1, int))[0])
    if not math.isfinite(found):
        return Check(math.nan, 0.0)
    if problem.name == "mean":
        found *= count
    # A sum of zero mean may cancel to nearly nothing; what it is compared with is what it is expected to be.
    scale = max(abs(total), math.sqrt(squares))
    return Check(abs(found - total) / scale, product_bound(precision, count))


def _product(problem: Operator, precision: str, tensors: Tensors, seed: int) -> Check:
    total, count = 1.0, math.prod(problem.inputs[0])
    for chunk in _chunks(tensors, "in0"):
        total *= float(np.prod(chunk))
    return Check(relative_error(tensors.flat("out0", np.zeros(1, int)), [total]), product_bound(precision, count))


def _extremum(problem: Operator, precision: str, tensors: Tensors, seed: int) -> Check:
    choices: dict[str, Callable[[Any], Any]] = {"max": np.max, "min": np.min, "all": np.all}
    choose = choices[problem.name]
    expected = choose([choose(chunk) for chunk in _chunks(tensors, "in0")])
    return Check(relative_error(tensors.flat("out0", np.zeros(1, int)), np.asarray([expected])), 0.0)


def _along(problem: Operator, seed: int) -> Any:
    """Sampled indices of the first dimension, for operators along another."""
    rest = math.prod(problem.inputs[0][1:])
    return reference.sampled(problem.inputs[0][0], max(2, reference.BLOCK_ELEMENTS // 4 // rest), seed)


def _largest(problem: Operator, precision: str, tensors: Tensors, seed: int) -> Check:
    rows = _along(problem, seed)
    x, found = _wide(tensors.rows("in0", rows)), tensors.rows("out0", rows)
    dim = int(dict(problem.arguments)["dim"])
    expected = x.max(axis=dim)
    if problem.name == "argmax":
        if ((found < 0) | (found >= x.shape[dim])).any():
            return Check(math.inf, 0.0)
        # Of equal values any may be named.
        found = np.take_along_axis(x, np.expand_dims(found, dim), dim).squeeze(dim)
    return Check(relative_error(found, expected), 0.0)


# --- softmax and losses


def _softmax(x: Any, dim: int) -> Any:
    shifted = np.exp(x - x.max(axis=dim, keepdims=True))
    return shifted / shifted.sum(axis=dim, keepdims=True)


def _softmaxes(problem: Operator, precision: str, tensors: Tensors, seed: int) -> Check:
    rows, dim = _along(problem, seed), int(dict(problem.arguments)["dim"])
    expected = _softmax(_wide(tensors.rows("in0", rows)), dim)
    if problem.name == "log_softmax":
        expected = np.log(expected)
    return Check(relative_error(tensors.rows("out0", rows), expected), function_bound(precision))


def _softmax_gradients(problem: Operator, precision: str, tensors: Tensors, seed: int) -> Check:
    rows, dim = _along(problem, seed), int(dict(problem.arguments)["dim"])
    gradient = _wide(tensors.rows("gradient", rows))
    y = _softmax(_wide(tensors.rows("in0", rows)), dim)
    if problem.name == "softmax":
        expected = y * (gradient - (gradient * y).sum(axis=dim, keepdims=True))
    else:
        expected = gradient - y * gradient.sum(axis=dim, keepdims=True)
    return Check(relative_error(tensors.rows("out0", rows), expected), function_bound(precision, gradient=True))


def _cross_entropy(problem: Operator, precision: str, tensors: Tensors, seed: int) -> Check:
    count = problem.inputs[0][0]
    losses = []
    for start in range(0, count, 64):
        rows = np.arange(start, min(count, start + 64))
        y = _softmax(_wide(tensors.rows("in0", rows)), 1)
        losses.append(-np.log(y[np.arange(len(rows)), tensors.rows("in1", rows)]))
    expected = np.concatenate(losses).mean()
    return Check(relative_error(tensors.flat("out0", np.zeros(1, int)), [expected]), function_bound(precision))


def _cross_entropy_gradient(problem: Operator, precision: str, tensors: Tensors, seed: int) -> Check:
    count = problem.inputs[0][0]
    rows = reference.sampled(count, 8, seed)
    expected = _softmax(_wide(tensors.rows("in0", rows)), 1)
    expected[np.arange(len(rows)), tensors.rows("in1", rows)] -= 1.0
    expected *= _wide(tensors.flat("gradient", np.zeros(1, int)))[0] / count
    return Check(relative_error(tensors.rows("out0", rows), expected), function_bound(precision, gradient=True))


# --- products


def _matrix(problem: Operator, precision: str, tensors: Tensors, seed: int) -> Check:
    """Sampled rows of the result."""
    name = problem.name
    left, right, added = {"addmm": ("in1", "in2", "in0")}.get(name, ("in0", "in1", ""))
    rows = reference.sampled(problem.outputs[0][0], 8, seed)
    x = _wide(tensors.rows(left, rows))
    length = x.shape[-1]
    if name == "bmm":
        expected = x @ _wide(tensors.rows(right, rows))
    elif name == "outer":
        other = _wide(tensors.rows(right, np.arange(problem.inputs[1][0])))
        expected, length = np.outer(x, other), 1
    else:
        y = _wide(tensors.rows(right, np.arange(tensors.shape(right)[0])))
        expected = x @ (y.T if name == "linear" else y)
        if added:
            expected = expected + _wide(tensors.rows(added, rows))
    return Check(relative_error(tensors.rows("out0", rows), expected), product_bound(precision, length))


def _upper(problem: Operator, precision: str, tensors: Tensors, seed: int) -> Check:
    rows = reference.sampled(problem.inputs[0][0], 64, seed)
    x = tensors.rows("in0", rows)
    expected = np.where(np.arange(x.shape[1]) >= rows[:, None], x, np.zeros_like(x))
    return Check(relative_error(tensors.rows("out0", rows), expected), 0.0)


# --- normalizations and dropout


def _normalized(problem: Operator, tensors: Tensors, rows: Any) -> tuple[Any, Any, Any]:
    """(normalized, 1 / standard deviation, weight) of sampled images, in groups: (images, groups, elements)."""
    x = _wide(tensors.rows("in0", rows))
    groups = int(dict(problem.arguments).get("groups", 1))
    grouped = x.reshape(len(rows), groups, -1)
    if problem.name == "layer_norm":
        # Over the trailing dimensions that the weight has.
        grouped = x.reshape(len(rows), -1, math.prod(problem.inputs[1]))
    inverse = 1.0 / np.sqrt(grouped.var(axis=2, keepdims=True) + EPSILON)
    normalized = (grouped - grouped.mean(axis=2, keepdims=True)) * inverse
    weight = _wide(tensors.rows("in1", np.arange(problem.inputs[1][0])))
    return normalized, inverse, weight


def _norm(problem: Operator, precision: str, tensors: Tensors, seed: int) -> Check:
    rows = _along(problem, seed)
    normalized, _, weight = _normalized(problem, tensors, rows)
    bias = _wide(tensors.rows("in2", np.arange(problem.inputs[2][0])))
    shape = (len(rows), *problem.inputs[0][1:])
    if problem.name != "layer_norm":
        weight, bias = weight[:, None], bias[:, None]
    expected = normalized.reshape(shape) * weight + bias
    bound = pointwise_bound(precision) + product_bound(precision, normalized.shape[2])
    return Check(relative_error(tensors.rows("out0", rows), expected), bound)


def _norm_gradient(problem: Operator, precision: str, tensors: Tensors, seed: int) -> Check:
    rows = _along(problem, seed)
    normalized, inverse, weight = _normalized(problem, tensors, rows)
    gradient = (_wide(tensors.rows("gradient", rows)) * weight[:, None]).reshape(normalized.shape)
    mean = gradient.mean(axis=2, keepdims=True)
    along = (gradient * normalized).mean(axis=2, keepdims=True)
    expected = (inverse * (gradient - mean - normalized * along)).reshape(len(rows), *problem.inputs[0][1:])
    bound = pointwise_bound(precision) + product_bound(precision, normalized.shape[2])
    return Check(relative_error(tensors.rows("out0", rows), expected), bound)


def _dropout(problem: Operator, precision: str, tensors: Tensors, seed: int) -> Check:
    places, p = reference.sampled(problem.elements, SAMPLED, seed), float(dict(problem.arguments)["p"])
    found = _wide(tensors.flat("out0", places))
    kept = found != 0
    if "out1" in problem_outputs(problem) and (tensors.flat("out1", places).astype(bool) != kept).any():
        return Check(math.inf, pointwise_bound(precision))
    return _dropped(_wide(tensors.flat("in0", places)), found, kept, p, precision)


def _dropout_gradient(problem: Operator, precision: str, tensors: Tensors, seed: int) -> Check:
    places, p = reference.sampled(problem.elements, SAMPLED, seed), float(dict(problem.arguments)["p"])
    kept = tensors.flat("forward", places) != 0
    found = _wide(tensors.flat("out0", places))
    return _dropped(_wide(tensors.flat("gradient", places)), found, kept, p, precision)


def _dropped(x: Any, found: Any, kept: Any, p: float, precision: str) -> Check:
    """What is kept is scaled by 1 / (1 - p), and about p of it is not kept."""
    bound = pointwise_bound(precision)
    share = 1.0 - float(np.mean(kept))
    if abs(share - p) > DEVIATIONS * math.sqrt(p * (1 - p) / len(kept)) + UNIT_ROUNDOFF["bf16"]:
        return Check(math.inf, bound)
    return Check(relative_error(found, np.where(kept, x / (1 - p), 0.0)), bound)


def problem_outputs(problem: Operator) -> list[str]:
    """The names of the results."""
    return [f"out{i}" for i in range(len(problem.outputs))]


Judge = Callable[[Operator, str, Tensors, int], Check]

FORWARD: dict[str, Judge] = {
    **dict.fromkeys(POINTWISE, _pointwise),
    "sum": _sum,
    "mean": _sum,
    "prod": _product,
    **dict.fromkeys(("max", "min", "all"), _extremum),
    **dict.fromkeys(("amax", "argmax"), _largest),
    **dict.fromkeys(("softmax", "log_softmax"), _softmaxes),
    "cross_entropy_loss": _cross_entropy,
    **dict.fromkeys(("mm", "linear", "bmm", "addmm", "mv", "outer"), _matrix),
    "triu": _upper,
    **dict.fromkeys(("group_norm", "layer_norm", "native_group_norm"), _norm),
    **dict.fromkeys(("dropout", "native_dropout"), _dropout),
}
GRADIENTS: dict[str, Judge] = {
    **dict.fromkeys(POINTWISE_GRADIENTS, _pointwise_gradient),
    **dict.fromkeys(("softmax", "log_softmax"), _softmax_gradients),
    "cross_entropy_loss": _cross_entropy_gradient,
    "native_group_norm": _norm_gradient,
    "native_dropout": _dropout_gradient,
}
