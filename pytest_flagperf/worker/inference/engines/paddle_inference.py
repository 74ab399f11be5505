"""Paddle Inference: the layer as a static program, optimised and executed by PaddlePaddle's predictor."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from typing import Any

import numpy as np

from pytest_flagperf.errors import ConfigurationError
from pytest_flagperf.errors import InvalidMeasurement
from pytest_flagperf.worker.inference.engine import BaseCompiled
from pytest_flagperf.worker.inference.engine import BaseEngine
from pytest_flagperf.worker.inference.engine import CompileOptions
from pytest_flagperf.worker.inference.engines.by_size import is_static
from pytest_flagperf.worker.inference.workload import Arrays
from pytest_flagperf.worker.inference.workload import InferenceWorkload


if TYPE_CHECKING:
    from paddle import nn

MODEL = "model"
# MiB that the predictor reserves on a GPU to begin with; it takes more as it needs it.
POOL = 256


class PaddleInference(BaseEngine):
    """``paddle.jit.save`` and ``paddle.inference`` in fp32, with all of its passes over the program.

    Which precision its mixed ones put in force the predictor does not tell, so they are left out.
    """

    name = "paddle_inference"
    framework = "paddle"
    packages: Mapping[str, str] = {"paddle": "paddlepaddle"}

    def export(self, model: nn.Layer, workload: InferenceWorkload, options: CompileOptions) -> Path:
        """See :class:`~pytest_flagperf.worker.inference.engine.Engine`: a directory with program and parameters."""
        import paddle

        static = is_static(workload, options)
        example = workload.inputs(range(options.batch_size))
        specifications = []
        for name, array in zip(workload.input_names, example, strict=True):
            open_axes = set(workload.dynamic.get(name, {})) | (set() if static else {0})
            shape = [None if axis in open_axes else size for axis, size in enumerate(array.shape)]
            specifications.append(paddle.static.InputSpec(shape, str(array.dtype), name))
        folder = options.directory / "paddle"
        folder.mkdir(parents=True, exist_ok=True)
        paddle.jit.save(model, str(folder / MODEL), input_spec=specifications)
        return folder

    def compile(self, model: nn.Layer, workload: InferenceWorkload, options: CompileOptions) -> Predictor:
        """See :class:`~pytest_flagperf.worker.inference.engine.Engine`: a predictor."""
        assert options.exported is not None
        return Predictor(options.exported, workload, options)


class Predictor(BaseCompiled):
    """A predictor; ``load`` copies the inputs to its device, ``execute`` runs it and waits."""

    def __init__(self, folder: Path, workload: InferenceWorkload, options: CompileOptions) -> None:
        import paddle
        from paddle import inference

        self.paddle, self.device = paddle, str(options.device)
        # Releases before 3.0 wrote the program in another format.
        program = next(one for one in (folder / f"{MODEL}.json", folder / f"{MODEL}.pdmodel") if one.is_file())
        config = inference.Config(str(program), str(folder / f"{MODEL}.pdiparams"))
        config.disable_glog_info()
        _place(config, self.device)
        config.set_cpu_math_library_num_threads(options.threads)
        self.config = config
        self.predictor = inference.create_predictor(config)
        there = set(self.predictor.get_input_names())
        if there != set(workload.input_names):
            raise InvalidMeasurement(
                f"engine paddle_inference: the program takes {', '.join(sorted(there))}, the model "
                f"{', '.join(workload.input_names)}"
            )
        self.inputs = [self.predictor.get_input_handle(name) for name in workload.input_names]
        self.size_bytes = sum(one.stat().st_size for one in folder.iterdir())

    def load(self, inputs: Arrays) -> None:
        """See :class:`~pytest_flagperf.worker.inference.engine.Compiled`."""
        for handle, array in zip(self.inputs, inputs, strict=True):
            handle.copy_from_cpu(np.ascontiguousarray(array))
        self._synchronize()

    def execute(self) -> None:
        """See :class:`~pytest_flagperf.worker.inference.engine.Compiled`."""
        self.predictor.run()
        self._synchronize()

    def _synchronize(self) -> None:
        if self.device != "cpu":
            self.paddle.device.synchronize()

    def outputs(self) -> Arrays:
        """See :class:`~pytest_flagperf.worker.inference.engine.Compiled`."""
        names = self.predictor.get_output_names()
        return tuple(np.array(self.predictor.get_output_handle(name).copy_to_cpu()) for name in names)

    def precision(self) -> dict[str, Any]:
        """The types of what goes in and comes out, and whether oneDNN executes."""
        names = self.predictor.get_output_names()
        outputs = sorted({_name(self.predictor.get_output_handle(name).type()) for name in names})
        inputs = sorted({_name(one.type()) for one in self.inputs})
        return {
            "inputs": ", ".join(inputs),
            "outputs": ", ".join(outputs),
            "onednn": bool(self.config.onednn_enabled()),
        }

    def memory(self) -> dict[str, float]:
        """What Paddle's allocator, which the predictor's is, reserved at most."""
        if self.device == "cpu":
            return {}
        return {"memory_peak": self.paddle.device.max_memory_reserved(self.device) / 2**30}

    def release(self) -> None:
        """See :class:`~pytest_flagperf.worker.inference.engine.Compiled`."""
        if self.predictor is not None:
            self.predictor.try_shrink_memory()
        self.inputs = []
        self.predictor = self.config = None


def _place(config: Any, device: str) -> None:
    """Raises ``ConfigurationError`` for a device that Paddle's predictor has no switch for."""
    kind, _, index = device.partition(":")
    if kind == "cpu":
        config.disable_gpu()
    elif kind == "gpu":
        config.enable_use_gpu(POOL, int(index or 0))
    elif kind == "xpu":
        config.enable_xpu()
        config.set_xpu_device_id(int(index or 0))
    elif kind:
        config.enable_custom_device(kind, int(index or 0))
    else:
        raise ConfigurationError("engine paddle_inference was given no device")


def _name(kind: Any) -> str:
    """``float32`` for ``PaddleDType.FLOAT32``."""
    return str(kind).rpartition(".")[2].lower()
