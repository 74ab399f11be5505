"""PaddlePaddle on one device: clock, memory and precision."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING
from typing import Any

import paddle

from pytest_flagperf.errors import ConfigurationError
from pytest_flagperf.worker import tf32
from pytest_flagperf.worker.operators import allocating
from pytest_flagperf.worker.operators.host import last_level_cache
from pytest_flagperf.worker.operators.host import processor_name
from pytest_flagperf.worker.operators.kernel import Kernel
from pytest_flagperf.worker.operators.kernel import OneRank
from pytest_flagperf.worker.operators.kernel import Unsupported
from pytest_flagperf.worker.operators.measure import Clock
from pytest_flagperf.worker.operators.measure import EventClock
from pytest_flagperf.worker.operators.measure import HostClock
from pytest_flagperf.worker.operators.paddle.library import PaddleLibrary
from pytest_flagperf.worker.operators.paddle.library import reason
from pytest_flagperf.worker.operators.request import Request
from pytest_flagperf.worker.paddle import Backend
from pytest_flagperf.worker.paddle import switch_function


if TYPE_CHECKING:
    from pytest_flagperf.launch.context import RankContext


FLUSHED_BYTES = 256 << 20


class Framework(OneRank):
    """See :class:`pytest_flagperf.worker.operators.kernel.Framework`."""

    unsupported_words = ("not registered", "unimplemented", "not support", "backend::cpu")
    out_of_memory_words = ("out of memory", "resourceexhausted", "fail to alloc")

    def __init__(self, context: RankContext, case: dict[str, Any]) -> None:
        if context.world_size > 1:
            raise ConfigurationError("PaddlePaddle's operators are measured on one rank; PyTorch has the collectives")
        self._backend = Backend(context, {"seed": 1, **case, "precision": "fp32"})
        self._settings = case["device"]
        self.device: str = self._backend.device
        self.threads = int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1))
        self.on_host = self.device == "cpu"
        self.device_name = (
            processor_name() if self.on_host else str(paddle.device.get_device_properties(self.device).name)
        )
        self._library = PaddleLibrary(self.device, self.in_force)

    def prepare(self, request: Request) -> Kernel:
        """See :class:`~pytest_flagperf.worker.operators.kernel.Framework`."""
        if request.precision == "amp":
            raise Unsupported("amp is a mixture of precisions; a kernel has one")
        if request.precision == "tf32" and self.on_host:
            raise Unsupported("TF32 is a mode of matrix units; a CPU has none")
        switches = self._switches()
        if request.precision == "tf32" and not switches:
            raise Unsupported("the vendor file names no tf32_switches for PaddlePaddle")
        for switch in switches:
            switch_function(switch, "set")(request.precision == "tf32")
        kernel = allocating.prepare(self._library, request)
        self._backend.synchronize()
        return kernel

    def in_force(self, precision: str) -> dict[str, Any]:
        """What is in force, read back from Paddle. ``tf32`` is absent where the vendor file names no switch."""
        state: dict[str, Any] = {"asked": precision}
        for switch in self._switches():
            state[switch] = switch_function(switch, "get")()
        if self._switches():
            state["tf32"] = tf32.state({switch: state[switch] for switch in self._switches()})
        return state

    def _switches(self) -> list[str]:
        return [] if self.on_host else list(self._settings.get("tf32_switches", []))

    def clock(self) -> Clock:
        """See :class:`~pytest_flagperf.worker.operators.kernel.Framework`."""
        if self.on_host:
            return HostClock()
        return EventClock(lambda: paddle.device.Event(self.device, enable_timing=True), paddle.device.synchronize)

    def flusher(self) -> Callable[[], None]:
        """See :class:`~pytest_flagperf.worker.operators.kernel.Framework`."""
        size = 2 * last_level_cache() if self.on_host else 0
        scratch = paddle.zeros([(size or FLUSHED_BYTES) // 4], dtype="float32")
        return lambda: scratch.add_(paddle.ones([1]))

    def explain(self, error: BaseException) -> str:
        """The line of Paddle's many that says something."""
        return reason(error)

    def release(self) -> None:
        """See :class:`~pytest_flagperf.worker.operators.kernel.Framework`."""
        if not self.on_host:
            paddle.device.empty_cache()

    def close(self) -> None:
        """See :class:`~pytest_flagperf.worker.operators.kernel.Framework`."""
        self._backend.teardown()
