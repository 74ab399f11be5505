"""CSV, workbook, Markdown and GitHub: what they say is what the Results say, and text stays text."""

from __future__ import annotations

import csv
import dataclasses
import html
import importlib
import io
import json
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies

from pytest_flagperf import cli
from pytest_flagperf import sessions
from pytest_flagperf import verdict
from pytest_flagperf.errors import ConfigurationError
from pytest_flagperf.reports import formats
from pytest_flagperf.reports import reading
from pytest_flagperf.reports.formats import common
from pytest_flagperf.reports.formats import csv as comma_separated
from pytest_flagperf.reports.formats import github
from pytest_flagperf.reports.formats import markdown
from pytest_flagperf.reports.formats import marked
from pytest_flagperf.reports.formats import rows
from pytest_flagperf.reports.formats import xlsx
from pytest_flagperf.result import ComparisonResult
from pytest_flagperf.result import DatasetInfo
from pytest_flagperf.result import SpreadResult
from pytest_flagperf.sessions import SessionFiles
from tests.conftest import ROOT
from tests.reports.formats_sessions import derived
from tests.reports.formats_sessions import operator
from tests.reports.formats_sessions import session
from tests.reports.formats_sessions import training
from tests.reports.inference_sessions import inferred


EVIL = "<script>alert(1)</script> | @somebody #12 [x](http://e.example) *b* `c` :tada:\n::error::x"
MAIN = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"


def required(directory: Path, *, missed: list[str] | None = None) -> SessionFiles:
    """A session of one passed case whose ``--require scaling_efficiency>=0.9`` does not hold."""
    one = session(directory, [training()])
    asked = {"text": "scaling_efficiency>=0.9", "met": False, "found": 1, "missed": missed or ["model: 0.8"]}
    (directory / "derived.json").write_text(json.dumps({"metrics": [], "requirements": [asked]}))
    return one


def regressed(**more):
    """A result that is worse than its baseline."""
    comparison = ComparisonResult(
        "p_train", "regressed", 4586.0, 4900.0, -0.0641, [-0.07, -0.058], "Welch", 0.02, source="a100.toml"
    )
    return training(verdict="regressed", comparisons=[comparison], **more)


def test_every_format_of_the_table_can_be_imported_and_renders() -> None:
    for name in formats.FORMATS:
        assert callable(importlib.import_module(f"pytest_flagperf.reports.formats.{name}").render)
    assert set(formats.OPTIONS) <= set(formats.FORMATS)


def test_every_verdict_has_a_rank_and_is_well_where_the_exit_code_says_so() -> None:
    words = {value for name, value in vars(verdict).items() if name.isupper() and isinstance(value, str)}
    assert set(common.VERDICTS) == words
    assert set(verdict.WELL) == common.WELL


# --- CSV


def read_csv(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_csv_has_one_row_a_case_and_metric_and_always_the_same_columns(tmp_path: Path) -> None:
    one = session(tmp_path / "a", [training(), training(precision="amp", verdict="invalid", metrics={}, quality=None)])
    text = comma_separated.render([one], None)
    assert comma_separated.render([one], tmp_path / "out" / "report.csv") is None
    assert (tmp_path / "out" / "report.csv").read_text() == text
    assert text.splitlines()[0] == ",".join(rows.COLUMNS)
    found = read_csv(text)
    assert [(row["metric"], row["value"]) for row in found if row["precision"] == "fp32"][:2] == [
        ("e2e_time", "28661.0"),
        ("p_whole", "4475.0"),
    ]
    (invalid,) = [row for row in found if row["precision"] == "amp"]
    assert (invalid["metric"], invalid["value"], invalid["target_met"]) == ("top1", "", "")


def test_csv_says_spread_target_and_comparison_of_a_metric(tmp_path: Path) -> None:
    spreads = {"p_train": SpreadResult([4500.0, 4586.0, 4600.0], "median", 4400.0, 4700.0, 0.01)}
    one = session(tmp_path / "a", [regressed(spreads=spreads)])
    found = {row["metric"]: row for row in read_csv(comma_separated.render([one], None))}
    rate = found["p_train"]
    assert (rate["method"], rate["samples"], rate["low"]) == ("median", "4500.0 4586.0 4600.0", "4400.0")
    assert (rate["comparison"], rate["baseline"], rate["change"]) == ("regressed", "4900.0", "-0.0641")
    assert (found["top1"]["target_bound"], found["top1"]["target_met"]) == ("0.759", "true")


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "  =1", "＝1", "\r=1"])
def test_csv_gives_a_spreadsheet_no_formula_from_text(tmp_path: Path, text: str) -> None:
    one = session(tmp_path / "a", [training(vendor=text, error=text, verdict="invalid")])
    (row, *_) = read_csv(comma_separated.render([one], None))
    assert row["vendor"] == f"'{text}".replace("\r", "\n")


