"""What the report says, in English and in Chinese: ``texts.toml``, one table for each text."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path

import msgspec

from pytest_flagperf.errors import ConfigurationError


LANGUAGES = ("en", "zh")


class Text(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One text in each language; ``{name}`` stands for what is put in."""

    en: str
    zh: str


class Word(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A verdict in each language, and its look: ``tone`` is good, bad, doubtful or plain; ``sign`` goes with it."""

    en: str
    zh: str
    tone: str
    sign: str


class Catalogue(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All texts by their key, and all verdicts by their word."""

    text: dict[str, Text]
    verdict: dict[str, Word]


@cache
def catalogue() -> Catalogue:
    """The catalogue that comes with the plugin."""
    path = Path(__file__).with_name("texts.toml")
    try:
        return msgspec.toml.decode(path.read_bytes(), type=Catalogue)
    except (OSError, UnicodeDecodeError, msgspec.DecodeError) as error:
        raise ConfigurationError(f"{path}: {error}. Install pytest-flagperf again") from error


def say(key: str, language: str) -> str:
    """The text in a language. Raises ``KeyError`` for one that is not in the catalogue."""
    return str(getattr(catalogue().text[key], language))


def word(verdict: str) -> Word:
    """How a verdict is said and shown; one that a later version writes is shown as it is."""
    return catalogue().verdict.get(verdict) or Word(verdict, verdict, "plain", "?")


def for_page() -> Mapping[str, Mapping[str, str]]:
    """Key → language → text, verdicts as ``verdict.<word>``: what the page switches its language with."""
    texts = {
        key: {language: getattr(text, language) for language in LANGUAGES} for key, text in catalogue().text.items()
    }
    words = {
        f"verdict.{name}": {language: getattr(one, language) for language in LANGUAGES}
        for name, one in catalogue().verdict.items()
    }
    return {**texts, **words}
