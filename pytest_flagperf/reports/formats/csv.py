"""CSV: one row a case and metric, always the same columns, in UTF-8."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from pytest_flagperf.errors import ConfigurationError
from pytest_flagperf.reports.formats import common
from pytest_flagperf.reports.formats import rows
from pytest_flagperf.sessions import SessionFiles


# What a spreadsheet takes for the beginning of a formula, in full width too.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")


# Excel takes a file without the mark for one in the encoding of the country.
_MARKS = {"utf-8": "", "utf-8-sig": "\ufeff"}


def render(sessions: Sequence[SessionFiles], output: Path | None, *, encoding: str = "utf-8") -> str | None:
    """The rows of every metric, with a header. Numbers have their full precision; what is not known is empty.

    Raises ``ConfigurationError`` for another ``encoding`` than ``utf-8`` and ``utf-8-sig``.
    """
    if encoding not in _MARKS:
        raise ConfigurationError(f"--csv-encoding is {encoding!r}; known: {', '.join(_MARKS)}")
    written = io.StringIO()
    writer = csv.DictWriter(written, rows.COLUMNS, lineterminator="\n")
    writer.writeheader()
    for row in rows.all_metric_rows(sessions):
        writer.writerow({name: cell(value) for name, value in row.items()})
    return common.finish(_MARKS[encoding] + written.getvalue(), output)


def cell(value: rows.Cell) -> str:
    """A cell's text. Text that a spreadsheet would run gets an apostrophe in front; numbers never do.

    OWASP, "CSV Injection".
    """
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(value)
    text = common.clean(value)
    dangerous = text.startswith(_FORMULA) or text.lstrip().startswith(_FORMULA)
    return f"'{text}" if dangerous else text
