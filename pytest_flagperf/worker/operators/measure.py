"""The clock: warm-up until stable, samples until the median is known well enough, and what disturbed them.

Framework-neutral; how one sample is timed is behind :class:`Clock`. Times are microseconds a call.
"""

from __future__ import annotations

import contextlib
import gc
import math
import random
import resource
import statistics
import time
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from typing import Protocol


# Three medians that agree this well say that the call is warm.
WARM_WITHIN = 0.05
WARM_MEDIANS = 3
# The median is known when its confidence interval is this narrow, each side.
CONFIDENCE_WITHIN = 0.02
# A call shorter than this (us) is timed several at once: a reading of the host's clock costs some 50 ns.
SHORT_CALL = 20.0
MOST_IN_A_BATCH = 1000
WALL_SAMPLES = 10
KEPT_SAMPLES = 1000
# A first call that took this long (us), and as long as the warm-up may, has warmed what there is to warm.
LONG_CALL = 0.1e6
# Seconds between two looks at the confidence interval, for calls that are short.
CHUNK_SECONDS = 0.05
# Results are looked at of one of the first samples, of one whenever there are this many times more, and of the last.
LOOK_AGAIN = 4
# After a look the caches are cold: a call that is shorter than this (us) is made once outside the clock.
SETTLE = 20e3
# Calls that take so many times as long when somebody looks as when nobody does have skipped their work in the others.
SKIPPED = 10.0
LEAST_UNSEEN = 3
# How many more have to say so before it is believed.
CONFIRMED = 30

Call = Callable[[], None]


class Clock(Protocol):
    """How calls are timed on a device."""

    name: str

    def samples(self, call: Call, count: int, batch: int, before: Call | None) -> list[float]:
        """``count`` samples of ``batch`` calls each, microseconds a call; ``before`` runs outside the clock."""

    def wall(self, call: Call, count: int, before: Call | None) -> list[float]:
        """The same by the host's clock, one call a sample, from the call until the device is done with it."""


class HostClock:
    """The host's monotonic clock; ``wait`` returns when the device has done its work."""

    name = "host"

    def __init__(self, wait: Call | None = None) -> None:
        self._wait = wait

    def samples(self, call: Call, count: int, batch: int, before: Call | None) -> list[float]:
        """See :class:`Clock`."""
        wait, now, found = self._wait, time.perf_counter_ns, []
        for _ in range(count):
            if before is not None:
                before()
            if wait is not None:
                wait()
            if batch == 1:
                begin = now()
                call()
            else:
                calls = range(batch)
                begin = now()
                for _ in calls:
                    call()
            if wait is not None:
                wait()
            found.append((now() - begin) / batch / 1e3)
        return found

    def wall(self, call: Call, count: int, before: Call | None) -> list[float]:
        """See :class:`Clock`."""
        return self.samples(call, count, 1, before)


class EventClock:
    """The device's own clock: an event before and after each sample, read when all of a group are done.

    ``event`` makes one that takes the time; ``wait`` returns when the device has done its work.
    """

    name = "device events"

    def __init__(self, event: Callable[[], Any], wait: Call) -> None:
        self._event, self._wait, self._host = event, wait, HostClock(wait)

    def samples(self, call: Call, count: int, batch: int, before: Call | None) -> list[float]:
        """See :class:`Clock`."""
        pairs = []
        for _ in range(count):
            if before is not None:
                before()
            begin, end = self._event(), self._event()
            begin.record()
            for _ in range(batch):
                call()
            end.record()
            pairs.append((begin, end))
        self._wait()
        # Events tell milliseconds.
        return [begin.elapsed_time(end) * 1e3 / batch for begin, end in pairs]

    def wall(self, call: Call, count: int, before: Call | None) -> list[float]:
        """See :class:`Clock`."""
        return self._host.samples(call, count, 1, before)


@dataclass(frozen=True)
class Plan:
    """How long to measure: seconds of ``budget`` and ``warmup``, ``least`` to ``most`` samples."""

    budget: float
    warmup: float
    least: int
    most: int


class Witness(Protocol):
    """Looks at what timed calls leave behind: not at a call beside them."""

    def prepare(self) -> None:
        """Spoil the outputs, outside the clock, before a sample."""

    def judge(self) -> None:
        """Judge what the sample left in the outputs. Raises where that is wrong."""


