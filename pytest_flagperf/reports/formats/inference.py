"""Inference as plain tables in Markdown: throughput by engine, the edge, LoadGen's scenarios, generation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pytest_flagperf.reports import inference
from pytest_flagperf.reports.formats import common
from pytest_flagperf.reports.formats import marked
from pytest_flagperf.reports.inference import Table
from pytest_flagperf.result import Result
from pytest_flagperf.sessions import SessionFiles


def render(sessions: Sequence[SessionFiles], output: Path | None) -> str | None:
    """A table for each way to measure, where anything was measured that way."""
    found = [result for _, result in common.results(sessions)]
    parts = [f"## {table.english}\n\n{_rows(table, ones)}" for table in inference.TABLES if (ones := table.of(found))]
    return common.finish("\n".join(parts) or "These sessions hold no result of inference.\n", output)


def lines(table: Table, results: Sequence[Result]) -> list[list[str]]:
    """The table's rows, as Markdown."""
    return [[marked.escape(text) for text in row] for row in inference.cells(table, results)]


def header(table: Table) -> list[str]:
    """The table's header, as Markdown."""
    return [marked.escape(one.english) for one in table.columns]


def _rows(table: Table, results: Sequence[Result]) -> str:
    return marked.table(header(table), lines(table, results), right=table.figures)
