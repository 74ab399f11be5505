"""A session judged again: verdicts, comparisons and baselines that do not follow from its files."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pytest_flagperf import result as results
from pytest_flagperf import sessions
from pytest_flagperf.attempt import Attempt
from pytest_flagperf.errors import InvalidMeasurement
from pytest_flagperf.judging import baselines
from pytest_flagperf.judging import compare
from pytest_flagperf.judging import gathering
from pytest_flagperf.launching import refuse_changed_code
from pytest_flagperf.operators import table
from tests import made_session
from tests.evidence.conftest import RESULT
from tests.evidence.conftest import edit_json
from tests.evidence.conftest import found
from tests.evidence.conftest import judged
from tests.evidence.conftest import kept_baseline
from tests.evidence.conftest import nudge
from tests.made_session import CASE


def test_a_missed_target_cannot_be_called_passed(tmp_path):
    def lower(result: results.Result) -> results.Result:
        assert result.verdict == "passed"
        targets = [msgspec.structs.replace(one, bound=0.99) for one in result.targets]
        return msgspec.structs.replace(result, targets=targets)

    session = made_session.make(tmp_path, change=lower, operators=False)
    for number in (1, 2, 3):
        edit_json(session / CASE / f"round{number}" / "case.json", lambda d: d["targets"][0].update(bound=0.99))
    problems = found(session)
    assert any("verdict" in one and "'missed' follows" in one for one in problems), problems


def test_a_target_that_was_taken_out_of_the_result_is_missed(session):
    edit_json(session / RESULT, lambda document: document.update(targets=[]))
    assert any("targets" in one for one in found(session))


def compared(
    original: Path, tmp_path: Path, *, change: Callable[[results.Result], results.Result] = lambda one: one, **made: Any
) -> Path:
    """A session whose model was judged by a session before it, and that keeps this baseline."""
    before = sessions.read(original)
    baseline = gathering.from_sessions([before])

    def judge(result: results.Result) -> results.Result:
        found = compare.judge(result, baseline, baselines.hardware(before.description))
        outcome = compare.overall(result.verdict, found)
        return change(msgspec.structs.replace(result, comparisons=found, verdict=outcome))

    session = made_session.make(tmp_path, change=judge, operators=False, **made)
    kept_baseline(session, baseline)
    return session


SLOW = tuple(0.6 * speed for speed in (1.0, 1.01, 0.99))


def whitewash(document: Any) -> None:
    document["verdict"] = "passed"
    for one in document["comparisons"]:
        one["verdict"] = "passed"


def widen(document: Any) -> None:
    whitewash(document)
    for one in document["comparisons"]:
        one["tolerance"] = 0.9


def without_samples(document: Any) -> None:
    whitewash(document)
    for one in document["comparisons"]:
        one["samples"] = []


def not_comparable(document: Any) -> None:
    document["verdict"] = "passed"
    for one in document["comparisons"]:
        one.update(verdict="not comparable", reasons=["the moon was full"])


def without_the_worst(document: Any) -> None:
    document["verdict"] = "passed"
    document["comparisons"] = [one for one in document["comparisons"] if one["verdict"] == "passed"]


def without_any(document: Any) -> None:
    document.update(verdict="passed", comparisons=[])


@pytest.mark.parametrize("forge", [whitewash, widen, without_samples, not_comparable, without_the_worst, without_any])
def test_a_regression_cannot_be_forged_to_pass(original, tmp_path, forge):
    session = compared(original, tmp_path, speeds=SLOW)
    assert sessions.read(session).results[0].verdict == "regressed"
    outcome = judged(session)
    assert outcome.problems == []
    assert any("compare it with that which should be in force" in note for note in outcome.notes)
    edit_json(session / RESULT, forge)
    assert any("comparison p_train" in one and "follows from the session's baseline" in one for one in found(session))


def test_a_baseline_that_was_taken_away_or_edited_is_missed(original, tmp_path):
    session = compared(original, tmp_path, speeds=SLOW)
    (path,) = (session / "baselines").iterdir()
    content = path.read_bytes()
    path.write_bytes(content.replace(b'"better":"higher"', b'"better":"lower"'))
    assert any("its digest is not that of its name" in one for one in found(session))
    path.unlink()
    problems = found(session)
    assert any("results were judged by it, and it is not there" in one for one in problems)
    assert any("comparisons: the session has no baselines/" in one for one in problems)
    edit_json(session / RESULT, without_the_worst)
    assert any("comparison p_train: it is not there, and others are" in one for one in found(session))


def test_without_its_baseline_a_tolerance_that_is_not_the_usual_one_is_told(original, tmp_path):
    session = compared(original, tmp_path)
    shutil.rmtree(session / "baselines")
    edit_json(session / RESULT, widen)
    assert any("the tolerance of p_train is 0.9, usual is 0.05" in note for note in judged(session).notes)


def test_a_baseline_that_was_asked_for_and_left_no_trace_is_missed(session):
    edit_json(session / "session.json", lambda document: document.update(baseline="A1.toml"))
    assert any("--baseline was given, and there is none" in one for one in found(session))


def with_option(session: Path, origin: str, *command: str, **environment: str) -> None:
    told = {"options": {"baseline": origin}, "command": ["pytest", *command], "environment": environment}
    edit_json(session / "session.json", lambda document: document.update(told))


def test_that_a_baseline_was_asked_for_cannot_be_taken_out_of_the_description_alone(session):
    for command in (["--baseline=A1.toml"], ["--baseline", "A1.toml"], ["--baseline=none", "--baseline=A1.toml"]):
        with_option(session, "command line", *command)
        assert any("--baseline was given, and there is none" in one for one in found(session)), command
    with_option(session, "environment FLAGPERF_BASELINE", FLAGPERF_BASELINE="A1.toml")
    assert any("--baseline was given, and there is none" in one for one in found(session))


def test_a_session_that_was_told_to_compare_with_nothing_lacks_no_baseline(session):
    for command in (["--baseline=none"], ["--baseline", "none"], ["--baseline=A1.toml", "--baseline=none"]):
        with_option(session, "command line", *command, FLAGPERF_BASELINE="A1.toml")
        assert found(session) == []
    with_option(session, "environment FLAGPERF_BASELINE", FLAGPERF_BASELINE="none")
    outcome = judged(session)
    assert outcome.problems == []
    assert not any("--baseline" in note for note in outcome.notes)


@pytest.mark.parametrize("origin", ["ini file", "command line"])
def test_that_nobody_knows_which_baseline_was_asked_for_is_told(session, origin):
    with_option(session, origin)
    outcome = judged(session)
    assert outcome.problems == []
    assert any(f"--baseline was given ({origin}), and neither names one nor" in note for note in outcome.notes)


def test_a_vendors_baseline_without_the_case_is_no_problem(original, session):
    kept_baseline(session, baselines.Baseline("acme", "A1", origin="acme/baselines/A1.toml"))
    assert found(session) == []


def test_edited_samples_of_a_baseline_no_longer_give_the_comparison(original, tmp_path):
    session = compared(original, tmp_path)
    assert found(session) == []
    edit_json(session / RESULT, lambda document: nudge(document, ("comparisons", 0, "samples", 1)))
    assert any("comparison p_train" in one for one in found(session))


def test_a_dropped_round_beside_its_baseline_is_judged_again_alike(original, tmp_path):
    speeds = (1.0, 1.01, 0.99, 1.02, 0.98)
    session = compared(original, tmp_path, speeds=speeds, qualities=(0.95, 0.95, 0.85, 0.95, 0.95))
    assert any(one.dropped for one in sessions.read(session).results[0].rounds)
    assert found(session) == []


def test_an_operator_that_was_measured_twice_is_judged_by_both(tmp_path):
    session = made_session.make(tmp_path)
    path = session / "operators" / "main" / "results.jsonl"
    first, *rest = results.read_results(path)
    usual = first.metrics["time"].value
    stored = {f"session {k}": [usual * (0.8 + 0.002 * k)] for k in range(6)}
    metric = baselines.MetricBaseline("µs", "lower", stored)
    case = msgspec.structs.replace(gathering.of_result(first, "x"), metric={"time": metric})
    baseline = baselines.Baseline("acme", "A1", case=[case])
    kept_baseline(session, baseline)

    def beside(result: results.Result) -> results.Result:
        comparisons = compare.judge(result, baseline, "")
        return msgspec.structs.replace(result, comparisons=comparisons, verdict=compare.overall("passed", comparisons))

    once = beside(first)
    assert compare.alarming(once)
    twice = compare.settled(once, once)
    log = session / "operators" / "main" / "pytorch-1x1-1" / "host-1" / "rank0.events.jsonl"
    log.write_text(log.read_text() + log.read_text().splitlines()[0] + "\n")

    def write(*every: results.Result) -> None:
        path.write_bytes(b"".join(msgspec.json.encode(one) + b"\n" for one in every))
        table.write_files(session, results.read_results(path))

    write(once, twice, *rest)
    assert found(session) == []
    softened = [msgspec.structs.replace(one, verdict="inconclusive") for one in twice.comparisons]
    write(once, msgspec.structs.replace(twice, comparisons=softened, verdict="inconclusive"), *rest)
    assert any("comparison time verdict: 'inconclusive' is written there; 'regressed'" in one for one in found(session))


def test_an_answer_that_a_worker_found_wrong_cannot_be_a_figure(session):
    log = session / "operators" / "main" / "pytorch-1x1-1" / "host-1" / "rank0.events.jsonl"
    log.write_text(log.read_text().replace('"measured"', '"wrong"', 1))
    assert any("wrong 1 times by the workers' logs, and 0 results say so" in one for one in found(session))


CURVE = {f"before round {k}": {"epoch": [1.0], "step": [5.0], "top1": [0.985 + 0.001 * k]} for k in range(8)}


def with_curves(session: Path, curve: dict[str, dict[str, list[float]]], top1: float = 0.9) -> None:
    """Keep the baseline of a case whose rounds went along these curves."""
    result = sessions.read(session).results[0]
    case = gathering.of_result(result, "before")
    case = msgspec.structs.replace(case, metric={}, curve=curve, targets={"top1": top1})
    kept_baseline(session, baselines.Baseline("acme", "A1", case=[case], origin="acme/baselines/A1.toml"))


def stopped(session: Path) -> None:
    """Make of the session one whose first round left the band of a baseline's curves and was stopped."""
    (session / CASE / "round1" / "times.json").unlink()
    for number in (2, 3):
        shutil.rmtree(session / CASE / f"round{number}")
    ledger = session / "ledger.jsonl"
    lines = [line for line in ledger.read_text().splitlines() if '"round": 1' in line]
    ledger.write_text("\n".join(lines).replace('"finished"', '"Regressed"') + "\n")
    error = {"type": "Regressed", "message": "stopped early"}

    def change(document: Any) -> None:
        first = {**document["rounds"][0], "metrics": {}, "error": error}
        band = {"metric": "top1", "verdict": "regressed", "value": 0.95, "method": "band of the baseline's curves"}
        document.update(rounds=[first], metrics={}, spreads={}, error=error, verdict="regressed", comparisons=[band])

    edit_json(session / RESULT, change)


