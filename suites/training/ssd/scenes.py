"""The lite data: scenes of several real MNIST digits over clutter, and where each digit is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np


SIDE = 96
CLASSES = 10
# Heights of digits, in pixels; wider ones than WIDEST are left out.
SMALLEST, LARGEST, WIDEST = 14, 40, 44
MOST = 4
# Of the pixels of the scenes, in 0..1.
MEAN, DEVIATION = 0.25, 0.3
# A row or column is a digit's where a pixel is brighter than this, of 255.
INK = 60
# Fragments of other scans in the background, and the longest side of one.
FRAGMENTS, FRAGMENT = 6, 12


def scenes(folder: Any, split: str, count: int, seed: int) -> tuple[Any, list[Any]]:
    """``count`` scenes [N, 1, 96, 96] float32, normalized, and for each its boxes [n, 5] float32.

    A box is (left, top, right, bottom) in pixels and the class, from 0. A scene has one to four digits of 14 to 40
    pixels that do not overlap, from the scans of that split alone; behind them are a gradient and fragments of other
    scans of the split, too small to be read. The same scenes for the same seed.
    """
    images, labels = (np.load(folder / f"{split}_{what}.npy") for what in ("images", "labels"))
    digits = [_cut(image) for image in images]
    random = np.random.RandomState([seed, count])
    made = np.empty((count, SIDE, SIDE), np.float32)
    boxes = []
    for scene in made:
        scene[:] = _background(digits, random)
        found: list[tuple[int, ...]] = []
        for _ in range(random.randint(1, MOST + 1)):
            one = random.randint(len(digits))
            digit = _resized(digits[one], random.randint(SMALLEST, LARGEST + 1))
            place = _free(digit.shape, found, random)
            if place is None:
                continue
            left, top = place
            height, width = digit.shape
            area = scene[top : top + height, left : left + width]
            np.maximum(area, digit, out=area)
            found.append((left, top, left + width, top + height, int(labels[one])))
        boxes.append(np.array(found, np.float32).reshape(-1, 5))
    return ((made - np.float32(MEAN)) / np.float32(DEVIATION))[:, None], boxes


def _background(digits: list[Any], random: Any) -> Any:
    """A gradient in a random direction, and fragments of digits that are darker than a digit is."""
    slope = random.uniform(-0.3, 0.3, 2)
    ramp = np.linspace(-0.5, 0.5, SIDE)
    made = np.clip(random.uniform(0, 0.3) + slope[0] * ramp[:, None] + slope[1] * ramp, 0, 0.5).astype(np.float32)
    for _ in range(FRAGMENTS):
        digit = digits[random.randint(len(digits))]
        height, width = (min(side, random.randint(4, FRAGMENT + 1)) for side in digit.shape)
        row, column = random.randint(digit.shape[0] - height + 1), random.randint(digit.shape[1] - width + 1)
        top, left = random.randint(SIDE - height + 1), random.randint(SIDE - width + 1)
        place = made[top : top + height, left : left + width]
        fragment = digit[row : row + height, column : column + width] * np.float32(random.uniform(0.3, 0.7))
        np.maximum(place, fragment, out=place)
    return made


def _free(shape: tuple[int, int], taken: list[tuple[int, ...]], random: Any) -> tuple[int, int] | None:
    """Left and top where a digit covers no other one; ``None`` where ten tries find no such place."""
    height, width = shape
    if width > WIDEST:
        return None
    for left, top in _places(width, height, random):
        apart = (
            min(left + width, right) <= max(left, x) or min(top + height, bottom) <= max(top, y)
            for x, y, right, bottom, _ in taken
        )
        if all(apart):
            return left, top
    return None


def _places(width: int, height: int, random: Any) -> Iterator[tuple[int, int]]:
    for _ in range(10):
        yield random.randint(SIDE - width + 1), random.randint(SIDE - height + 1)


def _cut(scan: Any) -> Any:
    """A scan without the empty rows and columns around its digit, in 0..1."""
    bright = scan > INK
    rows, columns = np.nonzero(bright.any(axis=1))[0], np.nonzero(bright.any(axis=0))[0]
    return scan[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].astype(np.float32) / np.float32(255)


def _resized(image: Any, height: int) -> Any:
    """The image at that height and its own aspect, at least four pixels wide."""
    width = max(4, round(height * image.shape[1] / image.shape[0]))
    return _matrix(image.shape[0], height) @ image @ _matrix(image.shape[1], width).T


def _matrix(old: int, new: int) -> Any:
    """Linear interpolation of ``old`` pixels to ``new`` [new, old]; what is made smaller is averaged."""
    step = old / new
    centers = (np.arange(new)[:, None] + 0.5) * step - 0.5
    weights = np.maximum(0, 1 - np.abs(centers - np.arange(old)) / max(1, step))
    # Beside the first and the last pixel there is nothing: their own weight makes up for it.
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
