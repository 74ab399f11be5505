"""ONNX Runtime: what executes the nodes of a model, on which device, and how large the model is."""

from __future__ import annotations

import types

import numpy as np
import pytest

from pytest_flagperf.errors import InvalidMeasurement
from pytest_flagperf.worker.inference import registry
from pytest_flagperf.worker.inference.engines import onnxruntime as ours
from pytest_flagperf.worker.inference.engines.files import size_of
from tests.inference.engine_bench import options
from tests.inference.engine_bench import workload


@pytest.fixture
def exported(tmp_path):
    torch = pytest.importorskip("torch")
    pytest.importorskip("onnxscript")
    return ours.export(
        torch.nn.Linear(4, 4).eval(), workload(), options(tmp_path, precision="fp32"), tmp_path / "m.onnx"
    )


def test_the_nodes_of_a_model_are_counted_by_what_executes_them(exported, tmp_path):
    session = ours.Session(exported, workload(), options(tmp_path, precision="fp32"))
    told = session.precision()
    assert list(told["nodes"]) == ["CPUExecutionProvider"]
    assert told["nodes"]["CPUExecutionProvider"] >= 1


def test_a_provider_that_executes_nothing_is_not_what_was_measured(exported, tmp_path):
    import onnxruntime

    if "AzureExecutionProvider" not in onnxruntime.get_available_providers():
        pytest.skip("this build has no provider that takes no node")
    chosen = options(tmp_path, precision="fp32", settings={"onnxruntime_provider": "AzureExecutionProvider"})
    with pytest.raises(InvalidMeasurement, match=r"no node .* on AzureExecutionProvider, but \d+ on CPUExecution"):
        ours.Session(exported, workload(), chosen)


def test_a_release_that_does_not_tell_where_nodes_are_tells_none():
    assert ours.placed(types.SimpleNamespace()) == {}


def test_ascend_is_called_cann_by_onnx_runtime(exported, tmp_path, monkeypatch):
    session = ours.Session(exported, workload(), options(tmp_path, precision="fp32"))
    asked = []
    values = types.SimpleNamespace(ortvalue_from_numpy=lambda array, device, index: asked.append(device))
    monkeypatch.setattr(session, "runtime", types.SimpleNamespace(OrtValue=values))
    binding = types.SimpleNamespace(
        clear_binding_inputs=lambda: None,
        clear_binding_outputs=lambda: None,
        bind_ortvalue_input=lambda name, value: None,
        bind_output=lambda name, device, index: asked.append(device),
    )
    monkeypatch.setattr(session, "binding", binding)
    session.kind, session.provider = "npu", ours.PROVIDERS["npu"]
    session.load(workload().inputs(range(4)))
    assert asked == ["cann", "cann"]


def test_weights_that_do_not_fit_into_the_file_count(exported, tmp_path):
    alone = size_of(exported)
    assert alone == exported.stat().st_size
    exported.with_name("m.onnx.data").write_bytes(bytes(5000))
    assert size_of(exported) == alone + 5000
    assert ours.Session(exported, workload(), options(tmp_path, precision="fp32")).size_bytes == alone + 5000
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "a").write_bytes(bytes(7))
    assert size_of(tmp_path / "model") == 7


@pytest.mark.parametrize(
    ("flags", "machine", "lacks"),
    [("avx2", "x86_64", True), ("avx512_vnni", "x86_64", False), ("asimddp", "aarch64", False)],
)
def test_weights_have_seven_bits_where_products_of_eight_overflow(monkeypatch, flags, machine, lacks):
    monkeypatch.setattr(ours.platform, "machine", lambda: machine)
    monkeypatch.setattr(ours.Path, "read_text", lambda *_, **__: f"flags : fpu {flags}")
    assert ours.lacks_vnni() is lacks


def test_int8_of_seven_bits_is_executed(tmp_path, monkeypatch):
    torch = pytest.importorskip("torch")
    pytest.importorskip("onnxscript")
    monkeypatch.setattr(ours, "lacks_vnni", lambda: True)
    one = workload()
    device = torch.device("cpu")
    chosen = options(tmp_path, precision="int8", device=device, calibration=lambda: iter([one.inputs(range(10))]))
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 4).eval()
    session = ours.Session(registry.load("pytorch", "onnxruntime").export(model, one, chosen), one, chosen)
    (found,) = session.run(one.inputs(range(4)))
    expected = model(torch.from_numpy(one.rows[:4])).detach().numpy()
    assert np.linalg.norm(found - expected) < 0.05 * np.linalg.norm(expected)
