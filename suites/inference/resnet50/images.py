"""Images by index as NumPy arrays: ImageNet's from JPEG files, and synthetic ones of the same shape."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pytest_flagperf.errors import DatasetError

from ...training.resnet50.imagenet import DEVIATION
from ...training.resnet50.imagenet import MEAN


class ImageNet:
    """The center of each image, as in He et al. 2015; decoded in threads when it is asked for."""

    def __init__(self, files: list[tuple[str, int]], config: Any) -> None:
        self.files, self.side = files, config.image_size
        self.labels = np.array([label for _, label in files])
        self.threads = ThreadPoolExecutor(max(1, config.decoder_processes))

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, indices: Any) -> Any:
        pixels = np.stack(list(self.threads.map(self._decoded, (self.files[index][0] for index in indices))))
        mean, deviation = (np.float32(255) * np.array(one, np.float32) for one in (MEAN, DEVIATION))
        return np.ascontiguousarray(((pixels - mean) / deviation).transpose(0, 3, 1, 2))

    def _decoded(self, path: str) -> Any:
        """One image [side, side, 3] uint8: the shorter side becomes 256/224 of the crop."""
        rgb = decoded(path, "RGB")
        scale = round(self.side * 256 / 224) / min(rgb.size)
        rgb = rgb.resize((round(rgb.width * scale), round(rgb.height * scale)), Image.Resampling.BILINEAR)
        left, top = (rgb.width - self.side) // 2, (rgb.height - self.side) // 2
        return np.asarray(rgb.crop((left, top, left + self.side, top + self.side)))


def decoded(path: str | Path, mode: str) -> Image.Image:
    """An image of a user's in one of Pillow's modes. Raises ``DatasetError`` that names a file that is none."""
    try:
        with Image.open(path) as image:
            return image.convert(mode)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        # What Pillow raises for files that are missing, cut short or damaged.
        raise DatasetError(f"image {path} cannot be read: {error}. Copy or unpack it again") from error


class Synthetic:
    """Random images, made once; every call gives fresh copies. There is nothing to be right about."""

    SAMPLES = 1024
    MADE = 256

    def __init__(self, config: Any, seed: int) -> None:
        shape = (self.MADE, *self.shape(config))
        self.made = np.random.default_rng(seed).standard_normal(shape, np.float32)

    def shape(self, config: Any) -> tuple[int, int, int]:
        """Of one image: channels, height, width."""
        return config.channels, config.image_size, config.image_size

    def __len__(self) -> int:
        return self.SAMPLES

    def __getitem__(self, indices: Any) -> Any:
        return self.made[np.asarray(indices) % self.MADE]
