"""The lite data: 5,000 real MNIST digits, the same batches in every framework."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np


# Mean and standard deviation of MNIST's training pixels.
MEAN, DEVIATION = 0.1307, 0.3081
SIDE = 32
SHIFT = 2


class Digits:
    """Digits of 28x28 padded to 32x32, normalized, shifted by up to two pixels when trained on."""

    def __init__(self, workload: Any) -> None:
        self.workload = workload
        self.loaded: dict[str, tuple[Any, Any]] = {}

    def samples(self, split: str) -> int:
        """Images in ``split``."""
        return len(np.load(self.workload.data.path / f"{split}_labels.npy", mmap_mode="r"))

    def load(self, split: str) -> tuple[Any, Any]:
        """Images [N, 1, 32, 32] float32 and labels [N] int64, read when they are first needed: that is on the clock."""
        if split not in self.loaded:
            pixels = np.load(self.workload.data.path / f"{split}_images.npy")
            pad = (SIDE - pixels.shape[1]) // 2
            padded = np.pad(pixels, ((0, 0), (pad, pad), (pad, pad)))
            images = ((padded[:, None] / np.float32(255) - MEAN) / DEVIATION).astype(np.float32)
            labels = np.load(self.workload.data.path / f"{split}_labels.npy").astype(np.int64)
            self.loaded[split] = images, labels
        return self.loaded[split]

    def batches(self, split: str) -> Iterator[tuple[Any, Any]]:
        """Pairs of images [N, 1, 32, 32] float32 and labels [N] int64."""
        images, labels = self.load(split)
        size = self.workload.batch_size
        if split == "train":
            order = self.workload.shuffled_shard(len(labels), np)
            random = np.random.RandomState([self.workload.seed, self.workload.epoch, self.workload.ranks.rank])
            for start in range(0, len(order), size):
                chosen = order[start : start + size]
                yield shifted(images[chosen], random), labels[chosen]
        else:
            own = np.array(self.workload.ordered_shard(len(labels)))
            for start in range(0, len(own), 250):
                chosen = own[start : start + 250]
                yield images[chosen], labels[chosen]


def shifted(images: Any, random: Any) -> Any:
    """Each image moved by up to ``SHIFT`` pixels each way; what leaves at one side is lost, the gap is background."""
    count, channels = images.shape[:2]
    background = np.float32(-MEAN / DEVIATION)
    border = ((0, 0), (0, 0), (SHIFT, SHIFT), (SHIFT, SHIFT))
    bordered = np.pad(images, border, constant_values=background)
    windows = np.lib.stride_tricks.sliding_window_view(bordered, (SIDE, SIDE), axis=(2, 3))
    down, right = random.randint(0, 2 * SHIFT + 1, (2, count))
    return np.ascontiguousarray(windows[np.arange(count), :, down, right]).reshape(count, channels, SIDE, SIDE)
