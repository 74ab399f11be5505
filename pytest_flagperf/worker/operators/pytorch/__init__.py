"""PyTorch's kernels, for any accelerator that ``torch.accelerator`` knows: a file for each family."""

from __future__ import annotations

from pytest_flagperf.worker.operators.pytorch.framework import Framework


__all__ = ["Framework"]
