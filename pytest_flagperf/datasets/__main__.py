"""``python -m pytest_flagperf.datasets COMMAND MODULE:FUNCTION DESTINATION SOURCE``: the child process of locate().

It alone imports numpy. SOURCE is JSON: for ``prepare`` of a package, ``{"origin", "package", "version", "files"}``; for
``prepare-user``, ``{"origin", "splits", "parent"}``. Lines of JSON on stdout: ``{"say"}`` how far it is, the last one
how it went.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pytest_flagperf.datasets.model import Source
from pytest_flagperf.datasets.sources import read_sources
from pytest_flagperf.errors import DatasetError
from pytest_flagperf.launch.processes import die_with_parent


def main(arguments: list[str] | None = None) -> int:
    """Write the payload into an existing folder; 0 when done, 1 with the reason on stdout when not."""
    parser = argparse.ArgumentParser(prog="python -m pytest_flagperf.datasets", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, call in (("prepare", _prepare), ("prepare-user", _prepare_user)):
        command = commands.add_parser(name, help="write a dataset's payload into a folder")
        command.add_argument("function", metavar="MODULE:FUNCTION")
        command.add_argument("destination", type=Path)
        command.add_argument("source", type=json.loads)
        command.set_defaults(call=call)
    options = parser.parse_args(arguments)
    try:
        options.call(options.function, options.destination, options.source)
    except OSError as error:
        return _report(1, errno=error.errno, error=str(error))
    except DatasetError as error:
        return _report(1, error=str(error))
    except ImportError as error:
        return _report(1, error=f"{error}; pip install 'pytest-flagperf[datasets]'")
    return _report(0, versions=_versions())


def _prepare(function: str, destination: Path, described: dict[str, object]) -> None:
    origin = Path(str(described.pop("origin")))
    source = Source(**described)  # type: ignore[arg-type]  # JSON of the parent, the same class
    _function(function)(read_sources(source, origin), destination)


def _prepare_user(function: str, destination: Path, described: dict[str, Any]) -> None:
    # Minutes of all cores, which nobody would read.
    die_with_parent()
    if os.getppid() != described["parent"]:
        raise DatasetError("the process that wanted it is gone")
    _function(function)(Path(described["origin"]), destination, described["splits"], _say)


def _function(path: str) -> Callable[..., None]:
    module, _, name = path.partition(":")
    found: Callable[..., None] = getattr(importlib.import_module(module), name)
    return found


def _say(line: str) -> None:
    print(json.dumps({"say": line}), flush=True)


def _versions() -> dict[str, str]:
    numpy = sys.modules.get("numpy")
    return {"python": platform.python_version(), **({"numpy": numpy.__version__} if numpy else {})}


def _report(status: int, **fields: object) -> int:
    print(json.dumps(fields), flush=True)
    return status


if __name__ == "__main__":
    sys.exit(main())
