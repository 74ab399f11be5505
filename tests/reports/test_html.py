"""The HTML report without a browser: its data, its file, its texts."""

from __future__ import annotations

import base64
import gzip
import json
import re
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
from pytest_flagperf.reports.html import gathering
from pytest_flagperf.reports.html import libraries
from pytest_flagperf.reports.html import texts
from tests.reports import html_sessions
from tests.reports.html_page import Document
from tests.reports.html_page import written


pytest.importorskip("jinja2")
pytest.importorskip("bokeh")
pytest.importorskip("itables")

HERE = Path(html.__file__).parent


@pytest.fixture
def session(tmp_path):
    """Training that is well, missed and broken, one compared with a baseline, and operators."""
    return html_sessions.mixed(tmp_path / "session-a")


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
    again = "not taken from session first: it is invalid there"
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


def test_a_session_that_ran_everything_again_stands_in_the_place_of_the_one_it_resumed(tmp_path):
    again = "not taken from session first: it is invalid there"
    first = html_sessions.write(tmp_path / "first", [html_sessions.case(1, "invalid"), html_sessions.case(2)])
    description = {"time_started": 1.8e9, "resumed": {"session": "first", "directory": str(first)}}
    second = html_sessions.write(tmp_path / "second", [html_sessions.case(1, notes=[again])], description=description)
    assert [(one["model"], one["session"]) for one in html.data([first, second])["cases"]] == [
        ("model2", "first"),
        ("model1", "second"),
    ]


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


def test_a_path_that_cannot_be_written_is_told(session, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert cli.main(["report", str(session), "--output", str(tmp_path / "file" / "report.html")]) == 1
    assert f"cannot be written to {tmp_path / 'file' / 'report.html'}" in capsys.readouterr().err
