"""``python -m pytest_flagperf.datasets prepare MODULE:FUNCTION DESTINATION SOURCE``: the child process of locate().

It alone imports numpy. SOURCE is JSON: ``{"origin", "package", "version", "files"}``. One line of JSON on
stdout says how it went.
"""

from __future__ import annotations

import argparse
import importlib
import json
import platform
import sys
from pathlib import Path

from pytest_flagperf.datasets.model import Source
from pytest_flagperf.datasets.sources import read_sources
from pytest_flagperf.errors import DatasetError


def main(arguments: list[str] | None = None) -> int:
    """Write the payload into an existing folder; 0 when done, 1 with the reason on stdout when not."""
    parser = argparse.ArgumentParser(prog="python -m pytest_flagperf.datasets", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    prepare = commands.add_parser("prepare", help="write the payload of a package dataset into a folder")
    prepare.add_argument("function", metavar="MODULE:FUNCTION")
    prepare.add_argument("destination", type=Path)
    prepare.add_argument("source", type=json.loads)
    options = parser.parse_args(arguments)
    try:
        _prepare(options.function, options.destination, options.source)
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
    module, _, name = function.partition(":")
    getattr(importlib.import_module(module), name)(read_sources(source, origin), destination)


def _versions() -> dict[str, str]:
    numpy = sys.modules.get("numpy")
    return {"python": platform.python_version(), **({"numpy": numpy.__version__} if numpy else {})}


def _report(status: int, **fields: object) -> int:
    print(json.dumps(fields), flush=True)
    return status


if __name__ == "__main__":
    sys.exit(main())
