"""Inference in the HTML report: the engine beside the reference, its steps, the charts of its latencies."""

from __future__ import annotations

import json
import random

import msgspec
import pytest

from pytest_flagperf import inference_metrics
from pytest_flagperf.reports import html
from pytest_flagperf.reports.html import latency
from pytest_flagperf.result import DatasetInfo
from pytest_flagperf.result import ErrorResult
from pytest_flagperf.result import LoadGenResult
from tests.reports import html_sessions
from tests.reports import inference_sessions as sessions
from tests.reports.html_page import Document
from tests.reports.html_page import written
from tests.reports.html_sessions import HOSTILE
from tests.reports.inference_sessions import RANDOM
from tests.reports.inference_sessions import SEARCHED
from tests.reports.inference_sessions import edge
from tests.reports.inference_sessions import inferred
from tests.reports.inference_sessions import scoring
from tests.reports.inference_sessions import server
from tests.reports.inference_sessions import shortened


pytest.importorskip("jinja2")
pytest.importorskip("bokeh")
pytest.importorskip("itables")

LATENCIES = [1_000_000 + 1000 * number for number in range(2000)]


def described(tmp_path, *found) -> list[dict]:
    return html.data([sessions.write(tmp_path / "session", found)])["cases"]


def chart(case: dict, title: str) -> dict:
    (found,) = [one for one in case["charts"] if one["title"] == title]
    return found


def test_the_distribution_is_that_of_all_queries_with_the_results_percentiles(tmp_path):
    (case,) = described(tmp_path, (inferred("edge"), edge(LATENCIES)))
    found = chart(case, "latency")
    (curve,) = found["series"]
    assert curve["points"] == 2000
    assert (curve["x"][0], curve["x"][-1], curve["y"][-1]) == (1, 2.999, 1)
    assert found["lines"] == [{"at": 10.5, "name": "p50"}, {"at": 12.25, "name": "p90"}, {"at": 18.75, "name": "p99"}]
    assert (found["x"], found["y"], found["log_x"]) == ("ms", "share", False)
    # What trains has a curve of its quality; two evaluations of one model are none.
    assert not [one for one in case["charts"] if one["title"] in ("quality", "loss")]


@pytest.mark.parametrize("count", [1, 2, 24, 500, 501, 100_000])
def test_a_distribution_of_few_points_keeps_its_ends_and_its_tail(count):
    drawn = random.Random(1)
    values = [drawn.lognormvariate(0, 1) for _ in range(count)]
    points = latency.distribution(values, 500)
    assert len(points) <= 500
    assert points == sorted(points)
    assert points[-1] == (max(values), 1.0)
    assert count < 500 or points[0][0] == min(values)
    # A point of the curve is a percentile as the metrics have it.
    ordered = sorted(values)
    for share in (0.5, 0.9, 0.99, 0.999):
        near = min(points, key=lambda point: abs(point[1] - share))
        assert abs(near[1] - share) <= 1 / min(count, 200)
        assert ordered.index(near[0]) + 1 == round(near[1] * count)
    assert inference_metrics.percentile(ordered, 0.999) <= points[-1][0]
    if count == 100_000:
        assert len([share for _, share in points if share > 0.999]) > 50


def test_a_distribution_that_reaches_far_has_a_logarithmic_axis(tmp_path):
    (case,) = described(tmp_path, (inferred("edge"), edge([*LATENCIES, 60_000_000])))
    assert chart(case, "latency")["log_x"]


def test_of_loadgen_the_percentiles_that_it_printed_are_drawn_to_the_digit(tmp_path):
    (case,) = described(tmp_path, (inferred("server"), server()))
    (curve,) = chart(case, "latency")["series"]
    points = dict(zip(curve["y"], curve["x"], strict=True))
    assert points == {
        **{0: 0.52329, 0.5: 1.1, 0.9: 2.2, 0.95: 2.3, 0.97: 2.4, 0.99: 3.30001, 0.999: 9.90001, 1: 12.1215},
    }
    assert chart(case, "latency")["hint"] == "latency.loadgen"
    assert chart(case, "latency")["lines"][-1] == {"at": 15, "name": "bound"}


