"""What a reader of the HTML report must not miss: marks, requirements, misses, units."""

from __future__ import annotations

import json

import msgspec
import pytest

from pytest_flagperf.reports import html
from pytest_flagperf.reports import reading
from pytest_flagperf.result import DatasetInfo
from pytest_flagperf.result import ErrorResult
from pytest_flagperf.result import SpreadResult
from pytest_flagperf.result import TargetResult
from tests.reports import html_sessions
from tests.reports.html_page import written


pytest.importorskip("jinja2")
pytest.importorskip("bokeh")
pytest.importorskip("itables")


def test_a_stand_in_is_marked_wherever_its_case_stands_and_is_no_pass_of_the_chip(tmp_path):
    stand_in = html_sessions.info(1, stand_in="cpu")
    found = [
        html_sessions.case(1, "missed", case=stand_in),
        html_sessions.case(2, case=html_sessions.info(2, division="open"), deviations=[]),
        html_sessions.case(3, dataset=DatasetInfo("digits", True), deviations=[]),
        html_sessions.operator(1, case={"stand_in": "cpu"}),
    ]
    session = html_sessions.write(tmp_path / "session", found)
    data = html.data([session])
    assert [row["marks"] for row in data["cases"]] == [["stand_in"], ["open"], ["synthetic"]]
    cells = {row["model"]: row["cells"]["kunlunxin R300"] for row in data["support"]["rows"]}
    assert cells["model1"] == [{"verdict": "", "marks": ["stand_in"], "count": 1}]
    assert cells["model2"] == [{"verdict": "passed", "marks": ["open"], "count": 1}]
    assert cells["gemm"] == [{"verdict": "", "marks": ["stand_in"], "count": 1}]
    text = written([session], tmp_path).text
    # Attention, row and heading of the case; row and details of the operator.
    assert text.count("ran on a stand-in (cpu)") == 5
    assert text.count("⚠ open division") == text.count("⚠ synthetic data") == 3


def test_what_differs_from_the_standard_case_is_counted_in_row_and_heading(tmp_path):
    session = html_sessions.write(
        tmp_path / "session", [html_sessions.case(1, "missed"), html_sessions.case(2, deviations=[])]
    )
    data = html.data([session])
    assert [row["changes"] for row in data["cases"]] == [1, 0]
    text = written([session], tmp_path).text
    assert text.count("≠ 1 ") == 3
    assert "≠ 1 differs from the standard case" in text


def test_a_requirement_that_is_not_met_needs_attention(tmp_path):
    session = html_sessions.write(tmp_path / "session", [html_sessions.case(1)])
    asked = [
        {"text": "scaling_efficiency>=0.9", "met": False, "found": 1, "missed": ["model1: 0.8"]},
        {"text": "amp_speedup>=1", "met": True, "found": 1, "missed": []},
    ]
    (session / "derived.json").write_text(json.dumps({"metrics": [], "requirements": asked}))
    (row,) = html.data([session])["unmet"]
    assert (row["text"], row["why"]) == ("scaling_efficiency>=0.9", "model1: 0.8")
    document = written([session], tmp_path)
    assert "1 ✗ required, not met" in document.text
    assert "Needs attention ✗ missed --require scaling_efficiency>=0.9 model1: 0.8" in document.text
    identities = [value for _, name, value in document.attributes if name == "id"]
    assert row["anchor"] in identities


def test_the_worst_needs_attention_first_and_all_of_it_is_there(tmp_path):
    found = [html_sessions.case(number, "inconclusive", rounds=[]) for number in range(1, 40)]
    session = html_sessions.write(tmp_path / "session", [*found, html_sessions.case(40, "invalid", rounds=[])])
    data = html.data([session])
    assert data["attention"][0]["model"] == "model40"
    links = [value for tag, name, value in written([session], tmp_path).attributes if (tag, name) == ("a", "href")]
    # In the list and in the table.
    assert all(links.count(f"#case-{number}") == 2 for number in range(1, 41))


