"""Operators whose test is run again in one session, or fails between two measurements: no attempt gets a better one."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from pytest_flagperf import result as results
from pytest_flagperf import sessions
from pytest_flagperf.cli import main
from pytest_flagperf.result import Result
from tests.operators.judged_suite import Orders
from tests.operators.judged_suite import case_id
from tests.operators.judged_suite import cases
from tests.operators.test_judged import Done


NOTE = "started for this case beside those that count: "
# What pytest-rerunfailures does with a failed test, as ``-p rerunning``.
RERUNNING = """
import pytest
from _pytest.runner import runtestprotocol


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item, nextitem):
    reports = runtestprotocol(item, nextitem=nextitem, log=False)
    if any(one.failed for one in reports):
        item._initrequest()
        reports = runtestprotocol(item, nextitem=nextitem, log=False)
    for one in reports:
        item.ihook.pytest_runtest_logreport(report=one)
    return True
"""
RERUN = ("-p", "rerunning")


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("again")


@pytest.fixture(scope="module")
def session(directory: Path) -> Callable[..., Done]:
    """Runs the problems of ``orders`` beside the baseline."""
    (directory / "rerunning.py").write_text(RERUNNING)
    baseline = directory / "baseline.toml"
    baseline.write_text(f'schema_version = 1\nvendor = "cpu"\n{cases()}', encoding="utf-8")

    def run(orders: Orders, *options: str) -> Done:
        return Done(directory, orders, f"--baseline={baseline}", *options, sizes=tuple(orders))

    return run


@pytest.fixture(scope="module")
def rerun(session: Callable[..., Done]) -> Done:
    """A session in which every failed test got a second attempt; whatever is measured after these would pass."""
    orders: Orders = {
        3: [1300.0, 1290.0, 1000.0],
        4: [1300.0, 1290.0, 1280.0],
        8: ["wrong", 1000.0],
        9: ["nan", 1300.0, 1001.0],
        10: [1300.0, "wrong", 1000.0],
        11: [1300.0, "failed", 1000.0],
        12: ["wrong", "unsupported"],
    }
    return session({size: [*answers, 1000.0] for size, answers in orders.items()}, *RERUN)


def told(done: Done, size: int) -> list[str]:
    return [note.removeprefix(NOTE) for note in done.result(size).notes if note.startswith(NOTE)]


def times(done: Done, size: int) -> list[float]:
    return [one.metrics["time"].value for one in done.lines(size) if one.metrics]


def test_an_attempt_after_one_that_looked_worse_is_judged_together_with_it(rerun):
    assert rerun.served() == {3: 3, 4: 3, 8: 2, 9: 3, 10: 3, 11: 3, 12: 2}, rerun.output
    verdicts = {size: rerun.result(size).verdict for size in (3, 4, 9, 10, 11)}
    assert verdicts == {
        3: "inconclusive",
        4: "regressed",
        9: "inconclusive",
        10: "inconclusive",
        11: "inconclusive",
    }
    (comparison,) = rerun.result(3).comparisons
    assert comparison.reasons == ["measured twice: regressed (+29.8 %), then passed"]
    assert rerun.code == 1


@pytest.mark.parametrize(
    ("size", "beside"),
    [
        (3, "1 measurement: regressed"),
        (4, "1 measurement: regressed"),
        (8, "1 measurement: wrong"),
        (9, "1 measurement: InvalidMeasurement"),
        (10, "1 measurement: wrong"),
        (11, "1 measurement: OperatorFailed"),
    ],
)
def test_the_measurements_of_other_attempts_are_told_and_kept(rerun, size, beside):
    assert told(rerun, size) == [beside]
    assert len(rerun.lines(size)) == rerun.served()[size]


def test_an_answer_that_was_wrong_once_passes_with_a_note_and_no_kernel_after_it_is_no_skip(rerun):
    assert rerun.result(8).verdict == "passed"
    assert (rerun.result(12).verdict, rerun.result(12).error.type) == ("invalid", "OperatorFailed")
    assert "it was measured before (wrong), and now has no kernel: no int8" in rerun.result(12).error.message


def test_a_rerun_session_is_resumed_with_all_of_its_measurements_and_the_same_verdicts(rerun, session):
    again = session({size: [1000.0] for size in (3, 4, 8, 9, 10, 11, 12)}, f"--resume={rerun.session}", *RERUN)
    assert again.served() == {}, again.output
    for size in (3, 4, 8, 9, 10, 11):
        then, now = rerun.result(size), again.result(size)
        assert (now.verdict, now.metrics, now.comparisons) == (then.verdict, then.metrics, then.comparisons)
        assert told(again, size) == told(rerun, size)
    assert [times(again, size) for size in (3, 9)] == [[1300.0, 1290.0, 1000.0], [1300.0, 1001.0]]
    assert again.result(12).verdict == "wrong"
    # A second attempt takes the same ones again: only the last, which counts, is there twice.
    assert times(again, 4) == [1300.0, 1290.0, 1280.0, 1280.0]
    third = session({4: [1000.0]}, f"--resume={again.session}")
    assert (third.served(), times(third, 4)) == ({}, [1300.0, 1290.0, 1280.0]), third.output


def test_an_attempt_after_a_resumed_one_does_not_take_it_twice(rerun, session, tmp_path):
    killed = begun(rerun.lines(3)[0], rerun, tmp_path)
    done = session({3: [1290.0, 1000.0]}, f"--resume={killed}", *RERUN)
    assert times(done, 3) == [1300.0, 1290.0, 1000.0], done.output
    assert [any(note.startswith("resumed: ") for note in one.notes) for one in done.lines(3)] == [True, False, False]
    assert (done.result(3).verdict, told(done, 3)) == ("inconclusive", ["1 measurement: regressed"])
    assert any("the first measurement, which looked changed, is of session" in note for note in done.result(3).notes)


# --- a second measurement that is none


def test_a_kernel_that_is_gone_after_a_measurement_is_invalid_and_not_skipped(session):
    done = session({3: [1300.0, "unsupported"]})
    assert done.code == 1, done.output
    first, second = done.lines(3)
    assert (first.verdict, second.verdict, second.error.type) == ("regressed", "invalid", "OperatorFailed")
    assert "it was measured before (regressed), and now has no kernel: no int8 convolution" in second.error.message
    assert done.testcase(3).find("skipped") is None
    assert (second.code, second.stack) == (first.code, first.stack)


@pytest.mark.parametrize(("size", "answer"), [(3, 1290.0), (5, 1000.0)])
def test_a_measurement_before_a_failure_is_the_first_of_two_when_it_is_resumed(session, size, answer):
    before = session({size: [1300.0, "failed"]})
    assert before.result(size).verdict == "invalid", before.output
    done = session({size: [answer]}, f"--resume={before.session}")
    assert done.served() == {size: 1}, done.output
    assert done.result(size).verdict == ("regressed" if size == 3 else "inconclusive")
    assert times(done, size) == [1300.0, answer]


# --- killed between the two


def begun(first: Result, of: Done, directory: Path) -> Path:
    """A session that was killed when it had measured once."""
    where = directory / "killed" / "operators" / "main"
    where.mkdir(parents=True)
    (directory / "killed" / "session.json").write_bytes((of.session / "session.json").read_bytes())
    (where / results.RESULTS).write_bytes(msgspec.json.encode(first) + b"\n")
    return directory / "killed"


def test_a_session_that_was_killed_between_two_measurements_is_read_as_unfinished(rerun, tmp_path, capsys):
    killed = begun(rerun.lines(3)[0], rerun, tmp_path)
    missing = f"{case_id(3)} measurement 2, without which it is not regressed"
    assert sessions.read(killed).unfinished == (missing,)
    assert sessions.read(rerun.session).unfinished == ()
    main(["show", str(killed)])
    assert f"started and not ended: {missing}" in capsys.readouterr().err
    main(["report", "--format=markdown", str(killed)])
    assert missing in capsys.readouterr().out
    main(["show", str(rerun.session)])
    assert "started and not ended" not in capsys.readouterr().err


# --- beside sessions that hold copies of it


def test_a_resumed_measurement_is_not_compared_with_itself_in_whichever_session_a_copy_is(directory, tmp_path):
    def kept(done: Done) -> Done:
        # Without its pipes, which are no files.
        shutil.copytree(done.session, tmp_path / done.session.name, ignore=shutil.ignore_patterns("*.fifo"))
        return done

    first = kept(Done(directory, {1: [1300.0]}, sizes=(1,)))
    second = kept(Done(directory, {1: [1000.0]}, f"--resume={first.session}", sizes=(1,)))
    beside = f"--baseline={tmp_path}"
    for taken in (first, second):
        alone = Done(directory, {1: [1000.0]}, f"--resume={taken.session}", beside, sizes=(1,))
        assert (alone.served(), alone.result(1).verdict) == ({}, "no baseline"), alone.output
    itself = Done(directory, {1: [1000.0]}, f"--resume={second.session}", f"--baseline={first.session}", sizes=(1,))
    assert itself.result(1).verdict == "no baseline"
    assert f"{first.session.name}: it is what is to be judged" in itself.result(1).comparisons[0].reasons

    kept(Done(directory, {1: [1010.0]}, sizes=(1,)))
    third = Done(directory, {1: [1290.0]}, f"--resume={second.session}", beside, sizes=(1,))
    assert third.result(1).comparisons[0].samples == [1010.0]
    # Whoever measures anew is compared with what was measured before, once.
    anew = Done(directory, {1: [1020.0]}, beside, sizes=(1,))
    assert sorted(anew.result(1).comparisons[0].samples) == [1010.0, 1300.0]
