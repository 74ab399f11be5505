"""The lite data: prompts of a telephone exchange, spoken by one voice."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from .features import BANDS
from .features import letters
from .features import log_mel
from .features import padded
from .features import scored


# What training changes about a recording, drawn anew each time (Park et al. 2019, SpecAugment; Ko et al. 2015, speed).
SLOWEST, FASTEST = 0.88, 1.14
MASKED_BANDS, MASKED_FRAMES = 8, 15
NOISE = 0.1


def load(folder: Path, split: str) -> tuple[list[Any], list[str]]:
    """The waveforms int16 of a split, 8 kHz, and what is said in them."""
    waveforms = np.load(folder / f"{split}_waveforms.npy")
    ends = np.load(folder / f"{split}_ends.npy")
    return np.split(waveforms, ends[:-1]), (folder / f"{split}_transcripts.txt").read_text("ascii").splitlines()


class Prompts:
    """Batches of features with their transcripts."""

    def __init__(self, workload: Any) -> None:
        self.workload = workload
        self.loaded: dict[str, tuple[list[Any], list[str]]] = {}

    def samples(self, split: str) -> int:
        """Recordings in ``split``."""
        return len(np.load(self.workload.data.path / f"{split}_ends.npy"))

    def load(self, split: str) -> tuple[list[Any], list[str]]:
        """Features and transcripts, made when they are first needed: that is on the clock."""
        if split not in self.loaded:
            waveforms, transcripts = load(self.workload.data.path, split)
            self.loaded[split] = [log_mel(one) for one in waveforms], transcripts
        return self.loaded[split]

    def training(self) -> Iterator[tuple[Any, Any, Any, Any]]:
        """Features [N, BANDS, frames], scores of each [N], the letters of all transcripts, and how many each has [N].

        Recordings of about the same length come together, which leaves little of a batch empty.
        """
        features, transcripts = self.load("train")
        workload, size = self.workload, self.workload.batch_size
        order = workload.shuffled_shard(len(features), np)
        random = np.random.RandomState([workload.seed, workload.epoch, workload.ranks.rank])
        lengths = np.array([features[index].shape[1] for index in order]) * random.uniform(0.9, 1.1, len(order))
        batches = order[np.argsort(lengths)].reshape(-1, size)
        for chosen in random.permutation(batches):
            changed = [augmented(features[index], random) for index in chosen]
            targets = [letters(transcripts[index]) for index in chosen]
            counts = np.array([len(one) for one in targets])
            batch = padded(changed, max(one.shape[1] for one in changed))
            yield batch, np.array([scored(one) for one in changed]), np.concatenate(targets), counts

    def evaluation(self, split: str, frames: int) -> Iterator[tuple[Any, list[int], list[str]]]:
        """Features [N, BANDS, frames], scores of each and transcripts of this rank's share of a split."""
        features, transcripts = self.load(split)
        own = list(self.workload.ordered_shard(len(features)))
        for start in range(0, len(own), 20):
            chosen = own[start : start + 20]
            heard = [features[index] for index in chosen]
            yield padded(heard, frames), [scored(one) for one in heard], [transcripts[index] for index in chosen]


def augmented(features: Any, random: Any) -> Any:
    """Features spoken slower or faster, some of their bands and frames masked, with noise."""
    frames = features.shape[1]
    count = max(1, round(frames / random.uniform(SLOWEST, FASTEST)))
    places = np.linspace(0, frames - 1, count)
    left = places.astype(int)
    right, weight = np.minimum(left + 1, frames - 1), (places - left).astype(np.float32)
    changed = features[:, left] * (1 - weight) + features[:, right] * weight
    wide, long = random.randint(0, MASKED_BANDS), random.randint(0, max(1, min(MASKED_FRAMES, count // 6)))
    band, frame = random.randint(0, BANDS - wide), random.randint(0, count - long)
    changed[band : band + wide] = 0
    changed[:, frame : frame + long] = 0
    return changed + (NOISE * random.standard_normal(changed.shape)).astype(np.float32)