@dataclass(frozen=True)
class Measurement:
    """The samples of one call, and how they came about.

    ``seen`` are those of the samples whose results were looked at; ``settled`` says whether warming up ended with
    medians that agree.
    """

    samples: tuple[float, ...]
    wall: tuple[float, ...]
    batch: int
    ended: str
    context_switches: int
    seen: tuple[float, ...] = ()
    settled: bool = True

    @property
    def skips(self) -> bool:
        """Whether calls take much longer when their results are looked at: the others cannot have done the work."""
        return _skips(self.samples, self.seen)

    def figures(self) -> dict[str, float]:
        """Median, mean, minimum, 99th percentile (us) and coefficient of variation (ratio)."""
        mean = statistics.fmean(self.samples)
        found = {
            "time": statistics.median(self.samples),
            "time_mean": mean,
            "time_min": min(self.samples),
            "time_p99": percentile(self.samples, 0.99),
            "wall_time": statistics.median(self.wall),
        }
        if len(self.samples) > 1:
            found["cv"] = statistics.stdev(self.samples) / mean
        return found

    def kept(self) -> list[float]:
        """At most :data:`KEPT_SAMPLES` samples, evenly chosen, in the order they were taken."""
        step = max(1, math.ceil(len(self.samples) / KEPT_SAMPLES))
        return [round(sample, 4) for sample in self.samples[::step]]


def percentile(samples: Sequence[float], share: float) -> float:
    """The smallest sample that at least ``share`` of the samples do not exceed (nearest rank)."""
    ordered = sorted(samples)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def median_interval(samples: Sequence[float], confidence: float = 0.95) -> tuple[float, float] | None:
    """The confidence interval of the median by order statistics, or ``None`` where there are too few samples.

    No assumption about the distribution: the number of samples below the median is binomial with p = 1/2
    (Conover, Practical Nonparametric Statistics, section 3.2). Six samples are the fewest that carry 95 %.
    """
    count = len(samples)
    depth = interval_depth(count, confidence)
    if depth < 1:
        return None
    ordered = sorted(samples)
    return ordered[depth - 1], ordered[count - depth]


def interval_depth(count: int, confidence: float) -> int:
    """The largest d for which the d-th smallest and d-th largest of ``count`` samples enclose the median."""
    tail = (1 - confidence) / 2
    if count > 200:
        # The normal approximation; one rank wider than rounded, so that it never promises too much.
        quantile = statistics.NormalDist().inv_cdf(1 - tail)
        return math.floor((count - quantile * math.sqrt(count)) / 2)
    below, depth = 0.0, 0
    while depth <= count // 2:
        below += math.comb(count, depth) / 2**count
        if below > tail:
            break
        depth += 1
    return depth


def is_known(samples: Sequence[float]) -> bool:
    """Whether the interval of the median is within 2 % of it on each side."""
    interval = median_interval(samples)
    if interval is None:
        return False
    median = statistics.median(samples)
    return max(median - interval[0], interval[1] - median) <= CONFIDENCE_WITHIN * median


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No garbage collection while the clock runs."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def measure(
    call: Call,
    clock: Clock,
    plan: Plan,
    *,
    before: Call | None = None,
    agree: Callable[[list[float]], list[float]] = list,
    alive: Call = lambda: None,
    first: float = 0.0,
    witness: Witness | None = None,
) -> Measurement:
    """Warm ``call`` up and sample it. ``first`` is what the first call took, where it was timed already (us).

    ``before`` runs before every sample, outside the clock; such samples are of one call each. ``agree`` makes of each
    rank's samples those of the slowest, so that all ranks decide alike. ``alive`` is called between samples.
    ``witness`` looks at some of the samples' results, at places that the call cannot know.
    """
    with quiet():
        usual, settled = first, True
        if first < max(LONG_CALL, plan.warmup * 1e6):
            usual, settled = warm_up(call, clock, plan.warmup, before, agree, alive)
        batch = 1 if before else max(1, min(MOST_IN_A_BATCH, math.ceil(SHORT_CALL / max(usual, 1e-3))))
        if usual >= SHORT_CALL:
            batch = 1
        switches = _involuntary_switches()
        sampling = _Sampling(call, clock, plan, batch, usual, before, agree, alive, witness)
        ended = sampling.run()
        switches = _involuntary_switches() - switches
        samples = sampling.samples
        if clock.name == HostClock.name:
            wall = samples
        else:
            wall = agree(clock.wall(call, min(WALL_SAMPLES, len(samples)), before))
    return Measurement(tuple(samples), tuple(wall), batch, ended, switches, tuple(sampling.seen), settled)


