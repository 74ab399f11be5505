"""How much of a transcript is wrong: character and word error rates, counted by jiwer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pytest_flagperf.errors import ConfigurationError


def character_errors(said: Sequence[str], heard: Sequence[str]) -> tuple[int, int]:
    """Characters substituted, deleted and inserted, and the characters that were said."""
    return _counted(_jiwer().process_characters(list(said), list(heard)))


def word_errors(said: Sequence[str], heard: Sequence[str]) -> tuple[int, int]:
    """The same of words."""
    return _counted(_jiwer().process_words(list(said), list(heard)))


def _counted(found: Any) -> tuple[int, int]:
    wrong = found.substitutions + found.deletions
    return wrong + found.insertions, found.hits + wrong


def _jiwer() -> Any:
    try:
        import jiwer
    except ImportError as error:
        raise ConfigurationError(
            "error rates are counted by jiwer, not installed here: pip install 'pytest-flagperf[speech]'"
        ) from error
    return jiwer
