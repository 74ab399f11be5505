"""The HTML report in a real browser: sorting, filters, charts, switches; nothing that hostile text can do."""

from __future__ import annotations

import os
import re
import shutil

import pytest

from pytest_flagperf.reports import html
from pytest_flagperf.result import ErrorResult
from tests.reports import html_sessions
from tests.reports import inference_sessions
from tests.reports.html_sessions import HOSTILE


playwright = pytest.importorskip("playwright.sync_api")
pytest.importorskip("jinja2")
pytest.importorskip("bokeh")
pytest.importorskip("itables")

CHROMIUM = os.environ.get("CHROMIUM") or next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is on PATH, CHROMIUM names none"),
]


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as started:
        found = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture
def opened(browser):
    """Opens a file; at the end nothing may have gone wrong in the page, and nothing may have left it."""
    wrong: list[str] = []
    contexts = []

    def open_page(path, **options):
        contexts.append(browser.new_context(viewport={"width": 1400, "height": 1000}, **{"locale": "en-US", **options}))
        page = contexts[-1].new_page()
        page.set_default_timeout(20_000)
        page.on("console", lambda message: wrong.append(message.text) if message.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("dialog", lambda dialog: wrong.append(f"dialog {dialog.message}"))
        page.on("request", lambda request: None if _is_inside(request.url, path) else wrong.append(request.url))
        page.goto(path.as_uri())
        if options.get("java_script_enabled", True):
            page.wait_for_selector("html[data-ready]")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not wrong


def _is_inside(url: str, path) -> bool:
    return url.partition("#")[0] == path.as_uri() or url.startswith(("blob:", "data:"))


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """Training that is well, missed and broken, operators, two sessions."""
    directory = tmp_path_factory.mktemp("html")
    operators = [html_sessions.operator(number, time=10.0 ** (7 - number)) for number in range(1, 6)]
    first = html_sessions.write(
        directory / "first",
        [
            html_sessions.case(1, "regressed", comparisons=[html_sessions.comparison("regressed", -0.048)]),
            html_sessions.case(2, "missed", speed=99.0),
            html_sessions.case(3, "invalid", error=ErrorResult("RankCrashed", "rank 3 died"), speed=250.0),
            html_sessions.case(4, speed=12345.0),
            *operators,
            html_sessions.operator(6, "wrong", error=ErrorResult("WrongResult", "0.5 > 1e-6")),
        ],
    )
    second = html_sessions.write(
        directory / "second",
        [html_sessions.case(1, speed=900.0)],
        description={"time_started": 1.8e9, "driver": "5.0.21"},
    )
    return html.write([first, second], directory / "report.html")


def cells(page, table: str, column: int) -> list[str]:
    """The texts of a column, in the order they stand."""
    return page.locator(
        f"#{table} tbody tr td:nth-child({column}), #{table} tbody tr th:nth-child({column})"
    ).all_inner_texts()


def column_of(page, table: str, name: str) -> int:
    headings = page.locator(f"#{table} thead th").all_inner_texts()
    return next(number for number, text in enumerate(headings, 1) if text.strip().startswith(name))


def sort(page, table: str, name: str, direction: str) -> list[str]:
    """The texts of a column after a click on its heading."""
    column = column_of(page, table, name)
    page.locator(f"#{table} thead th").nth(column - 1).click()
    page.locator(f"#{table} thead th:nth-child({column})[aria-sort={direction}]").wait_for()
    return cells(page, table, column)


def test_a_click_on_a_heading_sorts_by_value_and_not_by_digits(opened, report):
    page = opened(report)
    assert sort(page, "case-table", "p_whole", "ascending") == ["99", "250", "900", "1,000", "12,345"]
    assert sort(page, "case-table", "p_whole", "descending") == ["12,345", "1,000", "900", "250", "99"]


def test_times_of_operators_sort_across_their_units(opened, report):
    page = opened(report)
    times = ["100 µs", "120 µs", "1 ms", "10 ms", "100 ms", "1 s"]
    assert sort(page, "family-1", "time", "ascending") == times


def test_typing_filters_the_rows_and_the_sections_below(opened, report):
    page = opened(report)
    page.locator("[data-for=case-table] input").fill("model2")
    playwright.expect(page.locator("#case-table tbody tr")).to_have_count(1)
    playwright.expect(page.locator("details.case:visible")).to_have_count(1)
    assert "1 of 5 rows" in page.locator("[data-for=case-table] output").inner_text()
    page.locator("[data-for=case-table] input").fill("")
    playwright.expect(page.locator("details.case:visible")).to_have_count(5)


def test_a_click_on_a_count_of_verdicts_shows_only_these(opened, report):
    page = opened(report)
    tile = page.locator("[data-show=regressed]")
    tile.click()
    playwright.expect(page.locator("#case-table tbody th")).to_have_text(["model1"])
    playwright.expect(page.locator("#family-1 tbody tr[data-verdict]")).to_have_count(0)
    tile.click()
    playwright.expect(page.locator("#case-table tbody tr")).to_have_count(5)
    page.locator("[data-for=family-1] select").select_option("wrong")
    playwright.expect(page.locator("#family-1 tbody tr")).to_have_count(1)


def hover(page, holder, share: float) -> str:
    """What is shown with the pointer at a share of the width of a chart."""
    canvas = holder.locator("canvas").first
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    tooltips = page.locator(".bk-Tooltip:visible")
    for step in range(120):
        # The chart listens once it is laid out, and to what is near a curve: the pointer moves until it is heard.
        page.mouse.move(box["x"] + share * box["width"], box["y"] + (0.2 + step % 30 / 50) * box["height"])
        if tooltips.count():
            parts = page.locator(".bk-tooltip-row-label:visible, .bk-tooltip-row-value:visible")
            return " ".join(parts.all_inner_texts())
        page.wait_for_timeout(50)
    pytest.fail("no tooltip")


def test_a_chart_shows_the_value_under_the_pointer(opened, report):
    page = opened(report)
    page.locator("#case-table a").first.click()
    power = page.locator("#case-1 figure", has_text="Device: power [W]")
    power.scroll_into_view_if_needed()
    canvas = power.locator("canvas").first
    canvas.wait_for()
    assert power.locator(".legend li").all_inner_texts() == ["device 0", "device 1"]
    tips = hover(page, power, 0.5)
    assert re.search("device [01]", tips)
    # In the middle of 30 s; a device draws a watt more each second, from 300 or 301 on.
    assert 310 < float(re.search(r"3\d\d", tips)[0]) < 320


@pytest.fixture
def with_band(tmp_path):
    """Builds the report of a case whose session keeps a baseline with these curves."""

    def build(**curves):
        result = html_sessions.case(1)
        session = html_sessions.write(tmp_path / "banded", [result], description={"rounds": 2})
        html_sessions.keep_baseline(session, result, html_sessions.learned(**curves))
        return html.write([session], tmp_path / "report.html")

    return build


def shades(page, holder) -> int:
    """How many colours fill more than a hundredth of a chart: its margin, its ground, and an area in it.

    A canvas is there, of one colour, before it is painted: that is waited for.
    """
    canvas = holder.locator("canvas").first
    for _ in range(200):
        if (found := _shades(canvas)) > 1:
            return found
        page.wait_for_timeout(50)
    pytest.fail("nothing was painted")


def _shades(canvas) -> int:
    data = canvas.evaluate(
        """one => {
            const counts = {};
            const { width, height } = one;
            if (!width || !height) return 0;
            const copy = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
            Object.assign(copy.canvas, { width, height });
            copy.drawImage(one, 0, 0);
            const bytes = copy.getImageData(0, 0, width, height).data;
            for (let i = 0; i < bytes.length; i += 4) {
                const colour = bytes.slice(i, i + 4).join();
                counts[colour] = (counts[colour] ?? 0) + 1;
            }
            return Object.values(counts).filter(count => count > width * height / 100).length;
        }"""
    )
    return int(data)


def test_the_band_of_a_baseline_is_behind_the_curve_and_tells_its_figures(opened, with_band):
    longer = [*html_sessions.LEARNED, (4.0, 2400.0, 0.8), (5.0, 3000.0, 0.8)]
    page = opened(with_band(curve=longer))
    page.locator("#case-table a").first.click()
    chart = page.locator("#case-1 figure", has_text="Quality: top1")
    chart.locator("canvas").first.wait_for()
    assert chart.locator(".legend li").all_inner_texts() == [
        *("round 1", "round 2", "prediction interval of 8 rounds of the baseline"),
        *("mean of the baseline", "limit: a run beyond it is stopped"),
    ]
    assert "target 0.759" in chart.locator("figcaption").inner_text()
    loss = page.locator("#case-1 figure", has_text="Training loss")
    assert shades(page, chart) > shades(page, loss)
    # Where the run has ended and the band has not.
    tips = hover(page, chart, 0.6)
    assert "step: 1800" in re.sub(r"\s+", " ", tips)
    assert "mean of the baseline: 0.7905" in re.sub(r"\s+", " ", tips)
    # What is under the pointer stays to be seen.
    assert shades(page, chart) > shades(page, loss)
    page.locator("[data-language=zh]").click()
    caption = page.locator("#case-1 figcaption", has_text="质量：top1")
    playwright.expect(caption).to_contain_text("基线 8 轮的预测区间")


def test_a_band_of_one_evaluation_is_seen_and_tells_its_figures(opened, with_band):
    page = opened(with_band(curve=[(2.0, 1200.0, 0.761)]))
    page.locator("#case-table a").first.click()
    chart = page.locator("#case-1 figure", has_text="Quality: top1")
    chart.locator("canvas").first.wait_for()
    assert "mean of the baseline: 0.7615" in re.sub(r"\s+", " ", hover(page, chart, 0.97))


def test_a_single_curve_shows_its_value_wherever_the_pointer_is_above_it(opened, report, tmp_path):
    session = html_sessions.write(tmp_path / "one", [html_sessions.operator(1)])
    page = opened(html.write([session], tmp_path / "report.html"))
    page.locator("#family-1 button.more").click()
    canvas = page.locator("#family-1 .child canvas").first
    canvas.wait_for()
    canvas.scroll_into_view_if_needed()
    assert "µs" in hover(page, page.locator("#family-1 .child"), 0.5)


def test_details_of_an_operator_come_and_go(opened, report):
    page = opened(report)
    button = page.locator("#family-1 button.more").first
    button.click()
    detail = page.locator("#family-1 .child")
    detail.wait_for()
    assert "column-major" in detail.inner_text()
    assert "converged" in detail.inner_text()
    playwright.expect(button).to_have_attribute("aria-expanded", "true")
    button.click()
    playwright.expect(page.locator("#family-1 .child")).to_have_count(0)


def test_the_language_switches_everywhere_and_a_filter_follows(opened, report):
    page = opened(report)
    page.locator("#case-table a").first.click()
    page.locator("[data-language=zh]").click()
    assert page.evaluate("document.documentElement.lang") == "zh-CN"
    assert page.locator("h1").inner_text() == "FlagPerf 测试报告"
    assert "训练损失" in page.locator("#case-1 figcaption").first.inner_text()
    page.locator("[data-for=case-table] input").fill("未达标")
    playwright.expect(page.locator("#case-table tbody th")).to_have_text(["model2"])
    page.evaluate("location.hash = 'case-2'")
    playwright.expect(page.locator("#case-2 caption").first).to_have_text("目标值")
    page.locator("[data-language=en]").click()
    assert page.locator("h1").inner_text() == "FlagPerf report"


def test_a_reader_whose_browser_is_chinese_begins_in_chinese(opened, report):
    assert opened(report, locale="zh-CN").locator("h2").first.inner_text() == "概要"


def contrast(page, selector: str) -> float:
    """The contrast of an element's text with its ground, as WCAG 2 has it."""
    return page.locator(selector).first.evaluate(
        """element => {
            const ground = from => {
                for (let one = from; one; one = one.parentElement) {
                    const colour = getComputedStyle(one).backgroundColor;
                    if (!colour.endsWith(", 0)")) return colour;
                }
                return "rgb(255, 255, 255)";
            };
            const light = colour => {
                const parts = colour.match(/[0-9.]+/g).slice(0, 3).map(part => part / 255);
                const [r, g, b] = parts.map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
                return 0.2126 * r + 0.7152 * g + 0.0722 * b;
            };
            const both = [light(getComputedStyle(element).color), light(ground(element))].sort((a, b) => b - a);
            return (both[0] + 0.05) / (both[1] + 0.05);
        }"""
    )


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_has_enough_contrast_in_both_themes(opened, report, theme):
    page = opened(report, color_scheme=theme)
    page.evaluate("location.hash = 'case-3'")
    page.locator("#case-3 .error").wait_for()
    badges = (".badge.good", ".badge.bad", ".badge.doubtful")
    for selector in (
        "body",
        "nav a",
        ".hint",
        "small",
        *badges,
        ".why",
        "thead th",
        "tr.differs td",
        ".error pre",
        ".on",
    ):
        assert contrast(page, selector) >= 4.5, selector


def test_the_theme_follows_the_system_until_it_is_chosen(opened, report):
    page = opened(report, color_scheme="dark")
    ground = "getComputedStyle(document.body).backgroundColor"
    assert page.evaluate(ground) == "rgb(20, 23, 28)"
    page.locator("[data-theme-choice=light]").click()
    assert page.evaluate(ground) == "rgb(255, 255, 255)"
    page.locator("[data-theme-choice=dark]").click()
    page.emulate_media(color_scheme="light")
    assert page.evaluate(ground) == "rgb(20, 23, 28)"


def test_print_is_light_and_without_controls(opened, report):
    page = opened(report, color_scheme="dark")
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert not page.locator(".controls").first.is_visible()
    assert page.locator("#case-table").is_visible()


def test_hostile_text_does_nothing_in_a_browser(opened, tmp_path):
    session = html_sessions.hostile(tmp_path / "session")
    page = opened(html.write([session], tmp_path / "report.html"))
    page.evaluate("location.hash = 'case-1'")
    page.locator("#case-1 .body").wait_for()
    page.evaluate("document.querySelectorAll('#case-1 details').forEach(one => { one.open = true })")
    page.locator("#case-1 .plot canvas").first.wait_for()
    page.locator("#family-1 button.more").click()
    page.locator("#family-1 .child canvas").first.wait_for()
    page.locator("[data-for=case-table] input").fill("<img src=x onerror=window.hacked=1>")
    page.locator("[data-for=case-table] input").fill("")
    page.locator("#case-table thead th").nth(1).click()
    page.locator("[data-language=zh]").click()
    assert page.evaluate("window.hacked") is None
    assert page.locator("main img, main script:not([type]), main b, [onclick], [onerror]").count() == 0
    shown = page.locator("#case-1 pre.log").first.evaluate("one => one.textContent")
    assert HOSTILE in shown


def test_without_scripts_sections_open_and_hold_their_tables(opened, report):
    page = opened(report, java_script_enabled=False)
    page.locator("#case-1 > summary").click()
    assert page.locator("#case-1 table").first.is_visible()
    assert page.locator("#case-table tbody tr").count() == 5
    assert not page.locator(".switches").is_visible()


def test_a_column_whose_first_cell_is_blank_sorts_by_value(opened, tmp_path):
    found = [html_sessions.case(1, metrics={}), *(html_sessions.case(n, speed=s) for n, s in ((2, 99.0), (3, 1234.0)))]
    page = opened(html.write([html_sessions.write(tmp_path / "s", found)], tmp_path / "report.html"))
    assert sort(page, "case-table", "p_whole", "ascending") == ["", "99", "1,234"]
    assert sort(page, "case-table", "p_whole", "descending") == ["1,234", "99", ""]


def test_opening_all_opens_what_is_within_and_printing_draws_its_charts(opened, tmp_path):
    session = html_sessions.write(tmp_path / "s", [html_sessions.case(number) for number in (1, 2, 3)])
    page = opened(html.write([session], tmp_path / "report.html"))
    page.locator("[data-open-all]").click()
    assert page.locator("details.case:not([open]), details.part:not([open])").count() == 0
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    playwright.expect(page.locator("#case-3 .plot:not([data-drawn])")).to_have_count(0)
    page.locator("[data-close-all]").click()
    assert page.locator("details.case[open]").count() == 0


def test_a_link_to_a_row_that_a_filter_hides_shows_it(opened, report):
    page = opened(report)
    page.locator("[data-for=family-1] input").fill("m128-")
    playwright.expect(page.locator("#family-1 tbody tr")).to_have_count(1)
    page.evaluate("location.hash = 'operator-6'")
    playwright.expect(page.locator("#operator-6")).to_be_in_viewport()


def test_a_row_is_found_by_the_id_of_its_case(opened, report):
    page = opened(report)
    page.locator("[data-for=case-table] input").fill("model2-convergence-pytorch")
    playwright.expect(page.locator("#case-table tbody th")).to_have_text(["model2"])


def test_a_browser_that_cannot_unpack_the_libraries_shows_the_tables(browser, report):
    page = browser.new_page()
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.add_init_script("delete window.DecompressionStream")
    page.goto(report.as_uri())
    page.wait_for_selector("html[data-ready]")
    assert page.locator("#case-table tbody tr").count() == 5
    page.evaluate("location.hash = 'case-1'")
    playwright.expect(page.locator("#case-1 .plot").first).to_contain_text("Charts need JavaScript")
    page.locator("#family-1 button.more").first.click()
    assert "column-major" in page.locator("#family-1 .child").inner_text()
    page.locator("#family-1 button.more").first.click()
    playwright.expect(page.locator("#family-1 .child")).to_have_count(0)
    page.close()
    assert not wrong


def test_the_language_switches_title_and_open_details(opened, report):
    page = opened(report)
    page.locator("#family-1 button.more").first.click()
    page.locator("[data-language=zh]").click()
    assert page.title() == "FlagPerf 测试报告 first, second"
    assert "结束原因" in page.locator("#family-1 .child").inner_text()
    assert "：" not in re.sub("：(?! )", "", page.locator("main").inner_text())


def test_every_column_of_the_table_of_cases_fits_a_common_screen(opened, report):
    page = opened(report)
    widths = "[document.querySelector('#case-table').offsetWidth, document.querySelector('main').offsetWidth]"
    table, room = page.evaluate(widths)
    assert table <= room


def test_without_scripts_details_of_operators_open(opened, report):
    page = opened(report, java_script_enabled=False)
    page.locator("#operator-1 summary").click()
    assert page.locator("#operator-1 .child").is_visible()
    assert not page.locator("button.more").first.is_visible()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_border_of_an_input_is_seen(opened, report, theme):
    page = opened(report, color_scheme=theme)
    found = page.locator(".controls input").first.evaluate(
        """one => {
            const light = colour => {
                const parts = colour.match(/[0-9.]+/g).slice(0, 3).map(part => part / 255);
                const [r, g, b] = parts.map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
                return 0.2126 * r + 0.7152 * g + 0.0722 * b;
            };
            const own = getComputedStyle(one);
            const grounds = [own.backgroundColor, getComputedStyle(document.body).backgroundColor].map(light);
            return Math.min(...grounds.map(ground => {
                const both = [light(own.borderTopColor), ground].sort((a, b) => b - a);
                return (both[0] + 0.05) / (both[1] + 0.05);
            }));
        }"""
    )
    assert found >= 3


@pytest.fixture(scope="module")
def inferred(tmp_path_factory):
    """Training beside inference: at the edge, and as a server."""
    directory = tmp_path_factory.mktemp("inference")
    # A thousand queries, ten of which take long.
    latencies = [*range(10_000_000, 12_000_000, 2_000), *range(200_000_000, 210_000_000, 1_000_000)]
    session = inference_sessions.write(
        directory / "session",
        [
            (inference_sessions.inferred("edge"), inference_sessions.edge(latencies)),
            (inference_sessions.inferred("server"), inference_sessions.server()),
        ],
    )
    trained = html_sessions.write(directory / "trained", [html_sessions.case(1)])
    return html.write([session, trained], directory / "report.html")


def test_latencies_of_inference_are_told_under_the_pointer_in_both_themes(opened, inferred):
    for theme in ("light", "dark"):
        page = opened(inferred, color_scheme=theme)
        page.locator("#inference-table a").first.click()
        page.locator("#case-1 .charts").scroll_into_view_if_needed()
        chart = page.locator("#case-1 figure", has_text="Latency of queries")
        chart.locator("canvas").first.wait_for()
        tips = re.sub(r"\s+", " ", hover(page, chart, 0.2))
        # The axis is logarithmic: most of the queries are on its first part.
        told = re.search(r"ms: ([\d.]+) share of queries: ([\d.]+)", tips)
        milliseconds, share = map(float, told.groups())
        assert 10 <= milliseconds <= 12
        assert share == pytest.approx((milliseconds - 10 + 0.002) / 2 * 1000 / 1010, abs=0.01)
        assert shades(page, chart) > 0


def test_the_load_of_a_server_shows_each_rate_and_what_became_of_it(opened, inferred):
    page = opened(inferred)
    page.locator("#inference-table a").nth(1).click()
    page.locator("#case-2 .charts").scroll_into_view_if_needed()
    chart = page.locator("#case-2 figure", has_text="Latency over load")
    chart.locator("canvas").first.wait_for()
    assert chart.locator(".legend li").all_inner_texts() == [
        *("●held the bound", "✕did not", "◆the run that is the result"),
    ]
    assert "bound of latency, 15 ms" in chart.locator("figcaption").inner_text()
    page.locator("[data-language=zh]").click()
    caption = page.locator("#case-2 figcaption", has_text="时延随负载变化")
    playwright.expect(caption).to_contain_text("满足上限")
    playwright.expect(page.locator("#case-2 .steps caption")).to_have_text("最后一轮的各步骤")


def test_a_filter_of_inference_leaves_training_alone(opened, inferred):
    page = opened(inferred)
    page.locator("[data-for=inference-table] input").fill("server")
    playwright.expect(page.locator("#inference-table tbody tr")).to_have_count(1)
    playwright.expect(page.locator("#case-table tbody tr")).to_have_count(1)
    playwright.expect(page.locator("details.case:visible")).to_have_count(2)
    page.locator("[data-show=passed]").click()
    playwright.expect(page.locator("#case-table tbody tr")).to_have_count(1)


def test_every_column_of_the_table_of_inference_fits_a_common_screen(opened, inferred):
    page = opened(inferred)
    widths = "[document.querySelector('#inference-table').offsetWidth, document.querySelector('main').offsetWidth]"
    table, room = page.evaluate(widths)
    assert table <= room


def test_the_steps_of_a_round_are_printed_where_grounds_are_not(opened, inferred):
    page = opened(inferred)
    page.locator("#inference-table a").first.click()
    page.emulate_media(media="print")
    bar = page.locator("#case-1 .steps td.span span").nth(3)
    assert bar.evaluate("one => parseFloat(getComputedStyle(one).borderTopWidth)") > 5
    wide, short = (page.locator("#case-1 .steps td.span span").nth(n).bounding_box()["width"] for n in (3, 4))
    assert wide > 4 * short
