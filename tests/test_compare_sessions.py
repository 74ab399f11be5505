"""``flagperf compare``: what got worse between two sessions, what differs around them, and the exit code of a gate."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pytest_flagperf import result as results
from pytest_flagperf import sessions
from pytest_flagperf.cli import main
from pytest_flagperf.judging import baselines
from pytest_flagperf.judging import gathering
from tests import made_session
from tests.made_session import CASE


STEADY = (1.0, 1.01, 0.99, 1.005, 0.995)
SLOW = tuple(0.85 * speed for speed in STEADY)
NOISY = (1.0, 1.3, 0.8, 1.1, 0.9)


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., str]:
    def made(name: str, **more: Any) -> str:
        return str(made_session.make(tmp_path, name=name, **{"speeds": STEADY, "operators": False, **more}))

    return made


def compared(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> dict[str, Any]:
    assert main(["compare", *arguments, "--json"]) == code
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def verdicts(document: dict[str, Any]) -> dict[str, str]:
    return {one["metric"]: one["verdict"] for one in document["comparisons"]}


def test_a_session_beside_itself_has_nothing_worse_and_nothing_different(make, capsys):
    one = make("a")
    document = compared(capsys, one, one, "--fail-on-regression")
    assert document["differences"] == {}
    assert document["verdicts"] == {"passed": len(document["comparisons"])}
    assert document["only"] == {"a": [], "b": []}


def test_a_regression_is_named_and_fails_only_where_it_is_asked_to(make, capsys):
    a, b = make("a"), make("b", speeds=SLOW)
    document = compared(capsys, a, b)
    row = next(one for one in document["comparisons"] if one["metric"] == "p_train")
    assert (row["case"], row["verdict"], row["unit"]) == (CASE, "regressed", "samples/s")
    assert row["change"] == pytest.approx(-0.15, abs=0.01)
    compared(capsys, a, b, "--fail-on-regression", code=1)
    # The other way round it is an improvement, which fails nothing.
    assert verdicts(compared(capsys, b, a, "--fail-on-regression"))["p_train"] == "improved"


def test_the_table_shows_values_change_and_verdict(make, capsys):
    a, b = make("a"), make("b", speeds=SLOW)
    assert main(["compare", a, b, "--fail-on-regression"]) == 1
    out = capsys.readouterr().out
    line = next(line for line in out.splitlines() if " p_train " in line)
    assert line.startswith(CASE)
    assert "-15.0 %" in line
    assert "regressed" in line
    assert out.splitlines()[-1].startswith(("2 regressed", "1 passed", "1 regressed", "2 passed"))


def test_a_metric_that_is_asked_for_is_judged_alone(make, capsys):
    a, b = make("a"), make("b", speeds=SLOW)
    document = compared(capsys, a, b, "--metric", "p_core", "--fail-on-regression", code=1)
    assert verdicts(document) == {"p_core": "regressed"}


def test_software_host_and_commit_that_differ_are_named_and_no_obstacle(make, capsys):
    a = make("a", stack={"torch": "2.9.0"})
    b = make("b", stack={"torch": "2.10.0"}, host="host-2", commit="fedcba9876543210")
    document = compared(capsys, a, b)
    assert document["differences"] == {
        "host": {"a": "host-1", "b": "host-2"},
        "commit": {"a": "0123456789ab", "b": "fedcba987654"},
        "torch": {"a": "2.9.0", "b": "2.10.0"},
    }
    assert verdicts(document)["p_train"] == "passed"
    assert "torch was 2.9.0, is 2.10.0" in document["comparisons"][0]["reasons"]
    assert main(["compare", a, b]) == 0
    assert "What differs around them" in capsys.readouterr().out


def test_vendors_and_chips_that_differ_are_not_judged_and_their_ratio_is_shown(make, capsys):
    a, b = make("a"), make("b", speeds=SLOW, vendor="zebra", chip="Z1")
    # Who wants to fail on a regression wants to know that there is none.
    document = compared(capsys, a, b, "--fail-on-regression", code=1)
    row = next(one for one in document["comparisons"] if one["metric"] == "p_train")
    assert row["verdict"] == "not comparable"
    assert row["change"] == pytest.approx(-0.15, abs=0.01)
    assert row["reasons"][:2] == ["vendor was 'acme', is 'zebra'", "chip was 'A1', is 'Z1'"]
    assert document["differences"]["vendor"] == {"a": "acme", "b": "zebra"}


def test_a_configuration_that_differs_is_named(make, capsys):
    def tuned(result: results.Result) -> results.Result:
        settings = {**result.configuration, "learning_rate": results.SettingResult(0.2, "command line")}
        return msgspec.structs.replace(result, configuration=settings)

    document = compared(capsys, make("a"), make("b", change=tuned))
    row = document["comparisons"][0]
    assert (row["verdict"], row["reasons"]) == ("not comparable", ["learning_rate was 0.1, is 0.2"])


def test_a_measurement_that_failed_is_not_overlooked(make, capsys):
    def crashed(result: results.Result) -> results.Result:
        error = results.ErrorResult("RankCrashed", "rank 0 ended by signal 9\nmore")
        return msgspec.structs.replace(result, verdict="invalid", error=error, metrics={})

    good, bad = make("a"), make("b", change=crashed)
    (row,) = compared(capsys, good, bad)["comparisons"]
    compared(capsys, good, bad, "--fail-on-regression", code=1)
    assert (row["verdict"], row["reasons"]) == ("invalid", ["RankCrashed: rank 0 ended by signal 9", "was passed"])
    rows = compared(capsys, bad, good)["comparisons"]
    assert {one["verdict"] for one in rows} == {"no baseline"}
    assert any("the measurement is invalid" in reason for reason in rows[0]["reasons"])


def test_cases_that_only_one_side_has_are_listed(make, capsys):
    a, b = make("a"), make("b", operators=True)
    document = compared(capsys, a, b)
    assert document["only"]["a"] == []
    assert document["only"]["b"] == [f"gemm-train-fp32-fwd-m{m}-n128-k1024-nn" for m in (1024, 2048)]
    document = compared(capsys, b, a, "--case", "gemm")
    assert document["comparisons"] == []
    assert len(document["only"]["a"]) == 2
    assert main(["compare", b, a, "--case", "gemm", "--fail-on-regression"]) == 1
    assert "nothing was compared, so nothing is known of regressions" in capsys.readouterr().err
    assert main(["compare", b, a, "--case", "gemm"]) == 0
    captured = capsys.readouterr()
    assert "only in A: gemm" in captured.out
    assert "A and B share no case and metric" in captured.err


def test_a_baseline_file_stands_in_for_a_session(make, tmp_path, capsys):
    a, b = make("a"), make("b", speeds=SLOW)
    path = tmp_path / "A1.toml"
    baselines.write(path, gathering.from_sessions([sessions.read(Path(a))]))
    document = compared(capsys, str(path), b, "--fail-on-regression", code=1)
    assert verdicts(document)["p_train"] == "regressed"
    # A baseline does not tell the host: that is no difference.
    assert "host" not in document["differences"]


@pytest.mark.parametrize("place", [0, 1])
def test_what_is_no_session_is_bad_usage(make, tmp_path, capsys, place):
    arguments = [make("a"), make("b")]
    arguments[place] = str(tmp_path / "nothing")
    with pytest.raises(SystemExit) as usage:
        main(["compare", *arguments])
    assert usage.value.code == 2
    assert "is no session" in capsys.readouterr().err


def test_a_file_that_is_no_baseline_is_bad_usage(make, tmp_path, capsys):
    path = tmp_path / "A1.toml"
    path.write_text("vendor = 1\n")
    with pytest.raises(SystemExit) as usage:
        main(["compare", str(path), make("a")])
    assert usage.value.code == 2
    assert "A1.toml" in capsys.readouterr().err


def test_json_tells_by_what_a_metric_was_judged(make, capsys):
    a, b = make("a"), make("b", speeds=SLOW)
    row = next(one for one in compared(capsys, a, b)["comparisons"] if one["metric"] == "p_train")
    low, high = row["interval"]
    assert low < row["change"] < high < 0
    assert row["tolerance"] == 0.05
    assert "99 % interval" in row["method"]
    assert [len(row["samples"][side]) for side in ("a", "b")] == [5, 5]
    assert row["b"] == pytest.approx(sum(sorted(row["samples"]["b"])[1:-1]) / 3), "five rounds: the olympic mean"


def test_what_is_inconclusive_says_why(make, capsys):
    a = make("a", speeds=NOISY)
    row = next(one for one in compared(capsys, a, a)["comparisons"] if one["metric"] == "p_train")
    assert row["verdict"] == "inconclusive"
    assert row["reasons"][0].startswith("a loss of more than 5 % is not excluded: interval -")
    assert main(["compare", a, a]) == 0
    captured = capsys.readouterr()
    assert "a loss of more than 5 % is not excluded" in captured.out
    assert "A and B are the same session" in captured.err
    one, slow = make("c", speeds=(1.0,)), make("d", speeds=(0.5,))
    row = next(found for found in compared(capsys, one, slow)["comparisons"] if found["metric"] == "p_train")
    assert row["reasons"] == [
        "a loss of more than 5 %, and 1 new and 1 stored samples of 1 session are too few for an interval"
    ]


def test_a_metric_that_nobody_knows_is_bad_usage_and_one_of_a_suites_own_is_judged(make, capsys):
    def own(result: results.Result) -> results.Result:
        value = msgspec.structs.replace(result.metrics["p_train"], value=3.0, unit="1/J")
        found = {**result.metrics, "tokens_per_joule": value}
        return msgspec.structs.replace(result, metrics=found)

    a = make("a", change=own)
    assert verdicts(compared(capsys, a, a, "--metric", "tokens_per_joule")) == {"tokens_per_joule": "passed"}
    with pytest.raises(SystemExit) as usage:
        main(["compare", a, a, "--metric", "nope"])
    assert usage.value.code == 2
    assert "there is no metric 'nope'; flagperf metrics lists those there are" in capsys.readouterr().err


def test_a_gate_does_not_pass_because_a_case_is_missing(make, capsys):
    whole, part = make("a", operators=True), make("b")
    assert main(["compare", whole, part, "--fail-on-regression"]) == 1
    assert "B did not measure what A did: gemm-train-fp32-fwd-m1024" in capsys.readouterr().err
    assert main(["compare", whole, part, "--fail-on-regression", "--missing=ok"]) == 0
    # What is looked at is there, and what B has beside it is nobody's loss.
    assert main(["compare", whole, part, "--fail-on-regression", "--case", CASE]) == 0
    assert main(["compare", part, whole, "--fail-on-regression"]) == 0
    assert main(["compare", whole, part]) == 0


def test_a_case_that_b_does_not_support_any_more_is_missing_too(make, capsys):
    def unsupported(result: results.Result) -> results.Result:
        return msgspec.structs.replace(result, verdict="unsupported", metrics={})

    a, b = make("a", operators=True), make("b", operators=True, change=unsupported)
    assert main(["compare", a, b, "--fail-on-regression"]) == 1
    assert f"B did not measure what A did: {CASE}" in capsys.readouterr().err
