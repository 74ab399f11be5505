"""A session judged again: lines of operators that were taken from another session, or belong together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from pytest_flagperf import records
from pytest_flagperf import result as results
from pytest_flagperf.devices import vendor as vendors
from pytest_flagperf.evidence.operators import resolved
from pytest_flagperf.judging import baselines
from pytest_flagperf.judging import compare
from pytest_flagperf.judging import gathering
from pytest_flagperf.operators import table
from pytest_flagperf.operators.figures import of_reply
from pytest_flagperf.operators.peaks import of_chip
from pytest_flagperf.result import Result
from pytest_flagperf.worker.operators.measure import Measurement
from tests import made_session
from tests.evidence.conftest import edit_json
from tests.evidence.conftest import found
from tests.evidence.conftest import judged
from tests.evidence.conftest import kept_baseline


LOG = "operators/main/pytorch-1x1-1/host-1/rank0.events.jsonl"
NOTE = "resumed: taken from session earlier, not run again"


def read(session: Path) -> list[Result]:
    return results.read_results(session / "operators" / "main" / "results.jsonl")


def write(session: Path, *every: Result, worker: str = "main") -> None:
    """The lines of a worker's file, and the tables as they follow from all of them."""
    path = session / "operators" / worker / "results.jsonl"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"".join(msgspec.json.encode(one) + b"\n" for one in every))
    last = {one.case.node_id: one for one in table.find(session)}
    table.write_files(session, list(last.values()))


def answers(session: Path, *problems: int) -> None:
    """Let the worker's log tell an answer for each of these of its two problems, by number."""
    lines = (session / LOG).read_text().splitlines()
    (session / LOG).write_text("".join(f"{lines[number]}\n" for number in problems))


def tell(directory: Path, **line: Any) -> None:
    stamped = {"event": "resumed", "time": made_session.BEGIN, "pid": 1, "case": "x", "rounds": [], **line}
    records.append_line(directory / "ledger.jsonl", stamped, sync=False)


def resumes(session: Path) -> None:
    edit_json(session / "session.json", lambda d: d.update(resumed={"session": "earlier", "directory": "/x/earlier"}))


def taken(result: Result) -> Result:
    return msgspec.structs.replace(result, notes=[NOTE])


@pytest.fixture
def made(tmp_path: Path) -> Path:
    return made_session.make(tmp_path)


def test_what_session_and_ledger_say_was_taken_is_told_and_no_problem(made):
    first, second = read(made)
    write(made, taken(first), second)
    answers(made, 1)
    resumes(made)
    tell(made, test=first.case.node_id, session="earlier")
    outcome = judged(made)
    assert outcome.problems == []
    assert any("1 operator was taken from session earlier" in note for note in outcome.notes)


def test_a_made_up_line_needs_more_than_the_note_that_it_was_taken(made):
    first, second = read(made)
    write(made, taken(first), second)
    answers(made, 1)
    assert any("taken from session 'earlier', and session.json that '' was resumed" in one for one in found(made))
    assert any("1 operator was taken from session earlier" in note for note in judged(made).notes)
    resumes(made)
    tell(made, test=second.case.node_id, session="earlier")
    tell(made, test=first.case.node_id, session="another")
    (problem,) = found(made)
    assert "ledger.jsonl does not say that it was taken from session earlier" in problem


@pytest.mark.parametrize("worker", ["main", "zz"])
def test_nothing_that_was_taken_replaces_what_was_measured_here(made, worker):
    first, second = read(made)
    write(made, *([first, taken(first), second] if worker == "main" else [first, second]))
    if worker != "main":
        write(made, taken(first), worker=worker)
    resumes(made)
    tell(made, test=first.case.node_id, session="earlier")
    (problem,) = found(made)
    assert "it was measured here, and a result that was taken stands in its place" in problem


def faster(made: Path, result: Result, ratio: float) -> Result:
    """The same problem in so much of its time, with all that follows from it."""
    samples = [ratio * sample for sample in result.operator["samples"]]
    kept = {name: result.metrics[name].value for name in ("first_call", "max_relative_error")}
    reply = {"figures": {**Measurement(samples, samples, 1, "converged", 0).figures(), **kept}, "correct": True}
    chip = vendors.load(made.parents[1] / "vendors" / "acme" / "vendor.toml").chips["A1"]
    figures = of_reply(resolved(result), reply, of_chip(chip)).metrics
    facts = {**result.operator, "samples": samples}
    return msgspec.structs.replace(result, metrics=results.with_units(figures), operator=facts)


def test_a_later_attempt_is_judged_with_the_first_one_that_looked_changed(made):
    slow, other = read(made)
    usual = 0.8 * slow.metrics["time"].value
    stored = {f"session {k}": [usual * (1 + 0.002 * k)] for k in range(6)}
    case = gathering.of_result(slow, "x")
    case = msgspec.structs.replace(case, metric={"time": baselines.MetricBaseline("µs", "lower", stored)})
    baseline = baselines.Baseline("acme", "A1", case=[case])
    kept_baseline(made, baseline)

    def beside(one: Result) -> Result:
        comparisons = compare.judge(one, baseline, "")
        return msgspec.structs.replace(one, comparisons=comparisons, verdict=compare.overall("passed", comparisons))

    once, well = beside(slow), beside(faster(made, slow, 0.8))
    assert (once.verdict, well.verdict) == ("regressed", "passed")
    twice, third = compare.settled(once, once), compare.settled(once, well)
    answers(made, 0, 0, 0, 1)
    write(made, once, twice, third, other)
    assert found(made) == []
    write(made, once, twice, well, other)
    assert any("comparison time verdict: 'passed' is written there; 'inconclusive'" in one for one in found(made))
