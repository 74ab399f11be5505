"""Baseline files: what they say, what is refused of them, which one is found, and how sessions become one."""

from __future__ import annotations

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_flagperf import sessions
from pytest_flagperf.errors import ConfigurationError
from pytest_flagperf.judging import baselines
from pytest_flagperf.judging import gathering
from pytest_flagperf.judging import toml_writer
from tests.conftest import ROOT
from tests.judging.conftest import CASE_ID
from tests.judging.conftest import make_result
from tests.judging.conftest import replaced


FILE = """
schema_version = 1
vendor = "acme"
chip = "A1"

[[case]]
id = "toy"

[case.metric.p_train]
unit = "samples/s"
better = "higher"

[case.metric.p_train.samples]
20261122-091200-3f2a10 = [100.0, 101.0]
"""


def write(path, text=FILE):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_a_file_is_read_as_it_is_documented(tmp_path):
    found = baselines.load(write(tmp_path / "A1.toml"))
    metric = found.of("toy").metric["p_train"]
    assert metric.values == [100.0, 101.0]
    assert (found.chip, found.origin) == ("A1", str(tmp_path / "A1.toml"))
    assert found.of("other") is None


def test_the_example_in_the_module_is_a_baseline(tmp_path):
    text = "\n".join(
        line[4:] for line in baselines.__doc__.partition("toml")[2].splitlines() if line.startswith("    ")
    )
    found = baselines.load(write(tmp_path / "R300.toml", text))
    assert found.case[0].metric["p_train"].bound == 2900


def test_the_example_of_the_how_to_is_a_baseline_as_rebase_writes_it(tmp_path):
    page = (ROOT / "docs" / "how-to" / "keep-a-baseline.md").read_text(encoding="utf-8")
    example = page.partition("```toml\n# R300.toml\n")[2].partition("```")[0]
    assert baselines.text(baselines.load(write(tmp_path / "R300.toml", example))) == example


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (FILE.replace('better = "higher"', 'better = "up"'), r"case toy: metric.p_train: better = 'up'"),
        (FILE.replace("[100.0, 101.0]", '["fast"]'), r"Expected `float`, got `str` - at `\$\.case\[0\]\.metric"),
        (FILE.replace("samples/s", "s"), "metric.p_train: unit 's', better 'higher'; the metric has 'samples/s'"),
        (FILE.replace("101.0]", "inf]"), "metric.p_train: a figure is infinite or NaN"),
        (FILE.replace('better = "higher"', 'better = "higher"\ntolerance = 5'), "tolerance = 5 is not a ratio"),
        (FILE.replace("unit =", "units ="), "unknown field `units`|missing required field `unit`"),
        (FILE + '\n[[case]]\nid = "toy"\n', "case toy is there twice"),
        (
            FILE.replace("schema_version = 1", "schema_version = 7"),
            r"schema_version 7 is not one this version reads \(1\)",
        ),
        (FILE.replace('chip = "A1"', 'origin = "x"'), "unknown field `origin`"),
        (FILE + '[case.curve."s round 1"]\nepoch = [1.0]\ntop1 = []\n', "curve.s round 1: columns of one length"),
        ("not toml", "A1.toml: "),
        ("", "A1.toml: .*`vendor`"),
        ("x = " + "[" * 5000, "A1.toml: "),
    ],
)
def test_what_is_wrong_with_a_file_is_said_with_file_and_key(tmp_path, text, message):
    path = write(tmp_path / "A1.toml", text)
    with pytest.raises(ConfigurationError, match=message) as raised:
        baselines.load(path)
    assert str(path) in str(raised.value)


def test_a_file_that_is_not_there_is_a_configuration_error(tmp_path):
    with pytest.raises(ConfigurationError, match=r"gone.toml"):
        baselines.load(tmp_path / "gone.toml")


def test_a_file_that_is_written_is_read_as_the_same_and_written_the_same(tmp_path):
    result = make_result(
        {"p_train": [1.0, 2.5e-7], "memory_peak": [3.0, 4.0]},
        configuration={"sizes": [128, 64], "name": 'a "quoted"\n\x7f name', "nested": {"b": 1}, "unset": None},
        stack={"torch": "2.13.0+cpu"},
    )
    one = baselines.Baseline(vendor="acme", chip="A1", case=[gathering.of_result(result, "s 1")])
    metric = baselines.MetricBaseline("samples/s", "higher", {"s": [1.0]}, tolerance=0.0, bound=0.0, reasons=["r"])
    one.case[0].metric["p_train"] = metric
    path = tmp_path / "A1.toml"
    baselines.write(path, one)
    again = baselines.load(path)
    assert baselines.text(again) == path.read_text()
    assert again.case == one.case
    assert again.case[0].configuration == {"sizes": [128, 64], "name": 'a "quoted"\n\x7f name', "nested": {"b": 1}}


