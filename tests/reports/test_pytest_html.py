"""Our columns in pytest-html's file: what the terminal and JUnit say, as text, and none where no case ran."""

from __future__ import annotations

import json
import os
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest

from pytest_flagperf import result as results
from pytest_flagperf.operators import table
from pytest_flagperf.reports import junit
from pytest_flagperf.reports import terminal
from tests.reports import html_sessions
from tests.reports.html_sessions import HOSTILE
from tests.reports.inference_sessions import inferred


pytest.importorskip("pytest_html")

COLUMNS = [
    *("verdict", "vs baseline", "quality", "p_train", "p_infer_core", "latency p99", "e2e", "memory"),
    *("time", "of peak"),
]
MODES = {"serial": [], "n2": ["-n", "2"]}
INI = "[pytest]\n"
# Tests that say what the launcher says of a result which is on disk.
MODULE = """
import json
from pathlib import Path

import pytest

FOUND = json.loads(Path(__file__).with_name("properties.json").read_text())


def test_of_somebody_else():
    pass


@pytest.mark.parametrize("name", FOUND)
def test_case(name, record_property):
    for key, value in FOUND[name]:
        record_property(key, value)
"""


class Page(HTMLParser):
    """The file that pytest-html wrote: the columns that it names, and the cells of each test."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.text = path.read_text(encoding="utf-8")
        self.columns: list[str] = []
        self.cells: dict[str, list[str]] = {}
        self.keys: dict[str, dict[str, str]] = {}
        self._heading = False
        self.feed(self.text)

    def handle_starttag(self, tag, attrs):
        self._heading = tag == "th"
        if dict(attrs).get("id") == "data-container":
            for node, attempts in json.loads(dict(attrs)["data-jsonblob"])["tests"].items():
                name = node.partition("::")[2]
                self.cells[name] = [plain(cell) for cell in attempts[-1]["resultsTableRow"]]
                self.keys[name] = {key.removeprefix("flagperf_"): attempts[-1].get(key, "") for key in attempts[-1]}

    def handle_endtag(self, tag):
        self._heading = False

    def handle_data(self, data):
        if self._heading:
            self.columns.append(data)

    def of(self, name: str) -> dict[str, str]:
        """The cells of a test, by column."""
        return dict(zip(self.columns, self.cells[name], strict=True))


def plain(cell: str) -> str:
    """What a reader sees of a cell; anything that would be markup in it stays."""
    inner = re.fullmatch(r'<td class="[\w-]+">(.*)</td>', cell)[1]
    return re.sub(r"^<!--[\w.-]*-->", "", inner)


def reported(pytester: pytest.Pytester, found: list[results.Result], *options: str, ini: str = INI) -> Page:
    """The page of a session with these results, beside a test that is none of ours."""
    directory = html_sessions.write(pytester.path / "session", found)
    properties = {}
    for number, one in enumerate(found, 1):
        operator = one.case.kind == "operator"
        where = directory / ("operators/main" if operator else f"case{number}")
        properties[f"n{number}"] = junit.properties(one, where)
    (pytester.path / "properties.json").write_text(json.dumps(properties), encoding="utf-8")
    pytester.makepyfile(test_it=MODULE)
    (pytester.path / "pytest.ini").write_text(ini, encoding="utf-8")
    run = pytester.runpytest_subprocess if options else pytester.runpytest_inprocess
    done = run("--html=page.html", "-p", "no:cacheprovider", *options)
    # What is amiss fails its test, since none of these asserts anything.
    outcomes = done.parseoutcomes()
    assert outcomes.get("passed", 0) + outcomes.get("failed", 0) == len(found) + 1
    return Page(pytester.path / "page.html")


@pytest.mark.parametrize("options", MODES.values(), ids=MODES)
def test_a_case_has_the_figures_of_the_terminals_table_and_an_operator_its_own(pytester, options):
    case = html_sessions.case(
        1,
        "regressed",
        comparisons=[html_sessions.comparison("regressed", -0.048)],
        metrics=results.with_units({"p_train": 1234.5, "e2e_time": 90.0, "memory_peak": 0.41, "memory_total": 23.5}),
    )
    edge = inferred("edge", metrics={"p_inference_core": 95.25, "latency_p99": 18.75, "memory_peak": 0.05})
    page = reported(pytester, [case, html_sessions.operator(2), edge], *options)
    cells = page.of("test_case[n1]")
    assert {name: cells[name] for name in COLUMNS} == {
        "verdict": "regressed",
        "vs baseline": terminal.change(case),
        "quality": "top1 0.7610 &gt;= 0.759",
        "p_train": "1,234.5",
        "p_infer_core": "",
        "latency p99": "",
        "e2e": "90.0 s",
        "memory": "0.41/23.5 GiB",
        "time": "",
        "of peak": "",
    }
    cells = page.of("test_case[n2]")
    assert [cells[name] for name in COLUMNS] == ["passed (estimated peak)", *[""] * 7, "120 µs", "42.0 %"]
    cells = page.of("test_case[n3]")
    figures = ["top1 0.7610 &gt;= 0.757", "", "95.2 images/s", "18.8 ms", "", "51.2 MiB", "", ""]
    assert [cells[name] for name in COLUMNS] == ["passed", "", *figures]
    assert f"FlagPerf: 1 regressed, 2 passed. Results: {pytester.path / 'session'}" in page.text


def test_in_xdists_controller_what_was_reported_before_the_first_result_has_its_cells_too(pytester):
    # One worker runs them in their order.
    page = reported(pytester, [html_sessions.case(1), html_sessions.operator(2)], "-n", "1")
    assert next(iter(page.cells)) == "test_of_somebody_else"
    assert [page.of("test_of_somebody_else")[name] for name in COLUMNS] == [""] * len(COLUMNS)
    assert [page.keys["test_of_somebody_else"][name.replace(" ", "_")] for name in COLUMNS] == [""] * len(COLUMNS)
    assert page.of("test_case[n1]")["verdict"] == "passed"


def test_what_failed_to_be_collected_has_its_cells_too(pytester):
    pytester.makepyfile(test_broken="import no_such_module")
    page = reported(pytester, [html_sessions.case(1)], "--continue-on-collection-errors")
    (broken,) = [cells for node, cells in page.cells.items() if "test_case" not in node and "somebody" not in node]
    assert len(broken) == len(page.columns)


def test_a_verdict_has_the_remarks_that_the_terminal_has_with_it(pytester):
    measured = {"facts": {"peak": {"value": 128.0, "unit": "TFLOP/s", "source": "data sheet", "estimated": False}}}
    stood_in = html_sessions.operator(2, case={"stand_in": "cpu"}, **measured)
    page = reported(pytester, [html_sessions.operator(1), stood_in, html_sessions.operator(3, **measured)])
    assert "passed (estimated peak)" in table.text([html_sessions.operator(1)])
    assert page.of("test_case[n1]")["verdict"] == "passed (estimated peak)"
    (remark,) = [one for one in terminal.remarks(stood_in) if "ran on" in one]
    assert page.of("test_case[n2]")["verdict"] == f"passed ({remark})"
    assert page.of("test_case[n3]")["verdict"] == "passed"


def test_without_a_case_pytest_html_writes_what_it_writes_without_the_plugin(pytester):
    pytester.makepyfile("def test_it(): pass")
    written = []
    for options in ([], ["-p", "no:flagperf"]):
        pytester.runpytest_subprocess("--html=page.html", "-p", "no:cacheprovider", *options).assert_outcomes(passed=1)
        page = Page(pytester.path / "page.html")
        written.append((page.columns, [len(row) for row in page.cells.values()]))
        assert not any(name in page.columns for name in COLUMNS)
        assert "FlagPerf:" not in page.text
    assert written[0] == written[1]


def test_without_a_case_nothing_is_imported_for_the_columns(pytester, monkeypatch):
    monkeypatch.delenv("FLAGPERF_DATA_ROOT")
    pytester.makepyfile("def test_it(): pass")
    pytester.makeconftest(
        "import sys\n"
        "def pytest_unconfigure():\n"
        "    heavy = ('msgspec', 'tabulate', 'pytest_flagperf.result')\n"
        "    print('LOADED', *(name for name in heavy if name in sys.modules))\n"
    )
    # Other plugins import what they like.
    options = ("-p", "no:allure_pytest", "-p", "no:xdist", "-p", "no:hypothesispytest", "-p", "no:anyio")
    done = pytester.runpytest_subprocess("--html=page.html", "-p", "no:cacheprovider", *options)
    done.assert_outcomes(passed=1)
    assert "LOADED" in done.outlines


def test_a_figure_sorts_by_its_value_and_a_verdict_by_how_bad_it_is(pytester):
    speeds = (99.0, 1234.5, 250.0, 12345.0)
    found = [
        html_sessions.case(number, verdict, metrics=results.with_units({"p_train": speed}))
        for number, (verdict, speed) in enumerate(
            zip(("passed", "invalid", "regressed", "missed"), speeds, strict=True), 1
        )
    ]
    keys = reported(pytester, found).keys
    tests = [f"test_case[n{number}]" for number in (1, 2, 3, 4)]
    by_speed = sorted(tests, key=lambda name: keys[name]["p_train"])
    assert [int(name[-2]) for name in by_speed] == [1, 3, 2, 4]
    by_verdict = sorted(tests, key=lambda name: keys[name]["verdict"])
    assert [int(name[-2]) for name in by_verdict] == [2, 4, 3, 1]


def test_a_loss_sorts_before_a_gain(pytester):
    changes = (0.02, -0.3, -0.05, 1.5)
    found = [
        html_sessions.case(number, "passed", comparisons=[html_sessions.comparison("passed", change)])
        for number, change in enumerate(changes, 1)
    ]
    keys = reported(pytester, found).keys
    ordered = sorted(range(1, 5), key=lambda number: keys[f"test_case[n{number}]"]["vs_baseline"])
    assert ordered == [2, 3, 1, 4]


def test_what_somebody_else_wrote_stays_text(pytester, tmp_path_factory):
    hostile = html_sessions.hostile(tmp_path_factory.mktemp("hostile") / "session")
    case = results.read_result(next(hostile.glob("case*/result.json")))
    kernel = results.read_results(hostile / "operators" / "main" / "results.jsonl")[0]
    page = reported(pytester, [case, kernel])
    assert [name for name in page.columns if name in COLUMNS] == COLUMNS
    for cells in page.cells.values():
        assert not [cell for cell in cells if "<" in cell or ">" in cell]
    assert "&lt;script&gt;" in page.of("test_case[n1]")["verdict"]
    assert "<script>window.hacked" not in page.text
    assert HOSTILE not in page.text


def test_properties_that_do_not_stand_in_the_testcase_change_no_column(pytester):
    page = reported(pytester, [html_sessions.operator(1)], ini=f"{INI}flagperf_junit_properties = none\n")
    assert page.of("test_case[n1]")["time"] == "120 µs"


def test_a_result_that_cannot_be_read_is_said_beside_its_test(pytester):
    pytester.makeconftest(
        "import pytest\n"
        "@pytest.hookimpl(tryfirst=True)\n"
        "def pytest_runtest_call(item):\n"
        "    for path in item.config.rootpath.glob('session/*/result.json'):\n"
        "        path.write_text('{')\n"
    )
    verdict = reported(pytester, [html_sessions.case(1)]).of("test_case[n1]")["verdict"]
    assert "result.json" in verdict
    assert "cannot be read" in verdict


def test_columns_and_rows_that_a_conftest_takes_out_stay_out(pytester):
    pytester.makeconftest(
        "def pytest_html_results_table_header(cells):\n"
        "    cells.pop()\n"
        "def pytest_html_results_table_row(report, cells):\n"
        "    cells.pop()\n"
        "    if 'n2' in report.nodeid: del cells[:]\n"
    )
    page = reported(pytester, [html_sessions.case(1), html_sessions.case(2)])
    assert page.columns == ["Result", "Test", "Duration", *COLUMNS]
    assert page.of("test_case[n1]")["e2e"] == "3,600.0 s"
    assert "test_case[n2]" not in page.cells


def test_of_a_session_all_of_whose_cases_are_deselected_there_is_no_column(pytester, suite):
    pytester.makepyfile("def test_it(): pass")
    (pytester.path / "pytest.ini").write_text(INI, encoding="utf-8")
    pytester.runpytest_subprocess(".", "--html=page.html", "-m", "not training").assert_outcomes(passed=1, deselected=2)
    assert not set(COLUMNS) & set(Page(pytester.path / "page.html").columns)


@pytest.mark.slow
@pytest.mark.pytorch
@pytest.mark.parametrize("options", MODES.values(), ids=MODES)
def test_a_real_session_has_the_verdicts_and_figures_of_its_results(pytester, suite, options):
    (pytester.path / "pytest.ini").write_text(INI, encoding="utf-8")
    # Collected before the suite.
    pytester.makepyfile(a_test="def test_of_somebody_else(): pass")
    done = pytester.runpytest_subprocess(
        ".",
        "--html=page.html",
        "-p",
        "no:cacheprovider",
        "--flagperf-dir=results",
        "--target=top1=0.9999",
        *options,
    )
    done.assert_outcomes(passed=2, failed=1)
    page = Page(pytester.path / "page.html")
    assert [page.of("test_of_somebody_else")[name] for name in COLUMNS] == [""] * len(COLUMNS)
    found = [results.read_result(path) for path in (pytester.path / "results").glob("*/*/result.json")]
    assert sorted(one.verdict for one in found) == ["missed", "passed"]
    for one in found:
        cells = page.of(one.case.node_id.partition("::")[2])
        assert cells["verdict"] == one.verdict
        assert cells["p_train"] == f"{one.metrics['p_train'].value:,.1f}"
        assert cells["e2e"] == f"{one.metrics['e2e_time'].value:,.1f} s"
        assert cells["quality"] == terminal.quality(one).replace("<", "&lt;")


@pytest.mark.slow
def test_a_browser_shows_the_columns_and_sorts_by_them(pytester):
    playwright = pytest.importorskip("playwright.sync_api")
    chromium = os.environ.get("CHROMIUM") or next(
        filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
    )
    if chromium is None:
        pytest.skip("no Chromium is on PATH, CHROMIUM names none")
    found = [
        html_sessions.case(number, metrics=results.with_units({"p_train": speed}))
        for number, speed in enumerate((99.0, 1234.5, 250.0), 1)
    ]
    reported(pytester, found, "--self-contained-html")
    wrong: list[str] = []
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page()
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.goto((pytester.path / "page.html").as_uri())
        page.locator('th[data-column-type="flagperf_p_train"]').click()
        column = page.locator("#results-table-head th").all_inner_texts().index("p_train") + 1
        shown = page.locator(f"tr.collapsible td:nth-child({column})").all_inner_texts()
        browser.close()
    assert [text for text in shown if text] in (["99.0", "250.0", "1,234.5"], ["1,234.5", "250.0", "99.0"])
    assert not wrong
