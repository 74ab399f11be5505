"""How far an answer may be from the reference, and how far it is. NumPy only.

The bound of an inner product of ``length`` terms is probabilistic: with operands of zero mean the rounding errors of
an accumulation are a random walk, so they grow with the square root of the length and not with the length itself
(Higham and Mary 2019, "A New Approach to Probabilistic Rounding Error Analysis")::

    bound = SAFETY * (u_product + sqrt(length) * u_accumulate + u_output)

Each ``u`` is a unit roundoff. ``SAFETY`` is 4: the largest of some thousand normally distributed errors lies within
four standard deviations, and one standard deviation of a plain sequential sum is 0.71 sqrt(length) u.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np


SAFETY = 4.0
# Winograd's and the FFT's transforms lose a few bits.
TRANSFORMED = 4.0
# A function computed in more than it is stored in, or a correctly rounded one: half a unit in the last place, which is
# at most one unit roundoff of the result.
ROUNDED_ONCE = 1.0
# Where two roundings follow each other, or where a function is faithful: either neighbour of the exact value.
ROUNDED_TWICE = 2.0
# Unit roundoffs of the type it is computed in that an approximated function may lose. Measured in fp32, of the size of
# the result: 1 to 20 by PyTorch's and PaddlePaddle's functions on a processor, up to 55 by MindSpore's exp, sigmoid and
# their gradients; CUDA's are documented to lose 4.
APPROXIMATED = 128.0
# MindSpore's tanh on a processor: 250.
APPROXIMATED_TANH = 512.0

# The largest error of a recurrent layer, forward and backward, in unit roundoffs of the stored type. Measured, over up
# to 200 steps in bf16 and fp16, of calls that are fused (PyTorch's) and of calls that are not (each operation rounds):
# 1.0 and 2.1 for a vanilla layer in either direction, 5 and 8 for an LSTM forward, 13 and 10 backward, 3.2 and 5.5 for
# a GRU forward, 6.6 and 9.2 backward. An LSTM's cell carries the roundings of all steps before.
RECURRENT = {"vanilla": (6.0, 6.0), "lstm": (12.0, 24.0), "gru": (10.0, 16.0)}
# How much larger than their root mean square those errors are at most. Measured root mean squares, which hardly vary:
# 0.4 to 0.6, 1.2 to 1.5 and 0.8 to 1.6 unit roundoffs.
PEAK = 6.0
# The same in TF32, in unit roundoffs of that, whichever the cell.
TENSOR_FLOAT = 6.0

UNIT_ROUNDOFF = {"fp64": 2.0**-53, "fp32": 2.0**-24, "tf32": 2.0**-11, "bf16": 2.0**-8, "fp16": 2.0**-11}
# Below it a type has no full precision any more.
SMALLEST_NORMAL = {"fp64": 2.0**-1022, "fp32": 2.0**-126, "tf32": 2.0**-126, "bf16": 2.0**-126, "fp16": 2.0**-14}
# What a product of this precision is accumulated in, and what its result is stored in.
ACCUMULATE = {"fp64": "fp64", "fp32": "fp32", "tf32": "fp32", "bf16": "fp32", "fp16": "fp32", "fp8": "fp32"}
STORED = {"fp64": "fp64", "fp32": "fp32", "tf32": "fp32", "bf16": "bf16", "fp16": "fp16", "fp8": "bf16"}


def product_bound(precision: str, length: int) -> float:
    """The bound of inner products of ``length`` terms, relative to :func:`scale`. Integers are exact: 0."""
    if precision not in ACCUMULATE:
        return 0.0
    product = UNIT_ROUNDOFF["tf32"] if precision == "tf32" else 0.0
    accumulated = math.sqrt(length) * UNIT_ROUNDOFF[ACCUMULATE[precision]]
    return SAFETY * (product + accumulated + UNIT_ROUNDOFF[STORED[precision]])


def recurrent_bound(cell: str, precision: str, length: int, backward: bool = False) -> float:
    """The bound of a recurrent layer over products of ``length`` terms; see :func:`recurrent_error`.

    What comes back through a product is the error of the step after, too. Gates are approximated: in fp32 MindSpore's
    layers are off by up to 65 unit roundoffs for that.
    """
    roundings = RECURRENT[cell][backward] * UNIT_ROUNDOFF[STORED[precision]]
    computed = SAFETY * math.sqrt(length) + (0.0 if cell == "vanilla" else APPROXIMATED)
    computed *= UNIT_ROUNDOFF[ACCUMULATE[precision]]
    # Of TF32 the operands of the products are rounded, and nothing else is: measured, emulated, 3.2 and 0.5.
    product = TENSOR_FLOAT * UNIT_ROUNDOFF["tf32"] if precision == "tf32" else 0.0
    return roundings + product + (2 if backward else 1) * computed


def rounding_bound(precision: str, roundings: float = ROUNDED_ONCE) -> float:
    """The bound of ``roundings`` roundings to the type of the result, relative to the element. Integers: 0."""
    return roundings * UNIT_ROUNDOFF[STORED[precision]] if precision in STORED else 0.0


def allowed(
    reference: Any,
    precision: str,
    roundings: float,
    approximated: float = 0.0,
    magnitude: Any = 0.0,
    inherited: Any = 0.0,
) -> Any:
    """How far each element of a result may be from its reference.

    The result is rounded relative to the element itself, however small it is. What it is computed from is off by
    ``approximated`` unit roundoffs of the type it is computed in, relative to ``magnitude``, the size of the terms that
    it is made of. What the formula reads back after it was stored is off by a unit roundoff of ``inherited``.
    """
    stored = UNIT_ROUNDOFF[STORED[precision]]
    size = np.maximum(np.abs(reference), SMALLEST_NORMAL[STORED[precision]])
    computed = UNIT_ROUNDOFF[ACCUMULATE[precision]] * approximated * np.maximum(magnitude, np.abs(reference))
    return roundings * stored * size + computed + stored * np.abs(inherited)


def share_of_allowed(answer: Any, reference: Any, allowance: Any) -> float:
    """The largest error as a share of what is allowed there; NaN for any non-finite answer.

    Infinite for a reference of zeros alone: drawn data do not give it, and a call that does nothing would.
    """
    answer, reference = np.asarray(answer), np.asarray(reference)
    if answer.shape != reference.shape:
        raise ValueError(f"an answer of shape {answer.shape} for a reference of shape {reference.shape}")
    answer, reference = answer.astype(np.float64), reference.astype(np.float64)
    if not np.isfinite(answer).all():
        return math.nan
    if not reference.any():
        return math.inf
    return float(np.max(np.abs(answer - reference) / allowance))


def root_mean_square(array: Any) -> float:
    """The size of an array's elements."""
    return float(np.sqrt(np.mean(np.square(np.asarray(array, np.float64)))))


