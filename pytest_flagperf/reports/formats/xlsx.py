"""A workbook, by XlsxWriter: numbers are numbers, units stand in the headers, no text becomes a formula or a link."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec

from pytest_flagperf import result as results
from pytest_flagperf.errors import ConfigurationError
from pytest_flagperf.reports import reading
from pytest_flagperf.reports.formats import common
from pytest_flagperf.reports.formats import rows
from pytest_flagperf.result import Result
from pytest_flagperf.sessions import SessionFiles


# What one cell of a workbook holds at most.
_LONGEST = 32_767
_WIDEST = 60
_MOST_ROWS = 1_048_576

# Colours of Excel's own "bad", "neutral" and "good".
_FILLS = {
    "invalid": "#FFC7CE",
    "wrong": "#FFC7CE",
    "missed": "#FFC7CE",
    "regressed": "#FFC7CE",
    "inconclusive": "#FFEB9C",
    "improved": "#C6EFCE",
    "passed": "#C6EFCE",
}


def render(sessions: Sequence[SessionFiles], output: Path | None) -> None:
    """Write the workbook. Raises ``ConfigurationError`` without an output, and where XlsxWriter is missing."""
    if output is None:
        raise ConfigurationError("a workbook is no text: say where to write it, with --output report.xlsx")
    xlsxwriter = _library()
    content = io.BytesIO()
    options = {
        "in_memory": True,
        "strings_to_formulas": False,
        "strings_to_urls": False,
        "strings_to_numbers": False,
    }
    with xlsxwriter.Workbook(content, options) as book:
        sheets = _Sheets(book)
        sheets.add("summary", ("what", "value"), _summary(sessions), filters=False)
        header, cells = _cases(sessions)
        sheets.add("cases", header, cells)
        sheets.add("metrics", rows.COLUMNS, (row.values() for row in rows.all_metric_rows(sessions)))
        header, cells = _comparisons(sessions)
        sheets.add("comparisons", header, cells)
        header, cells = _rounds(sessions)
        sheets.add("rounds", header, cells)
        sheets.add("environment", ("session", "what", "value"), _environment(sessions))
    reading.write(output, content.getvalue())


def _library() -> ModuleType:
    try:
        return import_module("xlsxwriter")
    except ImportError as error:
        raise ConfigurationError(
            "a workbook needs XlsxWriter, which is not installed: pip install 'pytest-flagperf[excel]'"
        ) from error


class _Sheets:
    """Adds sheets that look alike: a bold header that stays, filters, columns as wide as what they hold."""

    def __init__(self, book: Any) -> None:
        self._book = book
        self._header = book.add_format({"bold": True, "bottom": 1, "text_wrap": True, "valign": "top"})
        self._fills = {name: book.add_format({"bg_color": colour}) for name, colour in _FILLS.items()}

    def add(
        self, name: str, header: Sequence[str], lines: Iterable[Iterable[rows.Cell]], *, filters: bool = True
    ) -> None:
        """One sheet. Raises ``ConfigurationError`` for more rows than a sheet holds."""
        sheet = self._book.add_worksheet(name)
        widths = [len(title) for title in header]
        for column, title in enumerate(header):
            sheet.write_string(0, column, title, self._header)
        last = 0
        for last, line in enumerate(lines, 1):
            if last >= _MOST_ROWS:
                raise ConfigurationError(
                    f"sheet {name!r} holds at most {_MOST_ROWS:,} rows: report fewer sessions at once, or use csv"
                )
            for column, value in enumerate(line):
                widths[column] = max(widths[column], self._write(sheet, last, column, value))
        sheet.freeze_panes(1, 0)
        if filters and last:
            sheet.autofilter(0, 0, last, len(header) - 1)
        for column, width in enumerate(widths):
            sheet.set_column(column, column, min(width + 2, _WIDEST))

    def _write(self, sheet: Any, row: int, column: int, value: rows.Cell) -> int:
        """Write one cell by its type, and tell how wide it is."""
        if value is None or value == "":
            return 0
        if isinstance(value, bool):
            sheet.write_boolean(row, column, value)
            return 5
        if isinstance(value, (int, float)):
            # A workbook knows neither NaN nor infinity, nor more than a float holds; as text they are at least seen.
            if not _fits(value):
                sheet.write_string(row, column, str(value))
            else:
                sheet.write_number(row, column, value)
            return 12
        text = common.clean(value)
        text = text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
        sheet.write_string(row, column, text, self._fills.get(text))
        return max((len(part) for part in text.splitlines()), default=0)


def _fits(value: float) -> bool:
    """Whether a number can be one in a workbook."""
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def _summary(sessions: Sequence[SessionFiles]) -> list[tuple[rows.Cell, ...]]:
    found = [result for _, result in common.results(sessions)]
    lines: list[tuple[rows.Cell, ...]] = [("cases", len(found))]
    lines += list(common.tally(found).items())
    stood_in = sum(1 for one in found if one.case.stand_in)
    lines += [("of these on a stand-in, no measurement of the vendor", stood_in)] if stood_in else []
    for session in sessions:
        lines += [("session", session.name), ("started", rows.started(session))]
        lines += [("started and not ended", text) for text in session.unfinished]
        lines += [("cannot be read", text) for text in reading.problems(session)]
        for one in reading.over_cases(session).requirements:
            lines.append((f"required: {one.text}", "passed" if one.met else f"missed: {reading.said(one)}"))
        lines += [(f"{each.name} of {each.label}", each.value) for each in common.derived(session)]
    return lines


def _cases(sessions: Sequence[SessionFiles]) -> tuple[list[str], list[list[rows.Cell]]]:
    """A line a case, a column a metric; the unit stands in the header."""
    found = common.results(sessions)
    titles = _titles((result, result.metrics) for _, result in found)
    header = [*rows.CASE_COLUMNS, "remarks", *titles.values()]
    lines = [
        [
            *rows.case_row(session, result).values(),
            "; ".join((*common.remarks(result), *result.notes)),
            *_figures(result, result.metrics, titles),
        ]
        for session, result in found
    ]
    return header, lines


def _comparisons(sessions: Sequence[SessionFiles]) -> tuple[list[str], list[list[rows.Cell]]]:
    header = ["session", "case", "metric", "value", "unit", "comparison", "baseline", "change (ratio)"]
    header += ["change, low (ratio)", "change, high (ratio)", "tolerance (ratio)", "method", "source", "reasons"]
    lines: list[list[rows.Cell]] = []
    for session, result in common.results(sessions):
        for one in result.comparisons:
            unit = reading.unit(result, one.metric)
            shown: list[rows.Cell] = [session.name, result.case.id, one.metric, one.value, unit]
            lines.append([*shown, *rows.comparison_cells(one).values()])
    return header, lines


def _rounds(sessions: Sequence[SessionFiles]) -> tuple[list[str], list[list[rows.Cell]]]:
    found = [(session, result, one) for session, result in common.results(sessions) for one in result.rounds]
    titles = _titles((result, one.metrics) for _, result, one in found)
    header = ["session", "case", "round", "seed", "started (Unix s)", "dropped", "error", *titles.values()]
    lines: list[list[rows.Cell]] = []
    for session, result, one in found:
        error = "" if one.error is None else f"{one.error.type}: {one.error.message}"
        facts: list[rows.Cell] = [
            session.name,
            result.case.id,
            one.round,
            one.seed,
            one.time_started,
            one.dropped,
            error,
        ]
        lines.append([*facts, *_figures(result, one.metrics, titles)])
    return header, lines


def _titles(found: Iterable[tuple[Result, Mapping[str, Any]]]) -> dict[tuple[str, str], str]:
    """Metric and unit → header. A metric in two units, as two versions gave it or two cases count, has two columns."""
    units = {(name, _unit(result, name, metrics)): None for result, metrics in found for name in metrics}
    return {(name, unit): f"{name} ({unit})" for name, unit in sorted(units)}


def _figures(result: Result, metrics: Mapping[str, Any], titles: Iterable[tuple[str, str]]) -> list[rows.Cell]:
    return [
        metrics[name].value if name in metrics and _unit(result, name, metrics) == unit else None
        for name, unit in titles
    ]


def _unit(result: Result, name: str, metrics: Mapping[str, Any]) -> str:
    """Of a figure of the result or of one of its rounds."""
    return results.unit_of(msgspec.structs.replace(result, metrics=metrics), name)


def _environment(sessions: Sequence[SessionFiles]) -> Iterable[tuple[rows.Cell, ...]]:
    for session in sessions:
        for name, value in _flat("", session.description):
            yield (session.name, name, value)
        stacks = {(name, version) for result in session.results for name, version in result.stack.items()}
        for name, version in sorted(stacks):
            yield (session.name, f"stack.{name}", version)


def _flat(prefix: str, value: Any) -> Iterable[tuple[str, rows.Cell]]:
    """The leaves of a JSON document, named by their path."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _flat(f"{prefix}.{name}" if prefix else str(name), inner)
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _flat(f"{prefix}[{number}]", inner)
    elif value is None or isinstance(value, (str, int, float, bool)):
        yield prefix, value
    else:
        yield prefix, str(value)
