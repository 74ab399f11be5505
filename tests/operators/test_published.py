"""DeepBench's published results: that all of them are there, under our ids, with rates by the right formula."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pytest_flagperf.errors import ConfigurationError
from pytest_flagperf.operators import catalogue
from pytest_flagperf.operators import published
from pytest_flagperf.operators.problems import AllReduce
from pytest_flagperf.operators.problems import Gemm
from pytest_flagperf.operators.problems import SparseGemm


PROBLEMS = Path(__file__).parents[2] / "suites" / "operators" / "problems"


@pytest.fixture(scope="module")
def everything() -> list[published.Published]:
    return [each for name in published.processors() for each in published.times(name).values()]


def test_all_times_of_all_records_are_there(everything):
    """5,428 rows of 21 sheets in 18 workbooks hold 8,989 times; a layer listed twice has both."""
    assert sum(1 + len(each.again) for each in everything) == 8989
    assert len({(each.workbook, each.sheet) for each in everything}) == 21
    assert len({each.workbook for each in everything}) == 18
    assert len(published.processors()) == 14


def test_the_families_of_a_processor_are_told():
    assert published.families("V100") == {"gemm", "conv", "rnn"}
    with pytest.raises(ConfigurationError, match="there are none of 'Abacus'"):
        published.families("Abacus")


def test_the_file_is_small():
    assert (Path(published.__file__).parents[1] / "data" / "deepbench_published.json.xz").stat().st_size < 300_000


def test_nothing_is_read_before_somebody_asks():
    code = (
        "from pytest_flagperf.operators import published\n"
        "assert published._read.cache_info().misses == 0\n"
        "published.processors()\n"
        "assert published._read.cache_info().misses == 1\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_ids_are_those_of_our_problems(everything):
    """All but three of TitanX, whose sheet has sizes that no program ran."""
    ours = {
        (problem.family, problem.id)
        for name in ("gemm", "convolution", "recurrent", "sparse_gemm", "all_reduce")
        for problem in catalogue.load(PROBLEMS / f"{name}.json")
    }
    missing = {each.id for each in everything if (each.family, each.id) not in ours}
    assert missing == {"m2048-n6574-k2048-nt", "m2560-n10376-k2560-nt", "m4096-n8935-k4096-nt"}
    assert all(each.notes for each in everything if each.id in missing)


def test_a_time_is_found_by_problem_direction_and_precision():
    problem = Gemm(1760, 16, 1760)
    found = published.times("V100")[published.key(problem, "fwd", "fp32")]
    assert (found.processor, found.set, found.time) == ("NVIDIA V100", "train", 38.0)
    assert found.tflops == pytest.approx(problem.flops("fwd") / 38e-6 / 1e12, rel=1e-4)
    assert found.source == "DeepBench results/train/DeepBench_NV_V100.xlsx, sheet 'Results FP32', row 5"


def test_the_three_directions_are_three_times():
    times = published.times("1080 Ti")
    found = {
        direction: times["rnn", "vanilla-h1760-n16-t50", direction, "fp32"].time
        for direction in ("fwd", "bwd_data", "bwd_weights")
    }
    assert found == {"fwd": 4079.0, "bwd_data": 3671.0, "bwd_weights": 624.0}


def test_a_direction_that_was_not_measured_is_absent_and_not_zero(everything):
    assert all(each.time > 0 for each in everything)
    times = published.times("MI25")
    assert ("rnn", "vanilla-h1760-n16-t50", "bwd_weights", "fp32") not in times
    assert "it is the data pass" in times["rnn", "vanilla-h1760-n16-t50", "bwd_data", "fp32"].notes[0]


def test_rates_of_sparse_products_count_what_is_stored():
    """The sheet of the 1080 Ti says 1.0987 TFLOP/s for this one: 19 times too much."""
    problem = SparseGemm(7680, 1, 2560, 0.95)
    found = published.times("1080 Ti")[published.key(problem, "fwd", "fp32")]
    assert (found.time, found.dense_time) == (34.0, 223.0)
    assert found.tflops == pytest.approx(0.057826, rel=1e-4)
    assert "2 nnz n" in found.notes[0]


def test_a_time_of_another_size_than_ours_says_so():
    """7860 was run where 7680 was meant: the rate is that of what was run."""
    found = published.times("1080 Ti")["sparse", "m7680-n2-k2560-s95", "fwd", "fp32"]
    assert found.tflops == pytest.approx(SparseGemm(7860, 2, 2560, 0.95).flops("fwd") / found.time / 1e6, rel=1e-4)
    assert any("7860" in note for note in found.notes)


def test_an_all_reduce_has_a_time_for_each_number_of_ranks():
    times = published.times("Xeon Phi 7250")
    found = [times[published.key(AllReduce(16777216), "fwd", "fp32", ranks)] for ranks in (2, 4, 8, 16, 32)]
    assert [each.ranks for each in found] == [2, 4, 8, 16, 32]
    assert found[0].time == 5400.0
    assert found[0].tflops is None
    assert found[0].notes == ("fastest of several libraries: Intel MLSL",)


def test_what_a_precision_meant_is_said():
    half = published.times("P100")["gemm", "m1760-n16-k1760-nn", "fwd", "fp16"]
    mixed = published.times("V100")["gemm", "m1760-n16-k1760-nn", "fwd", "fp16"]
    assert half.arithmetic != mixed.arithmetic
    assert published.times("T4")["gemm", "m512-n1500-k1536-nn", "fwd", "int8"].arithmetic.startswith("int8 operands")


@pytest.mark.parametrize(
    ("name", "full"),
    [
        ("V100", "NVIDIA V100"),
        ("t4", "NVIDIA T4"),
        ("1080Ti", "NVIDIA GTX 1080 Ti"),
        ("1080 ti", "NVIDIA GTX 1080 Ti"),
        ("P100", "NVIDIA Tesla P100"),
        ("TitanXp", "NVIDIA TitanXp"),
        ("TitanX Pascal", "NVIDIA TitanX Pascal"),
        ("MI25", "AMD Radeon Instinct MI25"),
        ("Raspberry", "Raspberry Pi 3"),
        ("NVIDIA V100", "NVIDIA V100"),
    ],
)
def test_a_short_name_is_enough(name, full):
    assert published.find(name) == full


@pytest.mark.parametrize(
    ("name", "candidates"),
    [
        ("TitanX", ["NVIDIA TitanX (Maxwell)", "NVIDIA TitanX Pascal", "NVIDIA TitanXp"]),
        ("iPhone", ["iPhone 6", "iPhone 7"]),
        ("AMD", ["AMD Radeon Instinct MI25", "AMD Vega Frontier Edition"]),
    ],
)
def test_an_ambiguous_name_lists_the_candidates(name, candidates):
    with pytest.raises(ConfigurationError) as refused:
        published.times(name)
    assert f"{name!r} may be any of {', '.join(candidates)}" in str(refused.value)


def test_an_unknown_name_lists_what_there_is():
    with pytest.raises(ConfigurationError, match="none of 'H100'; there are of AMD Radeon Instinct MI25"):
        published.times("H100")


def test_a_broken_file_is_an_error_that_names_it(monkeypatch, tmp_path):
    broken = tmp_path / "published.json.xz"
    broken.write_bytes(b"not xz")
    monkeypatch.setattr(published, "_FILE", broken)
    published._read.cache_clear()
    try:
        with pytest.raises(ConfigurationError, match=r"published\.json\.xz: the published results cannot be read"):
            published.processors()
    finally:
        published._read.cache_clear()
