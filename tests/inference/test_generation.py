"""The role generation without a model: what is compared, what is refused, what the figures are."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from pytest_flagperf import generation_log
from pytest_flagperf import perflog
from pytest_flagperf.errors import ConfigurationError
from pytest_flagperf.errors import DatasetError
from pytest_flagperf.errors import InvalidMeasurement
from pytest_flagperf.perflog import Event
from pytest_flagperf.worker.inference import registry
from pytest_flagperf.worker.inference.answers import Answers
from pytest_flagperf.worker.inference.generation import generation
from pytest_flagperf.worker.inference.generation_accuracy import Agreement
from pytest_flagperf.worker.inference.generation_accuracy import agreement
from pytest_flagperf.worker.inference.generation_flow import Prompts
from pytest_flagperf.worker.inference.generation_flow import SeenTokens
from pytest_flagperf.worker.inference.generation_settings import settings
from pytest_flagperf.worker.inference.generator import Generated
from pytest_flagperf.worker.inference.generator import Generator
from pytest_flagperf.worker.inference.generator import Judged
from pytest_flagperf.worker.inference.workload import InferenceWorkload
from pytest_flagperf.worker.inference.workload import Weights
from pytest_flagperf.worker.workload import Config
from pytest_flagperf.worker.workload import Data


VOCABULARY = 50
CONFIG = {
    "prompt_lengths": [4, 8],
    "batch_sizes": [1, 2],
    "new_tokens": [3],
    "generation_prompts": 4,
    "repeat": 2,
}


class Counting(InferenceWorkload):
    """Prompts of consecutive numbers; the right continuation goes on counting."""

    vocabulary = VOCABULARY
    positions = 16

    def prompts(self, length: int, count: int) -> Any:
        return self.beginning(np.arange(count), length)

    def anywhere(self, length: int) -> Iterator[Any]:
        return iter(self.beginning(np.arange(VOCABULARY), length))

    def beginning(self, first: Any, length: int) -> Any:
        return (first[:, None] + np.arange(length)) % VOCABULARY


class Counter(Generator):
    """Counts on, ten milliseconds to the first token and two for each further one; ``fault`` says what is wrong."""

    name = "counter"

    def __init__(self, fault: str = "") -> None:
        super().__init__(3, VOCABULARY)
        self.fault = fault
        self.read: list[Any] = []

    def generate(self, prompts: Any, new_tokens: int) -> Generated:
        self.read.append(prompts)
        count = new_tokens - 1 if self.fault == "truncated" else new_tokens
        tokens = (prompts[:, -1:] + 1 + np.arange(count)) % VOCABULARY
        if self.fault == "wrong":
            tokens = (tokens + 1) % VOCABULARY
        if self.fault == "unknown":
            tokens = tokens + VOCABULARY
        times = np.broadcast_to(0.010 + 0.002 * np.arange(count), tokens.shape)
        return Generated(tokens, times[:, ::-1] if self.fault == "backwards" else times)

    def score(self, tokens: Any) -> Any:
        return np.full((len(tokens), tokens.shape[1] - 1), -np.log(4), np.float32)

    def judged(self, prompts: Any, generated: Generated) -> Judged:
        gaps = np.full(generated.tokens.shape, 5.0)
        return Judged(self.score(prompts), generated.tokens, gaps, np.zeros_like(generated.tokens))


class Events:
    """What a role writes, and when it was last written."""

    def __init__(self) -> None:
        self.written: dict[str, Any] = {}

    def write(self, name: str, value: Any = None) -> None:
        self.written[name] = value


def workload(**changes: Any) -> Prompts:
    config = Config({**CONFIG, **changes})
    return Prompts(Counting(config, Data("none", None, True), Weights(), seed=1, batch_size=2, device="cpu"))


def reference(prompts: Prompts) -> Answers:
    """What the right engine answers to every prompt."""
    found, engine = Answers(prompts, 2), Counter()
    for start in range(0, prompts.samples(), 2):
        found.add(engine.run(prompts.inputs(range(start, start + 2))))
    return found


def expected(prompts: Prompts) -> dict[int, Judged]:
    """What the right engine answers to every prompt that is measured, by its number."""
    engine, found = Counter(), {}
    for length in prompts.lengths:
        for index in prompts.unseen(length):
            found[index] = Judged(*(one[0] for one in engine.run(prompts.inputs([index]))))
    return found


def measured(fault: str = "", engine: Counter | None = None) -> tuple[dict[str, Any], SeenTokens]:
    prompts, events = workload(), Events()
    seen = SeenTokens(expected(prompts), "counter")
    test = SimpleNamespace(
        workload=prompts,
        compiled=engine or Counter(fault),
        events=events,
        config=prompts.config,
        seed=1,
        directory=Path(),
        seen=seen,
        alive=lambda *_: None,
    )
    generation(test)  # type: ignore[arg-type]
    return events.written, seen


def test_every_setting_is_measured_and_the_first_is_the_headline():
    events, seen = measured()
    end = events[perflog.INFERENCE_END]
    assert [(one["prompt_length"], one["batch_size"], one["requests"]) for one in end["settings"]] == [
        *((4, 1, 2), (4, 2, 4), (8, 1, 2), (8, 2, 4)),
    ]
    assert end["ttft"] == pytest.approx(10.0)
    assert end["tpot"] == pytest.approx(2.0)
    assert end["tokens_per_second_per_device"] == end["settings"][0]["tokens_per_second_per_device"]
    # Three tokens are there after 14 ms, of each request; what the call takes beside that is no time of the engine's.
    assert [one["tokens_per_second_per_device"] for one in end["settings"]] == pytest.approx(
        [3 / 0.014, 6 / 0.014, 3 / 0.014, 6 / 0.014]
    )
    assert [one["tokens"] for one in end["settings"]] == [6, 12, 6, 12]
    # Every continuation of the measurement is looked at, not a sample of them.
    assert seen.compare(reference(workload()), "fp32") == {
        "answers_compared": 12,
        "tokens_compared": 36,
        "token_agreement": 1.0,
    }


def test_no_prompt_that_is_measured_begins_as_one_that_the_engine_has_read():
    engine = Counter()
    events, _ = measured(engine=engine)
    # One batch of each setting warms it up, with prompts of the accuracy run.
    before, after = engine.read[:4], engine.read[4:]
    assert {int(row[0]) for batch in before for row in batch} <= {0, 1, 2, 3}
    begun = [tuple(row[:4]) for batch in after for row in batch]
    assert len(begun) == len(set(begun)) == 12 == events[perflog.INFERENCE_END]["unseen_prompts"]
    assert not set(begun) & {tuple(row[:4]) for row in workload().texts[0]}


def test_a_text_too_short_for_prompts_that_were_never_read_says_so():
    # Of 50 beginnings the accuracy run has 4; 60 batches of 1 and of 2 are wanted.
    with pytest.raises(DatasetError, match=r"180 prompts of 4 tokens are measured, and only 46 begin as none that was"):
        workload(repeat=60)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("truncated", r"generated \(1, 2\) tokens, 1 prompts of 3 new tokens each were asked for: .* cut short"),
        ("unknown", r"generated token \d+; the vocabulary has 50"),
        ("backwards", "times that run backwards"),
    ],
)
def test_what_cannot_be_an_answer_is_refused(fault, reason):
    with pytest.raises(InvalidMeasurement, match=reason):
        measured(fault)


def test_other_tokens_than_eager_ones_while_it_is_measured_are_refused():
    _, seen = measured("wrong")
    with pytest.raises(InvalidMeasurement, match=r"0.0% of 36 tokens are those of eager fp32.*number 1 after prompt"):
        seen.compare(reference(workload()), "fp32")


def row(tokens: list[int], gaps: list[float], seconds: list[int]) -> Judged:
    return Judged(np.zeros(3), np.array(tokens), np.array(gaps), np.array(seconds))


def compared(found: list[int], gap: float = 5.0, precision: str = "fp32") -> Agreement:
    """Four tokens, the second of them with a runner-up 9."""
    expected = row([1, 2, 3, 4], [5.0, gap, 5.0, 5.0], [8, 9, 8, 8])
    return agreement([("it", expected, np.array(found))], precision)


def test_all_that_follows_a_wrong_token_is_wrong():
    found = compared([1, 7, 3, 4])
    assert (found.agreed, found.compared) == (1, 4)
    assert (
        found.first
        == "the first other one is number 2 after it: 7 instead of 2, which was 5 nats likelier than the next best"
    )
    with pytest.raises(InvalidMeasurement, match=r"an engine: 25.0% of 4 tokens"):
        found.refuse("an engine")


def test_after_a_near_tie_nothing_is_compared_and_only_the_second_choice_is_excused():
    assert compared([1, 9, 7, 7], gap=1e-4) == Agreement(1, 1)
    assert compared([1, 7, 3, 4], gap=1e-4).compared == 4
    # What is a tie in bf16 is none in fp32.
    assert compared([1, 9, 7, 7], gap=0.1).compared == 4
    assert compared([1, 9, 7, 7], gap=0.1, precision="bf16").compared == 1


def test_a_shorter_continuation_is_held_against_the_beginning():
    assert compared([1, 2]) == Agreement(2, 2)


def test_where_nothing_can_be_compared_nothing_is_proved():
    expected = row([1], [0.0], [9])
    with pytest.raises(InvalidMeasurement, match="every continuation began with a near-tie"):
        agreement([("it", expected, np.array([9]))], "fp32").refuse("an engine")


def test_the_quality_is_the_perplexity_of_prompts_of_all_lengths():
    prompts = workload()
    assert prompts.samples() == 8
    assert [prompts.inputs(range(start, start + 2))[0].shape for start in (0, 4)] == [(2, 4), (2, 8)]
    assert prompts.quality(reference(prompts).batches) == {"perplexity": pytest.approx(4.0)}
    assert prompts.unit_count(reference(prompts).batches[0]) == 6


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"new_tokens": [9]}, "prompts of 8 tokens and 9 new ones do not fit into the model's 16"),
        ({"new_tokens": [1]}, "new_tokens is .* a list of whole numbers of 2 or more"),
        ({"prompt_lengths": 4}, "prompt_lengths is 4: a list"),
        ({"prompt_lengths": []}, "prompt_lengths is "),
        ({"generation_prompts": 3}, "generation_prompts is 3: a multiple of batch_size, 2, is wanted"),
    ],
)
def test_a_configuration_that_cannot_be_measured_is_refused(changes, reason):
    with pytest.raises(ConfigurationError, match=reason):
        workload(**changes)


def test_the_settings_are_every_combination():
    found = settings(Config({**CONFIG, "new_tokens": [3, 5]}))
    assert len(found) == 8
    assert (found[0].prompt_length, found[0].batch_size, found[0].new_tokens) == (4, 1, 3)


def test_every_setting_reaches_the_notes_of_a_result():
    events, seen = measured()
    told = [
        Event(perflog.INFERENCE_END, events[perflog.INFERENCE_END]),
        Event(perflog.FINISHED, seen.compare(reference(workload()), "fp32")),
    ]
    found = generation_log.notes(told)
    assert found[0].startswith(
        "1 request at once, 4 tokens and 3 new ones: first token after 10 ms, each further one 2 ms"
    )
    assert found[1].startswith("2 requests at once, 4 tokens and 3 new ones")
    assert found[4] == "12 prompts, none of which began as one that the engine had read before"
    assert found[-1] == "of 36 tokens generated while it was measured, 100.00% are those of eager fp32"
    assert generation_log.notes([Event(perflog.INFERENCE_END, {"samples": 3})]) == []


def test_engines_that_generate_are_a_list_of_their_own():
    assert registry.has("pytorch", "eager", "generation")
    assert registry.has("pytorch", "vllm", "generation")
    assert not registry.has("pytorch", "vllm", "throughput")
    assert not registry.has("pytorch", "onnxruntime", "generation")
    with pytest.raises(ConfigurationError, match=r"engine openvino is none of the role generation; .* eager, vllm"):
        registry.load("pytorch", "openvino", "generation")
    assert type(registry.load("pytorch", "eager")).__name__ == "Eager"
    assert type(registry.load("pytorch", "eager", "generation")).__name__ == "EagerGeneration"
