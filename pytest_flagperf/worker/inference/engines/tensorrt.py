"""TensorRT 10 and later: an ONNX file, built to a plan and executed over PyTorch's tensors.

Written to the Python API of NVIDIA's documentation; untested on hardware.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING
from typing import Any

from pytest_flagperf.errors import ConfigurationError
from pytest_flagperf.errors import InvalidMeasurement
from pytest_flagperf.worker.inference.engine import BaseCompiled
from pytest_flagperf.worker.inference.engine import BaseEngine
from pytest_flagperf.worker.inference.engine import CompileOptions
from pytest_flagperf.worker.inference.engines import onnxruntime
from pytest_flagperf.worker.inference.engines.by_size import is_static
from pytest_flagperf.worker.inference.workload import Arrays
from pytest_flagperf.worker.inference.workload import InferenceWorkload


if TYPE_CHECKING:
    from torch import nn

PLAN = "model.plan"
# TensorRT's element types → PyTorch's.
TYPES = {
    "FLOAT": "float32",
    "HALF": "float16",
    "BF16": "bfloat16",
    "INT64": "int64",
    "INT32": "int32",
    "INT8": "int8",
    "UINT8": "uint8",
    "BOOL": "bool",
}


class TensorRt(BaseEngine):
    """A strongly typed network: every layer computes in the type that the ONNX file says, and TF32 is off.

    In bf16 and fp16 the whole model is cast before the export. int8 is static quantisation in QDQ form by
    :mod:`.onnxruntime`, without zero points, which TensorRT takes for what they say.
    """

    name = "tensorrt"
    precisions = ("fp32", "bf16", "fp16", "int8")
    packages: Mapping[str, str] = {
        "tensorrt": "tensorrt",
        "onnx": "onnx",
        "onnxscript": "onnxscript",
        "onnxruntime": "onnxruntime",
    }

    def available(self) -> str:
        """See :class:`~pytest_flagperf.worker.inference.engine.Engine`."""
        missing = super().available()
        found = "" if missing else self.versions().get("tensorrt", "")
        if found and int(found.partition(".")[0]) < 10:
            return f"engine tensorrt needs TensorRT 10 or later, {found} is installed: pip install 'tensorrt>=10'"
        return missing

    def export(self, model: nn.Module, workload: InferenceWorkload, options: CompileOptions) -> Path:
        """See :class:`~pytest_flagperf.worker.inference.engine.Engine`: ``model.onnx``, quantised where int8 is asked.

        Shapes are static where only one size comes; but training data, for int8, comes in batches of any.
        """
        is_int8 = options.precision == "int8"
        options = replace(options, dynamic=is_int8 or not is_static(workload, options))
        path = onnxruntime.export(model, workload, options, options.directory / onnxruntime.MODEL)
        return onnxruntime.quantised(path, workload, options, symmetric=True) if is_int8 else path

    def compile(self, model: nn.Module, workload: InferenceWorkload, options: CompileOptions) -> Plan:
        """See :class:`~pytest_flagperf.worker.inference.engine.Engine`: a plan, read back and executed."""
        if onnxruntime.kind_of(options.device) != "cuda":
            raise ConfigurationError(f"engine tensorrt executes on NVIDIA's GPUs, not on {options.device}")
        assert options.exported is not None
        path, in_force = built(options.exported, workload, options)
        return Plan(path, workload, options, in_force)


def built(source: Path, workload: InferenceWorkload, options: CompileOptions) -> tuple[Path, dict[str, Any]]:
    """The plan's file, and what the builder says of its precision. Raises ``InvalidMeasurement`` with its reasons."""
    import tensorrt

    logger = tensorrt.Logger(tensorrt.Logger.WARNING)
    builder = tensorrt.Builder(logger)
    typed = tensorrt.NetworkDefinitionCreationFlag.STRONGLY_TYPED
    network = builder.create_network(1 << int(typed))
    parser = tensorrt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(source)):
        reasons = "; ".join(str(parser.get_error(index)) for index in range(parser.num_errors))
        raise InvalidMeasurement(f"TensorRT cannot read {source}: {reasons}")
    config = builder.create_builder_config()
    # fp32 with products in TF32 is not fp32.
    config.clear_flag(tensorrt.BuilderFlag.TF32)
    inputs = [network.get_input(index) for index in range(network.num_inputs)]
    if any(-1 in tuple(one.shape) for one in inputs):
        config.add_optimization_profile(_profile(builder, workload, options))
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise InvalidMeasurement(f"TensorRT cannot build {source}: its reasons are in the log of the rank")
    path = options.directory / PLAN
    path.write_bytes(bytes(plan))
    in_force = {
        "weights": onnxruntime.type_of_weights(source),
        "strongly_typed": bool(network.get_flag(typed)),
        "builder_tf32": bool(config.get_flag(tensorrt.BuilderFlag.TF32)),
    }
    return path, in_force


