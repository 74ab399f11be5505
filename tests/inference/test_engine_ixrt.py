"""IxRT of Iluvatar, over a module with functions of that name: what is ours of it, and what goes wrong."""

from __future__ import annotations

import types

import numpy as np
import pytest

from pytest_flagperf.errors import InvalidMeasurement
from tests.inference.engine_bench import at
from tests.inference.engine_bench import options
from tests.inference.engine_bench import put
from tests.inference.engine_bench import workload


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
