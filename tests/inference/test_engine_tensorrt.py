"""TensorRT and Torch-TensorRT of NVIDIA, over modules of their names: what is ours of it, and what goes wrong."""

from __future__ import annotations

import enum
import types

import numpy as np
import pytest

from pytest_flagperf.errors import InvalidMeasurement
from pytest_flagperf.worker.inference import registry
from tests.inference.engine_bench import at
from tests.inference.engine_bench import options
from tests.inference.engine_bench import put
from tests.inference.engine_bench import workload


class DataType(enum.Enum):
    FLOAT = 0
    HALF = 1


class TensorRt:
    """tensorrt, as far as it is used. Its network doubles; ``shapes`` are those that the plan was built for."""

    def __init__(self, monkeypatch, fail="", batch=-1):
        self.fail, self.batch = fail, batch
        self.flags, self.profiles, self.networks, self.addresses = {"TF32"}, [], [], {}
        outer = self
        names = ["doubled", "rows"]  # in no particular order

        class Network:
            num_inputs = 1

            def get_input(self, index):
                return types.SimpleNamespace(shape=(outer.batch, 4))

            def get_flag(self, flag):
                return bool(outer.networks[-1] >> int(flag) & 1)

        class Config:
            def clear_flag(self, flag):
                outer.flags.discard(flag)

            def get_flag(self, flag):
                return flag in outer.flags

            def add_optimization_profile(self, profile):
                outer.profiles.append(profile.shapes)

        class Profile:
            def __init__(self):
                self.shapes = {}

            def set_shape(self, name, least, best, most):
                self.shapes[name] = [least, best, most]

        class Builder:
            def __init__(self, logger):
                pass

            def create_network(self, flags):
                outer.networks.append(flags)
                return Network()

            create_builder_config = staticmethod(Config)
            create_optimization_profile = staticmethod(Profile)

            def build_serialized_network(self, network, config):
                return None if fail == "build" else memoryview(b"plan")

        class Parser:
            num_errors = 2

            def __init__(self, network, logger):
                pass

            def parse_from_file(self, path):
                return fail != "parse"

            def get_error(self, index):
                return f"error {index}"

        class Context:
            def set_input_shape(self, name, shape):
                self.shape = shape
                return shape[0] <= 4

            def get_tensor_shape(self, name):
                return self.shape

            def set_tensor_address(self, name, address):
                outer.addresses[name] = address

            def execute_async_v3(self, stream):
                if fail == "execute":
                    return False
                at(outer.addresses["doubled"], self.shape)[:] = 2 * at(outer.addresses["rows"], self.shape)
                return True

        class Engine:
            num_io_tensors = 2
            create_execution_context = staticmethod(Context)

            def get_tensor_name(self, index):
                return names[index]

            def get_tensor_mode(self, name):
                return "input" if name == "rows" else "output"

            def get_tensor_dtype(self, name):
                return DataType.FLOAT

        class Logger:
            WARNING = 1

            def __init__(self, level):
                pass

        put(
            monkeypatch,
            "tensorrt",
            **{"Logger": Logger, "Builder": Builder, "OnnxParser": Parser},
            Runtime=lambda logger: types.SimpleNamespace(
                deserialize_cuda_engine=lambda plan: Engine() if plan == b"plan" and fail != "load" else None
            ),
            NetworkDefinitionCreationFlag=types.SimpleNamespace(STRONGLY_TYPED=1),
            BuilderFlag=types.SimpleNamespace(TF32="TF32"),
            TensorIOMode=types.SimpleNamespace(INPUT="input", OUTPUT="output"),
        )


def plan(tmp_path, monkeypatch, **changes):
    from pytest_flagperf.worker.inference.engines import onnxruntime
    from pytest_flagperf.worker.inference.engines import tensorrt

    monkeypatch.setattr(onnxruntime, "type_of_weights", lambda path: "float")
    chosen = options(tmp_path, precision="fp32", **changes)
    path, in_force = tensorrt.built(tmp_path / "model.onnx", workload(), chosen)
    return tensorrt.Plan(path, workload(), chosen, in_force)


