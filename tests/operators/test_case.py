"""From a family's problems to tests: ids, markers, precisions, sets, and how long that takes."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from pytest_flagperf.case import Topology
from pytest_flagperf.errors import ConfigurationError
from pytest_flagperf.operators import case as cases
from pytest_flagperf.operators.case import OperatorCase
from pytest_flagperf.operators.case import resolve
from pytest_flagperf.operators.problems import AllReduce
from pytest_flagperf.operators.problems import Convolution
from pytest_flagperf.operators.problems import Gemm
from pytest_flagperf.operators.problems import Operator
from tests.conftest import SUITES


OPERATORS = SUITES / "operators"
GEMM = Gemm(1760, 128, 1760, sets=("train", "smoke"))
BOTH = Gemm(35, 700, 2048, sets=("inference_server", "inference_device"))


TWO = (Topology(1, 2),)


def ways(case: OperatorCase, *problems, frameworks=("pytorch",), precisions=(), topologies=TWO):
    found = resolve(
        case,
        problems,
        frameworks=frameworks,
        precisions=precisions,
        topologies=topologies,
        vendor="cpu",
        directory=Path(),
    )
    return {one.parameters: one for one in found}


def test_an_id_carries_set_precision_direction_and_every_size():
    assert list(ways(OperatorCase("gemm", "", [GEMM]), GEMM)) == ["train-fp32-fwd-m1760-n128-k1760-nn"]
    assert list(ways(OperatorCase("gemm", "", [GEMM]), GEMM, frameworks=("paddle",))) == [
        "paddle-train-fp32-fwd-m1760-n128-k1760-nn"
    ]


def test_each_direction_is_a_test_of_its_own_and_inference_has_the_forward_one_alone():
    both = Convolution(28, 28, 8, 4, 8, 3, 3, sets=("train", "inference_server"))
    found = ways(OperatorCase("conv", "", [both], defaults={"train": ("fp32",)}), both)
    assert [one.direction for one in found.values()] == ["fwd", "bwd_data", "bwd_weights"]
    assert [one.sets for one in found.values()] == [("train", "inference_server"), ("train",), ("train",)]


def test_a_precision_belongs_to_the_sets_that_are_run_in_it():
    case = OperatorCase("gemm", "", [GEMM], precisions=("fp32", "bf16", "int8"), defaults={"smoke": ("fp32", "bf16")})
    assert {one.precision: one.sets for one in ways(case, GEMM).values()} == {
        "fp32": ("train", "smoke"),
        "bf16": ("smoke",),
    }
    asked = ways(case, GEMM, precisions=("int8", "fp16"))
    assert {one.precision: one.sets for one in asked.values()} == {"int8": ("train", "smoke")}


def test_an_operator_is_run_in_its_own_element_types():
    shape = ((1024,),)
    made = {"inputs": shape, "outputs": shape, "flops_model": "per_element", "sets": ("flagperf",)}
    bits = Operator(name="bitwise_not", dtypes=("int32", "int16"), **made)
    tanh = Operator(name="tanh", dtypes=("fp32", "fp16"), backward=True, **made)
    case = OperatorCase("operator", "", [bits, tanh])
    assert list(ways(case, bits, tanh)) == [
        "flagperf-int32-fwd-bitwise_not-1024",
        "flagperf-fp32-fwd-tanh-1024",
        "flagperf-fp32-bwd-tanh-1024",
    ]
    assert [one.problem.name for one in ways(case, bits, tanh, precisions=("fp16",)).values()] == ["tanh", "tanh"]


def test_only_what_ranks_do_together_has_a_topology():
    reduce = AllReduce(1000, sets=("train",))
    several = (Topology(1, 2), Topology(1, 4))
    assert list(ways(OperatorCase("all_reduce", "", [reduce]), reduce, topologies=several)) == [
        "train-fp32-fwd-1x2-elements1000",
        "train-fp32-fwd-1x4-elements1000",
    ]
    (product,) = ways(OperatorCase("gemm", "", [GEMM]), GEMM, topologies=several).values()
    assert product.selection.topology == Topology(1, 1)


def test_the_marker_of_flagperfs_list_is_not_that_of_every_operator():
    (one,) = ways(OperatorCase("gemm", "", [GEMM]), GEMM).values()
    assert one.marks == ("gemm", "train", "smoke", "fp32", "fwd", "pytorch", "operator")
    assert cases.family_marker("operator") == "operator_list"


@pytest.mark.parametrize(
    "wrong",
    [
        {"family": "gem"},
        {"precisions": ("fp33",)},
        {"defaults": {"training": ("fp32",)}},
        {"frameworks": ("jax",)},
    ],
)
def test_a_word_that_is_none_is_an_error_that_lists_those_there_are(wrong):
    with pytest.raises(ConfigurationError, match=r"unknown .* known: "):
        OperatorCase(**{"family": "gemm", "title": "", "problems": [], **wrong})


# --- through pytest


@pytest.fixture
def anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Frameworks need not be installed."""
    monkeypatch.setenv("FLAGPERF_PYTHON", f"pytorch={sys.executable}")


def collected(pytester: pytest.Pytester, *arguments: str) -> list[str]:
    done = pytester.runpytest_subprocess(
        str(OPERATORS), "--collect-only", "-q", "--vendor=cpu", "-p", "no:cacheprovider", *arguments
    )
    return [line.partition("::")[2] for line in done.outlines if "::" in line]


def test_collect_only_lists_every_size_of_every_set(pytester, anywhere):
    names = collected(pytester, "--framework=pytorch")
    assert len(names) == len(set(names)) > 1000
    assert all(name.isascii() and not set(name) & set("/:\\ ") for name in names)
    assert "test_gemm[train-fp32-fwd-m1760-n128-k1760-nn]" in names


