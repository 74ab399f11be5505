"""A result as cells of a row in pytest-html's table: what the terminal's table says, and what each cell sorts by."""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytest_flagperf.errors import ReplayError
from pytest_flagperf.judging import gate
from pytest_flagperf.operators import table
from pytest_flagperf.reports import inference
from pytest_flagperf.reports import reading
from pytest_flagperf.reports import terminal
from pytest_flagperf.reports.progress import printable
from pytest_flagperf.result import Result
from pytest_flagperf.result import read_result


# Two are of inference, the last two of operators.
COLUMNS = (
    *("verdict", terminal.CHANGE, "quality", "p_train", "p_infer_core", "latency p99", "e2e", "memory"),
    *("time", "of peak"),
)
_OF_METRIC = {
    **{"p_train": "p_train", "p_infer_core": "p_inference_core", "latency p99": "latency_p99"},
    **{"e2e": "e2e_time", "memory": "memory_peak"},
}


@dataclass(frozen=True)
class Cells:
    """The cells of a test, and what the summary says of it."""

    verdict: str
    severity: int
    session: str
    cells: tuple[str, ...]


def of(properties: Mapping[str, Any]) -> Cells:
    """The cells of a test, by its ``flagperf.*`` properties; one whose result cannot be read says why."""
    directory = Path(str(properties["flagperf.directory"]))
    # Of operators a file holds thousands of results, and is still being written.
    if properties.get("flagperf.kind") == "operator":
        return _operator(properties, directory)
    try:
        return _model(read_result(directory / "result.json"), directory)
    except ReplayError as error:
        return _cells("unknown", directory.parent, {"verdict": str(error)}, {})


def _model(result: Result, directory: Path) -> Cells:
    texts = dict(zip(terminal.COLUMNS, terminal.row(result), strict=True))
    if inference.is_inference(result):
        texts |= zip(terminal.INFERENCE_COLUMNS, terminal.inference_row(result), strict=True)
        texts["p_infer_core"] = (
            f"{texts['p_infer_core']} {inference.rate_unit(result)}" if texts["p_infer_core"] else ""
        )
    figures = {column: result.metrics[name].value for column, name in _OF_METRIC.items() if name in result.metrics}
    changes = [one.change for one in gate.foremost(result.comparisons) if one.change is not None]
    if changes:
        texts[terminal.CHANGE], figures[terminal.CHANGE] = terminal.change(result), changes[0]
    return _cells(result.verdict, directory.parent, texts, figures)


def _operator(properties: Mapping[str, Any], directory: Path) -> Cells:
    verdict, error = str(properties["flagperf.verdict"]), properties.get("flagperf.error")
    said = f"{verdict}: {error}" if error else verdict
    texts, figures = {"verdict": said + "".join(f" ({remark})" for remark in _remarks(properties))}, {}
    for column, name, text in (
        ("time", "flagperf.metric.time", table.microseconds),
        ("of peak", "flagperf.metric.utilization", lambda ratio: f"{100 * ratio:.1f} %"),
        (terminal.CHANGE, "flagperf.change.time", lambda change: f"time {gate.percent(change)}"),
    ):
        if name in properties:
            figures[column] = float(properties[name])
            texts[column] = text(figures[column])
    # <session>/operators/<worker>
    return _cells(verdict, directory.parent.parent, texts, figures)


def _remarks(properties: Mapping[str, Any]) -> list[str]:
    """What a reader of an operator's verdict has to know with it, in the terminal's words."""
    found = ["estimated peak"] if properties.get("flagperf.peak") == "estimated" else []
    if properties.get("flagperf.stand_in"):
        found.append(f"ran on {properties['flagperf.stand_in']}: no measurement of {properties['flagperf.vendor']}")
    return found


def _cells(verdict: str, session: Path, texts: Mapping[str, str], figures: Mapping[str, float]) -> Cells:
    # The lowest figure there is, is a change of -1.
    keys = {column: f"{value + 1:026.9f}" for column, value in figures.items()}
    keys["verdict"] = f"{reading.severity(verdict) + 1:02d}"
    cells = tuple(_cell(column, texts.get(column, ""), keys.get(column, "")) for column in COLUMNS)
    return Cells(printable(verdict), reading.severity(verdict), printable(str(session)), cells)


def _cell(column: str, text: str = "", key: str = "") -> str:
    """pytest-html sorts by what is in a cell, as a text: a comment before the figure is the key."""
    comment = f"<!--{key}-->" if key else ""
    return f'<td class="col-{_name(column)}">{comment}{html.escape(printable(text))}</td>'


def _name(column: str) -> str:
    return f"flagperf_{column.replace(' ', '_')}"


HEADER = tuple(f'<th class="sortable" data-column-type="{_name(column)}">{column}</th>' for column in COLUMNS)
EMPTY = tuple(map(_cell, COLUMNS))
# What pytest-html keeps of empty cells to sort by.
BLANK = {_name(column): "" for column in COLUMNS}
