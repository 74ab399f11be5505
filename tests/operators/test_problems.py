"""What a problem says of itself: its id, its directions, its work and its traffic. By hand, on small or known sizes."""

from __future__ import annotations

import dataclasses
import itertools
import json
import subprocess
import sys

import pytest

from pytest_flagperf.operators.problems import FAMILIES
from pytest_flagperf.operators.problems import AllReduce
from pytest_flagperf.operators.problems import Computation
from pytest_flagperf.operators.problems import Convolution
from pytest_flagperf.operators.problems import Gemm
from pytest_flagperf.operators.problems import Interconnect
from pytest_flagperf.operators.problems import Memory
from pytest_flagperf.operators.problems import Operator
from pytest_flagperf.operators.problems import Problem
from pytest_flagperf.operators.problems import Recurrent
from pytest_flagperf.operators.problems import SparseGemm
from pytest_flagperf.operators.problems import from_json
from pytest_flagperf.operators.problems import to_json


ELEMENTWISE = Operator(name="tanh", inputs=((2, 3),), outputs=((2, 3),), dtypes=("fp32",), flops_model="per_element")

ONE_OF_EACH: list[Problem] = [
    Gemm(5, 7, 3, a_transposed=True, sets=("train", "smoke"), application="Speech", source="here", note="why"),
    Convolution(7, 7, 2, 1, 3, 1, 1, 3, 3, 2, 2, network_input=True, occurrences=(("train", 2),), sets=("train",)),
    Recurrent("lstm", 4, 2, 3),
    SparseGemm(8, 2, 5, 0.9),
    AllReduce(100, (2, 4)),
    Computation(4, 5, 6),
    Memory("capacity", 2**36),
    Interconnect("device_to_device", "server", 2**20),
    dataclasses.replace(ELEMENTWISE, backward=True, arguments=(("dim", 1), ("p", 0.2))),
]


def test_every_family_is_here():
    assert {problem.family for problem in ONE_OF_EACH} == set(FAMILIES)


@pytest.mark.parametrize("problem", ONE_OF_EACH, ids=lambda problem: problem.family)
def test_a_problem_survives_the_way_through_json(problem):
    assert from_json(json.loads(json.dumps(to_json(problem)))) == problem
    assert hash(from_json(to_json(problem))) == hash(problem)


def test_problems_need_the_standard_library_only():
    """The worker may be another interpreter, without msgspec or pytest."""
    code = (
        "import sys; before = set(sys.modules); import pytest_flagperf.operators.problems; "
        "print(*{name.partition('.')[0] for name in set(sys.modules) - before} - sys.stdlib_module_names)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["pytest_flagperf"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"family": "gemmm", "m": 1}, "unknown family 'gemmm'"),
        ({"family": "gemm", "m": 1, "n": 1}, "gemm needs k"),
        ({"family": "gemm", "m": 1, "n": 1, "k": 1, "lda": 1}, "gemm has no lda"),
        ({"family": "gemm", "m": 1, "n": 0, "k": 1}, "n is 0"),
        ({"family": "conv", "w": 2, "h": 2, "c": 1, "n": 1, "k": 1, "filter_w": 3, "filter_h": 1}, "larger than"),
        ({"family": "rnn", "cell": "elman", "hidden": 1, "batch": 1, "timesteps": 1}, "unknown cell 'elman'"),
        ({"family": "sparse", "m": 1, "n": 1, "k": 1, "sparsity": 95}, "fraction of zeros"),
        ({**to_json(ELEMENTWISE), "output_dtypes": ["same", "bool"]}, "1 outputs and 2 dtypes"),
        ({**to_json(ELEMENTWISE), "inputs": [[2, 0]]}, "sizes of at least 1"),
        ({**to_json(ELEMENTWISE), "dtypes": ["float"]}, "unknown element types ['float']"),
        ({**to_json(ELEMENTWISE), "flops_model": "cubic"}, "unknown flops_model 'cubic'"),
    ],
)
def test_a_problem_that_cannot_be_is_refused(given, message):
    with pytest.raises(ValueError) as refused:
        from_json(given)
    assert message in str(refused.value)


@pytest.mark.parametrize(("a_transposed", "b_transposed"), list(itertools.product((False, True), repeat=2)))
def test_a_gemm_of_three_different_sizes_is_the_column_major_product_in_each_layout(a_transposed, b_transposed):
    """DeepBench once ran m and k swapped for TN: the stored arrays are multiplied here, by hand, both ways."""
    problem = Gemm(2, 3, 4, a_transposed, b_transposed)
    stored_a, stored_b, stored_c = problem.row_major

    def draw(shape, factor):  # row by row, all entries different
        return [[factor * (row * shape[1] + column + 1) for column in range(shape[1])] for row in range(shape[0])]

    a, b = draw(stored_a, 1), draw(stored_b, 10)

    # BLAS: element (i, j) of a stored column-major matrix is row j, column i of the row-major array.
    def op_a(i, j):
        return a[i][j] if a_transposed else a[j][i]

    def op_b(i, j):
        return b[i][j] if b_transposed else b[j][i]

    blas = [[sum(op_a(i, x) * op_b(x, j) for x in range(4)) for i in range(2)] for j in range(3)]

    # The row-major library: (n, k) side times (k, m) side.
    left = [list(row) for row in zip(*b, strict=True)] if b_transposed else b
    right = [list(row) for row in zip(*a, strict=True)] if a_transposed else a
    ours = [[sum(left[j][x] * right[x][i] for x in range(4)) for i in range(2)] for j in range(3)]

    assert (len(ours), len(ours[0])) == stored_c == (3, 2)
    assert ours == blas


