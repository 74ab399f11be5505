"""The curves of a case: loss and quality over steps, what the monitor saw over time; few enough points to mail."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pytest_flagperf import perflog
from pytest_flagperf import samples
from pytest_flagperf.evidence.findings import UNREADABLE
from pytest_flagperf.judging import curves
from pytest_flagperf.judging.curves import Band
from pytest_flagperf.perflog import Event
from pytest_flagperf.reports import curve
from pytest_flagperf.result import Result
from pytest_flagperf.result import RoundResult


# Of one series, and of all series of a report together: 500 cases still make a file that opens at once.
MOST_POINTS = 500
MOST_POINTS_TOGETHER = 150_000
FEWEST_POINTS = 24

Point = tuple[float, float]

# What is drawn of a device: the monitor's key, its unit.
DEVICE = (("power", "W"), ("temperature", "°C"), ("utilization", "ratio"), ("memory_used", "GiB"), ("clock", "MHz"))
HOST = (("cpu_utilization", "ratio"), ("memory_used", "GiB"))


def points_for(series: int) -> int:
    """How many points a series may have where a report has so many of them."""
    return max(FEWEST_POINTS, min(MOST_POINTS, MOST_POINTS_TOGETHER // max(series, 1)))


def thin(points: Sequence[Point], most: int) -> list[Point]:
    """At most ``most`` of the points, first and last among them: the lowest and the highest of each of equal parts.

    Unlike a mean this keeps every spike. Points that are not finite are left out.
    """
    finite = [point for point in points if math.isfinite(point[0]) and math.isfinite(point[1])]
    if len(finite) <= most:
        return finite
    parts = max(1, (most - 2) // 2)
    inner = finite[1:-1]
    kept = [finite[0]]
    for number in range(parts):
        part = inner[number * len(inner) // parts : (number + 1) * len(inner) // parts]
        if part:
            kept += sorted({min(part, key=lambda point: point[1]), max(part, key=lambda point: point[1])})
    return [*kept, finite[-1]]


def charts(
    result: Result, directories: Sequence[tuple[RoundResult, Path]], most: int, band: Band | None = None
) -> list[dict[str, Any]]:
    """The charts of a case: ``title``, ``name``, ``unit``, ``x`` (``step``, ``s`` …), ``bounds`` and ``series``.

    ``band`` is where the rounds were to stay: a quality chart shows it as ``band``.
    """
    events = [(one, events_of(directory)) for one, directory in directories]
    # Inference learns nothing: its two evaluations, of the reference and of the engine, are no curve.
    is_learning = result.case.kind != "inference"
    found = [_loss(events, most), *_quality(result, most, band)] if is_learning else []
    if directories:
        one, directory = directories[-1]
        found += _of_devices(one, directory, events[-1][1], most)
    return [one for one in found if one["series"]]


def of_samples(values: Any, unit: str, most: int) -> dict[str, Any] | None:
    """The chart of an operator's samples in the order they were taken, of those that are numbers; ``None`` of none.

    Nobody but their worker knows what they are: a result holds whatever it wrote.
    """
    numbers = enumerate(values if isinstance(values, list) else (), 1)
    points = [(float(number), _number(one)) for number, one in numbers if type(one) in (int, float)]
    points = [point for point in points if math.isfinite(point[1])]
    return chart("samples", "", unit, "sample", [_series("", points, most)]) if points else None


def chart(title: str, name: str, unit: str, x: str, series: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    """A chart of the series that have a point."""
    return {"title": title, "name": name, "unit": unit, "x": x, "series": [one for one in series if one["x"]], **more}


def _series(name: str, points: Sequence[Point], most: int) -> dict[str, Any]:
    return drawn(name, thin(points, most), len(points))


def drawn(name: str, points: Sequence[Point], count: int) -> dict[str, Any]:
    """A curve of these points, which are all that is shown of ``count``."""
    return {"name": name, "x": [short(x) for x, _ in points], "y": [short(y) for _, y in points], "points": count}


def short(value: float) -> float | int:
    """The value with as many digits as a chart shows."""
    rounded = float(f"{value:.6g}")
    return int(rounded) if rounded.is_integer() and abs(rounded) < 1e15 else rounded


def _number(value: float) -> float:
    """The value; infinite, and so left out, where it is a whole number larger than any that a chart could show."""
    try:
        return float(value)
    except OverflowError:
        return math.inf


def events_of(directory: Path) -> list[Event]:
    """The events of rank 0 in a round's directory; none where it wrote none."""
    paths = [path for path in sorted(directory.glob("*/rank0.events.jsonl")) if path.is_file()]
    return perflog.read_events(paths[0]) if paths else []


