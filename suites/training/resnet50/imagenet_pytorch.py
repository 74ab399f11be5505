"""ImageNet for PyTorch: JPEG files decoded in processes of their own, ahead of the step that needs them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset

from .imagenet import DEVIATION
from .imagenet import MEAN
from .imagenet import listed


class ImageNetLoader:
    """Standard augmentation: a random crop of 8..100 % of the area, 3:4 to 4:3, and a flip; evaluated on the center."""

    def __init__(self, workload: Any) -> None:
        self.workload = workload
        self.files = {split: listed(workload.data.path, split) for split in ("train", "test")}
        self.mean = torch.tensor(MEAN, device=workload.device).mul(255).view(1, 3, 1, 1)
        self.deviation = torch.tensor(DEVIATION, device=workload.device).mul(255).view(1, 3, 1, 1)

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
            batch_size=workload.batch_size,
            sampler=order,
            num_workers=workload.config.decoder_processes,
            pin_memory=workload.device.type != "cpu",
            prefetch_factor=4 if workload.config.decoder_processes else None,
        )
        for images, labels in loader:
            images = images.to(workload.device, non_blocking=True)
            yield (images.float() - self.mean) / self.deviation, labels


class Decoded(Dataset[tuple[Tensor, int]]):
    """Decoded images [3, side, side] uint8 by index. The augmentation depends on seed, epoch and index alone."""

    def __init__(self, files: list[tuple[str, int]], side: int, train: bool, seed: list[int]) -> None:
        self.files, self.side, self.train, self.seed = files, side, train, seed

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        path, label = self.files[index]
        with Image.open(path) as image:
            rgb = image.convert("RGB")
        pixels = self._augmented(rgb, index) if self.train else self._center(rgb)
        return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1))), label

    def _augmented(self, image: Image.Image, index: int) -> Any:
        random = np.random.RandomState([*self.seed, index])
        cropped = image.resize((self.side, self.side), Image.Resampling.BILINEAR, box=random_box(image.size, random))
        pixels = np.asarray(cropped)
        return pixels[:, ::-1] if random.random_sample() < 0.5 else pixels

    def _center(self, image: Image.Image) -> Any:
        # The shorter side becomes 256/224 of the crop, as in He et al. 2015.
        scale = self.side * 256 / 224 / min(image.size)
        resized = image.resize(
            (max(self.side, round(image.width * scale)), max(self.side, round(image.height * scale))),
            Image.Resampling.BILINEAR,
        )
        left, top = (resized.width - self.side) // 2, (resized.height - self.side) // 2
        return np.asarray(resized.crop((left, top, left + self.side, top + self.side)))


def random_box(size: tuple[int, int], random: Any) -> tuple[float, float, float, float]:
    """A box (left, top, right, bottom) of 8..100 % of the area and an aspect of 3:4..4:3 (Szegedy et al. 2014)."""
    width, height = size
    for _ in range(10):
        area = width * height * random.uniform(0.08, 1.0)
        aspect = math.exp(random.uniform(math.log(3 / 4), math.log(4 / 3)))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            left, top = random.randint(0, width - w + 1), random.randint(0, height - h + 1)
            return (left, top, left + w, top + h)
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    return (left, top, left + side, top + side)
