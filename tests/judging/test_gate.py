"""What a session makes of a comparison: which verdict counts, what is said, when a run is stopped."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest

from pytest_flagperf.errors import ConfigurationError
from pytest_flagperf.errors import Regressed
from pytest_flagperf.errors import Undecided
from pytest_flagperf.errors import WrongResult
from pytest_flagperf.judging import baselines
from pytest_flagperf.judging import gate
from pytest_flagperf.judging import gathering
from pytest_flagperf.judging import kept as kept_baselines
from pytest_flagperf.judging.baselines import Baseline
from pytest_flagperf.judging.resume import Resume
from pytest_flagperf.options import Options
from pytest_flagperf.perflog import Event
from pytest_flagperf.result import ComparisonResult
from pytest_flagperf.result import ErrorResult
from pytest_flagperf.result import Result
from tests.judging.conftest import make_result


STEADY = [100.0, 100.5, 99.5, 100.2, 99.8, 100.1, 99.9, 100.3, 99.7, 100.0]


@pytest.fixture
def told() -> list[dict[str, object]]:
    """The lines of the session's ledger."""
    return []


@pytest.fixture
def gate_of(tmp_path: Path, told: list[dict[str, object]]) -> Callable[..., gate.Gate]:
    """A session's gate; ``own`` is the vendor's file for the chip, ``asked`` what ``--baseline`` names."""

    def make(
        *, own: Baseline | None = None, asked: Baseline | None = None, resume: object = None, **options: object
    ) -> gate.Gate:
        if own is not None:
            baselines.write(tmp_path / "vendors" / "acme" / "baselines" / "A1.toml", own)
        if asked is not None:
            baselines.write(tmp_path / "asked.toml", asked)
        if asked is not None:
            options["baseline"] = tmp_path / "asked.toml"
        session = SimpleNamespace(
            options=Options(**options),
            vendor=SimpleNamespace(name="acme"),
            vendor_directories=[tmp_path / "vendors"],
            devices_and_host={},
            name="now",
            resume=resume,
            directory=tmp_path / "session",
            open=lambda: tmp_path / "session",
            ledger=lambda event, **record: told.append({"event": event, **record}),
        )
        return gate.Gate(session)

    return make


def of(*found: Result) -> Baseline:
    """A baseline of results."""
    return Baseline("acme", "A1", case=[gathering.of_result(one, "before") for one in found])


def test_the_baseline_that_judged_is_kept_in_the_session(gate_of, tmp_path, told):
    own = of(make_result({"p_train": STEADY}))
    found = gate_of(own=own)
    found.judged(make_result({"p_train": STEADY[:5]}))
    found.judged(make_result({"p_train": STEADY[:5]}, id="another"))
    (kept,) = kept_baselines.read(tmp_path / "session", "acme", "A1")
    assert kept.problem == ""
    assert kept.baseline == found.baseline(make_result({"p_train": STEADY}))
    assert kept_baselines.read(tmp_path / "session", "acme", None) == []
    assert [(line["event"], line["file"]) for line in told] == [("baseline", kept.path.name)]


@pytest.mark.parametrize("content", [b"{", b"[" * 100_000, b'{"vendor": "\xff"}', b'{"vendor": "acme"}'])
def test_a_kept_baseline_that_was_edited_is_none(gate_of, tmp_path, content):
    gate_of(own=of(make_result({"p_train": STEADY}))).judged(make_result({"p_train": STEADY[:5]}))
    (path,) = (tmp_path / "session" / "baselines").iterdir()
    path.write_bytes(content)
    (kept,) = kept_baselines.read(tmp_path / "session", "acme", "A1")
    assert (kept.baseline, kept.problem) == (None, "its digest is not that of its name: it was edited")


def test_a_wrong_answer_of_an_earlier_session_stays_one():
    result = make_result({"time": [1.0]}, verdict="wrong", operator={"id": "x"})
    found = gate.complaint(msgspec.structs.replace(result, notes=["off by 3"]), "gemm", Path("/s"), "pass")
    assert isinstance(found, WrongResult)
    assert "off by 3" in str(found)