def _monitored(path: Path) -> samples.Samples:
    """What a monitor wrote; nothing where somebody made it up: a report without a curve is better than none."""
    try:
        return samples.read(path)
    except UNREADABLE:
        return samples.Samples()


def _losses(events: Sequence[Event]) -> list[Point]:
    """Step and loss; nothing where somebody made them up."""
    try:
        return [(_number(step), loss) for step, loss in curve.losses(events)]
    except UNREADABLE:
        return []


def _loss(events: Sequence[tuple[RoundResult, Sequence[Event]]], most: int) -> dict[str, Any]:
    series = [_series(f"{one.round}", _losses(seen), most) for one, seen in events]
    return chart("loss", "", "", "step", series, rounds=True)


def _quality(result: Result, most: int, band: Band | None) -> Iterator[dict[str, Any]]:
    """A chart for each quality metric, with the bound that its target has, and its band."""
    names = dict.fromkeys(name for one in result.rounds for e in one.evaluations for name in e.quality)
    for name in names:
        series = [
            _series(
                f"{one.round}", [(_number(e.step), e.quality[name]) for e in one.evaluations if name in e.quality], most
            )
            for one in result.rounds
        ]
        bounds = [target.bound for target in result.targets if target.metric == name]
        unit = result.metrics[name].unit if name in result.metrics else ""
        more = {} if band is None else {"band": _band(band, name, result, most)}
        yield chart("quality", name, unit, "step", series, bounds=bounds, rounds=True, **more)


def _band(band: Band, metric: str, result: Result, most: int) -> dict[str, Any] | None:
    """What a chart shows of a band: at ``x`` each figure of ``curves.Expected``; of how many ``rounds`` at most."""
    try:
        every = [(step, one) for step, one in curves.along(band, metric, result) if math.isfinite(one.high - one.low)]
    except UNREADABLE:
        every = []
    if not every:
        return None
    # It is smooth: every so many of its points are enough. The ends stay.
    shown = [*every[: -1 : math.ceil(len(every) / (most - 1))], every[-1]]
    figures = {name: [short(getattr(one, name)) for _, one in shown] for name in ("mean", "low", "high", "limit")}
    return {"x": [short(step) for step, _ in shown], **figures, "rounds": max(one.rounds for _, one in shown)}


def _of_devices(one: RoundResult, directory: Path, events: Sequence[Event], most: int) -> Iterator[dict[str, Any]]:
    """A chart for each figure that the monitors of the round's hosts saw, over seconds since the first sample."""
    seen = {path.parent.name: _monitored(path) for path in sorted(directory.glob("*/monitor.jsonl"))}
    first = next(iter(seen.values()), None)
    begin = min((sample.monotonic for sample in first.samples), default=None) if first else None
    marks = [] if begin is None else _measured(events, begin)
    inferred = any(event.name == perflog.INFERENCE_BEGIN for event in events)
    for title, kind, keys in (("device", "samples", DEVICE), ("host", "host", HOST)):
        for key, unit in keys:
            series = [
                _series(_name(host, device, len(seen) > 1), points, most)
                for host, found in seen.items()
                for device, points in _points(getattr(found, kind), key, kind == "samples")
            ]
            yield chart(title, key, unit, "s", series, marks=marks, round=one.round, inferred=inferred)


def _points(found: Sequence[samples.Sample], key: str, by_device: bool) -> Iterator[tuple[int | None, list[Point]]]:
    if not found:
        return
    begin = min(one.monotonic for one in found)
    told = sorted((one for one in found if isinstance(one.figures.get(key), (int, float))), key=lambda one: one.device)
    for device, group in itertools.groupby(told, key=lambda one: one.device):
        points = sorted((one.monotonic - begin, _number(one.figures[key])) for one in group)
        yield (device if by_device else None), points


def _name(host: str, device: int | None, several: bool) -> str:
    parts = [host] if several else []
    return " ".join([*parts, *([] if device is None else [f"{device}"])])


_MEASURED = (perflog.TRAIN_START, perflog.TRAIN_END, perflog.INFERENCE_BEGIN, perflog.INFERENCE_END)


def _measured(events: Iterable[Event], begin: float) -> list[float]:
    """When training, or the measured part of inference, began and ended, on the time axis of rank 0's host."""
    # LoadGen may have to be started again: the last time counts.
    last = {event.name: event.monotonic for event in events if event.name in _MEASURED}
    return [short(moment - begin) for moment in last.values() if moment is not None]
