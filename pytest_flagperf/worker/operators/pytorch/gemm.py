"""Matrix products: DeepBench's column-major call in all layouts, and FlagPerf's square one.

Column-major storage in a row-major library: a stored m x k matrix is a contiguous (k, m) tensor. The product of
column-major A and B is then ``B-side @ A-side`` of shape (n, m), and no operand is moved.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from typing import Any

import torch
from torch import Tensor

from pytest_flagperf.operators.problems import Computation
from pytest_flagperf.operators.problems import Gemm
from pytest_flagperf.worker.operators import reference
from pytest_flagperf.worker.operators.correctness import product_bound
from pytest_flagperf.worker.operators.correctness import relative_error
from pytest_flagperf.worker.operators.kernel import Check
from pytest_flagperf.worker.operators.pytorch.tensors import PRODUCT_DTYPES
from pytest_flagperf.worker.operators.pytorch.tensors import TensorKernel
from pytest_flagperf.worker.operators.pytorch.tensors import rows_of


if TYPE_CHECKING:
    from pytest_flagperf.worker.operators.pytorch.framework import Framework
    from pytest_flagperf.worker.operators.request import Request


# DeepBench's rule for int8: m to a multiple of 4.
INT8_M = 4
# cuBLASLt's, as torch._int_mm states it: more than 16 rows, and inner and right sizes in multiples of 8.
INT8_ACCELERATOR = 8
INT8_ACCELERATOR_ROWS = 17


def prepare(framework: Framework, request: Request) -> GemmKernel:
    """The product of a gemm or a computation problem."""
    problem = request.problem
    if isinstance(problem, Computation):
        # Square and without a layout; fp8 exists in one only.
        problem = Gemm(m=problem.m, n=problem.n, k=problem.k, a_transposed=request.precision == "fp8")
    assert isinstance(problem, Gemm)
    return GemmKernel(framework, request, problem)


class GemmKernel(TensorKernel):
    """``C = 1.0 op(A) op(B) + 0 C``, the factors in the type that is computed in."""

    def __init__(self, framework: Framework, request: Request, problem: Gemm) -> None:
        super().__init__(framework, request)
        self.gemm = problem
        m, n, k = self._padded_sizes()
        stored_a = self.draw("a", *((m, k) if problem.a_transposed else (k, m)))
        stored_b = self.draw("b", *((k, n) if problem.b_transposed else (n, k)))
        self.a_side: Tensor = stored_a.t() if problem.a_transposed else stored_a
        self.b_side: Tensor = stored_b.t() if problem.b_transposed else stored_b
        self.c = self.empty("c", n, m, dtype=PRODUCT_DTYPES[request.precision])
        assert self.a_side.shape == (k, m), f"op(A) is {tuple(self.a_side.shape)} for k {k}, m {m}"
        assert self.b_side.shape == (n, k), f"op(B) is {tuple(self.b_side.shape)} for n {n}, k {k}"
        self.notes.append("column-major, as BLAS is called; C is checked at sampled rows and columns")
        self._one = torch.ones((), device=self.device)

    def _padded_sizes(self) -> tuple[int, int, int]:
        problem, precision = self.gemm, self.request.precision
        m, n, k = problem.m, problem.n, problem.k
        if precision == "int8":
            m = _up(m, INT8_M)
            if not self.framework.on_host:
                m, k, n = _up(m, INT8_ACCELERATOR), _up(k, INT8_ACCELERATOR), max(n, INT8_ACCELERATOR_ROWS)
        if (m, n, k) != (problem.m, problem.n, problem.k):
            self.padded = {"m": m, "n": n, "k": k}
        return m, n, k

    def run(self) -> None:
        """One product into C."""
        precision = self.request.precision
        if precision == "int8":
            torch._int_mm(self.b_side, self.a_side, out=self.c)
        elif precision == "fp8":
            torch._scaled_mm(
                self.b_side, self.a_side, scale_a=self._one, scale_b=self._one, out_dtype=self.c.dtype, out=self.c
            )
        else:
            torch.mm(self.b_side, self.a_side, out=self.c)

    def check(self) -> Check:
        """Sampled rows by sampled columns of C."""
        n, k = self.b_side.shape
        rows = reference.sampled_rows(n, k, self.seed)
        columns = reference.sampled_rows(self.a_side.shape[1], k, self.seed)
        expected = self.reference(
            lambda: reference.product(rows_of(self.b_side, rows), rows_of(self.a_side, columns, dim=1))
        )
        found = rows_of(self.c, rows)[:, columns]
        return Check(relative_error(found, expected), product_bound(self.request.precision, k))

    def precision(self) -> dict[str, Any]:
        """And the factors: PyTorch's product multiplies by 1 and adds nothing."""
        return {**super().precision(), "alpha": 1.0, "beta": 0.0}


def _up(size: int, multiple: int) -> int:
    return -(-size // multiple) * multiple
