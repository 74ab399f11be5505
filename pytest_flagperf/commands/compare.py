"""``flagperf compare``: two sessions, or a baseline and a session, case by case and metric by metric."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import asdict
from dataclasses import dataclass
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING
from typing import Any


if TYPE_CHECKING:
    from pytest_flagperf.judging.baselines import Baseline
    from pytest_flagperf.result import ComparisonResult
    from pytest_flagperf.result import Result
    from pytest_flagperf.sessions import SessionFiles

MOST_REASONS = 3


@dataclass(frozen=True)
class Row:
    """A metric of a case in A and in B. ``change`` is B / A - 1, also where the two are not judged.

    ``interval`` bounds the change, ``tolerance`` is the change that does not count, ``method`` how it was judged, and
    ``samples`` has those of ``a`` and ``b`` that it was judged by.
    """

    case: str
    metric: str
    unit: str
    a: float | None
    b: float | None
    change: float | None
    verdict: str
    reasons: tuple[str, ...] = ()
    interval: tuple[float, float] | None = None
    tolerance: float | None = None
    method: str = ""
    samples: Mapping[str, Sequence[float]] = field(default_factory=dict)


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The command's arguments."""
    one = commands.add_parser("compare", help="compare two sessions, or a baseline file and a session")
    one.add_argument("a", type=Path, metavar="A", help="what to compare with: a session, or a baseline's TOML file")
    one.add_argument("b", type=Path, metavar="B", help="the session in question")
    one.add_argument("--metric", action="append", default=[], metavar="NAME", help="only this one; several times")
    one.add_argument("--case", metavar="PART", default="", help="only cases with this in their id")
    one.add_argument(
        "--fail-on-regression",
        action="store_true",
        help="exit with 1 where something regressed or failed, B lacks a case of A, or nothing could be compared",
    )
    one.add_argument(
        "--missing",
        choices=("fail", "ok"),
        default="fail",
        help="with --fail-on-regression: what a case of A that B did not measure does (default: fail)",
    )
    one.add_argument("--json", action="store_true", help="print everything as JSON")
    one.set_defaults(run=run, misused=one.error)


def run(chosen: argparse.Namespace) -> int:
    """Print the table. 1 with ``--fail-on-regression`` where something regressed or failed in B, where B lacks a case,
    or where nothing could be compared; 2 where A or B is nothing, or a metric that there is not was asked for.
    """
    from pytest_flagperf import sessions
    from pytest_flagperf import verdict
    from pytest_flagperf.errors import FlagPerfError
    from pytest_flagperf.judging import baselines
    from pytest_flagperf.judging import gathering
    from pytest_flagperf.reports import trend

    try:
        second = sessions.read(chosen.b)
        if chosen.a.is_file():
            first, baseline = None, baselines.load(chosen.a)
        else:
            first = sessions.read(chosen.a)
            # Whoever names a metric wants it judged, be it one that no baseline has by itself.
            baseline = gathering.from_sessions(
                [first], origin=str(chosen.a), chosen=chosen.metric, accepted=gathering.CHANGED
            )
    except FlagPerfError as error:
        chosen.misused(str(error))
    _check_metrics(chosen, [*(first.results if first is not None else ()), *second.results], baseline)
    results = [one for one in second.results if chosen.case in one.case.id]
    rows = compared(baseline, first, second, results, chosen.metric)
    apart = different(first, second, baseline)
    known = {one.id for one in baseline.case} | set(baseline.left_out)
    known |= {one.case.id for one in first.results} if first is not None else set()
    only = {
        "a": sorted(one for one in known - {r.case.id for r in second.results} if chosen.case in one),
        "b": sorted({one.case.id for one in results} - known),
    }
    if chosen.json:
        print(json.dumps(_document(chosen, apart, rows, only), indent=2))
    else:
        print(_text(chosen, apart, rows, only))
    if first is not None and first.directory == second.directory:
        print("flagperf: A and B are the same session", file=sys.stderr)
    if not rows and not chosen.json:
        print("flagperf: A and B share no case and metric", file=sys.stderr)
    if not chosen.fail_on_regression:
        return 0
    amiss = [row for row in rows if row.verdict in (verdict.REGRESSED, verdict.INVALID, verdict.WRONG)]
    decided = [row for row in rows if row.verdict in (verdict.PASSED, verdict.IMPROVED, verdict.INCONCLUSIVE)]
    if not amiss and not decided:
        print("flagperf: nothing was compared, so nothing is known of regressions", file=sys.stderr)
    missing = _missing(baseline, results, only["a"]) if chosen.missing == "fail" else []
    if missing:
        names = trend.shown(", ".join(missing), trend.signs(sys.stderr.encoding))
        print(f"flagperf: B did not measure what A did: {names}. --missing=ok lets it pass", file=sys.stderr)
    return 1 if amiss or missing or not decided else 0


