"""PyTorch's kernels, in this process: right answers in every family, and deliberately wrong kernels that are found."""

from __future__ import annotations

import importlib.util
import json
import types
from pathlib import Path

import pytest

from pytest_flagperf.launch.context import RankContext
from pytest_flagperf.operators import problems
from pytest_flagperf.worker.operators import engine
from pytest_flagperf.worker.operators.request import Request
from tests.conftest import ROOT


pytestmark = [
    pytest.mark.pytorch,
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed"),
]

GEMM = problems.Gemm(m=24, n=40, k=56)
SQUARE = problems.Gemm(m=48, n=40, k=48)
CONVOLUTION = problems.Convolution(
    w=13, h=11, c=6, n=3, k=8, filter_w=3, filter_h=5, pad_w=1, pad_h=2, stride_w=2, stride_h=1
)
CELLS = {cell: problems.Recurrent(cell=cell, hidden=24, batch=3, timesteps=7) for cell in ("vanilla", "lstm", "gru")}
SPARSE = problems.SparseGemm(m=96, n=5, k=64, sparsity=0.9)
COPY = problems.Memory(kind="bandwidth", size=1 << 20)


def operators() -> list[problems.Operator]:
    """FlagPerf's operators at their lite sizes."""
    listed = json.loads((ROOT / "suites" / "operators" / "problems" / "operator.json").read_text())["problems"]
    found = [problems.from_json({"family": "operator", **each}) for each in listed if "smoke" in each["sets"]]
    assert len({operator.name for operator in found}) == 52
    return found


@pytest.fixture(scope="module")
def framework():
    import torch

    from pytest_flagperf.worker.operators.pytorch import Framework

    threads = torch.get_num_threads()
    yield Framework(RankContext(Path("case.json"), Path("."), 0, 0, 1), {"device": {"device": "cpu"}})
    torch.set_num_threads(threads)


@pytest.fixture
def ask(framework):
    """Measures a problem as fast as it goes, and gives the reply."""

    def ask(problem, precision="fp32", direction="fwd", **other):
        given = {"budget": 0.01, "warmup": 0.0, "least": 2, "most": 6, "seed": 3, **other}
        return engine.answer(framework, Request(7, problem, precision, direction, **given))

    return ask


def measured(reply):
    assert reply["status"] == "measured", reply
    assert reply["correct"]
    assert reply["figures"]["max_relative_error"] <= reply["error_bound"]
    assert reply["data"]["nonzero"] > 0.99
    json.dumps(reply, allow_nan=False)
    return reply


# --- right answers


@pytest.mark.parametrize("layout", ["nn", "tn", "nt", "tt"])
@pytest.mark.parametrize("precision", ["fp64", "fp32", "bf16", "fp16", "int8", "fp8"])
def test_a_product_is_right_in_every_layout_and_precision(ask, layout, precision):
    problem = problems.Gemm(m=35, n=48, k=64, a_transposed=layout[0] == "t", b_transposed=layout[1] == "t")
    if precision == "fp8":
        problem = problems.Gemm(m=32, n=48, k=64, a_transposed=layout[0] == "t", b_transposed=layout[1] == "t")
    reply = ask(problem, precision)
    if precision == "fp8" and reply["status"] == "unsupported":
        assert reply["message"]
        return
    measured(reply)
    assert reply["padded"] == ({"m": 36, "n": 48, "k": 64} if precision == "int8" else None)


def test_the_stored_operands_are_those_of_a_column_major_call(framework):
    from pytest_flagperf.worker.operators.pytorch import gemm

    for a_transposed in (False, True):
        for b_transposed in (False, True):
            problem = problems.Gemm(m=2, n=3, k=5, a_transposed=a_transposed, b_transposed=b_transposed)
            kernel = gemm.prepare(framework, Request(1, problem))
            # Row-major storage has the column-major sizes backwards.
            assert tuple(kernel.operands["a"].shape) == ((2, 5) if a_transposed else (5, 2))
            assert tuple(kernel.operands["b"].shape) == ((5, 3) if b_transposed else (3, 5))
            assert all(tensor.is_contiguous() for tensor in kernel.operands.values())
            assert tuple(kernel.c.shape) == (3, 2)


@pytest.mark.parametrize("precision", ["fp64", "fp32", "bf16", "fp16"])
@pytest.mark.parametrize("direction", ["fwd", "bwd_data", "bwd_weights"])
def test_a_convolution_is_right_in_every_direction(ask, direction, precision):
    measured(ask(CONVOLUTION, precision, direction))


def test_an_int8_convolution_is_exact_and_has_no_backward_pass(ask):
    reply = measured(ask(CONVOLUTION, "int8"))
    assert reply["error_bound"] == reply["figures"]["max_relative_error"] == 0.0
    assert ask(CONVOLUTION, "int8", "bwd_data")["status"] == "unsupported"


