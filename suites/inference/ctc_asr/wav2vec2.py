"""The network of the full scale: that of transformers, so its names are those of published checkpoints."""

from __future__ import annotations

from torch import Tensor

from pytest_flagperf.errors import ConfigurationError


try:
    from transformers import Wav2Vec2Config
    from transformers import Wav2Vec2ForCTC
except ImportError as error:
    raise ConfigurationError(
        f"the network is that of transformers, not installed here ({error}): pip install 'pytest-flagperf[speech]'"
    ) from error


class Wav2Vec2(Wav2Vec2ForCTC):
    """Baevski et al. 2020, Base: waveforms [N, samples] to the scores of letters [N, frames of 20 ms, 32]."""

    def __init__(self) -> None:
        # The defaults of transformers are those of Base.
        super().__init__(Wav2Vec2Config(attn_implementation="sdpa"))

    def forward(self, waveforms: Tensor) -> Tensor:
        return super().forward(waveforms, return_dict=True).logits
