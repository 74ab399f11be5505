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
# Winograd's and the FFT's transforms lose a few bits; the gates of a recurrent step and the passes of a softmax are
# several roundings in a row.
TRANSFORMED = 4.0
SEVERAL_ROUNDINGS = 4.0

APPROXIMATED = 4.0
APPROXIMATED_GRADIENT = 16.0

UNIT_ROUNDOFF = {"fp64": 2.0**-53, "fp32": 2.0**-24, "tf32": 2.0**-11, "bf16": 2.0**-8, "fp16": 2.0**-11}
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


def pointwise_bound(precision: str) -> float:
    """The bound of one element of a function: a few units in the last place. Integers and truth values: 0."""
    if precision not in STORED:
        return 0.0
    return SAFETY * SEVERAL_ROUNDINGS * UNIT_ROUNDOFF[STORED[precision]]


def function_bound(precision: str, gradient: bool = False) -> float:
    """The bound of one element of a transcendental function, or of a gradient made of several.

    Frameworks approximate exp and its kin to a few dozen units in the last place of the type they compute in, which is
    fp32 where the result is stored in less.
    """
    if precision not in STORED:
        return 0.0
    rough = APPROXIMATED_GRADIENT if gradient else APPROXIMATED
    return pointwise_bound(precision) + SAFETY * SEVERAL_ROUNDINGS * rough * UNIT_ROUNDOFF[ACCUMULATE[precision]]


def relative_error(answer: Any, reference: Any) -> float:
    """The largest ``|answer - reference| / max(|reference|, rms(reference))``; NaN for any non-finite answer.

    Relative to at least the root mean square, because an inner product that cancels to nearly nothing has an error
    of the size of its terms.
    """
    answer, reference = np.asarray(answer), np.asarray(reference)
    if answer.shape != reference.shape:
        raise ValueError(f"an answer of shape {answer.shape} for a reference of shape {reference.shape}")
    if answer.dtype.kind in "bui" and reference.dtype.kind in "bui":
        return exact_error(answer, reference)
    answer, reference = answer.astype(np.float64), reference.astype(np.float64)
    if not np.isfinite(answer).all():
        return math.nan
    root_mean_square = float(np.sqrt(np.mean(np.square(reference))))
    if root_mean_square == 0.0:
        return 0.0 if not answer.any() else math.inf
    return float(np.max(np.abs(answer - reference) / np.maximum(np.abs(reference), root_mean_square)))


def exact_error(answer: Any, reference: Any) -> float:
    """The largest difference of whole numbers or truth values, relative to the largest of the reference."""
    difference = np.abs(answer.astype(np.float64) - reference.astype(np.float64))
    largest = float(np.max(np.abs(reference.astype(np.float64)), initial=0.0))
    return float(np.max(difference, initial=0.0)) / max(largest, 1.0)