def warm_up(
    call: Call,
    clock: Clock,
    seconds: float,
    before: Call | None,
    agree: Callable[[list[float]], list[float]],
    alive: Call,
) -> tuple[float, bool]:
    """Call until the last medians agree within 5 %, or ``seconds`` are over. Returns the last median, and which."""
    begin = time.perf_counter()
    medians: list[float] = []
    count = 1
    while True:
        found = agree(clock.samples(call, count, 1, before))
        medians.append(statistics.median(found))
        alive()
        last = medians[-WARM_MEDIANS:]
        if len(last) == WARM_MEDIANS and max(last) <= (1 + WARM_WITHIN) * min(last):
            return medians[-1], True
        if agree([time.perf_counter() - begin])[0] >= seconds:
            return medians[-1], False
        # Groups of about two milliseconds: the median of one short call says nothing.
        count = max(1, min(100, round(2000 / max(medians[-1], 1e-3))))


class _Sampling:
    """Takes samples until the median is known, or the budget is spent."""

    def __init__(
        self,
        call: Call,
        clock: Clock,
        plan: Plan,
        batch: int,
        usual: float,
        before: Call | None,
        agree: Callable[[list[float]], list[float]],
        alive: Call,
        witness: Witness | None,
    ) -> None:
        self._call, self._clock, self._plan, self._batch, self._usual = call, clock, plan, batch, usual
        self._before, self._agree, self._alive, self._witness = before, agree, alive, witness
        self.samples: list[float] = []
        self.seen: list[float] = []

    def run(self) -> str:
        """Returns ``converged`` or ``budget``."""
        begin, plan, samples = time.perf_counter(), self._plan, self.samples
        in_a_chunk = max(1, round(CHUNK_SECONDS * 1e6 / (self._usual * self._batch)))
        # All ranks look at the same sample.
        drawn = self._agree([random.SystemRandom().random()])[0] if self._witness else 0.0
        least = plan.least - 1 if self._witness else plan.least  # the last one is to come
        look = int(drawn * least)
        while True:
            if len(samples) >= look:
                self._take_seen()
                look = LOOK_AGAIN * max(len(samples), plan.least)
            else:
                missing = least - len(samples)
                # After `least` the interval is looked at ever more rarely: a look sorts all samples.
                wanted = min(missing, in_a_chunk) if missing > 0 else max(1, min(in_a_chunk, len(samples) // 4))
                self._take(min(wanted, plan.most - len(samples), look - len(samples)))
            self._alive()
            if len(samples) < least:
                continue
            ended = "converged" if is_known(samples) else ""
            if len(samples) >= plan.most or self._agree([time.perf_counter() - begin])[0] >= plan.budget:
                ended = ended or "budget"
            if ended:
                self._take_seen()
                # A look lets the threads of the kernel go to sleep, and a neighbour take their processor: on a busy
                # machine most calls after one may be slow, but not all of many.
                for _ in range(CONFIRMED):
                    if not _skips(samples, self.seen):
                        break
                    self._take_seen()
                    self._alive()
                return ended

    def _take(self, count: int) -> list[float]:
        found = self._agree(self._clock.samples(self._call, count, self._batch, self._before))
        self.samples += found
        return found

    def _take_seen(self) -> None:
        """One more sample, of which the result is looked at; it counts like any other."""
        if self._witness is None:
            return
        self._witness.prepare()
        self.seen += self._take(1)
        self._witness.judge()
        if self._usual < SETTLE:
            self._clock.samples(self._call, 1, 1, self._before)


def _skips(samples: Sequence[float], seen: Sequence[float]) -> bool:
    unseen = list(samples)
    for one in seen:
        unseen.remove(one)
    if len(seen) < 2 or len(unseen) < LEAST_UNSEEN:
        return False
    return min(seen) > SKIPPED * statistics.median(unseen)


def _involuntary_switches() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw
