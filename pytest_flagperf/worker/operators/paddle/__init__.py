"""PaddlePaddle's kernels: gemm, computation, convolution, recurrent and the operator list."""

from __future__ import annotations

from pytest_flagperf.worker.operators.paddle.framework import Framework


__all__ = ["Framework"]
