"""The HTML report of what is hostile, torn, odd or too much."""

from __future__ import annotations

import json

import pytest

from pytest_flagperf.reports import html
from pytest_flagperf.reports.html import cases
from pytest_flagperf.reports.html import page
from pytest_flagperf.result import ErrorResult
from tests.reports import html_sessions
from tests.reports.html_page import written
from tests.reports.html_sessions import HOSTILE


pytest.importorskip("jinja2")
pytest.importorskip("bokeh")
pytest.importorskip("itables")


def test_hostile_text_stays_text_wherever_it_stands(tmp_path):
    session = html_sessions.hostile(tmp_path / "session")
    document = written([session], tmp_path)
    plain = written([html_sessions.write(tmp_path / "plain", [html_sessions.case()])], tmp_path)
    assert document.elements["img"] == document.elements["b"] == 0
    # One script of ours; all others are data.
    kinds = [value for tag, name, value in document.attributes if tag == "script" and name == "type"]
    assert document.elements["script"] == len(kinds) + 1
    assert set(kinds) == {"application/json", "application/gzip"}
    assert document.data[""] == plain.data[""]
    assert not [name for _, name, _ in document.attributes if name.startswith("on")]
    assert " ".join(document.texts).count(HOSTILE) > 30
    charts = json.loads(document.data["charts-case-1"])
    assert HOSTILE in [chart["name"] for chart in charts]


def test_data_for_scripts_can_end_no_script_and_no_line():
    text = page.as_json({"a": HOSTILE})
    assert not set("<>&\u2028\u2029") & set(text)
    assert json.loads(text) == {"a": HOSTILE}


def test_a_killed_session_says_what_was_started_and_not_ended(tmp_path):
    session = html_sessions.write(tmp_path / "session", [html_sessions.case(1)])
    description = json.loads((session / "session.json").read_text())
    del description["time_ended"]
    (session / "session.json").write_text(json.dumps(description))
    (session / "ledger.jsonl").write_text(
        json.dumps({"event": "round_start", "case": "model9", "round": 2, "directory": "/x/model9/round2"}) + "\n"
    )
    (session / "broken").mkdir()
    (session / "broken" / "result.json").write_text("{")
    text = written([session], tmp_path).text
    assert "model9 round 2" in text
    assert "has not ended" in text
    assert "broken/result.json cannot be read" in text


