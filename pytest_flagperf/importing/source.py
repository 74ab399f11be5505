"""A Python file read as data: assignments of literals and of what is made of them. Nothing of it is ever run.

Taken are literals, displays of lists, tuples and dictionaries, names assigned before, ``+`` of texts and lists,
arithmetic of numbers, f-strings of such values, and names imported from a file beside it, which is how FlagPerf's
vendor configurations are layered. Everything else is named with file and line.
"""

from __future__ import annotations

import ast
import math
import operator
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pytest_flagperf.importing.findings import Item
from pytest_flagperf.importing.findings import NotTaken
from pytest_flagperf.importing.findings import Refused
from pytest_flagperf.importing.findings import Source
from pytest_flagperf.importing.findings import Value
from pytest_flagperf.importing.findings import shown


# A configuration is a few kilobytes; larger files are data of another kind, or hostile.
FILE_LIMIT = 1 << 20
# Doubling a text or a list thirty times takes thirty lines and all of the memory.
WEIGHT_LIMIT = 1 << 17
# What a 64-bit integer holds, as in TOML.
INTEGER_LIMIT = 1 << 63
# FlagPerf's largest dictionary has some 70; each entry is compared with those before it.
ENTRY_LIMIT = 2000
# Of a line only the beginning is ever shown.
_LINE = 400
# Files that import each other's names: FlagPerf's have three.
IMPORT_LIMIT = 32

_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}
_UNARY: dict[type[ast.unaryop], Callable[[Any], Any]] = {ast.UAdd: operator.pos, ast.USub: operator.neg}

_WORDS: dict[type[ast.AST], str] = {
    ast.Call: "a call",
    ast.Attribute: "an attribute",
    ast.Subscript: "a subscript",
    ast.Lambda: "a function",
    ast.IfExp: "a condition",
    ast.Compare: "a comparison",
    ast.BoolOp: "a condition",
    ast.ListComp: "a comprehension",
    ast.SetComp: "a comprehension",
    ast.DictComp: "a comprehension",
    ast.GeneratorExp: "a comprehension",
    ast.NamedExpr: "an assignment inside an expression",
    ast.Starred: "an unpacking",
    ast.FunctionDef: "a function",
    ast.AsyncFunctionDef: "a function",
    ast.ClassDef: "a class",
    ast.If: "a condition",
    ast.For: "a loop",
    ast.While: "a loop",
    ast.Try: "a try block",
    ast.With: "a with block",
    ast.Delete: "a deletion",
}


def read(path: Path) -> Source:
    """Read one file. What is wrong with it is in ``not_taken``; nothing is raised."""
    return _Reader(path, frozenset(), []).read()


def text_of(path: Path, limit: int = FILE_LIMIT) -> str:
    """The text of a file that somebody wrote by hand. Raises ``ValueError`` that says what is wrong with it."""
    try:
        if not path.is_file():
            raise ValueError("is not a file")
        with path.open("rb") as file:
            content = file.read(limit + 1)
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from error
    if len(content) > limit:
        raise ValueError(f"is larger than {limit >> 10} KiB: no configuration is")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"is not UTF-8 (byte {error.start})") from error


