"""PyTorch on one device: clock, memory, precision, ranks, and which kernel belongs to which problem."""

from __future__ import annotations

import gc
import importlib
import re
import time
from collections.abc import Callable
from typing import TYPE_CHECKING
from typing import Any

import torch
import torch.distributed as dist

from pytest_flagperf.worker import tf32
from pytest_flagperf.worker.operators.host import available_memory
from pytest_flagperf.worker.operators.host import last_level_cache
from pytest_flagperf.worker.operators.host import processor_name
from pytest_flagperf.worker.operators.kernel import Kernel
from pytest_flagperf.worker.operators.kernel import Unsupported
from pytest_flagperf.worker.operators.measure import Clock
from pytest_flagperf.worker.operators.measure import EventClock
from pytest_flagperf.worker.operators.measure import HostClock
from pytest_flagperf.worker.operators.request import Request
from pytest_flagperf.worker.pytorch import Backend


if TYPE_CHECKING:
    from pytest_flagperf.launch.context import RankContext


# A module of this package for each family; its ``prepare(framework, request)`` gives the kernel.
FAMILIES = {
    "gemm": "gemm",
    "computation": "gemm",
    "conv": "convolution",
    "rnn": "recurrent",
    "sparse": "sparse",
    "memory": "memory",
    "interconnect": "links",
    "all_reduce": "links",
    "operator": "operator_list",
}

PRECISIONS = ("fp64", "fp32", "tf32", "bf16", "fp16", "fp8", "int8")

# A library's word that it has no such kernel, though PyTorch calls it a device's error. The last is cuSPARSE's.
NOT_IN_LIBRARY = ("_status_not_supported", "operation not supported when calling `cusparse")
# An error of the device or its driver. Its words are about the device, also where they read like those below.
DEVICE_ERROR = re.compile(r"\b(accelerator|cuda|hip|npu|musa|mlu|xpu|acl) error\b|no kernel image")
# Those of them after which the device still answers: of its libraries, and what the CUDA manual calls not sticky.
DEVICE_SURVIVES = (
    "_status_",
    "no kernel image",
    "operation not supported",
    "invalid device function",
    "invalid config",
)
# Words of the errors with which PyTorch says that it has no such kernel.
UNSUPPORTED = (
    "not implemented",
    "not supported",
    "unsupported",
    "only supported",
    "no kernel",
    "does not support",
    "could not create a primitive",
    "must be divisible",
    "to be divisible",
)
OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "cannot allocate memory", "not enough memory")

# Products and steps in fp16 are far slower than in fp32 on a CPU without such units; this many operations show it.
PROBE_SIZE = 256
# Written between samples when the cache is to be flushed: twice the last level, or this where nobody says its size.
FLUSHED_BYTES = 256 << 20


