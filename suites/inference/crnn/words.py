"""Images of words in a folder, with a list of what is written on them."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pytest_flagperf.errors import DatasetError

from ..resnet50.images import Synthetic as RandomImages
from ..resnet50.images import decoded


class Words:
    """``<split>.tsv`` of a folder: on each line the path of an image below it, a TAB, and its word.

    Images [N, 1, height, width] float32 in -1..1, in gray and at the network's size whatever their aspect (Shi et al.
    2015, section 3.2); decoded in threads when they are asked for. Words are in lower case, without what is not in
    the ``alphabet``.
    """

    def __init__(self, folder: Path, split: str, config: Any, alphabet: str) -> None:
        self.folder, self.size = folder, (config.image_width, config.image_height)
        self.files: list[str] = []
        self.texts: list[str] = []
        for number, line in enumerate((folder / f"{split}.tsv").read_text(encoding="utf-8").splitlines(), 1):
            if not line.strip():
                continue
            name, tab, text = line.partition("\t")
            if not tab:
                raise DatasetError(f"{folder}/{split}.tsv, line {number}: no TAB between file and text: {line}")
            self.files.append(name)
            self.texts.append("".join(one for one in text.lower() if one in alphabet))
        self.threads = ThreadPoolExecutor(max(1, config.decoder_processes))

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, indices: Sequence[int]) -> Any:
        pixels = np.stack(list(self.threads.map(self._decoded, (self.files[index] for index in indices))))
        return (pixels / np.float32(127.5) - 1)[:, None]

    def _decoded(self, name: str) -> Any:
        """One image [height, width] uint8."""
        return np.asarray(decoded(self.folder / name, "L").resize(self.size, Image.Resampling.BILINEAR))


class Synthetic(RandomImages):
    """There is nothing to read."""

    SAMPLES = 3000

    def shape(self, config: Any) -> tuple[int, int, int]:
        return 1, config.image_height, config.image_width
