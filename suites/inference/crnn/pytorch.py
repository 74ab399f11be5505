"""CRNN in PyTorch answers: the network that the training suite trains."""

from __future__ import annotations

import string
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import nn

from pytest_flagperf.worker.ctc import character_errors
from pytest_flagperf.worker.ctc import greedy
from pytest_flagperf.worker.inference.pytorch import PyTorchInferenceWorkload

from ...training.crnn import strings
from ...training.crnn.pytorch import network
from .words import Synthetic
from .words import Words


# What the classes of the published network stand for, after CTC's blank; of digits alone the first ten of them.
ALPHANUMERIC = string.digits + string.ascii_lowercase


class Recogniser(PyTorchInferenceWorkload):
    """Images of text [N, 1, 32, W] float32 to the scores of classes for each column [N, columns, classes].

    The engine executes the network; the text is decoded from its scores on the host, the same way for every engine.
    """

    input_names = ("images",)
    output_names = ("scores",)

    def setup(self) -> None:
        # The first class is the blank.
        self.alphabet = ALPHANUMERIC[: self.config.classes - 1]
        self.images, self.labels = self._split("test")

    def network(self) -> nn.Module:
        return network(self.config)

    def samples(self) -> int:
        return len(self.images)

    def inputs(self, indices: Sequence[int]) -> tuple[Any]:
        return (self.images[np.asarray(indices)],)

    def calibration(self, count: int) -> Iterator[tuple[Any]]:
        images, _ = self._split("train")
        return self.drawn(images, count)

    def quality(self, outputs: Sequence[tuple[Any, ...]]) -> dict[str, float]:
        """Character error rate; of single words, the share that is not read right is their word error rate."""
        symbols = ("", *self.alphabet)
        read = [greedy(scores, symbols) for batch in outputs for scores in batch[0]]
        wrong, characters = character_errors(self.labels, read)
        missed = sum(one != other for one, other in zip(self.labels, read, strict=True))
        return {"cer": wrong / characters, "wer": missed / len(read)}

    def _split(self, split: str) -> tuple[Any, Sequence[str]]:
        """Images by index, and what is written on them."""
        if self.data.synthetic:
            return Synthetic(self.config, self.seed + (split == "train")), ()
        if self.data.name == "digits":
            return strings.lines(self.data.path, split, self.config.test_lines, 0)
        words = Words(self.data.path, split, self.config, self.alphabet)
        return words, words.texts
