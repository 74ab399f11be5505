"""Loss and quality over the steps of a round: as rows, and as an SVG chart where pygal is installed."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from pytest_flagperf import perflog
from pytest_flagperf.perflog import Event
from pytest_flagperf.result import RoundResult


MOST_POINTS = 500


def events_of(one: RoundResult) -> list[Event]:
    """The events of rank 0 of a round; none where the round wrote none."""
    paths = sorted(Path(one.directory).glob("*/rank0.events.jsonl"))
    return perflog.read_events(paths[0]) if paths else []


def losses(events: Sequence[Event]) -> list[tuple[int, float]]:
    """(step, training loss) of every step that was logged."""
    return [
        (int(event.value["global_steps"]), float(event.value["loss"]))
        for event in events
        if event.name == perflog.STEP_END and "global_steps" in event.value and "loss" in event.value
    ]


def as_csv(one: RoundResult) -> str:
    """Rows of ``step,series,value``: the training loss, then each quality metric."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(("step", "series", "value"))
    writer.writerows((step, "loss", f"{value:.8g}") for step, value in losses(events_of(one)))
    for evaluation in one.evaluations:
        writer.writerows((evaluation.step, name, f"{value:.8g}") for name, value in evaluation.quality.items())
    return text.getvalue()


def as_svg(one: RoundResult, title: str) -> str | None:
    """The loss on the left axis, quality on the right; ``None`` without points, or without pygal."""
    points = losses(events_of(one))
    if find_spec("pygal") is None or not (points or one.evaluations):
        return None
    import pygal  # type: ignore[import-untyped]

    # No script: the chart is shown inside reports that must not reach for the network.
    chart = pygal.XY(
        title=title,
        x_title="step",
        js=[],
        width=800,
        height=400,
        show_dots=len(points) < 50,
        disable_xml_declaration=True,
    )
    every = max(1, len(points) // MOST_POINTS)
    if points:
        chart.add("loss", points[::every])
    for name in sorted({name for evaluation in one.evaluations for name in evaluation.quality}):
        series = [(e.step, e.quality[name]) for e in one.evaluations if name in e.quality]
        chart.add(name, series, secondary=bool(points))
    return str(chart.render(is_unicode=True))
