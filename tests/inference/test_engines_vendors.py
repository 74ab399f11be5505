"""Engines of vendors' software, over modules with the functions of theirs: what is ours of it, and what goes wrong.

None of this was executed by a vendor's library: docs/reference/engines.md says so of each.
"""

from __future__ import annotations

import ctypes
import enum
import json
import os
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from pytest_flagperf import words
from pytest_flagperf.errors import ConfigurationError
from pytest_flagperf.errors import InvalidMeasurement
from pytest_flagperf.worker.inference import registry
from pytest_flagperf.worker.inference.engine import BaseCompiled
from pytest_flagperf.worker.inference.engines.by_size import BySize
from pytest_flagperf.worker.inference.engines.by_size import refuse_dynamic
from tests.conftest import ROOT
from tests.inference.engine_bench import Numbers
from tests.inference.engine_bench import at
from tests.inference.engine_bench import options
from tests.inference.engine_bench import put
from tests.inference.engine_bench import workload


VENDORS = ("tensorrt", "torch_tensorrt", "xtcl", "ixrt", "magicmind", "cann", "macart")


# ------------------------------------------------------------------------------------------------------ all of them


@pytest.mark.parametrize("name", VENDORS)
def test_an_engine_whose_package_is_not_here_names_itself_and_what_to_install(name):
    said = registry.load("pytorch", name).available()
    assert said.startswith(f"engine {name} needs ")
    assert "install " in said


def test_every_engine_is_written_with_what_it_is_and_how_it_was_tested():
    page = (ROOT / "docs" / "reference" / "engines.md").read_text()
    first = page.partition("## ")[0]
    rows = [line.split("|")[1:-1] for line in first.splitlines() if line.startswith("| `")]
    written = {(row[1].strip(), row[0].strip().strip("`")): row for row in rows}
    frameworks = {"PyTorch": "pytorch", "PaddlePaddle": "paddle", "MindSpore": "mindspore"}
    assert {(frameworks[framework], engine) for framework, engine in written} == set(registry.BUILT_IN)
    for (framework, engine), row in written.items():
        one = registry.load(frameworks[framework], engine)
        assert row[2].strip() == ", ".join(one.precisions), engine
        assert (one.name, one.framework) == (engine, frameworks[framework])


