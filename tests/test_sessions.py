"""A session's directory read for reports: whole, torn, copied or killed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from pytest_flagperf import records
from pytest_flagperf import result as results
from pytest_flagperf import sessions
from pytest_flagperf.errors import ReplayError
from tests import made_session
from tests.made_session import CASE


@pytest.fixture
def session(tmp_path: Path) -> Path:
    return made_session.make(tmp_path)


def test_models_come_before_operators_with_the_files_they_are_from(session):
    found = sessions.read(session)
    assert [one.case.kind for one in found.results] == ["training", "operator", "operator"]
    assert [path.name for path in found.files] == ["result.json", "results.jsonl", "results.jsonl"]
    assert found.name == session.name
    assert found.description["host"]["name"] == "host-1"
    assert found.time_started == made_session.BEGIN
    assert (found.unfinished, found.problems) == ((), ())


def test_the_last_result_of_a_test_counts(session):
    first = results.read_result(session / CASE / "result.json")
    for number in (2, 10):
        again = session / f"{CASE}~{number}"
        again.mkdir()
        records.write_json(again / "result.json", {})
        verdict = {2: "missed", 10: "passed"}[number]
        document = json.loads((session / CASE / "result.json").read_bytes())
        (again / "result.json").write_text(json.dumps({**document, "verdict": verdict, "notes": [str(number)]}))
    found = sessions.read(session)
    assert [one.notes for one in found.results if one.case.id == first.case.id] == [["10"]]


def test_two_tests_of_one_case_both_count(session):
    document = json.loads((session / CASE / "result.json").read_bytes())
    document["case"]["node_id"] = "suites/toy/test_other.py::test_other"
    (session / f"{CASE}~2").mkdir()
    (session / f"{CASE}~2" / "result.json").write_text(json.dumps(document))
    assert len(sessions.read(session).results) == 4


def test_a_round_is_found_in_a_copied_session(session, tmp_path):
    moved = Path(shutil.move(session, tmp_path / "moved" / "session"))
    found = sessions.read(moved)
    result = found.results[0]
    where = [sessions.round_directory(found, result, one) for one in result.rounds]
    assert where == [moved.resolve() / CASE / f"round{number}" for number in (1, 2, 3)]
    assert all((path / "case.json").is_file() for path in where)


def test_a_round_that_was_replayed_is_where_it_was(session, tmp_path):
    found = sessions.read(session)
    elsewhere = results.RoundResult(1, None, "/data/flagperf/run1/round1", None)
    assert sessions.round_directory(found, found.results[0], elsewhere) == Path("/data/flagperf/run1/round1")


def test_one_case_of_a_session_is_read_as_one(session):
    found = sessions.read(session / CASE)
    assert [one.case.id for one in found.results] == [CASE]
    where = sessions.round_directory(found, found.results[0], found.results[0].rounds[1])
    assert where == (session / CASE / "round2").resolve()
    assert "session.json cannot be read" in found.problems[0]


def test_what_cannot_be_read_is_told_and_keeps_nothing_else_from_being_read(session):
    (session / CASE / "result.json").write_text("{")
    lines = session / "operators" / "main" / "results.jsonl"
    first, second, *_ = lines.read_text(encoding="utf-8").splitlines()
    lines.write_text(f"{first}\nrubbish\n{second}\n" + '{"case": ', encoding="utf-8")
    found = sessions.read(session)
    assert len(found.results) == 2
    assert len(found.problems) == 3
    assert any("result.json cannot be read as a result" in one for one in found.problems)
    assert any("line 2 cannot be read as a result" in one for one in found.problems)
    assert any("line 4 is torn" in one for one in found.problems)


def test_what_a_killed_session_left_is_a_session(tmp_path):
    records.write_json(tmp_path / "session.json", {"session": "killed"})
    line = {"event": "round_start", "case": "toy", "round": 1, "directory": "/x/toy/round1"}
    records.append_line(tmp_path / "ledger.jsonl", line)
    found = sessions.read(tmp_path)
    assert (found.results, found.unfinished) == ((), ("toy round 1",))
    assert sessions.ledger(tmp_path) == [line]


def test_sessions_of_a_directory_are_read_in_the_order_they_were_started(tmp_path):
    later = made_session.make(tmp_path, name="a", started=2e9, operators=False)
    earlier = made_session.make(tmp_path, name="b", started=1e9, operators=False)
    (tmp_path / "results" / "notes").mkdir()
    assert [one.name for one in sessions.read_all([tmp_path / "results"])] == ["b", "a"]
    assert [one.name for one in sessions.read_all([later, earlier, later])] == ["b", "a"]


@pytest.mark.parametrize("name", ["nothing", "empty", "file"])
def test_what_is_no_session_is_told_with_what_to_give(tmp_path, name):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    with pytest.raises(ReplayError, match=r"is no session.*flagperf-results"):
        sessions.read(tmp_path / name)
    with pytest.raises(ReplayError, match="is no session"):
        sessions.read_all([tmp_path / name])
