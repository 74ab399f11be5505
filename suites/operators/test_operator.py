"""Operators of a framework: FlagPerf's list of 52.

Tensors of 2^30 elements for most, the same shapes for every vendor. Most are bound by the memory, and the bandwidth
says more than TFLOP/s, whose counts are FlagPerf's. ``bwd``, where the list has it, is the gradient alone. Each
element type is an item of its own, and the tensors really are of that type.
"""

from __future__ import annotations

from pytest_flagperf import OperatorCase


CASE = OperatorCase(
    family="operator",
    title="Operators",
    problems="operator.json",
    defaults={
        "flagperf": ("fp32", "fp16", "bf16", "int32", "int16"),
    },
    frameworks=("pytorch", "paddle", "mindspore"),
)


def test_operator(case, devices, operators):
    """The result equals a higher-precision reference within its bound, then the operator is timed."""
    assert operators.measure(case, devices).correct()
