"""Operators element by element: references and gradients from their definitions, and how an element is judged."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any
from typing import Protocol

import numpy as np

from pytest_flagperf.operators.problems import Operator
from pytest_flagperf.worker.operators import reference
from pytest_flagperf.worker.operators.correctness import ACCUMULATE
from pytest_flagperf.worker.operators.correctness import APPROXIMATED
from pytest_flagperf.worker.operators.correctness import APPROXIMATED_TANH
from pytest_flagperf.worker.operators.correctness import ROUNDED_ONCE
from pytest_flagperf.worker.operators.correctness import ROUNDED_TWICE
from pytest_flagperf.worker.operators.correctness import STORED
from pytest_flagperf.worker.operators.correctness import UNIT_ROUNDOFF
from pytest_flagperf.worker.operators.correctness import allowed
from pytest_flagperf.worker.operators.correctness import exact_error
from pytest_flagperf.worker.operators.correctness import relative_error
from pytest_flagperf.worker.operators.correctness import root_mean_square
from pytest_flagperf.worker.operators.correctness import rounding_bound
from pytest_flagperf.worker.operators.correctness import share_of_allowed
from pytest_flagperf.worker.operators.kernel import Check
from pytest_flagperf.worker.operators.reference import sigmoid


SAMPLED = 1 << 16
# Roundings of a gradient such as g y (1 - y), where each of its operations rounds: PyTorch's in fp16 on processors.
OPERATIONS = 3.0
# So many truth values of drawn data are never all the same.
LEAST_BOTH = 64


class Tensors(Protocol):
    """Operands ``in0``, ``in1`` ..., the outputs' gradient ``gradient`` and results ``out0`` ..., as NumPy arrays."""

    def shape(self, name: str) -> tuple[int, ...]:
        """The tensor's shape."""

    def flat(self, name: str, indices: Any) -> Any:
        """Elements by their place in row-major order."""

    def rows(self, name: str, indices: Any) -> Any:
        """Slices along the first dimension."""

    def reference(self, compute: Callable[[], Any]) -> Any:
        """What ``compute`` gives, computed when it is first asked for: the operands stay as they are."""


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
# Nothing is rounded.
EXACT = frozenset({"abs", "neg", "relu"})
ROUNDED = frozenset({"add", "sub", "rsub", "mul"})
# Not every device divides with a correct rounding; OpenCL allows 2.5 units in the last place.
DIVIDED = {"div": 5.0, "reciprocal": 5.0}
# Given the input and the output's gradient.
POINTWISE_GRADIENTS: dict[str, Callable[[Any, Any], Any]] = {
    "relu": lambda x, g: np.where(x > 0, g, 0.0),
    "sigmoid": lambda x, g: g * sigmoid(x) * (1 - sigmoid(x)),
    "silu": lambda x, g: g * sigmoid(x) * (1 + x * (1 - sigmoid(x))),
    "tanh": lambda x, g: g * (1 - np.tanh(x) ** 2),
}
# By how much such a gradient changes where the forward result it is computed from does by a part of itself. The others
# are computed from the input.
SAVED_RESULT: dict[str, Callable[[Any, Any], Any]] = {
    "sigmoid": lambda x, g: g * sigmoid(x) * (1 - 2 * sigmoid(x)),
    "tanh": lambda x, g: 2 * g * np.tanh(x) ** 2,
}


def wide(array: Any) -> Any:
    return array if array.dtype.kind in "bui" else array.astype(np.float64)


def within(
    answer: Any,
    expected: Any,
    precision: str,
    roundings: float = ROUNDED_TWICE,
    approximated: float = APPROXIMATED,
    magnitude: Any = None,
    inherited: Any = 0.0,
) -> Check:
    """Judged element by element by what ``correctness.allowed`` allows; the bound is that of a usual element."""
    if precision not in STORED:
        return Check(relative_error(answer, expected), 0.0)
    bound = rounding_bound(precision, roundings) + approximated * UNIT_ROUNDOFF[ACCUMULATE[precision]]
    size = root_mean_square(expected) if magnitude is None else magnitude
    allowance = allowed(expected, precision, roundings, approximated, size, inherited)
    return Check(bound * share_of_allowed(answer, expected, allowance), bound)


def pointwise(problem: Operator, precision: str, tensors: Tensors, seed: int) -> Check:
    places = reference.sampled(math.prod(problem.outputs[0]), SAMPLED, seed)
    operands = [wide(tensors.flat(f"in{i}", places)) for i in range(len(problem.inputs))]
    expected = np.asarray(POINTWISE[problem.name](*operands, *(value for _, value in problem.arguments)))
    found = tensors.flat("out0", places)
    if found.dtype.kind in "bui":
        return exact(found, expected)
    if problem.name in EXACT:
        return Check(relative_error(found, expected), 0.0)
    if problem.name in ROUNDED:
        return within(found, expected, precision, ROUNDED_ONCE, 0.0)
    if problem.name in DIVIDED:
        return within(found, expected, precision, ROUNDED_ONCE, DIVIDED[problem.name])
    return within(found, expected, precision, approximated=_approximated(problem))


def _approximated(problem: Operator) -> float:
    return APPROXIMATED_TANH if problem.name == "tanh" else APPROXIMATED


def exact(found: Any, expected: Any) -> Check:
    """Whole numbers, and truth values of which both have to be there: data that give one only prove nothing."""
    if expected.dtype.kind == "b" and expected.size >= LEAST_BOTH and expected.all() == expected.any():
        return Check(math.inf, 0.0)
    return Check(exact_error(found, expected), 0.0)


def pointwise_gradient(problem: Operator, precision: str, tensors: Tensors, seed: int) -> Check:
    places = reference.sampled(math.prod(problem.inputs[0]), SAMPLED, seed)
    x, gradient = wide(tensors.flat("in0", places)), wide(tensors.flat("gradient", places))
    expected = POINTWISE_GRADIENTS[problem.name](x, gradient)
    found = tensors.flat("out0", places)
    if problem.name in EXACT:
        return Check(relative_error(found, expected), 0.0)
    inherited = SAVED_RESULT[problem.name](x, gradient) if problem.name in SAVED_RESULT else 0.0
    terms = root_mean_square(expected) + np.abs(inherited)
    return within(found, expected, precision, OPERATIONS, _approximated(problem), terms, inherited)
