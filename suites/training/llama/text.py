"""Text as bytes: a token is a byte, so that there is nothing to learn or to ship for a vocabulary."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np


VOCABULARY = 256


def read(path: Path, split: str) -> Any:
    """The King James verses of ``split``, one a line, as bytes [N] uint8."""
    return np.frombuffer((path / f"{split}_kjv.txt").read_bytes(), np.uint8)


def windows(tokens: Any, length: int) -> Any:
    """All that fit without an overlap: a view [N, length]."""
    count = len(tokens) // length
    return tokens[: count * length].reshape(count, length)


def spread(rows: Any, count: int) -> Any:
    """``count`` of the rows, evenly spaced from the first to the last; all where there are no more."""
    if count >= len(rows):
        return rows
    return rows[np.linspace(0, len(rows) - 1, count).astype(int)]
