"""What a language model is evaluated on: windows of held-out text, as token ids, and prompts cut from it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pytest_flagperf.errors import ConfigurationError
from pytest_flagperf.errors import DatasetError

from ...training.llama import text


class HeldOut:
    """``samples`` windows of ``context`` tokens, evenly spread over the text, or random ones of synthetic data."""

    input_names = ("tokens",)
    output_names = ("likelihoods",)

    def setup(self) -> None:
        config = self.config
        self.vocabulary, self.positions = int(config.vocabulary), int(config.positions)
        self.random = np.random.default_rng(self.seed)
        if self.data.synthetic:
            self.text = self.random.integers(0, self.vocabulary, config.evaluation_samples * config.context)
        elif self.data.name == "verses":
            self.text = text.read(self.data.path, "test")
        else:
            self.text = tokenized(self.data.path, self.vocabulary)
        self.windows = self.cut(config.context, config.evaluation_samples)

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
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise ConfigurationError(
            f"a text of your own needs tokenizers: pip install 'pytest-flagperf[language]' ({error})"
        ) from error
    path = folder / "tokenizer.json"
    try:
        found = Tokenizer.from_file(str(path))
    except Exception as error:
        # The library raises Exception itself.
        raise DatasetError(f"{path} is no tokenizer of tokenizers': {error}") from error
    text = (folder / "test.txt").read_text(encoding="utf-8")
    tokens = np.array(found.encode(text, add_special_tokens=False).ids)
    if len(tokens) and tokens.max() >= vocabulary:
        raise DatasetError(f"{path} makes token {tokens.max()}; the model has {vocabulary}")
    return tokens
