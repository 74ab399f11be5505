"""The results of operators as a table in DeepBench's column order, as CSV and as JSON. Nothing is computed here."""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tabulate

from pytest_flagperf import metrics
from pytest_flagperf import records
from pytest_flagperf import result as results
from pytest_flagperf import verdict
from pytest_flagperf import words
from pytest_flagperf.errors import ReplayError
from pytest_flagperf.operators import figures
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
    "bandwidth": "GB/s",
    "algbw": "algbw GB/s",
    "busbw": "busbw GB/s",
    "capacity": "GiB",
    "utilization": "of peak",
    "dense_time": "dense",
    "speedup_vs_dense": "speed-up",
}
_TIMES = ("time", "dense_time")
_INTEGERS = ("int8", *words.ELEMENT_TYPES)
# Below this (in TFLOP/s) a rate is shown in GFLOP/s.
_TINY = 0.1


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
    session = terminalreporter.config.stash.get(words.SESSION, None)
    published = session.options.published if session is not None else None
    for line in text(found, published=published).splitlines():
        terminalreporter.write_line(line)
    directory = next(iter(directories.values())).parent.parent
    terminalreporter.write_line(f"all figures: {directory / CSV}, {directory / JSON}")


def text(found: Sequence[Result], most: int | None = SHOWN_ROWS, published: str | None = None) -> str:
    """A table for each family, of ``most`` rows together; each family gets rows, what is amiss before the rest.

    ``published`` is the processor whose published times were asked for.
    """
    families = {family: [one for one in found if one.case.model == family] for family in SIZES}
    families = {family: rows for family, rows in families.items() if rows}
    shown = _shares({family: len(rows) for family, rows in families.items()}, most)
    parts = []
    for family, rows in families.items():
        chosen = _chosen(rows, shown[family])
        left = len(rows) - len(chosen)
        more = f"\n… and {left:,} more of {family_marker(family)} in {CSV}" if left else ""
        notes = "".join(f"\n{line}" for line in (*_notes(rows), *_published_notes(family, rows, chosen, published)))
        parts.append(f"{family_marker(family)}: {_tally(rows)}\n{_table(family, chosen)}{more}{notes}\n")
    return "\n".join(parts)


def _notes(rows: Sequence[Result]) -> list[str]:
    """What a reader has to know of the figures of a table, all its rows counted."""
    timed = [one for one in rows if "time" in one.metrics]
    unknown = sum(one.operator.get("ended") == "budget" for one in timed)
    slow = sum(any(note.startswith(figures.SLOW_DENSE) for note in one.notes) for one in rows)
    lines = []
    if unknown:
        median, are = ("median", "is") if len(timed) == 1 else ("medians", "are" if unknown > 1 else "is")
        lines.append(f"{unknown:,} of {len(timed):,} {median} {are} not known to 2 %: the budget was spent before")
    if slow:
        lines.append(f"speed-up: above 1 / density in {slow:,}; there the dense call is slow, not the sparse one fast")
    return lines


def _published_notes(
    family: str, rows: Sequence[Result], chosen: Sequence[Result], processor: str | None
) -> Iterator[str]:
    """What a reader of the published column has to know: whose mean of what, and what is wrong with it."""
    found = [one.operator["published"] for one in chosen if "published" in one.operator]
    if found:
        said = [f"arithmetic: {one['arithmetic']}" for one in found if one.get("arithmetic")]
        noted = [str(note) for one in found for note in one.get("notes", ())]
        where = ", ".join(dict.fromkeys(one["processor"] for one in found))
        lines = [f"published: DeepBench on {where}, means; ratio: that mean / time_mean of this run", *said, *noted]
        yield from (printable(line) for line in dict.fromkeys(lines))
    elif processor is not None and not any("published" in one.operator for one in rows):
        from pytest_flagperf.operators.published import families

        what = "these problems of " if family in families(processor) else ""
        yield f"{processor}: nothing is published for {what}{family_marker(family)}"


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
    shown = [name for name in FIGURES[family] if any(name in one.metrics for one in rows)]
    several = len({one.case.framework for one in rows}) > 1
    spreads = any(spread(one) for one in rows)
    headers = [
        *(_SHORT.get(name, name) for name in SIZES[family]),
        *(["framework"] if several else []),
        *(["ranks"] if family in ("all_reduce", "interconnect") else []),
        "precision",
        "direction",
        "time",
        *(["±"] if spreads else []),
        *(rate_header(rows) if name == "tflops" else _HEADERS[name] for name in shown),
        *(["published", "ratio"] if published else []),
        "verdict",
    ]
    cells = [_cells(family, one, shown, several, published, spreads) for one in rows]
    alignment = ["right"] * (len(headers) - 1) + ["left"]
    return str(tabulate.tabulate(cells, headers=headers, disable_numparse=True, colalign=alignment))


def _cells(family: str, one: Result, shown: Sequence[str], several: bool, published: bool, spreads: bool) -> list[str]:
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
        *([spread(one)] if spreads else []),
        *(_figure(one, name) for name in shown),
        *([microseconds(theirs["time"]), f"{theirs['ratio']:.3g}"] if theirs else ["", ""] if published else []),
        printable(said + (" (estimated peak)" if is_estimated(one) else "")),
    ]


def spread(one: Result) -> str:
    """How well the median is known: ``±2 %``, half its 95 % interval; with less than six samples ``cv 41 %``."""
    interval, time = one.operator.get("interval"), one.metrics.get("time")
    if interval and time is not None:
        return f"±{figures.percent(figures.half_width(time.value, interval))}"
    return f"cv {figures.percent(one.metrics['cv'].value)}" if "cv" in one.metrics else ""


