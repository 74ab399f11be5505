"""Vision Transformer in PyTorch answers: the network that the training suite trains."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from pytest_flagperf.worker.inference.pytorch import PyTorchInferenceWorkload

from ...training.resnet50.imagenet import listed
from ...training.vit.digits import load
from ...training.vit.pytorch import VisionTransformer
from ..resnet50.images import Synthetic
from .images import Squeezed
from .names import by_own_names


class ViT(PyTorchInferenceWorkload):
    """Images [N, C, H, W] float32, normalized, to the scores of the classes [N, classes]."""

    input_names = ("images",)
    output_names = ("scores",)

    def setup(self) -> None:
        self.images, self.labels = self._split("test")

    def network(self) -> nn.Module:
        return VisionTransformer(self.config)

    def state(self) -> dict[str, Any]:
        """Name → tensor, whatever the version of transformers that they were saved by."""
        # Its names are wanted: there it takes no memory and no time to be made.
        with torch.device("meta"):
            own = self.network().state_dict()
        return by_own_names(super().state(), own)

    def samples(self) -> int:
        return len(self.images)

    def inputs(self, indices: Sequence[int]) -> tuple[Any]:
        return (self.images[np.asarray(indices)],)

    def calibration(self, count: int) -> Iterator[tuple[Any]]:
        images, _ = self._split("train")
        return self.drawn(images, count)

    def quality(self, outputs: Sequence[tuple[Any, ...]]) -> dict[str, float]:
        scores = np.concatenate([batch[0] for batch in outputs])
        return {"top1": float(np.mean(scores.argmax(axis=1) == self.labels))}

    def _split(self, split: str) -> tuple[Any, Any]:
        """Images by index, and their labels."""
        if self.data.synthetic:
            return Synthetic(self.config, self.seed + (split == "train")), ()
        if self.data.name == "digits":
            return load(self.data.path, split)
        images = Squeezed(listed(self.data.path, split), self.config)
        return images, images.labels
