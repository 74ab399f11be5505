"""Markdown that keeps what it is given text: no markup, no mention, no link, no row of a table comes of it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from collections.abc import Sequence


# Everything else that is ASCII and no letter or digit becomes an entity, which Markdown takes for text.
_PLAIN = frozenset(" .,;()/%+=-")
_INSIDE_A_WORD = re.compile(r"(?<=[A-Za-z0-9])&#95;(?=[A-Za-z0-9])")


def escape(text: str) -> str:
    """The text for a place in running text or a cell; control characters and line ends become spaces."""
    found = "".join(_character(c) for c in text)
    # Within a word an underscore is no markup, and names are full of them.
    found = _INSIDE_A_WORD.sub("_", found)
    return " ".join(found.split()).replace("www.", "www&#46;")


def code(text: str) -> str:
    """The text as code: there GitHub makes neither mentions nor issue links nor emoji of it either."""
    return f"<code>{escape(text)}</code>" if text.strip() else ""


def table(header: Sequence[str], lines: Iterable[Sequence[str]], *, right: Iterable[int] = ()) -> str:
    """A table; the cells are Markdown already. Columns in ``right`` are flush right."""
    flush = set(right)
    rule = ["---:" if column in flush else "---" for column in range(len(header))]
    return "".join(row(line) for line in (header, rule, *lines))


def row(cells: Sequence[str]) -> str:
    """One line of a table."""
    return f"| {' | '.join(cells)} |\n"


def _character(character: str) -> str:
    if character.isascii():
        if character.isalnum() or character in _PLAIN:
            return character
        return f"&#{ord(character)};" if character.isprintable() else " "
    return character if character.isprintable() else " "
