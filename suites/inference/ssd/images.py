"""COCO's images and annotations, and synthetic images of the same shape."""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pytest_flagperf.errors import ConfigurationError

from ...training.resnet50.imagenet import DEVIATION
from ...training.resnet50.imagenet import MEAN


class Photos:
    """Photos by index, [N, 3, side, side] float32, whatever their aspect; decoded in threads when asked for."""

    def __init__(self, files: Sequence[Path], config: Any) -> None:
        self.files, self.side = files, config.image_size
        self.threads = ThreadPoolExecutor(max(1, config.decoder_processes))

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, indices: Sequence[int]) -> Any:
        pixels = np.stack(list(self.threads.map(self._decoded, (self.files[index] for index in indices))))
        mean, deviation = (np.float32(255) * np.array(one, np.float32) for one in (MEAN, DEVIATION))
        return np.ascontiguousarray(((pixels - mean) / deviation).transpose(0, 3, 1, 2))

    def _decoded(self, path: Path) -> Any:
        """One image [side, side, 3] uint8."""
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB").resize((self.side, self.side), Image.Resampling.BILINEAR))


class Coco(Photos):
    """The images that ``instances_val2017.json`` lists, in its order; ``annotations`` is its content."""

    def __init__(self, folder: Path, config: Any) -> None:
        listed = folder / "annotations" / "instances_val2017.json"
        self.annotations = json.loads(listed.read_text(encoding="utf-8"))
        self.images = self.annotations["images"]
        super().__init__([folder / "val2017" / one["file_name"] for one in self.images], config)


def training_photos(folder: Path, config: Any) -> Photos:
    """Those of ``train2017``, as many as are there. Raises ``ConfigurationError`` where there are none."""
    files = sorted((folder / "train2017").glob("*.jpg"))
    if not files:
        raise ConfigurationError(f"int8 is calibrated with training images: put some of COCO's into {folder}/train2017")
    return Photos(files, config)


class Synthetic:
    """Random images, made once; every call gives fresh copies. There is nothing to detect.

    They are fewer than COCO's: all answers are kept, and one has 3.3 MB.
    """

    SAMPLES = 512
    MADE = 64

    def __init__(self, config: Any, seed: int) -> None:
        shape = (self.MADE, config.channels, config.image_size, config.image_size)
        self.made = np.random.default_rng(seed).standard_normal(shape, np.float32)

    def __len__(self) -> int:
        return self.SAMPLES

    def __getitem__(self, indices: Sequence[int]) -> Any:
        return self.made[np.asarray(indices) % self.MADE]
