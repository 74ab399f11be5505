"""ONNX Runtime: the model exported by ``torch.onnx``, executed by the provider of the device."""

from __future__ import annotations

import platform
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from typing import Any

import numpy as np

from pytest_flagperf.errors import ConfigurationError
from pytest_flagperf.errors import InvalidMeasurement
from pytest_flagperf.errors import PrecisionUnavailable
from pytest_flagperf.worker.inference.engine import BaseCompiled
from pytest_flagperf.worker.inference.engine import BaseEngine
from pytest_flagperf.worker.inference.engine import CompileOptions
from pytest_flagperf.worker.inference.engines.files import read
from pytest_flagperf.worker.inference.engines.files import size_of
from pytest_flagperf.worker.inference.engines.files import written
from pytest_flagperf.worker.inference.workload import Arrays
from pytest_flagperf.worker.inference.workload import InferenceWorkload


if TYPE_CHECKING:
    from torch import nn

# Device, as PyTorch calls it → execution provider. A vendor's build brings others: ``onnxruntime_provider``.
PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider", "npu": "CANNExecutionProvider"}
# Where ONNX Runtime calls a device otherwise than PyTorch does.
_DEVICES = {"npu": "cann"}
_RECORD_PLACEMENT = "session.record_ep_graph_assignment_info"
MODEL, QUANTISED = "model.onnx", "model.int8.onnx"


class OnnxRuntime(BaseEngine):
    """ONNX Runtime with all graph optimisations.

    fp16 is a model whose weights were cast before the export; int8 is static quantisation in QDQ form, per channel,
    its ranges found on training data. ``onnxruntime_provider`` of the configuration names another execution provider.
    """

    name = "onnxruntime"
    precisions: Sequence[str] = ("fp32", "fp16", "int8")
    packages: Mapping[str, str] = {"onnxruntime": "onnxruntime", "onnx": "onnx", "onnxscript": "onnxscript"}

    def export(self, model: nn.Module, workload: InferenceWorkload, options: CompileOptions) -> Path:
        """See :class:`~pytest_flagperf.worker.inference.engine.Engine`: ``model.onnx``, quantised where int8 is asked.

        Only :meth:`compile` looks at whether the provider is there.
        """
        if options.precision == "fp16" and kind_of(options.device) == "cpu":
            raise PrecisionUnavailable("ONNX Runtime computes fp16 in fp32 on a CPU: the precision is not in force")
        path = export(model, workload, options, options.directory / MODEL)
        return quantised(path, workload, options) if options.precision == "int8" else path

    def compile(self, model: nn.Module, workload: InferenceWorkload, options: CompileOptions) -> Session:
        """See :class:`~pytest_flagperf.worker.inference.engine.Engine`: a session."""
        assert options.exported is not None
        return Session(options.exported, workload, options)


