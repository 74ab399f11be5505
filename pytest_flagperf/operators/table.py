"""The results of operators as a table in DeepBench's column order, as CSV and as JSON. Nothing is computed here."""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tabulate

from pytest_flagperf import metrics
from pytest_flagperf import result as results
from pytest_flagperf import verdict
from pytest_flagperf.errors import ReplayError
from pytest_flagperf.operators.case import family_marker
from pytest_flagperf.reports.progress import printable
from pytest_flagperf.result import Result


CSV, JSON = "operators.csv", "operators.json"
SHOWN_ROWS = 60

# The sizes of each family in the order of DeepBench's sheets.
SIZES: Mapping[str, tuple[str, ...]] = {
    "gemm": ("m", "n", "k", "a_transposed", "b_transposed"),
    "conv": (
        *("w", "h", "c", "n", "k", "filter_w", "filter_h"),
        *("pad_w", "pad_h", "stride_w", "stride_h"),
    ),
    "rnn": ("cell", "hidden", "batch", "timesteps"),
    "sparse": ("m", "n", "k", "sparsity"),
    "all_reduce": ("elements",),
    "computation": ("m", "n", "k"),
    "memory": ("kind", "size"),
    "interconnect": ("kind", "scope", "size"),
    "operator": ("name", "inputs"),
}
_SHORT = {
    "a_transposed": "a_t",
    "b_transposed": "b_t",
    "filter_w": "s",
    "filter_h": "r",
    "timesteps": "t",
}
# Beside the time: what each family is judged by.
FIGURES: Mapping[str, tuple[str, ...]] = {
    "gemm": ("tflops", "utilization"),
    "conv": ("tflops", "utilization"),
    "rnn": ("tflops", "utilization"),
    "sparse": ("tflops", "utilization", "dense_time", "speedup_vs_dense"),
    "all_reduce": ("algbw", "busbw", "utilization"),
    "computation": ("tflops", "utilization"),
    "memory": ("bandwidth", "capacity", "utilization"),
    "interconnect": ("bandwidth", "algbw", "busbw", "utilization"),
    "operator": ("tflops", "bandwidth", "utilization"),
}
_HEADERS = {
    "tflops": "TFLOP/s",
    "bandwidth": "GB/s",
    "algbw": "algbw GB/s",
    "busbw": "busbw GB/s",
    "capacity": "GiB",
    "utilization": "of peak",
    "dense_time": "dense",
    "speedup_vs_dense": "speed-up",
}
_TIMES = ("time", "dense_time")


def read(directories: Mapping[str, Path]) -> list[Result]:
    """The results of the tests (node id → directory with ``results.jsonl``); torn files give what they hold."""
    found: list[Result] = []
    for directory in dict.fromkeys(directories.values()):
        try:
            found += results.read_results(directory / results.RESULTS)
        except ReplayError:
            continue  # said in the terminal's summary
    return found


def find(session: Path) -> list[Result]:
    """The results of operators in a session's directory, or in one worker's of it."""
    paths = sorted([*session.glob(f"operators/*/{results.RESULTS}"), *session.glob(results.RESULTS)])
    return [result for path in paths for result in results.read_results(path)]


def summarize(terminalreporter: Any, directories: Mapping[str, Path]) -> None:
    """Write the tables at the end of the terminal's output; with ``-q`` only where something is amiss."""
    found = read(directories)
    if terminalreporter.config.get_verbosity() < 0 and all(one.verdict in verdict.WELL for one in found):
        return
    terminalreporter.section("FlagPerf operators")
    for line in text(found).splitlines():
        terminalreporter.write_line(line)
    session = next(iter(directories.values())).parent.parent
    terminalreporter.write_line(f"all figures: {session / CSV}, {session / JSON}")


def text(found: Sequence[Result], most: int | None = SHOWN_ROWS) -> str:
    """A table for each family, of ``most`` rows together; each family gets rows, what is amiss before the rest."""
    families = {family: [one for one in found if one.case.model == family] for family in SIZES}
    families = {family: rows for family, rows in families.items() if rows}
    shown = _shares({family: len(rows) for family, rows in families.items()}, most)
    parts = []
    for family, rows in families.items():
        chosen = _chosen(rows, shown[family])
        left = len(rows) - len(chosen)
        more = f"\n… and {left:,} more of {family_marker(family)} in {CSV}" if left else ""
        notes = "".join(f"\n{line}" for line in _published_notes(chosen))
        parts.append(f"{family_marker(family)}: {_tally(rows)}\n{_table(family, chosen)}{more}{notes}\n")
    return "\n".join(parts)