def test_gemm_ids_carry_every_size_and_the_layout():
    assert Gemm(1760, 128, 1760).id == "m1760-n128-k1760-nn"
    assert Gemm(1, 2, 3, a_transposed=True).id == "m1-n2-k3-tn"
    assert Gemm(1, 2, 3, b_transposed=True).id == "m1-n2-k3-nt"


def test_gemm_counts():
    assert Gemm(5, 7, 3).flops("fwd") == 2 * 5 * 7 * 3
    assert Gemm(5, 7, 3).bytes("fp32", "fwd") == 4 * (15 + 21 + 35)
    assert Gemm(5, 7, 3).bytes("int8", "fwd") == 15 + 21 + 4 * 35, "int8 products are int32"
    assert Gemm(5, 7, 3).bytes("amp", "fwd") is None


@pytest.mark.parametrize(
    ("layer", "out_w", "out_h"),
    [
        (Convolution(700, 161, 1, 4, 32, 20, 5, 0, 0, 2, 2), 341, 79),
        (Convolution(341, 79, 32, 4, 32, 10, 5, 0, 0, 2, 2), 166, 38),
        (Convolution(7, 7, 2048, 8, 512, 1, 1, 3, 3, 2, 2), 7, 7),
        (Convolution(224, 224, 3, 16, 64, 7, 7, 3, 3, 2, 2), 112, 112),
        (Convolution(151, 40, 1, 1, 32, 20, 5, 8, 8, 8, 2), 19, 26),
    ],
    ids=lambda value: value.id if isinstance(value, Problem) else str(value),
)
def test_convolution_outputs_are_rounded_down_and_horizontal_sizes_come_first(layer, out_w, out_h):
    assert (layer.out_w, layer.out_h) == (out_w, out_h)


def test_convolution_counts_are_the_same_in_every_direction():
    layer = Convolution(700, 161, 1, 4, 32, 20, 5, 0, 0, 2, 2)
    assert [layer.flops(direction) for direction in layer.directions] == [2 * 4 * 32 * 1 * 20 * 5 * 341 * 79] * 3
    images, filters, output = 4 * 1 * 161 * 700, 32 * 1 * 20 * 5, 4 * 32 * 79 * 341
    assert {layer.bytes("fp16", direction) for direction in layer.directions} == {2 * (images + filters + output)}
    assert layer.bytes("int8", "fwd") == images + filters + 4 * output


def test_the_layer_that_reads_the_input_hands_no_gradient_on():
    first = Convolution(8, 8, 1, 1, 1, 3, 3, network_input=True)
    assert first.directions == ("fwd", "bwd_weights")
    with pytest.raises(ValueError, match="no direction 'bwd_data'"):
        first.flops("bwd_data")


@pytest.mark.parametrize(("cell", "gates"), [("vanilla", 1), ("lstm", 4), ("gru", 3)])
def test_recurrent_counts_are_those_of_the_recurrent_products(cell, gates):
    layer = Recurrent(cell, hidden=6, batch=2, timesteps=5)
    assert layer.directions == ("fwd", "bwd_data", "bwd_weights")
    assert {layer.flops(direction) for direction in layer.directions} == {2 * gates * 5 * 2 * 36}


def test_recurrent_traffic_reads_the_weights_once():
    layer = Recurrent("lstm", hidden=6, batch=2, timesteps=5)
    weights, states, gates = 4 * 36, 5 * 2 * 6, 4 * 5 * 2 * 6
    assert layer.bytes("fp32", "fwd") == 4 * (weights + gates + 2 * 2 * 6 + states)
    assert layer.bytes("fp32", "bwd_data") == 4 * (weights + states + 2 * gates)
    assert layer.bytes("fp32", "bwd_weights") == 4 * (states + gates + weights)


def test_sparse_counts_what_is_stored_and_not_the_zeros():
    """DeepBench's sheets have 2 m n k · sparsity: 19 times too much at 95 %."""
    problem = SparseGemm(7680, 1, 2560, 0.95)
    assert problem.nonzeros == 983040
    assert problem.flops("fwd") == 1966080
    assert problem.dense_flops / problem.flops("fwd") == 20
    assert problem.bytes("fp32", "fwd") == 983040 * 8 + 4 * 7681 + 4 * (2560 + 7680)
    assert problem.id == "m7680-n1-k2560-s95"


