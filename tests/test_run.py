"""What a test asserts on: its result says the same, whatever the test asks for."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_flagperf import at_least
from pytest_flagperf import run as runs
from pytest_flagperf.errors import InvalidMeasurement
from pytest_flagperf.errors import Regressed
from pytest_flagperf.errors import TargetMissed
from pytest_flagperf.errors import WrongResult
from pytest_flagperf.result import Result
from tests.test_result import make
from tests.test_resume import toy


@pytest.fixture
def written() -> list[Result]:
    """The results that were written anew."""
    return []


@pytest.fixture
def run(tmp_path: Path, written: list[Result]) -> runs.Run:
    return runs.Run(toy(tmp_path), make(tmp_path), tmp_path / "session" / "case", republish=written.append)


def test_a_metric_that_was_not_measured_makes_the_result_invalid(run, written):
    with pytest.raises(InvalidMeasurement, match="not measured: mfu"):
        run.measured("mfu")
    (anew,) = written
    assert (anew.verdict, anew.metrics, anew.error.type) == ("invalid", {}, "InvalidMeasurement")
    assert anew.rounds == run.result.rounds


def test_other_targets_than_the_cases_are_in_the_result_that_misses_them(run, written):
    with pytest.raises(TargetMissed):
        run.meets([at_least("top1", 1.0, source="here")])
    (anew,) = written
    assert (anew.verdict, [(one.bound, one.met) for one in anew.targets]) == ("missed", [(1.0, False)])


def test_what_holds_is_not_written_again(run, written):
    assert run.measured(*run.metrics)
    assert written == []


@pytest.mark.parametrize(
    ("told", "error"), [("missed", TargetMissed), ("regressed", Regressed), ("wrong", WrongResult)]
)
def test_a_test_that_asserts_nothing_fails_with_its_result(told, error):
    with pytest.raises(error, match=f"the result says {told}"):
        runs.refuse_unasserted(told)


@pytest.mark.parametrize("told", ["passed", "improved", "inconclusive", "invalid", "no baseline", "unsupported"])
def test_a_test_that_asserts_nothing_passes_where_nothing_is_amiss_or_an_error_says_so(told):
    runs.refuse_unasserted(told)