def _published_notes(rows: Iterable[Result]) -> list[str]:
    """What a reader of the published column has to know: whose mean of what, and what is wrong with it."""
    found = [one.operator["published"] for one in rows if "published" in one.operator]
    if not found:
        return []
    said = [f"arithmetic: {one['arithmetic']}" for one in found if one.get("arithmetic")]
    noted = [str(note) for one in found for note in one.get("notes", ())]
    where = ", ".join(dict.fromkeys(one["processor"] for one in found))
    lines = [f"published: DeepBench on {where}, means; ratio: that mean / time_mean of this run", *said, *noted]
    return [printable(line) for line in dict.fromkeys(lines)]


def _shares(counts: Mapping[str, int], most: int | None) -> dict[str, int]:
    """Rows for each family: a row each in turn until all are given away."""
    if most is None or sum(counts.values()) <= most:
        return dict(counts)
    shares = dict.fromkeys(counts, 0)
    turns = itertools.cycle(counts)
    for _ in range(most):
        family = next(name for name in turns if shares[name] < counts[name])
        shares[family] += 1
    return shares


def _chosen(rows: Sequence[Result], count: int) -> list[Result]:
    if count >= len(rows):
        return list(rows)
    amiss = [one for one in rows if one.verdict not in verdict.WELL]
    well = [one for one in rows if one.verdict == verdict.PASSED]
    kept = {id(one) for one in (*amiss, *well)[:count]}
    return [one for one in rows if id(one) in kept]


def _tally(rows: Iterable[Result]) -> str:
    counts: dict[str, int] = {}
    for one in rows:
        counts[one.verdict] = counts.get(one.verdict, 0) + 1
    return ", ".join(f"{count:,} {name}" for name, count in counts.items())


def _table(family: str, rows: Sequence[Result]) -> str:
    published = any("published" in one.operator for one in rows)
    figures = [name for name in FIGURES[family] if any(name in one.metrics for one in rows)]
    several = len({one.case.framework for one in rows}) > 1
    headers = [
        *(_SHORT.get(name, name) for name in SIZES[family]),
        *(["framework"] if several else []),
        *(["ranks"] if family in ("all_reduce", "interconnect") else []),
        "precision",
        "direction",
        "time",
        *(_HEADERS[name] for name in figures),
        *(["published", "ratio"] if published else []),
        "verdict",
    ]
    cells = [_cells(family, one, figures, several, published) for one in rows]
    alignment = ["right"] * (len(headers) - 1) + ["left"]
    return str(tabulate.tabulate(cells, headers=headers, disable_numparse=True, colalign=alignment))


def _cells(family: str, one: Result, figures: Sequence[str], several: bool, published: bool) -> list[str]:
    problem = one.operator.get("problem", {})
    theirs = one.operator.get("published", {})
    said = one.verdict if one.error is None else f"{one.verdict}: {one.error.type}"
    return [
        *(_size(name, problem.get(name)) for name in SIZES[family]),
        *([one.case.framework] if several else []),
        *([one.case.topology] if family in ("all_reduce", "interconnect") else []),
        one.case.precision,
        one.case.role,
        _figure(one, "time"),
        *(_figure(one, name) for name in figures),
        *([microseconds(theirs["time"]), f"{theirs['ratio']:.3g}"] if theirs else ["", ""] if published else []),
        printable(said + (" (estimated peak)" if _is_estimated(one) else "")),
    ]


def _is_estimated(one: Result) -> bool:
    return "utilization" in one.metrics and bool(one.operator.get("peak", {}).get("estimated"))


