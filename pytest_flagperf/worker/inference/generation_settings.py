"""What the role ``generation`` is asked to measure, from the configuration of the case."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pytest_flagperf.errors import ConfigurationError


@dataclass(frozen=True)
class Setting:
    """``batch_size`` requests at once, each a prompt of ``prompt_length`` tokens and ``new_tokens`` more."""

    prompt_length: int
    batch_size: int
    new_tokens: int


def settings(config: Mapping[str, Any]) -> list[Setting]:
    """All that the configuration asks for, the headline first."""
    lengths, sizes = whole_numbers(config, "prompt_lengths"), whole_numbers(config, "batch_sizes")
    return [
        Setting(length, size, new)
        for new, length, size in itertools.product(whole_numbers(config, "new_tokens", least=2), lengths, sizes)
    ]


def repeats(config: Mapping[str, Any]) -> int:
    """Batches of a setting that are measured."""
    return max(1, int(config.get("repeat", 1)))


def whole_numbers(config: Mapping[str, Any], key: str, least: int = 1) -> list[int]:
    """A list of numbers of the configuration. Raises ``ConfigurationError`` for anything else, and for none."""
    given = config.get(key)
    numbers = list(dict.fromkeys(given)) if isinstance(given, (list, tuple)) else []
    if numbers and all(isinstance(one, int) and not isinstance(one, bool) and one >= least for one in numbers):
        return numbers
    raise ConfigurationError(f"{key} is {given!r}: a list of whole numbers of {least} or more is wanted")
