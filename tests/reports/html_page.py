"""The page of the HTML report as a browser without scripts reads it, for its tests."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from html.parser import HTMLParser
from pathlib import Path

from pytest_flagperf.reports import html


VOID = {"meta", "link", "input", "br", "wbr", "img", "hr"}


class Document(HTMLParser):
    """A page as a browser without scripts reads it: texts and elements, which have to be closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: Counter[str] = Counter()
        self.attributes: list[tuple[str, str, str]] = []
        self.texts: list[str] = []
        self.data: dict[str, str] = {}
        self._open: list[tuple[str, str]] = []
        self.feed(text)
        assert not self._open, f"never closed: {self._open}"

    def handle_starttag(self, tag, attrs):
        self.elements[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self._open.append((tag, dict(attrs).get("id") or ""))

    def handle_endtag(self, tag):
        assert self._open and self._open[-1][0] == tag, f"</{tag}> closes {self._open[-3:]}"
        self._open.pop()

    def handle_data(self, data):
        tag, name = self._open[-1] if self._open else ("", "")
        if tag == "script":
            self.data[name] = self.data.get(name, "") + data
        elif tag != "style":
            self.texts.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.texts))


def written(directories: Iterable[Path], tmp_path: Path, language: str = "both") -> Document:
    """The report of these sessions, read."""
    return Document(html.write(directories, tmp_path / "report.html", language).read_text(encoding="utf-8"))