def test_a_round_that_was_stopped_early_is_judged_by_its_last_evaluation(session):
    stopped(session)
    with_curves(session, CURVE)
    assert found(session) == []
    edit_json(session / RESULT, lambda document: document["comparisons"][0].update(value=0.85))
    assert any("comparison top1 value: 0.85 is written there; 0.95 follows" in one for one in found(session))


def test_a_round_cannot_be_called_stopped_that_was_inside_the_band(session):
    stopped(session)
    assert any("the session has no baseline with curves" in one for one in found(session))
    with_curves(session, {name: {**one, "top1": [one["top1"][0] - 0.035]} for name, one in CURVE.items()})
    assert any("its last evaluation is inside the baseline's band" in one for one in found(session))


def test_the_evaluations_of_a_round_that_was_stopped_early_are_those_of_its_log(session):
    stopped(session)
    edit_json(session / RESULT, lambda document: nudge(document, ("rounds", 0, "evaluations", 0, "quality", "top1")))
    assert any("round 1 evaluation 1 quality" in one for one in found(session))


def invalid(message: str) -> Callable[[Any], None]:
    def change(document: Any) -> None:
        error = {"type": "InvalidMeasurement", "message": message}
        document.update(error=error, verdict="invalid", metrics={}, spreads={}, comparisons=[])

    return change