def test_a_session_of_which_only_the_results_are_left_makes_a_report(tmp_path):
    session = html_sessions.write(tmp_path / "session", [html_sessions.case(1), html_sessions.operator(1)])
    (session / "session.json").unlink()
    for path in sorted(session.rglob("round*/**/*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    for path in session.glob("case1/round*"):
        path.rmdir()
    document = written([session], tmp_path)
    assert "The files of a round are not here" in document.text
    assert "1,000" in document.text


def test_long_messages_and_logs_are_cut_and_say_so(tmp_path):
    error = ErrorResult("RankCrashed", "x" * 50_000)
    session = html_sessions.write(
        tmp_path / "session", [html_sessions.case(1, "invalid", error=error)], log="line\n" * 50_000
    )
    (case,) = html.data([session])["cases"]
    assert len(case["error"]["message"]) < 21_000
    (log,) = case["logs"]
    assert log["is_cut"]
    assert log["size"] == 250_000
    assert log["text"].startswith("line\n")
    assert len(log["text"]) <= 12_000


def test_colours_of_a_terminal_are_taken_out_of_logs(tmp_path):
    session = html_sessions.write(tmp_path / "session", [html_sessions.case(1)], log="\x1b[31mred\x1b[0m\x00\tend\n")
    assert html.data([session])["cases"][0]["logs"][0]["text"] == "red\tend\n"


@pytest.mark.parametrize(
    "odd",
    [
        {"host": [1], "device_list": {"a": 1}, "versions": 3, "command": 7, "environment": "x", "source": []},
        {"time_started": 1e300, "time_ended": "yesterday", "exit_status": {}, "device_list": [1, None, {"name": 5}]},
        {"session": ["a"], "vendor": None, "driver": {"a": 1}, "host": {"cpus": "many", "memory_gib": None}},
    ],
)
def test_an_odd_description_of_a_session_makes_a_report_all_the_same(tmp_path, odd):
    session = html_sessions.write(tmp_path / "session", [html_sessions.case(1)], description=odd)
    assert "1,000" in written([session], tmp_path).text


def test_derived_figures_that_cannot_be_read_are_told_and_lose_no_report(tmp_path):
    session = html_sessions.write(tmp_path / "session", [html_sessions.case(1)])
    (session / "derived.json").write_text('{"metrics": 5}')
    text = written([session], tmp_path).text
    assert "derived.json cannot be read" in text
    assert "1,000" in text


def test_two_sessions_of_one_name_are_told_apart(tmp_path):
    for place, speed in (("x", 1000.0), ("y", 900.0)):
        html_sessions.write(tmp_path / place / "same", [html_sessions.case(1, speed=speed)])
    data = html.data([tmp_path / "x" / "same", tmp_path / "y" / "same"])
    assert data["labels"] == {"same": "S1", "same~2": "S2"}
    values = {row["metric"]: row["values"] for row in data["beside"]["rows"]}
    assert values["p_whole"] == [1000.0, 900.0]


def test_many_long_messages_share_what_a_page_can_carry(tmp_path):
    long = "x" * 60_000
    found = [
        html_sessions.case(
            number, "invalid", error=ErrorResult("RankCrashed", long), diff=long, notes=[long] * 40, rounds=[]
        )
        for number in range(1, 121)
    ]
    data = html.data([html_sessions.write(tmp_path / "session", found, log="")])
    lengths = [len(one["error"]["message"]) + len(one["diff"]) + sum(map(len, one["notes"])) for one in data["cases"]]
    assert sum(lengths) < 4 * cases.MESSAGES_TOGETHER
    assert data["cases"][0]["notes"][-1] == "… 39 more in result.json"


def host_files(session):
    """Where the files of the last round's host lie."""
    return session / "case1" / "round2" / "host1"


@pytest.mark.parametrize("lead", ["path", "link", "link to a directory"])
def test_a_session_of_somebody_elses_cannot_put_files_of_the_reader_into_the_report(tmp_path, lead):
    outside = tmp_path / "home" / "round2"
    (outside / "mail").mkdir(parents=True)
    (outside / "mail" / "rank0.log").write_text("a secret")
    session = html_sessions.write(tmp_path / "session", [html_sessions.case(1)])
    own = host_files(session)
    if lead == "path":
        result = json.loads((session / "case1" / "result.json").read_text())
        result["rounds"][1]["directory"] = str(outside)
        (session / "case1" / "result.json").write_text(json.dumps(result))
        own.parent.rename(own.parent.with_name("elsewhere"))
    elif lead == "link":
        (own / "rank0.log").unlink()
        (own / "rank0.log").symlink_to(outside / "mail" / "rank0.log")
    else:
        (own.parent / "mail").symlink_to(outside / "mail")
    (case,) = html.data([session])["cases"]
    assert "secret" not in json.dumps(case["logs"])
    assert case["charts"]


@pytest.mark.parametrize("name", ["rank0.log", "rank0.events.jsonl", "monitor.jsonl"])
@pytest.mark.parametrize("what", ["directory", "dangling link", "bytes"])
def test_files_of_a_round_that_are_none_make_a_report_all_the_same(tmp_path, name, what):
    session = html_sessions.write(tmp_path / "session", [html_sessions.case(1)])
    path = host_files(session) / name
    path.unlink()
    if what == "directory":
        path.mkdir()
    elif what == "dangling link":
        path.symlink_to(tmp_path / "nowhere")
    else:
        path.write_bytes(b"\xff\x00[" * 1000)
    (case,) = html.data([session])["cases"]
    assert case["charts"]


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("rank0.events.jsonl", {"event": "STEP_END", "value": {"loss": "x", "global_steps": None}}),
        ("rank0.events.jsonl", {"event": "STEP_END", "value": {"loss": 1.0, "global_steps": 10**400}}),
        ("monitor.jsonl", {"event": "sample", "monotonic": 1.0, "device": "x", "power": 1.0}),
        ("monitor.jsonl", {"event": "sample", "monotonic": 1.0, "device": 0, "power": 10**400}),
        ("monitor.jsonl", {"event": "processes", "monotonic": 1.0, "foreign": [{}]}),
    ],
)
def test_lines_that_somebody_made_up_make_a_report_all_the_same(tmp_path, name, line):
    session = html_sessions.write(tmp_path / "session", [html_sessions.case(1)])
    metadata = {"time_ms": 0, "monotonic_ns": 10**9, "rank": 0}
    with open(host_files(session) / name, "a", encoding="utf-8") as file:
        file.write(json.dumps({"metadata": metadata, **line}) + "\n")
    (case,) = html.data([session])["cases"]
    assert "Infinity" not in json.dumps(case["charts"])
    assert [chart["title"] for chart in case["charts"]]


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        ([120.0, None, [1.0], "121", True, {}, 10**400, float("inf"), 122], [120, 122]),
        ([None, []], None),
        ("12.0", None),
        (12.0, None),
        ({"a": 1.0}, None),
    ],
)
def test_samples_of_an_operator_that_are_no_numbers_make_a_report_all_the_same(tmp_path, samples, expected):
    odd = html_sessions.operator(1, facts={"samples": samples})
    session = html_sessions.write(tmp_path / "session", [odd, html_sessions.operator(2)])
    ((first, second),) = [family["rows"] for family in html.data([session])["families"]]
    chart = first["details"]["chart"]
    assert (chart and chart["series"][0]["y"]) == expected
    assert second["details"]["chart"]["series"][0]["points"] == 300
    assert "Infinity" not in json.dumps(chart)
    assert "120" in written([session], tmp_path).text
