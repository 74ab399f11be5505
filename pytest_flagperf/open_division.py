"""Code of a vendor's own in the place of a case's workload, and all that a reviewer has to read of it."""

from __future__ import annotations

import ast
import difflib
import sys
from collections.abc import Iterator
from pathlib import Path

from pytest_flagperf.case import Replacement
from pytest_flagperf.errors import ConfigurationError


def replacement(model: str, standard: str, suite: Path, workload: str, folder: Path) -> Replacement:
    """The vendor's ``workload`` for ``model``, with what differs from the ``standard`` one of the ``suite``.

    The diff holds the module and every module of the vendor's ``folder`` that it imports, and names what it imports
    from elsewhere. Raises ``ConfigurationError`` for a file that cannot be read.
    """
    module = workload.partition(":")[0]
    own = folder / f"{module}.py"
    was = suite / f"{standard.partition(':')[0].replace('.', '/')}.py"
    parts = [_diff(_lines(was), _lines(own), f"{model}/{was.name}", f"{folder.name}/{own.name}")]
    helpers, outside = _imported(own, folder, suite)
    for helper in helpers:
        name = helper.relative_to(folder)
        # One that is called as a module of the suite is taken in its place, by the suite's own modules too.
        shadowed = suite / name
        before, old = (_lines(shadowed), f"{model}/{name}") if shadowed.is_file() else ([], "/dev/null")
        parts.append(_diff(before, _lines(helper), old, f"{folder.name}/{name}"))
    if outside:
        parts.append(f"# It imports from outside this folder and the suite: {', '.join(outside)}\n")
    return Replacement(workload, folder.resolve(), "".join(parts))


def _diff(before: list[str], after: list[str], old: str, new: str) -> str:
    return "".join(difflib.unified_diff(before, after, old, new))


def _lines(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
    except OSError as error:
        raise ConfigurationError(f"{path}: {error}") from error
    if lines and not lines[-1].endswith("\n"):
        lines[-1] += "\n"
    return lines


def _imported(start: Path, folder: Path, suite: Path) -> tuple[list[Path], list[str]]:
    """The modules of ``folder`` that ``start`` imports, over all steps, and the names of what is imported elsewhere."""
    seen, outside = reached(start, folder, suite)
    own = sorted(path for path in seen - {start} if path.is_relative_to(folder))
    return own, sorted(outside - set(sys.stdlib_module_names) - {"pytest_flagperf"})


def reached(start: Path, folder: Path, suite: Path) -> tuple[set[Path], set[str]]:
    """``start`` and every module of ``folder`` and ``suite`` it imports, over all steps; the names of other imports.

    As in the rank, a name is looked for in ``folder`` first, whoever imports it: a module of the suite may get one of
    the vendor's. A suite of inference may take modules of another suite, which lies beside it.
    """
    seen, waiting = {start}, [start]
    outside: set[str] = set()
    while waiting:
        path = waiting.pop()
        inside = path.is_relative_to(folder) or path.is_relative_to(suite)
        for name, level in _names(path):
            if level == 1 and inside:
                found = _module(folder, name) or _module(suite, name)
            else:
                found = _module(path.parents[level - 1], name) if 0 < level <= len(path.parents) else None
            if found is not None and found not in seen:
                seen.add(found)
                waiting.append(found)
            elif not level:
                outside.add(name.partition(".")[0])
            elif found is None:
                outside.add(f".{name}")
    return seen, outside


def _names(path: Path) -> Iterator[tuple[str, int]]:
    """What a module imports, and how many directories up: 0 where the name is absolute."""
    try:
        tree = ast.parse("".join(_lines(path)))
    except (SyntaxError, ValueError, RecursionError):
        return  # the rank will say so, with its line
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, 0) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module or "", 0
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module, node.level
        elif isinstance(node, ast.ImportFrom):
            yield from ((alias.name, node.level) for alias in node.names)


def _module(folder: Path, name: str) -> Path | None:
    base = folder.joinpath(*name.split("."))
    return next((path for path in (base.with_suffix(".py"), base / "__init__.py") if path.is_file()), None)