def export(model: nn.Module, workload: InferenceWorkload, options: CompileOptions, path: Path) -> Path:
    """Write the model as ONNX with the batch axis, and the axes that the workload names, left open."""
    import copy

    import torch

    kind = {"fp16": torch.float16, "bf16": torch.bfloat16}.get(options.precision, torch.float32)
    # On the host: the exporter traces there, and the file is of no device.
    exported = copy.deepcopy(model).to("cpu", kind)
    # A batch of one would be taken for a constant.
    example = workload.inputs(range(min(2, workload.samples())))
    arguments = tuple(_tensor(array, kind) for array in example)
    batch = torch.export.Dim.AUTO if options.dynamic else None
    shapes = tuple(
        {0: batch, **dict.fromkeys(workload.dynamic.get(name, {}), torch.export.Dim.AUTO)}
        for name in workload.input_names
    )
    if not options.dynamic:
        arguments = tuple(_tensor(array, kind) for array in workload.inputs(range(options.batch_size)))
    with written(path), torch.inference_mode():
        torch.onnx.export(
            exported,
            arguments,
            str(path),
            input_names=list(workload.input_names),
            output_names=list(workload.output_names),
            dynamic_shapes=shapes or None,
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    return path


def _tensor(array: Any, kind: Any) -> Any:
    import torch

    tensor = torch.from_numpy(array)
    return tensor.to(kind) if tensor.is_floating_point() else tensor


def quantised(path: Path, workload: InferenceWorkload, options: CompileOptions, *, symmetric: bool = False) -> Path:
    """The model at ``path`` with int8 weights and activations, whose ranges are those that training data shows.

    ``symmetric`` is for compilers that take no zero points and no quantised bias.
    """
    from onnxruntime.quantization import CalibrationMethod
    from onnxruntime.quantization import QuantFormat
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization import quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    if options.calibration is None:
        raise ConfigurationError("int8 needs calibration data: the workload has none")
    prepared, target = path.with_suffix(".prepared.onnx"), path.with_name(QUANTISED)
    quant_pre_process(str(path), str(prepared))
    quantize_static(
        str(prepared),
        str(target),
        _Reader(options.calibration(), workload.input_names),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        # 7 bits of weights do not overflow.
        reduce_range=kind_of(options.device) == "cpu" and lacks_vnni(),
        activation_type=QuantType.QInt8 if symmetric else QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        calibrate_method=CalibrationMethod.MinMax,
        extra_options={"ActivationSymmetric": True, "QuantizeBias": False} if symmetric else {},
    )
    return target


class _Reader:
    """Calibration data as ONNX Runtime asks for it."""

    def __init__(self, batches: Iterable[Arrays], names: Any) -> None:
        self.batches, self.names = iter(batches), list(names)

    def get_next(self) -> dict[str, Any] | None:
        """The next batch by name; ``None`` at the end."""
        batch = next(self.batches, None)
        return None if batch is None else dict(zip(self.names, batch, strict=True))


class Session(BaseCompiled):
    """An ``InferenceSession`` with its inputs and outputs bound on the device."""

    name = "onnxruntime"
    # Of the execution provider where the device's name does not say it.
    provider = ""
    advice = "Install the vendor's build of onnxruntime, or name its provider with onnxruntime_provider"

    def __init__(self, path: Path, workload: InferenceWorkload, options: CompileOptions) -> None:
        import onnxruntime

        self.runtime, self.path = onnxruntime, path
        self.kind = kind_of(options.device)
        self.index = getattr(options.device, "index", None) or 0
        self.provider = self.provider or str(
            options.settings.get("onnxruntime_provider") or PROVIDERS.get(self.kind, "")
        )
        there = onnxruntime.get_available_providers()
        if self.provider not in there:
            raise ConfigurationError(
                f"engine {self.name} has no execution provider for device {self.kind!r} "
                f"({self.provider or 'none is known'}) here; it has {', '.join(there)}. {self.advice}"
            )
        session = onnxruntime.SessionOptions()
        session.intra_op_num_threads = options.threads
        session.inter_op_num_threads = 1
        session.log_severity_level = 3
        session.add_session_config_entry(_RECORD_PLACEMENT, "1")
        provider = (self.provider, {} if self.kind == "cpu" else {"device_id": str(self.index)})
        with read(path, self.name):
            self.session = onnxruntime.InferenceSession(str(path), session, providers=[provider])
        in_force = self.session.get_providers()
        if in_force[0] != self.provider:
            raise InvalidMeasurement(f"ONNX Runtime runs on {in_force[0]}, {self.provider} was asked for")
        self.nodes = placed(self.session)
        if self.nodes and self.provider not in self.nodes:
            raise InvalidMeasurement(
                f"ONNX Runtime executes no node of the model on {self.provider}, but {told(self.nodes)}"
            )
        self.precision_asked = options.precision
        self.size_bytes = size_of(path)
        self.types = {one.name: _TYPES.get(one.type) for one in self.session.get_inputs()}
        self.binding = self.session.io_binding()
        self.names = list(workload.input_names)
        self.held: list[Any] = []

    def load(self, inputs: Arrays) -> None:
        """See :class:`~pytest_flagperf.worker.inference.engine.Compiled`."""
        self.binding.clear_binding_inputs()
        self.binding.clear_binding_outputs()
        self.held = []
        for name, array in zip(self.names, inputs, strict=True):
            kind = self.types.get(name)
            array = np.ascontiguousarray(array if kind is None else array.astype(kind, copy=False))
            value = self.runtime.OrtValue.ortvalue_from_numpy(array, self._device(), self.index)
            self.held.append((array, value))
            self.binding.bind_ortvalue_input(name, value)
        for output in self.session.get_outputs():
            self.binding.bind_output(output.name, self._device(), self.index)

    def _device(self) -> str:
        return "cpu" if self.provider == PROVIDERS["cpu"] else _DEVICES.get(self.kind, self.kind)

    def execute(self) -> None:
        """See :class:`~pytest_flagperf.worker.inference.engine.Compiled`."""
        self.session.run_with_iobinding(self.binding)
        self.binding.synchronize_outputs()

    def outputs(self) -> Arrays:
        """See :class:`~pytest_flagperf.worker.inference.engine.Compiled`."""
        found = self.binding.copy_outputs_to_cpu()
        return tuple(one.astype(np.float32) if one.dtype == np.float16 else one for one in found)

    def precision(self) -> dict[str, Any]:
        """The provider, how many nodes it and others execute, and the types of the weights in the file."""
        quantised = self.precision_asked == "int8"
        nodes = {"nodes": self.nodes} if self.nodes else {}
        return {"provider": self.provider, **nodes, "weights": type_of_weights(self.path), "quantised": quantised}

    def release(self) -> None:
        """See :class:`~pytest_flagperf.worker.inference.engine.Compiled`."""
        self.held = []
        self.binding = self.session = None


def placed(session: Any) -> dict[str, int]:
    """Provider → nodes of the graph that it executes: what a provider lacks goes to the CPU without a word.

    Empty where ONNX Runtime does not tell, as releases before 1.24 do not.
    """
    if not hasattr(session, "get_provider_graph_assignment_info"):
        return {}
    found: dict[str, int] = {}
    for part in session.get_provider_graph_assignment_info():
        found[part.ep_name] = found.get(part.ep_name, 0) + len(part.get_nodes())
    return found


def told(nodes: Mapping[str, int]) -> str:
    """``122 on CPUExecutionProvider``."""
    return ", ".join(f"{count} on {provider}" for provider, count in nodes.items())


def type_of_weights(path: Path) -> str:
    """What most of the weights of an ONNX file are, in ONNX's words: ``float``, ``float16``, ``bfloat16``, ``int8``."""
    import onnx

    kinds = onnx.TensorProto.DataType
    counted: dict[str, int] = {}
    for one in onnx.load(str(path)).graph.initializer:
        size = int(np.prod(one.dims)) if one.dims else 1
        counted[kinds.Name(one.data_type)] = counted.get(kinds.Name(one.data_type), 0) + size
    return max(counted, key=lambda name: counted[name]).lower() if counted else ""


def lacks_vnni() -> bool:
    """Whether this is an x86 processor that sums products of 8 bits in 16, where they may overflow."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return platform.machine() == "x86_64" and "vnni" not in flags


_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64}


def kind_of(device: Any) -> str:
    """What PyTorch calls devices like this one: ``cuda`` of ``cuda:1``."""
    return str(getattr(device, "type", device)).partition(":")[0]
