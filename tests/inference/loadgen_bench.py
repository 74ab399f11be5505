"""A model in NumPy and the bench that a role of LoadGen's is given: no framework, no job."""

from __future__ import annotations

import json
from collections.abc import Callable
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pytest_flagperf import perflog
from pytest_flagperf.perflog import Event
from pytest_flagperf.perflog import EventWriter
from pytest_flagperf.worker.inference.answers import Answers
from pytest_flagperf.worker.inference.answers import Seen
from pytest_flagperf.worker.inference.engine import BaseCompiled
from pytest_flagperf.worker.inference.flow import UnderTest
from pytest_flagperf.worker.inference.workload import InferenceWorkload
from pytest_flagperf.worker.inference.workload import Weights
from pytest_flagperf.worker.workload import Config
from pytest_flagperf.worker.workload import Data


SAMPLES, WIDE, CLASSES = 100, 16, 4


class Numbers(InferenceWorkload):
    """Rows of numbers to scores."""

    def setup(self) -> None:
        self.rows = np.random.default_rng(0).standard_normal((SAMPLES, WIDE), np.float32)

    def samples(self) -> int:
        return SAMPLES

    def inputs(self, indices: Any) -> tuple[Any, ...]:
        return (self.rows[np.asarray(indices)],)


class Texts(Numbers):
    """As many numbers as a sample has, padded to the longest of a batch; the padding of an answer is cut off."""

    dynamic: Mapping[str, Mapping[int, str]] = {"input": {1: "length"}}

    def inputs(self, indices: Any) -> tuple[Any, ...]:
        longest = max(1 + index % 5 for index in indices)
        return (np.stack([np.where(np.arange(longest) < 1 + index % 5, index + 1, 0) for index in indices]),)

    def answer(self, outputs: Any, row: int, index: int) -> tuple[Any, ...]:
        return (np.array(outputs[0][row][: 1 + index % 5]),)


Change = Callable[[Any, int], Any]


class Product(BaseCompiled):
    """``inputs @ weights``, changed by ``change(outputs, number of the call)``."""

    def __init__(self, change: Change | None = None) -> None:
        self.weights = np.random.default_rng(1).standard_normal((WIDE, CLASSES), np.float32)
        self.change, self.calls, self.sizes = change, 0, set[int]()

    def load(self, inputs: Any) -> None:
        self.loaded = inputs[0]

    def execute(self) -> None:
        self.calls += 1
        self.sizes.add(len(self.loaded))
        self.found = self.loaded @ self.weights if self.loaded.dtype == np.float32 else self.loaded * 3

    def outputs(self) -> Any:
        found = (self.found,)
        return self.change(found, self.calls) if self.change else found


def under_test(
    directory: Path, compiled: Any = None, *, batch_size: int = 8, workload: Any = Numbers, **config: Any
) -> UnderTest:
    """As the flow makes it, once the accuracy of the model was found."""
    config = {"loadgen_duration": 0.2, "loadgen_queries": 700, "offline_samples": 1000, **config}
    made = workload(Config(config), Data("numbers", None, True), Weights(), 1, batch_size, "cpu")
    answers, right = Answers(made, batch_size), Product()
    for start in range(0, SAMPLES, batch_size):
        answers.add(right.run(made.inputs(range(start, min(start + batch_size, SAMPLES)))))
    return UnderTest(
        workload=made,
        compiled=compiled or Product(),
        events=EventWriter(directory / "rank0.events.jsonl", 0),
        config=config,
        batch_size=batch_size,
        seed=1,
        directory=directory,
        accuracy=answers,
        seen=Seen(made, 1),
        alive=lambda what, done, total: None,
    )


def event(directory: Path, name: str) -> Event:
    """The last event of that name."""
    found = [one for one in perflog.read_events(directory / "rank0.events.jsonl") if one.name == name]
    assert found, json.dumps(name)
    return found[-1]
