"""What connects: host to device, device to device, and the sum over all ranks.

Bandwidths are GB/s of one direction. algbw is message / time; busbw is algbw 2 (P - 1) / P for an all-reduce, what the
slowest link carries whatever the algorithm (NCCL tests, "Performance reported by NCCL tests").
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from pytest_flagperf.operators.problems import AllReduce
from pytest_flagperf.operators.problems import Interconnect
from pytest_flagperf.worker.operators import reference
from pytest_flagperf.worker.operators.correctness import product_bound
from pytest_flagperf.worker.operators.correctness import relative_error
from pytest_flagperf.worker.operators.kernel import Check
from pytest_flagperf.worker.operators.kernel import Kernel
from pytest_flagperf.worker.operators.kernel import Unsupported
from pytest_flagperf.worker.operators.pytorch.tensors import DTYPES
from pytest_flagperf.worker.operators.pytorch.tensors import TensorKernel
from pytest_flagperf.worker.operators.pytorch.tensors import rows_of


if TYPE_CHECKING:
    from pytest_flagperf.worker.operators.pytorch.framework import Framework
    from pytest_flagperf.worker.operators.request import Request


# Elements of the result that are judged, on every rank.
CHECKED = 1 << 16


def prepare(framework: Framework, request: Request) -> Kernel:
    """The kernel of an all_reduce or an interconnect problem."""
    problem = request.problem
    if isinstance(problem, AllReduce):
        return AllReduceKernel(framework, request, problem.elements)
    assert isinstance(problem, Interconnect)
    if problem.scope == "cluster" and ranks_here(framework) >= framework.world_size:
        raise Unsupported(f"all {framework.world_size} ranks are on one server: there is no link to another")
    if framework.on_host:
        raise Unsupported("a CPU's ranks share the host's memory: there is no link between host and device to measure")
    if problem.kind == "host_to_device":
        return HostToDevice(framework, request)
    if problem.kind == "device_to_device":
        return DeviceToDevice(framework, request)
    return AllReduceKernel(framework, request, problem.size // DTYPES[request.precision].itemsize)


def ranks_here(framework: Framework) -> int:
    """The ranks of one server, as the launcher says; all of them where it does not."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", framework.world_size))


class AllReduceKernel(TensorKernel):
    """The sum of one message a rank, on every rank. It is made in place, so the message is put back before each."""

    collective = True

    def __init__(self, framework: Framework, request: Request, elements: int) -> None:
        super().__init__(framework, request)
        if framework.world_size < 2:
            raise Unsupported("an all-reduce needs at least 2 ranks")
        if request.precision in ("int8", "fp8"):
            raise Unsupported(f"a sum over ranks does not fit into {request.precision}")
        self.elements = elements
        self.places = reference.sampled(elements, CHECKED, self.seed)
        # Every rank draws every rank's message in turn, so that the sum is known without any communication.
        parts = []
        for rank in range(framework.world_size):
            message = self._message(rank)
            parts.append(rows_of(message, self.places).astype(np.float64))
            if rank == framework.rank:
                self.source = self.operands["message"] = message
        self.expected: Any = sum(parts)
        self.buffer = self.empty("sum", elements)
        self.restore = self.put_back
        self.notes.append(
            f"sum over {framework.world_size} ranks; a barrier before each sample, outside the clock; each sample is "
            "the slowest rank's"
        )

    def _message(self, rank: int) -> torch.Tensor:
        generator = torch.Generator(self.device).manual_seed(self.seed * 1000 + rank)
        message = torch.empty(self.elements, dtype=self.dtype, device=self.device)
        return message.uniform_(-1, 1, generator=generator)

    def put_back(self) -> None:
        """Put this rank's message back."""
        self.buffer.copy_(self.source)

    def run(self) -> None:
        """The collective, waited for: it may run on a stream of its own."""
        dist.all_reduce(self.buffer)

    def check(self) -> Check:
        """Sampled elements of this rank's sum."""
        bound = product_bound(self.request.precision, self.framework.world_size)
        return Check(relative_error(rows_of(self.buffer, self.places), self.expected), bound)

    def figures(self, seconds: float) -> dict[str, float]:
        """algbw and busbw, GB/s."""
        ranks = self.framework.world_size
        algbw = self.elements * self.dtype.itemsize / seconds / 1e9
        return {"algbw": algbw, "busbw": algbw * 2 * (ranks - 1) / ranks}


class HostToDevice(TensorKernel):
    """Pinned host memory to the device."""

    def __init__(self, framework: Framework, request: Request) -> None:
        super().__init__(framework, request)
        assert isinstance(request.problem, Interconnect)
        self.size = request.problem.size
        elements = self.size // self.dtype.itemsize
        self.target = self.empty("target", elements)
        self.source = self.draw("source", elements).cpu().pin_memory()
        self.notes.append("pinned host memory; one direction")

    def run(self) -> None:
        """The transfer."""
        self.target.copy_(self.source, non_blocking=True)

    def check(self) -> Check:
        """Sampled elements: exact."""
        places = reference.sampled(self.target.numel(), CHECKED, self.seed)
        return Check(relative_error(rows_of(self.target, places), rows_of(self.source, places)), 0.0)

    def figures(self, seconds: float) -> dict[str, float]:
        """GB/s, one direction."""
        return {"bandwidth": self.size / seconds / 1e9}


class DeviceToDevice(TensorKernel):
    """One message from rank 0 to rank 1, or to the first rank of the next server; the others wait at the barrier."""

    collective = True

    def __init__(self, framework: Framework, request: Request) -> None:
        super().__init__(framework, request)
        assert isinstance(request.problem, Interconnect)
        if framework.world_size < 2:
            raise Unsupported("a link between devices needs at least 2 ranks")
        self.size = request.problem.size
        elements = self.size // self.dtype.itemsize
        self.source = self.draw("source", elements)
        self.target = self.empty("target", elements)
        self.receiver = ranks_here(framework) if request.problem.scope == "cluster" else 1
        self.notes.append(f"rank 0 to rank {self.receiver}; one direction")

    def run(self) -> None:
        """Send on the first rank, receive on the other."""
        if self.framework.rank == 0:
            dist.send(self.source, self.receiver)
        elif self.framework.rank == self.receiver:
            dist.recv(self.target, 0)

    def check(self) -> Check:
        """On the receiver, sampled elements of what every rank has drawn alike: exact."""
        if self.framework.rank != self.receiver:
            return Check(0.0, 0.0)
        places = reference.sampled(self.target.numel(), CHECKED, self.seed)
        return Check(relative_error(rows_of(self.target, places), rows_of(self.source, places)), 0.0)

    def figures(self, seconds: float) -> dict[str, float]:
        """GB/s, one direction."""
        return {"bandwidth": self.size / seconds / 1e9}
