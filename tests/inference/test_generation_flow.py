"""The whole flow of generation with an engine that counts: what the reference is asked, and what is released."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pytest_flagperf import perflog
from pytest_flagperf.errors import InvalidMeasurement
from pytest_flagperf.perflog import EventWriter
from pytest_flagperf.worker.inference import registry
from pytest_flagperf.worker.inference.engine import BaseEngine
from pytest_flagperf.worker.inference.generation import generation
from pytest_flagperf.worker.inference.generation_flow import GenerationFlow
from pytest_flagperf.worker.inference.generator import Generated
from pytest_flagperf.worker.inference.plan import Plan
from pytest_flagperf.worker.inference.workload import Weights
from pytest_flagperf.worker.workload import Config
from pytest_flagperf.worker.workload import Data
from tests.inference.test_generation import CONFIG
from tests.inference.test_generation import VOCABULARY
from tests.inference.test_generation import Counter
from tests.inference.test_generation import Counting


SETTINGS: dict[str, Any] = {**CONFIG, "batch_size": 2}


class Model(Counting):
    """Its model is nothing: the engines count without one."""

    def model(self) -> Any:
        return SimpleNamespace()


class Released(Counter):
    """Counts how often it was released; ``wrong`` says of which prompts it does not count on."""

    def __init__(self, wrong: Callable[[int], bool] = lambda first: False) -> None:
        super().__init__()
        self.wrong, self.released = wrong, 0

    def generate(self, prompts: Any, new_tokens: int) -> Generated:
        found = super().generate(prompts, new_tokens)
        apart = [[int(self.wrong(int(row[0])))] for row in prompts]
        return Generated((found.tokens + apart) % VOCABULARY, found.times)

    def release(self) -> None:
        self.released += 1


class Engine(BaseEngine):
    name = "counter"

    def __init__(self, compiled: Released) -> None:
        self.compiled = compiled

    def compile(self, model: Any, workload: Any, options: Any) -> Any:
        return self.compiled


@pytest.fixture
def flow(tmp_path, monkeypatch):
    """Runs the flow with an engine, and a reference that counts; gives the events by name."""

    def flow(engine: Released, reference: Released) -> dict[str, Any]:
        engines = {"counter": Engine(engine), "eager": Engine(reference)}
        monkeypatch.setattr(registry, "load", lambda framework, name, role="": engines[name])
        case = {
            "role": "generation",
            "engine": "counter",
            "framework": "pytorch",
            "precision": "fp32",
            "config": SETTINGS,
            "dataset": {"synthetic": False},
            "weights": {"path": "somewhere"},
            "seed": 1,
        }
        runtime: Any = SimpleNamespace(device="cpu", threads=1, count=lambda model: 0, state=dict)
        path = tmp_path / "rank0.jsonl"
        events = EventWriter(path, 0)
        data = Data("none", None, True)
        try:
            GenerationFlow(runtime, events, Plan.of(case), tmp_path).run(
                lambda: Model(Config(SETTINGS), data, Weights(), seed=1, batch_size=2, device="cpu"), generation, {}
            )
        finally:
            events.close()
        return {one["event"]: one.get("value") for one in map(json.loads, path.read_text().splitlines())}

    return flow


def test_what_is_measured_is_held_against_what_the_reference_made_of_the_same_prompts(flow):
    engine, reference = Released(), Released()
    events = flow(engine, reference)
    assert events[perflog.FINISHED]["answers_compared"] == 12
    assert events[perflog.FINISHED]["token_agreement"] == 1
    # Prompts that only the measurement has: the reference continued them, the engine's accuracy run did not.
    measured = {tuple(row) for batch in engine.read[-8:] for row in batch}
    assert len(measured) == 12
    assert measured <= {tuple(row) for batch in reference.read for row in batch}
    assert not measured & {tuple(row) for batch in engine.read[:-8] for row in batch}
    assert (engine.released, reference.released) == (1, 1)


def test_an_engine_that_is_wrong_only_of_prompts_it_has_not_read_before_is_refused_and_released(flow):
    engine = Released(wrong=lambda first: first > 3)
    with pytest.raises(InvalidMeasurement, match="what engine counter generated while it was measured is something"):
        flow(engine, Released())
    assert engine.released == 1


def test_an_engine_that_fails_its_accuracy_run_is_released(flow):
    engine = Released(wrong=lambda first: True)
    with pytest.raises(InvalidMeasurement, match="engine counter generates something else"):
        flow(engine, Released())
    assert engine.released == 1


def test_a_reference_that_fails_is_released(flow):
    reference = Released()
    reference.fault = "truncated"
    with pytest.raises(InvalidMeasurement, match="the generation was cut short"):
        flow(Released(), reference)
    assert reference.released == 1


def test_nothing_of_the_engine_stays_on_the_disk(flow, tmp_path: Path):
    flow(Released(), Released())
    assert [path.name for path in tmp_path.iterdir()] == ["rank0.jsonl"]
