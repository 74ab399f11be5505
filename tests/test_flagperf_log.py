"""FlagPerf's own names for its figures, under ours."""

from __future__ import annotations

import math

import pytest

from pytest_flagperf import InvalidMeasurement
from pytest_flagperf import flagperf_log
from pytest_flagperf import perflog
from pytest_flagperf.perflog import Event
from tests.conftest import ROOT


LOGS = ROOT / "tests" / "data" / "flagperf"


def finished(targets=(), **value):
    return flagperf_log.figures([Event("FINISHED", value)], list(targets))


def test_the_readmes_cpm_run_has_its_figures():
    events = perflog.read_events(LOGS / "readme.rank0.out.txt")
    found, notes = flagperf_log.figures(events, ["mlm_accuracy"])
    assert found["e2e_time"] == pytest.approx(1661.6114165782928)
    assert found["train_time"] == pytest.approx(1501.713)
    assert found["init_time"] == pytest.approx(148.937)
    assert found["p_whole"] == pytest.approx(579.0933420700227)
    assert found["mlm_accuracy"] == pytest.approx(0.920166015625)
    assert found["final_loss"] == pytest.approx(3.066718101501465)
    assert notes == []


@pytest.mark.parametrize("spelling", ["throughput(ips)", "throughput(sps)", "throuhgput(ips)", "throuhgput(sps)"])
def test_every_spelling_of_throughput_is_read(spelling):
    value = {f"{spelling}_raw": 10.0, f"{spelling}_no_eval": 11.0, f"{spelling}_pure_compute": 12.0}
    assert finished(**value)[0] == {"p_whole": 10, "p_train": 11, "p_core": 12}


@pytest.mark.parametrize("what", ["sequences", "images", "samples", "items"])
def test_samples_per_second_is_the_whole_run_unless_the_log_says_more(what):
    assert finished(**{f"training_{what}_per_second": 5})[0] == {"p_whole": 5}
    assert finished(**{f"training_{what}_per_second": 5, "throughput(ips)_raw": 6})[0]["p_whole"] == 6


@pytest.mark.parametrize(
    ("logged", "name"),
    [
        ("final_acc1", "top1"),
        ("final_acc5", "top5"),
        ("final_accuracy", "accuracy"),
        ("acc", "accuracy"),
        ("final_mlm_accuracy", "mlm_accuracy"),
        ("final_mAP", "map"),
        ("final_map_bbox", "box_ap"),
        ("final_map_segm", "mask_ap"),
        ("final_auc", "auc"),
        ("rouge1", "rouge1"),
    ],
)
def test_quality_is_a_ratio_under_its_registered_name(logged, name):
    assert finished(**{logged: 0.5})[0] == {name: 0.5}
    found, notes = finished(**{logged: 50.0})
    assert found == {name: 0.5}
    assert notes == [f"{logged} = 50 was logged in percent"]


def test_the_loss_of_an_evaluation_is_not_that_of_the_training():
    log = [Event("TRAIN_START"), Event("EVALUATE", {"eval_loss": 2.5}), Event("FINISHED", {"final_loss": 1.5})]
    assert flagperf_log.evaluations(log, [])[0].quality == {"evaluation_loss": 2.5}
    assert flagperf_log.figures(log, [])[0] == {"final_loss": 1.5}


def test_perplexity_is_not_taken_for_percent():
    assert finished(final_ppl=12.5)[0] == {"perplexity": 12.5}


def test_accuracy_is_what_the_case_has_a_target_for_and_a_note_says_so():
    found, notes = finished(["top1"], final_accuracy=0.76)
    assert found == {"top1": 0.76}
    assert notes == ["FlagPerf's final_accuracy is taken as top1"]


def test_a_training_longer_than_its_job_was_logged_in_milliseconds():
    found, notes = finished(e2e_time=100.0, raw_train_time=90_000.0)
    assert found["train_time"] == 90
    assert notes == ["train_time was logged in milliseconds"]


def test_a_train_time_that_was_never_set_does_not_hide_the_raw_one():
    assert finished(train_time=0, raw_train_time=90.0)[0]["train_time"] == 90


def test_a_run_that_logs_percent_does_so_before_it_has_learned_anything():
    start = Event("TRAIN_START", time=100.0)
    log = [
        start,
        Event("EVALUATE", {"eval_acc1": 0.62, "epoch": 1, "global_steps": 10}, time=110.0),
        Event("EVALUATE", {"eval_acc1": 41.5, "epoch": 2, "global_steps": 20}, time=120.0),
        Event("FINISHED", {"final_acc1": 0.9}),
    ]
    history = flagperf_log.evaluations(log, ["top1"])
    assert [(e.epoch, e.step, e.seconds) for e in history] == [(1, 10, 10), (2, 20, 20)]
    assert [e.quality["top1"] for e in history] == pytest.approx([0.0062, 0.415])
    assert flagperf_log.figures(log, ["top1"])[0]["top1"] == pytest.approx(0.009)


def test_without_finished_nothing_is_measured():
    with pytest.raises(InvalidMeasurement, match="no FINISHED event"):
        flagperf_log.figures([Event("TRAIN_END")], [])


def test_a_failed_run_has_only_its_time():
    assert finished(e2e_time=12.0, converged=False)[0] == {"e2e_time": 12}


@pytest.mark.parametrize(
    "value",
    [
        {"final_acc1": math.nan},
        {"final_acc1": 1000.0},
        {"final_acc1": -0.1},
        {"throughput(ips)_raw": -1.0},
        {"e2e_time": math.inf},
        {"e2e_time": 10**400},
    ],
)
def test_an_impossible_figure_is_invalid(value):
    with pytest.raises(InvalidMeasurement):
        finished(**value)


def test_hostile_values_break_nothing():
    log = [
        Event("TRAIN_START"),
        Event("EVALUATE", {"eval_acc1": math.nan, "epoch": math.inf, "global_steps": 10**400}),
        Event("EVALUATE", {"eval_acc1": "high", "epoch": "x", "global_steps": None}),
        Event("FINISHED", {"final_acc1": 0.5, "e2e_time": "long", "x\x1b": [1], "converged": "yes"}),
    ]
    assert flagperf_log.figures(log, [])[0] == {"top1": 0.5}
    (only,) = flagperf_log.evaluations(log, [])
    assert (only.epoch, only.step) == (0, 0)
