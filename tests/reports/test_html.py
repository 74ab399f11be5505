"""The HTML report without a browser: its data, its file, its texts."""

from __future__ import annotations

import base64
import gzip
import json
import math
import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import pytest

from pytest_flagperf import cli
from pytest_flagperf import references
from pytest_flagperf import verdict
from pytest_flagperf.errors import ConfigurationError
from pytest_flagperf.errors import ReplayError
from pytest_flagperf.reports import html
from pytest_flagperf.reports import reading
from pytest_flagperf.reports.html import cases
from pytest_flagperf.reports.html import gathering
from pytest_flagperf.reports.html import libraries
from pytest_flagperf.reports.html import page
from pytest_flagperf.reports.html import series
from pytest_flagperf.reports.html import texts
from pytest_flagperf.result import DatasetInfo
from pytest_flagperf.result import ErrorResult
from pytest_flagperf.result import SpreadResult
from pytest_flagperf.result import TargetResult
from tests.reports import html_sessions
from tests.reports.html_sessions import HOSTILE


pytest.importorskip("jinja2")
pytest.importorskip("bokeh")
pytest.importorskip("itables")

HERE = Path(html.__file__).parent
VOID = {"meta", "link", "input", "br", "img", "hr"}


class Document(HTMLParser):
    """A page as a browser without scripts reads it: texts and elements, which have to be closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: Counter[str] = Counter()
        self.attributes: list[tuple[str, str, str]] = []
        self.texts: list[str] = []
        self.data: dict[str, str] = {}
        self._open: list[tuple[str, str]] = []
        self.feed(text)
        assert not self._open, f"never closed: {self._open}"

    def handle_starttag(self, tag, attrs):
        self.elements[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self._open.append((tag, dict(attrs).get("id") or ""))

    def handle_endtag(self, tag):
        assert self._open and self._open[-1][0] == tag, f"</{tag}> closes {self._open[-3:]}"
        self._open.pop()

    def handle_data(self, data):
        tag, name = self._open[-1] if self._open else ("", "")
        if tag == "script":
            self.data[name] = self.data.get(name, "") + data
        elif tag != "style":
            self.texts.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.texts))


@pytest.fixture
def session(tmp_path):
    """Training that is well, missed and broken, one compared with a baseline, and operators."""
    missed = html_sessions.case(2, "missed")
    return html_sessions.write(
        tmp_path / "session-a",
        [
            html_sessions.case(1, "regressed", comparisons=[html_sessions.comparison("regressed", -0.048)]),
            missed,
            html_sessions.case(3, "invalid", error=ErrorResult("RankCrashed", "rank 3 died of signal 9\nsee its log")),
            *(html_sessions.operator(number) for number in range(1, 6)),
            html_sessions.operator(6, "wrong", error=ErrorResult("WrongResult", "0.5 > 1e-6")),
        ],
    )


def written(directories, tmp_path: Path, language: str = "both") -> Document:
    """The report of these sessions, read."""
    return Document(html.write(directories, tmp_path / "report.html", language).read_text(encoding="utf-8"))


def test_the_data_counts_every_verdict_once(session):
    data = html.data([session])
    assert data["counts"] == {"invalid": 1, "missed": 1, "regressed": 1, "wrong": 1, "passed": 5}
    assert {row["id"] for row in data["attention"]} == {
        *(f"model{number}-convergence-pytorch-bf16-1x8-full" for number in (1, 2, 3)),
        "gemm-train-fp32-fwd-m768-n16-k64-nt",
    }


def test_the_support_matrix_has_a_row_for_each_model_and_a_column_for_each_chip(session):
    support = html.data([session])["support"]
    assert support["columns"] == ["kunlunxin R300"]
    (gemm,) = [row for row in support["rows"] if row["model"] == "gemm"]
    assert gemm["cells"] == {
        "kunlunxin R300": [
            {"verdict": "passed", "marks": [], "count": 5},
            {"verdict": "wrong", "marks": [], "count": 1},
        ]
    }


def test_without_scripts_every_figure_and_every_error_is_on_the_page(session, tmp_path):
    document = written([session], tmp_path)
    for expected in (
        *(
            "1,000",
            "top1",
            "MLPerf Training v0.7",
            "rank 3 died of signal 9",
            "a line of the log",
            "the slowest of five",
        ),
        *("batch_size = 256 (standard case: 128)", "−4.8 %", "a t-test", "--vendor=kunlunxin", "Kunpeng 920", "120 µs"),
    ):
        assert expected in document.text, expected


def test_every_table_has_a_caption_and_headings_are_nested(session, tmp_path):
    document = written([session], tmp_path)
    assert document.elements["table"] == document.elements["caption"] > 10
    assert document.elements["h1"] == 1


def test_every_verdict_is_shown_with_a_word_and_a_sign(session, tmp_path):
    document = written([session], tmp_path)
    for name, one in texts.catalogue().verdict.items():
        if name in html.data([session])["counts"]:
            assert one.en in document.text
            assert one.sign in document.text


def test_the_page_reaches_for_nothing_outside_of_itself(session, tmp_path):
    document = written([session], tmp_path)
    loaded = [(tag, value) for tag, name, value in document.attributes if name in ("src", "srcset", "action", "data")]
    linked = [value for tag, name, value in document.attributes if name == "href"]
    assert loaded == []
    assert all(value.startswith(("#", "data:")) for value in linked)
    (rule,) = [value for tag, name, value in document.attributes if name == "content" and "default-src" in value]
    assert "default-src 'none'" in rule
    assert "http" not in rule
    assert "'unsafe-inline'" not in rule.split("script-src")[1].split(";")[0]


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


def test_the_libraries_are_in_the_file_with_their_licences(session, tmp_path):
    document = written([session], tmp_path)
    bokeh = json.loads(gzip.decompress(base64.b64decode(document.data["library-bokeh"])))
    assert bokeh == list(libraries.bundled()["bokeh"].scripts)
    for holder in ("Bokeh Contributors", "SpryMedia", "JSZip"):
        assert holder in document.text


def test_a_missing_library_names_the_extra_that_brings_it(monkeypatch):
    monkeypatch.setitem(libraries._WHERE, "bokeh", ("bokeh/no/such/file.js",))
    libraries.bundled.cache_clear()
    with pytest.raises(ConfigurationError, match=r"pip install 'pytest-flagperf\[html\]'"):
        libraries.bundled()
    libraries.bundled.cache_clear()


def test_curves_of_a_copied_session_are_found_though_its_results_name_another_machine(session):
    first = html.data([session])["cases"][0]
    charts = {(chart["title"], chart["name"]): chart for chart in first["charts"]}
    loss = charts["loss", ""]
    assert [one["name"] for one in loss["series"]] == ["1", "2"]
    assert loss["series"][0]["points"] == html_sessions.STEPS
    assert len(loss["series"][0]["x"]) <= series.MOST_POINTS
    assert charts["quality", "top1"]["bounds"] == [0.759]
    power = charts["device", "power"]
    assert [one["name"] for one in power["series"]] == ["0", "1"]
    assert power["unit"] == "W"
    assert power["marks"] == [2, 22.5]


def test_thinning_keeps_ends_and_every_extreme():
    points = [(float(x), 1.0) for x in range(10_000)]
    points[4321] = (4321.0, 99.0)
    points[7000] = (7000.0, math.nan)
    kept = series.thin(points, 100)
    assert len(kept) <= 100
    assert kept[0] == points[0]
    assert kept[-1] == points[-1]
    assert (4321.0, 99.0) in kept
    assert [x for x, _ in kept] == sorted(x for x, _ in kept)


def test_many_curves_share_the_points_that_a_page_can_carry():
    assert series.points_for(10) == series.MOST_POINTS
    assert series.points_for(5000) * 5000 <= series.MOST_POINTS_TOGETHER


def test_what_differs_from_the_standard_case_is_marked(session):
    settings = {one["key"]: one for one in html.data([session])["cases"][0]["configuration"]}
    assert settings["batch_size"]["changed"]
    assert not settings["epochs"]["changed"]


def test_published_figures_stand_beside_ours(tmp_path):
    theirs = next(row for row in references.rows("resnet50") if "p_whole" in row.metrics and row.precision)
    same = {name: getattr(theirs, name) for name in ("model", "framework", "topology", "precision")}
    models = [
        html_sessions.case(1, case=html_sessions.info(1, **same)),
        html_sessions.case(2, case=html_sessions.info(2, **{**same, "precision": "bf16", "scale": "lite"})),
        html_sessions.case(3, case=html_sessions.info(3, **same, stand_in="cpu")),
        html_sessions.case(4, "invalid", case=html_sessions.info(4, **same)),
    ]
    data = html.data([html_sessions.write(tmp_path / "session", models)])
    found = [
        next(row for row in case["published"] if (row["name"], row["source"]) == ("p_whole", theirs.source))
        for case in data["cases"]
    ]
    assert [row["ours"] for row in found] == [1000.0, None, None, None]
    assert [row["apart"] for row in found] == [[], ["precision", "scale"], ["mark.stand_in"], ["not.trusted"]]
    assert found[0]["value"] == theirs.metrics["p_whole"]
    assert "≠ Precision , Scale" in written([tmp_path / "session"], tmp_path).text


def test_sessions_stand_side_by_side_with_what_they_differ_in(tmp_path):
    first = html_sessions.write(tmp_path / "first", [html_sessions.case(1), html_sessions.case(2)])
    second = html_sessions.write(
        tmp_path / "second",
        [html_sessions.case(1, speed=900.0)],
        description={"host": {"name": "host2"}, "time_started": 1.8e9},
    )
    data = html.data([second, first])
    assert data["beside"]["sessions"] == ["first", "second"]
    rows = {(row["case"], row["metric"]): row for row in data["beside"]["rows"]}
    row = rows["model1-convergence-pytorch-bf16-1x8-full", "p_whole"]
    assert row["values"] == [1000.0, 900.0]
    # Nobody asked for a comparison, so none is made here.
    assert row["changes"] == [None, None]
    assert not [key for key in rows if key[0].startswith("model2")]
    facts = {(row["kind"], row["name"]): row for row in data["facts"]}
    assert facts["host", ""]["differs"]
    assert facts["host", ""]["values"] == ["host1", "host2"]
    assert not facts["vendor", ""]["differs"]
    assert not facts["started", ""]["differs"]


def test_a_resumed_session_and_the_one_it_resumes_show_each_case_once(tmp_path):
    taken = "resumed: taken from session first, not run again"
    again = "resumed: not taken from session first: it is invalid there"
    first = html_sessions.write(
        tmp_path / "first", [html_sessions.case(1), html_sessions.case(2, "invalid"), html_sessions.case(3)]
    )
    second = html_sessions.write(
        tmp_path / "second",
        [html_sessions.case(1, notes=[taken]), html_sessions.case(2, notes=[again])],
        description={"time_started": 1.8e9},
    )
    data = html.data([first, second])
    assert sorted((one["model"], one["session"]) for one in data["cases"]) == [
        ("model1", "second"),
        ("model2", "second"),
        ("model3", "first"),
    ]
    assert data["counts"] == {"passed": 3}


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


def test_every_text_is_there_in_both_languages_and_used():
    catalogue = texts.catalogue()
    for key, text in catalogue.text.items():
        assert text.en.strip(), key
        assert text.zh.strip(), key
        assert set(re.findall(r"{\w+}", text.en)) == set(re.findall(r"{\w+}", text.zh)), key
    sources = "".join(
        path.read_text(encoding="utf-8") for path in HERE.iterdir() if path.suffix in (".j2", ".js", ".py")
    )
    assert not [key for key in catalogue.text if not _used(key, sources)]


def _used(key: str, sources: str) -> bool:
    prefix = key.partition(".")[0]
    made = f'"{prefix}." ~' in sources or f"`{prefix}.${{" in sources
    return made or f'"{key}"' in sources


def test_the_tone_of_a_verdict_agrees_with_whether_something_is_amiss():
    words = [
        getattr(verdict, name) for name in dir(verdict) if name.isupper() and isinstance(getattr(verdict, name), str)
    ]
    assert set(words) == set(texts.catalogue().verdict)
    for word in words:
        is_well = texts.word(word).tone in ("good", "plain")
        assert is_well == (word in verdict.WELL), word


@pytest.mark.parametrize(
    ("language", "expected", "missing"), [("zh", "支持矩阵", "Support matrix"), ("en", "Support matrix", "支持矩阵")]
)
def test_a_report_in_one_language_has_no_switch(session, tmp_path, language, expected, missing):
    document = written([session], tmp_path, language)
    assert expected in document.text
    assert missing not in document.text
    assert not [value for _, name, value in document.attributes if name == "data-language"]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (51163.2, "51,163"),
        (0.720114, "0.7201"),
        (8.66131, "8.661"),
        (0.0, "0"),
        (1e-7, "1e-07"),
        (-2.5, "-2.5"),
        (None, ""),
    ],
)
def test_a_figure_has_the_digits_that_count(value, expected):
    assert reading.figure(value) == expected


def test_the_command_writes_the_file_and_says_where(session, tmp_path, capsys):
    output = tmp_path / "deep" / "report.html"
    assert cli.main(["report", str(session), "--output", str(output)]) == 0
    assert str(output) in capsys.readouterr().out
    assert output.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


def test_the_command_takes_the_directory_of_all_sessions(tmp_path, capsys):
    for name in ("first", "second"):
        html_sessions.write(tmp_path / "results" / name, [html_sessions.case(1)])
    output = tmp_path / "report.html"
    assert cli.main(["report", str(tmp_path / "results"), "--output", str(output)]) == 0
    assert Document(output.read_text(encoding="utf-8")).text.count("second") > 0


def test_the_command_refuses_what_is_no_session(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert cli.main(["report", str(tmp_path / "empty"), "--output", str(tmp_path / "report.html")]) == 1
    assert "is no session" in capsys.readouterr().err
    assert not (tmp_path / "report.html").exists()
    with pytest.raises(ReplayError):
        html.data([tmp_path / "empty"])


def test_the_command_hands_other_formats_on(session, capsys):
    assert cli.main(["report", str(session), "--format", "csv"]) == 0
    assert "model1" in capsys.readouterr().out


def test_the_data_is_plain(session):
    plain = gathering.gather([session])
    assert msgspec.json.decode(msgspec.json.encode(plain))["counts"] == plain["counts"]


# --- what a reader must not miss


def row_of(data, model: str) -> dict:
    return next(row for row in data["cases"] if row["model"] == model)


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


# --- what is odd


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


def test_a_path_that_cannot_be_written_is_told(session, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert cli.main(["report", str(session), "--output", str(tmp_path / "file" / "report.html")]) == 1
    assert f"cannot be written to {tmp_path / 'file' / 'report.html'}" in capsys.readouterr().err


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