def test_a_filter_of_one_tap_with_padding_has_an_output_as_large_as_its_input(ask):
    problem = problems.Convolution(
        w=7, h=7, c=4, n=2, k=4, filter_w=1, filter_h=1, pad_w=3, pad_h=3, stride_w=2, stride_h=2
    )
    for direction in problem.directions:
        measured(ask(problem, "fp32", direction))


@pytest.mark.parametrize("precision", ["fp64", "fp32", "bf16"])
@pytest.mark.parametrize("direction", ["fwd", "bwd_data", "bwd_weights"])
@pytest.mark.parametrize("cell", CELLS)
def test_a_recurrent_layer_is_right_in_every_direction(ask, cell, direction, precision):
    measured(ask(CELLS[cell], precision, direction))


def test_a_layer_that_is_only_inferred_saves_nothing_for_a_backward_pass(ask):
    problem = problems.Recurrent(cell="lstm", hidden=24, batch=3, timesteps=7, sets=("inference_server",))
    reply = measured(ask(problem))
    assert any("nothing saved" in note for note in reply["notes"])


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_our_recurrence_is_that_of_pytorchs_own_layer(framework, cell):
    import torch

    from pytest_flagperf.worker.operators.pytorch import recurrent

    kernel = recurrent.BackwardData(framework, Request(1, CELLS[cell], "fp64", "bwd_data"))
    hidden = kernel.hidden
    layer = getattr(torch.nn, cell.upper())(kernel.gates * hidden, hidden, bias=False).double()
    # PyTorch's order of an LSTM's gates is i, f, g, o; its input weights become the identity: x is W x already.
    order = [0, 1, 3, 2] if cell == "lstm" else [0, 1, 2]
    rows = torch.cat([torch.arange(gate * hidden, (gate + 1) * hidden) for gate in order])
    with torch.no_grad():
        layer.weight_hh_l0.copy_(kernel.weights[rows])
        layer.weight_ih_l0.copy_(torch.eye(kernel.gates * hidden, dtype=torch.float64)[rows])
    first = kernel.first[None].clone().requires_grad_()
    state = (first, kernel.first_cell[None]) if cell == "lstm" else first
    x = kernel.x.clone().requires_grad_()
    h, _ = layer(x, state)
    h.backward(kernel.given)
    kernel.run()
    assert torch.allclose(kernel.h, h)
    assert torch.allclose(kernel.first_gradient, first.grad[0])
    if cell == "lstm":
        assert torch.allclose(kernel.gradients, x.grad)


def test_a_sparse_product_is_right_and_has_the_dense_one_beside_it(ask):
    reply = measured(ask(SPARSE))
    assert reply["figures"]["dense_time"] > 0
    assert any(f"{SPARSE.nonzeros} entries" in note for note in reply["notes"])
    assert ask(SPARSE, "bf16")["status"] == "unsupported"


def test_a_copy_counts_what_is_read_and_what_is_written(ask):
    figures = measured(ask(COPY))["figures"]
    assert figures["bandwidth"] == pytest.approx(2 * COPY.size / figures["time"] / 1e3)


@pytest.mark.parametrize("precision", ["fp64", "fp32", "bf16", "fp8", "int8"])
def test_the_arithmetic_peak_is_measured_in_every_precision(ask, precision):
    measured(ask(problems.Computation(m=64, n=64, k=64), precision))


def test_every_operator_of_flagperfs_list_is_right_in_every_type_and_direction(ask):
    wrong = {}
    for operator in operators():
        for dtype in operator.dtypes:
            for direction in operator.directions:
                reply = ask(operator, dtype, direction, least=1, most=1)
                if reply["status"] not in ("measured", "unsupported"):
                    wrong[operator.name, dtype, direction] = reply["message"]
    assert not wrong


# --- deliberately wrong kernels


def transposed_operand(kernel):
    import torch

    torch.mm(kernel.b_side, kernel.a_side.t(), out=kernel.c)


def swapped_m_and_k(kernel):
    import torch

    k, m = kernel.a_side.shape
    torch.mm(kernel.b_side, kernel.a_side.reshape(m, k).t(), out=kernel.c)


def half_of_k(kernel):
    import torch

    k = kernel.a_side.shape[0] - 1
    torch.mm(kernel.b_side[:, :k], kernel.a_side[:k], out=kernel.c)


def a_nan(kernel):
    type(kernel).original(kernel)
    for tensor in kernel.outputs.values():
        tensor[(0,) * tensor.dim()] = float("nan")


def never_writes(kernel):
    """What is stale stays stale."""


def writes_once(kernel):
    if not getattr(kernel, "written", False):
        type(kernel).original(kernel)
        kernel.written = True


def padding_off_by_one(kernel):
    import torch

    (vertical, horizontal), x = kernel.padding, kernel.x
    shifted = torch.nn.functional.pad(x, (horizontal + 1, horizontal - 1, vertical, vertical))
    kernel.outputs["result"] = torch.conv2d(shifted, kernel.filters, None, kernel.stride, 0)


