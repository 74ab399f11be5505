"""LoadGen: how many queries a second go through our system under test where the model takes no time.

A *null* model answers at once with an array that it has. What is left is LoadGen, its binding, the sample library and
the hand-over of the answers: the ceiling of every role. Of Server the queries of a second are asked at a fixed rate,
without a search, and have to be answered within 100 ms.

Queries are judged, of MultiStream those of eight samples each; samples are told beside them. Offline asks one query for
everything: of it samples are judged.

The binding's own share is measured beside it, in turn: the same scenario with callbacks that complete every sample and
do nothing else. Rates are from LoadGen's first call to its last; *own* is less the time that its thread was ready and
no processor was free: what a machine reaches that is doing nothing else. Of Server, whose rate is what was asked for,
processor time tells how far it could be asked for more.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import paired

from pytest_flagperf.perflog import EventWriter
from pytest_flagperf.worker.inference.answers import Answers
from pytest_flagperf.worker.inference.answers import Seen
from pytest_flagperf.worker.inference.engine import BaseCompiled
from pytest_flagperf.worker.inference.flow import UnderTest
from pytest_flagperf.worker.inference.loadgen import Bench
from pytest_flagperf.worker.inference.loadgen_systems import Answering
from pytest_flagperf.worker.inference.loadgen_systems import Serving
from pytest_flagperf.worker.inference.scenarios import SAMPLES_PER_QUERY
from pytest_flagperf.worker.inference.workload import InferenceWorkload
from pytest_flagperf.worker.inference.workload import Weights
from pytest_flagperf.worker.workload import Config
from pytest_flagperf.worker.workload import Data


AT_LEAST = 100_000.0
SAMPLES, BATCH = 1000, 1024
# Queries a second that Server is asked, and how many LoadGen makes for the others; above what they reach.
ASKED, EXPECTED = 120_000.0, 500_000.0
SCENARIOS = {"single_stream": "SingleStream", "multi_stream": "MultiStream", "server": "Server", "offline": "Offline"}


class Nothing(InferenceWorkload):
    """Samples of one number."""

    def samples(self) -> int:
        return SAMPLES

    def inputs(self, indices: Any) -> tuple[Any, ...]:
        return (np.asarray(indices, np.float32)[:, None],)


class Null(BaseCompiled):
    """Answers with rows that it has."""

    def __init__(self) -> None:
        self.rows, self.count = np.zeros((BATCH, 10), np.float32), 0

    def load(self, inputs: Any) -> None:
        self.count = len(inputs[0])

    def execute(self) -> None:
        pass

    def outputs(self) -> Any:
        return (self.rows[: self.count],)


class Bare(Answering):
    """Completes every sample with an empty answer, in LoadGen's own thread."""

    def issue(self, ids: list[int], indices: list[int]) -> None:
        self.bench.responses.give_up(ids)


@dataclass(frozen=True)
class Measured:
    """Of one run: samples a second by two clocks, whether LoadGen calls it valid, processor time of a sample in us.

    ``per_query`` is how many samples a query has.
    """

    wall: float
    own: float
    valid: bool
    processor: float
    per_query: int


class Watch:
    """From LoadGen's first call for a query to its last, as its thread sees it."""

    def __init__(self) -> None:
        self.samples = 0
        self.first: tuple[paired.Cost, float] | None = None
        self.last = (paired.Cost(0.0, 0.0, 0.0), 0.0)

    def over(self, made: Answering | Serving) -> Answering | Serving:
        """The system, watched."""
        issue = made.issue

        def watched(ids: list[int], indices: list[int]) -> None:
            if self.first is None:
                self.first = paired.so_far(), time.process_time()
            self.samples += len(ids)
            issue(ids, indices)

        def flush() -> None:
            self.last = paired.so_far(), time.process_time()
            made_flush()

        made_flush = made.flush
        made.issue, made.flush = watched, flush  # type: ignore[method-assign]
        return made

    def measured(self, *, valid: bool, per_query: int) -> Measured:
        assert self.first is not None
        cost, processor = self.last[0] - self.first[0], self.last[1] - self.first[1]
        return Measured(
            wall=self.samples / cost.wall,
            # The kernel counts a wait twice now and then: no thread took less than it ran.
            own=self.samples / max(cost.own, cost.cpu),
            valid=valid,
            processor=processor / self.samples * 1e6,
            per_query=per_query,
        )


