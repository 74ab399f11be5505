"""``flagperf history``: the figures of all sessions over time, and where they changed."""

from __future__ import annotations

import argparse
import csv
import datetime
import fnmatch
import json
import sys
from collections.abc import Iterator
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from typing import Any


if TYPE_CHECKING:
    from pytest_flagperf.history import History
    from pytest_flagperf.reports.trend import Signs
    from pytest_flagperf.series import Key
    from pytest_flagperf.series import Series
    from pytest_flagperf.trends import ChangePoint

    Found = list[tuple[Series, list[ChangePoint]]]

# What is shown where no metric is asked for: the first that there is.
PREFERRED = ("time_to_target", "p_train", "p_whole", "qps", "time", "capacity")
# More series than these are a table with a row each.
MOST_IN_FULL = 4
LAST = 30


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The command's arguments."""
    one = commands.add_parser("history", help="print and draw the figures of all sessions over time")
    one.add_argument(
        "case", nargs="?", default="*", metavar="CASE", help="part of a case's id, or a pattern with * (default: all)"
    )
    one.add_argument("--dir", type=Path, default=Path("flagperf-results"), help="where the sessions are")
    one.add_argument("--metric", action="append", default=[], metavar="NAME", help="may be given several times, or all")
    one.add_argument("--vendor", help="only this vendor's")
    one.add_argument("--since", type=_moment, default=0.0, metavar="DATE", help="YYYY-MM-DD, or 30d for 30 days ago")
    one.add_argument(
        "--last", type=_rows_to_print, default=LAST, metavar="N", help=f"rows to print, 0 for all (default: {LAST})"
    )
    one.add_argument("--json", action="store_true", help="print everything as JSON")
    one.add_argument("--csv", action="store_true", help="print a row for each figure")
    one.add_argument("--svg", type=Path, metavar="FILE", help="draw a chart there; needs pytest-flagperf[allure]")
    one.add_argument("--update", action="store_true", help="only take new and changed sessions in")
    one.add_argument("--no-update", action="store_true", help="do not look for new sessions")
    one.add_argument("--prune", action="store_true", help="forget sessions that are no longer on disk")
    one.set_defaults(run=run, misused=one.error)


def run(chosen: argparse.Namespace) -> int:
    """Take in what is new, then print what was asked for. 1 where nothing is known of the case."""
    from pytest_flagperf import history as histories

    if not chosen.dir.is_dir():
        chosen.misused(f"--dir: {chosen.dir} is not a directory")
    _check_directory(chosen, histories.DATABASE)
    with histories.History(chosen.dir.resolve() / histories.DATABASE) as history:
        if not chosen.no_update:
            _update(history, chosen)
        if chosen.prune:
            print(f"{history.asked(history.prune)} sessions that are no longer on disk are forgotten", file=sys.stderr)
        asked = not (chosen.update or chosen.prune)
        found = history.asked(lambda: _find(history, chosen)) if asked else []
        unknown = history.asked(lambda: _unknown(history, chosen.metric)) if asked else []
        for message in history.messages:
            print(f"flagperf: {message}", file=sys.stderr)
    if not asked:
        return 0
    if unknown:
        chosen.misused(f"--metric: {'; '.join(unknown)}")
    if not found:
        print(_nothing(chosen), file=sys.stderr)
        return 1
    if chosen.svg is not None:
        _write_svg(chosen, found)
    if chosen.json:
        print(json.dumps([_document(series, changes) for series, changes in found], indent=2))
    elif chosen.csv:
        _print_csv(found)
    else:
        _print(found, chosen.last)
    return 0


def _check_directory(chosen: argparse.Namespace, database: str) -> None:
    """Nothing is left behind in a directory that has nothing to do with sessions."""
    from pytest_flagperf import sessions

    if (chosen.dir / database).exists():
        return
    if sessions.is_session(chosen.dir):
        chosen.misused(f"--dir: {chosen.dir} is one session: name the directory that it is in")
    # Raises ReplayError where there are none.
    sessions.find(chosen.dir)


def _unknown(history: History, asked: Sequence[str]) -> list[str]:
    """The metrics that are neither registered nor in the history. A suite may have one of its own, which is registered
    where its tests run only.
    """
    from pytest_flagperf import metrics

    foreign = [name for name in asked if name != "all" and name not in metrics.known()]
    measured = {name for key in history.known() for name in history.metrics(key)} if foreign else ()
    return [
        f"there is no metric {name!r}; flagperf metrics lists those there are"
        for name in foreign
        if name not in measured
    ]


def _update(history: History, chosen: argparse.Namespace) -> None:
    found = history.update(chosen.dir)
    for problem in found.problems:
        print(f"flagperf: {problem}", file=sys.stderr)
    if chosen.update:
        print(f"{found.read} sessions read, {found.unchanged} unchanged, {found.gone} known that are no longer on disk")


def _find(history: History, chosen: argparse.Namespace) -> Found:
    from pytest_flagperf import trends

    pattern = chosen.case if any(c in chosen.case for c in "*?[") else f"*{chosen.case}*"
    keys = [
        key for key in history.known() if fnmatch.fnmatchcase(key.case, pattern) and chosen.vendor in (None, key.vendor)
    ]
    found = [
        series
        for key in keys
        for name in _names(history, key, chosen.metric)
        if (series := history.series(key, name, chosen.since)) is not None
    ]
    return [(series, trends.change_points(series)) for series in found]


def _names(history: History, key: Key, asked: Sequence[str]) -> list[str]:
    if asked and "all" not in asked:
        return list(asked)
    known = history.metrics(key)
    if asked:
        return known
    return next(([name] for name in PREFERRED if name in known), known[:1])


