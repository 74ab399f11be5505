"""Llama in PyTorch answers: the network that the training suite trains."""

from __future__ import annotations

from typing import Any

from torch import nn

from pytest_flagperf.worker.inference.pytorch import PyTorchInferenceWorkload

from ...training.llama.network import Llama
from .text import HeldOut


PREFIX = "language_model."
# Buffers that older checkpoints carry, computed from the sizes.
_COMPUTED = "rotary_emb.inv_freq"


class LanguageModel(HeldOut, PyTorchInferenceWorkload):
    """The benchmark: which network, on what, and how it is judged."""

    def network(self) -> nn.Module:
        return Llama(self.config)

    def state(self) -> dict[str, Any]:
        """In transformers' names, whether or not they are of this network's whole; safetensors may be bfloat16."""
        path = self.weights.path
        assert path is not None
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            found = load_file(path)
        else:
            found = super().state()
        return {
            name if name.startswith(PREFIX) else PREFIX + name: tensor
            for name, tensor in found.items()
            if not name.endswith(_COMPUTED)
        }