def test_a_measurement_that_is_valid_cannot_be_called_invalid(session):
    edit_json(session / RESULT, invalid("converged too fast to be believed"))
    assert any("error: InvalidMeasurement is written there, and neither" in one for one in found(session))
    edit_json(session / RESULT, invalid("toy: not measured: p_train\nresult: x"))
    assert any("error: InvalidMeasurement is written there, and neither" in one for one in found(session))


def test_what_was_found_amiss_after_the_rounds_is_no_problem(session):
    edit_json(session / RESULT, invalid("toy: not measured: bleu, p_train\nlog: x"))
    assert found(session) == []


def code_changed(session: Path) -> str:
    """What the launcher says where a workload was edited while its case ran."""
    with pytest.raises(InvalidMeasurement) as caught:
        refuse_changed_code(made_session._case(session), Attempt(code="of before"))
    return str(caught.value)


def test_code_that_changed_while_its_case_ran_is_told_and_no_problem(session):
    edit_json(session / RESULT, invalid(code_changed(session)))
    outcome = judged(session)
    assert outcome.problems == []
    assert any("called invalid for: the workload's code changed" in note for note in outcome.notes)


def test_code_that_changed_in_a_round_that_was_stopped_is_no_problem_either(session):
    stopped(session)
    with_curves(session, CURVE)
    edit_json(session / RESULT, invalid(code_changed(session)))
    assert found(session) == []


