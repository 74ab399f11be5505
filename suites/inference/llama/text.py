"""What a language model is evaluated on: windows of held-out text, as token ids, and prompts cut from it."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pytest_flagperf.errors import DatasetError
from pytest_flagperf.worker.inference.generation_settings import whole_numbers

from ...training.llama import text
from ..bert.texts import tokenizer_of


class HeldOut:
    """``samples`` windows of ``context`` tokens, evenly spread over the text, or random ones of synthetic data."""

    input_names = ("tokens",)
    output_names = ("likelihoods",)

    def setup(self) -> None:
        config = self.config
        self.vocabulary, self.positions = int(config.vocabulary), int(config.positions)
        self.random = np.random.default_rng(self.seed)
        if self.data.synthetic:
            self.text = self.random.integers(0, self.vocabulary, self._wanted())
        elif self.data.name == "verses":
            self.text = text.read(self.data.path, "test")
        else:
            self.text = tokenized(self.data.path, self.vocabulary)
        self.windows = self.cut(config.context, config.evaluation_samples)

    def _wanted(self) -> int:
        """Tokens of synthetic text: so many that neither a window nor a prompt is there twice."""
        config = self.config
        wanted = int(config.evaluation_samples * config.context)
        if "prompt_lengths" in config:
            wanted = max(wanted, max(whole_numbers(config, "prompt_lengths")) * int(config.generation_prompts))
        return wanted

    def cut(self, length: int, count: int) -> Any:
        """``count`` windows [count, length] int64. Raises ``DatasetError`` where the text is too short for one."""
        found = text.windows(self.text, length)
        if not len(found):
            raise DatasetError(f"dataset {self.data.name}: its text has {len(self.text)} tokens, {length} are needed")
        return text.spread(found, count).astype(np.int64)

    def samples(self) -> int:
        return len(self.windows)

    def inputs(self, indices: Sequence[int]) -> tuple[Any]:
        return (self.windows[np.asarray(indices)],)

    def prompts(self, length: int, count: int) -> Any:
        """As generation asks for them: [count, length] int64. A text too short for so many has some of them twice."""
        found = self.cut(length, count)
        return found[np.arange(count) % len(found)]

    def anywhere(self, length: int) -> Iterator[Any]:
        """Windows [length] int64 from every place of the text, in an order by chance."""
        places = np.random.default_rng([self.seed, length]).permutation(max(0, len(self.text) - length + 1))
        return (self.text[place : place + length].astype(np.int64) for place in places)

    def quality(self, outputs: Sequence[tuple[Any, ...]]) -> dict[str, float]:
        """Perplexity of a token, of bytes where tokens are bytes."""
        total = sum(float(likelihoods.sum(dtype=np.float64)) for (likelihoods,) in outputs)
        return {"perplexity": float(np.exp(-total / sum(likelihoods.size for (likelihoods,) in outputs)))}

    def unit_count(self, outputs: tuple[Any, ...]) -> int:
        """Tokens that the model went over: the first of a window has no likelihood, and costs as much."""
        (likelihoods,) = outputs
        return int(len(likelihoods) * self.config.context)


def tokenized(folder: Path, vocabulary: int) -> Any:
    """The tokens of a user's ``test.txt`` by the ``tokenizer.json`` beside it, without marks of begin and end."""
    path = folder / "tokenizer.json"
    found = tokenizer_of(path)
    text = (folder / "test.txt").read_text(encoding="utf-8")
    tokens = np.array(found.encode(text, add_special_tokens=False).ids)
    if len(tokens) and tokens.max() >= vocabulary:
        raise DatasetError(f"{path} makes token {tokens.max()}; the model has {vocabulary}")
    return tokens