def test_a_run_that_was_stopped_in_an_earlier_session_is_not_judged_anew(gate_of):
    stopped = make_result({"p_train": [50.0]}, verdict="regressed")
    stopped = msgspec.structs.replace(stopped, metrics={}, error=ErrorResult("Regressed", "stopped early"))
    assert gate_of(own=of(make_result({"p_train": STEADY}))).judged(stopped) == stopped


def test_without_any_baseline_nothing_is_compared(gate_of):
    result = make_result({"p_train": [90.0] * 5})
    assert gate_of().judged(result) == result


def test_the_vendors_own_file_for_the_chip_counts_unasked_and_none_switches_it_off(gate_of):
    own = of(make_result({"p_train": STEADY}))
    slower = make_result({"p_train": [90.0, 90.4, 89.6, 90.2, 89.8]})
    judged = gate_of(own=own).judged(slower)
    assert (judged.verdict, judged.comparisons[0].verdict) == ("regressed", "regressed")
    assert gate_of(own=own, without_baseline=True).judged(slower) == slower


def test_a_case_that_nobody_has_is_told_only_to_who_asked(gate_of):
    other = of(make_result({"p_train": STEADY}, id="another-case"))
    result = make_result({"p_train": [90.0] * 5})
    assert gate_of(own=other).judged(result) == result
    assert gate_of(asked=other).judged(result).verdict == "no baseline"


def test_what_is_asked_for_comes_before_the_vendors_own(gate_of):
    own, asked = of(make_result({"p_train": STEADY})), of(make_result({"p_train": [2 * one for one in STEADY]}))
    judged = gate_of(own=own, asked=asked).judged(make_result({"p_train": STEADY[:5]}))
    assert judged.verdict == "regressed"
    assert judged.comparisons[0].source.endswith("asked.toml")


def test_a_result_that_was_compared_before_is_compared_anew(gate_of):
    own = of(make_result({"p_train": STEADY}))
    before = msgspec.structs.replace(
        make_result({"p_train": STEADY[:5]}, verdict="improved"),
        comparisons=[ComparisonResult("p_train", "improved", 1.0)],
    )
    judged = gate_of(own=own).judged(before)
    assert (judged.verdict, [one.verdict for one in judged.comparisons]) == ("passed", ["passed"])


def test_neither_the_running_session_nor_the_resumed_one_is_a_baseline_for_itself(gate_of, tmp_path, write_session):
    for name in ("before", "resumed", "now"):
        write_session(name, make_result({"p_train": STEADY}))
    found = gate_of(baseline=tmp_path / "sessions", resume=SimpleNamespace(name="resumed", measured=[]))
    baseline = found.baseline(make_result({"p_train": STEADY}))
    assert [one.name for one in baseline.session] == ["before"]


def test_what_is_resumed_is_left_out_of_every_session_that_has_a_copy_of_it(gate_of, tmp_path, write_session):
    taken = make_result({"p_train": STEADY})
    note = "resumed: taken from session first, not run again"
    write_session("first", taken)
    write_session("second", msgspec.structs.replace(taken, notes=[note]))
    write_session("third", make_result({"p_train": [one + 1 for one in STEADY]}))
    write_session("resumed", msgspec.structs.replace(taken, notes=[note]))
    resume = Resume(tmp_path / "sessions" / "resumed")
    baseline = gate_of(baseline=tmp_path / "sessions", resume=resume).baseline(taken)
    assert list(baseline.case[0].metric["p_train"].samples) == ["third"]
    alone = gate_of(baseline=tmp_path / "sessions" / "first", resume=resume).judged(taken)
    assert alone.verdict == "no baseline"
    assert {reason for one in alone.comparisons for reason in one.reasons} == {"first: it is what is to be judged"}


def test_a_malformed_file_that_is_asked_for_is_found_before_anything_runs(gate_of, tmp_path):
    found = gate_of(asked=of())
    (tmp_path / "asked.toml").write_text("vendor = 1\n")
    with pytest.raises(ConfigurationError, match=r"asked\.toml"):
        found.check()


