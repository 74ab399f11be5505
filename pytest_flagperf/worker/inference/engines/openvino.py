"""OpenVINO: the ONNX file of :mod:`.onnxruntime`, compiled for Intel's processors and GPUs, and for any x86 or Arm."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from importlib.util import find_spec
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
from pytest_flagperf.worker.inference.engines import onnxruntime
from pytest_flagperf.worker.inference.engines.by_size import is_static
from pytest_flagperf.worker.inference.engines.files import read
from pytest_flagperf.worker.inference.engines.files import size_of
from pytest_flagperf.worker.inference.workload import Arrays
from pytest_flagperf.worker.inference.workload import InferenceWorkload


if TYPE_CHECKING:
    from torch import nn

# Device, as PyTorch calls it → as OpenVINO does.
DEVICES = {"cpu": "CPU", "xpu": "GPU"}
# Precision → OpenVINO's element type, and what a device has to be capable of.
TYPES = {"fp32": ("f32", "FP32"), "bf16": ("bf16", "BF16"), "fp16": ("f16", "FP16"), "int8": ("f32", "INT8")}
MODEL = "model.xml"


class OpenVino(BaseEngine):
    """OpenVINO with a hint of the precision that it is to compute in, which is read back.

    fp32 has to be asked for: without a hint a CPU with bf16 computes in bf16. int8 is quantised after the training by
    NNCF; what NNCF leaves out of it stays in fp32.
    """

    name = "openvino"
    precisions = tuple(TYPES)
    packages: Mapping[str, str] = {"openvino": "openvino", "onnx": "onnx", "onnxscript": "onnxscript"}

    def export(self, model: nn.Module, workload: InferenceWorkload, options: CompileOptions) -> Path:
        """See :class:`~pytest_flagperf.worker.inference.engine.Engine`: ``model.onnx``; quantised, its directory."""
        _require(options)
        # The hint makes the precision and the compiler the shapes: the file is of fp32 for any batch.
        plain = replace(options, precision="fp32", dynamic=True)
        path = onnxruntime.export(model, workload, plain, options.directory / onnxruntime.MODEL)
        return quantised(path, workload, options) if options.precision == "int8" else path

    def compile(self, model: nn.Module, workload: InferenceWorkload, options: CompileOptions) -> Requested:
        """See :class:`~pytest_flagperf.worker.inference.engine.Engine`: a compiled model and one request to it."""
        assert options.exported is not None
        return Requested(options.exported, workload, options)


def library() -> Any:
    """OpenVINO without its telemetry, and NNCF's.

    Both report to their makers unless somebody has declined on this machine; they do without where there is no such
    package. A thread that talks to the network is none of what is measured.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    return openvino


def device_of(options: CompileOptions) -> str:
    """OpenVINO's name of the device. Raises ``ConfigurationError`` where it has none for it."""
    kind = onnxruntime.kind_of(options.device)
    if kind not in DEVICES:
        raise ConfigurationError(
            f"engine openvino has no device for {kind!r}: it executes on {', '.join(DEVICES)} (--vendor=cpu)"
        )
    return DEVICES[kind]


def _require(options: CompileOptions) -> None:
    """Raises where the precision cannot be in force, before anything takes long."""
    if options.precision == "int8" and find_spec("nncf") is None:
        raise ConfigurationError("engine openvino in int8 needs nncf, not installed here: pip install nncf")
    device = device_of(options)
    core = library().Core()
    if device not in core.available_devices:
        raise ConfigurationError(
            f"engine openvino sees no {device} here; it has {', '.join(core.available_devices)}: install the driver of "
            "the device"
        )
    capable = core.get_property(device, "OPTIMIZATION_CAPABILITIES")
    if TYPES[options.precision][1] not in capable:
        raise PrecisionUnavailable(
            f"OpenVINO computes no {options.precision} on this {device}; it does {', '.join(capable)}"
        )


def quantised(path: Path, workload: InferenceWorkload, options: CompileOptions) -> Path:
    """The directory of the model at ``path`` with int8 weights and activations; their ranges are training data's."""
    if options.calibration is None:
        raise ConfigurationError("int8 needs calibration data: the workload has none")
    openvino = library()
    import nncf

    batches = list(options.calibration())
    names = list(workload.input_names)
    dataset = nncf.Dataset(batches, lambda batch: dict(zip(names, batch, strict=True)))
    found = nncf.quantize(openvino.Core().read_model(path), dataset, subset_size=len(batches))
    folder = path.with_name("openvino_int8")
    openvino.save_model(found, folder / MODEL, compress_to_fp16=False)
    return folder


class Requested(BaseCompiled):
    """A compiled model with one request. On a GPU ``execute`` copies its inputs there and its outputs back."""

    def __init__(self, exported: Path, workload: InferenceWorkload, options: CompileOptions) -> None:
        self.openvino, self.names = library(), list(workload.input_names)
        path = exported / MODEL if exported.is_dir() else exported
        with read(path, "openvino"):
            model = self.openvino.Core().read_model(path)
        if is_static(workload, options):
            example = workload.inputs(range(options.batch_size))
            model.reshape({name: list(one.shape) for name, one in zip(self.names, example, strict=True)})
        wanted = TYPES[options.precision][0]
        hints = {
            "INFERENCE_PRECISION_HINT": wanted,
            "EXECUTION_MODE_HINT": "ACCURACY" if options.precision == "fp32" else "PERFORMANCE",
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
        }
        device = device_of(options)
        if device == "CPU":
            hints["INFERENCE_NUM_THREADS"] = options.threads
        self.compiled = self.openvino.Core().compile_model(model, device, hints)
        in_force = self._hint()
        if in_force != wanted:
            raise PrecisionUnavailable(f"OpenVINO computes in {in_force} on this {device}, {wanted} was asked for")
        self.request = self.compiled.create_infer_request()
        self.size_bytes = size_of(exported)
        self.held: list[Any] = []

    def _hint(self) -> str:
        return str(self.compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name())

    def load(self, inputs: Arrays) -> None:
        """See :class:`~pytest_flagperf.worker.inference.engine.Compiled`; the arrays themselves are the tensors."""
        self.held = [np.ascontiguousarray(array) for array in inputs]
        for name, array in zip(self.names, self.held, strict=True):
            self.request.set_tensor(name, self.openvino.Tensor(array, shared_memory=True))

    def execute(self) -> None:
        """See :class:`~pytest_flagperf.worker.inference.engine.Compiled`."""
        try:
            self.request.infer()
        except RuntimeError as error:
            raise InvalidMeasurement(f"OpenVINO cannot execute the model: {error}") from error

    def outputs(self) -> Arrays:
        """See :class:`~pytest_flagperf.worker.inference.engine.Compiled`."""
        found = (np.array(self.request.get_tensor(one).data) for one in self.compiled.outputs)
        return tuple(one.astype(np.float32) if one.dtype == np.float16 else one for one in found)

    def precision(self) -> dict[str, Any]:
        """The hint in force, and how many operations the compiled model executes in which type."""
        counted: dict[str, int] = {}
        for operation in self.compiled.get_runtime_model().get_ops():
            info = operation.get_rt_info()
            kind = str(info["runtimePrecision"].value) if "runtimePrecision" in info else ""
            if kind:
                counted[kind] = counted.get(kind, 0) + 1
        return {"inference_precision": self._hint(), "operations": counted}

    def release(self) -> None:
        """See :class:`~pytest_flagperf.worker.inference.engine.Compiled`."""
        self.held = []
        self.request = self.compiled = None
