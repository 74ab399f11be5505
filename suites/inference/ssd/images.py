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
from pytest_flagperf.errors import DatasetError

from ...training.resnet50.imagenet import DEVIATION
from ...training.resnet50.imagenet import MEAN
from ..resnet50.images import Synthetic as RandomImages
from ..resnet50.images import decoded


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
        return np.asarray(decoded(path, "RGB").resize((self.side, self.side), Image.Resampling.BILINEAR))


class Coco(Photos):
    """The images that ``instances_val2017.json`` lists, in its order; ``annotations`` is its content.

    Raises ``DatasetError`` where it cannot be read, or lists fewer or more images than there are.
    """

    def __init__(self, folder: Path, config: Any) -> None:
        listed = folder / "annotations" / "instances_val2017.json"
        try:
            self.annotations = json.loads(listed.read_text(encoding="utf-8"))
            self.images = self.annotations["images"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DatasetError(f"{listed} cannot be read as COCO's annotations: {error!r}. Unpack it again") from error
        there = sum(1 for _ in (folder / "val2017").glob("*.jpg"))
        if there != len(self.images):
            raise DatasetError(f"{listed} lists {len(self.images):,} images, {folder / 'val2017'} has {there:,}")
        super().__init__([folder / "val2017" / one["file_name"] for one in self.images], config)


def training_photos(folder: Path, config: Any) -> Photos:
    """Those of ``train2017``, as many as are there. Raises ``ConfigurationError`` where there are none."""
    files = sorted((folder / "train2017").glob("*.jpg"))
    if not files:
        raise ConfigurationError(f"int8 is calibrated with training images: put some of COCO's into {folder}/train2017")
    return Photos(files, config)


class Synthetic(RandomImages):
    """There is nothing to detect."""

    SAMPLES = 512
    MADE = 64