@pytest.mark.parametrize(
    ("expression", "count"),
    [
        # METHOD's counts of distinct problems by set.
        ("gemm and train", 160),
        ("gemm and inference_server", 75),
        ("gemm and inference_device", 13),
        ("conv and train and fwd", 90),
        ("conv and train and bwd_weights", 90),
        ("conv and inference_server", 103),
        ("rnn and train and fwd", 53),
        ("rnn and inference_server", 69),
        ("rnn and inference_device", 3),
        ("sparse and inference_server", 24),
        ("sparse and inference_device", 8),
        ("all_reduce and train", 7),
    ],
)
@pytest.mark.slow
def test_the_counts_by_set_are_deepbenchs(pytester, anywhere, expression, count):
    assert len(collected(pytester, "--framework=pytorch", "--precision=fp32", "-m", expression)) == count


def test_a_set_is_found_by_its_marker_and_a_typo_is_an_error_that_lists_the_words(pytester, anywhere):
    names = collected(pytester, "-m", "smoke and gemm and int8")
    assert names
    assert all("-int8-" in name for name in names)
    done = pytester.runpytest_subprocess(str(OPERATORS), "--collect-only", "-m", "smok", "--vendor=cpu")
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    done.stderr.fnmatch_lines(["*unknown marker 'smok'*Operators: gemm, conv*Sets: train*Directions: fwd*"])


@pytest.mark.parametrize(
    ("expression", "precision", "said"),
    [
        ("sparse and training", "fp32", "-m: no test that was collected is marked 'training'. Did you mean 'train'?"),
        ("inference", "fp32", "Did you mean 'inference_server' or 'inference_device'?"),
        (
            "sparse and train",
            "fp32",
            "-m: of the 24 tests that match 'sparse' none matches 'train'; there are inference_server, "
            "inference_device, smoke",
        ),
        ("all_reduce and not fp32", "fp32", "-m: of the 7 tests that match 'all_reduce' none matches 'not fp32'"),
        ("all_reduce and fp16", "fp32,bf16", "no test that was collected is marked 'fp16'; there are fp32, bf16"),
        ("smoke", "amp", "--precision=amp: no test that was collected is run in it"),
        ("sparse and train", "int8", "sparse is not defined in int8; it is in fp64, fp32, bf16, fp16"),
    ],
)
def test_a_selection_that_is_empty_says_what_emptied_it(pytester, anywhere, expression, precision, said):
    families = (str(OPERATORS / "test_sparse.py"), str(OPERATORS / "test_all_reduce.py"))
    arguments = (*families, "--collect-only", "--vendor=cpu", "-m", expression, f"--precision={precision}")
    done = pytester.runpytest_subprocess(*arguments)
    assert done.ret == pytest.ExitCode.NO_TESTS_COLLECTED
    assert said in done.stdout.str()


def test_a_selection_that_another_option_emptied_is_not_blamed_on_markers(pytester, anywhere):
    wanted = (str(OPERATORS / "test_all_reduce.py"), "--collect-only", "--vendor=cpu", "-m", "train")
    assert "-m:" not in pytester.runpytest_subprocess(*wanted, "-k", "nothing").stdout.str()
    assert "-m:" not in pytester.runpytest_subprocess(*wanted).stdout.str()


def test_a_typo_is_told_what_it_may_mean_and_no_empty_list(pytester, anywhere):
    wanted = (str(OPERATORS / "test_sparse.py"), "--collect-only", "--vendor=cpu")
    done = pytester.runpytest_subprocess(*wanted, "-m", "trainn")
    assert "Did you mean 'train'" in done.stderr.str()
    assert "Models:" not in done.stderr.str()


def test_a_precision_that_a_family_is_not_defined_in_is_a_skip_that_says_so(pytester, anywhere):
    done = pytester.runpytest_subprocess(
        str(OPERATORS / "test_sparse.py"), "--precision=int8", "--vendor=cpu", "-rs", "-p", "no:cacheprovider"
    )
    done.assert_outcomes(skipped=1)
    assert "sparse is not defined in int8" in done.stdout.str()


def test_operators_in_containers_are_skipped_with_the_reason(pytester, anywhere, monkeypatch):
    program = pytester.path / "bin" / "docker"
    program.parent.mkdir()
    program.touch(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    done = pytester.runpytest_subprocess(
        *(str(OPERATORS / "test_all_reduce.py"), "--vendor=cpu", "-rs", "-p", "no:cacheprovider"),
        "--container=image",
    )
    done.assert_outcomes(skipped=7)
    assert "operators are not measured in containers" in done.stdout.str()


@pytest.mark.slow
def test_three_thousand_items_are_collected_in_less_than_two_seconds(pytester, anywhere):
    precisions = "--precision=fp32,bf16,fp16,fp64"
    best, counts = float("inf"), set()
    for _ in range(3):
        begin = time.monotonic()
        names = collected(pytester, "--framework=pytorch", precisions)
        best = min(best, time.monotonic() - begin)
        counts.add(len(names))
    assert min(counts) > 3000
    # 2 s is the bound on an idle machine (benchmarks/collection.py); others may use this one, and the start of the
    # interpreter is in it.
    assert best < 6


def test_collection_imports_no_framework(pytester, anywhere):
    pytester.makeconftest(
        "import sys\n"
        "def pytest_collection_finish(session):\n"
        "    assert not {'torch', 'paddle', 'mindspore', 'numpy'} & set(sys.modules)\n"
    )
    names = collected(pytester, "-m", "gemm", "-p", "conftest", "--rootdir=.")
    assert names
