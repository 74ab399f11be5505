"""The lite data: 5,000 real MNIST digits."""

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
        """Images [N, 1, 32, 32] float32 and labels [N] int64, read when they are first needed."""
        if split not in self.loaded:
            self.loaded[split] = load(self.workload.data.path, split)
        return self.loaded[split]

    def batches(self, split: str) -> Iterator[tuple[Any, Any]]:
        """Pairs of images [N, 1, 32, 32] float32 and labels [N] int64."""
        images, labels = self.load(split)
        train = split == "train"
        size = self.workload.batch_size if train else 250
        order = self.workload.shuffled_shard(len(labels), np) if train else self.workload.ordered_shard(len(labels))
        random = np.random.RandomState([self.workload.seed, self.workload.epoch, self.workload.ranks.rank])
        for start in range(0, len(order), size):
            chosen = np.asarray(order[start : start + size])
            yield (shifted(images[chosen], random) if train else images[chosen]), labels[chosen]


def load(folder: Any, split: str) -> tuple[Any, Any]:
    """Images [N, 1, 32, 32] float32, normalized, and labels [N] int64, in the order of the digits."""
    pixels = np.load(folder / f"{split}_images.npy")
    pad = (SIDE - pixels.shape[1]) // 2
    padded = np.pad(pixels, ((0, 0), (pad, pad), (pad, pad)))
    images = ((padded[:, None] / np.float32(255) - MEAN) / DEVIATION).astype(np.float32)
    return images, np.load(folder / f"{split}_labels.npy").astype(np.int64)


def shifted(images: Any, random: Any) -> Any:
    """Each image moved by up to ``SHIFT`` pixels each way; what leaves at one side is lost, the gap is background."""
    border = ((0, 0), (0, 0), (SHIFT, SHIFT), (SHIFT, SHIFT))
    bordered = np.pad(images, border, constant_values=np.float32(-MEAN / DEVIATION))
    windows = np.lib.stride_tricks.sliding_window_view(bordered, (SIDE, SIDE), axis=(2, 3))
    down, right = random.randint(0, 2 * SHIFT + 1, (2, len(images)))
    return np.ascontiguousarray(windows[np.arange(len(images)), :, down, right])
