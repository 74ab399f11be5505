"""A TOML file of a vendor's: what it holds, and the line where it could not be read."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec

from pytest_flagperf.importing import source
from pytest_flagperf.lint.positions import Positions
from pytest_flagperf.lint.problem import Problem


def read(path: Path, code: str) -> Positions | Problem:
    """The document with the lines of its keys, or the problem with this code that keeps it from being read."""
    try:
        text = source.text_of(path)
    except ValueError as error:
        return Problem(path, 0, code, str(error))
    try:
        document: Any = msgspec.toml.decode(text)
    except RecursionError:
        return Problem(path, 1, code, "is nested too deeply")
    except (ValueError, msgspec.DecodeError) as error:
        line = re.search(r"line (\d+)", str(error))
        last = text.rstrip().count("\n") + 1 if "end of document" in str(error) else 1
        return Problem(path, int(line[1]) if line else last, code, str(error))
    return Positions(text, document)
