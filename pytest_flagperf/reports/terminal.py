"""The table at the end of the terminal's output."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tabulate

from pytest_flagperf.errors import ReplayError
from pytest_flagperf.reports.progress import printable
from pytest_flagperf.result import Result
from pytest_flagperf.result import read_result


MOST_NOTES = 10
COLUMNS = ("case", "quality", "p_whole", "p_train", "p_core", "e2e", "memory", "verdict")


def summarize(terminalreporter: Any, directories: Mapping[str, Path]) -> None:
    """Write the table of all results of the session; with ``-q`` only where something is not passed."""
    results = []
    for directory in directories.values():
        try:
            results.append(read_result(directory / "result.json"))
        except ReplayError as error:
            terminalreporter.write_line(printable(str(error)))
    if not results or (terminalreporter.config.get_verbosity() < 0 and all(r.verdict == "passed" for r in results)):
        return
    terminalreporter.section("FlagPerf results")
    for line in table(results).splitlines():
        terminalreporter.write_line(line)
    for line in notes(results):
        terminalreporter.write_line(line)
    terminalreporter.write_line("")
    terminalreporter.write_line(f"results: {next(iter(directories.values())).parent}")


def table(results: Sequence[Result]) -> str:
    """Results as a text table: samples/s, seconds, GiB; what was not measured is blank."""
    rows = [[printable(cell) for cell in row(result)] for result in results]
    alignment = ("left", "left", *["right"] * 5, "left")
    return str(tabulate.tabulate(rows, headers=COLUMNS, disable_numparse=True, colalign=alignment))


def row(result: Result) -> list[str]:
    """One result's cells, in the order of ``COLUMNS``."""
    case = result.case
    selection = f"{case.framework}-{case.precision}-{case.topology}-{case.scale}"
    verdict = result.verdict if result.error is None else f"{result.verdict}: {result.error.type}"
    return [
        f"{case.model} {case.role} [{selection}] {case.vendor}" + (f" {case.chip}" if case.chip else ""),
        quality(result),
        *(_figure(result, name, "{:,.1f}") for name in ("p_whole", "p_train", "p_core")),
        _figure(result, "e2e_time", "{:,.1f} s"),
        memory(result),
        verdict + "".join(f" ({remark})" for remark in remarks(result)),
    ]


def notes(results: Sequence[Result]) -> list[str]:
    """What the results say beside their figures, each text once with the cases it is of."""
    told: dict[str, list[str]] = {}
    for result in results:
        for note in result.notes:
            told.setdefault(note, []).append(f"{result.case.model} {result.case.role}")
    shown = [f"note: {printable(note)} ({', '.join(dict.fromkeys(cases))})" for note, cases in told.items()]
    more = len(shown) - MOST_NOTES
    return shown if more <= 0 else [*shown[:MOST_NOTES], f"… {more} notes more are in the result.json files"]


def remarks(result: Result) -> list[str]:
    """What a reader of the verdict has to know with it."""
    found = ["synthetic data"] if result.dataset.synthetic else []
    if result.case.division == "open":
        found.append("open division")
    if result.case.stand_in:
        found.append(f"ran on {result.case.stand_in}: no measurement of {result.case.vendor}")
    return found


def quality(result: Result) -> str:
    """``top1 0.9790 >= 0.96``: each target with what was found."""
    cells = []
    for target in result.targets:
        sign = ">=" if target.direction == "at least" else "<="
        if not target.met:
            sign = {"<=": ">", ">=": "<"}[sign]
        found = "-" if target.value is None else f"{target.value:.4f}"
        cells.append(f"{target.metric} {found} {sign} {target.bound:g}")
    return ", ".join(cells)


def memory(result: Result) -> str:
    """``0.41/23.5 GiB``: the peak beside what there is."""
    peak = _figure(result, "memory_peak", "{:.2f}")
    total = _figure(result, "memory_total", "{:.1f}")
    return f"{peak}/{total} GiB" if peak and total else (f"{peak} GiB" if peak else "")


def _figure(result: Result, name: str, form: str) -> str:
    metric = result.metrics.get(name)
    return "" if metric is None else form.format(metric.value)