def test_asking_which_engines_are_here_imports_no_framework_and_no_compiler():
    code = (
        "import sys\n"
        "from pytest_flagperf.worker.inference import present, registry\n"
        "for framework, name in registry.BUILT_IN: present.look(framework, name)\n"
        "print(*sorted({'torch', 'paddle', 'mindspore', 'openvino', 'nncf', 'onnx', 'tvm'} & set(sys.modules)))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_engines_are_markers_once():
    assert len(set(words.ENGINES)) == len(words.ENGINES)


# ---------------------------------------------------------------------------------------- one model for each batch size


class Model(BaseCompiled):
    size_bytes = 3

    def __init__(self, size, released):
        self.size, self.released = size, released

    def load(self, inputs):
        assert len(inputs[0]) == self.size
        self.loaded = inputs[0]

    def execute(self):
        self.result = 2 * self.loaded

    def outputs(self):
        return (self.result,)

    def release(self):
        self.released.append(self.size)


def test_each_batch_goes_to_the_model_of_its_size():
    released = []
    compiled = BySize("some", (4, 2), lambda size: Model(size, released))
    for size in (4, 2, 4):
        assert len(compiled.run((np.ones((size, 3)),))[0]) == size
    assert compiled.size_bytes == 6
    with pytest.raises(ConfigurationError, match="engine some was compiled for batches of 4, 2; one of 3 came"):
        compiled.load((np.ones((3, 3)),))
    compiled.release()
    assert sorted(released) == [2, 4]


def test_where_one_size_cannot_be_compiled_the_others_are_given_back():
    released = []

    def make(size):
        if size == 1:
            raise InvalidMeasurement("no such size")
        return Model(size, released)

    with pytest.raises(InvalidMeasurement, match="no such size"):
        BySize("some", (4, 2, 1), make)
    assert sorted(released) == [2, 4]


def test_a_model_whose_lengths_vary_is_refused_by_compilers_of_fixed_shapes():
    one = workload()
    one.dynamic = {"rows": {1: "length"}}
    with pytest.raises(ConfigurationError, match=r"engine ixrt compiles for fixed shapes, .* \(rows \[1\]\)"):
        refuse_dynamic("ixrt", one)


# ------------------------------------------------------------------------------------------------------------- Ascend


class Acl:
    """pyACL: its memory is the host's, its model doubles."""

    def __init__(self, monkeypatch, fail=""):
        self.memory, self.fail, self.objects, self.count = Numbers(), fail, {}, 0
        self.device = None
        rt = types.SimpleNamespace(set_device=self.set_device, malloc=self.malloc, free=self.free, memcpy=self.memcpy)
        mdl = types.SimpleNamespace(
            load_from_file=lambda path: (self.made("model"), 0),
            unload=self.gone,
            create_desc=lambda: self.made("description"),
            destroy_desc=self.gone,
            get_desc=lambda description, model: 0,
            get_num_inputs=lambda description: 1,
            get_num_outputs=lambda description: 1,
            get_input_size_by_index=lambda description, index: 64,
            get_output_size_by_index=lambda description, index: 96,  # aligned, as theirs are
            get_input_data_type=lambda description, index: 0,
            get_output_data_type=lambda description, index: 0,
            get_output_dims=lambda description, index: ({"name": "doubled", "dims": [4, 4]}, 0),
            create_dataset=lambda: self.made("dataset", []),
            destroy_dataset=self.gone,
            add_dataset_buffer=self.add,
            execute=self.execute,
        )
        put(
            monkeypatch,
            "acl",
            init=lambda: 100002,  # torch_npu was first
            rt=rt,
            mdl=mdl,
            create_data_buffer=lambda address, size: self.made("buffer", (address, size)),
            destroy_data_buffer=self.gone,
            get_soc_name=lambda: "Ascend910B3",
        )

    def made(self, kind, value=None):
        self.count += 1
        self.objects[self.count] = (kind, value)
        return self.count

    def gone(self, handle):
        del self.objects[handle]
        return 0

    def set_device(self, index):
        self.device = index
        return 0

    def malloc(self, size, policy):
        if self.fail == "malloc" and self.memory.taken:
            return 0, 207001
        return self.memory.take(size), 0

    def free(self, address):
        del self.memory.taken[address]
        return 0

    def memcpy(self, to, room, source, count, kind):
        assert kind == (1 if to in self.memory.taken else 2)
        assert count <= room
        ctypes.memmove(to, source, count)
        return 0

    def add(self, dataset, buffer):
        self.objects[dataset][1].append(self.objects[buffer][1])
        return dataset, 0

    def execute(self, model, inputs, outputs):
        if self.fail == "execute":
            return 507011
        (source, _), (target, _) = self.objects[inputs][1][0], self.objects[outputs][1][0]
        at(target, (4, 4))[:] = 2 * at(source, (4, 4))
        return 0


def offline(tmp_path):
    from pytest_flagperf.worker.inference.engines.cann import Offline

    path = tmp_path / "model.om"
    path.write_bytes(b"12345")
    return Offline(path, options(tmp_path, device=types.SimpleNamespace(type="npu", index=3)))


def test_cann_copies_executes_and_gives_everything_back(tmp_path, monkeypatch):
    acl = Acl(monkeypatch)
    compiled = offline(tmp_path)
    assert acl.device == 3
    rows = workload().inputs(range(4))
    first = compiled.run(rows)
    assert np.array_equal(first[0], 2 * rows[0])
    compiled.run((rows[0] + 1,))
    # What was given out is not what the next run writes into.
    assert np.array_equal(first[0], 2 * rows[0])
    assert compiled.precision() == {"inputs": "float32", "outputs": "float32"}
    with pytest.raises(InvalidMeasurement, match="input 0 has 32 bytes, the model takes 64"):
        compiled.load((rows[0][:2],))
    compiled.release()
    assert not acl.objects
    assert not acl.memory.taken


def test_cann_gives_everything_back_where_the_memory_does_not_suffice(tmp_path, monkeypatch):
    acl = Acl(monkeypatch, fail="malloc")
    with pytest.raises(InvalidMeasurement, match="taking 96 bytes of the device's memory failed with 207001"):
        offline(tmp_path)
    assert not acl.objects
    assert not acl.memory.taken


def test_cann_tells_the_code_of_what_the_device_refused(tmp_path, monkeypatch):
    Acl(monkeypatch, fail="execute")
    compiled = offline(tmp_path)
    compiled.load(workload().inputs(range(4)))
    with pytest.raises(InvalidMeasurement, match=r"acl\.mdl\.execute failed with 507011"):
        compiled.execute()


@pytest.mark.parametrize("works", [True, False])
def test_atc_is_called_for_the_shapes_and_its_words_are_told(tmp_path, monkeypatch, works):
    from pytest_flagperf.worker.inference.engines.cann import converted

    Acl(monkeypatch)
    atc = tmp_path / "bin" / "atc"
    atc.parent.mkdir()
    said = tmp_path / "said.json"
    atc.write_text(
        f"#!{sys.executable}\nimport json, sys\njson.dump(sys.argv[1:], open({str(said)!r}, 'w'))\n"
        + (f"open({str(tmp_path / 'model.4.om')!r}, 'w').write('om')" if works else "sys.exit('E10001: bad shape')")
    )
    atc.chmod(0o755)
    monkeypatch.setenv("PATH", str(atc.parent), prepend=os.pathsep)
    source = tmp_path / "model.4.onnx"
    if works:
        assert converted(source, workload(), options(tmp_path)) == tmp_path / "model.4.om"
        arguments = dict(one[2:].split("=", 1) for one in json.loads(said.read_text()))
        assert arguments["input_shape"] == "rows:4,4"
        assert arguments["soc_version"] == "Ascend910B3"
        assert arguments["output"] == str(tmp_path / "model.4")
        assert arguments["framework"] == "5"
    else:
        with pytest.raises(InvalidMeasurement, match=r"ATC ended with 1 and cannot convert .*E10001: bad shape"):
            converted(source, workload(), options(tmp_path))


def test_cann_without_atc_says_what_to_source(monkeypatch, tmp_path):
    Acl(monkeypatch)
    monkeypatch.setenv("PATH", str(tmp_path))
    said = registry.load("pytorch", "cann").available()
    assert said == "engine cann needs atc, which is not on the PATH: source CANN's set_env.sh"


# ---------------------------------------------------------------------------------------------------------- MagicMind


class Status:
    def __init__(self, good=True):
        self.good = good

    def ok(self):
        return self.good

    def __str__(self):
        return "INTERNAL: no"


class MagicMind:
    """magicmind.python.runtime, as far as it is used; ``fail`` names the step that does not work."""

    def __init__(self, monkeypatch, fail=""):
        outer = self
        self.fail, self.systems, self.settings, self.shapes = fail, 0, [], {}

        class System:
            def __enter__(self):
                outer.systems += 1
                return self

            def __exit__(self, *error):
                outer.systems -= 1

        class Tensor:
            def from_numpy(self, array):
                self.array = array

            def to(self, device):
                self.device = device.id

            def asnumpy(self):
                return self.array

        class Context:
            def create_inputs(self):
                return [Tensor()]

            def enqueue(self, inputs, outputs, queue):
                outputs.append(Tensor())
                outputs[0].from_numpy((2 * inputs[0].array).astype(np.float16))
                return Status()

        class Network:
            def get_input(self, index):
                return types.SimpleNamespace(
                    set_dimension=lambda dimensions: (outer.shapes.__setitem__(index, dimensions), Status())[1]
                )

        class Model:
            def serialize_to_file(self, path):
                Path(path).write_bytes(b"123")
                return Status()

            def deserialize_from_file(self, path):
                return Status()

            def create_i_engine(self):
                return None if fail == "engine" else types.SimpleNamespace(create_i_context=Context)

        class Device:
            id = 0

            def active(self):
                return Status()

            def create_queue(self):
                return types.SimpleNamespace(sync=lambda: Status(fail != "sync"))

        class Config:
            def parse_from_string(self, text):
                outer.settings.append(json.loads(text))
                return Status()

        put(
            monkeypatch,
            "magicmind.python.runtime",
            **{"System": System, "Network": Network, "Model": Model, "Device": Device, "BuilderConfig": Config},
            Dims=lambda shape: shape,
            Builder=lambda: types.SimpleNamespace(build_model=lambda name, network, config: Model()),
            ModelKind=types.SimpleNamespace(kOnnx="onnx"),
        )
        parser = lambda kind: types.SimpleNamespace(parse=lambda network, path: Status(fail != "parse"))  # noqa: E731
        put(monkeypatch, "magicmind.python.runtime.parser", Parser=parser)


def queued(tmp_path):
    chosen = options(tmp_path, device=types.SimpleNamespace(type="mlu", index=1))
    return registry.load("pytorch", "magicmind").compile_one(tmp_path / "model.4.onnx", workload(), chosen)


def test_magicmind_is_built_in_the_precision_for_the_shapes_and_waits_for_its_queue(tmp_path, monkeypatch):
    library = MagicMind(monkeypatch)
    compiled = queued(tmp_path)
    assert library.shapes == {0: (4, 4)}
    assert {"precision_config": {"precision_mode": "force_float16"}} in library.settings
    rows = workload().inputs(range(4))
    (found,) = compiled.run(rows)
    assert found.dtype == np.float32
    assert np.array_equal(found, 2 * rows[0])
    assert compiled.precision()["outputs"] == "float16"
    assert library.systems == 1
    compiled.release()
    assert library.systems == 0


@pytest.mark.parametrize(
    ("fail", "reason"),
    [
        ("parse", r"engine magicmind: reading .*model\.4\.onnx failed: INTERNAL: no"),
        ("engine", "MagicMind cannot load"),
        ("sync", "engine magicmind: execution failed"),
    ],
)
def test_magicmind_tells_the_step_that_failed_and_leaves_nothing_open(tmp_path, monkeypatch, fail, reason):
    library = MagicMind(monkeypatch, fail)
    with pytest.raises(InvalidMeasurement, match=reason):
        queued(tmp_path).run(workload().inputs(range(4)))
    assert library.systems == (1 if fail == "sync" else 0)


# ----------------------------------------------------------------------------------------------------------- TensorRT


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


@pytest.fixture
def cuda(monkeypatch):
    """What TensorRT needs of a device, on the host."""
    import torch

    free = [8 * 2**30]

    def mem_get_info(device):
        free[0] -= 2**30
        return free[0], 16 * 2**30

    stream = types.SimpleNamespace(cuda_stream=7, synchronize=lambda: None)
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: stream)
    monkeypatch.setattr(torch.cuda, "mem_get_info", mem_get_info)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)


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