def test_targets_that_the_case_does_not_have_are_made_up_unless_they_were_missed(session):
    more = {"metric": "p_train", "bound": 1.0, "direction": "at least", "source": "me", "value": 1.0, "met": True}
    for number in (1, 2, 3):
        edit_json(session / CASE / f"round{number}" / "case.json", lambda d: d.update(role="throughput"))
    edit_json(session / RESULT, lambda d: d["case"].update(role="throughput"))
    edit_json(session / RESULT, lambda d: d.update(targets=[more]))
    assert any("targets: 1 are there, the case has 0, and none is missed" in one for one in found(session))


def test_a_case_that_was_begun_anew_says_which_rounds_it_leaves_out(session):
    other = session / f"{CASE}~2"
    shutil.move(session / CASE, other)
    ledger = session / "ledger.jsonl"
    kept_lines = ledger.read_text().replace(f"{CASE}/round", f"{CASE}~2/round")
    node_id = sessions.read(session).results[0].case.node_id
    line = {"case": CASE, "test": node_id, "round": 1, "seed": 1, "pid": 1, "directory": f"/x/{CASE}/round1"}
    ended = {**line, "outcome": "interrupted", "time": made_session.BEGIN}
    lines = [{**line, "event": "round_start", "time": made_session.BEGIN}, {**ended, "event": "round_end"}]
    ledger.write_text("".join(json.dumps(one) + "\n" for one in lines) + kept_lines)
    path = other / "result.json"
    path.write_text(path.read_text().replace(f"{CASE}/round", f"{CASE}~2/round"))
    note = f"started for this case beside those that count: 1 round: {CASE}/round1 (seed 1, interrupted)"
    assert any(f"notes: it does not say: {note}" in one for one in found(session)), found(session)
    edit_json(path, lambda document: document["notes"].append(note))
    assert found(session) == []
