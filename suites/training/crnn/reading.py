"""What the scores of a recogniser's columns say, and how right it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pytest_flagperf.errors import ConfigurationError


BLANK = 0


def texts(scores: Any, alphabet: str) -> list[str]:
    """Greedy CTC decoding of scores [N, columns, classes] (Graves et al. 2006): class ``i`` is ``alphabet[i - 1]``.

    The best class of each column; what repeats counts once, then the blanks go.
    """
    found = []
    for row in scores.argmax(axis=-1):
        kept = [one for one, last in zip(row, [BLANK, *row[:-1]], strict=True) if one not in (BLANK, last)]
        found.append("".join(alphabet[one - 1] for one in kept))
    return found


def errors(expected: Sequence[str], read: Sequence[str]) -> tuple[int, int]:
    """Characters that were substituted, left out or put in, and the characters of ``expected``, over all texts."""
    try:
        import jiwer
    except ImportError as error:
        raise ConfigurationError(
            "character error rates are jiwer's, not installed here: pip install 'pytest-flagperf[vision]'"
        ) from error
    found = jiwer.process_characters(list(expected), list(read))
    wrong = found.substitutions + found.deletions + found.insertions
    return wrong, found.hits + found.substitutions + found.deletions
