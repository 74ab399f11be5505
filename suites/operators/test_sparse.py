"""Sparse matrix product: DeepBench's 24 sizes of inference with pruned weights.

C = A · B, where A (m x k, CSR, 32-bit indices) has 90 or 95 % zeros in no pattern and B and C are dense. n = 1 is a
matrix-vector product. Converting A is not in the time. 2 nnz n operations: the zeros are not counted, so the rate is
low and the speed-up over the dense product, measured beside it, is what pruning is worth.
"""

from __future__ import annotations

from pytest_flagperf import OperatorCase


CASE = OperatorCase(
    family="sparse",
    title="Sparse matrix product",
    problems="sparse_gemm.json",
    precisions=("fp64", "fp32", "bf16", "fp16"),
)


def test_sparse(case, devices, operators):
    """Indices are valid and the product is right within its bound; then it and the dense one are timed."""
    assert operators.measure(case, devices).correct()
