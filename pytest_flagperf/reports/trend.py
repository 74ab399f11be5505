"""A series of figures over time: as a table, as a drawing of characters, as SVG. Nothing is computed here."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING
from typing import Any

import tabulate

from pytest_flagperf.reports.progress import printable


if TYPE_CHECKING:
    from pytest_flagperf.series import Point
    from pytest_flagperf.series import Series
    from pytest_flagperf.trends import ChangePoint

HEIGHT, WIDTH = 8, 72
MOST_POINTS = 1000
COLUMNS = ("date", "value", "change", "verdict", "changed with it")


@dataclass(frozen=True)
class Signs:
    """What a plot is drawn with: ``bars`` from the lowest to the full one, and how a change is marked."""

    bars: str
    better: str
    worse: str
    axis: str
    arrow: str
    dots: str


UNICODE = Signs("▁▂▃▄▅▆▇█", "▲", "▼", "│", "→", "…")
ASCII = Signs("_-+#", "^", "v", "|", "->", "...")


def signs(encoding: str | None) -> Signs:
    """Those that an output of this encoding can show."""
    try:
        (UNICODE.bars + UNICODE.better + UNICODE.axis).encode(encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return ASCII
    return UNICODE


def date(seconds: float, *, clock: bool = True) -> str:
    """Unix time as a date in the reader's time zone."""
    return datetime.datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M" if clock else "%Y-%m-%d")


def figure(value: float, unit: str) -> str:
    """A value as people write it: ``45,532 samples/s``, ``0.7235``."""
    text = f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"
    return text if unit in ("ratio", "1") else f"{text} {unit}"


def percent(change: float | None) -> str:
    """A change as ``+4.2 %``; empty where there is none."""
    return "" if change is None else f"{100 * change:+.1f} %"


def table(
    series: Series,
    changes: Sequence[ChangePoint],
    differences: Callable[[Point, Point], Sequence[str]],
    *,
    last: int | None = None,
    drawn: Signs = UNICODE,
) -> str:
    """A row for each of the ``last`` runs, the oldest first; change points are marked, with what came with them."""
    marked = {change.index: change for change in changes}
    points = series.points
    begin = 0 if last is None else max(0, len(points) - last)
    rows = []
    for index in range(begin, len(points)):
        one, before = points[index], points[index - 1] if index else None
        change = None if before is None or not before.value else one.value / before.value - 1
        reasons = [] if before is None else list(differences(before, one))
        if index in marked:
            reasons.insert(0, told(marked[index], series, drawn))
        said = one.verdict + (f", {one.compared}" if one.compared and one.compared != one.verdict else "")
        rows.append(
            [
                date(one.time) + (" (deleted)" if one.gone else ""),
                interval(one, series.unit),
                percent(change),
                said,
                "; ".join(reasons),
            ]
        )
    cells = [[shown(cell, drawn) for cell in row] for row in rows]
    text = tabulate.tabulate(
        cells,
        headers=COLUMNS,
        disable_numparse=True,
        colalign=("left", "right", "right", "left", "left"),
        maxcolwidths=[None, None, None, None, 70],
    )
    left = f"{begin} earlier runs are left out (--last 0 prints all)\n" if begin else ""
    return left + str(text)


def interval(one: Point, unit: str) -> str:
    """A value with its confidence interval, where its rounds gave one."""
    if one.low is None or one.high is None:
        return figure(one.value, unit)
    return f"{figure(one.value, unit)} ± {figure((one.high - one.low) / 2, '1')}"


def told(change: ChangePoint, series: Series, drawn: Signs) -> str:
    """A change point in words: ``▼ worse: -5.1 % (105 → 99.7 samples/s)``."""
    sign, word = (drawn.better, "better") if change.better else (drawn.worse, "worse")
    medians = f"{figure(change.before, '1')} {drawn.arrow} {figure(change.after, series.unit)}"
    return f"{sign} {word}: {percent(change.change)} ({medians})"


def shown(text: str, drawn: Signs) -> str:
    """Text that drives no terminal, in the characters that it has."""
    text = printable(text)
    if drawn is UNICODE:
        return text
    for mark, plain in (("→", "->"), ("±", "+-"), ("µ", "u"), ("°", "deg "), ("…", "...")):
        text = text.replace(mark, plain)
    return text.encode("ascii", "replace").decode()