def test_a_further_session_is_a_further_line_for_each_metric():
    old = gathering.of_result(make_result({"p_train": [100.0, 101.0]}), "monday")
    new = gathering.of_result(make_result({"p_train": [102.0, 103.0]}), "tuesday")
    before, after = (
        baselines.text(baselines.Baseline(vendor="acme", case=[case])).splitlines()
        for case in (old, gathering.joined(old, new))
    )
    assert [line for line in after if line not in before] == ["tuesday = [102.0, 103.0]"]
    assert [line for line in before if line not in after] == []


values = st.recursive(
    st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=12,
)


@given(st.dictionaries(st.text(), values, max_size=5))
def test_whatever_is_written_as_toml_is_read_as_the_same(document):
    assert tomllib.loads(toml_writer.text(document)) == document


def find(given_path, *directories, chip="A1", hardware=""):
    return baselines.find(given_path, vendor="acme", chip=chip, hardware=hardware, directories=directories)


def test_the_vendors_own_file_for_the_chip_is_found_and_an_earlier_directory_wins(tmp_path):
    for name in ("mine", "shipped"):
        write(tmp_path / name / "acme" / "baselines" / "A1.toml")
    found = find(None, tmp_path / "mine", tmp_path / "shipped")
    assert found.origin == str(tmp_path / "mine" / "acme" / "baselines" / "A1.toml")
    assert find(None, tmp_path / "mine", chip="B2") is None


def test_a_baseline_that_is_named_goes_before_the_vendors_own(tmp_path):
    write(tmp_path / "vendors" / "acme" / "baselines" / "A1.toml")
    named = write(tmp_path / "mine.toml")
    assert find(named, tmp_path / "vendors").origin == str(named)
    write(tmp_path / "many" / "A1.toml")
    assert find(tmp_path / "many", tmp_path / "vendors").origin == str(tmp_path / "many" / "A1.toml")


def test_a_directory_without_the_chip_has_no_baseline_of_any_case_and_says_which_files_it_has(tmp_path):
    write(tmp_path / "many" / "B2.toml")
    found = find(tmp_path / "many")
    assert found.case == []
    assert found.origin.endswith("many, which has B2.toml and no A1.toml")


def test_devices_without_a_chip_have_a_file_by_their_own_name():
    assert baselines.file_name(None, "AMD EPYC, 2 processors") == "amd-epyc-2-processors.toml"
    assert baselines.file_name("MLU370-X8", "whatever") == "MLU370-X8.toml"
    assert baselines.file_name(None) == "unknown.toml"


@pytest.mark.parametrize(
    ("description", "expected"),
    [
        ({"device_list": [{"name": "EPYC"}], "host": {"cpu": "EPYC", "cpus": 2}}, "EPYC, 2 processors"),
        ({"device_list": [{"name": "A1"}, {"name": "A1"}], "host": {"cpu": "EPYC", "cpus": 2}}, "A1"),
        ({}, ""),
        ({"device_list": "torn", "host": None}, ""),
    ],
)
def test_hardware_is_called_by_its_devices(description, expected):
    assert baselines.hardware(description) == expected


def test_a_session_is_a_baseline_and_several_in_a_directory_are_one(write_session):
    first = write_session("monday", make_result({"p_train": [100.0, 101.0]}), started=1.0)
    write_session("tuesday", make_result({"p_train": [102.0]}), started=90_000.0)
    assert find(first).of(CASE_ID).metric["p_train"].samples == {"monday": [100.0, 101.0]}
    both = find(first.parent)
    assert both.of(CASE_ID).metric["p_train"].samples == {"monday": [100.0, 101.0], "tuesday": [102.0]}
    assert [(one.name, one.date, one.commit) for one in both.session] == [
        ("monday", "1970-01-01", "abc1234"),
        ("tuesday", "1970-01-02", "abc1234"),
    ]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"verdict": "invalid"}, "the measurement is invalid"),
        ({"verdict": "missed"}, "a target was missed"),
        ({"verdict": "wrong"}, "the kernel's answer is wrong"),
        ({"stand_in": "cpu"}, "cpu stood in"),
        ({"metrics": {}}, "nothing was measured"),
    ],
)
def test_what_is_no_good_measurement_is_no_baseline_and_why_is_told(write_session, changes, reason):
    found = find(write_session("monday", replaced(make_result({"p_train": [100.0]}), **changes)))
    assert found.case == []
    assert reason in found.left_out[CASE_ID]