def rate_header(rows: Iterable[Result]) -> str:
    """``TFLOP/s``; of integers ``TOP/s``: their operations are none of floating point."""
    integers = {one.case.precision: one.case.precision in _INTEGERS for one in rows if "tflops" in one.metrics}
    if all(integers.values()):
        return "TOP/s" if integers else "TFLOP/s"
    named = ", ".join(name for name, is_integer in integers.items() if is_integer)
    return f"TFLOP/s ({named}: TOP/s)" if named else "TFLOP/s"


def _rate(one: Result, value: float) -> str:
    if 0 < value < _TINY:
        return f"{1000 * value:.3g} {'GOP/s' if one.case.precision in _INTEGERS else 'GFLOP/s'}"
    return _number(value)


def _number(value: float) -> str:
    return f"{value:.3g}" if value < 1000 else f"{value:,.0f}"


def is_estimated(one: Result) -> bool:
    """Whether the peak that its utilization is a share of is an estimate."""
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
    return _rate(one, metric.value) if name == "tflops" else _number(metric.value)


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
    low, high = facts.get("interval") or (None, None)
    return {
        "family": case.model,
        "id": facts.get("id", ""),
        **{name: value for name, value in facts.get("problem", {}).items() if name in _ALL_SIZES},
        "sets": list(facts.get("sets", ())),
        "precision": case.precision,
        "direction": case.role,
        "framework": case.framework,
        "topology": case.topology,
        "vendor": case.vendor,
        "chip": case.chip or "",
        "device": facts.get("device_name", ""),
        **{name: metric.value for name, metric in one.metrics.items()},
        "interval_low": low,
        "interval_high": high,
        "iterations": facts.get("iterations"),
        "ended": facts.get("ended"),
        "clock_of_times": facts.get("clock"),
        "cache": facts.get("request", {}).get("cache"),
        "padded": facts.get("padded"),
        "error_bound": facts.get("error_bound"),
        "peak": peak.get("value"),
        "peak_unit": _peak_unit(case.precision, peak.get("unit")),
        "peak_estimated": peak.get("estimated"),
        "roofline": facts.get("roofline"),
        "published_on": theirs.get("processor"),
        "published_time": theirs.get("time"),
        "published_ratio": theirs.get("ratio"),
        "published_arithmetic": theirs.get("arithmetic"),
        "published_source": theirs.get("source"),
        "published_notes": list(theirs.get("notes", ())),
        "verdict": one.verdict,
        "error": one.error.type if one.error else "",
        "notes": list(one.notes),
        "node_id": case.node_id,
    }


def _peak_unit(precision: str, unit: str | None) -> str | None:
    return "TOP/s" if unit == "TFLOP/s" and precision in _INTEGERS else unit


_ALL_SIZES = tuple(dict.fromkeys(name for names in SIZES.values() for name in names))
_COLUMNS = (
    *("family", "id", *_ALL_SIZES, "sets", "precision", "direction", "framework", "topology"),
    *("vendor", "chip", "device"),
)
_UNITS = {"published_time": "µs", "interval_low": "µs", "interval_high": "µs"}
_LAST = (
    *("interval_low", "interval_high", "iterations", "ended", "clock_of_times", "cache", "padded", "error_bound"),
    *("peak", "peak_unit", "peak_estimated", "roofline"),
    *("published_on", "published_time", "published_ratio", "published_arithmetic", "published_source"),
    *("published_notes", "verdict", "error", "notes", "node_id"),
)


def as_csv(found: Sequence[Result]) -> str:
    """All results, a row each. The column of a metric has its unit in brackets: ``time [µs]``."""
    rows = [row(one) for one in found]
    measured = [name for name in metrics.known() if any(name in one for one in rows) and name not in _COLUMNS]
    written = io.StringIO()
    writer = csv.DictWriter(written, [*_COLUMNS, *measured, *_LAST], lineterminator="\n")
    writer.writerow({name: _headed(name) for name in writer.fieldnames})
    writer.writerows({name: _cell(name, value) for name, value in one.items()} for one in rows)
    return written.getvalue()


def _cell(column: str, value: Any) -> Any:
    """A value as it stands in the CSV, which knows texts and numbers alone."""
    if column in _ALL_SIZES:
        return _size(column, value)
    if isinstance(value, list):
        return (" " if column == "sets" else "; ").join(map(str, value))
    return "" if value is None else value


def _headed(column: str) -> str:
    """A column's title: with the unit where it is of a figure that has one."""
    metric = metrics.known().get(column)
    unit = metric.unit if metric else _UNITS.get(column, "")
    return f"{column} [{unit}]" if unit else column


def as_json(found: Sequence[Result]) -> dict[str, Any]:
    """The same as a document, with the units. Numbers, booleans and lists are what they are, no texts."""
    rows = [row(one) for one in found]
    units = {name: metric.unit for name, metric in metrics.known().items() if any(name in one for one in rows)}
    units |= {name: unit for name, unit in _UNITS.items() if any(one[name] is not None for one in rows)}
    return {
        "schema_version": results.SCHEMA_VERSION,
        "units": units,
        "results": [{name: value for name, value in one.items() if value not in (None, "", [])} for one in rows],
    }


def write_files(session: Path, found: Sequence[Result]) -> None:
    """Write ``operators.csv`` and ``operators.json`` in the session's directory."""
    records.write_atomically(session / CSV, as_csv(found).encode())
    records.write_json(session / JSON, as_json(found))
