"""What the workloads of every framework have in common: the images, and how answers are judged."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any

import numpy as np

from ...training.resnet50.digits import Digits
from ...training.resnet50.imagenet import listed
from .images import ImageNet
from .images import Synthetic


class Classification:
    """Images [N, C, H, W] float32, normalized, to the scores of the classes [N, classes]."""

    input_names = ("images",)
    output_names = ("scores",)

    def setup(self) -> None:
        if self.data.synthetic:
            self.images: Any = Synthetic(self.config, self.seed)
        elif self.data.name == "digits":
            self.images, self.labels = Digits(self).load("test")
        else:
            self.images = ImageNet(listed(self.data.path, "test"), self.config)
            self.labels = self.images.labels

    def samples(self) -> int:
        return len(self.images)

    def inputs(self, indices: Sequence[int]) -> tuple[Any]:
        return (self.images[np.asarray(indices)],)

    def calibration(self, count: int) -> Iterator[tuple[Any]]:
        if self.data.synthetic:
            images: Any = Synthetic(self.config, self.seed + 1)
        elif self.data.name == "digits":
            images, _ = Digits(self).load("train")
        else:
            images = ImageNet(listed(self.data.path, "train"), self.config)
        return self.drawn(images, count)

    def quality(self, outputs: Sequence[tuple[Any, ...]]) -> dict[str, float]:
        scores = np.concatenate([batch[0] for batch in outputs])
        best = np.argpartition(-scores, 4, axis=1)[:, :5]
        return {
            "top1": float(np.mean(scores.argmax(axis=1) == self.labels)),
            "top5": float(np.mean((best == np.asarray(self.labels)[:, None]).any(axis=1))),
        }