def _check_metrics(chosen: argparse.Namespace, results: Sequence[Result], baseline: Baseline) -> None:
    """A metric may be a suite's own, which is registered where its tests run only: A or B has it then."""
    from pytest_flagperf import metrics

    foreign = [name for name in chosen.metric if name not in metrics.known()]
    there = {name for one in results for name in one.metrics} | {name for one in baseline.case for name in one.metric}
    for name in foreign:
        if name not in there:
            chosen.misused(f"--metric: there is no metric {name!r}; flagperf metrics lists those there are")


def _missing(baseline: Baseline, results: Sequence[Result], only: Sequence[str]) -> list[str]:
    """The cases with figures in A that have none in B: they are not there, or not supported any more."""
    from pytest_flagperf import verdict

    gone = {one.case.id for one in results if one.verdict == verdict.UNSUPPORTED} | set(only)
    return [one.id for one in baseline.case if one.id in gone]


def compared(
    baseline: Baseline,
    first: SessionFiles | None,
    second: SessionFiles,
    results: Sequence[Result],
    wanted: Sequence[str] = (),
) -> list[Row]:
    """A row for each case that both have and each metric that is judged, or that was asked for."""
    from pytest_flagperf.judging import baselines
    from pytest_flagperf.judging import compare

    hardware = baselines.hardware(second.description)
    before = {one.case.id: one for one in first.results} if first is not None else {}
    rows: list[Row] = []
    for result in results:
        if result.case.id not in before and baseline.of(result.case.id) is None:
            continue
        found = compare.judge(result, baseline, hardware)
        if not found:
            rows.append(_unmeasured(result, before.get(result.case.id)))
        rows += [_row(result, before.get(result.case.id), one) for one in found if not wanted or one.metric in wanted]
    return rows


def _row(result: Result, before: Result | None, one: ComparisonResult) -> Row:
    from pytest_flagperf.judging import gathering
    from pytest_flagperf.judging import statistics

    known = result.metrics.get(one.metric) or (before.metrics.get(one.metric) if before is not None else None)
    old = before.metrics.get(one.metric) if before is not None else None
    a = one.baseline if one.baseline is not None or old is None else old.value
    b = one.value
    # Of what is not judged the ratio is shown all the same: the reader sees what differs beside it.
    change = one.change
    if change is None and a is not None and b is not None:
        change = statistics.change(b, a)
    unit = known.unit if known is not None else ""
    return Row(
        result.case.id,
        one.metric,
        unit,
        a,
        b,
        change,
        one.verdict,
        tuple(_reasons(one)),
        (one.interval[0], one.interval[1]) if one.interval else None,
        one.tolerance,
        one.method,
        {"a": one.samples, "b": gathering.samples(result, one.metric)},
    )


def _reasons(one: ComparisonResult) -> list[str]:
    """Why it is so. What is inconclusive says so by its figures only: here they are words."""
    from pytest_flagperf import verdict

    if one.verdict != verdict.INCONCLUSIVE or not one.method or one.tolerance is None:
        return list(one.reasons)
    beyond = f"a loss of more than {100 * one.tolerance:.3g} %"
    if one.interval is None:
        _, _, found = one.method.rpartition(": ")
        return [f"{beyond}, and {found}", *one.reasons]
    low, high = one.interval
    return [f"{beyond} is not excluded: interval {100 * low:+.1f} .. {100 * high:+.1f} %", *one.reasons]


def _unmeasured(result: Result, before: Result | None) -> Row:
    """B's measurement failed: nothing of it is compared, and nobody shall overlook it."""
    why = f"{result.error.type}: {result.error.message.splitlines()[0]}" if result.error else result.verdict
    was = f"was {before.verdict}" if before is not None else ""
    return Row(result.case.id, "", "", None, None, None, result.verdict, tuple(filter(None, (why, was))))


def different(first: SessionFiles | None, second: SessionFiles, baseline: Baseline) -> list[tuple[str, str, str]]:
    """(what, in A, in B) of everything around the cases that differs: host, vendor, chip, software, commit."""
    a = _surroundings(first) if first is not None else _of_baseline(baseline)
    b = _surroundings(second)
    names = dict.fromkeys([*a, *b])
    # A baseline file does not tell the host: what one side never tells does not differ.
    told = [name for name in names if first is not None or name in a]
    return [(name, a.get(name, ""), b.get(name, "")) for name in told if a.get(name, "") != b.get(name, "")]


