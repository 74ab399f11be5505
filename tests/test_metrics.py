"""Every formula on a log made by hand."""

from __future__ import annotations

import math

import pytest

from pytest_flagperf import ConfigurationError
from pytest_flagperf import InvalidMeasurement
from pytest_flagperf import at_least
from pytest_flagperf import metrics
from pytest_flagperf.judging import statistics
from pytest_flagperf.metrics import JobTimes
from pytest_flagperf.metrics import refuse_impossible
from pytest_flagperf.metrics import training_metrics
from pytest_flagperf.perflog import Event


TIMES = JobTimes(started=100.0, ended=145.0, time_started=1e9, time_ended=1e9 + 45)


def event(name, at, **value):
    # Unix time runs ten times too fast: nothing may be computed from it.
    return Event(name, value, time=at * 10, monotonic=float(at))


def rank(samples=400, core=10.0, memory=2.0, **finished):
    """Starts training at 110, evaluates from 118 to 120 and from 128 to 130, ends at 130."""
    return [
        event("INIT_START", 101),
        event("TRAIN_START", 110),
        event("STEP_END", 112, global_steps=1, epoch=1, loss=2.0),
        event("EVALUATE_BEGIN", 118),
        event("EVALUATE", 120, epoch=1, global_steps=10, top1=0.80, auc=0.7),
        event("STEP_END", 127, global_steps=20, epoch=2, loss=1.5),
        event("EVALUATE_BEGIN", 128),
        event("EVALUATE", 130, epoch=2, global_steps=20, top1=0.95, auc=0.8),
        event("TRAIN_END", 130, rank_samples=samples, core_time=core),
        event("FINISHED", 131, memory_peak=memory, memory_total=16.0, **finished),
    ]


def test_times_are_those_of_the_monotonic_clock():
    found = training_metrics([rank()], TIMES)
    assert (found["e2e_time"], found["init_time"], found["train_time"]) == (45, 10, 20)


def test_samples_are_those_of_all_ranks_and_the_core_is_that_of_the_slowest():
    found = training_metrics([rank(400, core=10.0), rank(200, core=12.0)], TIMES)
    assert found["p_whole"] == 600 / 20
    assert found["p_train"] == 600 / (20 - 4)
    assert found["p_core"] == 600 / 12


def test_memory_is_that_of_the_hungriest_rank():
    found = training_metrics([rank(memory=2.0), rank(memory=3.5)], TIMES)
    assert (found["memory_peak"], found["memory_total"]) == (3.5, 16)


def test_memory_that_one_rank_did_not_measure_is_absent():
    silent = rank()
    silent[-1] = event("FINISHED", 131)
    found = training_metrics([rank(), silent], TIMES)
    assert "memory_peak" not in found


def test_quality_and_loss_are_the_last_ones():
    found = training_metrics([rank()], TIMES)
    assert (found["top1"], found["auc"], found["final_loss"]) == (0.95, 0.8, 1.5)


@pytest.mark.parametrize("name", ["p_train", "memory_peak", "e2e_time", "mfu"])
def test_a_workload_cannot_give_a_figure_that_the_harness_measures(name):
    log = [*rank(), event("EVALUATE", 130, epoch=1, global_steps=10, **{name: 1e9})]
    with pytest.raises(InvalidMeasurement, match=name):
        training_metrics([log], TIMES)


def test_an_evaluation_cannot_bring_a_metric_that_is_not_registered():
    log = [*rank(), event("EVALUATE", 130, epoch=1, global_steps=10, speediness=1.0)]
    with pytest.raises(ConfigurationError, match="speediness"):
        training_metrics([log], TIMES)


@pytest.mark.parametrize(
    ("targets", "seconds"),
    [
        ([at_least("top1", 0.8, source="s")], 10),
        ([at_least("top1", 0.9, source="s")], 20),
        ([at_least("top1", 0.8, source="s"), at_least("auc", 0.75, source="s")], 20),
        ([at_least("top1", 0.96, source="s")], None),
        ([], None),
    ],
)
def test_time_to_target_ends_at_the_evaluation_where_every_target_holds(targets, seconds):
    assert training_metrics([rank()], TIMES, targets=targets).get("time_to_target") == seconds


def test_mfu_is_the_share_of_all_devices_peak_and_absent_where_a_part_is_unknown():
    both = [rank(400), rank(400)]
    assert training_metrics(both, TIMES, flops=1e9, peak=1e11)["mfu"] == pytest.approx(50 * 1e9 / 2e11)
    assert "mfu" not in training_metrics(both, TIMES, flops=1e9)
    assert "mfu" not in training_metrics(both, TIMES, peak=1e11)


