"""LoadGen: how many queries a second go through our system under test where the model takes no time.

A *null* model answers at once with an array that it has. What is left is LoadGen, its binding, the sample library and
the hand-over of the answers: the ceiling of every role. Of Server the queries of a second are asked at a fixed rate,
without a search, and have to be answered within 100 ms.

The binding's own share is measured beside it, in turn: the same scenario with callbacks that complete every sample and
do nothing else.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
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
from pytest_flagperf.worker.inference.loadgen_results import Outcome
from pytest_flagperf.worker.inference.loadgen_systems import Answering
from pytest_flagperf.worker.inference.loadgen_systems import Serving
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


def main() -> int:
    parser = paired.arguments(__doc__, pairs=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="of one run")
    options = parser.parse_args()
    ours: dict[str, list[float]] = {role: [] for role in SCENARIOS}
    bare: dict[str, list[float]] = {role: [] for role in SCENARIOS}
    for number in range(options.pairs + 1):
        for role in SCENARIOS:
            sides = [(ours, system(role)), (bare, Bare)]
            for found, make in sides if number % 2 else sides[::-1]:
                rate = measure(role, make, options.seconds)
                if number:
                    found[role].append(rate)
        paired.show_progress(number + 1, options.pairs + 1)
    report = paired.Report("loadgen_null", {"batch": str(BATCH), "run": f"{options.seconds:g} s"})
    for role, name in SCENARIOS.items():
        unit = "queries/s" if role in ("single_stream", "server") else "samples/s"
        report.rows.append(paired.Row(f"{name}, null model", unit, ours[role], at_least=AT_LEAST))
        report.rows.append(paired.Row(f"{name}, nothing but callbacks", unit, bare[role]))
    return report.finish(options.json)


def system(role: str) -> Callable[[Bench], Answering | Serving]:
    """What the role uses."""
    return Serving if role == "server" else Answering


def measure(role: str, make: Callable[[Bench], Answering | Serving], seconds: float) -> float:
    """Samples a second of one run; of Server zero where LoadGen calls it invalid, as its rate is what was asked for."""
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
        outcome = bench.run(
            make(bench), seconds, ASKED if role == "server" else EXPECTED / 8 ** (role == "multi_stream")
        )
        events.close()
        return rate(role, outcome)


def rate(role: str, outcome: Outcome) -> float:
    """LoadGen's; of MultiStream, which prints none, the samples of a query by its mean latency."""
    if role == "server" and not outcome.valid:
        return 0.0
    found = outcome.rate()
    return 8e9 / outcome.nanoseconds("Mean latency (ns)") if found is None else found


if __name__ == "__main__":
    sys.exit(main())
