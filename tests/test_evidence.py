"""A session judged again: what was edited is found, with its file and its figure; what was not, is not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pytest_flagperf import result as results
from pytest_flagperf import sessions
from pytest_flagperf.commands import verify
from pytest_flagperf.evidence.findings import Findings
from pytest_flagperf.judging import baselines
from pytest_flagperf.judging import compare
from pytest_flagperf.judging import gathering
from pytest_flagperf.judging import kept
from pytest_flagperf.operators import table
from tests import made_session
from tests.made_session import CASE


RESULT = f"{CASE}/result.json"
ROUND = f"{CASE}/round2"


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_session.make(tmp_path_factory.mktemp("made"))


@pytest.fixture
def session(original: Path, tmp_path: Path) -> Path:
    """A copy that a test may edit; where it lies is not where it was made."""
    return shutil.copytree(original, tmp_path / "copied" / original.name)


def judged(session: Path) -> Findings:
    return verify.of_session(session).findings


def found(session: Path) -> list[str]:
    return [str(one) for one in judged(session).problems]


def edit_json(path: Path, change: Callable[[Any], None]) -> None:
    document = json.loads(path.read_bytes())
    change(document)
    path.write_text(json.dumps(document), encoding="utf-8")


def edit_event(path: Path, name: str, change: Callable[[Any], None]) -> None:
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    change([line for line in lines if line["event"] == name][-1])
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def figures(document: Any, keys: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every number in a document."""
    entries = document.items() if isinstance(document, dict) else enumerate(document)
    for key, value in entries:
        if isinstance(value, (dict, list)):
            yield from figures(value, (*keys, key))
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            yield (*keys, key)


def nudge(document: Any, keys: tuple[Any, ...]) -> None:
    """Change one digit of a number: its third, or the last one that it has."""
    for key in keys[:-1]:
        document = document[key]
    value = document[keys[-1]]
    text = repr(value)
    places = [index for index, character in enumerate(text.partition("e")[0]) if character.isdigit()]
    first = next((number for number, index in enumerate(places) if text[index] != "0"), len(places) - 1)
    place = places[min(first + 2, len(places) - 1)]
    document[keys[-1]] = type(value)(text[:place] + str((int(text[place]) + 1) % 10) + text[place + 1 :])


def test_what_nobody_edited_follows_from_its_files(session):
    outcome = judged(session)
    assert outcome.problems == []
    assert (outcome.results, outcome.rounds) == (3, 3)
    # Metrics of three rounds and of all together, evaluations, spreads, configuration; samples and tables of operators.
    assert outcome.figures > 300


@pytest.mark.slow
def test_every_figure_of_a_result_that_is_edited_is_named(session):
    path = session / RESULT
    text = path.read_text(encoding="utf-8")
    # To the second, when a round began stands nowhere else.
    every = [keys for keys in figures(json.loads(text)) if keys[-1] != "time_started"]
    assert len(every) > 140
    missed = []
    for keys in every:
        document = json.loads(text)
        nudge(document, keys)
        path.write_text(json.dumps(document), encoding="utf-8")
        problems = judged(session).problems
        if not any(RESULT in (one.file, one.message) or RESULT in str(one) for one in problems):
            missed.append(keys)
    assert missed == []


@pytest.mark.parametrize("metric", ["p_train", "mfu", "power", "top1", "time_to_target", "memory_peak", "e2e_time"])
def test_an_edited_metric_is_named_with_what_it_has_to_be(session, metric):
    before = json.loads((session / RESULT).read_bytes())["rounds"][1]["metrics"][metric]["value"]
    edit_json(session / RESULT, lambda document: nudge(document, ("rounds", 1, "metrics", metric, "value")))
    problem = next(one for one in judged(session).problems if one.figure == f"round 2 {metric}")
    assert problem.file == RESULT
    assert f"{before!r} follows from {ROUND}" in problem.message


@pytest.mark.parametrize(
    ("event", "keys", "metric"),
    [
        ("TRAIN_END", ("value", "core_time"), "p_core"),
        ("TRAIN_END", ("value", "rank_samples"), "p_whole"),
        ("TRAIN_END", ("metadata", "monotonic_ns"), "train_time"),
        ("TRAIN_START", ("metadata", "monotonic_ns"), "init_time"),
        ("EVALUATE", ("value", "top1"), "top1"),
        ("EVALUATE", ("metadata", "monotonic_ns"), "time_to_target"),
        ("STEP_END", ("value", "loss"), "final_loss"),
        ("FINISHED", ("value", "memory_peak"), "memory_peak"),
    ],
)
def test_an_edited_event_is_named_by_the_figure_and_the_log(session, event, keys, metric):
    edit_event(session / ROUND / "host-1" / "rank0.events.jsonl", event, lambda line: nudge(line, keys))
    problems = found(session)
    named = [one for one in problems if f"round 2 {metric}" in one or "gives no valid measurement" in one]
    assert any(f"{ROUND}" in one for one in named), problems