def test_more_than_the_chips_peak_is_an_error_and_not_a_record():
    with pytest.raises(InvalidMeasurement, match=r"mfu is 1\.1: more than the chip's peak"):
        training_metrics([rank(400)], TIMES, flops=1.1e9, peak=25e9)
    assert training_metrics([rank(400)], TIMES, flops=1.05e9, peak=25e9)["mfu"] == pytest.approx(1.05)


def without(name, log):
    return [one for one in log if one.name != name]


@pytest.mark.parametrize(
    ("ranks", "message"),
    [
        ([], "not every rank wrote FINISHED"),
        ([rank(), without("FINISHED", rank())], "not every rank wrote FINISHED"),
        ([without("TRAIN_START", rank())], "without TRAIN_START"),
        ([without("TRAIN_END", rank())], "FINISHED without TRAIN_START and TRAIN_END"),
        ([rank(), without("TRAIN_END", rank())], "TRAIN_END lacks rank_samples"),
        ([rank(samples=0)], "no sample was trained"),
        ([rank(core=0.0)], "time in forward, backward and optimizer is 0 s"),
        ([rank(core=-1.0)], "is -1 s: not a time"),
        ([rank(core=math.nan)], "p_core is nan"),
        ([rank(memory=-1.0)], "memory_peak is -1 GiB: it cannot be negative"),
    ],
)
def test_a_log_that_is_incomplete_or_contradicts_itself_is_invalid(ranks, message):
    with pytest.raises(InvalidMeasurement, match=message):
        training_metrics(ranks, TIMES)


def test_a_job_that_ended_before_it_began_is_invalid():
    with pytest.raises(InvalidMeasurement, match="e2e_time is -1 s: it cannot be negative"):
        training_metrics([rank()], JobTimes(100, 99, 0, 0))


def test_an_evaluation_as_long_as_the_training_leaves_no_time_to_train():
    earlier = {118: event("EVALUATE_BEGIN", 110), 128: event("EVALUATE_BEGIN", 120)}
    log = [earlier.get(one.monotonic, one) for one in rank()]
    with pytest.raises(InvalidMeasurement, match="train_time less evaluation is 0 s"):
        training_metrics([log], TIMES)


@pytest.mark.parametrize(
    ("figures", "message"),
    [
        ({"train_time": -0.5}, "train_time is -0.5 s"),
        ({"p_whole": -1.0}, "p_whole is -1 samples/s"),
        ({"p_whole": math.inf}, "p_whole is inf: not a figure"),
        ({"final_loss": math.nan}, "final_loss is nan: not a figure"),
        ({"mfu": 1.06}, "mfu is 1.06"),
        ({"mfu": -0.1}, "cannot be negative"),
        ({"top1": 75.9}, "percent are not ratios"),
    ],
)
def test_an_impossible_figure_is_refused(figures, message):
    with pytest.raises(InvalidMeasurement, match=message):
        refuse_impossible(figures)


def test_a_loss_may_be_negative():
    refuse_impossible({"final_loss": -5.7, "top1": 1.0, "mfu": 1.05})


def test_a_metric_that_is_not_registered_cannot_be_recorded():
    with pytest.raises(ConfigurationError, match=r"unknown metric 'p_hole'\. Did you mean 'p_whole'"):
        refuse_impossible({"p_hole": 1.0})


@pytest.mark.parametrize(
    ("values", "middle"),
    [([7.0], 7), ([1.0, 3.0], 2), ([9.0, 1.0, 2.0], 2), ([1.0, 2.0, 4.0, 90.0], 3), ([100.0, 1.0, 2.0, 3.0, -50.0], 2)],
)
def test_several_rounds_give_the_median_and_from_five_on_the_olympic_mean(values, middle):
    assert statistics.summarize(values).value == middle


def test_a_metric_means_one_thing_only():
    metric = metrics.get("top1")
    assert metrics.register("top1", metric.unit, metric.better, metric.description, quality=True) == metric
    with pytest.raises(ConfigurationError, match="'top1' is registered already"):
        metrics.register("top1", "percent", "higher", "in percent")
    with pytest.raises(ConfigurationError, match="'higher' or 'lower'"):
        metrics.register("taste", "1", "sweeter", "of the pudding")


def test_every_metric_has_a_unit_and_a_direction():
    assert all(metric.unit and metric.better in ("higher", "lower") for metric in metrics.known().values())
    for name in (
        "e2e_time",
        "init_time",
        "train_time",
        "time_to_target",
        "p_whole",
        "p_train",
        "p_core",
        "memory_peak",
    ):
        assert name in metrics.known()
