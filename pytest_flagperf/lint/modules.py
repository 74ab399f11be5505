"""Python files of a vendor's folder, read and never imported: what they define, what they reach, what they call."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from collections.abc import Iterator
from pathlib import Path

from pytest_flagperf.importing import source
from pytest_flagperf.lint.problem import Problem


_SHELL_CALLS = {"eval", "exec", "os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput"}
_NOT_PYTHON = (SyntaxError, ValueError, RecursionError, MemoryError)


def missing(path: Path, name: str) -> str:
    """Why ``name`` of this file cannot be had, an empty text where it can or nobody can tell."""
    try:
        body = ast.parse(source.text_of(path)).body
    except _NOT_PYTHON:
        return ""  # said of the file itself
    found = dict.fromkeys(_defined(body))
    if name in found or "*" in found or "__getattr__" in found:
        return ""
    own = [one for one in found if not one.startswith("_")]
    return f"{path.name} has no {name}; it has {', '.join(own) or 'nothing'}"


def _defined(body: Iterable[ast.stmt]) -> Iterator[str]:
    """The names that statements at the level of a module may bind; ``*`` where anybody's."""
    for node in body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield node.name
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            yield from (alias.asname or alias.name.partition(".")[0] for alias in node.names)
        else:
            yield from (
                inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Store)
            )
            # Branches of if, try, with, for and match.
            yield from _defined(
                one
                for field in ("body", "orelse", "finalbody", "handlers", "cases")
                for inner in getattr(node, field, ())
                for one in ([inner] if isinstance(inner, ast.stmt) else inner.body)
            )


def reached(directory: Path, names: Iterable[str]) -> set[Path]:
    """The modules with these names and those beside them that they import."""
    found: set[Path] = set()
    waiting = [directory / name for name in sorted(names)]
    while waiting:
        path = waiting.pop()
        if path in found or not path.is_file():
            continue
        found.add(path)
        try:
            tree = ast.parse(source.text_of(path))
        except _NOT_PYTHON:
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                imported = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                imported = [node.module or "", *(alias.name for alias in node.names)]
            else:
                continue
            waiting += [directory / f"{name.rpartition('.')[2]}.py" for name in imported if name]
    return found


def calls(path: Path, text: str) -> Iterator[Problem]:
    """Calls that run a shell or a text, and a file that is not Python."""
    try:
        tree = ast.parse(text)
    except _NOT_PYTHON as error:
        yield Problem(path, getattr(error, "lineno", None) or 1, "FP028", f"is not Python: {error}")
        return
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func) if isinstance(node.func, (ast.Name, ast.Attribute)) else ""
        shell = [keyword.value for keyword in node.keywords if keyword.arg == "shell"]
        if called in _SHELL_CALLS:
            yield Problem(path, node.lineno, "FP028", f"calls {called}")
        elif shell and not (isinstance(shell[0], ast.Constant) and shell[0].value is False):
            yield Problem(path, node.lineno, "FP028", f"calls {called} with a shell")
