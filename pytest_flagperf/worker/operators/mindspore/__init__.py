"""MindSpore's kernels: gemm, computation, convolution, recurrent and the operator list."""

from __future__ import annotations

from pytest_flagperf.worker.operators.mindspore.framework import Framework


__all__ = ["Framework"]