def test_latency_over_load_has_every_rate_that_was_tried_and_the_bound(tmp_path):
    (case,) = described(tmp_path, (inferred("server"), server()))
    found = chart(case, "load")
    points = {one["name"]: list(zip(one["x"], one["y"], strict=True)) for one in found["series"]}
    assert points == {"held": [(100, 1.2), (500, 3.1)], "exceeded": [(800, 90)], "result": [(500, 3.3)]}
    assert (found["bounds"], found["unit"], found["log_y"]) == ([15.0], "ms", True)


def test_a_search_that_ended_invalid_shows_what_was_tried_and_no_result(tmp_path):
    error = ErrorResult("InvalidMeasurement", "LoadGen calls its Server run INVALID: early stopping")
    lines = [line for line in server() if line[0] not in ("INFERENCE_END", "FINISHED")]
    said = LoadGenResult("Server", False, ["early stopping"])
    (case,) = described(tmp_path, (inferred("server", verdict="invalid", error=error, metrics={}, loadgen=said), lines))
    assert {one["name"] for one in chart(case, "load")["series"]} == {"held", "exceeded"}
    assert dict(case["inference"]["loadgen"]) == {
        **{"scenario": "Server", "validity": "INVALID", "bound": "15 ms", "tried": "3"},
    }
    (last,) = [one for one in case["inference"]["steps"] if one["name"] == "performance"]
    assert last["seconds"] is None
    assert "did not end" in written([tmp_path / "session"], tmp_path).text


def test_the_steps_of_a_round_are_told_with_their_times(tmp_path):
    (case,) = described(tmp_path, (inferred("server"), server()))
    assert [(one["name"], one["began"], one["seconds"]) for one in case["inference"]["steps"]] == [
        *(("load", 0.0, 1.0), ("validation", 1.5, 2.0), ("export", 3.5, 0.5), ("compile", 4.0, 4.0)),
        *(("warmup", 8.0, 0.5), ("accuracy", 8.5, 1.0), ("prepare", 9.5, 10.0), ("performance", 19.5, 2.0)),
    ]
    last = case["inference"]["steps"][-1]
    assert last["left"] + last["width"] == pytest.approx(100, abs=0.1)


def test_a_compiler_that_crashed_is_the_last_step(tmp_path):
    lines = [line for line in edge(LATENCIES) if line[1] < 8.0]
    one = inferred("edge", verdict="invalid", error=ErrorResult("RankCrashed", "the compiler died"), metrics={})
    (case,) = described(tmp_path, (one, lines))
    assert [row["name"] for row in case["inference"]["steps"]] == ["load", "validation", "export", "compile"]
    assert case["inference"]["steps"][-1]["seconds"] is None
    assert case["inference"]["compared"] == []


def test_reference_and_engine_stand_beside_each_other(tmp_path):
    (case,) = described(tmp_path, (inferred(), edge([])))
    assert case["inference"]["compared"] == [
        {"name": "top1", "unit": "ratio", "reference": 0.762, "engine": 0.761},
        {"name": "p_*_whole", "unit": "images/s", "reference": 1358.9, "engine": 1391.4},
        {"name": "p_*_core", "unit": "images/s", "reference": 4263.3, "engine": 12406.0},
    ]


def test_without_scripts_weights_engine_and_loadgen_are_on_the_page(tmp_path):
    session = sessions.write(tmp_path / "session", [(inferred("server", loadgen=shortened()), server())])
    text = written([session], tmp_path).text
    for told in (
        "trained here: resnet50 lite, seed 1",
        "a8e12bb6",
        "qps 497.3 queries/s",
        "shortened: duration 2 of 600",
    ):
        assert told in text
    assert "pytorch · onnxruntime" in text


def test_random_weights_are_marked_wherever_the_case_stands(tmp_path):
    one = inferred(weights=RANDOM, quality=(None, None), dataset=DatasetInfo("imagenet2012", True))
    session = sessions.write(tmp_path / "session", [(one, [])])
    (case,) = html.data([session])["cases"]
    assert case["marks"] == ["synthetic", "random"]
    # In the matrix, the table and the section.
    assert written([session], tmp_path).text.count("⚠ random weights") == 3


