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
from pytest_flagperf import verdict
from pytest_flagperf.errors import ConfigurationError
from pytest_flagperf.errors import ReplayError
from pytest_flagperf.reports import html
from pytest_flagperf.reports.html import gathering
from pytest_flagperf.reports.html import libraries
from pytest_flagperf.reports.html import page
from pytest_flagperf.reports.html import series
from pytest_flagperf.reports.html import texts
from pytest_flagperf.result import ErrorResult
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
    assert gemm["cells"] == {"kunlunxin R300": {"passed": 5, "wrong": 1}}


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
    model = html_sessions.case(1, case=html_sessions.info(1, model="resnet50"))
    rows = html.data([html_sessions.write(tmp_path / "session", [model])])["cases"][0]["published"]
    (row, *_) = [row for row in rows if row["name"] == "p_whole"]
    assert row["ours"] == 1000.0
    assert row["value"] > 0
    assert row["source"]


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
    assert row["changes"][0] is None
    assert row["changes"][1]["ratio"] == pytest.approx(-0.1)
    assert row["changes"][1]["direction"] == "worse"
    assert not [key for key in rows if key[0].startswith("model2")]
    facts = {(row["kind"], row["name"]): row for row in data["facts"]}
    assert facts["host", ""]["differs"]
    assert facts["host", ""]["values"] == ["host1", "host2"]
    assert not facts["vendor", ""]["differs"]
    assert not facts["started", ""]["differs"]
    assert "worse" in written([second, first], tmp_path).text


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
    assert page.number(value) == expected


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
