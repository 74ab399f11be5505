"""The flow of the role ``generation``: a sample is a prompt, an answer its continuation."""

from __future__ import annotations

import math
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import numpy as np

from pytest_flagperf.errors import ConfigurationError
from pytest_flagperf.errors import DatasetError
from pytest_flagperf.worker.inference.answers import Answers
from pytest_flagperf.worker.inference.answers import difference
from pytest_flagperf.worker.inference.engine import Compiled
from pytest_flagperf.worker.inference.flow import Flow
from pytest_flagperf.worker.inference.generation_accuracy import agreement
from pytest_flagperf.worker.inference.generation_settings import repeats
from pytest_flagperf.worker.inference.generation_settings import settings
from pytest_flagperf.worker.inference.generation_settings import whole_numbers
from pytest_flagperf.worker.inference.generator import Judged
from pytest_flagperf.worker.inference.workload import Arrays
from pytest_flagperf.worker.inference.workload import InferenceWorkload


class Prompts(InferenceWorkload):
    """Held-out prompts of a language model's workload: of each of ``prompt_lengths``, ``generation_prompts``.

    Beyond these samples there are the prompts to measure with, which no engine reads before: none begins as another, or
    as one of the samples, so that no cache of prefixes knows it.

    The workload gives ``prompts(length, count)``: [count, length] int64, ``anywhere(length)``: such prompts one by one,
    from places of its text at random, ``vocabulary`` and ``positions``, the longest text that the model takes; its
    model has transformers' in ``language_model``.
    """

    input_names = ("prompts",)
    output_names = ("likelihoods", "tokens", "gaps", "seconds")

    def __init__(self, workload: Any) -> None:
        self.workload = workload
        super().__init__(
            workload.config, workload.data, workload.weights, workload.seed, workload.batch_size, workload.device
        )

    def setup(self) -> None:
        """See :class:`InferenceWorkload`.

        Raises ``ConfigurationError`` for lengths that the model cannot take, ``DatasetError`` for too short a text.
        """
        self.lengths = whole_numbers(self.config, "prompt_lengths")
        self.new_tokens = max(whole_numbers(self.config, "new_tokens", least=2))
        self.count = int(self.config.generation_prompts)
        self.vocabulary, positions = int(self.workload.vocabulary), int(self.workload.positions)
        if max(self.lengths) + self.new_tokens > positions:
            raise ConfigurationError(
                f"prompts of {max(self.lengths)} tokens and {self.new_tokens} new ones do not fit into the model's "
                f"{positions}: lower prompt_lengths or new_tokens"
            )
        if self.count % self.batch_size:
            raise ConfigurationError(
                f"generation_prompts is {self.count}: a multiple of batch_size, {self.batch_size}, is wanted"
            )
        self.texts = [self.workload.prompts(length, self.count) for length in self.lengths]
        self.fresh = self._fresh()

    def _fresh(self) -> dict[int, Any]:
        """By length, the prompts that no engine has read before: as many as are measured."""
        wanted = settings(self.config)
        shortest = min(self.lengths)
        begun = {row[:shortest].tobytes() for text in self.texts for row in text}
        found: dict[int, Any] = {}
        for length in self.lengths:
            count = repeats(self.config) * sum(one.batch_size for one in wanted if one.prompt_length == length)
            rows: list[Any] = []
            places = iter(self.workload.anywhere(length))
            while len(rows) < count:
                row = next(places, None)
                if row is None:
                    raise DatasetError(
                        f"the held-out text is too short: {count} prompts of {length} tokens are measured, and only "
                        f"{len(rows)} begin as none that was read before. Lower repeat or batch_sizes, or give more "
                        "text"
                    )
                beginning = row[:shortest].tobytes()
                if beginning not in begun:
                    begun.add(beginning)
                    rows.append(row)
            found[length] = np.stack(rows)
        return found

    def model(self) -> Any:
        """See :class:`InferenceWorkload`: the workload's."""
        return self.workload.model()

    def samples(self) -> int:
        """See :class:`InferenceWorkload`: prompts of all lengths, one length after the other."""
        return self.count * len(self.lengths)

    def indices(self, length: int) -> range:
        """The samples of that length."""
        start = self.lengths.index(length) * self.count
        return range(start, start + self.count)

    def unseen(self, length: int) -> range:
        """The prompts of that length that no engine has read before; their numbers follow those of the samples."""
        start = self.samples()
        for other, rows in self.fresh.items():
            if other == length:
                return range(start, start + len(rows))
            start += len(rows)
        raise KeyError(length)

    def inputs(self, indices: Sequence[int]) -> Arrays:
        """See :class:`InferenceWorkload`; all of one length, and all samples or all unseen."""
        places = np.asarray(indices)
        for length, rows in self.fresh.items():
            within = self.unseen(length)
            if int(places[0]) in within:
                return (rows[places - within.start],)
        (which,) = set((places // self.count).tolist())
        return (self.texts[which][places % self.count],)

    def quality(self, outputs: Sequence[Arrays]) -> dict[str, float]:
        """Perplexity of the prompts, which are text that the model has not seen."""
        likelihoods = [Judged.of(batch).likelihoods for batch in outputs]
        total = sum(float(one.sum(dtype=np.float64)) for one in likelihoods)
        return {"perplexity": math.exp(-total / sum(one.size for one in likelihoods))}

    def unit_count(self, outputs: Arrays) -> int:
        """See :class:`InferenceWorkload`: new tokens."""
        return int(Judged.of(outputs).tokens.size)


class SeenTokens:
    """Continuations that were generated while the engine was measured: all of them, held against the reference's.

    ``reference`` has its answer to each of these prompts, by their numbers.
    """

    def __init__(self, reference: Mapping[int, Judged], engine: str) -> None:
        self.reference, self.engine = reference, engine
        self.taken: list[tuple[int, Any]] = []

    def add(self, indices: Sequence[int], outputs: Arrays) -> None:
        """The tokens of a batch of prompts, as the only output."""
        (tokens,) = outputs
        self.taken += list(zip(map(int, indices), np.array(tokens), strict=True))

    def compare(self, answers: Answers, precision: str) -> dict[str, Any]:
        """As MLPerf's TEST01. Raises ``InvalidMeasurement`` where others came than those of eager fp32."""
        found = agreement(
            ((f"prompt {index}", self.reference[index], tokens) for index, tokens in self.taken),
            precision,
        )
        found.refuse(f"what engine {self.engine} generated while it was measured is something else")
        return {"answers_compared": len(self.taken), "tokens_compared": found.compared, "token_agreement": found.share}


class GenerationFlow(Flow):
    """As :class:`Flow`, with prompts for samples; the engine is one of those that generate."""

    # The reference's answers to the prompts that are measured.
    expected: dict[int, Judged]

    def _load(self, build: Callable[[], InferenceWorkload], versions: Mapping[str, str]) -> None:
        super()._load(lambda: Prompts(build()), versions)

    def _ask_more(self, reference: Compiled) -> None:
        self.expected = {}
        assert isinstance(self.workload, Prompts)
        total = sum(map(len, self.workload.fresh.values()))
        for length in self.workload.lengths:
            unseen = self.workload.unseen(length)
            for start in range(0, len(unseen), self.plan.batch_size):
                indices = unseen[start : start + self.plan.batch_size]
                rows = zip(*reference.run(self.workload.inputs(indices)), strict=True)
                self.expected.update((index, Judged(*row)) for index, row in zip(indices, rows, strict=True))
                self.alive("reference of what is measured", len(self.expected), total)

    def _compared(self, reference: Answers, answers: Answers) -> dict[str, Any]:
        """Errors of the prompts' log-probabilities, and the share of the tokens that are the reference's."""
        pairs = (
            (f"prompt {index}", Judged.of(reference.to(index)), Judged.of(answers.to(index)).tokens)
            for index in range(self.workload.samples())
        )
        found = agreement(pairs, self.plan.precision)
        found.refuse(f"engine {self.plan.engine} generates something else")
        apart = difference(_likelihoods(reference), _likelihoods(answers))
        return {
            "output_error": apart.relative,
            "output_error_absolute": apart.absolute,
            "token_agreement": found.share,
            "tokens_compared": found.compared,
        }

    def _memory(self, compiled: Any) -> dict[str, Any]:
        # What is resident here says nothing of a model that is not here.
        return dict(compiled.memory()) if compiled.elsewhere else super()._memory(compiled)

    def _seen(self, answers: Answers) -> SeenTokens:
        return SeenTokens(self.expected, self.plan.engine)


def _likelihoods(answers: Answers) -> Answers:
    """The first outputs alone."""
    found = Answers(answers.workload, answers.batch_size)
    for batch in answers.batches:
        found.add((Judged.of(batch).likelihoods,))
    return found
