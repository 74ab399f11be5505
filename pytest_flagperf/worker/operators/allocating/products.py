"""Matrix products and convolutions."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from pytest_flagperf.operators.problems import Computation
from pytest_flagperf.operators.problems import Convolution
from pytest_flagperf.operators.problems import Gemm
from pytest_flagperf.worker.operators import reference
from pytest_flagperf.worker.operators.allocating.base import ArrayKernel
from pytest_flagperf.worker.operators.allocating.base import Library
from pytest_flagperf.worker.operators.correctness import TRANSFORMED
from pytest_flagperf.worker.operators.correctness import product_bound
from pytest_flagperf.worker.operators.correctness import relative_error
from pytest_flagperf.worker.operators.kernel import Check
from pytest_flagperf.worker.operators.request import Request


class GemmKernel(ArrayKernel):
    """A product as DeepBench calls it; see :mod:`pytest_flagperf.worker.operators.pytorch.gemm` for the storage."""

    def __init__(self, library: Library, request: Request) -> None:
        super().__init__(library, request)
        problem = request.problem
        if isinstance(problem, Computation):
            problem = Gemm(m=problem.m, n=problem.n, k=problem.k)
        assert isinstance(problem, Gemm)
        self.gemm = problem
        m, n, k = problem.m, problem.n, problem.k
        self.a = self.draw("a", *((m, k) if problem.a_transposed else (k, m)))
        self.b = self.draw("b", *((k, n) if problem.b_transposed else (n, k)))
        self.notes.append("column-major, as BLAS is called; C is checked at sampled rows and columns")

    def run(self) -> None:
        """One product."""
        problem = self.gemm
        self.results["result"] = self.library.matmul(self.b, self.a, problem.b_transposed, problem.a_transposed)

    def check(self) -> Check:
        """Sampled rows by sampled columns of C."""
        problem, found = self.gemm, self.result()
        bound = product_bound(self.request.precision, problem.k)
        if found.shape != (problem.n, problem.m):
            return Check(math.inf, bound)
        rows = reference.sampled_rows(problem.n, problem.k, self.seed)
        columns = reference.sampled_rows(problem.m, problem.k, self.seed)
        a = self.arrays["a"].T if problem.a_transposed else self.arrays["a"]
        b = self.arrays["b"].T if problem.b_transposed else self.arrays["b"]
        expected = self.reference(lambda: reference.product(b[rows], a[:, columns]))
        return Check(relative_error(found[rows][:, columns], expected), bound)


# --- convolution


class ConvolutionKernel(ArrayKernel):
    """Shapes by name."""

    def __init__(self, library: Library, request: Request) -> None:
        super().__init__(library, request)
        p = request.problem
        assert isinstance(p, Convolution)
        self.x_shape, self.y_shape = (p.n, p.c, p.h, p.w), (p.n, p.k, p.out_h, p.out_w)
        self.filter_shape = (p.k, p.c, p.filter_h, p.filter_w)
        self.stride, self.padding = (p.stride_h, p.stride_w), (p.pad_h, p.pad_w)
        self.notes.append("NCHW; checked at sampled places")

    def judged(self, shape: tuple[int, ...], length: int, places: Any, compute: Callable[[], Any]) -> Check:
        """All channels at the places, against what ``compute`` gives."""
        bound = TRANSFORMED * product_bound(self.request.precision, length)
        found = self.result()
        if found.shape != shape:
            return Check(math.inf, bound)
        images, rows, columns = zip(*places, strict=True)
        return Check(relative_error(found[list(images), :, list(rows), list(columns)], self.reference(compute)), bound)


class ConvolutionForward(ConvolutionKernel):
    """``y = conv(x, filters)``."""

    def __init__(self, library: Library, request: Request) -> None:
        super().__init__(library, request)
        self.x, self.filters = self.draw("x", *self.x_shape), self.draw("filters", *self.filter_shape)

    def run(self) -> None:
        """The forward convolution."""
        self.results["result"] = self.library.convolution(self.x, self.filters, self.stride, self.padding)

    def check(self) -> Check:
        """Sampled output pixels."""
        places = reference.pixels(self.y_shape[0], *self.y_shape[2:], seed=self.seed)
        x, filters = self.arrays["x"], self.arrays["filters"]
        return self.judged(
            self.y_shape,
            math.prod(self.filter_shape[1:]),
            places,
            lambda: reference.convolution_forward(x, filters, self.stride, self.padding, places),
        )


class ConvolutionData(ConvolutionKernel):
    """The gradient of the input."""

    def __init__(self, library: Library, request: Request) -> None:
        super().__init__(library, request)
        filters, dy = self.draw("filters", *self.filter_shape), self.draw("dy", *self.y_shape)
        x = library.tensor(np.zeros(self.x_shape, np.float32), request.precision)
        self.call = library.convolution_gradient("x", dy, x, filters, self.stride, self.padding)

    def run(self) -> None:
        """The backward-data pass."""
        self.results["result"] = self.call()

    def check(self) -> Check:
        """Sampled input pixels."""
        places = reference.pixels(self.x_shape[0], *self.x_shape[2:], seed=self.seed)
        dy, filters = self.arrays["dy"], self.arrays["filters"]
        return self.judged(
            self.x_shape,
            self.filter_shape[0] * math.prod(self.filter_shape[2:]),
            places,
            lambda: reference.convolution_backward_data(dy, filters, self.stride, self.padding, places),
        )


class ConvolutionWeights(ConvolutionKernel):
    """The gradient of the filters."""

    def __init__(self, library: Library, request: Request) -> None:
        super().__init__(library, request)
        x, dy = self.draw("x", *self.x_shape), self.draw("dy", *self.y_shape)
        filters = library.tensor(np.zeros(self.filter_shape, np.float32), request.precision)
        self.call = library.convolution_gradient("filters", dy, x, filters, self.stride, self.padding)

    def run(self) -> None:
        """The backward-weights pass."""
        self.results["result"] = self.call()

    def check(self) -> Check:
        """Every tap of sampled pairs of channels."""
        n, k, p, q = self.y_shape
        bound = TRANSFORMED * product_bound(self.request.precision, n * p * q)
        found = self.result()
        if found.shape != self.filter_shape:
            return Check(math.inf, bound)
        of_output = reference.sampled(k, reference.CHANNELS, self.seed)
        of_input = reference.sampled(self.x_shape[1], reference.CHANNELS, self.seed)
        expected = self.reference(
            lambda: reference.convolution_backward_weights(
                self.arrays["dy"][:, of_output],
                self.arrays["x"][:, of_input],
                self.filter_shape[2:],
                self.stride,
                self.padding,
            )
        )
        return Check(relative_error(found[of_output][:, of_input], expected), bound)
