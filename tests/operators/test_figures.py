"""What is made of a worker's reply, and what is refused: FlagPerf's impossible figures among it."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pytest_flagperf.case import Selection
from pytest_flagperf.case import Topology
from pytest_flagperf.devices.vendor import Chip
from pytest_flagperf.devices.vendor import Link
from pytest_flagperf.errors import InvalidMeasurement
from pytest_flagperf.operators.case import OperatorCase
from pytest_flagperf.operators.case import ResolvedOperator
from pytest_flagperf.operators.figures import interval_of
from pytest_flagperf.operators.figures import of_reply
from pytest_flagperf.operators.peaks import Ceilings
from pytest_flagperf.operators.peaks import Peak
from pytest_flagperf.operators.peaks import of_chip
from pytest_flagperf.operators.problems import AllReduce
from pytest_flagperf.operators.problems import Computation
from pytest_flagperf.operators.problems import Convolution
from pytest_flagperf.operators.problems import Gemm
from pytest_flagperf.operators.problems import Interconnect
from pytest_flagperf.operators.problems import Memory
from pytest_flagperf.operators.problems import Operator
from pytest_flagperf.operators.problems import Problem
from pytest_flagperf.operators.problems import SparseGemm
from pytest_flagperf.worker.operators.measure import median_interval
from tests.operators import fake_entry


A100 = Chip(
    source="data sheet",
    peak={"fp32": 19.5, "tf32": 156.0, "bf16": 312.0, "int8": 624.0},
    memory=40.0,
    memory_bandwidth=1555.0,
    link=Link("NVLink", 600.0, "bidirectional", "data sheet"),
)


def resolved(problem: Problem, precision: str = "fp32", direction: str = "fwd", ranks: int = 1) -> ResolvedOperator:
    case = OperatorCase(problem.family, "made up", [problem])
    selection = Selection("pytorch", precision, Topology(1, ranks), "train")
    return ResolvedOperator(case, problem, "train", ("train",), direction, selection, "nvidia", Path())


def reply(time: float | None = 1000.0, **figures: float) -> dict[str, Any]:
    given = fake_entry.measured()
    given["figures"] = {**given["figures"], **({} if time is None else {"time": time}), **figures}
    if time is None:
        given["figures"] = figures
    return given


def time_for(problem: Problem, tflops: float) -> float:
    """The time in µs at which a problem runs at a rate."""
    return problem.flops("fwd") / tflops / 1e6


MM = Gemm(8192, 8192, 8192)


def test_a_rate_is_the_declared_work_over_the_median():
    found = of_reply(resolved(MM), reply(time_for(MM, 18.0)), of_chip(A100))
    assert found.metrics["tflops"] == pytest.approx(18.0)
    assert found.metrics["utilization"] == pytest.approx(18.0 / 19.5)
    assert found.roofline == "compute-bound"
    assert "bandwidth" not in found.metrics
    assert found.facts["samples"] == [990.0, 1000.0, 1100.0]


def test_flagperfs_652_percent_of_an_fp32_product_that_ran_as_tf32_is_invalid_and_tf32_is_suspected():
    with pytest.raises(InvalidMeasurement, match=r"utilization is 6\.528 .*Suspect that tf32 was computed instead"):
        of_reply(resolved(MM), reply(time_for(MM, 127.29)), of_chip(A100))


@pytest.mark.parametrize("peak", [-1.0, 0.1])
def test_flagperfs_negative_utilization_and_a_peak_that_is_none_are_invalid(peak):
    ceilings = Ceilings({"fp32": Peak(peak, "TFLOP/s", "typed by somebody")})
    with pytest.raises(InvalidMeasurement, match=r"utilization is .*typed by somebody"):
        of_reply(resolved(MM), reply(time_for(MM, 1.0)), ceilings)


def test_flagperfs_capacity_of_101_95_percent_is_invalid_and_the_units_are_suspected():
    one, chip = resolved(Memory("capacity", 2**36)), Chip(source="data sheet", memory=64.0)
    with pytest.raises(InvalidMeasurement, match=r"utilization is 1\.02 .*Suspect GB reported as GiB"):
        of_reply(one, reply(None, capacity=65.25), of_chip(chip))
    assert of_reply(one, reply(None, capacity=63.2), of_chip(chip)).metrics["utilization"] == pytest.approx(63.2 / 64)


def test_a_little_above_the_peak_is_the_clocks_uncertainty_and_more_is_not():
    assert of_reply(resolved(MM), reply(time_for(MM, 20.4)), of_chip(A100)).metrics["utilization"] > 1.04
    with pytest.raises(InvalidMeasurement, match="more than the peak"):
        of_reply(resolved(MM), reply(time_for(MM, 20.5)), of_chip(A100))


def test_above_an_estimated_peak_utilization_is_left_out_and_far_above_it_is_refused():
    ceilings = Ceilings({"fp32": Peak(1.0, "TFLOP/s", "estimated: 2 cores", estimated=True)})
    found = of_reply(resolved(MM), reply(time_for(MM, 1.3)), ceilings)
    assert "utilization" not in found.metrics
    assert any("above the estimated peak" in note for note in found.notes)
    assert of_reply(resolved(MM), reply(time_for(MM, 0.9)), ceilings).metrics["utilization"] == pytest.approx(0.9)
    with pytest.raises(InvalidMeasurement):
        of_reply(resolved(MM), reply(time_for(MM, 2.1)), ceilings)


def test_a_convolution_that_winograd_can_speed_up_is_not_refused_and_one_that_it_cannot_is():
    sizes = {"w": 56, "h": 56, "c": 64, "n": 8, "k": 64}
    fast = Convolution(**sizes, filter_w=3, filter_h=3, pad_w=1, pad_h=1)
    found = of_reply(resolved(fast), reply(time_for(fast, 40.0)), of_chip(A100))
    assert "utilization" not in found.metrics
    assert any("Winograd" in note for note in found.notes)
    slow = Convolution(**sizes, filter_w=1, filter_h=1)
    with pytest.raises(InvalidMeasurement):
        of_reply(resolved(slow), reply(time_for(slow, 40.0)), of_chip(A100))


@pytest.mark.parametrize(
    "state",
    [
        {"tf32": True},
        {"torch.backends.cuda.matmul.allow_tf32": True},
        {"float32_matmul": "high"},
        {"torch.backends.fp32_precision": "tf32"},
    ],
)
def test_fp32_with_tf32_in_force_is_refused(state):
    given = {**reply(), "precision": state}
    with pytest.raises(InvalidMeasurement, match="fp32 was asked for and TF32 was in force"):
        of_reply(resolved(MM), given, of_chip(A100))
    assert of_reply(resolved(MM, "bf16"), given, Ceilings({})).metrics


def test_tf32_that_is_not_in_force_is_refused():
    with pytest.raises(InvalidMeasurement, match="tf32 was asked for and was not in force"):
        of_reply(resolved(MM, "tf32"), {**reply(), "precision": {"tf32": False}}, of_chip(A100))
    assert of_reply(resolved(MM, "tf32"), {**reply(), "precision": {"tf32": True}}, Ceilings({})).metrics["tflops"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"time": "nan"}, "time is nan"),
        ({"time": float("inf")}, "time is inf"),
        ({"time": 0.0}, "not a time"),
        ({"time": -5.0}, "not a time"),
        ({"cv": -0.1}, "cv is -0.1"),
        ({"time_p99": True}, "time_p99 is True"),
        ({"speed": 3.0}, "no metric that is registered"),
    ],
)
def test_a_figure_that_is_none_is_refused(change, said):
    given = reply()
    given["figures"].update(change)
    with pytest.raises(InvalidMeasurement, match=said):
        of_reply(resolved(MM), given, Ceilings({}))


def test_a_reply_that_lacks_a_figure_or_the_check_is_refused():
    given = reply()
    del given["figures"]["time_p99"]
    with pytest.raises(InvalidMeasurement, match="not measured: time_p99"):
        of_reply(resolved(MM), given, Ceilings({}))
    unchecked = reply()
    del unchecked["correct"]
    with pytest.raises(InvalidMeasurement, match="not checked"):
        of_reply(resolved(MM), unchecked, Ceilings({}))


def test_a_sparse_product_counts_what_is_stored_and_is_compared_with_the_dense_one():
    problem = SparseGemm(7680, 1500, 2560, 0.95)
    found = of_reply(resolved(problem), reply(1000.0, dense_time=2500.0), of_chip(A100))
    assert found.metrics["speedup_vs_dense"] == pytest.approx(2.5)
    assert found.metrics["tflops"] == pytest.approx(2 * 0.05 * 7680 * 2560 * 1500 / 1e-3 / 1e12)


def test_bus_bandwidth_counts_one_direction_and_is_compared_with_one_direction_of_the_link():
    found = of_reply(resolved(AllReduce(1_000_000), ranks=4), reply(100.0), of_chip(A100))
    assert found.metrics["algbw"] == pytest.approx(40.0)
    assert found.metrics["busbw"] == pytest.approx(60.0)
    assert found.metrics["utilization"] == pytest.approx(60.0 / 300.0)


def test_memory_bandwidth_counts_what_is_read_and_what_is_written():
    found = of_reply(resolved(Memory("bandwidth", 2**30)), reply(2 * 2**30 / 1400 / 1e3), of_chip(A100))
    assert found.metrics["bandwidth"] == pytest.approx(1400.0)
    assert found.metrics["utilization"] == pytest.approx(1400 / 1555)


def test_a_spent_budget_is_told_and_how_well_the_median_is_known():
    one = resolved(Computation(64, 64, 64))
    found = of_reply(one, {**reply(), "ended": "budget"}, Ceilings({}))
    assert "the median is not known to 2 %: the budget was spent before" in found.notes
    assert "interval" not in found.facts
    samples = [1350.0, 1000.0, 900.0, 950.0, 1100.0, 1000.0]
    found = of_reply(one, {**reply(), "ended": "budget", "samples": samples, "iterations": 6}, Ceilings({}))
    assert found.facts["interval"] == [900.0, 1350.0]
    assert "the median is not known to 2 %, only to 35 %: the budget was spent before" in found.notes


def test_the_interval_of_many_samples_is_the_workers_and_that_of_a_tenth_of_them_is_nearly_the_same():
    drawn = random.Random(1)
    samples = [drawn.gauss(1000.0, 50.0) for _ in range(10_000)]
    low, high = interval_of({"samples": samples, "iterations": 10_000})
    assert (low, high) == median_interval(samples)
    kept = interval_of({"samples": samples[::10], "iterations": 10_000})
    assert kept[1] - kept[0] == pytest.approx(high - low, rel=1)
    alone = interval_of({"samples": samples[::10]})
    assert kept[1] - kept[0] < 0.6 * (alone[1] - alone[0])


def test_a_capacity_has_no_median_that_is_not_known():
    given = {**reply(None, capacity=30.0), "samples": [], "iterations": 1, "ended": "budget"}
    found = of_reply(resolved(Memory("capacity", 2**36)), given, Ceilings({}))
    assert not any("median" in note for note in found.notes)


def test_a_sparse_product_that_beats_the_work_it_saves_shows_a_slow_dense_one():
    problem = SparseGemm(7680, 1500, 2560, 0.95)
    (note,) = of_reply(resolved(problem), reply(1000.0, dense_time=25_000.0), Ceilings({})).notes
    assert note.startswith("the dense call is slow, not the sparse one fast: it takes 25 times as long and does 20")
    assert not of_reply(resolved(problem), reply(1000.0, dense_time=19_000.0), Ceilings({})).notes


ESTIMATED = Ceilings(
    {"fp32": Peak(0.25, "TFLOP/s", "estimated", estimated=True)}, Peak(10.0, "GB/s", "estimated", estimated=True)
)


def pointwise(elements: int, name: str = "add", model: str = "per_element") -> Operator:
    shape = (elements,) if model == "per_element" else (elements, elements)
    return Operator(name=name, inputs=(shape,), outputs=(shape,), dtypes=("fp32", "fp16"), flops_model=model)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize(
    "problem", [Gemm(4096, 4096, 4096), pointwise(2**30), pointwise(2**20)], ids=["gemm", "1", "2"]
)
def test_a_kernel_that_did_nothing_is_invalid_in_a_precision_without_a_peak_too(problem, precision):
    with pytest.raises(InvalidMeasurement, match="more than"):
        of_reply(resolved(problem, precision), reply(time_for(problem, 4800.0)), ESTIMATED)


def test_what_no_peak_is_known_of_is_not_refused_below_the_fastest_of_the_others():
    found = of_reply(resolved(MM, "fp16"), reply(time_for(MM, 0.4)), ESTIMATED)
    assert "utilization" not in found.metrics


@pytest.mark.parametrize("problem", [pointwise(2**30), pointwise(2**15, "triu", "below_diagonal")], ids=["add", "triu"])
def test_an_operator_that_does_little_with_each_element_is_held_against_the_memory(problem):
    traffic = problem.bytes("fp32", "fwd")
    found = of_reply(resolved(problem), reply(traffic / 7.0 / 1e3), ESTIMATED)
    assert found.metrics["utilization"] == pytest.approx(0.7)
    assert found.peak.unit == "GB/s"
    assert found.roofline == "bandwidth-bound"


def test_faster_than_the_estimated_memory_is_a_note_and_never_invalid():
    problem = pointwise(2**30)
    found = of_reply(resolved(problem), reply(problem.bytes("fp32", "fwd") / 50.0 / 1e3), ESTIMATED)
    assert "utilization" not in found.metrics
    assert any("above the estimated peak of 10" in note for note in found.notes)
    small = pointwise(2**20)
    found = of_reply(resolved(small), reply(small.bytes("fp32", "fwd") / 50.0 / 1e3), ESTIMATED)
    assert "utilization" not in found.metrics
    assert any("caches may hold the 8 MiB" in note for note in found.notes)


def test_a_copy_that_caches_made_faster_than_the_estimated_memory_is_not_invalid():
    found = of_reply(resolved(Memory("bandwidth", 2**20)), reply(2 * 2**20 / 90.0 / 1e3), ESTIMATED)
    assert found.metrics["bandwidth"] == pytest.approx(90.0)
    assert "utilization" not in found.metrics
    found = of_reply(resolved(Memory("bandwidth", 2**32)), reply(2 * 2**32 / 6.0 / 1e3), ESTIMATED)
    assert found.metrics["utilization"] == pytest.approx(0.6)


def test_a_product_has_a_place_on_an_estimated_roofline():
    assert of_reply(resolved(MM), reply(time_for(MM, 0.2)), ESTIMATED).roofline == "compute-bound"


@pytest.mark.parametrize("kind", ["device_to_device", "all_reduce"])
def test_the_peak_of_a_link_within_a_server_is_none_for_what_leaves_the_server(kind):
    def utilization(scope: str, topology: Topology) -> float | None:
        one = resolved(Interconnect(kind, scope, 2**30), ranks=2)
        one = replace(one, selection=replace(one.selection, topology=topology))
        return of_reply(one, reply(2**30 / 100 / 1e3), of_chip(A100)).metrics.get("utilization")

    assert utilization("server", Topology(1, 2)) == pytest.approx(100 / 300)
    assert utilization("cluster", Topology(1, 2)) is None
    assert utilization("server", Topology(2, 1)) is None