def test_csv_keeps_negative_numbers_numbers() -> None:
    assert comma_separated.cell(-0.05) == "-0.05"
    assert comma_separated.cell(True) == "true"
    assert comma_separated.cell(None) == ""


# --- workbook


def sheet(path: Path, name: str) -> list[list[tuple[str, str]]]:
    """Type and text of every cell of a sheet, read from the file's XML."""
    with zipfile.ZipFile(path) as archive:
        strings = [
            "".join(part.text or "" for part in one.iter(f"{MAIN}t"))
            for one in ElementTree.fromstring(archive.read("xl/sharedStrings.xml")).iter(f"{MAIN}si")
        ]
        book = ElementTree.fromstring(archive.read("xl/workbook.xml"))
        names = [one.get("name") for one in book.iter(f"{MAIN}sheet")]
        root = ElementTree.fromstring(archive.read(f"xl/worksheets/sheet{names.index(name) + 1}.xml"))
    found = []
    for row in root.iter(f"{MAIN}row"):
        cells = []
        for cell in row.iter(f"{MAIN}c"):
            value = cell.find(f"{MAIN}v")
            raw = "" if value is None else value.text or ""
            kind = "formula" if cell.find(f"{MAIN}f") is not None else cell.get("t", "n")
            cells.append((kind, strings[int(raw)] if kind == "s" else raw))
        found.append(cells)
    return found


def test_the_workbook_has_its_sheets_and_numbers_are_numbers_with_units_above(tmp_path: Path) -> None:
    pytest.importorskip("xlsxwriter")
    path = tmp_path / "report.xlsx"
    xlsx.render([session(tmp_path / "a", [regressed()])], path)
    with zipfile.ZipFile(path) as archive:
        book = ElementTree.fromstring(archive.read("xl/workbook.xml"))
        metrics = archive.read("xl/worksheets/sheet3.xml").decode()
    names = [one.get("name") for one in book.iter(f"{MAIN}sheet")]
    assert names == ["summary", "cases", "metrics", "comparisons", "rounds", "environment"]
    assert 'state="frozen"' in metrics
    assert "<autoFilter" in metrics
    header, line = sheet(path, "cases")
    titles = [text for _, text in header]
    assert "p_train (samples/s)" in titles
    assert "e2e_time (s)" in titles
    assert ("n", "4586") in line
    assert ("s", "regressed") in line
    comparison = sheet(path, "comparisons")[1]
    assert ("n", "-0.0641") in comparison
    assert ("s", "Welch") in comparison


def test_the_workbook_makes_no_formula_and_no_link_of_text(tmp_path: Path) -> None:
    pytest.importorskip("xlsxwriter")
    path = tmp_path / "report.xlsx"
    found = [training(vendor="=1+1", chip="http://e.example", notes=["\x01 control", "x" * 40_000])]
    xlsx.render([session(tmp_path / "a", found)], path)
    line = sheet(path, "cases")[1]
    assert ("s", "=1+1") in line
    assert ("s", "http://e.example") in line
    assert not [kind for row in sheet(path, "cases") for kind, _ in row if kind == "formula"]
    assert max(len(text) for _, text in line) == 32_767


def test_a_number_that_no_workbook_holds_is_text_in_it(tmp_path: Path) -> None:
    pytest.importorskip("xlsxwriter")
    one = session(tmp_path / "a", [training()])
    one = dataclasses.replace(one, description={**one.description, "versions": {"torch": 10**400, "python": 3.5}})
    xlsx.render([one], tmp_path / "report.xlsx")
    cells = {row[1][1]: row[2] for row in sheet(tmp_path / "report.xlsx", "environment")}
    assert cells["versions.torch"] == ("s", str(10**400))
    assert cells["versions.python"] == ("n", "3.5")