class Framework:
    """See :class:`pytest_flagperf.worker.operators.kernel.Framework`."""

    copies = 1

    def __init__(self, context: RankContext, case: dict[str, Any]) -> None:
        self._backend = Backend(context, {"seed": 1, **case, "precision": "fp32"})
        self._settings = case["device"]
        self.device: torch.device = self._backend.device
        self.rank, self.world_size = context.rank, context.world_size
        self.threads = torch.get_num_threads()
        self.on_host = self.device.type == "cpu"
        self.device_name = (
            processor_name() if self.on_host else str(torch.get_device_module(self.device).get_device_name(self.device))
        )
        self._fp16_rate: float | None = None
        # Convolution algorithms are searched for in the first call, which is cold anyway.
        torch.backends.cudnn.benchmark = True

    def prepare(self, request: Request) -> Kernel:
        """See :class:`~pytest_flagperf.worker.operators.kernel.Framework`."""
        self._refuse(request)
        self.put_in_force(request.precision)
        module = importlib.import_module(f"{__package__}.{FAMILIES[request.problem.family]}")
        kernel: Kernel = module.prepare(self, request)
        self.synchronize()
        return kernel

    def _refuse(self, request: Request) -> None:
        if request.precision == "amp":
            raise Unsupported("amp is a mixture of precisions; a kernel has one")
        if request.precision == "tf32" and self.on_host:
            raise Unsupported("TF32 is a mode of matrix units; a CPU has none")
        flops = request.problem.flops(request.direction)
        products = request.problem.family in ("gemm", "computation", "conv", "rnn")
        if request.precision == "fp16" and self.on_host and products and flops is not None:
            seconds = flops / self.fp16_rate()
            if seconds > request.budget:
                raise Unsupported(
                    f"fp16 products run at about {self.fp16_rate() / 1e9:.2g} GFLOP/s on this CPU: one call would take "
                    f"{seconds:.0f} s, the budget is {request.budget:.0f} s"
                )

    def fp16_rate(self) -> float:
        """FLOP/s of a small fp16 product on this device."""
        if self._fp16_rate is None:
            operand = torch.ones(PROBE_SIZE, PROBE_SIZE, dtype=torch.float16, device=self.device)
            # The first call chooses its kernel.
            torch.mm(operand, operand)
            begin = time.perf_counter()
            torch.mm(operand, operand)
            self._fp16_rate = 2 * PROBE_SIZE**3 / (time.perf_counter() - begin)
        return self._fp16_rate

    # --- precision

    def put_in_force(self, precision: str) -> None:
        """TF32 off, unless it is what was asked for."""
        torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
        for holder, name in self._switches().values():
            setattr(holder, name, precision == "tf32")
        for name in ("allow_fp16_reduced_precision_reduction", "allow_bf16_reduced_precision_reduction"):
            if not self.on_host and hasattr(torch.backends.cuda.matmul, name):
                setattr(torch.backends.cuda.matmul, name, False)

    def in_force(self, precision: str) -> dict[str, Any]:
        """What is in force, read back from PyTorch; ``tf32`` says which of its switches are on where not all agree."""
        state: dict[str, Any] = {"asked": precision, "float32_matmul": torch.get_float32_matmul_precision()}
        switches = self._switches()
        for switch, (holder, name) in switches.items():
            state[switch] = getattr(holder, name)
        reduced = {"float32_matmul": state["float32_matmul"] != "highest"}
        state["tf32"] = tf32.state(reduced | {switch: state[switch] for switch in switches})
        if not self.on_host:
            for name in ("allow_fp16_reduced_precision_reduction", "allow_bf16_reduced_precision_reduction"):
                if hasattr(torch.backends.cuda.matmul, name):
                    state[name] = getattr(torch.backends.cuda.matmul, name)
        return state

    def _switches(self) -> dict[str, tuple[Any, str]]:
        """The vendor's TF32 switches: object and attribute of each."""
        found = {}
        for switch in [] if self.on_host else self._settings.get("tf32_switches", []):
            holder, _, name = switch.rpartition(".")
            target: Any = torch
            for part in holder.split(".")[1:]:
                target = getattr(target, part)
            found[switch] = (target, name)
        return found

    # --- clock

    def synchronize(self) -> None:
        """Wait until the device has done all its work."""
        if not self.on_host:
            torch.accelerator.synchronize()

    def clock(self) -> Clock:
        """See :class:`~pytest_flagperf.worker.operators.kernel.Framework`."""
        if self.on_host:
            return HostClock()
        return EventClock(lambda: torch.Event(self.device, enable_timing=True), torch.accelerator.synchronize)

    def flusher(self) -> Callable[[], None]:
        """See :class:`~pytest_flagperf.worker.operators.kernel.Framework`."""
        size = 2 * last_level_cache() if self.on_host else 0
        scratch = torch.empty(size or FLUSHED_BYTES, dtype=torch.uint8, device=self.device)

        def flush() -> None:
            scratch.add_(1)

        return flush

    # --- memory and errors

    def memory(self) -> int | None:
        """See :class:`~pytest_flagperf.worker.operators.kernel.Framework`."""
        if self.on_host:
            return available_memory()
        get_info = getattr(torch.accelerator, "get_memory_info", None)
        return None if get_info is None else int(get_info(self.device)[0])

    def classify(self, error: BaseException) -> str:
        """See :class:`~pytest_flagperf.worker.operators.kernel.Framework`."""
        text = str(error).lower()
        if isinstance(error, (MemoryError, torch.OutOfMemoryError)) or any(words in text for words in OUT_OF_MEMORY):
            return "out_of_memory"
        if any(words in text for words in NOT_IN_LIBRARY):
            return "unsupported"
        accelerator = getattr(torch, "AcceleratorError", ())
        if isinstance(error, accelerator) or DEVICE_ERROR.search(text):
            return "failed" if any(words in text for words in DEVICE_SURVIVES) else "lost"
        if isinstance(error, NotImplementedError):
            return "unsupported"
        if isinstance(error, RuntimeError) and any(words in text for words in UNSUPPORTED):
            return "unsupported"
        return "failed"

    def explain(self, error: BaseException) -> str:
        """See :class:`~pytest_flagperf.worker.operators.kernel.Framework`."""
        return f"{type(error).__name__}: {error}"

    def release(self) -> None:
        """See :class:`~pytest_flagperf.worker.operators.kernel.Framework`."""
        if not self.on_host:
            gc.collect()
            empty = getattr(torch.accelerator, "empty_cache", None)
            if empty is not None:
                empty()

    # --- ranks

    def share(self, value: Any) -> Any:
        """See :class:`~pytest_flagperf.worker.operators.kernel.Framework`."""
        if self.world_size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0, device=None if self.on_host else self.device)
        return box[0]

    def agree(self, values: list[float]) -> list[float]:
        """See :class:`~pytest_flagperf.worker.operators.kernel.Framework`."""
        if self.world_size == 1:
            return values
        parts: list[Any] = [None] * self.world_size
        dist.all_gather_object(parts, values)
        return [max(column) for column in zip(*parts, strict=True)]

    def barrier(self) -> None:
        """See :class:`~pytest_flagperf.worker.operators.kernel.Framework`."""
        dist.barrier()
        self.synchronize()

    def close(self) -> None:
        """See :class:`~pytest_flagperf.worker.operators.kernel.Framework`."""
        self._backend.teardown()
