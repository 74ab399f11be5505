"""PyTorch's own eager execution: the reference of every other engine."""

from __future__ import annotations

import copy
import gc
from collections.abc import Mapping
from collections.abc import Sequence
from typing import TYPE_CHECKING
from typing import Any

from pytest_flagperf.errors import PrecisionUnavailable
from pytest_flagperf.worker.inference.engine import BaseCompiled
from pytest_flagperf.worker.inference.engine import BaseEngine
from pytest_flagperf.worker.inference.engine import CompileOptions
from pytest_flagperf.worker.inference.workload import Arrays
from pytest_flagperf.worker.inference.workload import InferenceWorkload


if TYPE_CHECKING:
    import torch
    from torch import nn

# The whole model is in this type, weights and activations; outputs come back as fp32.
TYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


class Eager(BaseEngine):
    """The model as it is. In bf16 and fp16 the whole model is cast, ``model.to(type)``; there is no autocast."""

    name = "eager"
    precisions = tuple(TYPES)
    packages: Mapping[str, str] = {"torch": "torch"}

    def compile(self, model: nn.Module, workload: InferenceWorkload, options: CompileOptions) -> Eagerly:
        """See :class:`~pytest_flagperf.worker.inference.engine.Engine`; nothing is compiled."""
        placed = in_precision(model, options)
        compiled = Eagerly(placed, placed, options)
        compiled.forget_peak()
        return compiled


def in_precision(model: nn.Module, options: CompileOptions) -> nn.Module:
    """A copy of the model in the type of the precision, on the device. Raises ``PrecisionUnavailable``."""
    import torch

    if options.precision not in TYPES:
        raise PrecisionUnavailable(f"PyTorch executes in {', '.join(TYPES)}, not in {options.precision}")
    return copy.deepcopy(model).to(options.device, getattr(torch, TYPES[options.precision]))


class Eagerly(BaseCompiled):
    """Executes ``call``, which is ``model`` or made of it."""

    def __init__(self, model: nn.Module, call: Any, options: CompileOptions) -> None:
        import torch

        self.torch, self.device = torch, torch.device(options.device)
        self.model, self.call = model, call
        self.type: torch.dtype = getattr(torch, TYPES[options.precision])
        self.size_bytes = sum(one.numel() * one.element_size() for one in model.state_dict().values())
        self.arguments: tuple[torch.Tensor, ...] = ()
        self.results: Any = ()

    def load(self, inputs: Arrays) -> None:
        """See :class:`~pytest_flagperf.worker.inference.engine.Compiled`."""
        found = []
        for array in inputs:
            tensor = self.torch.from_numpy(array)
            found.append(tensor.to(self.device, self.type if tensor.is_floating_point() else None))
        self.arguments = tuple(found)

    def execute(self) -> None:
        """See :class:`~pytest_flagperf.worker.inference.engine.Compiled`."""
        with self.torch.inference_mode():
            self.results = self.call(*self.arguments)
        if self.device.type != "cpu":
            self.torch.accelerator.synchronize()

    def outputs(self) -> Arrays:
        """See :class:`~pytest_flagperf.worker.inference.engine.Compiled`."""
        found = self.results if isinstance(self.results, (tuple, list)) else (self.results,)
        return tuple(
            (one.float() if one.is_floating_point() else one).to("cpu", copy=True).numpy() for one in map(_plain, found)
        )

    def precision(self) -> dict[str, Any]:
        """The types of weights and of what the last forward pass gave."""
        types = {str(one.dtype) for one in self.model.parameters()}
        return {"parameters": ", ".join(sorted(types)), "cast": "the whole model"}

    def memory(self) -> dict[str, float]:
        """What PyTorch's allocator reserved at most."""
        if self.device.type == "cpu":
            return {}
        found = {"memory_peak": self.torch.accelerator.max_memory_reserved(self.device) / 2**30}
        told = free_and_total(self.device)
        return found if told is None else {**found, "memory_total": told[1] / 2**30}

    def forget_peak(self) -> None:
        """The peak of memory counts from here on: what compiled before was PyTorch itself, by the same allocator."""
        if self.device.type != "cpu":
            give_back(self.device)
            self.torch.accelerator.reset_peak_memory_stats(self.device)

    def release(self) -> None:
        """See :class:`~pytest_flagperf.worker.inference.engine.Compiled`."""
        self.model = self.call = None
        self.arguments, self.results = (), ()
        self.forget_peak()


class Loaded(Eagerly):
    """Executes code that takes memory from the device itself, of which PyTorch's allocator knows nothing.

    ``before`` is :func:`free_and_total` of when nothing of it was there. ``kinds`` are the types of the parameters that
    were compiled.
    """

    def __init__(
        self, call: Any, kinds: Sequence[str], size_bytes: int, before: tuple[int, int] | None, options: CompileOptions
    ) -> None:
        import torch

        self.torch, self.device = torch, torch.device(options.device)
        self.model, self.call = None, call
        self.type = getattr(torch, TYPES[options.precision])
        self.kinds, self.size_bytes, self.before = kinds, size_bytes, before
        self.arguments, self.results = (), ()

    def precision(self) -> dict[str, Any]:
        """The types of the parameters that were compiled, and of what the last forward pass gave."""
        results = self.results if isinstance(self.results, (tuple, list)) else (self.results,)
        outputs = sorted({str(one.dtype) for one in results})
        return {"parameters": ", ".join(self.kinds), "outputs": ", ".join(outputs), "cast": "the whole model"}

    def memory(self) -> dict[str, float]:
        """What is less free on the device than before: of its peak, PyTorch's allocator keeps all."""
        now = free_and_total(self.device)
        if self.before is None or now is None:
            return {}
        return {"memory_peak": max(0, self.before[0] - now[0]) / 2**30, "memory_total": now[1] / 2**30}


def kinds_of(model: Any) -> list[str]:
    """The types of its parameters."""
    return sorted({str(one.dtype) for one in model.parameters()})


def give_back(device: torch.device) -> None:
    """What PyTorch's allocator keeps for later: to the device."""
    import torch

    if device.type != "cpu":
        gc.collect()
        torch.accelerator.empty_cache()


def free_and_total(device: torch.device) -> tuple[int, int] | None:
    """Bytes of the device's memory; ``None`` for a CPU, and where PyTorch does not tell."""
    import torch

    told = getattr(torch.accelerator, "get_memory_info", None)
    if told is None and device.type == "cuda":
        told = torch.cuda.mem_get_info
    if told is None or device.type == "cpu":
        return None
    free, total = told(device)
    return int(free), int(total)


def _plain(tensor: Any) -> Any:
    """Outputs of inference mode are views of the model's own buffers now and then."""
    return tensor.detach()
