"""Log-mel features of a waveform, and the letters that are written for it; NumPy only."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np

from pytest_flagperf.worker.ctc import greedy


# 25 ms every 10 ms, of recordings with 8 kHz.
RATE = 8000
WINDOW, HOP, SPECTRUM = 200, 80, 256
BANDS = 40
# The network gives scores for every third frame, 30 ms.
STRIDE = 3
LOWEST, HIGHEST = 60.0, 3900.0
# What an output of the network stands for; the first says that there is no letter here (Graves et al. 2006: blank).
SYMBOLS = ("", *" 'abcdefghijklmnopqrstuvwxyz")


def log_mel(waveform: Any) -> Any:
    """Features [BANDS, frames] float32 of samples int16: mean 0 and deviation 1 over the recording."""
    samples = np.asarray(waveform, np.float32) / np.float32(32768)
    samples = np.pad(samples, (0, max(0, WINDOW - len(samples))))
    frames = np.lib.stride_tricks.sliding_window_view(samples, WINDOW)[::HOP] * np.hanning(WINDOW).astype(np.float32)
    power = np.abs(np.fft.rfft(frames, SPECTRUM)) ** 2
    bands = np.log(power @ filters() + 1e-6).T
    return ((bands - bands.mean()) / (bands.std() + 1e-4)).astype(np.float32)


@cache
def filters() -> Any:
    """Triangles [SPECTRUM / 2 + 1, BANDS] that overlap by half, evenly spaced in mel: 2595 log10(1 + f / 700)."""
    lowest, highest = (2595 * np.log10(1 + frequency / 700) for frequency in (LOWEST, HIGHEST))
    corners = 700 * (10 ** (np.linspace(lowest, highest, BANDS + 2) / 2595) - 1)
    frequencies = np.linspace(0, RATE / 2, SPECTRUM // 2 + 1)[:, None]
    left, centre, right = corners[:-2], corners[1:-1], corners[2:]
    rising, falling = (frequencies - left) / (centre - left), (right - frequencies) / (right - centre)
    return np.maximum(0, np.minimum(rising, falling))


def padded(features: Sequence[Any], frames: int) -> Any:
    """A batch [N, BANDS, frames] float32 with zeros behind what is shorter."""
    batch = np.zeros((len(features), BANDS, frames), np.float32)
    for row, one in zip(batch, features, strict=True):
        row[:, : one.shape[1]] = one
    return batch


def scored(features: Any) -> int:
    """How many of a network's scores are of a recording's features [BANDS, frames]; behind them is padding."""
    return -(-features.shape[1] // STRIDE)


def letters(text: str) -> list[int]:
    """The network's outputs that stand for the letters of a transcript."""
    return [SYMBOLS.index(letter) for letter in text]


def decoded(scores: Any, symbols: Sequence[str] = SYMBOLS) -> str:
    """What scores [frames, symbols] say, greedily, with one space between words."""
    return " ".join(greedy(scores, symbols).split())
