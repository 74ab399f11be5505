"""What a result rests on: the digest of the code and configuration that made it, and the software it ran with.

Two results are of the same thing where their digests are equal. Versions of frameworks are no part of it: a new one
that makes a case slower is a regression to be seen, and no other case.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import platform
from collections.abc import Mapping
from collections.abc import Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pytest_flagperf import __version__
from pytest_flagperf import open_division
from pytest_flagperf import perflog
from pytest_flagperf.case import FRAMEWORK_MODULES
from pytest_flagperf.case import ResolvedCase
from pytest_flagperf.errors import ConfigurationError
from pytest_flagperf.operators.case import ResolvedOperator
from pytest_flagperf.operators.problems import to_json
from pytest_flagperf.session import Session


# Packages that a framework's module comes in; the first is what its version is recorded under.
_PACKAGES = {"torch": ("torch",), "paddle": ("paddlepaddle", "paddlepaddle-gpu"), "mindspore": ("mindspore",)}
OURS = "pytest-flagperf"
# How the message begins that says it; ``flagperf verify`` knows such a result by it.
CODE_CHANGED = "the workload's code changed since the case began"
# A rank tells its versions before it trains: after so many events there is nothing to look for.
_EARLY = 200


def digest(case: ResolvedCase) -> str:
    """Of the workload's files, the effective configuration, the targets and the plugin; empty without :func:`files`."""
    found = files(case)
    if not found:
        return ""
    folder, suite = case.workload_directory, case.directory
    return _sha256(
        {
            "files": {_name(path, folder, suite): content for path, content in found.items()},
            "workload": case.workload,
            "configuration": case.config,
            "targets": [[target.metric, target.bound, target.direction] for target in case.targets],
            "selection": case.selection.id,
            "role": case.role,
            **({"weights": case.scale.weights} if case.case.kind == "inference" else {}),
            OURS: __version__,
        }
    )


def of_operator(one: ResolvedOperator, request: Mapping[str, Any]) -> str:
    """Of the problem, of how it is measured, and of the plugin, which has the kernels."""
    return _sha256({"problem": to_json(one.problem), "request": dict(request), "id": one.id, OURS: __version__})


def stack(session: Session, framework: str, rounds: Sequence[Path] = ()) -> dict[str, str]:
    """Versions of the framework, of Python and of the plugin that a result depends on; what is not known is absent.

    What the ranks of ``rounds`` recorded counts. Without it, what is installed here, unless they run elsewhere.
    """
    found = recorded(rounds)
    if not found and session.options.container is None and framework not in session.options.pythons:
        found = _named(_installed(framework))
    return dict(sorted({**found, OURS: __version__}.items()))


def recorded(rounds: Sequence[Path]) -> dict[str, str]:
    """The versions that the ranks of a case recorded; empty where none did."""
    return _named(next(filter(None, map(_recorded, rounds)), {}))


def _named(found: Mapping[str, str]) -> dict[str, str]:
    """By the names of packages."""
    return {_PACKAGES.get(name, (name,))[0]: text for name, text in sorted(found.items())}


@cache
def _installed(framework: str) -> dict[str, str]:
    module = FRAMEWORK_MODULES[framework]
    for package in _PACKAGES[module]:
        try:
            return {module: version(package), "python": platform.python_version()}
        except PackageNotFoundError:
            continue
    return {}


def _recorded(directory: Path) -> dict[str, str]:
    """What the first rank of a round wrote into its events."""
    for path in sorted(directory.glob("*/rank0.events.jsonl"))[:1]:
        with open(path, encoding="utf-8", errors="replace") as lines:
            for event in perflog.parse_lines(itertools.islice(lines, _EARLY)):
                versions = event.value.get("versions")
                if event.name == perflog.INIT_END and isinstance(versions, dict):
                    return {str(name): str(text) for name, text in versions.items()}
    return {}


def files(case: ResolvedCase) -> dict[Path, str]:
    """The digest of every module of suite and vendor that the workload reaches; none of a replayed case.

    Nobody knows what code a recorded run had, and a workload that is not there has none: its rank says so.
    """
    if case.recorded is not None:
        return {}
    folder, suite = case.workload_directory, case.directory
    start = folder / f"{case.workload.partition(':')[0].replace('.', '/')}.py"
    try:
        paths, _ = open_division.reached(start, folder, suite)
        return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(paths)}
    except (ConfigurationError, OSError):
        return {}


def _name(path: Path, folder: Path, suite: Path) -> str:
    """Where a module is, in words that are the same on every machine."""
    base = folder if path.is_relative_to(folder) else suite
    if not path.is_relative_to(base):  # another suite, which one of inference may take its network from
        return f"suite/{os.path.relpath(path, base)}"
    return f"{'workload' if base == folder else 'suite'}/{path.relative_to(base)}"


def _sha256(document: Mapping[str, Any]) -> str:
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()
