"""What the scores of a network that was trained with CTC say (Graves et al. 2006), and how much of it is wrong."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pytest_flagperf.errors import ConfigurationError


# The class that says that nothing is here.
BLANK = 0


def greedy(scores: Any, symbols: Sequence[str]) -> str:
    """The text in scores [columns, classes]: the best class of each column, repetitions once, without blanks.

    Class ``i`` stands for ``symbols[i]``, the blank for nothing.
    """
    best = scores.argmax(-1)
    changed = np.concatenate([[True], best[1:] != best[:-1]])
    return "".join(symbols[one] for one in best[changed])


def character_errors(expected: Sequence[str], found: Sequence[str]) -> tuple[int, int]:
    """Characters substituted, left out and put in over all texts, and the characters of ``expected``."""
    return _counted(_jiwer().process_characters(list(expected), list(found)))


def word_errors(expected: Sequence[str], found: Sequence[str]) -> tuple[int, int]:
    """The same of words."""
    return _counted(_jiwer().process_words(list(expected), list(found)))


def _counted(found: Any) -> tuple[int, int]:
    wrong = found.substitutions + found.deletions
    return wrong + found.insertions, found.hits + wrong


def _jiwer() -> Any:
    try:
        import jiwer
    except ImportError as error:
        raise ConfigurationError(
            "error rates are counted by jiwer, not installed here: pip install 'pytest-flagperf[models]'"
        ) from error
    return jiwer