@pytest.mark.parametrize(
    ("file", "keys", "named"),
    [
        (f"{ROUND}/times.json", ("started",), "gives no valid measurement: init_time"),
        (f"{ROUND}/times.json", ("ended",), "round 2 e2e_time"),
        (f"{ROUND}/case.json", ("seed",), "round 2 seed"),
        (f"{ROUND}/case.json", ("flops",), "round 2 mfu"),
        (f"{ROUND}/case.json", ("config", "learning_rate"), "configuration.learning_rate"),
        (f"{ROUND}/case.json", ("targets", 0, "bound"), "targets"),
    ],
)
def test_an_edited_file_of_a_round_is_found_by_what_follows_from_it(session, file, keys, named):
    edit_json(session / file, lambda document: nudge(document, keys))
    assert any(named in one and ROUND in one for one in found(session)), found(session)


def test_an_edited_sample_of_the_monitor_is_found_by_power_and_energy(session):
    path = session / ROUND / "host-1" / "monitor.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    nudge(lines[len(lines) // 2], ("power",))
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    problems = found(session)
    for metric in ("power", "energy"):
        assert any(f"round 2 {metric}" in one and "monitor.jsonl" in one for one in problems), problems


def test_every_derived_figure_of_an_operator_that_is_edited_is_named(session):
    path = session / "operators" / "main" / "results.jsonl"
    first, *rest = path.read_text(encoding="utf-8").splitlines()
    names = ["time", "time_mean", "time_min", "time_p99", "cv", "wall_time", "tflops", "utilization"]
    for name in names:
        document = json.loads(first)
        nudge(document, ("metrics", name, "value"))
        path.write_text("\n".join([json.dumps(document), *rest, ""]), encoding="utf-8")
        assert any(one.figure.endswith(f" {name}") for one in judged(session).problems), name


def test_an_edited_sample_of_an_operator_is_named_by_the_figures_it_gives(session):
    path = session / "operators" / "main" / "results.jsonl"
    first, *rest = path.read_text(encoding="utf-8").splitlines()
    document = json.loads(first)
    for index in range(len(document["operator"]["samples"])):
        edited = json.loads(first)
        nudge(edited, ("operator", "samples", index))
        path.write_text("\n".join([json.dumps(edited), *rest, ""]), encoding="utf-8")
        assert any("operators/main/results.jsonl" in one for one in found(session)), index


def test_a_peak_that_is_none_of_the_vendor_file_is_named(session):
    path = session / "operators" / "main" / "results.jsonl"
    path.write_text(path.read_text(encoding="utf-8").replace('"value":60.0', '"value":61.0'), encoding="utf-8")
    assert any("peak: 61.0 is none of the vendor file's" in one for one in found(session))


@pytest.mark.parametrize("name", ["operators.csv", "operators.json"])
def test_an_edited_table_of_operators_is_found_by_the_results_it_lists(session, name):
    path = session / name
    value = json.loads((session / "operators.json").read_bytes())["results"][0]["tflops"]
    path.write_text(path.read_text(encoding="utf-8").replace(str(value), str(value + 1), 1), encoding="utf-8")
    assert any(one.startswith(f"{name}: ") and "tflops" in one for one in found(session))


# --- verdicts


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


def kept_baseline(session: Path, baseline: baselines.Baseline) -> None:
    """Keep a baseline in a session, as its gate does."""
    path = kept.write(session, "acme", "A1", baseline)
    line = {"event": "baseline", "time": made_session.BEGIN, "pid": 1, "file": path.name}
    results.append_line(session / "ledger.jsonl", line, sync=False)


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
    edit_json(session / "session.json", lambda document: document.update(options={"baseline": "A1.toml"}))
    assert any("--baseline was given, and there is none" in one for one in found(session))


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


@pytest.mark.parametrize(
    "message", ["the workload's code was edited while it ran: run it again", "toy: not measured: bleu, p_train\nlog: x"]
)
def test_what_was_found_amiss_after_the_rounds_is_no_problem(session, message):
    edit_json(session / RESULT, invalid(message))
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


# --- rounds


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


# --- files that somebody made up


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
