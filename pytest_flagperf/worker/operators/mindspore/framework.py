"""MindSpore on one device: clock, memory and precision."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING
from typing import Any

import mindspore as ms
import numpy as np

from pytest_flagperf.errors import ConfigurationError
from pytest_flagperf.worker.mindspore import Backend
from pytest_flagperf.worker.operators import allocating
from pytest_flagperf.worker.operators.host import last_level_cache
from pytest_flagperf.worker.operators.host import processor_name
from pytest_flagperf.worker.operators.kernel import Kernel
from pytest_flagperf.worker.operators.kernel import OneRank
from pytest_flagperf.worker.operators.kernel import Unsupported
from pytest_flagperf.worker.operators.measure import Clock
from pytest_flagperf.worker.operators.measure import EventClock
from pytest_flagperf.worker.operators.measure import HostClock
from pytest_flagperf.worker.operators.mindspore.library import MindSporeLibrary
from pytest_flagperf.worker.operators.mindspore.library import reason
from pytest_flagperf.worker.operators.request import Request


if TYPE_CHECKING:
    from pytest_flagperf.launch.context import RankContext


FLUSHED_BYTES = 256 << 20


class Framework(OneRank):
    """See :class:`pytest_flagperf.worker.operators.kernel.Framework`."""

    unsupported_words = (
        "unsupported data type",
        "must be a type of",
        "not support",
        "kernel select failed",
        "kernelmod",
        "input dtype should be",
    )
    out_of_memory_words = ("out of memory", "memory not enough", "malloc failed", "allocate memory failed")

    def __init__(self, context: RankContext, case: dict[str, Any]) -> None:
        if context.world_size > 1:
            raise ConfigurationError("MindSpore's operators are measured on one rank; PyTorch has the collectives")
        self._backend = Backend(context, {"seed": 1, "config": {}, **case, "precision": "fp32"})
        self._settings = case["device"]
        self.on_host = self._backend.device == "CPU"
        self.threads = int(os.environ.get("OMP_NUM_THREADS", "1"))
        self.device_name = (
            processor_name() if self.on_host else str(ms.hal.get_device_name(context.local_rank, self._backend.device))
        )
        self._library = MindSporeLibrary(self.in_force)
        self._tf32 = False

    def prepare(self, request: Request) -> Kernel:
        """See :class:`~pytest_flagperf.worker.operators.kernel.Framework`."""
        if request.precision == "amp":
            raise Unsupported("amp is a mixture of precisions; a kernel has one")
        if request.precision == "tf32" and self.on_host:
            raise Unsupported("TF32 is a mode of matrix units; a CPU has none")
        if request.precision == "fp16" and self.on_host:
            raise Unsupported("on a CPU MindSpore casts fp16 to fp32, computes, and casts back")
        switches = self._switches()
        if request.precision == "tf32" and not switches:
            raise Unsupported("the vendor file names no tf32_switches for MindSpore")
        self._tf32 = request.precision == "tf32"
        for switch in switches:
            setter: Any = ms
            for part in switch.split(".")[1:]:
                setter = getattr(setter, part)
            setter(self._tf32)
        kernel = allocating.prepare(self._library, request)
        ms.runtime.synchronize()
        return kernel

    def in_force(self, precision: str) -> dict[str, Any]:
        """What is in force. MindSpore's switches can be set but not read: ``tf32`` is as it was set."""
        state: dict[str, Any] = {"asked": precision}
        if self._switches():
            state.update(dict.fromkeys(self._switches(), self._tf32), tf32=self._tf32)
        return state

    def _switches(self) -> list[str]:
        return [] if self.on_host else list(self._settings.get("tf32_switches", []))

    def clock(self) -> Clock:
        """See :class:`~pytest_flagperf.worker.operators.kernel.Framework`."""
        if self.on_host:
            # Its operators may run in other threads.
            return HostClock(ms.runtime.synchronize)
        return EventClock(lambda: ms.runtime.Event(enable_timing=True), ms.runtime.synchronize)

    def flusher(self) -> Callable[[], None]:
        """See :class:`~pytest_flagperf.worker.operators.kernel.Framework`."""
        size = 2 * last_level_cache() if self.on_host else 0
        scratch = ms.Tensor(np.zeros((size or FLUSHED_BYTES) // 4, np.float32))

        def flush() -> None:
            scratch.add(1.0)
            ms.runtime.synchronize()

        return flush

    def explain(self, error: BaseException) -> str:
        """See :class:`~pytest_flagperf.worker.operators.kernel.Framework`."""
        return reason(error)

    def release(self) -> None:
        """See :class:`~pytest_flagperf.worker.operators.kernel.Framework`."""
        if not self.on_host:
            ms.runtime.empty_cache()

    def close(self) -> None:
        """See :class:`~pytest_flagperf.worker.operators.kernel.Framework`."""
        self._backend.teardown()