def test_four_digits_hide_no_miss(tmp_path):
    target = TargetResult("top1", 0.759, "at least", "MLPerf Training v0.7", 0.75896, False)
    session = html_sessions.write(tmp_path / "session", [html_sessions.case(1, "missed", targets=[target])])
    text = written([session], tmp_path).text
    assert text.count("0.75896") >= 2
    assert "0.7590" not in text


def test_targets_of_an_invalid_case_were_not_judged(tmp_path):
    target = TargetResult("top1", 0.759, "at least", "MLPerf Training v0.7", None, False)
    case = html_sessions.case(1, "invalid", targets=[target], error=ErrorResult("RankCrashed", "x"))
    text = written([html_sessions.write(tmp_path / "session", [case])], tmp_path).text
    assert "not judged" in text
    assert "missed" not in text


def test_two_values_of_one_metric_say_which_they_are(tmp_path):
    metrics = reading.results.with_units({"top1": 0.77})
    spreads = {"top1": SpreadResult([0.761, 0.779], "median")}
    session = html_sessions.write(tmp_path / "session", [html_sessions.case(1, metrics=metrics, spreads=spreads)])
    text = written([session], tmp_path).text
    assert "0.761 worst round" in text
    assert "0.77 median" in text
    assert "needs 5 rounds" in text
    assert "0.761 · 0.779" in text


def test_every_cell_that_is_sorted_by_value_says_so_also_where_it_is_blank(tmp_path):
    blank = html_sessions.case(1, metrics={})
    session = html_sessions.write(tmp_path / "session", [blank, html_sessions.case(2)])
    document = written([session], tmp_path)
    orders = [value for tag, name, value in document.attributes if (tag, name) == ("td", "data-order")]
    assert {"", "1000.0"} <= set(orders)


def test_integer_operations_are_no_floating_point_ones(tmp_path):
    whole, other = html_sessions.operator(1), html_sessions.operator(2)
    other = msgspec.structs.replace(other, case=msgspec.structs.replace(other.case, precision="int8"))
    session = html_sessions.write(tmp_path / "session", [whole, other])
    rows = html.data([session])["families"][0]["rows"]
    assert [row["units"] for row in rows] == [{}, {"tflops": "TOP/s"}]
    assert ("tflops", 0.5, "TOP/s") in rows[1]["details"]["metrics"]


def test_without_scripts_evaluations_and_details_of_operators_are_there(tmp_path):
    session = html_sessions.write(tmp_path / "session", [html_sessions.case(1), html_sessions.operator(1)])
    text = written([session], tmp_path).text
    assert "Evaluations of the last round" in text
    assert "column-major, as BLAS is called" in text
    assert "--vendor=kunlunxin" in text


def test_an_unsupported_operator_says_why_in_its_row(tmp_path):
    session = html_sessions.write(tmp_path / "session", [html_sessions.operator(1, "unsupported")])
    assert html.data([session])["families"][0]["rows"][0]["why"] == "column-major, as BLAS is called"


def test_a_page_says_at_its_top_when_and_where_each_session_ran(tmp_path):
    description = {"driver": "5.0.21", "source": {"commit": "1234567890abcdef"}}
    session = html_sessions.write(tmp_path / "session", [html_sessions.case(1)], description=description)
    assert html.data([session])["sessions"][0]["line"] == [
        *("2026-09-21 14:13:20 UTC", "host1", "2 × R300", "5.0.21", "1234567890ab")
    ]


def test_comparisons_sort_by_verdict_and_then_by_how_much_changed():
    told = [
        ("passed", 0.01),
        ("regressed", -0.06),
        ("inconclusive", None),
        ("regressed", 5.3),
        ("not comparable", None),
    ]
    worst_first = sorted(told, key=lambda one: reading.comparison_order(*one))
    assert worst_first[:3] == [("regressed", 5.3), ("regressed", -0.06), ("inconclusive", None)]