def relative_error(answer: Any, reference: Any) -> float:
    """The largest ``|answer - reference| / max(|reference|, rms(reference))``; NaN for any non-finite answer.

    Relative to at least the root mean square, because an inner product that cancels to nearly nothing has an error
    of the size of its terms. Infinite for a reference of zeros alone, as in :func:`share_of_allowed`.
    """
    answer, reference = np.asarray(answer), np.asarray(reference)
    if answer.shape != reference.shape:
        raise ValueError(f"an answer of shape {answer.shape} for a reference of shape {reference.shape}")
    if answer.dtype.kind in "bui" and reference.dtype.kind in "bui":
        return exact_error(answer, reference) if reference.any() else math.inf
    reference = reference.astype(np.float64)
    return share_of_allowed(answer, reference, np.maximum(np.abs(reference), root_mean_square(reference)))


def recurrent_error(answer: Any, reference: Any) -> float:
    """The larger of the largest error and :data:`PEAK` times their root mean square; NaN for a non-finite answer.

    A state is rounded in every step, so that a few errors of many are large; one that is in all of them is not a
    rounding, however small.
    """
    largest = relative_error(answer, reference)
    if not math.isfinite(largest):
        return largest
    usual = root_mean_square(np.asarray(answer, np.float64) - reference) / root_mean_square(reference)
    return max(largest, PEAK * usual)


def exact_error(answer: Any, reference: Any) -> float:
    """The largest difference of whole numbers or truth values, relative to the largest of the reference."""
    difference = np.abs(answer.astype(np.float64) - reference.astype(np.float64))
    largest = float(np.max(np.abs(reference.astype(np.float64)), initial=0.0))
    return float(np.max(difference, initial=0.0)) / max(largest, 1.0)
