"""The event log: what is written can be read, and whatever else stands in a log does no harm."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import example
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st

from pytest_flagperf import perflog
from pytest_flagperf.perflog import EventTail
from pytest_flagperf.perflog import EventWriter
from tests.conftest import ROOT


README = ROOT / "tests" / "data" / "flagperf" / "readme.rank0.out.txt"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "rank0.events.jsonl"


def test_the_five_lines_of_flagperfs_readme_are_read():
    events = perflog.read_events(README)
    assert [event.name for event in events] == ["STEP_END", "EVALUATE", "EPOCH_END", "TRAIN_END", "FINISHED"]
    assert events[0].value["loss"] == pytest.approx(2.679504871368408)
    assert events[0].value["seq/s"] == pytest.approx(822.455385237589)
    assert events[-1].value["converged"] is True
    assert events[-1].time == pytest.approx(1669034171.646)
    assert (events[-1].rank, events[-1].line, events[-1].monotonic) == (0, 158, None)
    assert events[2].seconds_since(events[1]) == pytest.approx(0.127, abs=1e-6)


def test_what_a_rank_writes_is_read_back(path):
    writer = EventWriter(path, rank=3)
    writer.write(perflog.INIT_END, other="Finish initialization")
    writer.write(perflog.STEP_END, {"global_steps": 5, "loss": math.nan, "rate": math.inf, "note": "µ\n\x1b"})
    writer.close()
    first, second = perflog.read_events(path)
    assert (first.name, first.other, first.rank) == ("INIT_END", "Finish initialization", 3)
    assert first.file.endswith("test_perflog.py")
    assert second.value["global_steps"] == 5
    assert math.isnan(second.value["loss"])
    assert second.value["rate"] == math.inf
    assert second.value["note"] == "µ\n\x1b"
    assert second.seconds_since(first) >= 0


def test_what_is_written_is_strict_json_a_line_each(path):
    writer = EventWriter(path, rank=0)
    writer.write(perflog.EVALUATE, {"loss": math.nan, "deep": {"list": [math.inf, (1, None)]}})
    (line,) = path.read_text().splitlines()

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    assert json.loads(line, parse_constant=refuse)["value"] == {"loss": "nan", "deep": {"list": ["inf", [1, None]]}}


def test_an_event_that_the_schema_does_not_have_is_refused(path):
    with pytest.raises(ValueError, match="unknown PerfLog event 'STEP_ENDED'"):
        EventWriter(path, rank=0).write("STEP_ENDED")
    assert path.read_text() == ""


def test_a_wall_clock_that_jumps_changes_no_duration():
    early, late = perflog.Event("TRAIN_START", time=1000, monotonic=5), perflog.Event("TRAIN_END", time=10, monotonic=7)
    assert late.seconds_since(early) == 2


def test_text_between_events_is_passed_over(path):
    event = '{"event": "FINISHED", "metadata": {"time_ms": 1000}}'
    path.write_bytes(
        b"\xff\xfe\x00hello\n{}\n[PerfLog]\nepoch 1 [PerfLog] " + event.encode() + b"\r\n" + event.encode()
    )
    assert [found.name for found in perflog.read_events(path)] == ["FINISHED", "FINISHED"]


HOSTILE = [
    "{" + '"a":{' * 100_000,
    "[PerfLog] " + '{"event": "X", "value": ' + "[" * 100_000,
    '{"event": "X", "metadata": {"time_ms": ' + "9" * 400 + "}}",
    '{"event": "X", "metadata": {"time_ms": 1e999, "monotonic_ns": NaN, "rank": -Infinity, "lineno": true}}',
    '{"event": "X", "value": [1], "other": {"a": 1}, "metadata": []}',
    '{"event": "\\ud800", "value": {"\\udfff": "nan"}}',
    '{"event": null}',
    "{" + "9" * 5000,
    "[PerfLog] [PerfLog] {}",
]


@pytest.mark.parametrize("line", HOSTILE, ids=lambda line: line[:30].encode("unicode_escape").decode())
def test_a_hostile_line_is_an_event_or_nothing(line):
    event = perflog.parse_line(line)
    assert event is None or (isinstance(event.rank, int) and math.isfinite(event.time))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
records = st.dictionaries(st.sampled_from(["event", "value", "other", "metadata"]) | st.text(), json_values)
metadata = st.dictionaries(st.sampled_from(["time_ms", "monotonic_ns", "rank", "lineno", "file"]), json_values)


@settings(deadline=None)
@given(st.text() | st.text().map("[PerfLog] {".__add__) | records.map(json.dumps))
@example("{" + '"a":' * 5000)
def test_no_text_makes_the_reader_raise(text):
    perflog.parse_line(text)


@settings(deadline=None)
@given(st.sampled_from(sorted(perflog.EVENTS)), json_values, metadata)
def test_no_content_of_an_event_makes_the_reader_raise(name, value, metadata):
    event = perflog.parse_line("[PerfLog] " + json.dumps({"event": name, "value": value, "metadata": metadata}))
    assert event is not None
    assert event.name == name
    assert math.isfinite(event.time)


def test_a_growing_file_is_read_as_it_grows_and_a_torn_line_when_it_is_whole(path):
    tail = EventTail(path)
    assert tail.read() == []
    with open(path, "wb", buffering=0) as file:
        file.write(b'{"event": "INIT_START"}\n{"event": "TRAIN')
        assert [event.name for event in tail.read()] == ["INIT_START"]
        assert tail.read() == []
        file.write(b'_START", "other": "\xc3')
        assert tail.read() == []
        file.write(b'\xa4"}\nnoise\n{"event": "FINISHED"}\n')
        assert [(event.name, event.other) for event in tail.read()] == [("TRAIN_START", "ä"), ("FINISHED", "")]
    assert tail.read() == []
