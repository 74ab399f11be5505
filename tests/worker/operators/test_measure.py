"""The clock, fed with calls that take as long as the test says."""

from __future__ import annotations

import gc
import random
import statistics

import pytest

from pytest_flagperf.worker.operators import measure as measuring
from pytest_flagperf.worker.operators.measure import HostClock
from pytest_flagperf.worker.operators.measure import Plan
from pytest_flagperf.worker.operators.measure import median_interval
from pytest_flagperf.worker.operators.measure import percentile


PLAN = Plan(budget=60.0, warmup=60.0, least=5, most=1000)


class Script:
    """A clock whose samples are given; the last one repeats."""

    name = "scripted"

    def __init__(self, *times: float) -> None:
        self.times = list(times)
        self.batches: list[int] = []
        self.calls = 0

    def samples(self, call, count, batch, before):
        found = []
        for _ in range(count):
            if before is not None:
                before()
            call()
            self.calls += 1
            self.batches.append(batch)
            found.append(self.times.pop(0) if len(self.times) > 1 else self.times[0])
        return found

    def wall(self, call, count, before):
        return [2 * self.times[-1]] * count


def nothing() -> None:
    """A call that does nothing."""


def test_six_samples_are_the_fewest_that_carry_a_95_percent_interval_of_the_median():
    assert median_interval([1, 2, 3, 4, 5]) is None
    assert median_interval([5, 2, 3, 4, 1, 6]) == (1, 6)


# From the tables of the binomial distribution with p = 1/2.
@pytest.mark.parametrize(("count", "depth"), [(5, 0), (6, 1), (8, 1), (9, 2), (20, 6), (50, 18), (100, 40)])
def test_the_intervals_depth_is_that_of_the_binomial_tables(count, depth):
    assert measuring.interval_depth(count, 0.95) == depth


def test_the_interval_of_many_samples_holds_the_median_as_often_as_it_says():
    generator = random.Random(1)
    held = 0
    for _ in range(400):
        low, high = median_interval([generator.expovariate(1.0) for _ in range(301)])
        held += low <= 0.6931 <= high
    assert held / 400 == pytest.approx(0.95, abs=0.035)


def test_a_percentile_is_a_sample_and_not_beyond_the_last():
    assert percentile([3.0], 0.99) == 3.0
    assert percentile(range(1, 101), 0.99) == 99
    assert percentile([4, 1, 2, 3], 0.5) == 2


def test_a_steady_call_ends_as_soon_as_its_median_is_known():
    found = measuring.measure(nothing, Script(100.0), PLAN)
    assert found.ended == "converged"
    assert len(found.samples) < 20
    assert found.figures()["time"] == 100.0
    assert found.figures()["cv"] == 0.0
    assert found.figures()["wall_time"] == 200.0


def test_a_call_that_is_never_the_same_ends_with_the_most_samples_and_says_so():
    generator = random.Random(2)
    times = [generator.uniform(50.0, 150.0) for _ in range(5000)]
    found = measuring.measure(nothing, Script(*times), Plan(budget=60.0, warmup=0.0, least=5, most=64))
    assert found.ended == "budget"
    assert len(found.samples) == 64


def test_a_spent_budget_ends_it_but_never_before_the_least_samples():
    found = measuring.measure(nothing, Script(1e6, 2e6, 3e6, 4e6, 5e6), Plan(budget=0.0, warmup=0.0, least=3, most=9))
    assert (len(found.samples), found.ended) == (3, "budget")


def test_the_warm_up_goes_on_until_three_medians_agree():
    clock = Script(900.0, 500.0, 300.0, *[100.0] * 500)
    found = measuring.measure(nothing, clock, PLAN)
    assert max(found.samples) == 100.0


def test_a_warm_up_that_never_settles_ends_with_its_seconds():
    times = [5000.0 * (1 + i % 2) for i in range(50_000)]
    last, settled = measuring.warm_up(nothing, Script(*times), 0.05, None, list, nothing)
    assert last in (5000.0, 10_000.0)
    assert not settled


def test_a_call_of_two_microseconds_is_timed_ten_at_once():
    clock = Script(2.0)
    assert measuring.measure(nothing, clock, PLAN).batch == 10
    assert clock.batches[-1] == 10


