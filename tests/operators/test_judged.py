"""Operators beside a baseline, in real sessions whose worker is told what to measure: measured again, resumed, told."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from pytest_flagperf import result as results
from pytest_flagperf.evidence import session as evidence
from pytest_flagperf.evidence.findings import Findings
from pytest_flagperf.result import Result
from tests.operators.judged_suite import CONFTEST
from tests.operators.judged_suite import ROWS
from tests.operators.judged_suite import SUITE
from tests.operators.judged_suite import THEN
from tests.operators.judged_suite import WELL
from tests.operators.judged_suite import Orders
from tests.operators.judged_suite import case_id
from tests.operators.judged_suite import cases


class Done:
    """A pytest of the suite that has ended."""

    def __init__(self, directory: Path, orders: Orders, *options: str, sizes: Sequence[int] = tuple(ROWS)) -> None:
        self.directory = directory / f"run{len(list(directory.glob('run*')))}"
        self.directory.mkdir()
        # The suite stays where it is: a test's name is part of what is resumed.
        (directory / "conftest.py").write_text(CONFTEST)
        (directory / "test_judged_gemm.py").write_text(SUITE.format(sizes=tuple(ROWS)))
        (self.directory / "orders.json").write_text(json.dumps(orders))
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("FLAGPERF_", "PYTEST_"))}
        chosen = " or ".join(f"m{size}-n64" for size in sizes)
        done = subprocess.run(
            [
                *(sys.executable, "-m", "pytest", "test_judged_gemm.py", "-p", "no:cacheprovider", "-k", chosen),
                *("--vendor=cpu", f"--flagperf-dir={self.directory / 'results'}"),
                *(f"--junitxml={self.directory / 'junit.xml'}", *options),
            ],
            cwd=directory,
            env={
                **kept,
                "COLUMNS": "200",
                "ORDERS": str(self.directory / "orders.json"),
                "FLAGPERF_PYTHON": f"pytorch={sys.executable}",
                "FLAGPERF_LEASE_DIR": str(directory / "leases"),
            },
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        self.code, self.output = done.returncode, done.stdout + done.stderr

    @property
    def session(self) -> Path:
        (found,) = (self.directory / "results").iterdir()
        return found

    @property
    def file(self) -> Path:
        return self.session / "operators" / "main" / results.RESULTS

    def lines(self, size: int) -> list[Result]:
        """Every line of the results that is of the problem, the last of which counts."""
        decoded = [json.loads(line) for line in self.file.read_bytes().splitlines()]
        every = [msgspec.convert(one, type=Result) for one in decoded]
        return [one for one in every if one.case.id == case_id(size)]

    def result(self, size: int) -> Result:
        return self.lines(size)[-1]

    def served(self) -> Counter[int]:
        """How often the worker was asked for each problem."""
        logs = "".join(path.read_text() for path in self.session.rglob("served"))
        return Counter(int(line.rpartition(" m")[2]) for line in logs.splitlines())

    def testcase(self, size: int) -> ElementTree.Element:
        root = ElementTree.parse(self.directory / "junit.xml").getroot()
        (found,) = [case for case in root.iter("testcase") if f"-m{size}-" in case.get("name", "")]
        return found

    def ledger(self, event: str) -> dict[str, dict[str, object]]:
        lines = [json.loads(line) for line in (self.session / "ledger.jsonl").read_text().splitlines()]
        return {line["case"]: line for line in lines if line["event"] == event}


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("judged")


@pytest.fixture(scope="module")
def baseline(directory: Path) -> str:
    path = directory / "baseline.toml"
    path.write_text(f'schema_version = 1\nvendor = "cpu"\n{cases()}', encoding="utf-8")
    return f"--baseline={path}"


@pytest.fixture(scope="module")
def judged(directory: Path, baseline: str) -> Done:
    """A session of every row."""
    return Done(directory, THEN, baseline, "-rA")


# --- measured again


def test_what_looks_changed_is_measured_twice_and_everything_else_once(judged):
    assert judged.served() == {size: len(row.orders) for size, row in ROWS.items()}, judged.output
    assert {size: len(judged.lines(size)) for size in ROWS} == {size: len(row.orders) for size, row in ROWS.items()}


@pytest.mark.parametrize("size", ROWS)
def test_results_junit_and_terminal_say_the_same_of_an_operator_beside_its_baseline(judged, size):
    row, result, case = ROWS[size], judged.result(size), judged.testcase(size)
    told = {one.get("name"): one.get("value") for one in case.iter("property")}
    assert (result.verdict, told["flagperf.verdict"]) == (row.verdict, row.verdict)
    ended = [child for child in case if child.tag in ("failure", "error", "skipped")]
    assert [child.tag for child in ended] == ([row.junit] if row.junit else [])
    assert all(row.error in (child.get("message") or "") + (child.text or "") for child in ended)
    assert {one.metric: one.verdict for one in result.comparisons} == row.compared
    assert told.get("flagperf.comparison.time") == row.compared.get("time")
    (cells,) = [line for line in judged.output.splitlines() if line.split()[:3] == [str(size), "64", "64"]]
    assert f" {row.verdict}" in cells


def test_the_terminal_counts_the_verdicts_and_says_what_changed(judged):
    (line,) = [line for line in judged.output.splitlines() if line.startswith("beside the baseline, verdicts: ")]
    told = {name: int(count) for count, name in (part.split(" ", 1) for part in line.partition(": ")[2].split(", "))}
    assert told == {"passed": 1, "inconclusive": 4, "regressed": 1, "improved": 1, "no baseline": 1}
    after = judged.output.partition(line)[2].splitlines()
    assert f"{case_id(3)}:" in after
    assert any("regressed: time: 1290 µs; baseline 1001.25 µs" in one for one in after), after


@pytest.mark.parametrize("size", [size for size, row in ROWS.items() if row.reason])
def test_the_reasons_say_what_each_of_two_measurements_was(judged, size):
    (comparison,) = judged.result(size).comparisons
    assert comparison.reasons == [f"measured twice: {ROWS[size].reason}"]


def test_the_measurement_that_counts_is_the_second_with_its_own_notes_and_the_first_is_kept(judged):
    first, second = judged.lines(3)
    assert [one.metrics["time"].value for one in (first, second)] == [1300.0, 1290.0]
    assert (first.verdict, [one.verdict for one in first.comparisons]) == ("regressed", ["regressed"])
    assert any("call 2 took 1290" in note for note in second.notes)
    assert not any("call 1 took" in note for note in second.notes)
    assert (first.code, first.stack) == (second.code, second.stack)
    assert len(second.code) == 64


def test_a_second_measurement_that_fails_is_told_as_what_it_is_and_of_the_same_code(judged):
    for size in (10, 11):
        first, second = judged.lines(size)
        assert first.verdict == "regressed"
        assert (second.metrics, second.comparisons) == ({}, [])
        assert (second.code, second.stack) == (first.code, first.stack)


def test_the_exit_code_follows_the_verdicts(judged, directory, baseline):
    assert judged.code == 1, judged.output
    well = Done(directory, THEN, baseline, sizes=WELL)
    assert well.code == 0, well.output
    assert {size: well.result(size).verdict for size in WELL} == {size: ROWS[size].verdict for size in WELL}


def test_what_is_not_decided_can_fail_and_does_so_for_one_measurement_as_for_two(directory, baseline):
    done = Done(directory, THEN, baseline, "--on-inconclusive=fail", sizes=(1, 2, 5))
    assert done.code == 1, done.output
    failed = [size for size in (1, 2, 5) if done.testcase(size).find("failure") is not None]
    assert failed == [2, 5]
    assert "Undecided" in (done.testcase(5).find("failure").get("message") or "")


# --- resumed


NOW: Orders = {size: [1000.0] for size in ROWS}


@pytest.fixture(scope="module")
def resumed(judged: Done, directory: Path, baseline: str) -> Done:
    """The same once more with ``--resume``: whatever is measured would pass."""
    return Done(directory, NOW, baseline, f"--resume={judged.session}")


def test_only_what_was_no_measurement_is_measured_again(resumed):
    assert resumed.served() == {9: 1, 11: 1}, resumed.output
    # The other's first measurement, before it failed, looked worse: that counts as the first of two.
    assert [resumed.result(size).verdict for size in (9, 11)] == ["passed", "inconclusive"]


@pytest.mark.parametrize("size", [size for size in ROWS if size not in (9, 11)])
def test_a_measurement_that_is_taken_keeps_its_verdict_and_figures_and_fails_again(judged, resumed, size):
    then, now, row = judged.result(size), resumed.result(size), ROWS[size]
    assert (now.verdict, now.metrics) == (then.verdict, then.metrics)
    assert [one.reasons for one in now.comparisons] == [one.reasons for one in then.comparisons]
    assert f"resumed: taken from session {judged.session.name}, not run again" in now.notes
    ended = [child.tag for child in resumed.testcase(size) if child.tag in ("failure", "error", "skipped")]
    assert ended == ([row.junit] if row.junit else [])
    assert case_id(size) in resumed.ledger("resumed")


def test_a_resumed_regression_fails_the_session_and_says_what_it_was(resumed):
    assert resumed.code == 1
    text = resumed.testcase(3).find("failure").text
    assert "is worse than its baseline" in text
    assert "then regressed" in text


def test_what_is_measured_again_tells_of_every_measurement_that_exists_elsewhere(judged, resumed):
    name = judged.session.name
    elsewhere = resumed.ledger("elsewhere")
    assert set(elsewhere) == {case_id(9), case_id(11)}
    assert elsewhere[case_id(9)]["rounds"] == [f"{name}: measurement (InvalidMeasurement)"]
    assert elsewhere[case_id(11)]["rounds"] == [f"{name}: measurement (OperatorFailed)"]
    (note,) = [note for note in resumed.result(11).notes if note.startswith("not taken from session")]
    assert f"not taken from session {name}: it is invalid there" in note
    assert "measurement (OperatorFailed)" in note
    assert f"the first measurement, which looked changed, is of session {name}" in resumed.result(11).notes
    assert [one.metrics["time"].value for one in resumed.lines(11)] == [1300.0, 1000.0]


def verified(done: Done) -> list[str]:
    """What ``flagperf verify`` finds amiss in a session."""
    findings = Findings()
    evidence.check(done.session, findings)
    assert findings.figures > 0
    return [str(one) for one in findings.problems]


def test_everything_that_both_sessions_say_follows_from_their_own_files(judged, resumed):
    assert verified(judged) == []
    assert verified(resumed) == []


# What a plugin for reruns does: an attempt that failed is no report, and the next one counts.
RETRIES = """
import pytest
from _pytest.runner import runtestprotocol


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item, nextitem):
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    for attempt in range(3):
        reports = runtestprotocol(item, nextitem=nextitem, log=False)
        if attempt == 2 or not any(report.failed for report in reports):
            break
        item._initrequest()
    for report in reports:
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True
"""
RETRIED: Orders = {
    1: [1300.0, "failed", 1000.0],
    3: [1300.0, 1290.0, 1000.0],
    4: [700.0, 710.0],
    9: ["nan", 1300.0, 1290.0, 1000.0],
    10: [1300.0, 1290.0, 1310.0, 1295.0],
}


@pytest.mark.slow
def test_everything_that_a_session_says_whose_tests_were_retried_follows_from_its_own_files(directory, baseline):
    (directory / "retries.py").write_text(RETRIES)
    sizes = tuple(RETRIED)
    retried = Done(directory, RETRIED, baseline, "-p", "retries", sizes=sizes)
    assert retried.served() == {size: len(orders) for size, orders in RETRIED.items()}, retried.output
    assert verified(retried) == []
    for options in ([], ["-p", "retries"]):
        again = Done(directory, NOW, baseline, f"--resume={retried.session}", *options, sizes=sizes)
        assert again.result(10).verdict == "regressed", again.output
        assert verified(again) == []


@pytest.mark.slow
def test_a_session_killed_between_two_measurements_gets_the_second_one(judged, directory, baseline, tmp_path):
    killed = tmp_path / "killed"
    (killed / "operators" / "main").mkdir(parents=True)
    (killed / "session.json").write_text(json.dumps(json.loads((judged.session / "session.json").read_text())))
    lines = [msgspec.json.encode(judged.lines(size)[0]) + b"\n" for size in (3, 5)]
    (killed / "operators" / "main" / results.RESULTS).write_bytes(b"".join(lines))
    orders = {**NOW, 3: [1310.0]}
    done = Done(directory, orders, baseline, f"--resume={killed}", sizes=(3, 5))
    assert done.served() == {3: 1, 5: 1}, done.output
    assert [done.result(size).verdict for size in (3, 5)] == ["regressed", "inconclusive"]
    for size in (3, 5):
        first, second = done.lines(size)
        assert first.metrics["time"].value == 1300.0
        assert any(note.startswith("resumed: ") for note in first.notes)
        assert not any(note.startswith("resumed: ") for note in second.notes)
        assert any("the first measurement, which looked changed, is of session" in note for note in second.notes)


@pytest.mark.slow
def test_what_is_judged_for_the_first_time_when_it_is_resumed_is_measured_again_before_it_is_called_worse(
    directory, baseline
):
    before = Done(directory, {**NOW, 1: [1300.0], 2: [1300.0]}, sizes=(1, 2))
    assert before.code == 0, before.output
    assert before.result(1).comparisons == []
    done = Done(directory, {**NOW, 2: [1310.0]}, baseline, f"--resume={before.session}", sizes=(1, 2))
    assert done.served() == {1: 1, 2: 1}, done.output
    assert [done.result(size).verdict for size in (1, 2)] == ["inconclusive", "regressed"]


@pytest.mark.slow
def test_an_operator_that_is_not_decided_says_once_that_it_has_no_rounds_however_often_it_is_resumed(
    directory, baseline
):
    option, note = "--on-inconclusive=rerun", "not decided, and an operator has no rounds to add"
    first = Done(directory, THEN, baseline, option, sizes=(2, 5))
    again = Done(directory, NOW, baseline, option, f"--resume={first.session}", sizes=(2, 5))
    assert again.served() == {}, again.output
    for size in (2, 5):
        for done in (first, again):
            assert done.result(size).verdict == "inconclusive"
            assert sum(one.startswith(note) for one in done.result(size).notes) == 1
