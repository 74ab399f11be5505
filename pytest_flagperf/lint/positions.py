"""Where the keys of a TOML text stand, which readers of TOML do not tell, and which of them a message is about."""

from __future__ import annotations

import contextlib
import re
import tomllib
from collections.abc import Iterator
from typing import Any


# Entries of arrays count from 1, as in messages: ("output", "smi", "layouts", 1, "device").
Key = tuple[str | int, ...]

_TOKEN = re.compile(
    r"""
    (?P<space>[ \t\r]+|\#[^\n]*)
  | (?P<newline>\n)
  | (?P<text>\"{3}(?:[^\\]|\\.)*?\"{3,5}|'{3}.*?'{3,5}|"(?:[^"\\\n]|\\.)*"|'[^'\n]*')
  | (?P<mark>[\[\]{}=,.])
  | (?P<word>[^\s\[\]{}=,."'\#]+)
    """,
    re.VERBOSE | re.DOTALL,
)
_STEP = re.compile(r"\.([\w-]+)|\[(\d+|\.\.\.)\]")
_KINDS = {"str": str, "int": int, "float": float, "bool": bool, "array": list, "object": dict}


class Positions:
    """The lines of the keys of a text that was decoded to ``document``."""

    def __init__(self, text: str, document: Any) -> None:
        self.document = document
        self.lines: dict[Key, int] = {(): 1}
        # Where it is nested too deeply, the keys before that are known.
        with contextlib.suppress(RecursionError):
            _Scanner(text, self.lines).document()

    def line(self, key: Key) -> int:
        """The line of a key, else of the table it would be in."""
        while key not in self.lines:
            key = key[:-1]
        return self.lines[key]

    def named(self, message: str) -> int:
        """The line that a message is about: it begins with a key, and may name one inside it."""
        key, rest = self._beginning(message)
        rest = rest.partition("; known: ")[0]
        at = re.search(r"at `\$([^`]*)`", rest)
        if at:
            key = self._followed(key, at[1], rest)
        words = re.findall(r"[`'\"]([^`'\"$]+)[`'\"]", rest)
        first = re.match(r": ([\w.-]+)", rest)
        # A key that is not there: what else the message says is about what it should be.
        further = [] if rest.startswith(".") else re.findall(r"[\w-]+", rest)
        inside = [*([first[1]] if first else []), *words, *further]
        return self.lines[next((found for word in inside if (found := self._child(key, word))), key)]

    def _beginning(self, message: str) -> tuple[Key, str]:
        """The longest key that the message begins with, and the rest of it."""
        best: tuple[str, Key] = ("", ())
        for key in self.lines:
            text = shown(key)
            if len(text) > len(best[0]) and re.match(rf"{re.escape(text)}(?![\w-])", message):
                best = (text, key)
        return best[1], message[len(best[0]) :]

    def _followed(self, key: Key, path: str, message: str) -> Key:
        """The key at msgspec's path, which counts from 0 and writes ``[...]`` for any key of a table."""
        got = re.search(r"got `(\w+)`", message)
        kind = _KINDS.get(got[1]) if got else None
        for name, place in _STEP.findall(path):
            if place == "...":
                alike = [one for one in self._children(key) if kind and type(self._value(one)) is kind]
                step: Key = alike[0] if alike else key
            else:
                step = (*key, name or int(place) + 1)
            if step not in self.lines:
                break
            key = step
        return key

    def _child(self, key: Key, word: str) -> Key | None:
        """The key ``word`` inside ``key``, or the entry of that array with this value."""
        if (*key, word) in self.lines:
            return (*key, word)
        return next((one for one in self._children(key) if isinstance(one[-1], int) and self._value(one) == word), None)

    def _children(self, key: Key) -> Iterator[Key]:
        return (one for one in self.lines if one and one[:-1] == key)

    def _value(self, key: Key) -> Any:
        value = self.document
        for step in key:
            value = value[step - 1] if isinstance(step, int) else value[step]
        return value


def shown(key: Key) -> str:
    """A key as messages write it: ``output.smi.layouts 1.device``."""
    return "".join(f" {step}" if isinstance(step, int) else f".{step}" for step in key).removeprefix(".")


class _Scanner:
    """One pass over a text that a reader of TOML accepted."""

    def __init__(self, text: str, lines: dict[Key, int]) -> None:
        self.lines = lines
        self.counts: dict[Key, int] = {}
        self.tokens: list[tuple[str, str, int]] = []
        self.place = 0
        line = 1
        for match in _TOKEN.finditer(text):
            if match.lastgroup != "space":
                self.tokens.append((str(match.lastgroup), match[0], line))
            line += match[0].count("\n")
        self.tokens.append(("end", "", line))

    def document(self) -> None:
        base: Key = ()
        while self.kind != "end":
            if self.kind == "newline":
                self.place += 1
            elif self.is_mark("["):
                base = self.header()
            else:
                self.pair(base)

    @property
    def kind(self) -> str:
        return self.tokens[self.place][0]

    def is_mark(self, marks: str) -> bool:
        kind, text, _ = self.tokens[self.place]
        return kind == "end" or (kind == "mark" and text in marks)

    def step(self) -> str:
        """The text of this token; the next is the current one from then on, up to the end."""
        text = self.tokens[self.place][1]
        self.place = min(self.place + 1, len(self.tokens) - 1)
        return text

    def key(self) -> list[str]:
        parts = []
        while self.kind in ("word", "text"):
            kind, text = self.kind, self.step()
            parts.append(text if kind == "word" else tomllib.loads(f"key = {text}")["key"])
            if self.kind == "mark" and self.is_mark("."):
                self.step()
        return parts

    def header(self) -> Key:
        line = self.tokens[self.place][2]
        brackets = 0
        while self.kind == "mark" and self.is_mark("["):
            self.step()
            brackets += 1
        *outer, last = self.key() or [""]
        path: Key = ()
        for part in outer:
            path = (*path, part)
            self.lines.setdefault(path, line)
            path = (*path, self.counts[path]) if path in self.counts else path
        path = (*path, last)
        if brackets > 1:
            self.lines.setdefault(path, line)
            self.counts[path] = self.counts.get(path, 0) + 1
            path = (*path, self.counts[path])
        self.lines[path] = line
        while self.kind not in ("newline", "end"):
            self.step()
        return path

    def pair(self, path: Key) -> None:
        line = self.tokens[self.place][2]
        for part in self.key():
            path = (*path, part)
            self.lines.setdefault(path, line)
        self.step()
        self.value(path)

    def value(self, path: Key) -> None:
        if self.kind == "mark" and self.is_mark("["):
            self.array(path)
        elif self.kind == "mark" and self.is_mark("{"):
            self.step()
            while not self.is_mark("}"):
                if self.kind == "newline" or self.is_mark(","):
                    self.step()
                else:
                    self.pair(path)
            self.step()
        else:
            while self.kind != "newline" and not self.is_mark(",]}"):
                self.step()

    def array(self, path: Key) -> None:
        self.step()
        number = 1
        while not self.is_mark("]"):
            if self.kind == "newline":
                self.step()
            elif self.is_mark(","):
                self.step()
                number += 1
            else:
                self.lines[*path, number] = self.tokens[self.place][2]
                self.value((*path, number))
        self.step()
