"""``asterisk_prompts``: spoken prompts of a telephone exchange, with what is said. Runs in the child process only."""

from __future__ import annotations

import gzip
import io
import re
import wave
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pytest_flagperf.datasets import debian
from pytest_flagperf.datasets.npy import write_npy
from pytest_flagperf.errors import DatasetError


RATE = 8000
SHORTEST, LONGEST = 0.3, 4.0
# Nobody speaks that fast: what is written is then more than what was recorded.
MOST_LETTERS_A_SECOND = 30
TEST = 80
TRANSCRIPTS = "usr/share/doc/asterisk-core-sounds-en/core-sounds-en.txt.gz"
RECORDINGS = "usr/share/asterisk/sounds/en_US_f_Allison/"

_LINE = re.compile(r"([\w/+-]+):\s*(.*)")
_DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def prepare(sources: Mapping[str, bytes], destination: Path) -> None:
    """Write of each split the waveforms int16 one after the other, where each ends int64 [N], and what is said.

    Of the prompts, by name, 80 drawn with seed 0 are for testing.
    """
    found = prompts(sources)
    # RandomState is frozen by NEP 19: the same permutation with every numpy.
    order = np.random.RandomState(0).permutation(len(found))
    for split, chosen in (("test", order[:TEST]), ("train", order[TEST:])):
        waveforms = [found[index][1] for index in chosen]
        write_npy(destination / f"{split}_waveforms.npy", np.concatenate(waveforms))
        write_npy(destination / f"{split}_ends.npy", np.cumsum([len(one) for one in waveforms]).astype("<i8"))
        lines = "".join(f"{found[index][0]}\n" for index in chosen)
        (destination / f"{split}_transcripts.txt").write_bytes(lines.encode("ascii"))


def prompts(sources: Mapping[str, bytes]) -> list[tuple[str, Any]]:
    """Transcript and waveform of every prompt that is speech and neither very short nor long, in the order of names.

    What is said in several prompts is kept once: nothing that is tested on was heard before.
    """
    contents = {path: content for deb in sources.values() for path, content in debian.files(deb)}
    if TRANSCRIPTS not in contents:
        raise DatasetError(f"none of {', '.join(sources)} holds {TRANSCRIPTS}")
    found: dict[str, Any] = {}
    for name, text in sorted(spoken(gzip.decompress(contents[TRANSCRIPTS]).decode("utf-8", "replace")).items()):
        recording = contents.get(f"{RECORDINGS}{name}.wav")
        if recording is None:
            continue
        waveform = samples(recording)
        seconds = len(waveform) / RATE
        if SHORTEST < seconds < LONGEST and len(text) < seconds * MOST_LETTERS_A_SECOND:
            found.setdefault(text, waveform)
    return list(found.items())


def spoken(document: str) -> dict[str, str]:
    """Name → what is said, of ``NAME: text`` a line; what is in brackets is a sound or a remark."""
    found = {}
    for line in document.splitlines():
        match = _LINE.fullmatch(line.strip())
        text = plain(match[2]) if match and not match[2].startswith(("[", "(")) else ""
        if match and text:
            found[match[1]] = text
    return found


def plain(text: str) -> str:
    """Lower-case letters, apostrophes and single spaces; empty where a number of several digits is in it.

    How such a number is read nothing tells.
    """
    text = re.sub(r"\[.*?\]|\(.*?\)", " ", text).lower().replace("&", " and ").replace("’", "'")
    text = re.sub(r"\b\d\b", lambda digit: _DIGITS[int(digit[0])], text)
    if re.search(r"\d", text):
        return ""
    return " ".join(re.sub(r"[^a-z' ]", " ", text).split())


def samples(recording: bytes) -> Any:
    """The samples of a WAV file of one channel, 16 bits and 8 kHz."""
    with wave.open(io.BytesIO(recording)) as file:
        kind = (file.getnchannels(), file.getsampwidth(), file.getframerate())
        if kind != (1, 2, RATE):
            raise DatasetError(f"a recording has (channels, bytes, Hz) {kind}, expected {(1, 2, RATE)}")
        return np.frombuffer(file.readframes(file.getnframes()), "<i2")