def shifted_by_a_pixel(kernel):
    type(kernel).original(kernel)
    kernel.outputs["result"] = kernel.outputs["result"].roll(1, dims=3)


def flipped_filter(kernel):
    type(kernel).original(kernel)
    kernel.outputs["result"] = kernel.outputs["result"].flip(3)


def another_shape(kernel):
    type(kernel).original(kernel)
    kernel.outputs["result"] = kernel.outputs["result"][..., :-1]


def integer_padding_off_by_one(kernel):
    original = kernel.windows
    kernel.windows = original.roll(1, dims=2)
    type(kernel).original(kernel)
    kernel.windows = original


def reset_before_the_product(kernel):
    import torch

    hidden = kernel.hidden
    for t, x in enumerate(kernel.inputs):
        before = kernel.states[t]
        both = (x[:, : 2 * hidden] + before @ kernel.transposed[:, : 2 * hidden]).sigmoid()
        r, z = both.split(hidden, dim=1)
        n = (x[:, 2 * hidden :] + (r * before) @ kernel.transposed[:, 2 * hidden :]).tanh()
        kernel.states[t + 1].copy_(torch.lerp(n, before, z))


def gates_in_another_order(kernel):
    kernel.parts, original = [(f, i, o, g) for i, f, o, g in kernel.parts], kernel.parts
    type(kernel).original(kernel)
    kernel.parts = original


def tanh_for_relu(kernel):
    import torch

    for t, x in enumerate(kernel.inputs):
        torch.addmm(x, kernel.states[t], kernel.transposed, out=kernel.states[t + 1]).tanh_()


def one_step_missing(kernel):
    kernel.steps, steps = kernel.steps - 1, kernel.steps
    kernel.inputs, inputs = kernel.inputs[:-1], kernel.inputs
    type(kernel).original(kernel)
    kernel.steps, kernel.inputs = steps, inputs


def weights_transposed(kernel):
    hidden = kernel.hidden
    kernel.weights, weights = (
        kernel.weights.view(-1, hidden, hidden).transpose(1, 2).reshape(-1, hidden),
        kernel.weights,
    )
    type(kernel).original(kernel)
    kernel.weights = weights


def states_one_step_late(kernel):
    import torch

    torch.mm(kernel.left, kernel.before.roll(kernel.batch, dims=0), out=kernel.result)


def another_column(kernel):
    import torch

    torch.mm(kernel.a, kernel.b.roll(1, dims=0), out=kernel.c)


def an_entry_dropped(kernel):
    kernel.values[0], value = 0.0, kernel.values[0].item()
    type(kernel).original(kernel)
    kernel.values[0] = value


def only_half(kernel):
    half = kernel.target.numel() // 2
    kernel.target[:half].copy_(kernel.source[:half])


WRONG = [
    ("gemm:GemmKernel", SQUARE, "fwd", transposed_operand),
    ("gemm:GemmKernel", GEMM, "fwd", swapped_m_and_k),
    ("gemm:GemmKernel", GEMM, "fwd", half_of_k),
    ("gemm:GemmKernel", GEMM, "fwd", never_writes),
    ("gemm:GemmKernel", GEMM, "fwd", writes_once),
    ("gemm:GemmKernel", GEMM, "fwd", a_nan),
    ("gemm:GemmKernel", problems.Computation(m=48, n=48, k=48), "fwd", transposed_operand),
    ("gemm:GemmKernel", problems.Computation(m=48, n=48, k=48), "fwd", writes_once),
    ("convolution:Forward", CONVOLUTION, "fwd", padding_off_by_one),
    ("convolution:Forward", CONVOLUTION, "fwd", never_writes),
    ("convolution:Forward", CONVOLUTION, "fwd", writes_once),
    ("convolution:Forward", CONVOLUTION, "fwd", another_shape),
    ("convolution:Forward", CONVOLUTION, "fwd", a_nan),
    ("convolution:BackwardData", CONVOLUTION, "bwd_data", shifted_by_a_pixel),
    ("convolution:BackwardData", CONVOLUTION, "bwd_data", writes_once),
    ("convolution:BackwardWeights", CONVOLUTION, "bwd_weights", flipped_filter),
    ("convolution:BackwardWeights", CONVOLUTION, "bwd_weights", writes_once),
    ("convolution:IntegerForward", CONVOLUTION, "fwd", integer_padding_off_by_one),
    ("convolution:IntegerForward", CONVOLUTION, "fwd", writes_once),
    ("recurrent:Forward", CELLS["gru"], "fwd", reset_before_the_product),
    ("recurrent:Forward", CELLS["lstm"], "fwd", gates_in_another_order),
    ("recurrent:Forward", CELLS["vanilla"], "fwd", tanh_for_relu),
    *[("recurrent:Forward", problem, "fwd", one_step_missing) for problem in CELLS.values()],
    *[("recurrent:Forward", problem, "fwd", writes_once) for problem in CELLS.values()],
    *[("recurrent:Forward", problem, "fwd", a_nan) for problem in CELLS.values()],
    *[("recurrent:BackwardData", problem, "bwd_data", weights_transposed) for problem in CELLS.values()],
    *[("recurrent:BackwardData", problem, "bwd_data", writes_once) for problem in CELLS.values()],
    ("recurrent:BackwardWeights", CELLS["gru"], "bwd_weights", states_one_step_late),
    ("recurrent:BackwardWeights", CELLS["gru"], "bwd_weights", writes_once),
    ("sparse:SparseKernel", SPARSE, "fwd", another_column),
    ("sparse:SparseKernel", SPARSE, "fwd", an_entry_dropped),
    ("sparse:SparseKernel", SPARSE, "fwd", writes_once),
    ("memory:Bandwidth", COPY, "fwd", only_half),
    ("memory:Bandwidth", COPY, "fwd", writes_once),
]