def _surroundings(session: SessionFiles) -> dict[str, str]:
    from pytest_flagperf import sessions
    from pytest_flagperf.judging import baselines

    description = session.description
    host, commit = sessions.table(description, "host"), sessions.commit_of(description)
    stacks: dict[str, list[str]] = {}
    for result in session.results:
        for name, version in result.stack.items():
            stacks.setdefault(name, []).append(version)
    versions = {name: ", ".join(dict.fromkeys(found)) for name, found in stacks.items()}
    found = {
        "host": str(host.get("name", "")),
        "platform": str(host.get("platform", "")),
        "processor": f"{host.get('cpu', '')}, {host.get('cpus', '?')} processors" if host else "",
        "memory": f"{host['memory_gib']} GiB" if "memory_gib" in host else "",
        "vendor": ", ".join(dict.fromkeys(one.case.vendor for one in session.results)),
        "chip": ", ".join(dict.fromkeys(one.case.chip or "" for one in session.results)),
        "devices": baselines.hardware(description),
        "commit": " ".join(part[:12] for part in commit.split()),
        **(versions or {name: str(text) for name, text in sessions.table(description, "versions").items()}),
    }
    return {name: text for name, text in found.items() if text}


def _of_baseline(baseline: Baseline) -> dict[str, str]:
    stacks: dict[str, list[str]] = {}
    for case in baseline.case:
        for name, version in case.stack.items():
            stacks.setdefault(name, []).append(version)
    found = {
        "vendor": baseline.vendor,
        "chip": baseline.chip,
        "devices": baseline.hardware,
        **{name: ", ".join(dict.fromkeys(versions)) for name, versions in stacks.items()},
    }
    return {name: text for name, text in found.items() if text}


def _document(
    chosen: argparse.Namespace,
    apart: Sequence[tuple[str, str, str]],
    rows: Sequence[Row],
    only: Mapping[str, list[str]],
) -> dict[str, Any]:
    return {
        "a": str(chosen.a),
        "b": str(chosen.b),
        "differences": {name: {"a": a, "b": b} for name, a, b in apart},
        "comparisons": [asdict(row) for row in rows],
        "only": dict(only),
        "verdicts": _counts(rows),
    }


def _counts(rows: Sequence[Row]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for row in rows:
        counts[row.verdict] = counts.get(row.verdict, 0) + 1
    return counts


def _text(
    chosen: argparse.Namespace,
    apart: Sequence[tuple[str, str, str]],
    rows: Sequence[Row],
    only: Mapping[str, list[str]],
) -> str:
    import tabulate

    from pytest_flagperf.reports import trend

    drawn = trend.signs(sys.stdout.encoding)
    parts = [f"A  {chosen.a}\nB  {chosen.b}"]
    if apart:
        cells = [[trend.shown(cell, drawn) for cell in row] for row in apart]
        parts.append("What differs around them\n" + tabulate.tabulate(cells, headers=("", "A", "B")))
    if rows:
        cells = [[trend.shown(cell, drawn) for cell in _cells(row)] for row in rows]
        headers = ("case", "metric", "A", "B", "change", "verdict", "why")
        alignment = ("left", "left", "right", "right", "right", "left", "left")
        widths = [None, None, None, None, None, None, 60]
        parts.append(
            tabulate.tabulate(cells, headers=headers, disable_numparse=True, colalign=alignment, maxcolwidths=widths)
        )
    parts += [
        f"only in {side.upper()}: {trend.shown(', '.join(names), drawn)}" for side, names in only.items() if names
    ]
    parts.append(", ".join(f"{count} {name}" for name, count in _counts(rows).items()) or "nothing to compare")
    return "\n\n".join(parts)


def _cells(row: Row) -> list[str]:
    from pytest_flagperf.reports import trend

    more = len(row.reasons) - MOST_REASONS
    reasons = [*row.reasons[:MOST_REASONS], *([f"and {more} more (--json)"] if more > 0 else [])]
    return [
        row.case,
        row.metric,
        "" if row.a is None else trend.figure(row.a, row.unit),
        "" if row.b is None else trend.figure(row.b, row.unit),
        trend.percent(row.change),
        row.verdict,
        "; ".join(reasons),
    ]
