"""Of models that listen."""

from __future__ import annotations

from pytest_flagperf.weights import Recipe
from pytest_flagperf.weights import WeightsSet


SETS: tuple[WeightsSet, ...] = (
    WeightsSet(
        "ctc-asr-prompts",
        "A recogniser of convolutions, trained on 359 spoken prompts by this plugin's own lite training",
        "They are made on this machine when they are first needed, which takes half a minute or so.",
        recipe=Recipe("ctc_asr"),
    ),
    WeightsSet(
        "wav2vec2-base-960h",
        "wav2vec 2.0 Base fine-tuned on the 960 hours of LibriSpeech, in the names of transformers",
        "Give the file model.safetensors, or pytorch_model.bin, of wav2vec2-base-960h with "
        "--weights wav2vec2-base-960h=/path/to/model.safetensors. For the speed alone: "
        "--weights wav2vec2-base-960h=random.",
    ),
)
