"""Iluvatar CoreX: IxRT, whose interface is that of TensorRT 8 with bindings.

Written to the samples of Iluvatar's public IxRT repository; untested on hardware.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from pytest_flagperf.errors import ConfigurationError
from pytest_flagperf.errors import InvalidMeasurement
from pytest_flagperf.worker.inference.engine import BaseCompiled
from pytest_flagperf.worker.inference.engine import CompileOptions
from pytest_flagperf.worker.inference.engines import onnxruntime
from pytest_flagperf.worker.inference.engines.vendors import FromOnnx
from pytest_flagperf.worker.inference.workload import Arrays
from pytest_flagperf.worker.inference.workload import InferenceWorkload


class IxRt(FromOnnx):
    """An IxRT engine in fp16, for each batch size. Nothing public says how IxRT is told to compute in fp32."""

    name = "ixrt"
    precisions = ("fp16",)
    modules = ("ixrt", "onnx", "onnxscript")
    stack = "IxRT of Iluvatar's CoreX SDK, and pip install onnx onnxscript"

    def compile_one(self, path: Path, workload: InferenceWorkload, options: CompileOptions) -> Bound:
        """See :class:`~pytest_flagperf.worker.inference.engines.vendors.FromOnnx`."""
        if onnxruntime.kind_of(options.device) != "cuda":
            raise ConfigurationError(f"engine ixrt executes on Iluvatar's devices, not on {options.device}")
        return Bound(built(path), workload, options)


def built(source: Path) -> Path:
    """The engine's file. Raises ``InvalidMeasurement`` where IxRT cannot make it."""
    import ixrt

    logger = ixrt.Logger(ixrt.Logger.WARNING)
    builder = ixrt.Builder(logger)
    network = builder.create_network(1 << int(ixrt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH))
    config = builder.create_builder_config()
    parser = ixrt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(source)):
        raise InvalidMeasurement(f"IxRT cannot read {source}: its reasons are in the log of the rank")
    config.set_flag(ixrt.BuilderFlag.FP16)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise InvalidMeasurement(f"IxRT cannot build {source}: its reasons are in the log of the rank")
    path = source.with_suffix(".engine")
    path.write_bytes(bytes(plan))
    return path


class Bound(BaseCompiled):
    """An engine with PyTorch's tensors as its bindings. ``execute`` is the engine alone, waited for."""

    def __init__(self, path: Path, workload: InferenceWorkload, options: CompileOptions) -> None:
        import ixrt
        import torch

        self.torch, self.device = torch, torch.device(options.device)
        self.runtime = ixrt.Runtime(ixrt.Logger(ixrt.Logger.WARNING))
        self.engine = self.runtime.deserialize_cuda_engine(path.read_bytes())
        self.context: Any = self.engine.create_execution_context() if self.engine is not None else None
        if self.context is None:
            raise InvalidMeasurement(f"IxRT cannot load {path}: its reasons are in the log of the rank")
        self.kinds = {}
        self.shapes = {}
        self.order = []
        inputs = set()
        for index in range(self.engine.num_bindings):
            name = self.engine.get_binding_name(index)
            self.order.append(name)
            self.kinds[name] = np.dtype(ixrt.nptype(self.engine.get_binding_dtype(index)))
            self.shapes[name] = tuple(self.context.get_binding_shape(index))
            if self.engine.binding_is_input(index):
                inputs.add(name)
        if inputs != set(workload.input_names):
            raise InvalidMeasurement(
                f"engine ixrt takes {', '.join(sorted(inputs))}, the model {', '.join(workload.input_names)}"
            )
        self.input_names, self.output_names = list(workload.input_names), list(workload.output_names)
        self.size_bytes = path.stat().st_size
        self.held: dict[str, Any] = {}

    def load(self, inputs: Arrays) -> None:
        """See :class:`~pytest_flagperf.worker.inference.engine.Compiled`; outputs get fresh memory, too."""
        held = {}
        for name, array in zip(self.input_names, inputs, strict=True):
            if array.size != math.prod(self.shapes[name]):
                raise InvalidMeasurement(f"engine ixrt was built for {name} of {self.shapes[name]}, not {array.shape}")
            typed = np.ascontiguousarray(array, self.kinds[name])
            held[name] = self.torch.from_numpy(typed).to(self.device).contiguous()
        for name in self.output_names:
            like = self.torch.from_numpy(np.empty(self.shapes[name], self.kinds[name]))
            held[name] = self.torch.empty_like(like, device=self.device)
        self.held = held
        self.torch.cuda.synchronize(self.device)

    def execute(self) -> None:
        """See :class:`~pytest_flagperf.worker.inference.engine.Compiled`."""
        # Nothing public says that it returns anything else than TensorRT 8 does, a bool, nor that it does.
        if self.context.execute_v2([self.held[name].data_ptr() for name in self.order]) is False:
            raise InvalidMeasurement("engine ixrt could not execute a batch: see what IxRT wrote into the rank's log")
        self.torch.cuda.synchronize(self.device)

    def outputs(self) -> Arrays:
        """See :class:`~pytest_flagperf.worker.inference.engine.Compiled`."""
        found = (self.held[name] for name in self.output_names)
        return tuple((one.float() if one.is_floating_point() else one).to("cpu", copy=True).numpy() for one in found)

    def precision(self) -> dict[str, Any]:
        """The types of what the engine takes and gives; those of its layers it does not tell."""
        return {"tensors": {name: str(kind) for name, kind in self.kinds.items()}}

    def release(self) -> None:
        """See :class:`~pytest_flagperf.worker.inference.engine.Compiled`: in the reverse order of their making."""
        self.held = {}
        self.context = None
        self.engine = None
        self.runtime = None
        self.torch.cuda.empty_cache()
