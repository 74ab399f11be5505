"""What an engine of the role ``generation`` is: something that continues prompts token by token.

It is a :class:`~pytest_flagperf.worker.inference.engine.Compiled`, so that the flow drives it as any other: there a
pass generates, and gives what the answers are judged by. What is measured is :meth:`Generator.generate`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from pytest_flagperf.errors import InvalidMeasurement
from pytest_flagperf.worker.inference.engine import BaseCompiled
from pytest_flagperf.worker.inference.workload import Arrays


@dataclass(frozen=True)
class Generated:
    """Continuations of a batch of prompts: ``tokens`` [N, new] int64.

    ``times`` [N, new] are seconds from the call to when each token was there; tokens that come together have the same.
    """

    tokens: Any
    times: Any

    def refuse_unfit(self, engine: str, rows: int, new_tokens: int, vocabulary: int) -> None:
        """Raises ``InvalidMeasurement`` for too few tokens, such as there are not, and times that run backwards."""
        found = np.shape(self.tokens)
        if found != (rows, new_tokens):
            raise InvalidMeasurement(
                f"engine {engine} generated {found} tokens, {rows} prompts of {new_tokens} new tokens each were asked "
                "for: the generation was cut short"
            )
        if self.tokens.min() < 0 or self.tokens.max() >= vocabulary:
            worst = self.tokens.max() if self.tokens.max() >= vocabulary else self.tokens.min()
            raise InvalidMeasurement(f"engine {engine} generated token {worst}; the vocabulary has {vocabulary}")
        if np.shape(self.times) != found or (self.times <= 0).any() or (np.diff(self.times, axis=1) < 0).any():
            raise InvalidMeasurement(
                f"engine {engine} generated tokens at times that run backwards, or before it began"
            )


@dataclass(frozen=True)
class Judged:
    """What a pass of the accuracy gives, as the outputs of a model in this order.

    ``likelihoods`` [N, P - 1] are the log-probabilities of the prompt's own tokens, ``tokens`` [N, new] the
    continuation. ``gaps`` [N, new] are how much likelier each of them was than the next best, ``seconds`` [N, new],
    both in nats; an engine that does not tell has them empty, [N, 0]. The reference tells.
    """

    likelihoods: Any
    tokens: Any
    gaps: Any
    seconds: Any

    @classmethod
    def of(cls, outputs: Arrays) -> Judged:
        """From the outputs of a batch, or of one of its rows."""
        return cls(*outputs)

    def outputs(self) -> Arrays:
        """As a model's."""
        return (self.likelihoods, self.tokens, self.gaps, self.seconds)


class Generator(BaseCompiled):
    """Base of every engine's. ``new_tokens`` and ``vocabulary`` are the workload's."""

    name = ""
    # Whether the model is in the memory of other processes than this.
    elsewhere = False

    def __init__(self, new_tokens: int, vocabulary: int) -> None:
        self.new_tokens, self.vocabulary = new_tokens, vocabulary
        self.prompts: Any = None
        self.generated: Generated | None = None

    def generate(self, prompts: Any, new_tokens: int) -> Generated:
        """Continue ``prompts`` [N, P] int64 greedily, all at once, by exactly ``new_tokens`` each.

        It returns when the last token is there. Nothing may be kept from one call to the next: no prefix is cached.
        """
        raise NotImplementedError

    def score(self, tokens: Any) -> Any:
        """Log-probability of each token after those before it: [N, T] int64 to [N, T - 1] float32."""
        raise NotImplementedError

    def answered(self, prompts: Any, new_tokens: int) -> Generated:
        """As :meth:`generate`, and nothing that cannot be an answer."""
        found = self.generate(prompts, new_tokens)
        found.refuse_unfit(self.name, len(prompts), new_tokens, self.vocabulary)
        return found

    def judged(self, prompts: Any, generated: Generated) -> Judged:
        """What the accuracy of ``generated`` is judged by."""
        untold = np.zeros((len(prompts), 0), np.float32)
        return Judged(self.score(prompts), generated.tokens, untold, untold.astype(np.int64))

    def load(self, inputs: Arrays) -> None:
        """See :class:`~pytest_flagperf.worker.inference.engine.Compiled`; prompts are on the host."""
        (self.prompts,) = inputs

    def execute(self) -> None:
        """See :class:`~pytest_flagperf.worker.inference.engine.Compiled`."""
        self.generated = self.answered(self.prompts, self.new_tokens)

    def outputs(self) -> Arrays:
        """See :class:`~pytest_flagperf.worker.inference.engine.Compiled`; see :class:`Judged`."""
        assert self.generated is not None
        return self.judged(self.prompts, self.generated).outputs()
