"""Find the verse that says the same in another translation, where the two share no word.

A query is what the American Standard Version (1901) says in other words than the King James Version (1769), a text what
the latter says in other words than the former. As whole verses the two are nearly the same text, and counting common
words finds every pair. Without them counting finds none, chance 1 of 128: what is left is the meaning.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any

import numpy as np

from .texts import Synthetic
from .texts import Texts
from .texts import packaged_tokenizer
from .texts import read_lines


QUERIES, TEXTS = "asv", "kjv"
# Fewer words say too little to be found by.
FEWEST_WORDS = 4
CALIBRATION_BATCH = 32


class Retrieval:
    """Tokens [N, L] int64 and their mask to embeddings [N, hidden]: first all queries, then their texts in order."""

    input_names = ("input_ids", "attention_mask")
    output_names = ("embeddings",)

    def __init__(self, config: Any, data: Any, seed: int) -> None:
        self.config, self.data, self.seed = config, data, seed
        if data.synthetic:
            self.texts: Any = Synthetic(config.vocabulary, config.length, seed)
        else:
            self.texts = self._read("test", config.queries)

    def samples(self) -> int:
        return len(self.texts)

    def inputs(self, indices: Sequence[int]) -> tuple[Any, Any]:
        chosen = np.asarray(indices)
        return self.texts.ids[chosen], self.texts.mask[chosen]

    def calibration(self, count: int) -> Iterator[tuple[Any, Any]]:
        if self.data.synthetic:
            texts: Any = Synthetic(self.config.vocabulary, self.config.length, self.seed + 1)
        else:
            texts = self._read("train", -(-count // 2))
        for start in range(0, min(count, len(texts)), CALIBRATION_BATCH):
            end = min(start + CALIBRATION_BATCH, count)
            yield texts.ids[start:end], texts.mask[start:end]

    def quality(self, outputs: Sequence[tuple[Any, ...]]) -> dict[str, float]:
        found = np.concatenate([batch[0] for batch in outputs]).astype(np.float64)
        half = len(found) // 2
        return ranking(found[:half] @ found[half:].T)

    def _read(self, split: str, count: int) -> Texts:
        """``count`` pairs, evenly spread over those of the split that can be used."""
        sides = (read_lines(self.data.path / f"{split}_{name}.txt") for name in (QUERIES, TEXTS))
        tokenizer, length = packaged_tokenizer(), self.config.length

        def fits(text: str) -> bool:
            return len(words(text)) >= FEWEST_WORDS and len(tokenizer.encode(text).ids) <= length

        pairs = (apart(query, text) for query, text in zip(*sides, strict=True))
        usable = [pair for pair in pairs if fits(pair[0]) and fits(pair[1])]
        places = np.linspace(0, len(usable) - 1, min(count, len(usable))).round().astype(int)
        chosen = [usable[place] for place in places]
        return Texts([query for query, _ in chosen] + [text for _, text in chosen], tokenizer, length)


def ranking(similarities: Any) -> dict[str, float]:
    """Quality of similarities [queries, texts], of which the diagonal is right. A tie is lost."""
    ranks = np.sum(similarities >= np.diag(similarities)[:, None], axis=1)
    return {"recall_at_1": float(np.mean(ranks == 1)), "mrr": float(np.mean(1 / ranks))}


def apart(one: str, other: str) -> tuple[str, str]:
    """What each of two texts says in words that the other does not have, in their order."""
    return _without(one, words(other)), _without(other, words(one))


def words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.lower()))


def _without(text: str, common: set[str]) -> str:
    return " ".join(word for word in text.split() if words(word) and not words(word) & common)
