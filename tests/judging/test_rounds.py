"""Which rounds count, and that none is left out without a word."""

from __future__ import annotations

import math

import msgspec
import pytest

from pytest_flagperf import at_least
from pytest_flagperf.judging import gate
from pytest_flagperf.judging import rounds
from pytest_flagperf.judging import statistics
from tests.judging.conftest import CASE_ID
from tests.judging.conftest import make_result


TARGET = (at_least("top1", 0.9, source="toy"),)


def ran(*quality: float, **figures: list[float]):
    """Rounds that reached ``quality``."""
    return make_result({"top1": quality, **figures}).rounds


def test_up_to_four_rounds_give_the_median_and_five_the_olympic_mean():
    for count, method in ((1, "single"), (2, "median"), (4, "median"), (5, "olympic mean")):
        samples = [10.0, 30.0, 11.0, 12.0, 1.0][:count]
        figures, spreads = rounds.of_rounds(make_result({"p_train": samples}).rounds)
        assert spreads["p_train"].method == method
        assert spreads["p_train"].samples == samples
        assert figures["p_train"] == statistics.summarize(samples).value


def test_five_rounds_have_an_interval_around_their_figure():
    figures, spreads = rounds.of_rounds(make_result({"p_train": [10.0, 11.0, 12.0, 11.5, 10.5]}).rounds)
    spread = spreads["p_train"]
    assert spread.low is not None
    assert spread.low < figures["p_train"] < spread.high


def test_one_round_of_five_that_does_not_converge_is_dropped_and_counts_as_the_slowest():
    made = ran(0.95, 0.96, 0.5, 0.95, 0.97, time_to_target=[10.0, 12.0, 0.1, 14.0, 16.0])
    dropped = rounds.drop(made, TARGET)
    assert [bool(one.dropped) for one in dropped] == [False, False, True, False, False]
    assert "did not converge" in dropped[2].dropped
    figures, spreads = rounds.of_rounds(dropped)
    # The fastest goes with it, however early the dropped one gave up.
    assert figures["time_to_target"] == pytest.approx((12 + 14 + 16) / 3)
    assert spreads["time_to_target"].method == "olympic mean"
    assert spreads["time_to_target"].samples == [10.0, 12.0, 14.0, 16.0]
    assert all(value is None or math.isfinite(value) for one in spreads.values() for value in (one.low, one.high))
    # Its quality is that of a round like others: the lowest, which the mean drops.
    assert figures["top1"] == pytest.approx((0.95 + 0.96 + 0.95) / 3)


@pytest.mark.parametrize("quality", [(0.95, 0.5, 0.95, 0.5, 0.95), (0.95, 0.5, 0.95, 0.95)])
def test_two_such_rounds_or_one_of_four_are_not_dropped(quality):
    assert not any(one.dropped for one in rounds.drop(ran(*quality), TARGET))


def test_a_round_that_was_stopped_early_is_the_one_that_may_be_dropped():
    made = ran(0.95, 0.95, 0.95, 0.95, 0.95)
    made[1] = msgspec.structs.replace(made[1], metrics={})
    assert rounds.may_drop(made[:2], TARGET, 5)
    assert not rounds.may_drop(made[:2], TARGET, 4)
    made[2] = msgspec.structs.replace(made[2], metrics={})
    assert not rounds.may_drop(made[:3], TARGET, 5)
    made[2] = made[0]
    figures, _ = rounds.of_rounds(rounds.drop(made, TARGET))
    assert figures["top1"] == 0.95


def test_a_metric_that_a_round_lacks_is_absent():
    made = ran(0.95, 0.96, p_train=[100.0])
    figures, spreads = rounds.of_rounds(made)
    assert set(figures) == set(spreads) == {"top1"}


def line(event: str, place: str, case: str = CASE_ID, **told: object) -> dict[str, object]:
    return {"event": event, "case": case, "directory": f"/elsewhere/session/{place}", "seed": 1, **told}


def test_a_round_that_was_started_and_does_not_count_is_told():
    result = make_result({"p_train": [1.0]})
    (one,) = result.rounds
    result = msgspec.structs.replace(result, rounds=[msgspec.structs.replace(one, directory=f"/s/{CASE_ID}~2/round1")])
    test = result.case.node_id
    ledger = [
        line("round_start", f"{CASE_ID}/round1", test=test),
        line("round_end", f"{CASE_ID}/round1", test=test, outcome="RankCrashed"),
        line("round_start", f"{CASE_ID}~2/round1", test=test),
        line("round_end", f"{CASE_ID}~2/round1", test=test, outcome="finished"),
        line("round_start", f"{CASE_ID}~2/round2", test=test),
        line("round_start", "other/round1", case="other", test="other"),
        line("round_start", f"{CASE_ID}~3/round1", test="another test of the same case"),
    ]
    left = rounds.unaccounted(ledger, result)
    assert left == [f"{CASE_ID}/round1 (seed 1, RankCrashed)", f"{CASE_ID}~2/round2 (seed 1, not ended)"]
    assert rounds.chosen(left) == [f"started for this case beside those that count: 2 rounds: {', '.join(left)}"]
    assert rounds.chosen([]) == []


def test_more_rounds_come_in_steps_so_that_a_verdict_is_not_looked_for_after_each():
    assert [gate.next_rounds(done, 20) for done in (1, 3, 5, 6, 12, 20, 25)] == [5, 6, 10, 12, 20, 20, 25]
    assert gate.next_rounds(1, 3) == 3
    assert gate.next_rounds(1, 1) == 1
    assert statistics.OLYMPIC == 5
