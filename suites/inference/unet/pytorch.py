"""The network of Stable Diffusion in PyTorch answers: the network that the training suite trains."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import nn

from pytest_flagperf.worker.inference.pytorch import PyTorchInferenceWorkload

from ...training.unet.pytorch import Denoiser
from . import latents


class UNet(PyTorchInferenceWorkload):
    """The benchmark: which network, on what, and how it is judged. A sample is one step of denoising one image."""

    input_names = ("latents", "timesteps", "states")
    output_names = ("noise",)

    def setup(self) -> None:
        if self.data.synthetic:
            self.steps = latents.synthetic(self.config, self.seed)
        elif self.data.name == "digits":
            self.steps = latents.of_digits(self.data.path, "test", self.config)
        else:
            self.steps = latents.of_user(self.data.path, self.config)

    def network(self) -> nn.Module:
        return Denoiser(self.config)

    def samples(self) -> int:
        return len(self.steps)

    def inputs(self, indices: Sequence[int]) -> tuple[Any, ...]:
        return self.steps.inputs(np.asarray(indices))

    def quality(self, outputs: Sequence[tuple[Any, ...]]) -> dict[str, float]:
        return {"noise_mse": self.steps.error([predicted for (predicted,) in outputs])}
