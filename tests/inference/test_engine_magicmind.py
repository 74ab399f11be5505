"""MagicMind of Cambricon, over a module with functions of that name: what is ours of it, and what goes wrong."""

from __future__ import annotations

import json
import types
from pathlib import Path

import numpy as np
import pytest

from pytest_flagperf.errors import InvalidMeasurement
from pytest_flagperf.worker.inference import registry
from tests.inference.engine_bench import options
from tests.inference.engine_bench import put
from tests.inference.engine_bench import workload


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