def test_tensorrt_is_strongly_typed_without_tf32_and_gives_fresh_outputs(tmp_path, monkeypatch, cuda):
    library = TensorRt(monkeypatch)
    compiled = plan(tmp_path, monkeypatch, batch_sizes=(4, 2))
    assert library.profiles == [{"rows": [(2, 4), (4, 4), (4, 4)]}]
    told = compiled.precision()
    assert told["strongly_typed"] is True
    assert told["builder_tf32"] is False
    assert told["tensors"] == {"rows": "FLOAT", "doubled": "FLOAT"}
    rows = workload().inputs(range(4))
    first = compiled.run(rows)
    second = compiled.run((rows[0][:2] + 1,))
    assert np.array_equal(first[0], 2 * rows[0])
    assert np.array_equal(second[0], 2 * rows[0][:2] + 2)
    assert compiled.memory()["memory_peak"] > 0
    assert compiled.size_bytes == 4
    compiled.release()
    assert compiled.engine is compiled.context is compiled.runtime is None


def test_tensorrt_builds_static_shapes_without_a_profile(tmp_path, monkeypatch, cuda):
    library = TensorRt(monkeypatch, batch=4)
    plan(tmp_path, monkeypatch)
    assert library.profiles == []


@pytest.mark.parametrize(
    ("fail", "reason"),
    [
        ("parse", r"TensorRT cannot read .*model\.onnx: error 0; error 1"),
        ("build", "TensorRT cannot build"),
        ("load", "TensorRT cannot load"),
        ("execute", "TensorRT did not execute the plan"),
        ("shape", r"engine tensorrt was not built for rows of shape \(5, 4\)"),
    ],
)
def test_tensorrt_says_what_it_could_not_do(tmp_path, monkeypatch, cuda, fail, reason):
    TensorRt(monkeypatch, fail)
    with pytest.raises(InvalidMeasurement, match=reason):
        plan(tmp_path, monkeypatch).run(workload().inputs(range(5 if fail == "shape" else 4)))


def test_an_old_tensorrt_is_not_usable(monkeypatch):
    for name in ("tensorrt", "onnx", "onnxscript"):
        put(monkeypatch, name)
    engine = registry.load("pytorch", "tensorrt")
    monkeypatch.setattr(engine, "versions", lambda: {"tensorrt": "8.6.1"})
    assert engine.available() == (
        "engine tensorrt needs TensorRT 10 or later, 8.6.1 is installed: pip install 'tensorrt>=10'"
    )
    monkeypatch.setattr(engine, "versions", lambda: {"tensorrt": "10.13.3"})
    assert engine.available() == ""


@pytest.mark.parametrize("sizes", [(4,), (4, 2)])
def test_torch_tensorrt_is_told_the_shapes_and_compiles_the_whole_model_without_tf32(tmp_path, monkeypatch, sizes):
    import torch

    from pytest_flagperf.worker.inference.engines import onnxruntime

    told = {}

    def compile_(model, **settings):
        told.update(settings)
        return model

    put(monkeypatch, "torch_tensorrt", Input=lambda **arguments: arguments, compile=compile_)
    # The tensors are on the host here, and the engine takes them for those of its device.
    monkeypatch.setattr(onnxruntime, "kind_of", lambda device: "cuda")
    chosen = options(tmp_path, precision="bf16", batch_sizes=sizes)
    model = torch.nn.Linear(4, 3).eval()
    compiled = registry.load("pytorch", "torch_tensorrt").compile(model, workload(), chosen)
    assert told["require_full_compilation"]
    assert told["disable_tf32"]
    assert told["ir"] == "dynamo"
    expected = {"shape": (4, 4)} if sizes == (4,) else {"min_shape": (2, 4), "opt_shape": (4, 4), "max_shape": (4, 4)}
    assert told["inputs"] == [{**expected, "dtype": torch.bfloat16}]
    assert compiled.precision()["parameters"] == "torch.bfloat16"
    assert model.weight.dtype == torch.float32