@pytest.mark.parametrize("name", VENDORS)
def test_an_engine_refuses_a_device_that_is_none_of_its_vendor_s(tmp_path, monkeypatch, name):
    engine = registry.load("pytorch", name)
    with pytest.raises(ConfigurationError, match=f"engine {name} executes on .*, not on cpu"):
        engine.compile(None, workload(), options(tmp_path, precision="fp16", exported=tmp_path))


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


# --------------------------------------------------------------------------------------------------------------- IxRT


def ixrt_library(monkeypatch, fail=""):
    """ixrt; its bindings are in an order of its own, the output first."""
    flags = []
    names = ["doubled", "rows"]

    class Context:
        def get_binding_shape(self, index):
            return (4, 4)

        def execute_v2(self, addresses):
            at(addresses[0], (4, 4))[:] = 2 * at(addresses[1], (4, 4))
            return fail != "execute"

    engine = types.SimpleNamespace(
        num_bindings=2,
        get_binding_name=lambda index: names[index],
        get_binding_dtype=lambda index: "float",
        binding_is_input=lambda index: names[index] == "rows",
        create_execution_context=Context,
    )
    config = types.SimpleNamespace(set_flag=flags.append)
    builder = types.SimpleNamespace(
        create_network=lambda flags: "network",
        create_builder_config=lambda: config,
        build_serialized_network=lambda network, config: None if fail == "build" else b"plan",
    )
    logger = type("Logger", (), {"WARNING": 1, "__init__": lambda self, level: None})
    put(
        monkeypatch,
        "ixrt",
        Logger=logger,
        Builder=lambda logger: builder,
        OnnxParser=lambda network, logger: types.SimpleNamespace(parse_from_file=lambda path: fail != "parse"),
        NetworkDefinitionCreationFlag=types.SimpleNamespace(EXPLICIT_BATCH=0),
        BuilderFlag=types.SimpleNamespace(FP16="FP16"),
        Runtime=lambda logger: types.SimpleNamespace(deserialize_cuda_engine=lambda plan: engine),
        nptype=lambda kind: np.float32,
    )
    return flags


