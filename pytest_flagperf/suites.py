"""The standard cases of a directory of suites, for commands that ask about cases without running pytest."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytest_flagperf.words import KINDS


@dataclass(frozen=True)
class Found:
    """A test module and its ``CASE``; ``error`` says why a module has none to show."""

    path: Path
    case: Any = None
    error: str = ""


def bundled() -> Path:
    """The suites that come with the plugin: an installed package, or beside it in a clone."""
    spec = importlib.util.find_spec("flagperf_suites")
    if spec is not None and spec.submodule_search_locations:
        return Path(next(iter(spec.submodule_search_locations)))
    return Path(__file__).resolve().parent.parent / "suites"


def load(directory: Path) -> list[Found]:
    """Every ``CASE`` below ``directory``, in order of the paths. The modules are imported, as pytest would."""
    return [one for path in sorted(directory.rglob("test_*.py")) for one in _load(path)]


def cases(directory: Path) -> dict[tuple[str, str], Any]:
    """The cases below ``directory`` by kind and model."""
    return {(one.case.kind, one.case.model): one.case for one in load(directory) if one.case is not None}


def _load(path: Path) -> Iterator[Found]:
    name = "flagperf_case_" + "".join(c if c.isalnum() else "_" for c in str(path.resolve()))
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    written, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    # Data classes look their module up while they are made.
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        # Whatever a suite of somebody's raises is what the caller has to be told.
        yield Found(path, error=f"{type(error).__name__}: {error}")
        return
    finally:
        sys.dont_write_bytecode = written
        sys.modules.pop(name, None)
    case = getattr(module, "CASE", None)
    if getattr(case, "kind", None) in KINDS:
        yield Found(path, case)