@pytest.mark.parametrize(
    ("kind", "problem", "direction", "sabotage"),
    WRONG,
    ids=[
        f"{kind.split(':')[1]}-{problem.id.split('-')[0]}-{sabotage.__name__}" for kind, problem, _, sabotage in WRONG
    ],
)
def test_a_wrong_kernel_is_found(ask, monkeypatch, kind, problem, direction, sabotage):
    module, _, name = kind.partition(":")
    kernel = getattr(importlib.import_module(f"pytest_flagperf.worker.operators.pytorch.{module}"), name)
    precision = "int8" if name == "IntegerForward" else "fp32"
    measured(ask(problem, precision, direction))
    monkeypatch.setattr(kernel, "original", kernel.run, raising=False)
    monkeypatch.setattr(kernel, "run", sabotage)
    reply = ask(problem, precision, direction)
    assert reply["status"] == "wrong", reply
    figures = reply.get("figures", {})
    assert "time" not in figures
    # Of a call in between only the message tells the error.
    error = figures.get("max_relative_error", "inf")
    assert error == "inf" or error > 0.0


@pytest.mark.parametrize("sabotage", [never_writes, writes_once])
def test_every_operator_that_leaves_its_result_stale_is_found(ask, monkeypatch, sabotage):
    from pytest_flagperf.worker.operators.pytorch import operator_list

    for kernel in (operator_list.Forward, operator_list.Backward):
        monkeypatch.setattr(kernel, "original", kernel.run, raising=False)
        monkeypatch.setattr(kernel, "run", sabotage)
    for operator in operators():
        for direction in operator.directions:
            reply = ask(operator, operator.dtypes[0], direction, least=1, most=1)
            assert reply["status"] == "wrong", (operator.name, direction, reply)


def test_a_wrong_operator_of_every_kind_is_found(ask, monkeypatch):
    import torch

    from pytest_flagperf.worker.operators.pytorch import operator_list

    by_name = {operator.name: operator for operator in operators()}
    into = {
        "sub": lambda x, _, out: torch.sub(x[1], x[0], out=out),
        "rsub": lambda x, _, out: torch.sub(x[0], x[1], out=out),
        "ge": lambda x, _, out: torch.gt(*x, out=out),
        "gelu": lambda x, _, out: torch.ops.aten.gelu.out(x[0], approximate="tanh", out=out),
        "sum": lambda x, _, out: torch.sum(x[0][1:], dim=(0, 1, 2), out=out),
        "argmax": lambda x, _, out: torch.argmin(x[0], 1, out=out),
        "softmax": lambda x, _, out: torch.softmax(x[0], 2, out=out),
        "mm": lambda x, _, out: torch.mm(x[0], x[1].t(), out=out),
        "addmm": lambda x, _, out: torch.mm(x[1], x[2], out=out),
        "triu": lambda x, _, out: torch.triu(x[0], 1, out=out),
        "bitwise_or": lambda x, _, out: torch.bitwise_xor(*x, out=out),
    }
    allocating = {
        "linear": lambda x, _: x[0] @ x[1],
        "dropout": lambda x, _: torch.nn.functional.dropout(x[0], 0.5, training=True),
        "native_dropout": lambda x, _: (x[0], torch.ones_like(x[0], dtype=torch.bool)),
        "layer_norm": lambda x, _: torch.nn.functional.layer_norm(x[0], x[0].shape[2:]),
        "group_norm": lambda x, _: torch.nn.functional.group_norm(x[0], 2, x[1], x[2]),
        "cross_entropy_loss": lambda x, _: torch.nn.functional.cross_entropy(x[0], x[1], reduction="sum"),
        "prod": lambda x, _: -torch.prod(x[0]),
        "isinf": lambda x, _: torch.isnan(x[0]),
    }
    for name, call in into.items():
        monkeypatch.setitem(operator_list.INTO, name, call)
    for name, call in allocating.items():
        monkeypatch.setitem(operator_list.ALLOCATING, name, call)
    for name in (*into, *allocating):
        reply = ask(by_name[name], by_name[name].dtypes[0], least=1, most=1)
        assert reply["status"] == "wrong", (name, reply)