def _profile(builder: Any, workload: InferenceWorkload, options: CompileOptions) -> Any:
    """From one sample, best at the usual size, up to the largest. Axes that vary are as long as the usual batch's."""
    if workload.dynamic:
        raise ConfigurationError(
            "engine tensorrt: how long the other axes of the inputs may be is not known, only the batch may vary"
        )
    profile = builder.create_optimization_profile()
    sizes = (min(options.batch_sizes), options.batch_size, max(options.batch_sizes))
    shapes = [[one.shape for one in workload.inputs(range(size))] for size in sizes]
    for name, *of_sizes in zip(workload.input_names, *shapes, strict=True):
        profile.set_shape(name, *of_sizes)
    return profile


class Plan(BaseCompiled):
    """A plan on the device. ``load`` puts the inputs there; ``execute`` is the enqueued network, waited for."""

    def __init__(
        self, path: Path, workload: InferenceWorkload, options: CompileOptions, in_force: Mapping[str, Any]
    ) -> None:
        import tensorrt
        import torch

        self.torch, self.device = torch, torch.device(options.device)
        self.in_force = dict(in_force)
        self.free = self._free()
        self.stream = torch.cuda.Stream(self.device)
        self.runtime = tensorrt.Runtime(tensorrt.Logger(tensorrt.Logger.WARNING))
        self.engine = self.runtime.deserialize_cuda_engine(path.read_bytes())
        self.context: Any = self.engine.create_execution_context() if self.engine is not None else None
        if self.context is None:
            raise InvalidMeasurement(f"TensorRT cannot load {path}: its reasons are in the log of the rank")
        names = [self.engine.get_tensor_name(index) for index in range(self.engine.num_io_tensors)]
        inputs = {name for name in names if self.engine.get_tensor_mode(name) == tensorrt.TensorIOMode.INPUT}
        if inputs != set(workload.input_names):
            raise InvalidMeasurement(
                f"engine tensorrt: the plan takes {', '.join(sorted(inputs))}, the model "
                f"{', '.join(workload.input_names)}"
            )
        self.input_names, self.output_names = list(workload.input_names), list(workload.output_names)
        self.size_bytes = path.stat().st_size
        self.held: dict[str, Any] = {}

    def _free(self) -> int:
        return int(self.torch.cuda.mem_get_info(self.device)[0])

    def _type(self, name: str) -> Any:
        return getattr(self.torch, TYPES[self.engine.get_tensor_dtype(name).name])

    def load(self, inputs: Arrays) -> None:
        """See :class:`~pytest_flagperf.worker.inference.engine.Compiled`; outputs get fresh memory, too."""
        held = {}
        for name, array in zip(self.input_names, inputs, strict=True):
            tensor = self.torch.from_numpy(array).to(self.device, self._type(name)).contiguous()
            if not self.context.set_input_shape(name, tuple(tensor.shape)):
                raise InvalidMeasurement(f"engine tensorrt was not built for {name} of shape {tuple(tensor.shape)}")
            held[name] = tensor
        for name in self.output_names:
            shape = tuple(self.context.get_tensor_shape(name))
            held[name] = self.torch.empty(shape, dtype=self._type(name), device=self.device)
        for name, tensor in held.items():
            self.context.set_tensor_address(name, tensor.data_ptr())
        self.held = held
        self.torch.cuda.synchronize(self.device)

    def execute(self) -> None:
        """See :class:`~pytest_flagperf.worker.inference.engine.Compiled`."""
        if not self.context.execute_async_v3(self.stream.cuda_stream):
            raise InvalidMeasurement("TensorRT did not execute the plan: its reasons are in the log of the rank")
        self.stream.synchronize()

    def outputs(self) -> Arrays:
        """See :class:`~pytest_flagperf.worker.inference.engine.Compiled`."""
        found = (self.held[name] for name in self.output_names)
        return tuple((one.float() if one.is_floating_point() else one).to("cpu", copy=True).numpy() for one in found)

    def precision(self) -> dict[str, Any]:
        """What the builder was told, and the types of what the plan takes and gives."""
        kinds = {name: self.engine.get_tensor_dtype(name).name for name in (*self.input_names, *self.output_names)}
        return {**self.in_force, "tensors": kinds}

    def memory(self) -> dict[str, float]:
        """What is less free on the device than before the plan was read: its allocator tells nobody."""
        total = int(self.torch.cuda.mem_get_info(self.device)[1])
        return {"memory_peak": max(0, self.free - self._free()) / 2**30, "memory_total": total / 2**30}

    def release(self) -> None:
        """See :class:`~pytest_flagperf.worker.inference.engine.Compiled`: in the reverse order of their making."""
        self.held = {}
        self.context = None
        self.engine = None
        self.runtime = None
        self.torch.cuda.empty_cache()
