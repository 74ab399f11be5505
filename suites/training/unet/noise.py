"""What a denoising step is about: latents, the noise that is mixed into them, and what conditions it; NumPy only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np


# Those of Stable Diffusion 1.x (Rombach et al. 2022): "scaled linear", of 1,000 steps.
STEPS = 1000
FIRST, LAST = 0.00085, 0.012
REMAINING = np.cumprod(1 - np.linspace(FIRST**0.5, LAST**0.5, STEPS) ** 2)
# Noise of the evaluation is drawn with this seed whatever that of a run is, so that every run predicts the same.
EVALUATION_SEED = 0
CLASSES = 10


def mixed(latents: Any, noise: Any, timesteps: Any) -> Any:
    """Latents [N, C, H, W] float32 after that many steps of adding noise (Ho et al. 2020, equation 4)."""
    remaining = REMAINING[timesteps].reshape(-1, 1, 1, 1)
    return (np.sqrt(remaining) * latents + np.sqrt(1 - remaining) * noise).astype(np.float32)


def evaluation(count: int, shape: tuple[int, ...]) -> tuple[Any, Any]:
    """Noise [count, *shape] float32 and timesteps [count] int64, which come from all of the range equally often."""
    random = np.random.RandomState(EVALUATION_SEED)
    noise = random.standard_normal((count, *shape)).astype(np.float32)
    return noise, random.permutation(np.arange(count) * STEPS // count).astype(np.int64)


def digits(folder: Path, split: str) -> tuple[Any, Any]:
    """Digits as latents [N, 4, 8, 8] float32 in -1..1, and which digit each is [N] int64.

    28x28 pixels are padded to 32x32 and averaged to 16x16, of which every 2x2 become the channels of one place: as
    many as Stable Diffusion's autoencoder gives.
    """
    pixels = np.load(folder / f"{split}_images.npy").astype(np.float32) / np.float32(127.5) - 1
    padded = np.pad(pixels, ((0, 0), (2, 2), (2, 2)), constant_values=-1)
    halved = padded.reshape(-1, 16, 2, 16, 2).mean((2, 4), dtype=np.float32)
    latents = halved.reshape(-1, 8, 2, 8, 2).transpose(0, 2, 4, 1, 3).reshape(-1, 4, 8, 8)
    return np.ascontiguousarray(latents), np.load(folder / f"{split}_labels.npy").astype(np.int64)


def states(tokens: int, width: int) -> Any:
    """What stands for the text "a two": states [CLASSES, tokens, width] float32, random and always the same."""
    return np.random.RandomState(0).standard_normal((CLASSES, tokens, width)).astype(np.float32)