def test_ixrt_gets_its_bindings_in_its_own_order(tmp_path, monkeypatch, cuda):
    from pytest_flagperf.worker.inference.engines import ixrt

    flags = ixrt_library(monkeypatch)
    compiled = ixrt.Bound(ixrt.built(tmp_path / "model.4.onnx"), workload(), options(tmp_path))
    assert flags == ["FP16"]
    rows = workload().inputs(range(4))
    first = compiled.run(rows)
    compiled.run((rows[0] + 1,))
    assert np.array_equal(first[0], 2 * rows[0])
    with pytest.raises(InvalidMeasurement, match=r"built for rows of \(4, 4\), not \(2, 4\)"):
        compiled.load((rows[0][:2],))
    compiled.release()
    assert compiled.engine is None


@pytest.mark.parametrize(("fail", "reason"), [("parse", "IxRT cannot read"), ("build", "IxRT cannot build")])
def test_ixrt_says_what_it_could_not_do(tmp_path, monkeypatch, fail, reason):
    from pytest_flagperf.worker.inference.engines import ixrt

    ixrt_library(monkeypatch, fail)
    with pytest.raises(InvalidMeasurement, match=reason):
        ixrt.built(tmp_path / "model.4.onnx")


def test_a_batch_that_ixrt_says_it_did_not_execute_is_no_answer(tmp_path, monkeypatch, cuda):
    from pytest_flagperf.worker.inference.engines import ixrt

    ixrt_library(monkeypatch, "execute")
    compiled = ixrt.Bound(ixrt.built(tmp_path / "model.4.onnx"), workload(), options(tmp_path))
    with pytest.raises(InvalidMeasurement, match="ixrt could not execute a batch"):
        compiled.run(workload().inputs(range(4)))


# --------------------------------------------------------------------------------------------------------------- XTCL


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


# -------------------------------------------------------------------------------------------------------------- MetaX


def test_macart_wants_metax_s_build_of_onnxruntime(monkeypatch):
    for name in ("onnx", "onnxscript"):
        put(monkeypatch, name)
    there = ["CPUExecutionProvider"]
    put(monkeypatch, "onnxruntime", get_available_providers=lambda: there)
    engine = registry.load("pytorch", "macart")
    assert engine.available().startswith(
        "engine macart needs MACAExecutionProvider, onnxruntime here has CPUExecutionProvider: install MetaX's build"
    )
    there.insert(0, "MACAExecutionProvider")
    assert engine.available() == ""