def test_a_missed_target_outweighs_a_regression_and_is_none_of_the_complaints(gate_of):
    own = of(make_result({"p_train": STEADY}))
    judged = gate_of(own=own).judged(make_result({"p_train": [50.0] * 5}, verdict="missed"))
    assert judged.verdict == "missed"
    assert gate.complaint(judged, "toy", Path("/results/session"), "fail") is None


def compared(verdict: str) -> Result:
    one = ComparisonResult(
        "p_train",
        verdict,
        90.0,
        100.0,
        -0.1,
        [-0.12, -0.08],
        "a test",
        0.05,
        STEADY,
        "/b/A1.toml",
        ["torch was 1, is 2"],
    )
    return msgspec.structs.replace(make_result({"p_train": [90.0]}, verdict=verdict), comparisons=[one])


def test_a_complaint_has_both_figures_the_change_how_it_was_judged_and_how_to_accept_it():
    found = gate.complaint(compared("regressed"), "toy throughput", Path("/results/session"), "pass")
    assert isinstance(found, Regressed)
    first, figures, reason, source, accept = str(found).splitlines()
    assert first == "toy throughput is worse than its baseline"
    assert figures.startswith("  p_train: 90 samples/s; baseline 100 samples/s [99.")
    assert figures.endswith("of 10 samples; -10.0 % [-12.0 %, -8.0 %] (a test, tolerance 5 %)")
    assert reason.strip() == "torch was 1, is 2"
    assert source == "baseline: /b/A1.toml"
    assert "flagperf rebase /results/session --baseline /b/A1.toml --case toy-" in accept


def test_what_is_not_decided_is_a_complaint_only_where_that_is_wanted():
    undecided = compared("inconclusive")
    assert gate.complaint(undecided, "toy", Path("/s"), "pass") is None
    assert gate.complaint(undecided, "toy", Path("/s"), "rerun") is None
    assert isinstance(gate.complaint(undecided, "toy", Path("/s"), "fail"), Undecided)


def test_what_is_worst_comes_first():
    def one(name: str, verdict: str, change: float) -> ComparisonResult:
        return ComparisonResult(name, verdict, 1.0, 1.0, change)

    found = [
        one("a", "passed", 0.5),
        one("b", "regressed", -0.1),
        one("c", "regressed", -0.3),
        one("d", "improved", 1.0),
    ]
    assert [each.metric for each in gate.foremost(found)] == ["c", "b", "d", "a"]


@pytest.fixture
def guard(gate_of) -> Callable[[float, float], None]:
    """Shows an evaluation (epoch, top1) to the guard of a run whose baseline reached 0.9 after an epoch."""
    curves = [[(1.0, 0.90 + number / 1000), (2.0, 0.95 + number / 1000)] for number in range(6)]
    before = make_result({"top1": [0.95] * 6}, role="convergence", curves=curves, target=0.94)
    planned = make_result(role="convergence", target=0.94)
    look = gate_of(own=of(before)).guard(planned, 5)
    assert look is not None
    return lambda epoch, top1: look(Event("EVALUATE", {"epoch": epoch, "top1": top1, "global_steps": 1}))


def test_a_run_inside_the_band_goes_on_and_one_that_leaves_it_is_stopped(guard):
    guard(1.0, 0.895)
    guard(1.0, 0.93)
    with pytest.raises(
        Regressed, match=r"stopped early, .*top1 is 0\.5 after epoch 1; 6 rounds of the baseline had 0\.9025"
    ):
        guard(1.0, 0.5)


def test_an_evaluation_that_holds_the_target_stops_nothing(guard):
    guard(2.0, 0.9401)


def test_there_is_no_guard_for_throughput_nor_without_enough_rounds(gate_of):
    curves = [[(1.0, 0.9)]] * 4
    few = of(make_result({"top1": [0.95] * 4}, role="convergence", curves=curves, target=0.94))
    assert gate_of(own=few).guard(make_result(role="convergence", target=0.94), 5) is None
    assert gate_of().guard(make_result(role="convergence", target=0.94), 5) is None
    assert gate_of(own=few).guard(make_result(), 5) is None
