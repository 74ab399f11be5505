"""Recognition of speech in PyTorch: wav2vec 2.0 of transformers, and the small network that the training suite trains.

The lite scale has a network of its own: 11 minutes of speech do not teach wav2vec 2.0 anything, which listens to the
waveform itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import nn

from pytest_flagperf.worker.ctc import character_errors
from pytest_flagperf.worker.ctc import word_errors
from pytest_flagperf.worker.inference.pytorch import PyTorchInferenceWorkload

from ...training.ctc_asr.features import decoded
from ...training.ctc_asr.pytorch import Recogniser
from . import recordings


class CtcAsr(PyTorchInferenceWorkload):
    """The benchmark: which network, on what, and how it is judged."""

    output_names = ("scores",)

    def setup(self) -> None:
        config = self.config
        self.input_names = ("features",) if config.network == "recogniser" else ("waveforms",)
        if self.data.synthetic:
            self.source: Any = recordings.Synthetic(config, self.seed)
        elif self.data.name == "asterisk_prompts":
            self.source = recordings.Prompts(self.data.path, config.frames)
        else:
            self.source = recordings.LibriSpeech(self.data.path, recordings.samples_of(config))
        self.labels = self.source.transcripts

    def network(self) -> nn.Module:
        if self.config.network == "recogniser":
            return Recogniser(self.config)
        from .wav2vec2 import Wav2Vec2

        return Wav2Vec2()

    def state(self) -> dict[str, Any]:
        """Published files have the names of an older way to normalize the weights of a convolution."""
        renamed = {"weight_g": "parametrizations.weight.original0", "weight_v": "parametrizations.weight.original1"}
        found = {}
        for name, tensor in super().state().items():
            path, _, last = name.rpartition(".")
            found[f"{path}.{renamed[last]}" if last in renamed else name] = tensor
        return found

    def samples(self) -> int:
        return len(self.source)

    def inputs(self, indices: Sequence[int]) -> tuple[Any]:
        return (self.source.inputs(indices),)

    def answer(self, outputs: tuple[Any, ...], row: int, index: int) -> tuple[Any, ...]:
        """Without the scores of padding."""
        scores = outputs[0][row]
        return (np.array(scores if self.data.synthetic else scores[: self.source.scored[index]]),)

    def quality(self, outputs: Sequence[tuple[Any, ...]]) -> dict[str, float]:
        scores = (one for batch in outputs for one in batch[0])
        heard = [
            decoded(one[:count], self.source.symbols) for one, count in zip(scores, self.source.scored, strict=True)
        ]
        rates = {"cer": character_errors(self.labels, heard), "wer": word_errors(self.labels, heard)}
        return {name: errors / count for name, (errors, count) in rates.items()}
