"""A plan as text, as Markdown, as JSON and as files."""

from __future__ import annotations

import os
from collections.abc import Iterable
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tabulate

from pytest_flagperf.errors import ConfigurationError
from pytest_flagperf.importing.findings import NotTaken
from pytest_flagperf.importing.plan import Plan
from pytest_flagperf.records import write_atomically
from pytest_flagperf.reports.progress import printable


SCHEMA_VERSION = 1
REPORT = "import-report.md"
INI = "flagperf.ini"


def document(plan: Plan) -> dict[str, Any]:
    """The plan for programs."""
    return {
        "schema_version": SCHEMA_VERSION,
        "path": str(plan.path),
        "commands": [
            {
                "case": command.key,
                "file": str(command.file),
                "line": command.line,
                "arguments": list(command.arguments),
                "command": command.text,
            }
            for command in plan.commands
        ],
        "overlays": plan.overlays(),
        "ini": plan.ini(),
        "not_taken": [
            {"file": str(one.file), "line": one.line, "what": one.what, "reason": one.reason, "needed": one.needed}
            for one in plan.not_taken
        ],
    }


def text(plan: Plan) -> str:
    """What a person sees: commands to copy, the overlays, and what was not taken."""
    lines = []
    for command in plan.commands:
        lines += [f"# {_where(plan, command.file, command.line)}  {command.key}", command.text, ""]
    for name, content in plan.overlays().items():
        lines += [f"# {name}", *content.splitlines()[1:], ""]
    lost, spared = plan.lost, [one for one in plan.not_taken if not one.needed]
    if lost:
        lines += ["Not taken:", *_listed(plan, lost), ""]
    if spared:
        lines += ["Not needed:", *_listed(plan, spared), ""]
    lines.append(
        f"{_count(len(plan.commands), 'command')}, {_count(len(plan.entries), 'overlay')}, {len(lost)} not taken, "
        f"{len(spared)} not needed"
    )
    return "\n".join(lines)


def markdown(plan: Plan) -> str:
    """The report that is written beside the files."""
    lines = ["# Taken from FlagPerf", "", f"Read: `{plan.path}`", "", "## Commands", ""]
    if plan.commands:
        rows = [(f"`{c.key}`", f"`{c.text}`", _where(plan, c.file, c.line)) for c in plan.commands]
        lines += [_table(("case", "command", "from"), rows), ""]
    else:
        lines += ["None.", ""]
    lines += ["## Overlays", ""]
    lines += [f"* `{name}`" for name in plan.overlays()] or ["None."]
    for heading, found in (
        ("Not taken", plan.lost),
        ("Not needed", [one for one in plan.not_taken if not one.needed]),
    ):
        rows = [(_where(plan, one.file, one.line), one.what, one.reason) for one in found]
        lines += ["", f"## {heading}", "", _table(("where", "what", "why"), rows) if rows else "None."]
    return "\n".join([*lines, ""])


def files(plan: Plan) -> dict[str, bytes]:
    """What is written, by path below the directory."""
    found = {**plan.overlays(), REPORT: markdown(plan)}
    if plan.commands:
        found[INI] = plan.ini()
    return {name: content.encode() for name, content in found.items()}


def write(plan: Plan, directory: Path, *, force: bool = False) -> list[Path]:
    """Write the files, each whole or not at all. Returns those written.

    Raises ``ConfigurationError`` before anything is written, where a file is there with another content and ``force``
    is not given.
    """
    wanted = {directory / name: content for name, content in files(plan).items()}
    try:
        different = [path for path, content in wanted.items() if os.path.lexists(path) and not _same(path, content)]
        if different and not force:
            listed = ", ".join(str(path) for path in different)
            raise ConfigurationError(f"there with another content: {listed}. Choose another directory, or give --force")
        for path, content in wanted.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, content)
    except OSError as error:
        raise ConfigurationError(f"{error.filename or directory}: cannot be written: {error.strerror}") from error
    return list(wanted)


def _same(path: Path, content: bytes) -> bool:
    return path.is_file() and path.read_bytes() == content


def _where(plan: Plan, file: Path, line: int) -> str:
    shown = file.relative_to(plan.path) if plan.path.is_dir() and file.is_relative_to(plan.path) else file
    return printable(f"{shown}:{line}" if line else str(shown))


def _listed(plan: Plan, found: Iterable[NotTaken]) -> list[str]:
    return [f"  {_where(plan, one.file, one.line)}: {one.what}: {one.reason}" for one in found]


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _table(headers: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    escaped = [tuple(cell.replace("|", "\\|") for cell in row) for row in rows]
    table: str = tabulate.tabulate(escaped, headers=headers, tablefmt="github", disable_numparse=True)
    return table