def test_a_workbook_wants_an_output(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="--output"):
        xlsx.render([session(tmp_path / "a", [training()])], None)


def test_a_workbook_without_its_library_says_what_to_install(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(importlib.import_module("sys").modules, "xlsxwriter", None)
    with pytest.raises(ConfigurationError, match=r"pytest-flagperf\[excel\]"):
        xlsx.render([session(tmp_path / "a", [training()])], tmp_path / "x.xlsx")


# --- Markdown


def test_the_comment_counts_the_verdicts_and_tells_only_what_is_not_passed(tmp_path: Path) -> None:
    found = [training(), regressed(precision="amp"), training(precision="bf16", verdict="missed", quality=0.7)]
    text = markdown.render([session(tmp_path / "a", found)], None)
    assert text.splitlines()[0] == markdown.MARK
    assert "❌ 1 missed, 📉 1 regressed, ✅ 1 passed" in text
    shown, folded = text.split("<details>")
    assert "the target is &#62;= 0.759" in shown
    assert "p_train regressed&#58; 4586 samples/s, baseline 4900 (-6.4 %, tolerance 2 %)" in shown
    assert "passed |" not in shown
    assert folded.count("\n| <code>") == 3
    assert folded.rstrip().endswith("</details>")


def test_text_in_the_comment_stays_text(tmp_path: Path) -> None:
    found = [training(vendor=EVIL, chip=EVIL, verdict="invalid", error=EVIL, node_id=EVIL)]
    text = markdown.render([session(tmp_path / "a", found)], None)
    for dangerous in ("<script", "@somebody", "[x]", "http://", "*b*", "`", " #12 ", ":tada:", "\n::error"):
        assert dangerous not in text
    assert len({line.count(" | ") for line in text.splitlines() if line.startswith("| <code>")}) == 1


def test_the_comment_keeps_within_the_limit_and_says_what_it_leaves_out(tmp_path: Path) -> None:
    found = [
        training(vendor=f"v{number}", scale=f"s{number}", verdict="invalid", error="<" * 900 + "\n" + "x" * 900)
        for number in range(300)
    ]
    text = markdown.render([session(tmp_path / "a", found)], None)
    assert 50_000 < len(text) <= 65_536
    left = re.findall(r"… and ([\d,]+) more are in", text)[0]
    assert int(left) == 300 - text.count("🚫 invalid |")


@pytest.mark.parametrize("count", [1, 40, 400, 900])
def test_the_worst_stands_first_however_many_have_passed(tmp_path: Path, count: int) -> None:
    found = [training(scale=f"s{number}") for number in range(count)] + [training(verdict="invalid", error="boom")]
    text = markdown.render([session(tmp_path / "a", found)], None)
    assert len(text) <= 65_536
    assert "boom" in text
    assert text.index("boom") < text.index("<details>")


def test_the_comment_names_rounds_that_did_not_end_and_files_that_cannot_be_read(tmp_path: Path) -> None:
    one = session(tmp_path / "a", [training()])
    (one.directory / "ledger.jsonl").write_text('{"event": "round_start", "case": "c", "round": 1, "directory": "d"}\n')
    (one.directory / "torn").mkdir()
    (one.directory / "torn" / "result.json").write_text("{")
    again = importlib.import_module("pytest_flagperf.sessions").read(one.directory)
    text = markdown.render([again], None)
    assert "started and not ended: <code>c round 1</code>" in text
    assert "not read: <code>" in text


def test_synthetic_data_and_stand_ins_are_told_beside_the_figures(tmp_path: Path) -> None:
    found = [training(stand_in="cpu", division="open", dataset=DatasetInfo("imagenet2012", True))]
    text = markdown.render([session(tmp_path / "a", found)], None)
    assert "open division" in text
    assert "synthetic data" in text
    assert "no measurement of kunlunxin" in text


def test_the_comment_shows_what_follows_from_several_cases(tmp_path: Path) -> None:
    mixed, plain = training(precision="amp"), training()
    one = session(tmp_path / "a", [mixed, plain], [derived("amp_speedup", 2.65, mixed, plain)])
    text = markdown.render([one], None)
    assert (
        "| amp_speedup | <code>resnet50 convergence &#91;pytorch-amp-1x8-full&#93; kunlunxin R300</code> | 2.65" in text
    )


@given(text=strategies.text())
def test_escaped_text_is_the_same_text_and_holds_no_markup(text: str) -> None:
    escaped = marked.escape(text)
    shown = "".join(c if c.isprintable() else " " for c in text)
    assert html.unescape(escaped) == " ".join(shown.split())
    assert not set(re.sub(r"&#\d+;", "", escaped)) & set("<>&|*`[]!#@:\\~\"'{}$^?")
    assert not re.search(r"(^|\W)_|_(\W|$)", re.sub(r"&#\d+;", " ", escaped), re.ASCII)


def test_escaping_leaves_names_readable() -> None:
    assert marked.escape("wide_deep-fp32 a_b_c") == "wide_deep-fp32 a_b_c"
    assert marked.escape("__init__ _x_") == "&#95;&#95;init&#95;&#95; &#95;x&#95;"
    assert marked.escape("a\nb\x1b[0m") == "a b &#91;0m"


# --- GitHub


def test_the_summary_is_added_to_the_file_that_github_names(tmp_path: Path, monkeypatch) -> None:
    summary = tmp_path / "summary.md"
    summary.write_text("before\n")
    monkeypatch.setenv(github.VARIABLE, str(summary))
    text = github.render([session(tmp_path / "a", [regressed()])], None)
    assert summary.read_text().startswith("before\n<!-- pytest-flagperf -->")
    assert text.startswith("::error file=suites/training/resnet50/test_resnet50.py,title=regressed%3A resnet50 ")
    assert text.count("\n") == 1


def test_without_github_the_summary_is_text_and_with_an_output_it_is_there(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.delenv(github.VARIABLE, raising=False)
    one = session(tmp_path / "a", [training()])
    assert "✅ 1 passed" in github.render([one], None)
    assert github.render([one], tmp_path / "s.md") is None
    assert "✅ 1 passed" in (tmp_path / "s.md").read_text()


def test_no_text_becomes_a_workflow_command_or_another_property(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.delenv(github.VARIABLE, raising=False)
    evil = "a,b::c%0A\n::set-output name=x::y\r\n##[group]z"
    found = [training(verdict="invalid", vendor=evil, chip=None, error=evil, node_id=evil.replace("::", ",,"))]
    text = github.render([session(tmp_path / "a", found)], None)
    commands = [line for line in text.splitlines() if line.lstrip().startswith(("::", "##["))]
    assert len(commands) == 1
    properties, _, message = commands[0].removeprefix("::error ").partition("::")
    assert "%250A%0A::set-output" in message
    assert properties.count(",") == 1
    assert "%2Cb%3A%3Ac%250A" in properties


def test_undecided_is_a_warning_and_no_more_than_ten_of_each_are_annotated(tmp_path: Path) -> None:
    found = [training(scale=f"s{number}", verdict="inconclusive") for number in range(12)]
    found += [training(scale=f"t{number}", verdict="invalid", error="x") for number in range(12)]
    lines = github.workflow_commands([session(tmp_path / "a", found)])
    assert [line.split()[0] for line in lines] == ["::error"] * 10 + ["::warning"] * 10


def test_a_report_that_cannot_be_written_says_where(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="report cannot be written"):
        comma_separated.render([session(tmp_path / "a", [training()])], tmp_path / "file" / "report.csv")


def test_a_case_that_a_later_session_resumed_is_reported_once(tmp_path: Path) -> None:
    first = session(tmp_path / "first", [training(), training(precision="amp", verdict="invalid", error="x")])
    note = "resumed: taken from session first, not run again"
    second = session(tmp_path / "second", [training(notes=[note]), training(precision="amp")])
    found = read_csv(comma_separated.render([first, second], None))
    assert {(row["session"], row["precision"]) for row in found} == {("second", "fp32"), ("second", "amp")}
    assert "✅ 2 passed" in markdown.render([first, second], None)


def test_with_several_sessions_a_row_says_which_it_is_of(tmp_path: Path) -> None:
    one, other = session(tmp_path / "first", [training()]), session(tmp_path / "second", [training()])
    assert "<code>first</code>" in markdown.render([one, other], None)
    assert "<code>first</code>" not in markdown.render([one], None)


# --- what a reader must not miss


def test_a_requirement_that_is_not_met_is_told_in_every_format(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.delenv(github.VARIABLE, raising=False)
    one = required(tmp_path / "a")
    text = markdown.render([one], None)
    assert "❌ 1 required, not met, ✅ 1 passed" in text
    assert text.index("scaling&#95;efficiency" if "scaling&#95;efficiency" in text else "scaling_efficiency") > 0
    assert "model&#58; 0.8" in text
    (line,) = github.workflow_commands([one])
    assert line == "::error title=required, not met%3A scaling_efficiency>=0.9::model: 0.8".replace(
        "required,", "required%2C"
    )
    row = read_csv(comma_separated.render([one], None))[-1]
    told = ("kind", "verdict", "metric", "target_direction", "target_bound", "target_met")
    assert [row[name] for name in told] == [
        *("requirement", "missed", "scaling_efficiency", "at least", "0.9", "false")
    ]


def test_the_workbook_tells_a_requirement_that_is_not_met(tmp_path: Path) -> None:
    pytest.importorskip("xlsxwriter")
    xlsx.render([required(tmp_path / "a")], tmp_path / "report.xlsx")
    assert [("s", "required: scaling_efficiency>=0.9"), ("s", "missed: model: 0.8")] in sheet(
        tmp_path / "report.xlsx", "summary"
    )


def test_what_differs_from_the_standard_case_is_told_in_every_format(tmp_path: Path) -> None:
    changed = "batch_size = 512 (standard case: 256), from vendors/x.toml"
    one = session(tmp_path / "a", [training(deviations=[changed], verdict="missed", quality=0.7)])
    text = markdown.render([one], None)
    assert "≠ 1 differ from the standard case" in text
    assert text.split("<details>")[0].count("≠ 1 from the standard case") == 1
    row = read_csv(comma_separated.render([one], None))[0]
    assert (row["deviations"], row["deviates_in"]) == ("1", changed)
    assert "≠ 1 from the standard case" in github.workflow_commands([one])[0]


def test_a_stand_in_is_told_at_the_top_of_the_comment(tmp_path: Path) -> None:
    text = markdown.render([session(tmp_path / "a", [training(stand_in="cpu")])], None)
    assert "1 ran on a stand-in" in text.split("<details>")[0]


def test_four_digits_hide_no_miss(tmp_path: Path) -> None:
    one = training(verdict="missed", quality=0.75896)
    text = markdown.render([session(tmp_path / "a", [one])], None)
    assert "top1 is 0.75896, the target" in text
    assert "top1 0.75896 &#40;target" in text or "top1 0.75896 (target" in text


@given(
    value=strategies.floats(1e-6, 1e9, allow_nan=False),
    bound=strategies.floats(1e-6, 1e9, allow_nan=False),
)
def test_a_figure_is_on_its_own_side_of_a_bound(value: float, bound: float) -> None:
    shown = float(reading.figure(value, bound).replace(",", ""))
    assert (shown < bound, shown > bound) == (value < bound, value > bound) or value == bound


def test_a_change_has_one_digit_behind_the_point(tmp_path: Path) -> None:
    comparison = ComparisonResult("p_train", "regressed", 80.0, 100.0, -0.204, None, "Welch", 0.02)
    (text,) = common.reasons(training(verdict="regressed", comparisons=[comparison]))
    assert "(-20.4 %, tolerance 2 %)" in text


def test_what_could_not_be_trusted_has_missed_no_target(tmp_path: Path) -> None:
    one = session(tmp_path / "a", [training(verdict="invalid", quality=0.1, error="boom")])
    found = {row["metric"]: row for row in read_csv(comma_separated.render([one], None))}
    assert found["top1"]["target_met"] == ""


def test_a_metric_that_nobody_measured_has_its_unit(tmp_path: Path) -> None:
    missing = ComparisonResult("p_train", "not comparable", None, 4900.0)
    one = session(tmp_path / "a", [training(metrics={}, comparisons=[missing])])
    found = {row["metric"]: row for row in read_csv(comma_separated.render([one], None))}
    assert (found["p_train"]["value"], found["p_train"]["unit"]) == ("", "samples/s")


def test_integer_operations_are_no_floating_point_ones(tmp_path: Path) -> None:
    one = session(tmp_path / "a", [operator("gemm", {"m": 1}, {"tflops": 76.0}, precision="int8")])
    found = {row["metric"]: row for row in read_csv(comma_separated.render([one], None))}
    assert found["tflops"]["unit"] == "TOP/s"
    assert "76 TOP/s" in markdown.render([one], None)


def test_excel_gets_the_mark_it_knows_utf8_by_where_it_is_asked_for(tmp_path: Path, capsys) -> None:
    session(tmp_path / "a", [training()])
    output = tmp_path / "report.csv"
    command = ["report", str(tmp_path / "a"), "--format", "csv", "--output", str(output)]
    assert cli.main(command) == 0
    assert output.read_bytes().startswith(b"session,")
    assert cli.main([*command, "--csv-encoding", "utf-8-sig"]) == 0
    assert output.read_bytes().startswith(b"\xef\xbb\xbfsession,")
    assert cli.main([*command, "--csv-encoding", "gb2312"]) == 1
    assert "--csv-encoding is 'gb2312'" in capsys.readouterr().err


def test_derived_figures_that_cannot_be_read_are_told_and_lose_no_report(tmp_path: Path) -> None:
    one = session(tmp_path / "a", [training()])
    (tmp_path / "a" / "derived.json").write_text("{")
    text = markdown.render([one], None)
    assert "✅ 1 passed" in text
    assert "not read: <code>" in text
    assert "derived.json" in text


def test_two_sessions_of_one_name_are_told_apart(tmp_path: Path) -> None:
    for place in ("x", "y"):
        session(tmp_path / place / "same", [training()])
    both = sessions.read_all([tmp_path / "x" / "same", tmp_path / "y" / "same"])
    found = read_csv(comma_separated.render(both, None))
    assert {row["session"] for row in found} == {"same", "same~2"}


def test_every_extra_that_is_named_anywhere_is_declared() -> None:
    declared = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"])
    places = [path for folder in ("pytest_flagperf", "docs", "examples", "benchmarks") for path in walk(ROOT / folder)]
    places += [*ROOT.glob("*.md"), ROOT / "pyproject.toml"]
    named = {
        (name.strip(), path.name)
        for path in places
        for group in re.findall(r"pytest-flagperf\\?\[([\w, -]+)\\?\]", path.read_text(errors="replace"))
        for name in group.split(",")
    }
    assert {"html", "excel", "torch"} <= {name for name, _ in named}
    assert {one for one in named if one[0] not in declared} == set()


def walk(folder: Path) -> list[Path]:
    """The files that people write."""
    found = [path for path in folder.rglob("*") if path.is_file()]
    return [path for path in found if path.suffix in (".py", ".md", ".toml", ".yml") or path.name == "Jenkinsfile"]


@pytest.mark.parametrize("name", [one for one in formats.FORMATS if one not in ("mllog", "xlsx")])
@pytest.mark.parametrize(
    "odd", [{"time_started": 1e300, "host": [1], "versions": 3}, {"device_list": {"a": 1}, "session": 5, "driver": []}]
)
def test_an_odd_description_of_a_session_makes_a_report_all_the_same(
    tmp_path: Path, monkeypatch, name: str, odd: dict
) -> None:
    monkeypatch.delenv(github.VARIABLE, raising=False)
    one = session(tmp_path / "a", [training(), inferred()])
    (tmp_path / "a" / "session.json").write_text(json.dumps(odd))
    again = sessions.read(one.directory)
    text = importlib.import_module(f"pytest_flagperf.reports.formats.{name}").render([again], None)
    assert "resnet50" in text.lower().replace("-", "")


def test_the_help_of_the_command_line_costs_no_import_of_pytest() -> None:
    program = "import sys; from pytest_flagperf.commands import report; sys.exit('pytest' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False).returncode == 0