def test_links_and_memories_have_traffic_and_no_flops():
    assert AllReduce(100).bytes("fp32", "fwd") == 400
    assert AllReduce(100).bytes("bf16", "fwd") == 200
    assert Memory("bandwidth", 2**30).bytes("fp32", "fwd") == 2**31, "read and written"
    assert Memory("capacity", 2**30).bytes("fp32", "fwd") is None
    assert Interconnect("host_to_device", "host", 2**30).bytes("fp32", "fwd") == 2**30, "one way"
    for problem in (AllReduce(100), Memory("bandwidth", 8), Interconnect("all_reduce", "server", 8)):
        assert problem.flops("fwd") is None


def test_sizes_in_ids_are_in_binary_units():
    assert Memory("bandwidth", 4 * 2**30).id == "bandwidth-4GiB"
    assert Interconnect("host_to_device", "host", 256 * 2**20).id == "host_to_device-host-256MiB"
    assert Memory("bandwidth", 1000).id == "bandwidth-1000B"


@pytest.mark.parametrize(
    ("model", "inputs", "output", "flops"),
    [
        ("matrix_product", [(2, 5), (5, 7)], (2, 7), 2 * 2 * 7 * 5),
        ("matrix_product", [(3, 2, 5), (3, 5, 7)], (3, 2, 7), 3 * 2 * 2 * 7 * 5),
        ("matrix_product_add", [(2, 7), (2, 5), (5, 7)], (2, 7), 2 * 2 * 7 * 5 + 3 * 2 * 7),
        ("matrix_vector", [(4, 6), (6,)], (4,), 4 * 6 + 4 * 5),
        ("below_diagonal", [(5, 5)], (5, 5), 4 + 3 + 2 + 1),
        ("per_element", [(2, 3), (2, 3)], (2, 3), 6),
        ("per_element", [(3,), (4,)], (3, 4), 12),
        ("per_element", [(2, 3)], (), 6),
    ],
)
def test_operator_counts_are_of_one_call(model, inputs, output, flops):
    problem = Operator(
        name="x", inputs=tuple(inputs), outputs=(output,), dtypes=("fp32",), flops_model=model, backward=True
    )
    assert problem.flops("fwd") == flops
    assert problem.flops("bwd") == 2 * flops, "FlagPerf's factor 3 is forward and backward together"


def test_operator_traffic_knows_the_types_of_its_tensors():
    compare = dataclasses.replace(ELEMENTWISE, inputs=((2, 3), (2, 3)), output_dtypes=("bool",))
    assert compare.bytes("fp32", "fwd") == 2 * 24 + 6
    assert compare.bytes("fp16", "fwd") == 2 * 12 + 6
    backward = dataclasses.replace(ELEMENTWISE, backward=True)
    assert backward.bytes("fp32", "bwd") == 3 * 24, "the gradient and what was saved in, the gradient out"
    dropout = dataclasses.replace(backward, outputs=((2, 3), (2, 3)), output_dtypes=("same", "bool"))
    assert dropout.bytes("fp32", "bwd") == 24 + 6 + 24, "a mask was saved"


def test_operator_ids_say_one_shape_where_all_are_the_same():
    assert ELEMENTWISE.id == "tanh-2x3"
    product = Operator(name="mv", inputs=((4, 6), (6,)), outputs=((4,),), dtypes=("fp32",), flops_model="matrix_vector")
    assert product.id == "mv-4x6-6"


def test_inference_is_forward_only():
    both = Convolution(8, 8, 1, 1, 1, 3, 3, sets=("train", "inference_server", "smoke"))
    assert both.directions_in("train") == both.directions_in("smoke") == ("fwd", "bwd_data", "bwd_weights")
    assert both.directions_in("inference_server") == ("fwd",)
    assert Recurrent("gru", 1, 1, 1, sets=("inference_device", "smoke")).directions == ("fwd",)
    assert Recurrent("gru", 1, 1, 1).directions == ("fwd", "bwd_data", "bwd_weights"), "made by hand: all there are"


def test_occurrences_count_one_unless_said_otherwise():
    problem = Gemm(1, 1, 1, sets=("train", "smoke"), occurrences=(("train", 2),))
    assert [problem.occurrences_in(name) for name in ("train", "smoke", "inference_server")] == [2, 1, 0]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Memory("bandwidth", 1001), "size is 1001 bytes, which is no multiple of 8"),
        (lambda: Interconnect("host_to_device", "host", 4), "no multiple of 8"),
        (lambda: Memory("capacity", 2**19), "blocks of at least 1048576 bytes"),
        (lambda: SparseGemm(2, 1, 2, 0.95), "nothing of 2x2 is left at a sparsity of 0.95"),
    ],
)
def test_sizes_that_cannot_be_measured_as_they_are_counted_are_refused(make, said):
    with pytest.raises(ValueError, match=said):
        make()
