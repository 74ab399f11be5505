"""ImageNet for MindSpore: JPEG files decoded in threads of ``mindspore.dataset``, ahead of the step that needs them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Tensor
from mindspore import dataset
from mindspore.dataset import vision

from .imagenet import DEVIATION
from .imagenet import MEAN
from .imagenet import listed


class ImageNetLoader:
    """Standard augmentation: a random crop of 8..100 % of the area, 3:4 to 4:3, and a flip; evaluated on the center.

    Seed and epoch fix the order of the images. The threads draw the crops, so these depend on how many there are, too.
    """

    def __init__(self, workload: Any) -> None:
        self.workload = workload
        self.files = {split: listed(workload.data.path, split) for split in ("train", "test")}
        self.mean = Tensor(255 * np.array(MEAN, np.float32).reshape(1, 3, 1, 1))
        self.deviation = Tensor(255 * np.array(DEVIATION, np.float32).reshape(1, 3, 1, 1))

    def samples(self, split: str) -> int:
        """Images in ``split``."""
        return len(self.files[split])

    def batches(self, split: str) -> Iterator[tuple[Tensor, Tensor]]:
        """Pairs of images [N, 3, H, W] float32, normalized on the device, and labels [N] int64."""
        workload, train = self.workload, split == "train"
        count = len(self.files[split])
        order = workload.shuffled_shard(count, np) if train else workload.ordered_shard(count)
        # MindSpore refuses more threads than the host has processors.
        threads = min(max(1, workload.config.decoder_processes), os.cpu_count() or 1)
        mixed = np.random.SeedSequence([workload.seed, workload.epoch, workload.ranks.rank])
        dataset.config.set_seed(int(mixed.generate_state(1)[0]) % 2**31)
        files = dataset.GeneratorDataset(
            Files([self.files[split][index] for index in order]),
            ["image", "label"],
            num_parallel_workers=1,
            shuffle=False,
            python_multiprocessing=False,
        )
        steps = augmentation(workload.config.image_size) if train else center(workload.config.image_size)
        decoded = files.map([*steps, vision.HWC2CHW()], ["image"], num_parallel_workers=threads)
        # Bytes travel to the device, not floats: a quarter of the copy.
        for images, labels in decoded.batch(workload.batch_size).create_tuple_iterator(num_epochs=1):
            yield (images.astype(ms.float32) - self.mean) / self.deviation, labels


class Files:
    """The bytes of image files, and their classes, by index."""

    def __init__(self, files: list[tuple[str, int]]) -> None:
        self.files = files

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        path, label = self.files[index]
        return np.fromfile(path, np.uint8), np.int64(label)


def augmentation(side: int) -> list[Any]:
    """Only the part of a JPEG file inside the random box is decoded (the box as in Szegedy et al. 2014)."""
    return [vision.RandomCropDecodeResize(side, (0.08, 1.0), (3 / 4, 4 / 3)), vision.RandomHorizontalFlip(0.5)]


def center(side: int) -> list[Any]:
    """The shorter side becomes 256/224 of the crop, as in He et al. 2015."""
    return [vision.Decode(), vision.Resize(round(side * 256 / 224)), vision.CenterCrop(side)]
