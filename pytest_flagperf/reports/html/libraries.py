"""The JavaScript libraries that the report carries in itself: BokehJS draws charts, DataTables sorts and filters.

Both are taken from the wheels of the extra ``html`` (bokeh, itables), whose Python is never imported.
"""

from __future__ import annotations

import base64
import gzip
import json
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path

from pytest_flagperf.errors import ConfigurationError


@dataclass(frozen=True)
class Library:
    """One library: the distribution it is from, the scripts to run in this order, and its licence's text."""

    name: str
    version: str
    scripts: tuple[str, ...]
    licence: str


_WHERE = {
    "bokeh": ("bokeh/server/static/js/bokeh.min.js", "bokeh/server/static/js/bokeh-api.min.js"),
    "itables": ("itables/html/dt_bundle.js",),
}


@cache
def bundled() -> dict[str, Library]:
    """The libraries by the name of their distribution. Raises ``ConfigurationError`` where one is not installed."""
    return {name: _load(name, files) for name, files in _WHERE.items()}


def packed(library: Library) -> str:
    """The scripts as the page holds them: JSON in gzip in base64, a third of their size; browsers unpack it."""
    return base64.b64encode(gzip.compress(json.dumps(library.scripts).encode(), mtime=0)).decode()


def _load(name: str, files: tuple[str, ...]) -> Library:
    try:
        found = metadata.distribution(name)
        scripts = tuple(Path(str(found.locate_file(file))).read_text(encoding="utf-8") for file in files)
    except (metadata.PackageNotFoundError, OSError) as error:
        raise ConfigurationError(
            f"the HTML report needs {name}, which is not installed as expected ({error}): "
            "pip install 'pytest-flagperf[html]'"
        ) from error
    return Library(name, found.version, scripts, _licence(found))


def _licence(found: metadata.Distribution) -> str:
    """The licence files of a distribution, and the list that a bundle of several libraries ends with."""
    paths = [path for path in found.files or () if path.name.upper().startswith("LICENSE")]
    return "\n\n".join(Path(str(path.locate())).read_text(encoding="utf-8") for path in paths[:1])


def notices(library: Library) -> str:
    """The licence, then the notices within the scripts: a bundle keeps those of its parts in ``/*!`` comments."""
    return "\n\n".join([library.licence, *(part for script in library.scripts for part in _notices(script))])


def _notices(script: str) -> list[str]:
    found = []
    end = 0
    while (start := script.find("/*!", end)) >= 0:
        stop = script.find("\n*/", start) if script.startswith("/*! Bundled license", start) else -1
        end = stop + 3 if stop >= 0 else script.find("*/", start) + 2
        found.append(script[start:end])
    return list(dict.fromkeys(found))
