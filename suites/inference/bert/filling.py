"""Say which tokens were hidden: masked language modelling on passages of the user's (Devlin et al. 2019)."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any

import numpy as np

from pytest_flagperf.errors import ConfigurationError
from pytest_flagperf.errors import DatasetError

from .texts import Synthetic
from .texts import Texts
from .texts import read_lines
from .texts import tokenizer_of


SHARE = 0.15
MASK = "[MASK]"
# Where BERT's vocabulary has [MASK]; of synthetic texts only.
MASK_ID = 103


class Filling:
    """Tokens [N, L], their mask, hidden positions [N, P] and what was there [N, P], int64, to margins [N, P].

    P is 15 % of L. A shorter passage hides 15 % of its own tokens, and the rest of its positions are not counted.
    """

    input_names = ("input_ids", "attention_mask", "positions", "hidden")
    output_names = ("margins",)

    def __init__(self, config: Any, data: Any, seed: int) -> None:
        mask = MASK_ID
        if data.synthetic:
            texts: Any = Synthetic(config.vocabulary, config.length, seed)
        else:
            tokenizer = tokenizer_of(data.path / "tokenizer.json")
            mask = tokenizer.token_to_id(MASK)
            if mask is None or tokenizer.get_vocab_size() != config.vocabulary:
                raise DatasetError(
                    f"{data.path / 'tokenizer.json'} has {tokenizer.get_vocab_size():,} tokens and {MASK} "
                    f"{'is not' if mask is None else 'is'} one; this BERT has {config.vocabulary:,} and needs it: take "
                    "the file that lies beside the weights"
                )
            texts = Texts(read_lines(data.path / "test.txt"), tokenizer, config.length)
        self.texts = texts
        self._hide(mask, seed)

    def samples(self) -> int:
        return len(self.texts)

    def inputs(self, indices: Sequence[int]) -> tuple[Any, ...]:
        chosen = np.asarray(indices)
        return self.ids[chosen], self.texts.mask[chosen], self.positions[chosen], self.hidden[chosen]

    def calibration(self, count: int) -> Iterator[tuple[Any, ...]]:
        raise ConfigurationError(
            "bert has no training passages at full scale, so it cannot be quantised: choose another --precision"
        )

    def quality(self, outputs: Sequence[tuple[Any, ...]]) -> dict[str, float]:
        margins = np.concatenate([batch[0] for batch in outputs])
        return {"mlm_accuracy": float(np.mean(margins[self.counted] > 0))}

    def _hide(self, mask: int, seed: int) -> None:
        """All of the hidden tokens become [MASK], whatever the training did: what is asked for is then one thing."""
        count = int(SHARE * self.texts.ids.shape[1])
        self.ids = self.texts.ids.copy()
        self.positions = np.zeros((len(self.texts), count), np.int64)
        self.counted = np.zeros((len(self.texts), count), bool)
        for row, used in enumerate(self.texts.mask.sum(axis=1)):
            # Neither [CLS] nor [SEP].
            inner = used - 2
            hides = min(count, max(1, round(SHARE * inner)), inner)
            chosen = np.random.default_rng([seed, row]).choice(inner, hides, replace=False) + 1
            self.positions[row, :hides] = np.sort(chosen)
            self.counted[row, :hides] = True
        self.hidden = np.take_along_axis(self.texts.ids, self.positions, axis=1)
        rows = np.broadcast_to(np.arange(len(self.ids))[:, None], self.positions.shape)
        self.ids[rows[self.counted], self.positions[self.counted]] = mask