def test_engines_have_rows_of_their_own_in_the_support_matrix(tmp_path):
    found = [(inferred(), []), (inferred(engine="openvino"), []), (inferred("edge"), [])]
    session = sessions.write(tmp_path / "session", found)
    rows = html.data([session, html_sessions.write(tmp_path / "b", [html_sessions.case(1)])])["support"]["rows"]
    assert [(row["kind"], row["framework"], row["engine"]) for row in rows] == [
        ("inference", "pytorch", "onnxruntime"),
        ("inference", "pytorch", "openvino"),
        ("training", "pytorch", ""),
    ]


def test_a_column_of_images_and_tokens_names_the_unit_of_each_figure(tmp_path):
    session = sessions.write(tmp_path / "session", [(inferred(), edge([])), (scoring(), edge([]))])
    assert dict(html.data([session])["measured"])["p_inference_core"] == ""
    text = html.write([session], tmp_path / "report.html").read_text(encoding="utf-8")
    assert "12,406 <small>images/s</small>" in text
    assert "12,406 <small>tokens/s</small>" in text
    alone = html.data([sessions.write(tmp_path / "alone", [(scoring(), edge([]))])])
    assert dict(alone["measured"])["p_inference_core"] == "tokens/s"
    assert {one["unit"] for one in alone["cases"][0]["inference"]["compared"]} == {"ratio", "tokens/s"}


def test_training_and_inference_have_tables_with_their_own_columns(tmp_path):
    session = sessions.write(tmp_path / "session", [(inferred(), []), (inferred("server"), server())])
    training = html_sessions.write(tmp_path / "b", [html_sessions.case(1)])
    text = html.write([session, training], tmp_path / "report.html").read_text(encoding="utf-8")
    document = Document(text)
    assert {value for tag, name, value in document.attributes if tag == "table" and name == "id"} >= {
        *("case-table", "inference-table"),
    }
    data = html.data([session, training])
    assert [name for name, _ in data["measured"]] == [
        *("p_inference_whole", "p_inference_core", "qps", "latency_p50", "latency_p99", "compile_time", "memory_peak"),
    ]
    alone = html.write([session], tmp_path / "alone.html").read_text(encoding="utf-8")
    assert 'id="case-table"' not in alone


def test_what_was_published_of_training_stands_beside_no_inference(tmp_path):
    (case,) = described(tmp_path, (inferred(precision="amp", case={"topology": "1x8"}), []))
    assert case["published"] == []


@pytest.mark.parametrize("value", ["x", None, [1], {"a": 1}, float("nan"), 10**400, -1, HOSTILE])
def test_events_that_nobody_measured_make_a_report_all_the_same(tmp_path, value):
    value = "nan" if value != value else value
    lines = [
        ("QUERIES", 9.0, {"latencies_ns": value}),
        ("QUERIES", 9.0, {"latencies_ns": [value]}),
        (
            "INFERENCE_BEGIN",
            9.5,
            {"scenario": value, "latency_bound": value, "searched": [*SEARCHED, value, {"rate": value}]},
        ),
        ("INFERENCE_END", 9.6, {"loadgen": {"summary": value, "rate": value, "version": value}}),
    ]
    session = sessions.write(tmp_path / "session", [(inferred("server"), sessions.steps(lines))])
    (case,) = html.data([session])["cases"]
    json.dumps(case["charts"], allow_nan=False)
    assert chart(case, "load")["series"]
    written([session], tmp_path)


def test_hostile_text_of_inference_stays_text(tmp_path):
    one = inferred(
        "server",
        case={"engine": HOSTILE, "model": HOSTILE},
        weights=msgspec.structs.replace(inferred().weights, name=HOSTILE, origin=HOSTILE, checksum=HOSTILE),
    )
    lines = server(version=HOSTILE)
    document = written([sessions.write(tmp_path / "session", [(one, lines)])], tmp_path)
    assert document.elements["img"] == document.elements["b"] == 0
    assert not [name for _, name, _ in document.attributes if name.startswith("on")]
    assert " ".join(document.texts).count(HOSTILE) > 6