def _size(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return "T" if value else "N"
    if name == "inputs" and isinstance(value, list):
        return " ".join("x".join(map(str, shape)) or "scalar" for shape in value)
    return "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _figure(one: Result, name: str) -> str:
    metric = one.metrics.get(name)
    if metric is None:
        return ""
    if name in _TIMES:
        return microseconds(metric.value)
    if name == "utilization":
        return f"{100 * metric.value:.1f} %"
    return f"{metric.value:.3g}" if metric.value < 1000 else f"{metric.value:,.0f}"


def microseconds(value: float) -> str:
    """``12.3 µs``, ``4.56 ms`` or ``7.89 s``."""
    for limit, factor, unit in ((1e3, 1, "µs"), (1e6, 1e3, "ms")):
        if value < limit:
            return f"{value / factor:.3g} {unit}" if value / factor < 999.5 else f"{value / factor:.0f} {unit}"
    return f"{value / 1e6:.3g} s"


# --- files


def row(one: Result) -> dict[str, Any]:
    """Everything of one result but its samples, flat: a row of the CSV and an object of the JSON."""
    case, facts = one.case, one.operator
    peak, theirs = facts.get("peak", {}), facts.get("published", {})
    return {
        "family": case.model,
        "id": facts.get("id", ""),
        **{name: _size(name, value) for name, value in facts.get("problem", {}).items() if name in _ALL_SIZES},
        "sets": " ".join(facts.get("sets", ())),
        "precision": case.precision,
        "direction": case.role,
        "framework": case.framework,
        "topology": case.topology,
        "vendor": case.vendor,
        "chip": case.chip or "",
        "device": facts.get("device_name", ""),
        **{name: metric.value for name, metric in one.metrics.items()},
        "iterations": facts.get("iterations"),
        "ended": facts.get("ended"),
        "clock_of_times": facts.get("clock"),
        "cache": facts.get("request", {}).get("cache"),
        "padded": facts.get("padded"),
        "error_bound": facts.get("error_bound"),
        "peak": peak.get("value"),
        "peak_estimated": peak.get("estimated"),
        "roofline": facts.get("roofline"),
        "published_on": theirs.get("processor"),
        "published_time": theirs.get("time"),
        "published_ratio": theirs.get("ratio"),
        "published_arithmetic": theirs.get("arithmetic"),
        "published_source": theirs.get("source"),
        "published_notes": "; ".join(theirs.get("notes", ())),
        "verdict": one.verdict,
        "error": one.error.type if one.error else "",
        "notes": "; ".join(one.notes),
        "node_id": case.node_id,
    }


_ALL_SIZES = tuple(dict.fromkeys(name for names in SIZES.values() for name in names))
_COLUMNS = (
    *("family", "id", *_ALL_SIZES, "sets", "precision", "direction", "framework", "topology"),
    *("vendor", "chip", "device"),
)
_UNITS = {"published_time": "µs"}
_LAST = (
    *("iterations", "ended", "clock_of_times", "cache", "padded", "error_bound", "peak", "peak_estimated", "roofline"),
    *("published_on", "published_time", "published_ratio", "published_arithmetic", "published_source"),
    *("published_notes", "verdict", "error", "notes", "node_id"),
)


def as_csv(found: Sequence[Result]) -> str:
    """All results, a row each. The column of a metric has its unit in brackets: ``time [µs]``."""
    rows = [row(one) for one in found]
    figures = [name for name in metrics.known() if any(name in one for one in rows) and name not in _COLUMNS]
    written = io.StringIO()
    writer = csv.DictWriter(written, [*_COLUMNS, *figures, *_LAST], lineterminator="\n")
    writer.writerow({name: _headed(name) for name in writer.fieldnames})
    writer.writerows({name: "" if value is None else value for name, value in one.items()} for one in rows)
    return written.getvalue()


def _headed(column: str) -> str:
    """A column's title: with the unit where it is of a figure that has one."""
    metric = metrics.known().get(column)
    unit = metric.unit if metric else _UNITS.get(column, "")
    return f"{column} [{unit}]" if unit else column


def as_json(found: Sequence[Result]) -> dict[str, Any]:
    """The same as a document, with the units."""
    rows = [row(one) for one in found]
    units = {name: metric.unit for name, metric in metrics.known().items() if any(name in one for one in rows)}
    return {
        "schema_version": results.SCHEMA_VERSION,
        "units": units,
        "results": [{name: value for name, value in one.items() if value not in (None, "")} for one in rows],
    }


def write_files(session: Path, found: Sequence[Result]) -> None:
    """Write ``operators.csv`` and ``operators.json`` in the session's directory."""
    results.write_atomically(session / CSV, as_csv(found).encode())
    results.write_json(session / JSON, as_json(found))
