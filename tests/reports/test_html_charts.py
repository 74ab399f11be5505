"""The charts of the HTML report: curves with few points, and the band that a baseline lets expect."""

from __future__ import annotations

import math

import msgspec
import pytest

from pytest_flagperf.judging import curves
from pytest_flagperf.reports import html
from pytest_flagperf.reports.html import series
from tests.reports import html_sessions


pytest.importorskip("jinja2")
pytest.importorskip("bokeh")
pytest.importorskip("itables")


@pytest.fixture
def session(tmp_path):
    """Training that is well, missed and broken, one compared with a baseline, and operators."""
    return html_sessions.mixed(tmp_path / "session-a")


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


# --- the band of a baseline's curves


def quality(session) -> dict:
    """The chart of the first case's quality."""
    (case,) = html.data([session])["cases"]
    return next(chart for chart in case["charts"] if chart["title"] == "quality")


@pytest.fixture
def result():
    return html_sessions.case(1)


@pytest.fixture
def single(tmp_path, result):
    return html_sessions.write(tmp_path / "session", [result], description={"rounds": 2})


def test_a_chart_of_quality_has_the_band_that_the_case_was_to_stay_in(single, result):
    baseline = html_sessions.keep_baseline(single, result, html_sessions.learned())
    band = quality(single)["band"]
    assert (band["x"], band["mean"], band["rounds"]) == ([600, 1200, 1800], [0.5005, 0.7615, 0.7905], 8)
    assert all(low < mean < high for low, mean, high in zip(band["low"], band["mean"], band["high"], strict=True))
    assert band["limit"] == band["low"]
    # The figure that a run is told which is stopped there.
    reason = curves.band(result, baseline, rounds=2).outside(2.0, {"top1": 0.1})
    assert f"at least {band['limit'][1]:.6g} was to be expected" in reason


def test_the_band_is_as_wide_as_the_rounds_that_were_asked_for_make_it(tmp_path, result):
    found = []
    for rounds in (1, 10):
        session = html_sessions.write(tmp_path / f"of-{rounds}", [result], description={"rounds": rounds})
        html_sessions.keep_baseline(session, result, html_sessions.learned())
        found.append(quality(session)["band"]["limit"][0])
    assert found[0] > found[1]


def test_where_less_is_better_the_limit_is_the_upper_end(tmp_path, result):
    def renamed(one):
        return msgspec.json.decode(msgspec.json.encode(one).replace(b'"top1"', b'"perplexity"'), type=type(one))

    falling = renamed(result)
    session = html_sessions.write(tmp_path / "session", [falling])
    curves_of = {name: {**one, "perplexity": one["top1"]} for name, one in html_sessions.learned().items()}
    html_sessions.keep_baseline(session, falling, curves_of)
    band = quality(session)["band"]
    assert band["limit"] == band["high"]


@pytest.mark.parametrize(
    "change",
    [
        lambda one: msgspec.structs.replace(one, case=msgspec.structs.replace(one.case, chip="R200")),
        lambda one: msgspec.structs.replace(one, case=msgspec.structs.replace(one.case, stand_in="cpu")),
        lambda one: msgspec.structs.replace(one, configuration={}),
    ],
)
def test_what_was_not_judged_by_the_curves_has_no_band(tmp_path, result, change):
    session = html_sessions.write(tmp_path / "session", [change(result)])
    html_sessions.keep_baseline(session, result, html_sessions.learned())
    assert not quality(session).get("band")


def test_a_case_that_is_not_stopped_early_has_no_band(tmp_path):
    result = html_sessions.case(1, case=html_sessions.info(1, role="throughput"))
    session = html_sessions.write(tmp_path / "session", [result])
    html_sessions.keep_baseline(session, result, html_sessions.learned())
    assert not quality(session).get("band")


def test_a_baseline_with_few_curves_or_several_or_none_gives_no_band(single, result):
    assert not quality(single).get("band")
    html_sessions.keep_baseline(single, result, html_sessions.learned(4))
    assert not quality(single).get("band")
    html_sessions.keep_baseline(single, result, html_sessions.learned(8))
    assert not quality(single).get("band")


def test_a_long_band_has_no_more_points_than_other_curves(single, result):
    long = [(float(one), 600.0 * one, 0.5) for one in range(1, 3000)]
    html_sessions.keep_baseline(single, result, html_sessions.learned(curve=long))
    band = quality(single)["band"]
    assert series.FEWEST_POINTS <= len(band["x"]) <= series.MOST_POINTS
    assert (band["x"][0], band["x"][-1]) == (600, 600 * 2999)


@pytest.mark.parametrize("value", [1e308, -1e308, 5e-324])
def test_curves_that_nobody_measured_make_a_report_all_the_same(single, result, value):
    curve = html_sessions.learned(curve=[(1.0, 600.0, value), (2.0, 1e308, 0.5), (1e308, 3.0, 0.5)])
    html_sessions.keep_baseline(single, result, curve)
    assert quality(single)["series"]
    assert "NaN" not in msgspec.json.encode(quality(single)).decode()
