"""PyTorch's own eager execution: the reference of every other engine."""

from __future__ import annotations

import copy
from collections.abc import Mapping
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
        return Eagerly(placed, placed, options)


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
        accelerator = self.torch.accelerator
        found = {"memory_peak": accelerator.max_memory_reserved(self.device) / 2**30}
        get_info = getattr(accelerator, "get_memory_info", None)
        return {**found, **({"memory_total": get_info(self.device)[1] / 2**30} if get_info else {})}

    def release(self) -> None:
        """See :class:`~pytest_flagperf.worker.inference.engine.Compiled`."""
        self.model = self.call = None
        self.arguments, self.results = (), ()
        if self.device.type != "cpu":
            self.torch.accelerator.empty_cache()
            self.torch.accelerator.reset_peak_memory_stats(self.device)


def _plain(tensor: Any) -> Any:
    """Outputs of inference mode are views of the model's own buffers now and then."""
    return tensor.detach()