class _Reader:
    """One pass over the statements of a file."""

    def __init__(self, path: Path, above: frozenset[Path], opened: list[Path]) -> None:
        self.path = path
        self.above = above | {path}
        self.opened = opened
        self.opened.append(path)
        self.values: dict[str, Value] = {}
        self.weights: dict[str, int] = {}
        self.tables: dict[str, tuple[Item, ...]] = {}
        self.not_taken: list[NotTaken] = []
        self.lines: list[str] = []

    def read(self) -> Source:
        try:
            text = text_of(self.path)
            with warnings.catch_warnings():
                # An odd escape in somebody's file is nothing to warn our user of.
                warnings.simplefilter("ignore")
                body = ast.parse(text).body
        except SyntaxError as error:
            # Nested too deeply for the parser is one of these.
            self._refuse(error.lineno or 0, "the file", f"is not Python: {error.msg}")
            body = []
        except ValueError as error:
            self._refuse(0, "the file", str(error))
            body = []
        except (RecursionError, MemoryError):
            self._refuse(0, "the file", "is nested too deeply to be a configuration")
            body = []
        else:
            self.lines = text.split("\n")
        for node in body:
            self._statement(node)
        return Source(self.values, self.tables, tuple(self.not_taken))

    def _statement(self, node: ast.stmt) -> None:
        try:
            self._take(node)
        except Refused as refused:
            self._forget(node)
            self._refuse(node.lineno, self._line(node), f"is not data: {refused}")
        except RecursionError:
            self._forget(node)
            self._refuse(node.lineno, self._line(node), "is nested too deeply to be data")

    def _take(self, node: ast.stmt) -> None:
        if isinstance(node, ast.Assign):
            for target in node.targets:
                self._assign(target, node.value)
        elif isinstance(node, ast.AnnAssign):
            if node.value is not None:
                self._assign(node.target, node.value)
        elif isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name):
            before = ast.copy_location(ast.Name(node.target.id, ast.Load()), node)
            self._assign(node.target, ast.copy_location(ast.BinOp(before, node.op, node.value), node))
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            self._import(node)
        elif not (isinstance(node, ast.Pass) or _is_text(node)):
            raise Refused(_describe(node.value if isinstance(node, ast.Expr) else node))

    def _assign(self, target: ast.expr, expression: ast.expr) -> None:
        if isinstance(target, ast.Subscript) and isinstance(target.value, ast.Name) and target.value.id in self.tables:
            self._entry(target.value.id, target.slice, expression)
            return
        if not isinstance(target, ast.Name):
            raise Refused(f"an assignment to {_describe(target)}")
        if isinstance(expression, ast.Dict):
            self._table(target.id, expression)
            return
        value, weight = self._evaluate(expression)
        self._set(target.id, Value(value, self.path, target.lineno), weight)

    def _set(self, name: str, value: Value, weight: int) -> None:
        self.tables.pop(name, None)
        self.values[name] = value
        self.weights[name] = weight

    def _table(self, name: str, node: ast.Dict) -> None:
        """A dictionary, entry by entry: one that cannot be read does not take the others with it."""
        if len(node.keys) > ENTRY_LIMIT:
            raise Refused(f"it has {len(node.keys):,} entries, more than {ENTRY_LIMIT:,}")
        items: list[Item] = []
        total, refused = 1, False
        for key_node, value_node in zip(node.keys, node.values, strict=True):
            where = key_node or value_node
            try:
                if key_node is None:
                    raise Refused("an unpacking")
                key, weight = self._evaluate(key_node)
                _check_key(key)
                value, more = self._evaluate(value_node)
                total += weight + more
                if total > WEIGHT_LIMIT:
                    raise Refused("it is too large")
            except Refused as reason:
                refused = True
                self._refuse(where.lineno, f"entry of {name}: {self._line(where)}", f"is not data: {reason}")
                continue
            if any(item.key == key for item in items):
                self._refuse(where.lineno, f"{name}: {shown(key)}", "stands there already; Python keeps the last")
                items = [item for item in items if item.key != key]
            items.append(Item(key, Value(value, self.path, where.lineno)))
        self._set(name, Value({item.key: item.value.value for item in items}, self.path, node.lineno), total)
        self.tables[name] = tuple(items)
        if refused:
            # Its entries are worth having; the whole would be another dictionary than the file's.
            del self.values[name]

    def _entry(self, name: str, key_node: ast.expr, value_node: ast.expr) -> None:
        """``CASES[key] = value`` after ``CASES = {...}``."""
        (key, key_weight), (value, weight) = self._evaluate(key_node), self._evaluate(value_node)
        _check_key(key)
        total = self.weights[name] + key_weight + weight
        if total > WEIGHT_LIMIT or len(self.tables[name]) >= ENTRY_LIMIT:
            raise Refused("it is too large")
        entry = Item(key, Value(value, self.path, key_node.lineno))
        items = (*(item for item in self.tables[name] if item.key != key), entry)
        self.tables[name] = items
        self.weights[name] = total
        if name in self.values:
            whole = {item.key: item.value.value for item in items}
            self.values[name] = Value(whole, self.path, self.values[name].line)

    def _import(self, node: ast.Import | ast.ImportFrom) -> None:
        beside = self._beside(node)
        if beside is None:
            # Nothing is lost by it: what uses the import is named where it is used.
            self._forget(node)
            self._refuse(node.lineno, self._line(node), "is an import; nothing is imported", needed=False)
            return
        if beside in self.above or len(self.opened) >= IMPORT_LIMIT:
            raise Refused("the files import each other")
        assert isinstance(node, ast.ImportFrom)
        reader = _Reader(beside, self.above, self.opened)
        source = reader.read()
        self.not_taken += source.not_taken
        for alias in node.names:
            for name in [*reader.weights] if alias.name == "*" else [alias.name]:
                if name not in reader.weights:
                    raise Refused(f"{beside.name} gives no {name}")
                self._adopt(reader, name, alias.asname or name)

    def _adopt(self, reader: _Reader, name: str, own: str) -> None:
        """A name of another file; a dictionary that could be read in part has entries and no value."""
        self.values.pop(own, None)
        self.tables.pop(own, None)
        if name in reader.values:
            self.values[own] = reader.values[name]
        if name in reader.tables:
            self.tables[own] = reader.tables[name]
        self.weights[own] = reader.weights[name]

    def _beside(self, node: ast.Import | ast.ImportFrom) -> Path | None:
        """The file in the same directory that is imported from, if that is what the import does."""
        if isinstance(node, ast.Import) or node.level > 1 or not (node.module or "").isidentifier():
            return None
        path = self.path.parent / f"{node.module}.py"
        return path if path.is_file() else None

    def _evaluate(self, node: ast.expr) -> tuple[Any, int]:
        """The value of an expression and its weight, which bounds the memory that it may take."""
        value, weight = self._value(node)
        if weight > WEIGHT_LIMIT:
            raise Refused("it is too large")
        if isinstance(value, float) and not math.isfinite(value):
            raise Refused("it is not a finite number")
        if isinstance(value, int) and not -INTEGER_LIMIT <= value < INTEGER_LIMIT:
            raise Refused("it is no 64-bit number")
        return value, weight

    def _value(self, node: ast.expr) -> tuple[Any, int]:
        methods: dict[type[ast.expr], Callable[[Any], tuple[Any, int]]] = {
            ast.Constant: self._constant,
            ast.Name: self._name,
            ast.List: self._sequence,
            ast.Tuple: self._sequence,
            ast.Dict: self._dictionary,
            ast.BinOp: self._binary,
            ast.UnaryOp: self._unary,
            ast.JoinedStr: self._text,
        }
        if type(node) not in methods:
            raise Refused(_describe(node))
        return methods[type(node)](node)

    def _constant(self, node: ast.Constant) -> tuple[Any, int]:
        if not isinstance(node.value, (str, int, float, bool, type(None))):
            raise Refused(f"a {type(node.value).__name__}")
        return node.value, 1 + (len(node.value) if isinstance(node.value, str) else 0)

    def _name(self, node: ast.Name) -> tuple[Any, int]:
        if node.id not in self.values:
            raise Refused(f"{node.id} is not known here")
        return self.values[node.id].value, self.weights[node.id]

    def _sequence(self, node: ast.List | ast.Tuple) -> tuple[Any, int]:
        parts = [self._evaluate(one) for one in node.elts]
        made = [value for value, _ in parts]
        return (made if isinstance(node, ast.List) else tuple(made)), 1 + sum(weight for _, weight in parts)

    def _unary(self, node: ast.UnaryOp) -> tuple[Any, int]:
        if type(node.op) not in _UNARY:
            raise Refused("an operation other than arithmetic")
        value, weight = self._evaluate(node.operand)
        return _UNARY[type(node.op)](_number(value)), weight

    def _dictionary(self, node: ast.Dict) -> tuple[dict[Any, Any], int]:
        found: dict[Any, Any] = {}
        total = 1
        for key_node, value_node in zip(node.keys, node.values, strict=True):
            if key_node is None:
                raise Refused("an unpacking")
            key, weight = self._evaluate(key_node)
            _check_key(key)
            found[key], more = self._evaluate(value_node)
            total += weight + more
        return found, total

    def _binary(self, node: ast.BinOp) -> tuple[Any, int]:
        if type(node.op) not in _BINARY:
            raise Refused("an operation other than arithmetic")
        (left, left_weight), (right, right_weight) = self._evaluate(node.left), self._evaluate(node.right)
        if isinstance(node.op, ast.Add) and type(left) in (str, list, tuple) and type(left) is type(right):
            if left_weight + right_weight > WEIGHT_LIMIT:
                raise Refused("it is too large")
            return operator.add(left, right), left_weight + right_weight
        if isinstance(node.op, ast.Pow) and (abs(_number(left)) > INTEGER_LIMIT or not 0 <= _number(right) <= 64):
            raise Refused("a power that large")
        try:
            result = _BINARY[type(node.op)](_number(left), _number(right))
        except ArithmeticError as error:
            raise Refused(str(error)) from error
        return _number(result), 1

    def _text(self, node: ast.JoinedStr) -> tuple[str, int]:
        text, total = "", 1
        for part in node.values:
            if isinstance(part, ast.FormattedValue):
                # A format can ask for a billion blanks.
                if part.format_spec is not None or part.conversion != -1:
                    raise Refused("a format")
                value, weight = self._evaluate(part.value)
                if not isinstance(value, (str, int, float)):
                    raise Refused(f"a {type(value).__name__} in a text")
            else:
                value, weight = self._evaluate(part)
            total += weight
            if total > WEIGHT_LIMIT:
                raise Refused("it is too large")
            text += str(value)
        return text, 1 + len(text)

    def _forget(self, node: ast.stmt) -> None:
        """Names that ``node`` would give another value are not known any more."""
        for inner in ast.walk(node):
            if isinstance(inner, ast.Name) and not isinstance(inner.ctx, ast.Load):
                name = inner.id
            elif isinstance(inner, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                name = inner.name
            elif isinstance(inner, ast.alias):
                name = inner.asname or inner.name.partition(".")[0]
            elif isinstance(inner, (ast.Subscript, ast.Attribute)) and isinstance(inner.value, ast.Name):
                # ``CASES["x"] = y`` changes CASES; ``CASES.update(...)`` may.
                name = "" if isinstance(inner.ctx, ast.Load) else inner.value.id
            else:
                continue
            for known in (self.values, self.weights, self.tables):
                known.pop(name, None)

    def _line(self, node: ast.AST) -> str:
        number = getattr(node, "lineno", 0)
        return shown(self.lines[number - 1][:_LINE].strip()) if 0 < number <= len(self.lines) else ""

    def _refuse(self, line: int, what: str, reason: str, *, needed: bool = True) -> None:
        self.not_taken.append(NotTaken(self.path, line, what, reason, needed))


def _number(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise Refused(f"arithmetic with a {type(value).__name__}")
    return value


def _check_key(key: Any) -> None:
    if not isinstance(key, (str, int, float, bool, type(None))):
        raise Refused(f"a {type(key).__name__} as a key")


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _describe(node: ast.AST) -> str:
    return _WORDS.get(type(node), type(node).__name__)
