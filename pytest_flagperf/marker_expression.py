"""``-m``: names that nothing is marked with, and why an expression left no test."""

from __future__ import annotations

import ast
import difflib
from collections.abc import Iterable
from typing import TypeGuard

import pytest

from pytest_flagperf import words
from pytest_flagperf.session import Session
from pytest_flagperf.words import FRAMEWORKS
from pytest_flagperf.words import KINDS
from pytest_flagperf.words import PRECISIONS
from pytest_flagperf.words import ROLES
from pytest_flagperf.words import SCALES


_EMPTIED = "flagperf-emptied"
_GROUPS = (
    (*PRECISIONS, *words.ELEMENT_TYPES),
    words.SETS,
    words.DIRECTIONS,
    words.FAMILIES,
    FRAMEWORKS,
    KINDS,
    words.ENGINES,
    tuple(ROLES),
    SCALES,
)
_SHOWN_REASONS = 3


def check(config: pytest.Config, session: Session, items: list[pytest.Item]) -> None:
    """A name in ``-m`` that nothing is marked with is a typo: an error that lists what exists.

    Where the names are right and no test is left all the same, a line after the collection says which of them did it.
    """
    expression = config.getoption("markexpr", "")
    try:
        tree = ast.parse(expression, mode="eval").body if expression else None
    except SyntaxError:
        return  # pytest says what is wrong with it
    if tree is None:
        return
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    known = {line.partition(":")[0].partition("(")[0].strip() for line in config.getini("markers")}
    unknown = sorted(used - known)
    if unknown:  # only then are all marks of all tests looked at
        unknown = sorted(set(unknown) - {mark.name for item in items for mark in item.iter_markers()})
    if unknown:
        refuse(config, items, _unknown_markers(session, unknown, known))
    elif items and not hasattr(config, "workeroutput") and not config.pluginmanager.hasplugin(_EMPTIED):
        config.pluginmanager.register(_Emptied(session, tree, list(items)), _EMPTIED)


def _unknown_markers(session: Session, unknown: list[str], known: set[str]) -> str:
    groups = {
        "Models": sorted(session.models),
        "Frameworks": FRAMEWORKS,
        "Precisions": PRECISIONS,
        "Kinds": KINDS,
        "Roles": ROLES,
        "Engines": (*words.ENGINES, *sorted(session.engine_markers)),
        "Scales": SCALES,
        "Operators": words.FAMILIES,
        "Sets": words.SETS,
        "Directions": words.DIRECTIONS,
    }
    near = "".join(f"\n{name}:{meant}" for name in unknown if (meant := _meant(name, known)))
    listed = ". ".join(f"{group}: {', '.join(names)}" for group, names in groups.items() if names)
    return f"-m: unknown marker {', '.join(map(repr, unknown))}. {listed}{near}"


def _meant(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, sorted(known), n=2)
    return f" Did you mean {' or '.join(map(repr, near))}?" if near else ""


def refuse(config: pytest.Config, items: list[pytest.Item], message: str) -> None:
    """Raise a usage error; a worker of xdist that did would leave its controller with an internal error."""
    if not hasattr(config, "workeroutput"):
        raise pytest.UsageError(message)
    config.workeroutput[words.USAGE_ERROR] = message
    items[:] = []


class _Emptied:
    """Says why ``-m`` left no test. Registered while a session's tests are selected; costs nothing where some are."""

    def __init__(self, session: Session, tree: ast.expr, items: list[pytest.Item]) -> None:
        self.session, self.tree, self.items = session, tree, items

    @pytest.hookimpl
    def pytest_report_collectionfinish(self, items: list[pytest.Item]) -> list[str]:
        return [] if items else [f"flagperf: {line}" for line in self.reasons()]

    def reasons(self) -> list[str]:
        """The part of the expression at which no test was left, and why tests there might be do not exist."""
        marked = [({mark.name for mark in item.iter_markers()}, item) for item in self.items]
        terms = self.tree.values if _is_and(self.tree) else [self.tree]
        before: list[ast.expr] = []
        for term in terms:
            left = [one for one in marked if _holds(term, one[0])]
            if not left:
                break
            marked = left
            before.append(term)
        else:
            return []  # something else left none, such as -k
        asked = self.session.options
        precisions = asked.precisions if "precision" in asked.explicit else ()
        present = {name for item in self.items for name in (mark.name for mark in item.iter_markers())}
        reasons = [_never_run(item) for _, item in marked]
        # Where nothing but what stands in for absent tests is left, its words say it.
        lines = [] if all(reasons) else _emptied_by(term, before, [names for names, _ in marked], present)
        lines += [
            f"--precision={one}: no test that was collected is run in it" for one in precisions if one not in present
        ]
        skipped = list(dict.fromkeys(filter(None, reasons)))
        more = [f"… and {len(skipped) - _SHOWN_REASONS} more such"] if len(skipped) > _SHOWN_REASONS else []
        return [*lines, *skipped[:_SHOWN_REASONS], *more]


def _emptied_by(term: ast.expr, before: list[ast.expr], marked: list[set[str]], present: set[str]) -> list[str]:
    names = [node.id for node in ast.walk(term) if isinstance(node, ast.Name)]
    absent = [name for name in names if name not in present]
    if absent and not isinstance(term, ast.UnaryOp):
        # Of precisions one is not a misspelling of another.
        return [
            f"-m: no test that was collected is marked {name!r}"
            + (_others(name, marked) if name in _GROUPS[0] else f".{_meant(name, present)}")
            for name in absent
        ]
    matched = " and ".join(map(ast.unparse, before))
    which = f" that match {matched!r}" if matched else ""
    line = f"-m: of the {len(marked):,} tests{which} none matches {ast.unparse(term)!r}"
    return [line + (_others(names[0], marked) if len(names) == 1 else "")]


def _others(name: str, marked: list[set[str]]) -> str:
    """The words of the same kind that there are instead."""
    group = next((group for group in _GROUPS if name in group), ())
    there = [other for other in group if other != name and any(other in one for one in marked)]
    return f"; there are {', '.join(there)}" if there else ""


def _is_and(tree: ast.expr) -> TypeGuard[ast.BoolOp]:
    return isinstance(tree, ast.BoolOp) and isinstance(tree.op, ast.And)


def _holds(tree: ast.expr, names: set[str]) -> bool:
    """Whether an expression of ``-m`` is true of a test that is marked with ``names``."""
    if isinstance(tree, ast.BoolOp):
        every = all if isinstance(tree.op, ast.And) else any
        return every(_holds(one, names) for one in tree.values)
    if isinstance(tree, ast.UnaryOp) and isinstance(tree.op, ast.Not):
        return not _holds(tree.operand, names)
    # A mark with arguments is taken by its name.
    tree = tree.func if isinstance(tree, ast.Call) else tree
    return isinstance(tree, ast.Name) and tree.id in names


def _never_run(item: pytest.Item) -> str:
    """Why a case has no test for what was asked for: the reason of the skip that stands in for it."""
    if not hasattr(item, "callspec") or item.callspec.params.get("case", item) is not None:
        return ""
    return next((str(mark.args[0]) for mark in item.iter_markers("skip") if mark.args), "")
