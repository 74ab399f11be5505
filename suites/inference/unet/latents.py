"""What the network is given: latents with noise, timesteps, and the states of a text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pytest_flagperf.errors import DatasetError

from ...training.unet import noise


@dataclass(frozen=True)
class Steps:
    """Steps of denoising: ``latents`` and ``noise`` [N, C, H, W], ``timesteps`` [N], ``states`` [N, tokens, D]."""

    latents: Any
    noise: Any
    timesteps: Any
    states: Any

    def __len__(self) -> int:
        return len(self.latents)

    def inputs(self, rows: Any) -> tuple[Any, Any, Any]:
        """The network's arguments for some of the steps: fresh arrays."""
        noisy = noise.mixed(self.latents[rows], self.noise[rows], self.timesteps[rows])
        return noisy, self.timesteps[rows], np.asarray(self.states[rows], np.float32)

    def error(self, predicted: Sequence[Any]) -> float:
        """Mean squared error of the noise predicted for all steps in order, batch by batch; 1 of predicting nothing."""
        errors, first = 0.0, 0
        for one in predicted:
            errors += float(np.square(one - self.noise[first : first + len(one)], dtype=np.float64).sum())
            first += len(one)
        return errors / self.noise.size


def of_digits(folder: Path, split: str, config: Any) -> Steps:
    """A step for every digit."""
    latents, classes = noise.digits(folder, split)
    states = noise.states(config.tokens, config.text_width)[classes]
    return Steps(latents, *noise.evaluation(len(latents), latents.shape[1:]), states)


def of_user(folder: Path, config: Any) -> Steps:
    """A step for every image of the user's, whose latents and text are on disk. Raises ``DatasetError``."""
    expected = {
        "latents.npy": (config.latent_channels, config.latent_size, config.latent_size),
        "text_states.npy": (config.tokens, config.text_width),
    }
    found = {}
    for name, shape in expected.items():
        try:
            found[name] = np.load(folder / name, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise DatasetError(f"{folder / name} is no array: {error}. Save it with numpy.save") from error
        if found[name].shape[1:] != shape:
            raise DatasetError(f"{folder / name} has the shape {found[name].shape}, expected (N, {str(shape)[1:]}")
    latents, states = found.values()
    if len(latents) != len(states):
        raise DatasetError(f"{folder} has {len(latents)} latents and {len(states)} texts: one of each an image")
    return Steps(latents, *noise.evaluation(len(latents), latents.shape[1:]), states)


def synthetic(config: Any, seed: int) -> Steps:
    """Random ones of the right shape. There is nothing to be right about."""
    random = np.random.default_rng(seed)
    count, side = config.synthetic_samples, config.latent_size
    latents = random.standard_normal((count, config.latent_channels, side, side), np.float32)
    states = random.standard_normal((count, config.tokens, config.text_width), np.float32)
    return Steps(latents, *noise.evaluation(count, latents.shape[1:]), states)
