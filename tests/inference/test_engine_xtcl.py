"""XTCL of Kunlunxin, over a module with functions of that name: what is ours of it, and what goes wrong."""

from __future__ import annotations

import types

import numpy as np

from pytest_flagperf.worker.inference import registry
from tests.inference.engine_bench import options
from tests.inference.engine_bench import put
from tests.inference.engine_bench import workload


def tvm_library(monkeypatch):
    told = {}

    class PassContext:
        def __init__(self, opt_level, config):
            told["config"] = config

        def __enter__(self):
            return self

        def __exit__(self, *error):
            return None

    class Executor:
        def set_input(self, name=None, value=None, **parameters):
            if name is not None:
                self.value = value

        def run(self):
            self.result = 2 * self.value

        def get_num_outputs(self):
            return 1

        def get_output(self, index):
            return types.SimpleNamespace(asnumpy=lambda: self.result, dtype=str(self.result.dtype))

    def from_onnx(model, shapes):
        told["shapes"] = shapes
        return "module", {"weight": np.zeros(3, np.float16)}

    def build(module, target, params):
        told["target"] = target
        return "graph", "library", params

    def device(kind, index):
        told["device"] = (kind, index)
        return types.SimpleNamespace(sync=lambda: told.__setitem__("synchronised", told.get("synchronised", 0) + 1))

    class Types:
        def __init__(self, **settings):
            self.settings = settings

        def value(self):
            return self.settings

    put(monkeypatch, "onnx", load=lambda path: path)
    put(monkeypatch, "tvm", device=device, transform=types.SimpleNamespace(PassContext=PassContext))
    frontend = types.SimpleNamespace(from_onnx=from_onnx)
    put(monkeypatch, "tvm.relay", frontend=frontend, build=build)
    put(monkeypatch, "tvm.contrib.graph_executor", create=lambda graph, library, device: Executor())
    put(monkeypatch, "tvm.contrib.xpu_config", XPUOutDtypeConfig=Types)
    return told


def test_xtcl_is_built_in_fp16_for_the_shapes_and_waits_for_the_device(tmp_path, monkeypatch):
    told = tvm_library(monkeypatch)
    engine = registry.load("pytorch", "xtcl")
    chosen = options(tmp_path, device=types.SimpleNamespace(type="cuda", index=2), settings={"xtcl_target": "xpu -x"})
    compiled = engine.compile_one(tmp_path / "model.4.onnx", workload(), chosen)
    assert told["shapes"] == {"rows": (4, 4)}
    assert told["device"] == ("xpu", 2)
    assert told["target"] == "xpu -x"
    assert told["config"]["XPUOutDtypeConfig"]["config_var_dtype_map"] == {"rows": "float16"}
    compiled.load(workload().inputs(range(4)))
    waited = told["synchronised"]
    compiled.execute()
    assert told["synchronised"] == waited + 1
    assert compiled.precision() == {"outputs": "float16", "target": "xpu -x"}
    assert compiled.outputs()[0].dtype == np.float32
    assert compiled.size_bytes == 6


def test_a_tvm_that_is_not_kunlunxin_s_is_not_xtcl(tmp_path, monkeypatch):
    for name in ("onnx", "onnxscript"):
        put(monkeypatch, name)
    module = put(monkeypatch, "tvm")
    module.__spec__.submodule_search_locations = [str(tmp_path)]
    engine = registry.load("pytorch", "xtcl")
    assert "needs a TVM with tvm.contrib.xpu_config, and the one here has none" in engine.available()
    (tmp_path / "contrib").mkdir()
    (tmp_path / "contrib" / "xpu_config.py").touch()
    assert engine.available() == ""