@pytest.mark.parametrize(
    ("problem", "direction"),
    [
        (GEMM, "fwd"),
        (CONVOLUTION, "fwd"),
        (CONVOLUTION, "bwd_weights"),
        (CELLS["gru"], "bwd_data"),
        (SPARSE, "fwd"),
        (COPY, "fwd"),
        (problems.Computation(m=48, n=48, k=48), "fwd"),
    ],
    ids=lambda value: getattr(value, "family", value),
)
def test_operands_of_zeros_are_refused_in_every_family(ask, monkeypatch, problem, direction):
    import torch

    from pytest_flagperf.worker.operators.pytorch.tensors import TensorKernel

    def zeros(self, name, *shape, dtype=None, scale=1.0):
        self.operands[name] = torch.zeros(shape, dtype=dtype or self.dtype)
        return self.operands[name]

    monkeypatch.setattr(TensorKernel, "draw", zeros)
    reply = ask(problem, "fp32", direction)
    assert reply["status"] == "wrong"
    assert "0.0% non-zero" in reply["message"]


# --- what else can become of a request


def test_tf32_forced_on_behind_our_back_is_refused(ask, monkeypatch):
    import torch

    from pytest_flagperf.worker.operators.pytorch import gemm

    run = gemm.GemmKernel.run

    def meddle(self):
        torch.set_float32_matmul_precision("high")
        run(self)

    monkeypatch.setattr(gemm.GemmKernel, "run", meddle)
    reply = ask(GEMM)
    assert reply["status"] == "failed"
    assert "TF32 is on" in reply["message"]
    monkeypatch.undo()
    assert measured(ask(GEMM))["precision"] == {
        "asked": "fp32",
        "float32_matmul": "highest",
        "tf32": False,
        "accumulate": "fp32",
        **dict.fromkeys("abc", "float32"),
        "alpha": 1.0,
        "beta": 0.0,
    }


@pytest.mark.parametrize("asked", ["fp32", "tf32"])
def test_tf32_for_one_kind_of_call_only_is_neither_precision(asked, monkeypatch):
    """Products of matrices have it and convolutions not, or the other way round."""
    import torch

    from pytest_flagperf.errors import PrecisionUnavailable
    from pytest_flagperf.worker import tf32
    from pytest_flagperf.worker.operators.pytorch.framework import Framework

    framework = object.__new__(Framework)
    monkeypatch.setattr(Framework, "_switches", lambda self: {"torch.backends.cudnn.allow_tf32": (holder, "allow")})
    framework.on_host = True
    holder = type("Switch", (), {"allow": asked == "fp32"})
    monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: "highest" if asked == "fp32" else "high")
    state = framework.in_force(asked)
    with pytest.raises(
        PrecisionUnavailable, match=r"TF32 is on for (float32_matmul|torch\.backends\.cudnn\.allow_tf32) only"
    ):
        tf32.refuse_other(state, asked)


def test_what_this_device_does_not_have_is_said_in_the_frameworks_words(ask):
    assert "none" in ask(GEMM, "tf32")["message"]
    assert "amp" in ask(GEMM, "amp")["message"]
    assert "BFloat16" in ask(SPARSE, "bf16")["message"]
    for problem in (
        problems.Memory(kind="capacity", size=1 << 30),
        problems.Interconnect(kind="host_to_device", scope="host", size=1 << 20),
        problems.AllReduce(elements=1000),
    ):
        assert ask(problem)["status"] == "unsupported"


@pytest.mark.parametrize("kind", ["host_to_device", "device_to_device", "all_reduce"])
def test_between_servers_there_is_no_link_where_all_ranks_are_on_one(ask, kind):
    reply = ask(problems.Interconnect(kind=kind, scope="cluster", size=1 << 20))
    assert reply["status"] == "unsupported"
    assert "all 1 ranks are on one server" in reply["message"]


@pytest.mark.parametrize(
    ("message", "status"),
    [
        ("CUDA error: no kernel image is available for execution on the device", "failed"),
        ("CUDA error: operation not supported", "failed"),
        ("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm`", "failed"),
        ("HIP error: an illegal memory access was encountered; this is not supported", "lost"),
        ("CUDA error: an illegal memory access was encountered", "lost"),
        ("CUDA error: out of memory", "out_of_memory"),
        ("CUDA error: CUBLAS_STATUS_NOT_SUPPORTED when calling `cublasGemmEx`", "unsupported"),
        ("cuDNN error: CUDNN_STATUS_NOT_SUPPORTED", "unsupported"),
        ("CUDA error: operation not supported when calling `cusparseSpMM`", "unsupported"),
        ("expected mat1 and mat2 to have the same dtype, but got: float != c10::Half", "failed"),
        ("Expected self.size(0) to be 3", "failed"),
        ("\"addmm_impl_cpu_\" not implemented for 'Half'", "unsupported"),
    ],
)
def test_a_devices_error_and_our_own_mistake_are_no_missing_kernel(framework, message, status):
    assert framework.classify(RuntimeError(message)) == status


