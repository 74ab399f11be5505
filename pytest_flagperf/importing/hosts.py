"""``host.yaml`` of FlagPerf's inference, base and operation, read as data like its Python files.

PyYAML is no dependency of the core: ``pip install 'pytest-flagperf[import]'`` brings it.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pytest_flagperf.errors import ConfigurationError
from pytest_flagperf.importing.findings import Item
from pytest_flagperf.importing.findings import NotTaken
from pytest_flagperf.importing.findings import Source
from pytest_flagperf.importing.findings import Value
from pytest_flagperf.importing.findings import shown
from pytest_flagperf.importing.source import text_of


# FlagPerf's have one dictionary in another; the stream and the document count too.
DEPTH_LIMIT = 32
# PyYAML reads a megabyte in most of a minute.
FILE_LIMIT = 1 << 16


def read(path: Path) -> Source:
    """Read one file; what is wrong with it is in ``not_taken``. Raises ``ConfigurationError`` without PyYAML."""
    try:
        import yaml
    except ImportError as error:
        raise ConfigurationError(
            f"{path}: reading YAML needs PyYAML, which is not installed: pip install 'pytest-flagperf[import]'"
        ) from error
    try:
        text = text_of(path, FILE_LIMIT)
        refused = next(_refused(yaml.parse(text, Loader=yaml.SafeLoader), path), None)
        if refused is not None:
            return Source({}, {}, (refused,))
        document = yaml.safe_load(text)
        if not isinstance(document, dict):
            return _nothing(path, 1, "the file", "holds no keys")
        return _source(path, document, yaml.compose(text, Loader=yaml.SafeLoader))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark else 0
        return _nothing(path, line, "the file", f"is not YAML: {shown(getattr(error, 'problem', None) or 'malformed')}")
    except RecursionError:
        return _nothing(path, 0, "the file", "is nested too deeply to be a configuration")
    except ValueError as error:
        return _nothing(path, 0, "the file", str(error))


def _refused(events: Iterable[Any], path: Path) -> Iterator[NotTaken]:
    """What would make more of a file than stands in it: a page of aliases is gigabytes, a tag is a program."""
    depth = 0
    for event in events:
        line = event.start_mark.line + 1
        name = type(event).__name__
        depth += name.endswith("StartEvent") - name.endswith("EndEvent")
        if depth > DEPTH_LIMIT:
            # PyYAML's time grows with the square of the depth.
            yield NotTaken(path, line, "the file", "is nested too deeply to be a configuration")
        if getattr(event, "anchor", None):
            yield NotTaken(path, line, shown(event.anchor), "is an anchor or alias; write the value itself")
        elif getattr(event, "tag", None):
            yield NotTaken(path, line, shown(event.tag), "is a tag; write the value without it")


def _nothing(path: Path, line: int, what: str, reason: str) -> Source:
    return Source({}, {}, (NotTaken(path, line, what, reason),))


def _source(path: Path, document: dict[Any, Any], root: Any) -> Source:
    lines = dict(_lines(root))
    values = {str(key): Value(value, path, lines.get(str(key), 1)) for key, value in document.items()}
    tables: dict[str, tuple[Item, ...]] = {}
    for key_node, value_node in root.value:
        name = str(key_node.value)
        if isinstance(document.get(name), dict):
            inner = dict(_lines(value_node))
            tables[name] = tuple(
                Item(key, Value(value, path, inner.get(str(key), lines[name]))) for key, value in document[name].items()
            )
    return Source(values, tables, tuple(_duplicates(path, root)))


def _lines(node: Any) -> Iterator[tuple[str, int]]:
    """The keys of a mapping node with their lines."""
    for key, _ in node.value:
        yield str(key.value), key.start_mark.line + 1


def _duplicates(path: Path, root: Any) -> Iterator[NotTaken]:
    for node in (root, *(value for _, value in root.value if value.id == "mapping")):
        seen = set()
        for name, line in _lines(node):
            if name in seen:
                yield NotTaken(path, line, shown(name), "stands there already; YAML readers keep the last")
            seen.add(name)
