"""Cambricon: MagicMind.

Written to Cambricon's public model zoo (magicmind_cloud); untested on hardware.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from pytest_flagperf.errors import ConfigurationError
from pytest_flagperf.errors import InvalidMeasurement
from pytest_flagperf.worker.inference.engine import BaseCompiled
from pytest_flagperf.worker.inference.engine import CompileOptions
from pytest_flagperf.worker.inference.engines import onnxruntime
from pytest_flagperf.worker.inference.engines.vendors import FromOnnx
from pytest_flagperf.worker.inference.engines.vendors import as_float32
from pytest_flagperf.worker.inference.engines.vendors import index_of
from pytest_flagperf.worker.inference.engines.vendors import succeeded
from pytest_flagperf.worker.inference.workload import Arrays
from pytest_flagperf.worker.inference.workload import InferenceWorkload


# Precision → MagicMind's mode for the whole network.
MODES = {"fp32": "force_float32", "fp16": "force_float16"}


class MagicMind(FromOnnx):
    """A MagicMind model of fixed shapes, for each batch size. Its quantised modes are left out."""

    name = "magicmind"
    precisions = tuple(MODES)
    modules = ("magicmind", "onnx", "onnxscript")
    stack = "MagicMind of Cambricon's Neuware SDK, and pip install onnx onnxscript"

    def compile_one(self, path: Path, workload: InferenceWorkload, options: CompileOptions) -> Queued:
        """See :class:`~pytest_flagperf.worker.inference.engines.vendors.FromOnnx`."""
        if onnxruntime.kind_of(options.device) != "mlu":
            raise ConfigurationError(f"engine magicmind executes on Cambricon's devices, not on {options.device}")
        return Queued(built(path, workload, options), options)


def built(source: Path, workload: InferenceWorkload, options: CompileOptions) -> Path:
    """The model's file. Raises ``InvalidMeasurement`` where MagicMind cannot make it."""
    import magicmind.python.runtime as magicmind
    from magicmind.python.runtime.parser import Parser

    network, config = magicmind.Network(), magicmind.BuilderConfig()
    succeeded("magicmind", f"reading {source}")(Parser(magicmind.ModelKind.kOnnx).parse(network, str(source)))
    for index, array in enumerate(workload.inputs(range(options.batch_size))):
        dimensions = magicmind.Dims(tuple(array.shape))
        succeeded("magicmind", f"setting the shape of input {index}")(
            network.get_input(index).set_dimension(dimensions)
        )
    for setting in (
        {"graph_shape_mutable": False},
        {"precision_config": {"precision_mode": MODES[options.precision]}},
    ):
        text = json.dumps(setting)
        succeeded("magicmind", f"setting {text}")(config.parse_from_string(text))
    model = magicmind.Builder().build_model("model", network, config)
    if model is None:
        raise InvalidMeasurement(f"MagicMind cannot build {source}: its reasons are in the log of the rank")
    path = source.with_suffix(".magicmind")
    succeeded("magicmind", f"writing {path}")(model.serialize_to_file(str(path)))
    return path


class Queued(BaseCompiled):
    """A model on a queue. ``load`` puts the inputs on the device; ``execute`` is the queue's work, waited for."""

    def __init__(self, path: Path, options: CompileOptions) -> None:
        import magicmind.python.runtime as magicmind

        self.precision_asked = options.precision
        self.size_bytes = path.stat().st_size
        self.given: list[Any] = []
        with contextlib.ExitStack() as stack:
            stack.enter_context(magicmind.System())
            self.device = magicmind.Device()
            self.device.id = index_of(options.device)
            succeeded("magicmind", f"taking device {self.device.id}")(self.device.active())
            self.model = magicmind.Model()
            succeeded("magicmind", f"reading {path}")(self.model.deserialize_from_file(str(path)))
            self.engine = self.model.create_i_engine()
            self.context: Any = self.engine.create_i_context() if self.engine is not None else None
            self.queue = self.device.create_queue()
            if self.context is None or self.queue is None:
                raise InvalidMeasurement(f"MagicMind cannot load {path}: its reasons are in the log of the rank")
            self.inputs = self.context.create_inputs()
            self.system = stack.pop_all()

    def load(self, inputs: Arrays) -> None:
        """See :class:`~pytest_flagperf.worker.inference.engine.Compiled`."""
        for tensor, array in zip(self.inputs, inputs, strict=True):
            tensor.from_numpy(np.ascontiguousarray(array))
            tensor.to(self.device)

    def execute(self) -> None:
        """See :class:`~pytest_flagperf.worker.inference.engine.Compiled`; MagicMind makes the outputs, each time."""
        self.given = []
        succeeded("magicmind", "execution")(self.context.enqueue(self.inputs, self.given, self.queue))
        succeeded("magicmind", "execution")(self.queue.sync())

    def outputs(self) -> Arrays:
        """See :class:`~pytest_flagperf.worker.inference.engine.Compiled`."""
        return tuple(as_float32(np.asarray(one.asnumpy())) for one in self.given)

    def precision(self) -> dict[str, Any]:
        """The types of what it gives; the mode is what was set and accepted, not read back."""
        kinds = sorted({str(np.asarray(one.asnumpy()).dtype) for one in self.given})
        return {"outputs": ", ".join(kinds), "mode_accepted": MODES[self.precision_asked]}

    def release(self) -> None:
        """See :class:`~pytest_flagperf.worker.inference.engine.Compiled`: in the reverse order of their making."""
        self.given, self.inputs = [], []
        self.queue = None
        self.context = None
        self.engine = None
        self.model = None
        self.system.close()
