"""What is to be recognised: recordings as the network's input, and what was said in them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pytest_flagperf.errors import ConfigurationError
from pytest_flagperf.errors import DatasetError

from ...training.ctc_asr import features
from ...training.ctc_asr import prompts


class Prompts:
    """The prompts of the lite scale: log-mel features [N, 40, frames], with zeros behind what is shorter."""

    symbols: Sequence[str] = features.SYMBOLS

    def __init__(self, folder: Path, frames: int) -> None:
        self.frames = frames
        self.waveforms, self.transcripts = prompts.load(folder, "test")
        self.scored = [features.scored(features.log_mel(one)) for one in self.waveforms]

    def __len__(self) -> int:
        return len(self.waveforms)

    def inputs(self, indices: Sequence[int]) -> Any:
        """A batch; the features are made anew each time."""
        return features.padded([features.log_mel(self.waveforms[index]) for index in indices], self.frames)


class LibriSpeech:
    """Waveforms [N, samples] of 16 kHz with mean 0 and deviation 1, with zeros behind what is shorter.

    Every batch has the same shape, and no answer depends on what else is in the batch.
    """

    RATE = 16000
    # The network's outputs: vocab.json of wav2vec2-base-960h.
    symbols: Sequence[str] = ("", "", "", "", " ", *"ETAONIHSRDLUMWCFGYPBVK'XJQZ")
    # Kernel and stride of its convolutions over the waveform.
    CONVOLUTIONS = ((10, 5), (3, 2), (3, 2), (3, 2), (3, 2), (2, 2), (2, 2))

    def __init__(self, folder: Path, length: int) -> None:
        self.length = length
        self.files, self.transcripts = [], []
        for listed in sorted(folder.glob("test-clean/*/*/*.trans.txt")):
            for line in listed.read_text(encoding="ascii").splitlines():
                name, _, text = line.partition(" ")
                self.files.append(listed.with_name(f"{name}.flac"))
                self.transcripts.append(text)
        if not self.files:
            raise DatasetError(f"{folder} has no test-clean/SPEAKER/CHAPTER/*.trans.txt: unpack the archive again")
        there = sum(1 for _ in folder.glob("test-clean/*/*/*.flac"))
        if there != len(self.files):
            raise DatasetError(f"{folder}/test-clean has {there:,} recordings, {len(self.files):,} are transcribed")
        self.scored: list[int] = [0] * len(self.files)

    def __len__(self) -> int:
        return len(self.files)

    def inputs(self, indices: Sequence[int]) -> Any:
        """A batch, decoded from its files."""
        batch = np.zeros((len(indices), self.length), np.float32)
        for row, index in zip(batch, indices, strict=True):
            samples = self._decoded(self.files[index])
            row[: len(samples)] = normalized(samples)
            self.scored[index] = self._scored(len(samples))
        return batch

    def _scored(self, length: int) -> int:
        for kernel, stride in self.CONVOLUTIONS:
            length = (length - kernel) // stride + 1
        return length

    def _decoded(self, path: Path) -> Any:
        try:
            import soundfile
        except ImportError as error:
            raise ConfigurationError(
                "FLAC files are read by soundfile, not installed here: pip install 'pytest-flagperf[speech]'"
            ) from error
        try:
            samples, rate = soundfile.read(path, dtype="float32")
        except (OSError, soundfile.LibsndfileError) as error:
            raise DatasetError(f"{path} cannot be decoded: {error}; unpack the archive again") from error
        if rate != self.RATE or samples.ndim != 1 or len(samples) > self.length:
            raise DatasetError(
                f"{path} has {rate} Hz and the shape {samples.shape}; expected one channel of {self.RATE} Hz and at "
                f"most {self.length} samples"
            )
        return samples


def normalized(samples: Any) -> Any:
    """Mean 0 and deviation 1, as the network was trained."""
    return (samples - samples.mean()) / np.sqrt(samples.var() + 1e-7)


class Synthetic:
    """Noise of the right length. There is nothing to be right about."""

    transcripts: Sequence[str] = ()

    def __init__(self, config: Any, seed: int) -> None:
        random = np.random.default_rng(seed)
        shape = (features.BANDS, config.frames) if config.network == "recogniser" else (samples_of(config),)
        self.made = random.standard_normal((config.synthetic_samples, *shape), np.float32)

    def __len__(self) -> int:
        return len(self.made)

    def inputs(self, indices: Sequence[int]) -> Any:
        """A batch of copies."""
        return self.made[np.asarray(indices)]


def samples_of(config: Any) -> int:
    """Samples of a waveform of the full scale, all of which are padded to one length."""
    return round(config.seconds * LibriSpeech.RATE)
