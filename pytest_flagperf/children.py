"""Starting our own modules in processes of their own. Standard library only."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path


def command(module: str, *arguments: str) -> list[str]:
    """``python -m MODULE ARGUMENTS``, whatever lies in the directory that it is started in."""
    return [sys.executable, "-P", "-m", module, *arguments]


def environment(base: Mapping[str, str] = os.environ) -> dict[str, str]:
    """``base`` with this package importable wherever pytest found it, then what the user set.

    Paths are absolute: a child may start in another directory.
    """
    own = str(Path(__file__).resolve().parent.parent)
    users = [os.path.abspath(path) for path in base.get("PYTHONPATH", "").split(os.pathsep) if path]
    return {**base, "PYTHONPATH": os.pathsep.join([own, *users])}


def without_pytest(base: Mapping[str, str] = os.environ) -> dict[str, str]:
    """``base`` without what pytest and pytest-cov tell their own processes."""
    return {name: value for name, value in base.items() if not name.startswith(("PYTEST_", "COV_CORE_"))}
