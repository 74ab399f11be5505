"""ImageNet for PaddlePaddle: JPEG files decoded in processes of their own, ahead of the step that needs them."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import paddle
from paddle import Tensor
from paddle.io import BatchSampler
from paddle.io import DataLoader
from paddle.io import Dataset
from paddle.vision import transforms
from PIL import Image

from .imagenet import DEVIATION
from .imagenet import MEAN
from .imagenet import listed


class ImageNetLoader:
    """Standard augmentation: a random crop of 8..100 % of the area, 3:4 to 4:3, and a flip; evaluated on the center."""

    def __init__(self, workload: Any) -> None:
        self.workload = workload
        self.files = {split: listed(workload.data.path, split) for split in ("train", "test")}
        self.mean = self._per_channel(MEAN)
        self.deviation = self._per_channel(DEVIATION)

    def _per_channel(self, values: tuple[float, ...]) -> Tensor:
        """A value for each channel of pixels in 0..255, shaped for [N, C, H, W]."""
        return paddle.to_tensor(values, dtype="float32", place=self.workload.device).reshape([1, -1, 1, 1]) * 255

    def samples(self, split: str) -> int:
        """Images in ``split``."""
        return len(self.files[split])

    def batches(self, split: str) -> Iterator[tuple[Tensor, Tensor]]:
        """Pairs of images [N, 3, H, W] float32, normalized on the device, and labels [N] int64."""
        workload, train = self.workload, split == "train"
        count = len(self.files[split])
        order = workload.shuffled_shard(count, np).tolist() if train else list(workload.ordered_shard(count))
        # Bytes travel to the device, not floats: a quarter of the copy.
        loader = DataLoader(
            Decoded(self.files[split], workload.config.image_size, train, [workload.seed, workload.epoch]),
            batch_sampler=BatchSampler(sampler=order, batch_size=workload.batch_size),
            num_workers=workload.config.decoder_processes,
            prefetch_factor=4,
        )
        for images, labels in loader:
            yield (images.astype("float32") - self.mean) / self.deviation, labels


class Decoded(Dataset):
    """Decoded images [3, side, side] uint8 by index. The augmentation depends on seed, epoch and index alone."""

    def __init__(self, files: list[tuple[str, int]], side: int, train: bool, seed: list[int]) -> None:
        super().__init__()
        self.files, self.seed = files, seed
        if train:
            steps = [transforms.RandomResizedCrop(side), transforms.RandomHorizontalFlip()]
        else:
            # The shorter side becomes 256/224 of the crop, as in He et al. 2015.
            steps = [transforms.Resize(round(side * 256 / 224)), transforms.CenterCrop(side)]
        self.transform = transforms.Compose(steps)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        path, label = self.files[index]
        with Image.open(path) as image:
            rgb = image.convert("RGB")
        # Paddle's transforms draw from the global generators, some from Python's and some from NumPy's.
        own = np.random.RandomState([*self.seed, index])
        random.seed(int(own.randint(2**31)))
        np.random.seed(own.randint(2**31))
        return np.ascontiguousarray(np.asarray(self.transform(rgb)).transpose(2, 0, 1)), label