def main() -> int:
    parser = paired.arguments(__doc__, pairs=6)
    parser.add_argument("--seconds", type=float, default=1.0, help="of one run")
    options = parser.parse_args()
    ours: dict[str, list[Measured]] = {role: [] for role in SCENARIOS}
    bare: dict[str, list[Measured]] = {role: [] for role in SCENARIOS}
    for number in range(options.pairs + 1):
        for role in SCENARIOS:
            sides = [(ours, system(role)), (bare, Bare)]
            for found, make in sides if number % 2 else sides[::-1]:
                one = measure(role, make, options.seconds)
                if number:
                    found[role].append(one)
        paired.show_progress(number + 1, options.pairs + 1)
    report = paired.Report("loadgen_null", {"batch": str(BATCH), "run": f"{options.seconds:g} s"})
    for role, name in SCENARIOS.items():
        report.rows += rows(role, f"{name}, null model", ours[role], at_least=AT_LEAST)
        report.rows += rows(role, f"{name}, nothing but callbacks", bare[role])
    return report.finish(options.json)


def rows(role: str, name: str, found: list[Measured], at_least: float | None = None) -> list[paired.Row]:
    """Of Server the rate that was asked for where LoadGen calls it valid, and zero where not."""
    processor = paired.Row(f"{name}: processor time", "us/sample", [one.processor for one in found])
    if role == "server":
        rates = [one.wall if one.valid else 0.0 for one in found]
        return [paired.Row(name, "queries/s wall", rates, at_least=at_least), processor]
    samples = [
        paired.Row(name, "samples/s own", [one.own for one in found], at_least=at_least if role == "offline" else None),
        paired.Row(name, "samples/s wall", [one.wall for one in found]),
    ]
    if role == "offline":
        return [*samples, processor]
    queries = [
        paired.Row(name, "queries/s own", [one.own / one.per_query for one in found], at_least=at_least),
        paired.Row(name, "queries/s wall", [one.wall / one.per_query for one in found]),
    ]
    # A query of one sample says the same twice.
    return [*queries, *(samples if found[0].per_query > 1 else []), processor]


def system(role: str) -> Callable[[Bench], Answering | Serving]:
    """What the role uses."""
    return Serving if role == "server" else Answering


def measure(role: str, make: Callable[[Bench], Answering | Serving], seconds: float) -> Measured:
    """One run of LoadGen."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        config = {"latency_bound": 100, "loadgen_duration": seconds, "loadgen_queries": 1000, "offline_samples": 1000}
        workload = Nothing(Config(config), Data("nothing", None, True), Weights(), 1, BATCH, "cpu")
        events = EventWriter(directory / "events.jsonl", 0)
        test = UnderTest(
            workload=workload,
            compiled=Null(),
            events=events,
            config=config,
            batch_size=min(BATCH, SAMPLES),
            seed=1,
            directory=directory,
            accuracy=Answers(workload, BATCH),
            seen=Seen(workload, 1),
            alive=lambda what, done, total: None,
        )
        bench = Bench(test, role)
        watch = Watch()
        per_query = SAMPLES_PER_QUERY if role == "multi_stream" else 1
        rate = ASKED if role == "server" else EXPECTED / per_query
        outcome = bench.run(watch.over(make(bench)), seconds, rate)
        events.close()
        return watch.measured(valid=outcome.valid, per_query=per_query)


if __name__ == "__main__":
    sys.exit(main())