def sparkline(values: Sequence[float], width: int = 20, drawn: Signs = UNICODE) -> str:
    """Values as one line of bars, the lowest to the highest."""
    columns = buckets(values, width)
    low, high = min(columns), max(columns)
    most = len(drawn.bars) - 1
    if high == low:
        return drawn.bars[most // 2] * len(columns)
    return "".join(drawn.bars[round(most * (value - low) / (high - low))] for value in columns)


def plot(series: Series, changes: Sequence[ChangePoint], drawn: Signs = UNICODE) -> str:
    """The series as bars between its lowest and highest value; below them, where it changed."""
    values = [point.value for point in series.points]
    columns = buckets(values, WIDTH)
    low, high = min(columns), max(columns)
    # Bars begin below the lowest value: one that is not seen is no value.
    floor = low - (high - low) / (HEIGHT * 2) if high > low else low - (abs(low) or 1.0)
    steps = len(drawn.bars)
    heights = [
        max(1, round(HEIGHT * steps * (value - floor) / (high - floor))) if high > floor else HEIGHT * steps
        for value in columns
    ]
    labels = {HEIGHT - 1: figure(high, series.unit), 0: figure(low, series.unit)}
    margin = max(len(label) for label in labels.values())
    lines = []
    for row in reversed(range(HEIGHT)):
        cells = (min(steps, max(0, height - row * steps)) for height in heights)
        drawn_row = "".join(drawn.bars[cell - 1] if cell else " " for cell in cells)
        lines.append(f"{labels.get(row, ''):>{margin}} {drawn.axis}{drawn_row}".rstrip())
    marks = [" "] * len(columns)
    for change in changes:
        marks[change.index * len(columns) // len(values)] = drawn.better if change.better else drawn.worse
    if changes:
        lines.append(f"{'':>{margin}} {drawn.axis}{''.join(marks)}".rstrip())
    first, last = (date(point.time, clock=False) for point in (series.points[0], series.points[-1]))
    lines.append(f"{'':>{margin}}  {first}{last:>{max(len(last) + 1, len(columns) - len(first))}}")
    return "\n".join(shown(line, drawn) for line in lines)


def buckets(values: Sequence[float], width: int) -> list[float]:
    """At most ``width`` values: the middle one of each of so many neighbours, so that a level stays where it is."""
    if len(values) <= width:
        return list(values)
    bounds = [index * len(values) // width for index in range(width + 1)]
    return [sorted(values[begin:end])[(end - begin) // 2] for begin, end in pairwise(bounds)]


def as_svg(series: Sequence[Series], changes: Mapping[int, Sequence[ChangePoint]]) -> str:
    """All series over time in one chart; the changes of each are points of their own. pygal has to be installed."""
    import pygal  # type: ignore[import-untyped]

    units = list(dict.fromkeys(f"{one.metric} ({one.unit})" for one in series))
    # No script: the chart is shown inside reports that must not reach for the network.
    chart: Any = pygal.DateTimeLine(
        title=", ".join(units),
        js=[],
        width=1000,
        height=450,
        dots_size=2,
        x_label_rotation=25,
        legend_at_bottom=True,
        legend_at_bottom_columns=1,
        truncate_legend=-1,
        disable_xml_declaration=True,
        x_value_formatter=lambda moment: moment.strftime("%Y-%m-%d %H:%M"),
    )
    for number, one in enumerate(series):
        every = max(1, len(one.points) // MOST_POINTS)
        kept = {*range(0, len(one.points), every), *(change.index for change in changes.get(number, ()))}
        points = [one.points[index] for index in sorted(kept)]
        chart.add(f"{one.key} {one.metric}", [(_moment(point), point.value) for point in points])
        found = changes.get(number, ())
        if found:
            marks = [
                {"value": (_moment(one.points[change.index]), change.after), "label": _why(change, one)}
                for change in found
            ]
            chart.add("changes", marks, stroke=False, dots_size=6)
    return str(chart.render(is_unicode=True))


def _moment(point: Point) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(point.time)


def _why(change: ChangePoint, series: Series) -> str:
    return "; ".join([told(change, series, UNICODE), *change.reasons])
