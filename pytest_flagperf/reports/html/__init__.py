"""The report for reviewers: sessions as one HTML file that needs neither network nor this program.

Jinja2 escapes every text, and data for scripts is JSON without a ``<``; a content security policy that names our own
scripts by their digest stands behind both.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pytest_flagperf.reports import reading
from pytest_flagperf.reports.html import gathering


def data(directories: Iterable[Path]) -> dict[str, Any]:
    """What the page is rendered from, as plain data: ``counts``, ``cases``, ``families`` … Raises ``ReplayError``."""
    return gathering.gather(directories)


def write(directories: Iterable[Path], output: Path, language: str = "both") -> Path:
    """Write the report of these sessions, whole or not at all. ``language`` is ``en``, ``zh`` or ``both``.

    Raises ``ReplayError`` where a directory is no session, ``ConfigurationError`` where the extra ``html`` is missing
    or the output cannot be written.
    """
    from pytest_flagperf.reports.html import page

    text = page.render(data(directories), language)
    reading.write(output, text.encode("utf-8", errors="replace"))
    return output
