"""Torch-TensorRT: PyTorch's exported program, compiled to TensorRT inside of PyTorch.

Written to the documentation of ``torch_tensorrt.compile``; untested on hardware.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING
from typing import Any

from pytest_flagperf.errors import ConfigurationError
from pytest_flagperf.worker.inference.engine import BaseEngine
from pytest_flagperf.worker.inference.engine import CompileOptions
from pytest_flagperf.worker.inference.engines import onnxruntime
from pytest_flagperf.worker.inference.engines.by_size import is_static
from pytest_flagperf.worker.inference.engines.eager import TYPES
from pytest_flagperf.worker.inference.engines.eager import Loaded
from pytest_flagperf.worker.inference.engines.eager import free_and_total
from pytest_flagperf.worker.inference.engines.eager import give_back
from pytest_flagperf.worker.inference.engines.eager import in_precision
from pytest_flagperf.worker.inference.engines.eager import kinds_of
from pytest_flagperf.worker.inference.workload import InferenceWorkload


if TYPE_CHECKING:
    from torch import nn


class TorchTensorRt(BaseEngine):
    """``torch_tensorrt.compile(ir="dynamo")`` of the whole model, in the types that it has, without TF32.

    In bf16 and fp16 the whole model is cast first. An operator that TensorRT lacks is an error: what PyTorch would run
    in between is not to be measured as TensorRT.
    """

    name = "torch_tensorrt"
    precisions = tuple(TYPES)
    packages: Mapping[str, str] = {"torch_tensorrt": "torch-tensorrt", "tensorrt": "tensorrt"}

    def compile(self, model: nn.Module, workload: InferenceWorkload, options: CompileOptions) -> Loaded:
        """See :class:`~pytest_flagperf.worker.inference.engine.Engine`."""
        if onnxruntime.kind_of(options.device) != "cuda":
            raise ConfigurationError(f"engine torch_tensorrt executes on NVIDIA's GPUs, not on {options.device}")
        import torch
        import torch_tensorrt

        device = torch.device(options.device)
        give_back(device)
        before = free_and_total(device)
        placed = in_precision(model, options)
        kinds, size_bytes = kinds_of(placed), sum(one.nbytes for one in placed.state_dict().values())
        with torch.inference_mode():
            call = torch_tensorrt.compile(
                placed,
                ir="dynamo",
                inputs=inputs(workload, options),
                use_explicit_typing=True,
                disable_tf32=True,
                require_full_compilation=True,
                min_block_size=1,
            )
        # What runs is TensorRT, with weights of its own.
        del placed
        compiled = Loaded(call, kinds, size_bytes, before, options)
        for size in options.batch_sizes:
            compiled.run(workload.inputs(range(size)))
        # The measurement takes from the device what it needs; the compilation's is not to count.
        give_back(device)
        return compiled


def inputs(workload: InferenceWorkload, options: CompileOptions) -> list[Any]:
    """What ``torch_tensorrt`` is told of the arguments: their shapes, from the smallest batch to the largest."""
    import torch
    import torch_tensorrt

    if workload.dynamic:
        raise ConfigurationError(
            "engine torch_tensorrt: how long the other axes of the inputs may be is not known, only the batch may vary"
        )

    def kind(array: Any) -> Any:
        tensor = torch.from_numpy(array)
        return getattr(torch, TYPES[options.precision]) if tensor.is_floating_point() else tensor.dtype

    usual = workload.inputs(range(options.batch_size))
    if is_static(workload, options):
        return [torch_tensorrt.Input(shape=tuple(one.shape), dtype=kind(one)) for one in usual]
    least, most = min(options.batch_sizes), max(options.batch_sizes)
    return [
        torch_tensorrt.Input(
            min_shape=(least, *one.shape[1:]),
            opt_shape=tuple(one.shape),
            max_shape=(most, *one.shape[1:]),
            dtype=kind(one),
        )
        for one in usual
    ]