def _nothing(chosen: argparse.Namespace) -> str:
    asked = [
        "any case" if chosen.case == "*" else f"case {chosen.case!r}",
        *(f"metric {name!r}" for name in chosen.metric),
    ]
    asked += [f"vendor {chosen.vendor!r}"] if chosen.vendor else []
    asked += [f"since {datetime.datetime.fromtimestamp(chosen.since):%Y-%m-%d}"] if chosen.since else []
    return (
        f"flagperf: nothing is known of {', '.join(asked)} in {chosen.dir}. Invalid measurements, replays and runs on "
        "stand-ins do not enter the history; flagperf history without a case lists what does"
    )


def _print(found: Found, last: int) -> None:
    import tabulate

    from pytest_flagperf.reports import trend
    from pytest_flagperf.trends import differences

    drawn = trend.signs(sys.stdout.encoding)
    if len(found) > MOST_IN_FULL:
        rows = [[trend.shown(cell, drawn) for cell in _overview(*one, drawn)] for one in found]
        headers = ("case", "metric", "runs", "last", "date", "change", "trend", "changes")
        print(tabulate.tabulate(rows, headers=headers, disable_numparse=True))
        print(f"\n{len(found)} series: flagperf history CASE prints and draws up to {MOST_IN_FULL} in full")
        return
    for series, changes in found:
        print(trend.shown(f"{series.key}: {series.metric} ({series.unit}, {series.better} is better)", drawn))
        print(trend.table(series, changes, differences, last=last or None, drawn=drawn))
        if len(series.points) > 1:
            print(f"\n{trend.plot(series, changes, drawn)}")
        print(f"\n{_said(series, changes, drawn)}\n")


def _said(series: Series, changes: list[ChangePoint], drawn: Signs) -> str:
    from pytest_flagperf.reports import trend

    if not changes:
        return f"no change found in {len(series.points)} run{'s' if len(series.points) != 1 else ''}"
    lines = []
    for one in changes:
        why = "; ".join(one.reasons) or "nothing that is recorded changed with it"
        when = trend.date(series.points[one.index].time)
        lines.append(trend.shown(f"{when}  {trend.told(one, series, drawn)}: {why}", drawn))
    return "\n".join(lines)


def _overview(series: Series, changes: list[ChangePoint], drawn: Signs) -> list[str]:
    from pytest_flagperf.judging import statistics
    from pytest_flagperf.reports import trend

    values = [point.value for point in series.points]
    change = statistics.change(values[-1], values[-2]) if len(values) > 1 else None
    return [
        str(series.key),
        series.metric,
        str(len(values)),
        trend.figure(values[-1], series.unit),
        trend.date(series.points[-1].time),
        trend.percent(change),
        trend.sparkline(values, drawn=drawn),
        f"{len(changes)}, last {trend.told(changes[-1], series, drawn)}" if changes else "",
    ]


def _document(series: Series, changes: list[ChangePoint]) -> dict[str, Any]:
    return {
        "case": series.key.case,
        "vendor": series.key.vendor,
        "hardware": series.key.hardware,
        "variant": series.key.variant,
        "metric": series.metric,
        "unit": series.unit,
        "better": series.better,
        "points": [
            {
                "time": point.time,
                "session": point.session,
                "value": point.value,
                "samples": list(point.samples),
                "interval": None if point.low is None else [point.low, point.high],
                "verdict": point.verdict,
                "compared": point.compared or None,
                "host": point.host,
                "commit": point.commit,
                "stack": point.stack,
                "deleted": point.gone,
            }
            for point in series.points
        ],
        "changes": [
            {
                "time": series.points[change.index].time,
                "session": series.points[change.index].session,
                "before": change.before,
                "after": change.after,
                "change": change.change,
                "probability": change.probability,
                "better": change.better,
                "reasons": list(change.reasons),
            }
            for change in changes
        ],
    }


def _print_csv(found: Found) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(
        ("case", "vendor", "hardware", "variant", "metric", "unit", "time", "session", "value", "verdict", "change")
    )
    for series, changes in found:
        writer.writerows(_rows(series, changes))


def _rows(series: Series, changes: list[ChangePoint]) -> Iterator[list[Any]]:
    marked = {change.index: change.change for change in changes}
    key = series.key
    for index, point in enumerate(series.points):
        when = datetime.datetime.fromtimestamp(point.time, datetime.UTC).isoformat(timespec="seconds")
        yield [
            *(key.case, key.vendor, key.hardware, key.variant, series.metric, series.unit),
            *(when, point.session, repr(point.value), point.verdict, f"{marked[index]:.6g}" if index in marked else ""),
        ]


def _write_svg(chosen: argparse.Namespace, found: Found) -> None:
    from importlib.util import find_spec

    from pytest_flagperf.reports import reading
    from pytest_flagperf.reports import trend

    if find_spec("pygal") is None:
        chosen.misused("--svg: pygal is not installed: pip install 'pytest-flagperf[allure]'")
    if len({series.unit for series, _ in found}) > 1:
        chosen.misused("--svg: one chart shows one unit; choose with --metric")
    text = trend.as_svg([series for series, _ in found], {n: changes for n, (_, changes) in enumerate(found)})
    reading.write(chosen.svg, text.encode())
    print(f"wrote {chosen.svg}", file=sys.stderr)


def _rows_to_print(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is no number of rows: 0 for all, or 1 and more")
    return int(text)


def _moment(text: str) -> float:
    if text.endswith("d") and text[:-1].isdigit():
        return datetime.datetime.now().timestamp() - int(text[:-1]) * 86_400
    try:
        return datetime.datetime.fromisoformat(text).timestamp()
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a date such as 2026-03-01 nor 30d") from None