def test_sessions_of_two_chips_are_no_baseline(write_session):
    one = make_result({"p_train": [100.0]})
    paths = [write_session("monday", one), write_session("tuesday", replaced(one, chip="B2"))]
    with pytest.raises(ConfigurationError, match=r"several kinds of devices \(monday: acme A1; tuesday: acme B2\)"):
        gathering.from_sessions(sessions.read_all(paths))


def test_the_newest_hundred_samples_are_kept():
    metric = baselines.MetricBaseline("s", "lower", {"a": [1.0] * 90, "b": [2.0] * 5})
    found = gathering.with_samples(metric, {"c": [3.0] * 10})
    assert {name: len(samples) for name, samples in found.samples.items()} == {"a": 85, "b": 5, "c": 10}
    assert gathering.with_samples(metric, {"c": [3.0] * 120}).samples == {"c": [3.0] * 100}


def test_a_session_that_is_merged_again_counts_once():
    metric = baselines.MetricBaseline("s", "lower", {"a": [1.0, 1.1]})
    assert gathering.with_samples(metric, {"a": [1.0, 1.1]}) == metric


def test_few_metrics_are_judged_where_nobody_chose():
    figures = {
        name: [1.0] for name in ("e2e_time", "init_time", "p_whole", "p_train", "p_core", "memory_peak", "power")
    }
    assert gathering.judged(make_result(figures)) == ["p_train", "memory_peak"]
    case = gathering.of_result(make_result(figures), "s", chosen=["power"])
    assert list(case.metric) == ["p_train", "memory_peak", "power"]


def test_a_result_that_was_resumed_is_in_a_baseline_once(write_session):
    note = "resumed: taken from session monday, not run again"
    monday, other = make_result({"p_train": [100.0] * 5}), make_result({"p_train": [101.0] * 5})
    write_session("monday", monday, started=1.0)
    taken = replaced(monday, notes=[note])
    write_session("tuesday", taken, started=2.0)
    # Taken from there once more: neither its note nor its session says where it was measured.
    write_session("wednesday", replaced(monday, notes=[note.replace("monday", "tuesday")]), started=3.0)
    write_session("thursday", other, started=4.0)
    found = gathering.from_sessions(sessions.read_all([write_session("friday", other, started=5.0).parent]))
    samples = found.case[0].metric["p_train"].samples
    assert list(samples) == ["monday", "thursday", "friday"]
    alone = gathering.from_sessions(
        [one for one in sessions.read_all([write_session("x").parent]) if one.name == "tuesday"]
    )
    assert list(alone.case[0].metric["p_train"].samples) == ["tuesday"]


def test_what_regressed_and_what_improved_is_left_out_of_a_directory_of_sessions_alike(write_session):
    for name, verdict in (("monday", "passed"), ("tuesday", "regressed"), ("wednesday", "improved")):
        path = write_session(name, make_result({"p_train": [100.0]}, verdict=verdict))
    found = baselines.find(path.parent, vendor="acme", chip="A1")
    assert list(found.case[0].metric["p_train"].samples) == ["monday"]
    # Who names a session means that one.
    assert baselines.find(path, vendor="acme", chip="A1").case[0].metric["p_train"].values == [100.0]


def test_the_newest_samples_are_those_of_the_newest_sessions_in_whatever_order_they_come():
    metric = baselines.MetricBaseline("samples/s", "higher", {"march": [1.0] * 90})
    ages = {"january": "2026-01-02", "march": "2026-03-02"}
    found = gathering.with_samples(metric, {"january": [2.0] * 30}, ages)
    assert {name: len(values) for name, values in found.samples.items()} == {"january": 10, "march": 90}
    assert list(found.samples) == ["january", "march"]


def test_a_curve_with_a_figure_that_is_none_is_refused(tmp_path):
    text = baselines.text(baselines.Baseline("acme", "A1", case=[baselines.CaseBaseline("a")]))
    (tmp_path / "A1.toml").write_text(text + '\n[case.curve."x round 1"]\nepoch = [1.0]\ntop1 = [nan]\n')
    with pytest.raises(ConfigurationError, match=r"curve\.x round 1: a figure is infinite or NaN"):
        baselines.load(tmp_path / "A1.toml")
