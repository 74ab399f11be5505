"""The device's own memory: how fast it copies, and how much of it there is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pytest_flagperf.operators.problems import Memory
from pytest_flagperf.operators.problems.hardware import SMALLEST_BLOCK
from pytest_flagperf.worker.operators import reference
from pytest_flagperf.worker.operators.correctness import relative_error
from pytest_flagperf.worker.operators.kernel import Check
from pytest_flagperf.worker.operators.kernel import Kernel
from pytest_flagperf.worker.operators.kernel import Unsupported
from pytest_flagperf.worker.operators.pytorch.tensors import TensorKernel
from pytest_flagperf.worker.operators.pytorch.tensors import rows_of


if TYPE_CHECKING:
    from pytest_flagperf.worker.operators.pytorch.framework import Framework
    from pytest_flagperf.worker.operators.request import Request


def prepare(framework: Framework, request: Request) -> Kernel:
    """The bandwidth or the capacity of the memory."""
    assert isinstance(request.problem, Memory)
    if request.problem.kind == "bandwidth":
        return Bandwidth(framework, request)
    if framework.on_host:
        raise Unsupported("a host promises more memory than it has: its capacity cannot be found out by asking for it")
    return Capacity(framework, request)


class Bandwidth(TensorKernel):
    """One array copied to another: each byte is read once and written once."""

    def __init__(self, framework: Framework, request: Request) -> None:
        super().__init__(framework, request)
        assert isinstance(request.problem, Memory)
        self.size = request.problem.size
        elements = self.size // self.dtype.itemsize
        self.source = self.draw("source", elements)
        self.target = self.empty("target", elements)
        self.notes.append("bandwidth is bytes read and bytes written over time; both arrays are allocated beforehand")

    def run(self) -> None:
        """The copy."""
        self.target.copy_(self.source)

    def check(self) -> Check:
        """Sampled elements: exact."""
        places = reference.sampled(self.target.numel(), 1 << 16, self.seed)
        return Check(relative_error(rows_of(self.target, places), rows_of(self.source, places)), 0.0)

    def figures(self, seconds: float) -> dict[str, float]:
        """GB/s, reading and writing together."""
        return {"bandwidth": 2 * self.size / seconds / 1e9}


class Capacity(TensorKernel):
    """Blocks are taken until none is given, each half as big as the last one refused, down to 1 MiB."""

    once = True

    def __init__(self, framework: Framework, request: Request) -> None:
        super().__init__(framework, request)
        assert isinstance(request.problem, Memory)
        self.first = request.problem.size
        self.blocks: list[Tensor] = []
        self.taken = 0

    def poison(self) -> None:
        """Nothing is written that could be stale."""

    def run(self) -> None:
        """Take it all, and write on every byte: what is only promised does not count."""
        size = self.first
        while size >= SMALLEST_BLOCK:
            try:
                block = torch.empty(size, dtype=torch.uint8, device=self.device)
                block.fill_(len(self.blocks) % 251 + 1)
            except torch.OutOfMemoryError:
                size //= 2
                continue
            self.blocks.append(block)
            self.taken += size

    def check(self) -> Check:
        """First and last byte of every block still hold what was written there."""
        wrong = [
            number
            for number, block in enumerate(self.blocks)
            if any(int(block[place]) != number % 251 + 1 for place in (0, -1))
        ]
        return Check(float(len(wrong)), 0.0)

    def figures(self, seconds: float) -> dict[str, float]:
        """GiB that one process could write on."""
        return {"capacity": self.taken / 2**30}
