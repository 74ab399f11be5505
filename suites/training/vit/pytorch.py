"""Vision Transformer in PyTorch: the network of transformers, so its names are those of published checkpoints."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch import nn
from torch.nn import functional as F

from pytest_flagperf.errors import ConfigurationError
from pytest_flagperf.worker.pytorch import PyTorchWorkload
from pytest_flagperf.worker.recipes import adamw_one_cycle

from .digits import Digits


try:
    from transformers import ViTConfig
    from transformers import ViTForImageClassification
except ImportError as error:
    raise ConfigurationError(
        "the network is that of transformers, not installed here: pip install 'pytest-flagperf[vision]'"
    ) from error


class VisionTransformer(ViTForImageClassification):
    """Dosovitskiy et al. 2020: images [N, C, H, W] to the scores of the classes [N, classes]."""

    def __init__(self, config: Any) -> None:
        """``config`` is the case's; the network's is made of it."""
        super().__init__(
            ViTConfig(
                hidden_size=config.hidden_size,
                num_hidden_layers=config.layers,
                num_attention_heads=config.heads,
                intermediate_size=4 * config.hidden_size,
                image_size=config.image_size,
                patch_size=config.patch_size,
                num_channels=config.channels,
                num_labels=config.classes,
                hidden_dropout_prob=0.0,
                attention_probs_dropout_prob=0.0,
                # Narrow networks start too small with transformers' 0.02, and stay on a plateau for epochs.
                initializer_range=config.hidden_size**-0.5,
                attn_implementation="sdpa",
            )
        )

    def forward(self, images: Tensor) -> Tensor:
        # The first token is the one that no patch stands for.
        return self.classifier(self.vit(images).last_hidden_state[:, 0])


class ViT(PyTorchWorkload):
    """The benchmark: what is trained, on what, and how it is judged."""

    def setup(self) -> None:
        self.source = Digits(self)

    def model(self) -> nn.Module:
        network = VisionTransformer(self.config)
        side = self.config.image_size // self.config.patch_size
        with torch.no_grad():
            # 4,000 images are too few to learn where a patch is from noise.
            network.vit.embeddings.position_embeddings.copy_(positions(side, self.config.hidden_size))
        return network

    def optimizer(self, model: nn.Module) -> tuple[torch.optim.Optimizer, Any]:
        return adamw_one_cycle(model, self.config, self.total_steps + 1)

    def samples(self, split: str) -> int:
        return self.source.samples(split)

    def batches(self, split: str) -> Iterator[Any]:
        return self.source.batches(split)

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        images, labels = batch
        return F.cross_entropy(model(images), labels, label_smoothing=self.config.label_smoothing)

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        right = seen = 0
        total = self.samples("test")
        first = next(model.parameters())
        for images, labels in self.batches("test"):
            scores = model(torch.as_tensor(images).to(first.device, first.dtype))
            right += int((scores.argmax(1) == torch.as_tensor(labels).to(first.device)).sum())
            seen += len(labels)
            self.ranks.progress("evaluation", seen * self.world_size, total)
        right, seen = self.ranks.sum([right, seen])
        return {"top1": right / seen}


def positions(side: int, width: int) -> Tensor:
    """Sines and cosines of both coordinates of ``side`` x ``side`` patches, and zeros of the first token."""
    quarter = width // 4
    frequency = torch.exp(torch.arange(quarter) * (-math.log(1e4) / quarter))
    angles = torch.outer(torch.arange(side).float(), frequency)
    one = torch.cat([angles.sin(), angles.cos()], 1)
    both = torch.cat([one[:, None].expand(side, side, -1), one[None].expand(side, side, -1)], -1)
    return torch.cat([torch.zeros(1, 1, width), both.reshape(1, side * side, width)], 1) * 0.5
