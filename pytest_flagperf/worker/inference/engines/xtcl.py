"""Kunlunxin: XTCL, a TVM with a target for XPUs.

Written to how FlagPerf calls it (inference_engine/kunlunxin/xtcl.py), the only public use there is; untested on
hardware.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from pytest_flagperf.errors import ConfigurationError
from pytest_flagperf.worker.inference.engine import BaseCompiled
from pytest_flagperf.worker.inference.engine import CompileOptions
from pytest_flagperf.worker.inference.engines import onnxruntime
from pytest_flagperf.worker.inference.engines.vendors import FromOnnx
from pytest_flagperf.worker.inference.engines.vendors import as_float32
from pytest_flagperf.worker.inference.engines.vendors import index_of
from pytest_flagperf.worker.inference.workload import Arrays
from pytest_flagperf.worker.inference.workload import InferenceWorkload


# Of the second generation, R200 and R300.
TARGET = "xpu -libs=xdnn -split-device-funcs -device-type=xpu2"


class Xtcl(FromOnnx):
    """A graph of fixed shapes in fp16, for each batch size.

    ``xtcl_target`` of the configuration is TVM's target, where it is not that of the second generation. What FlagPerf
    calls fp32 sets XTCL_USE_FP16 and quantises the weights: it is left out.
    """

    name = "xtcl"
    precisions = ("fp16",)
    modules = ("tvm", "onnx", "onnxscript")
    stack = "Kunlunxin's XTCL, and pip install onnx onnxscript"

    def available(self) -> str:
        """See :class:`~pytest_flagperf.worker.inference.engine.Engine`: another TVM has no XPU."""
        missing = super().available()
        if missing:
            return missing
        spec = find_spec("tvm")
        folders = [Path(one) for one in (spec.submodule_search_locations if spec else None) or ()]
        if not any(list((folder / "contrib").glob("xpu_config*")) for folder in folders):
            return (
                f"engine xtcl needs a TVM with tvm.contrib.xpu_config, and the one here has none: install {self.stack}"
            )
        return ""

    def compile_one(self, path: Path, workload: InferenceWorkload, options: CompileOptions) -> Graph:
        """See :class:`~pytest_flagperf.worker.inference.engines.vendors.FromOnnx`."""
        # Builds of PyTorch for XPUs call them xpu or cuda.
        if onnxruntime.kind_of(options.device) == "cpu":
            raise ConfigurationError(f"engine xtcl executes on Kunlunxin's devices, not on {options.device}")
        return Graph(path, workload, options)


class Graph(BaseCompiled):
    """TVM's graph executor. ``load`` sets the inputs; ``execute`` is the graph, waited for."""

    def __init__(self, path: Path, workload: InferenceWorkload, options: CompileOptions) -> None:
        import onnx
        import tvm
        from tvm import relay
        from tvm.contrib import graph_executor
        from tvm.contrib import xpu_config

        self.names = list(workload.input_names)
        example = workload.inputs(range(options.batch_size))
        self.floats = {name for name, one in zip(self.names, example, strict=True) if one.dtype.kind == "f"}
        shapes = {name: tuple(one.shape) for name, one in zip(self.names, example, strict=True)}
        module, parameters = relay.frontend.from_onnx(onnx.load(str(path)), shapes)
        types = xpu_config.XPUOutDtypeConfig(
            default_precision="float16",
            config_last_node=True,
            config_map={},
            config_var_dtype_map=dict.fromkeys(sorted(self.floats), "float16"),
        )
        target = str(options.settings.get("xtcl_target") or TARGET)
        self.target = target
        with tvm.transform.PassContext(opt_level=3, config={"XPUOutDtypeConfig": types.value()}):
            graph, library, parameters = relay.build(module, target=target, params=parameters)
        self.device = tvm.device("xpu", index_of(options.device))
        self.executor = graph_executor.create(graph, library, self.device)
        self.executor.set_input(**parameters)
        self.size_bytes = sum(int(np.prod(one.shape)) * np.dtype(one.dtype).itemsize for one in parameters.values())

    def load(self, inputs: Arrays) -> None:
        """See :class:`~pytest_flagperf.worker.inference.engine.Compiled`."""
        for name, array in zip(self.names, inputs, strict=True):
            self.executor.set_input(name, array.astype(np.float16) if name in self.floats else array)
        self.device.sync()

    def execute(self) -> None:
        """See :class:`~pytest_flagperf.worker.inference.engine.Compiled`."""
        self.executor.run()
        self.device.sync()

    def _given(self) -> list[Any]:
        return [self.executor.get_output(index) for index in range(self.executor.get_num_outputs())]

    def outputs(self) -> Arrays:
        """See :class:`~pytest_flagperf.worker.inference.engine.Compiled`."""
        return tuple(as_float32(one.asnumpy()) for one in self._given())

    def precision(self) -> dict[str, Any]:
        """The types of what the graph gives, and its target."""
        return {"outputs": ", ".join(sorted({str(one.dtype) for one in self._given()})), "target": self.target}

    def release(self) -> None:
        """See :class:`~pytest_flagperf.worker.inference.engine.Compiled`."""
        self.executor = None