def test_a_call_that_needs_its_operands_put_back_is_timed_alone():
    restored = []
    clock = Script(2.0)
    assert measuring.measure(nothing, clock, PLAN, before=lambda: restored.append(1)).batch == 1
    assert len(restored) == clock.calls


def test_the_samples_of_a_collective_are_those_of_the_slowest_rank():
    found = measuring.measure(nothing, Script(100.0), PLAN, agree=lambda mine: [max(value, 130.0) for value in mine])
    assert set(found.samples) == {130.0}


def test_garbage_collection_is_off_while_the_clock_runs_and_on_again_after():
    states = []
    measuring.measure(lambda: states.append(gc.isenabled()), Script(100.0), PLAN)
    assert set(states) == {False}
    assert gc.isenabled()


def test_a_thousand_samples_at_most_are_kept():
    found = measuring.Measurement(tuple(float(i) for i in range(1, 2502)), (1.0,), 1, "budget", 0)
    assert len(found.kept()) <= 1000
    assert found.kept()[0] == 1.0


def test_the_host_clock_measures_the_call_and_not_what_comes_before_it():
    busy = lambda: sum(range(20_000))  # noqa: E731
    alone = statistics.median(HostClock().samples(busy, 15, 1, None))
    beside = statistics.median(HostClock().samples(busy, 15, 1, lambda: [busy() for _ in range(10)]))
    assert beside < 3 * alone


def test_the_host_clock_waits_for_a_device_before_and_after():
    order = []
    clock = HostClock(lambda: order.append("wait"))
    clock.samples(lambda: order.append("call"), 1, 2, lambda: order.append("before"))
    assert order == ["before", "wait", "call", "call", "wait"]


# --- looking at what timed calls leave behind


class Looker:
    """Counts what it looked at, and tells a call what it would not know by itself."""

    def __init__(self) -> None:
        self.prepared = self.judged = 0

    def prepare(self) -> None:
        self.prepared += 1

    def judge(self) -> None:
        self.judged += 1
        assert self.judged == self.prepared


def test_the_last_sample_is_looked_at_and_one_among_the_first():
    generator = random.Random(3)
    times = [generator.uniform(50.0, 150.0) for _ in range(9000)]
    looker = Looker()
    found = measuring.measure(nothing, Script(*times), Plan(60.0, 0.0, 5, 2000), witness=looker)
    assert found.seen[-1] == found.samples[-1]
    assert found.seen[0] in found.samples[:5]
    assert looker.judged == len(found.seen) == 6  # and after 20, 80, 320 and 1,280
    assert not found.skips


def test_the_sample_among_the_first_is_not_always_the_same():
    def first() -> int:
        seen = measuring.measure(nothing, Script(*map(float, range(100, 1000))), Plan(0.0, 0.0, 5, 9), witness=Looker())
        return seen.samples.index(seen.seen[0])

    assert len({first() for _ in range(60)}) > 1


def test_looking_at_samples_adds_none_to_the_least():
    times = (1e6, 2e6, 3e6, 4e6, 5e6)
    found = measuring.measure(nothing, Script(*times), Plan(0.0, 0.0, 3, 9), witness=Looker())
    assert (len(found.samples), len(found.seen)) == (3, 2)


def test_calls_that_work_only_when_somebody_looks_are_told_by_their_time():
    class Lazy(Script):
        def samples(self, call, count, batch, before):
            self.times = [20_000.0 if looker.prepared > self.done else 1.0]
            self.done = looker.prepared
            return super().samples(call, count, batch, before)

    looker, clock = Looker(), Lazy(1.0)
    clock.done = 0
    assert measuring.measure(nothing, clock, PLAN, witness=looker).skips


def test_calls_that_are_slow_by_chance_when_somebody_looks_are_not_taken_for_others():
    class Disturbed(Script):
        def samples(self, call, count, batch, before):
            self.times = [20_000.0 if self.done < looker.prepared < 5 else 1.0]
            self.done = looker.prepared
            return super().samples(call, count, batch, before)

    looker, clock = Looker(), Disturbed(1.0)
    clock.done = 0
    found = measuring.measure(nothing, clock, Plan(0.0, 0.0, 5, 9), witness=looker)
    assert len(found.seen) > 2
    assert not found.skips
