"""A session judged again: files that somebody made up, damaged or mixed up are problems and no crash."""

from __future__ import annotations

import json

import pytest

from tests.evidence.conftest import RESULT
from tests.evidence.conftest import ROUND
from tests.evidence.conftest import edit_event
from tests.evidence.conftest import edit_json
from tests.evidence.conftest import found
from tests.evidence.conftest import judged
from tests.made_session import CASE


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"case": 1}', "[" * 100_000, '{"rounds": [{}]}', "\xff"])
@pytest.mark.parametrize(
    "name",
    [
        RESULT,
        f"{ROUND}/case.json",
        f"{ROUND}/times.json",
        f"{ROUND}/host-1/rank1.events.jsonl",
        "operators/main/results.jsonl",
        "operators/main/pytorch-1x1-1/case.json",
        "operators.json",
        "session.json",
        "ledger.jsonl",
    ],
)
def test_garbage_is_a_problem_and_no_crash(session, name, content):
    (session / name).write_bytes(content.encode("latin-1") + b"\n")
    # An object describes a session, if not well.
    assert found(session) or (name == "session.json" and content.startswith('{"'))


@pytest.mark.parametrize(
    "line",
    [
        {"event": "round_start", "directory": ["x"], "round": {}},
        {"event": "round_start", "time": 1.0, "pid": []},
        {"event": "resumed", "rounds": 5},
        {"event": "resumed", "rounds": [5]},
        {"event": "baseline", "file": 3},
        {"event": "elsewhere", "test": {}, "rounds": {}},
        {"event": "round_end", "case": CASE, "test": [], "time": "late"},
    ],
)
def test_a_line_of_the_ledger_with_other_types_is_a_problem_and_no_crash(session, line):
    with open(session / "ledger.jsonl", "a") as file:
        file.write(json.dumps(line) + "\n")
    assert found(session)


@pytest.mark.parametrize("name", [RESULT, "operators/main/results.jsonl"])
def test_a_text_that_is_no_utf8_is_a_problem_and_no_crash(session, name):
    path = session / name
    path.write_bytes(path.read_bytes().replace(b"pytest", b"pyte\xff", 1))
    assert any("cannot be read as a result" in one for one in found(session))


@pytest.mark.parametrize("content", [b'{"session": "\\ud800"}', b'{"time_started": NaN}', b'{"session": "\xff"}'])
def test_a_description_that_no_text_can_hold_is_a_problem_and_no_crash(session, content):
    (session / "session.json").write_bytes(content)
    assert any(one.startswith("session.json") for one in found(session))


@pytest.mark.parametrize("value", [1e308, -1.0, "fast", None, [], {}, True])
def test_a_figure_of_another_kind_is_a_problem_and_no_crash(session, value):
    log = session / ROUND / "host-1" / "rank0.events.jsonl"
    edit_event(log, "TRAIN_END", lambda line: line["value"].update(rank_samples=value))
    assert any("round 2" in one for one in found(session))


def test_a_line_that_was_torn_out_of_a_log_is_named(session):
    log = session / ROUND / "host-1" / "rank0.events.jsonl"
    log.write_text(log.read_text() + '{"event": "STEP_')
    assert any("no event" in one for one in found(session))


def test_a_topology_of_ten_thousand_million_ranks_is_not_looked_for(session):
    edit_json(session / ROUND / "case.json", lambda document: document.update(topology="99999x99999"))
    assert any("does not have the events of 9999800001 ranks" in one for one in found(session))


def test_clocks_that_come_apart_are_told(session):
    log = session / ROUND / "host-1" / "rank0.events.jsonl"
    edit_event(log, "STEP_END", lambda line: line["metadata"].update(time_ms=line["metadata"]["time_ms"] + 500))
    outcome = judged(session)
    assert outcome.problems == []
    assert any("the host's clock was set at that moment, or the log was edited" in note for note in outcome.notes)
