"""Baseline files as TOML: sorted, one session a line, so that a change of the file reads as what changed.

The standard library reads TOML and does not write it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from collections.abc import Mapping
from typing import Any


_BARE = re.compile(r"[A-Za-z0-9_-]+")


def text(document: Mapping[str, Any]) -> str:
    """The document as TOML. Mappings become tables, lists of mappings arrays of tables; ``None`` is left out."""
    return "\n".join(_table(document, ())).strip("\n") + "\n"


def _table(table: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[str]:
    """A table's own values first, as TOML wants it, then the tables in it."""
    for key, value in table.items():
        if value is not None and not _is_table(value) and not _are_tables(value):
            yield f"{_key(key)} = {_value(value)}"
    for key, value in table.items():
        inside = (*path, key)
        name = ".".join(map(_key, inside))
        if _is_table(value):
            own = [one for one in value.values() if not _is_table(one) and not _are_tables(one)]
            yield from ["", f"[{name}]"] if own else []
            yield from _table(value, inside)
        elif _are_tables(value):
            for one in value:
                yield from ["", f"[[{name}]]"]
                yield from _table(one, inside)


def _is_table(value: Any) -> bool:
    return isinstance(value, Mapping) and bool(value)


def _are_tables(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(one, Mapping) for one in value)


def _key(key: str) -> str:
    return key if _BARE.fullmatch(key) else _string(key)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, str):
        return _string(value)
    if isinstance(value, Mapping):
        inner = ", ".join(f"{_key(key)} = {_value(one)}" for key, one in value.items() if one is not None)
        return f"{{ {inner} }}" if inner else "{}"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(_value(one) for one in value if one is not None)}]"
    raise TypeError(f"{value!r} is not written as TOML")


def _string(content: str) -> str:
    # JSON escapes as TOML does, but for the one control character that only TOML forbids.
    return json.dumps(content, ensure_ascii=False).replace("\x7f", "\\u007f")
