"""ImageNet-shaped data that needs no framework: where the images are, and synthetic ones."""

from __future__ import annotations

import os
from collections.abc import Callable
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np


# Of ImageNet's training images, RGB, in 0..1.
MEAN = (0.485, 0.456, 0.406)
DEVIATION = (0.229, 0.224, 0.225)
FOLDERS = {"train": "train", "test": "val"}


def listed(root: Path, split: str) -> list[tuple[str, int]]:
    """All images of a split as (path, class), by class directory and name; classes are numbered in that order."""
    folder = root / FOLDERS[split]
    with os.scandir(folder) as entries:
        classes = sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
    found = []
    for label, name in enumerate(classes):
        with os.scandir(folder / name) as entries:
            images = sorted(entry.path for entry in entries if is_image(entry.name))
        found += [(path, label) for path in images]
    return found


def is_image(name: str) -> bool:
    """What the dataset's check counts: JPEG files that are not hidden; other systems leave files of their own."""
    return name.lower().endswith((".jpeg", ".jpg")) and not name.startswith(".")


class Synthetic:
    """Random images of the right shape, made once: the cost of a step without that of a data pipeline.

    An epoch is as long as one of ImageNet. There is nothing to evaluate.
    """

    SAMPLES = 1_281_167

    def __init__(self, workload: Any, place: Callable[[Any], Any]) -> None:
        """``place`` puts an array on the device, where the batch then stays."""
        config = workload.config
        self.workload = workload
        random = np.random.RandomState([workload.seed, workload.ranks.rank])
        shape = (workload.batch_size, config.channels, config.image_size, config.image_size)
        self.images = place(random.standard_normal(shape).astype(np.float32))
        self.labels = place(random.randint(0, config.classes, workload.batch_size).astype(np.int64))

    def samples(self, split: str) -> int:
        """As many as ImageNet's training split has."""
        return self.SAMPLES

    def batches(self, split: str) -> Iterator[tuple[Any, Any]]:
        """The same batch for a whole epoch, on the device: images [N, C, H, W] float32, labels [N] int64."""
        for _ in range(self.SAMPLES // (self.workload.batch_size * self.workload.world_size)):
            yield self.images, self.labels
