"""From the events of an inference run to its metrics, each formula on figures that can be checked by hand."""

from __future__ import annotations

import pytest

from pytest_flagperf import inference_metrics
from pytest_flagperf import perflog
from pytest_flagperf.case import at_least
from pytest_flagperf.errors import InvalidMeasurement
from pytest_flagperf.metrics import JobTimes
from pytest_flagperf.perflog import Event


TIMES = JobTimes(100.0, 200.0, 0.0, 0.0)
TARGETS = [at_least("top1", 0.9, source="test"), at_least("quality_ratio", 0.99, source="test")]


def log(**changes):
    """A whole run as events, a second apart from 101 s on; ``changes`` replace values by the event's name."""
    passed = {"samples": 1000, "units": 1000, "core_time": 2.0, "whole_time": 4.0, "quality": {"top1": 0.96}}
    values = {
        perflog.LOAD_BEGIN: {},
        perflog.LOAD_END: {"samples": 1000, "random_weights": False},
        perflog.VALIDATION_BEGIN: {},
        perflog.VALIDATION_END: passed,
        perflog.EXPORT_BEGIN: {},
        perflog.EXPORT_END: {},
        perflog.COMPILE_BEGIN: {},
        perflog.COMPILE_END: {"size_bytes": 3 * 2**20},
        perflog.ACCURACY_BEGIN: {},
        perflog.ACCURACY_END: {**passed, "quality": {"top1": 0.95}, "output_error": 1e-4},
        perflog.INFERENCE_BEGIN: {},
        perflog.QUERIES: {"latencies_ns": [k * 1_000_000 for k in range(100, 0, -1)]},
        perflog.INFERENCE_END: {"samples": 3000, "units": 3000, "core_time": 1.5},
        perflog.FINISHED: {"memory_peak": 0.5, "memory_total": 24.0},
    }
    for name, value in changes.items():
        values[name] = None if value is None else {**values[name], **value}
    return [
        Event(name, value, monotonic=101.0 + second)
        for second, (name, value) in enumerate(values.items())
        if value is not None
    ]


def figures(flops=None, peak=None, **changes):
    return inference_metrics.inference_metrics(log(**changes), TIMES, targets=TARGETS, flops=flops, peak=peak)


def test_each_metric_is_its_formula():
    assert figures(flops=1e9, peak=4e12) == {
        "e2e_time": 100.0,
        "init_time": 2.0,
        "p_validation_whole": 250.0,
        "p_validation_core": 500.0,
        "compile_time": 2.0,
        "engine_size": 3.0,
        "top1": 0.95,
        "quality_ratio": pytest.approx(0.95 / 0.96),
        "output_error": 1e-4,
        "inference_time": 2.0,
        "p_inference_whole": 1500.0,
        "p_inference_core": 2000.0,
        "latency_mean": 50.5,
        "latency_p50": 51.0,
        "latency_p90": 91.0,
        "latency_p99": 100.0,
        "latency_p999": 100.0,
        "mfu": 0.5,
        "memory_peak": 0.5,
        "memory_total": 24.0,
    }


def test_what_was_not_measured_is_absent():
    found = figures(QUERIES=None, COMPILE_END={"size_bytes": 0}, FINISHED={"memory_peak": 1.0})
    assert not {"latency_p99", "engine_size", "mfu", "qps", "ttft"} & set(found)
    assert inference_metrics.missing(found, "throughput") == []
    assert inference_metrics.missing(found, "edge") == ["latency_p99"]


@pytest.mark.parametrize(
    "name",
    [
        *("FINISHED", "LOAD_END", "VALIDATION_END", "EXPORT_END", "COMPILE_BEGIN", "COMPILE_END", "ACCURACY_END"),
        *("INFERENCE_BEGIN", "INFERENCE_END"),
    ],
)
def test_a_run_without_one_of_its_steps_is_invalid(name):
    with pytest.raises(InvalidMeasurement, match=f"wrote no {name}"):
        figures(**{name: None})


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"INFERENCE_END": {"core_time": 0.0}}, "time in the forward pass is 0 s: not a time"),
        ({"INFERENCE_END": {"units": 0}}, "no sample was answered"),
        ({"ACCURACY_END": {"quality": {"top1": "nan"}}}, "top1 is nan"),
        ({"ACCURACY_END": {"quality": {}}}, "quality was"),
        ({"ACCURACY_END": {"quality": {"top1": 96.0}}}, "percent are not ratios"),
        ({"ACCURACY_END": {"quality": {"qps": 1.0}}}, "the harness measures it"),
        ({"VALIDATION_END": {"quality": {"top1": 0.0}}}, "top1 of the reference is 0: no ratio"),
        ({"ACCURACY_END": {"output_error": None}}, "ACCURACY_END lacks output_error"),
    ],
)
def test_figures_that_contradict_themselves_are_refused(changes, reason):
    with pytest.raises(InvalidMeasurement, match=reason):
        figures(**changes)


def test_more_than_the_chips_peak_is_a_measurement_error():
    with pytest.raises(InvalidMeasurement, match="mfu"):
        figures(flops=1e9, peak=1e12)


def test_the_kept_quality_is_the_worst_of_the_bounded_ones_in_either_direction():
    reference, engine = {"top1": 0.8, "wer": 0.10, "top5": 1.0}, {"top1": 0.8, "wer": 0.125, "top5": 0.5}
    assert inference_metrics.quality_ratio(reference, engine, ["top1", "quality_ratio"]) == 1.0
    assert inference_metrics.quality_ratio(reference, engine, ["top1", "wer"]) == 0.8
    assert inference_metrics.quality_ratio(reference, engine) == 0.5
    assert inference_metrics.quality_ratio({}, {}) is None
    assert inference_metrics.quality_ratio({"wer": 0.0}, {"wer": 0.0}) == 1.0


def test_the_evaluations_are_the_reference_and_the_engine():
    found = inference_metrics.evaluations(log())
    assert [(one.step, dict(one.quality)) for one in found] == [(0, {"top1": 0.96}), (1, {"top1": 0.95})]
    random = log(VALIDATION_END={"quality": {}}, ACCURACY_END={"quality": {}})
    assert inference_metrics.evaluations(random) == []


def test_a_percentile_is_one_of_the_latencies_and_that_of_loadgen():
    ordered = [1.0, 2.0, 3.0, 4.0]
    assert [inference_metrics.percentile(ordered, share) for share in (0.0, 0.5, 0.9, 0.999, 1.0)] == [1, 3, 4, 4, 4]
