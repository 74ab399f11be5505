"""A session judged again: rounds and measurements that were left out, made up, or called what they are not."""

from __future__ import annotations

import json
import shutil
from typing import Any

import msgspec

from pytest_flagperf import result as results
from pytest_flagperf import sessions
from tests import made_session
from tests.evidence.conftest import RESULT
from tests.evidence.conftest import ROUND
from tests.evidence.conftest import edit_json
from tests.evidence.conftest import found
from tests.evidence.conftest import judged
from tests.evidence.conftest import nudge
from tests.made_session import CASE


def test_a_result_without_rounds_says_nothing(session):
    def empty(document: Any) -> None:
        document.update(rounds=[], metrics={}, spreads={}, targets=[])

    edit_json(session / RESULT, empty)
    assert any("rounds: there is none, and no error that says why" in one for one in found(session))


def test_another_chip_than_the_devices_tell_is_named(session):
    edit_json(session / RESULT, lambda document: document["case"].update(chip="A2"))
    assert any("case.chip: 'A2' is written there; 'A1' follows" in one for one in found(session))


def test_a_round_that_was_left_out_of_a_result_is_named_by_the_ledger(session):
    edit_json(session / RESULT, lambda document: document["rounds"].pop(1))
    problems = found(session)
    assert any(f"{ROUND}: the round was started and ended, and no result has it" in one for one in problems), problems


def test_a_round_that_nobody_started_is_named(session):
    ledger = session / "ledger.jsonl"
    kept = [line for line in ledger.read_text().splitlines() if '"round": 2' not in line]
    ledger.write_text("\n".join(kept) + "\n")
    assert any(f"{ROUND}: {RESULT} has this round, and it was never started" in one for one in found(session))


def test_a_round_that_failed_cannot_be_called_finished(session):
    ledger = session / "ledger.jsonl"
    ledger.write_text(ledger.read_text().replace('"finished"', '"RankCrashed"', 1))
    assert any("round 1 outcome" in one and "'RankCrashed' follows from ledger.jsonl" in one for one in found(session))


def test_a_round_of_a_killed_session_is_told_and_no_problem(session):
    ledger = session / "ledger.jsonl"
    line = {"event": "round_start", "time": 1.8e9, "pid": 1, "round": 1, "seed": 1, "directory": "/x/other/round1"}
    ledger.write_text(ledger.read_text() + json.dumps(line) + "\n")
    outcome = judged(session)
    assert outcome.problems == []
    assert "other/round1 was started and did not end; no result claims it" in outcome.notes


def test_a_result_whose_raw_files_lie_elsewhere_follows_from_nothing(original, session):
    shutil.rmtree(session / ROUND)
    # The path in the result still leads to the original's files: they are no evidence of this session.
    assert (original / ROUND).is_dir()
    assert any("round 2: it cannot be judged again: its files are not in the session" in one for one in found(session))


def test_a_path_out_of_the_session_leads_nowhere(session):
    edit_json(session / RESULT, lambda document: document["rounds"][0].update(directory=f"../../../{CASE}/.."))
    assert any("round 1: it cannot be judged again" in one for one in found(session))


def test_a_measurement_of_an_operator_that_was_left_out_is_named(session):
    path = session / "operators" / "main" / "results.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines()
    path.write_text(lines[0] + "\n", encoding="utf-8")
    assert any("measured 1 times by the workers' logs, and 0 results are there" in one for one in found(session))


def test_an_operator_that_no_worker_measured_is_named(session):
    log = session / "operators" / "main" / "pytorch-1x1-1" / "host-1" / "rank0.events.jsonl"
    log.write_text(log.read_text().splitlines()[0] + "\n")
    assert any("no worker's log tells that it was measured" in one for one in found(session))


def test_the_one_round_of_five_that_did_not_converge_is_dropped_and_no_other(tmp_path):
    speeds = (1.0, 1.01, 0.99, 1.02, 0.98)
    session = made_session.make(tmp_path, speeds=speeds, qualities=(0.95, 0.95, 0.85, 0.95, 0.95), operators=False)
    assert [bool(one.dropped) for one in sessions.read(session).results[0].rounds] == [False, False, True, False, False]
    assert found(session) == []

    def swap(document: Any) -> None:
        rounds = document["rounds"]
        rounds[2]["dropped"], rounds[4]["dropped"] = "", rounds[2]["dropped"]

    edit_json(session / RESULT, swap)
    problems = found(session)
    assert any("round 3 dropped: False is written there" in one for one in problems), problems
    assert any("round 5 dropped: True is written there" in one for one in problems), problems


def test_software_that_the_ranks_did_not_run_with_is_named(session):
    edit_json(session / RESULT, lambda document: document["stack"].update(torch="2.10.0"))
    assert any("stack: torch 2.9.0" in one for one in found(session))


def test_a_round_that_measured_well_cannot_be_called_failed(session):
    def fail(document: Any) -> None:
        error = {"type": "RankCrashed", "message": "rank 0 ended"}
        document["rounds"][1].update(error=error, metrics={}, dropped="it crashed")

    edit_json(session / RESULT, fail)
    ledger = session / "ledger.jsonl"
    lines = [line.replace('"finished"', '"RankCrashed"') if '"round": 2' in line else line for line in ledger.open()]
    ledger.write_text("".join(lines))
    assert any("round 2 error: RankCrashed is written there; a valid measurement" in one for one in found(session))


def test_a_metric_of_a_suite_of_ones_own_is_judged_too(tmp_path):
    def renamed(result: results.Result) -> results.Result:
        document = json.dumps(msgspec.to_builtins(result)).replace('"top1"', '"share_of_good_answers"')
        return msgspec.json.decode(document, type=results.Result)

    session = made_session.make(tmp_path, operators=False, change=renamed)
    for path in [*session.glob("*/round*/case.json"), *session.glob("*/round*/*/rank*.events.jsonl")]:
        path.write_text(path.read_text().replace('"top1"', '"share_of_good_answers"'))
    assert found(session) == []
    edit_json(session / RESULT, lambda d: nudge(d, ("rounds", 0, "metrics", "share_of_good_answers", "value")))
    assert any("round 1 share_of_good_answers" in one for one in found(session))
    edit_json(session / RESULT, lambda d: d["metrics"].update(odd={"value": 1.0, "unit": "1", "better": "odd"}))
    assert any("better is 'higher' or 'lower'" in one for one in found(session))


def test_another_day_than_the_ledgers_is_named(session):
    edit_json(session / RESULT, lambda d: d["rounds"][0].update(time_started=d["rounds"][0]["time_started"] - 86_400))
    assert any("round 1 time_started" in one for one in found(session))
