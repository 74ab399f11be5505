"""A ``derived.json`` that somebody damaged: no report is lost by it, and each says so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pytest_flagperf import sessions
from pytest_flagperf.errors import ReplayError
from pytest_flagperf.judging import derived
from pytest_flagperf.reports import html
from pytest_flagperf.reports import reading
from pytest_flagperf.reports import terminal


ONE = derived.DerivedMetric(
    name="amp_speedup",
    value=2.5,
    unit="ratio",
    better="higher",
    of="p_train",
    model="toy",
    role="throughput",
    framework="pytorch",
    precision="amp",
    topology="1x1",
    scale="lite",
    vendor="acme",
    chip=None,
    cases=["amp", "fp32"],
    inputs={"amp": 250.0, "fp32": 100.0},
)


def whole(**changes: Any) -> dict[str, Any]:
    """What is written of one figure, with some of its fields replaced."""
    made = msgspec.to_builtins(derived.Derived([ONE]))
    made["metrics"][0] |= changes
    return made


DAMAGED = {
    "empty": b"",
    "torn": json.dumps(whole()).encode()[:100],
    "no UTF-8": json.dumps(whole()).encode().replace(b"toy", b"\xff\xfe"),
    "no UTF-8 in a key": json.dumps(whole()).encode().replace(b'"fp32": 100.0', b'"\xff": 100.0'),
    "half a surrogate": json.dumps(whole()).encode().replace(b"toy", b"\\ud800"),
    "nested without end": b'{"metrics": [], "unknown": ' + b"[" * 100_000,
    "another document": b"[1, 2, 3]",
    "null": b"null",
    "a number that is a text": json.dumps(whole(value="2.5")).encode(),
    "a number that is none": json.dumps(whole()).encode().replace(b"2.5", b"NaN"),
    "a number beyond all": json.dumps(whole()).encode().replace(b"2.5", b"1e999"),
    "a list that is a text": json.dumps(whole(cases="amp")).encode(),
    "a figure of no case": json.dumps(whole(cases=[])).encode(),
    "a field that is gone": json.dumps({"left_out": []}).encode(),
}


@pytest.fixture(params=DAMAGED)
def session(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    (tmp_path / "session.json").write_text('{"session": "monday"}')
    (tmp_path / derived.DERIVED).write_bytes(DAMAGED[request.param])
    return tmp_path


def test_what_cannot_be_read_raises_one_error_that_names_the_file(session):
    with pytest.raises(ReplayError, match=r"derived\.json cannot be read as derived metrics: ."):
        derived.read(session)


def test_the_session_says_it_where_its_problems_are_said_and_is_reported_all_the_same(session):
    read = sessions.read(session)
    assert reading.over_cases(read).metrics == ()
    (problem,) = reading.problems(read)
    assert "derived.json cannot be read" in problem
    told = html.data([session])
    assert any("derived.json cannot be read" in text for text in told["sessions"][0]["problems"])


def test_the_terminal_says_it_in_the_place_of_the_table(session):
    blank, line = terminal.derived(session)
    assert blank == ""
    assert "derived.json cannot be read" in line
    assert "\n" not in line


def test_a_file_as_it_is_written_is_read_and_nobody_complains(tmp_path):
    (tmp_path / "session.json").write_text('{"session": "monday"}')
    (tmp_path / derived.DERIVED).write_text(json.dumps(whole()))
    assert derived.read(tmp_path) == derived.Derived([ONE])
    assert reading.problems(sessions.read(tmp_path)) == []


def test_a_file_larger_than_any_honest_one_is_not_read(tmp_path):
    with open(tmp_path / derived.DERIVED, "wb") as file:
        file.truncate(2**30)
    with pytest.raises(ReplayError, match="larger than"):
        derived.read(tmp_path)
