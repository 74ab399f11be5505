"""The lite data: lines of handwriting, each of real MNIST digits side by side."""

from __future__ import annotations

from typing import Any

import numpy as np


HEIGHT, WIDTH = 32, 128
LONGEST = 7
ALPHABET = "0123456789"
# What a class stands for; the first is CTC's blank.
SYMBOLS = ("", *ALPHABET)
# Of the pixels of the lines, in 0..1.
MEAN, DEVIATION = 0.2, 0.3
NOISE = 0.05
# A column is a digit's where a pixel is brighter than this, of 255.
INK = 50


def lines(folder: Any, split: str, count: int, seed: int) -> tuple[Any, list[str]]:
    """``count`` lines [N, 1, 32, 128] float32, normalized, and their 3 to 7 digits.

    They are composed of the scans of that split alone, at random heights and distances, some touching the next, under
    noise; the same ones for the same seed.
    """
    scans = [np.load(folder / f"{split}_{what}.npy") for what in ("images", "labels")]
    digits = [_cut(scan) for scan in scans[0]]
    random = np.random.RandomState([seed, count])
    made = np.zeros((count, HEIGHT, WIDTH), np.float32)
    texts = []
    for line in made:
        text, left = "", random.randint(0, 6)
        for _ in range(random.randint(3, LONGEST + 1)):
            one = random.randint(len(digits))
            digit = digits[one]
            height, width = digit.shape
            if left + width >= WIDTH:
                break
            top = random.randint(0, HEIGHT - height + 1)
            place = line[top : top + height, left : left + width]
            np.maximum(place, digit, out=place)
            text += ALPHABET[scans[1][one]]
            left = max(0, left + width + random.randint(-1, 5))
        texts.append(text)
    made += NOISE * random.standard_normal(made.shape)
    return ((made - np.float32(MEAN)) / np.float32(DEVIATION))[:, None], texts


def _cut(scan: Any) -> Any:
    """A scan without the empty columns beside its digit, in 0..1."""
    (columns,) = np.nonzero((scan > INK).any(axis=0))
    return scan[:, columns[0] : columns[-1] + 1].astype(np.float32) / np.float32(255)