def test_fp16_that_would_take_longer_than_the_budget_is_refused_with_its_rate(ask):
    reply = ask(problems.Gemm(m=4096, n=4096, k=4096), "fp16", budget=0.5)
    assert reply["status"] == "unsupported"
    assert "GFLOP/s" in reply["message"]


def test_operands_larger_than_the_memory_are_refused_before_they_are_allocated(ask):
    reply = ask(problems.Gemm(m=1 << 20, n=1 << 20, k=1 << 20))
    assert reply["status"] == "out_of_memory"
    assert "GiB are free" in reply["message"]


def test_an_allocation_that_fails_in_the_framework_is_out_of_memory_too(ask, framework, monkeypatch):
    monkeypatch.setattr(framework, "memory", lambda: None)
    assert ask(problems.Memory(kind="bandwidth", size=1 << 50))["status"] == "out_of_memory"


def test_an_error_within_a_kernel_fails_that_problem_and_the_next_is_measured(ask, monkeypatch):
    from pytest_flagperf.worker.operators.pytorch import gemm

    with monkeypatch.context() as broken:
        broken.setattr(gemm.GemmKernel, "run", lambda self: 1 / 0)
        reply = ask(GEMM)
        assert (reply["status"], reply["message"]) == ("failed", "ZeroDivisionError: division by zero")
    measured(ask(GEMM))


def test_a_device_that_gives_up_ends_the_worker(framework, monkeypatch):
    from pytest_flagperf.worker.operators.pytorch import gemm

    monkeypatch.setattr(framework, "classify", lambda error: "lost")
    monkeypatch.setattr(gemm.GemmKernel, "run", lambda self: 1 / 0)
    with pytest.raises(engine.DeviceLost):
        engine.answer(framework, Request(1, GEMM))


def test_a_flushed_cache_is_flushed_before_every_sample(ask, framework, monkeypatch):
    flushes = []
    monkeypatch.setattr(framework, "flusher", lambda: lambda: flushes.append(1))
    reply = measured(ask(GEMM, cache="flushed"))
    assert len(flushes) > reply["iterations"]
    assert reply["cache"] == "flushed"


def test_another_seed_gives_other_data(framework):
    from pytest_flagperf.worker.operators.pytorch import gemm

    one, same, other = (gemm.prepare(framework, Request(1, GEMM, seed=seed)) for seed in (1, 1, 2))
    assert (one.a_side == same.a_side).all()
    assert (one.a_side != other.a_side).any()
    assert (one.operands["a"].reshape(-1)[:100] != one.operands["b"].reshape(-1)[:100]).any()


def test_a_capacity_is_taken_by_halving_and_every_block_is_written_on(framework, monkeypatch):
    import torch

    from pytest_flagperf.worker.operators.pytorch import memory

    free, empty = [11 << 20], torch.empty

    def scarce(size, **options):
        if size > free[0]:
            raise torch.OutOfMemoryError("out of memory")
        free[0] -= size
        return empty(size, **options)

    kernel = memory.Capacity(framework, Request(1, problems.Memory(kind="capacity", size=8 << 20)))
    monkeypatch.setattr(memory, "torch", types.SimpleNamespace(**{**vars(torch), "empty": scarce}))
    kernel.run()
    assert [block.numel() >> 20 for block in kernel.blocks] == [8, 2, 1]
    assert kernel.check().correct
    assert kernel.figures(1.0) == {"capacity": 11 / 1024}
    kernel.blocks[1][0] = 0
    assert not kernel.check().correct


# --- answers that are nearly right


