"""pytest-html: verdict, figures and the change against the baseline as columns beside each test.

Registered where ``--html`` is given, in the process that reports: the only one, or xdist's controller. A session
without a case gets no column, and imports nothing for it. pytest-html asks for columns before anything is collected, so
ours are added to its header with the first row, after all others; in xdist's controller, which collects nothing, with
the first result's, and then the rows above it get theirs.
"""

from __future__ import annotations

import html
from collections import Counter
from typing import TYPE_CHECKING
from typing import Any

import pytest

from pytest_flagperf import words


if TYPE_CHECKING:
    from pytest_flagperf.reports.cells import Cells


class Columns:
    """The hooks of pytest-html."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self._page: Any = None
        self._expected = False
        self._found: dict[str, Cells] = {}

    @pytest.hookimpl
    def pytest_collection_finish(self, session: pytest.Session) -> None:
        started = words.SESSION in self.config.stash
        self._expected = started and any("case" in getattr(item, "fixturenames", ()) for item in session.items)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        properties = dict(report.user_properties)
        if "flagperf.directory" in properties:
            from pytest_flagperf.reports import cells

            self._found[report.nodeid] = cells.of(properties)

    @pytest.hookimpl(optionalhook=True)
    def pytest_html_report_title(self, report: Any) -> None:
        self._page = report

    @pytest.hookimpl(optionalhook=True, trylast=True)
    def pytest_html_results_table_row(self, report: Any, cells: list[str]) -> None:
        # A row without cells is one that somebody took out. Before version 4 there is no header to add to.
        header = getattr(self._page, "table_header", None)
        if not cells or header is None or not (self._found or self._expected):
            return
        from pytest_flagperf.reports.cells import BLANK
        from pytest_flagperf.reports.cells import EMPTY
        from pytest_flagperf.reports.cells import HEADER

        if HEADER[0] not in header:
            header += HEADER
            for row in (one for attempts in self._page.data["tests"].values() for one in attempts):
                row["resultsTableRow"] += EMPTY
                row.update(BLANK)
        found = self._found.get(report.nodeid)
        cells += found.cells if found is not None else EMPTY

    @pytest.hookimpl(optionalhook=True)
    def pytest_html_results_summary(self, summary: list[str]) -> None:
        if self._found:
            found = sorted(self._found.values(), key=lambda one: one.severity)
            tally = ", ".join(f"{count} {verdict}" for verdict, count in Counter(one.verdict for one in found).items())
            places = ", ".join(dict.fromkeys(one.session for one in found))
            summary.append(f"<p>{html.escape(f'FlagPerf: {tally}. Results: {places}')}</p>")
