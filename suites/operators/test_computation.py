"""Arithmetic peak: FlagPerf's large square matrix product, in every precision.

4096 x 4096 x 4096, the same for every vendor, 2 m n k operations. The utilization is the point: what of the peak in
the data sheet a framework's matrix product reaches. fp32 is fp32, with TF32 off and shown to be off.
"""

from __future__ import annotations

from pytest_flagperf import OperatorCase


CASE = OperatorCase(
    family="computation",
    title="Arithmetic peak",
    problems="computation.json",
    precisions=("fp64", "fp32", "tf32", "fp16", "bf16", "fp8", "int8"),
    defaults={
        "flagperf": ("fp64", "fp32", "tf32", "fp16", "bf16", "fp8", "int8"),
        "smoke": ("fp64", "fp32", "bf16", "int8"),
    },
)


def test_computation(case, devices, operators):
    """The product is right within the bound of its precision, then timed."""
    assert operators.measure(case, devices).correct()