# Of each: the operator, and a call that is a little wrong.
NEARLY = {
    **{
        name: lambda call, x, given, out: call(x, given, out).mul_(1.05)
        for name in ("abs", "neg", "add", "sub", "rsub", "mul", "div", "reciprocal", "rsqrt", "pow", "tanh", "sigmoid")
    },
    "cos": lambda call, x, given, out: out.copy_(1 - x[0].float() ** 2 / 2),
    "sin": lambda call, x, given, out: out.copy_(x[0].float() - x[0].float() ** 3 / 6 + x[0].float() ** 5 / 120),
    "exp": lambda call, x, given, out: out.copy_(1 + x[0].float() * (1 + x[0].float() * (0.5 + x[0].float() / 6))),
    "silu": lambda call, x, given, out: out.copy_(x[0] * (x[0] / 6 + 0.5).clamp(0, 1)),
    "gelu": lambda call, x, given, out: out.copy_(_torch().nn.functional.gelu(x[0].float(), approximate="tanh")),
    "softmax": lambda call, x, given, out: call(x, given, out).mul_(1.02),
    "log_softmax": lambda call, x, given, out: call(x, given, out).mul_(1.02),
    "outer": lambda call, x, given, out: call(x, given, out).mul_(1.02),
}
REDUCED = {
    "all: true": ("all", lambda x, given, out: out.fill_(True)),
    "all: false": ("all", lambda x, given, out: out.fill_(False)),
    "all: first half": ("all", lambda x, given, out: _torch().all(x[0][:64], out=out)),
    "all: second half": ("all", lambda x, given, out: _torch().all(x[0][64:], out=out)),
    "max: first half": ("max", lambda x, given, out: _torch().max(x[0][:64], out=out)),
    "max: second half": ("max", lambda x, given, out: _torch().max(x[0][64:], out=out)),
    "max: but the last": ("max", lambda x, given, out: _torch().max(x[0].view(-1)[:-1], out=out)),
    "min: first half": ("min", lambda x, given, out: _torch().min(x[0][:64], out=out)),
    "min: second half": ("min", lambda x, given, out: _torch().min(x[0][64:], out=out)),
    "min: but the first": ("min", lambda x, given, out: _torch().min(x[0].view(-1)[1:], out=out)),
    "amax: first half": ("amax", lambda x, given, out: _torch().amax(x[0][:, :512], 1, out=out)),
    "amax: second half": ("amax", lambda x, given, out: _torch().amax(x[0][:, 512:], 1, out=out)),
    "argmax: first half": ("argmax", lambda x, given, out: _torch().argmax(x[0][:, :512], 1, out=out)),
    "sum: but eight": ("sum", lambda x, given, out: _torch().sum(x[0].view(-1)[:-8], dim=0, out=out)),
    "sum: but the first eight": ("sum", lambda x, given, out: _torch().sum(x[0].view(-1)[8:], dim=0, out=out)),
    "sum: half": ("sum", lambda x, given, out: _torch().sum(x[0][64:], dim=(0, 1, 2), out=out)),
    "sum: zero": ("sum", lambda x, given, out: out.zero_()),
    "mean: but a hundred": (
        "mean",
        lambda x, given, out: out.copy_(x[0].view(-1)[100:].double().sum() / x[0].numel()),
    ),
    "mean: zero": ("mean", lambda x, given, out: out.zero_()),
}


def _torch():
    import torch

    return torch


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("name", NEARLY)
def test_a_function_that_is_only_nearly_right_is_found_in_every_type(ask, monkeypatch, name, precision):
    from pytest_flagperf.worker.operators.pytorch import operator_list

    operator = next(operator for operator in operators() if operator.name == name)
    call, nearly = operator_list.INTO[name], NEARLY[name]
    measured(ask(operator, precision, least=1, most=1))
    monkeypatch.setitem(operator_list.INTO, name, lambda x, given, out: nearly(call, x, given, out))
    reply = ask(operator, precision, least=1, most=1)
    assert reply["status"] == "wrong", reply


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("kind", REDUCED)
def test_a_reduction_that_leaves_out_a_part_is_found_in_every_type(ask, monkeypatch, kind, precision):
    from pytest_flagperf.worker.operators.pytorch import operator_list

    name, wrong = REDUCED[kind]
    operator = next(operator for operator in operators() if operator.name == name)
    monkeypatch.setitem(operator_list.INTO, name, wrong)
    for seed in (3, 4):
        reply = ask(operator, precision, least=1, most=1, seed=seed)
        assert reply["status"] == "wrong", reply


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize(
    "name", ["relu", "layer_norm", "group_norm", "native_group_norm", "dropout", "linear", "cross_entropy_loss", "prod"]
)
def test_a_call_that_allocates_a_result_five_percent_off_is_found_in_every_type(ask, monkeypatch, name, precision):
    from pytest_flagperf.worker.operators.pytorch import operator_list

    operator = next(operator for operator in operators() if operator.name == name)
    call = operator_list.ALLOCATING[name]
    measured(ask(operator, precision, least=1, most=1))
    monkeypatch.setitem(operator_list.ALLOCATING, name, lambda x, given: call(x, given) * 1.05)
    assert ask(operator, precision, least=1, most=1)["status"] == "wrong"


def test_a_product_of_all_elements_that_leaves_out_a_half_is_found(ask, monkeypatch):
    import torch

    from pytest_flagperf.worker.operators.pytorch import operator_list

    operator = next(operator for operator in operators() if operator.name == "prod")
    for half in (slice(64), slice(64, None)):
        monkeypatch.setitem(operator_list.ALLOCATING, "prod", lambda x, _, half=half: torch.prod(x[0][half]))
        assert ask(operator, least=1, most=1)["status"] == "wrong"


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_gradient_that_is_only_nearly_right_is_found_in_every_type(ask, monkeypatch, precision):
    from pytest_flagperf.worker.operators.pytorch import operator_list

    original = operator_list.Backward.run

    def nearly(self):
        original(self)
        self.outputs["out0"] = self.outputs["out0"] * 1.05

    monkeypatch.setattr(operator_list.Backward, "run", nearly)
    for operator in operators():
        if "bwd" in operator.directions:
            assert ask(operator, precision, "bwd", least=1, most=1)["status"] == "wrong", operator.name


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("direction", ["fwd", "bwd_data"])
@pytest.mark.parametrize("cell", CELLS)
def test_a_recurrent_layer_two_percent_off_is_found_in_every_type(ask, monkeypatch, cell, direction, precision):
    from pytest_flagperf.worker.operators.pytorch import recurrent

    measured(ask(CELLS[cell], precision, direction))
    kernel = recurrent.Forward if direction == "fwd" else recurrent.BackwardData
    original = kernel.run

    def nearly(self):
        original(self)
        for result in self.outputs.values():
            result.mul_(1.02)

    monkeypatch.setattr(kernel, "run", nearly)
    assert ask(CELLS[cell], precision, direction)["status"] == "wrong"


