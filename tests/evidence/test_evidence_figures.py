"""A session judged again: what was edited is found, with its file and its figure; what was not, is not."""

from __future__ import annotations

import json

import pytest

from tests.evidence.conftest import RESULT
from tests.evidence.conftest import ROUND
from tests.evidence.conftest import edit_event
from tests.evidence.conftest import edit_json
from tests.evidence.conftest import figures
from tests.evidence.conftest import found
from tests.evidence.conftest import judged
from tests.evidence.conftest import nudge


def test_what_nobody_edited_follows_from_its_files(session):
    outcome = judged(session)
    assert outcome.problems == []
    assert (outcome.results, outcome.rounds) == (3, 3)
    # Metrics of three rounds and of all together, evaluations, spreads, configuration; samples and tables of operators.
    assert outcome.figures > 300


@pytest.mark.slow
def test_every_figure_of_a_result_that_is_edited_is_named(session):
    path = session / RESULT
    text = path.read_text(encoding="utf-8")
    # To the second, when a round began stands nowhere else.
    every = [keys for keys in figures(json.loads(text)) if keys[-1] != "time_started"]
    assert len(every) > 140
    missed = []
    for keys in every:
        document = json.loads(text)
        nudge(document, keys)
        path.write_text(json.dumps(document), encoding="utf-8")
        problems = judged(session).problems
        if not any(RESULT in (one.file, one.message) or RESULT in str(one) for one in problems):
            missed.append(keys)
    assert missed == []


@pytest.mark.parametrize("metric", ["p_train", "mfu", "power", "top1", "time_to_target", "memory_peak", "e2e_time"])
def test_an_edited_metric_is_named_with_what_it_has_to_be(session, metric):
    before = json.loads((session / RESULT).read_bytes())["rounds"][1]["metrics"][metric]["value"]
    edit_json(session / RESULT, lambda document: nudge(document, ("rounds", 1, "metrics", metric, "value")))
    problem = next(one for one in judged(session).problems if one.figure == f"round 2 {metric}")
    assert problem.file == RESULT
    assert f"{before!r} follows from {ROUND}" in problem.message


@pytest.mark.parametrize(
    ("event", "keys", "metric"),
    [
        ("TRAIN_END", ("value", "core_time"), "p_core"),
        ("TRAIN_END", ("value", "rank_samples"), "p_whole"),
        ("TRAIN_END", ("metadata", "monotonic_ns"), "train_time"),
        ("TRAIN_START", ("metadata", "monotonic_ns"), "init_time"),
        ("EVALUATE", ("value", "top1"), "top1"),
        ("EVALUATE", ("metadata", "monotonic_ns"), "time_to_target"),
        ("STEP_END", ("value", "loss"), "final_loss"),
        ("FINISHED", ("value", "memory_peak"), "memory_peak"),
    ],
)
def test_an_edited_event_is_named_by_the_figure_and_the_log(session, event, keys, metric):
    edit_event(session / ROUND / "host-1" / "rank0.events.jsonl", event, lambda line: nudge(line, keys))
    problems = found(session)
    named = [one for one in problems if f"round 2 {metric}" in one or "gives no valid measurement" in one]
    assert any(f"{ROUND}" in one for one in named), problems


@pytest.mark.parametrize(
    ("file", "keys", "named"),
    [
        (f"{ROUND}/times.json", ("started",), "gives no valid measurement: init_time"),
        (f"{ROUND}/times.json", ("ended",), "round 2 e2e_time"),
        (f"{ROUND}/case.json", ("seed",), "round 2 seed"),
        (f"{ROUND}/case.json", ("flops",), "round 2 mfu"),
        (f"{ROUND}/case.json", ("config", "learning_rate"), "configuration.learning_rate"),
        (f"{ROUND}/case.json", ("targets", 0, "bound"), "targets"),
    ],
)
def test_an_edited_file_of_a_round_is_found_by_what_follows_from_it(session, file, keys, named):
    edit_json(session / file, lambda document: nudge(document, keys))
    assert any(named in one and ROUND in one for one in found(session)), found(session)


def test_an_edited_sample_of_the_monitor_is_found_by_power_and_energy(session):
    path = session / ROUND / "host-1" / "monitor.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    nudge(lines[len(lines) // 2], ("power",))
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    problems = found(session)
    for metric in ("power", "energy"):
        assert any(f"round 2 {metric}" in one and "monitor.jsonl" in one for one in problems), problems


def test_every_derived_figure_of_an_operator_that_is_edited_is_named(session):
    path = session / "operators" / "main" / "results.jsonl"
    first, *rest = path.read_text(encoding="utf-8").splitlines()
    names = ["time", "time_mean", "time_min", "time_p99", "cv", "wall_time", "tflops", "utilization"]
    for name in names:
        document = json.loads(first)
        nudge(document, ("metrics", name, "value"))
        path.write_text("\n".join([json.dumps(document), *rest, ""]), encoding="utf-8")
        assert any(one.figure.endswith(f" {name}") for one in judged(session).problems), name


def test_an_edited_sample_of_an_operator_is_named_by_the_figures_it_gives(session):
    path = session / "operators" / "main" / "results.jsonl"
    first, *rest = path.read_text(encoding="utf-8").splitlines()
    document = json.loads(first)
    for index in range(len(document["operator"]["samples"])):
        edited = json.loads(first)
        nudge(edited, ("operator", "samples", index))
        path.write_text("\n".join([json.dumps(edited), *rest, ""]), encoding="utf-8")
        assert any("operators/main/results.jsonl" in one for one in found(session)), index


def test_a_peak_that_is_none_of_the_vendor_file_is_named(session):
    path = session / "operators" / "main" / "results.jsonl"
    path.write_text(path.read_text(encoding="utf-8").replace('"value":60.0', '"value":61.0'), encoding="utf-8")
    assert any("peak: 61.0 is none of the vendor file's" in one for one in found(session))


@pytest.mark.parametrize("name", ["operators.csv", "operators.json"])
def test_an_edited_table_of_operators_is_found_by_the_results_it_lists(session, name):
    path = session / name
    value = json.loads((session / "operators.json").read_bytes())["results"][0]["tflops"]
    path.write_text(path.read_text(encoding="utf-8").replace(str(value), str(value + 1), 1), encoding="utf-8")
    assert any(one.startswith(f"{name}: ") and "tflops" in one for one in found(session))
