"""The network of Stable Diffusion in PyTorch: that of diffusers, so its names are those of published checkpoints."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch import nn
from torch.nn import functional as F

from pytest_flagperf.errors import ConfigurationError
from pytest_flagperf.worker.pytorch import PyTorchWorkload
from pytest_flagperf.worker.recipes import adamw_one_cycle

from . import noise


try:
    from diffusers import UNet2DConditionModel
except ImportError as error:
    raise ConfigurationError(
        f"the network is that of diffusers, not installed here ({error}): pip install 'pytest-flagperf[diffusion]'"
    ) from error


class Denoiser(UNet2DConditionModel):
    """Latents [N, C, H, W], timesteps [N] and states of a text [N, tokens, width] to the noise in the latents."""

    def __init__(self, config: Any) -> None:
        """``config`` is the case's; the network's is made of it."""
        attends = list(config.attention)
        super().__init__(
            sample_size=config.latent_size,
            in_channels=config.latent_channels,
            out_channels=config.latent_channels,
            down_block_types=[_block("Down", one) for one in attends],
            up_block_types=[_block("Up", one) for one in reversed(attends)],
            block_out_channels=list(config.channels),
            layers_per_block=config.layers,
            norm_num_groups=config.groups,
            cross_attention_dim=config.text_width,
            # It is the number of heads: diffusers keeps the name that it first had.
            attention_head_dim=config.heads,
        )

    def forward(self, latents: Tensor, timesteps: Tensor, states: Tensor) -> Tensor:
        return super().forward(latents, timesteps, states, return_dict=False)[0]


def _block(direction: str, attends: bool) -> str:
    return f"{'CrossAttn' if attends else ''}{direction}Block2D"


class UNet(PyTorchWorkload):
    """The benchmark: what is trained, on what, and how it is judged."""

    def setup(self) -> None:
        self.loaded: dict[str, tuple[Any, Any]] = {}
        self.states = noise.states(self.config.tokens, self.config.text_width)

    def load(self, split: str) -> tuple[Any, Any]:
        """Latents and classes, read when they are first needed."""
        if split not in self.loaded:
            self.loaded[split] = noise.digits(self.data.path, split)
        return self.loaded[split]

    def model(self) -> nn.Module:
        return Denoiser(self.config)

    def optimizer(self, model: nn.Module) -> tuple[torch.optim.Optimizer, Any]:
        return adamw_one_cycle(model, self.config, self.total_steps)

    def samples(self, split: str) -> int:
        return len(np.load(self.data.path / f"{split}_labels.npy", mmap_mode="r"))

    def batches(self, split: str) -> Iterator[Any]:
        """Noisy latents, timesteps, states and the noise; of the evaluation always the same."""
        latents, classes = self.load(split)
        if split == "train":
            order, size = self.shuffled_shard(len(classes), np), self.batch_size
            random = np.random.RandomState([self.seed, self.epoch, self.ranks.rank])
            added = random.standard_normal(latents.shape).astype(np.float32)
            timesteps = random.randint(0, noise.STEPS, len(classes))
        else:
            order, size = np.array(self.ordered_shard(len(classes))), 100
            added, timesteps = noise.evaluation(len(classes), latents.shape[1:])
        for start in range(0, len(order), size):
            chosen = order[start : start + size]
            noisy = noise.mixed(latents[chosen], added[chosen], timesteps[chosen])
            yield noisy, timesteps[chosen], self.states[classes[chosen]], added[chosen]

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        latents, timesteps, states, added = batch
        return F.mse_loss(model(latents, timesteps, states), added)

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        errors = seen = 0.0
        total = self.samples("test")
        first = next(model.parameters())
        for latents, timesteps, states, added in self.batches("test"):
            inputs = (torch.from_numpy(one).to(first.device) for one in (latents, timesteps, states))
            predicted = model(*(one.to(first.dtype) if one.is_floating_point() else one for one in inputs))
            errors += float(np.square(predicted.float().cpu().numpy() - added, dtype=np.float64).mean((1, 2, 3)).sum())
            seen += len(added)
            self.ranks.progress("evaluation", round(seen) * self.world_size, total)
        errors, seen = self.ranks.sum([errors, seen])
        return {"noise_mse": errors / seen}
