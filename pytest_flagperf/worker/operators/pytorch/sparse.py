"""A sparse matrix in CSR by a dense one, and the same product dense beside it."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from typing import TYPE_CHECKING
from typing import Any

import numpy as np
import torch

from pytest_flagperf.operators.problems import SparseGemm
from pytest_flagperf.worker.operators import data
from pytest_flagperf.worker.operators import reference
from pytest_flagperf.worker.operators.correctness import product_bound
from pytest_flagperf.worker.operators.correctness import relative_error
from pytest_flagperf.worker.operators.kernel import Check
from pytest_flagperf.worker.operators.pytorch.tensors import TensorKernel
from pytest_flagperf.worker.operators.pytorch.tensors import numbers
from pytest_flagperf.worker.operators.pytorch.tensors import rows_of


if TYPE_CHECKING:
    from pytest_flagperf.worker.operators.pytorch.framework import Framework
    from pytest_flagperf.worker.operators.request import Request


def prepare(framework: Framework, request: Request) -> SparseKernel:
    """The product with A in CSR."""
    return SparseKernel(framework, request)


class SparseKernel(TensorKernel):
    """``C = A B``, A (m, k) in CSR with 32-bit indices, B (k, n) and C (m, n) dense and row-major."""

    def __init__(self, framework: Framework, request: Request) -> None:
        super().__init__(framework, request)
        problem = request.problem
        assert isinstance(problem, SparseGemm)
        m, n, k = problem.m, problem.n, problem.k
        self.pattern = data.sparse_pattern(m, k, problem.nonzeros, self.seed)
        data.validate(self.pattern, m, k, problem.nonzeros)
        # Values and places are drawn independently: thresholding one draw would leave values that are all alike.
        self.values = self.draw("values", problem.nonzeros)
        self.a = torch.sparse_csr_tensor(
            torch.from_numpy(self.pattern.offsets).to(self.device),
            torch.from_numpy(self.pattern.columns).to(self.device),
            self.values,
            size=(m, k),
            check_invariants=True,
        )
        self.b = self.draw("b", k, n)
        self.c = self.empty("c", m, n)
        self.dense: Any = None
        self.notes.append(f"CSR, {problem.nonzeros} entries, int32 indices; B and C row-major; checked at sampled rows")

    def run(self) -> None:
        """The sparse product."""
        torch.mm(self.a, self.b, out=self.c)

    def companions(self) -> Mapping[str, Callable[[], None]]:
        """The dense product of the same size, with the zeros in."""
        self.dense = torch.zeros(self.a.shape, dtype=self.dtype, device=self.device)
        rows = torch.from_numpy(np.ascontiguousarray(self.pattern.rows())).to(self.device)
        columns = torch.from_numpy(self.pattern.columns.astype(np.int64)).to(self.device)
        self.dense[rows, columns] = self.values
        self.poison()

        def dense() -> None:
            torch.mm(self.dense, self.b, out=self.c)

        return {"dense_time": dense}

    def check(self) -> Check:
        """Sampled rows of C, from the stored entries alone."""
        m, n = self.c.shape
        rows = reference.sampled_rows(m, n, self.seed)
        longest = int(np.diff(self.pattern.offsets)[rows].max())
        expected = self.reference(lambda: self._expected(rows))
        return Check(relative_error(rows_of(self.c, rows), expected), product_bound(self.request.precision, longest))

    def _expected(self, rows: Any) -> Any:
        offsets, columns = self.pattern.offsets, self.pattern.columns
        entries = [slice(int(offsets[row]), int(offsets[row + 1])) for row in rows]
        values = numbers(self.values)
        needed = np.unique(np.concatenate([columns[entry] for entry in entries]))
        b = rows_of(self.b, needed)
        return np.stack(
            [reference.product(values[entry][None], b[np.searchsorted(needed, columns[entry])])[0] for entry in entries]
        )