def test_a_trial_leaves_operands_and_results_as_they_were(framework):
    import torch

    from pytest_flagperf.worker.operators.pytorch import operator_list

    for name in ("max", "min", "all", "prod"):
        operator = next(operator for operator in operators() if operator.name == name)
        kernel = operator_list.prepare(framework, Request(1, operator, "bf16", seed=3))
        before = kernel.inputs[0].clone()
        kernel.poison()
        kernel.run()
        result = kernel.outputs["out0"].clone()
        assert kernel.check().correct
        assert torch.equal(kernel.inputs[0], before)
        assert torch.equal(kernel.outputs["out0"], result)
        assert kernel.check().correct


# --- kernels that work only sometimes


def test_a_kernel_that_works_only_when_somebody_looks_is_found(ask, monkeypatch):
    """It writes its output once after each time that was spoilt, and does nothing in between."""
    from pytest_flagperf.worker.operators.pytorch import gemm

    run, poison, fresh = gemm.GemmKernel.run, gemm.GemmKernel.poison, set()

    def spoilt(self):
        fresh.add(id(self))
        poison(self)

    def lazy(self):
        if id(self) in fresh:
            fresh.discard(id(self))
            run(self)

    monkeypatch.setattr(gemm.GemmKernel, "poison", spoilt)
    monkeypatch.setattr(gemm.GemmKernel, "run", lazy)
    # As many samples as it takes to tell, also where a busy machine has spent the budget by then.
    reply = ask(problems.Gemm(512, 512, 512), least=6, most=12)
    assert (reply["status"], "do not do the same work" in reply["message"]) == ("wrong", True)


@pytest.mark.parametrize("every", [2, 3])
def test_a_kernel_that_leaves_out_calls_is_found(ask, monkeypatch, every):
    from pytest_flagperf.worker.operators.pytorch import gemm

    run, calls = gemm.GemmKernel.run, []

    def lazy(self):
        calls.append(1)
        if len(calls) % every == 1:
            run(self)

    monkeypatch.setattr(gemm.GemmKernel, "run", lazy)
    # Which samples are looked at is drawn: seen by one of many requests at the latest.
    assert any(ask(GEMM)["status"] == "wrong" for _ in range(20))


def test_a_kernel_that_zeroes_its_own_operands_is_found(ask, monkeypatch):
    from pytest_flagperf.worker.operators.pytorch import gemm

    run = gemm.GemmKernel.run

    def zeroing(self):
        self.a_side.zero_()
        run(self)

    monkeypatch.setattr(gemm.GemmKernel, "run", zeroing)
    assert ask(GEMM)["status"] == "wrong"


def test_a_kernel_that_changes_its_operands_after_the_answer_is_found(ask, monkeypatch):
    from pytest_flagperf.worker.operators.pytorch import gemm

    run = gemm.GemmKernel.run

    def tampering(self):
        run(self)
        self.b_side.copy_(self.b_side.flip(0).clone())

    monkeypatch.setattr(gemm.GemmKernel, "run", tampering)
    assert ask(GEMM)["status"] == "wrong"


def test_a_check_that_passes_on_what_nobody_wrote_proves_nothing(ask, monkeypatch):
    from pytest_flagperf.worker.operators.kernel import Check
    from pytest_flagperf.worker.operators.pytorch import gemm

    monkeypatch.setattr(gemm.GemmKernel, "check", lambda self: Check(0.0, 1.0))
    reply = ask(GEMM)
    assert (reply["status"], "prove nothing" in reply["message"]) == ("wrong", True)


def test_a_call_beside_it_that_fails_leaves_what_was_measured(ask, monkeypatch):
    from pytest_flagperf.worker.operators.pytorch import sparse

    def failing(self):
        def dense():
            raise RuntimeError("no dense product today")

        return {"dense_time": dense}

    monkeypatch.setattr(sparse.SparseKernel, "companions", failing)
    reply = measured(ask(SPARSE))
    assert "dense_time" not in reply["figures"]
    assert any("dense_time was not measured: " in note and "no dense product today" in note for note in reply["notes"])
