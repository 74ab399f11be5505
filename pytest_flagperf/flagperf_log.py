"""FlagPerf's own figures under the registered names: what its FINISHED and EVALUATE events call differently.

FlagPerf has six spellings of throughput (one with a typing error) and some fourteen names of quality, some in
percent and some as ratios.
"""

from __future__ import annotations

import math
import re
from collections.abc import Container
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

from pytest_flagperf import metrics
from pytest_flagperf import perflog
from pytest_flagperf.errors import InvalidMeasurement
from pytest_flagperf.perflog import Event


# throughput(ips)_raw, throughput(sps)_no_eval, throuhgput(ips)_pure_compute …
_THROUGHPUT = re.compile(r"throu(?:gh|hg)put\((?:ips|sps)\)_(raw|no_eval|pure_compute)")
_STAGES = {"raw": "p_whole", "no_eval": "p_train", "pure_compute": "p_core"}
_PER_SECOND = re.compile(r"training_(?:sequences|images|samples|items)_per_second")

_TIMES = {
    "e2e_time": "e2e_time",
    "train_time": "train_time",
    "raw_train_time": "train_time",
    "init_time": "init_time",
}

_QUALITY = {
    "acc1": "top1",
    "acc5": "top5",
    "accuracy": "accuracy",
    "acc": "accuracy",
    "mlm_accuracy": "mlm_accuracy",
    "map": "map",
    "map_bbox": "box_ap",
    "map_segm": "mask_ap",
    "auc": "auc",
    "ppl": "perplexity",
    "eval_loss": "evaluation_loss",
    "loss": "final_loss",
    "rouge1": "rouge1",
}


def figures(events: Sequence[Event], targets: Sequence[str]) -> tuple[dict[str, float], list[str]]:
    """Metrics of a FlagPerf run from the events of its first rank, and notes on what was converted.

    ``targets`` are the metrics the case wants: FlagPerf calls several of them ``accuracy``. Raises
    ``InvalidMeasurement`` without a FINISHED event, and for impossible figures.
    """
    finished = next((event for event in reversed(events) if event.name == perflog.FINISHED), None)
    if finished is None:
        raise InvalidMeasurement("the log has no FINISHED event: the run did not end, or was no PerfLog run")
    found: dict[str, float] = {}
    notes: list[str] = []
    for key, raw in finished.value.items():
        value = _number(raw)
        if value is None:
            continue
        if key == "train_time" and value == 0:
            continue  # FlagPerf's retinanet logs a field that it never sets; raw_train_time has the figure
        if key in _TIMES:
            found.setdefault(_TIMES[key], value)
        elif match := _THROUGHPUT.fullmatch(key):
            found[_STAGES[match[1]]] = value
        elif _PER_SECOND.fullmatch(key):
            found.setdefault("p_whole", value)
    if found.get("train_time", 0.0) > found.get("e2e_time", float("inf")):
        # Some cases log milliseconds here; a training that is longer than its job is one of them.
        found["train_time"] /= 1e3
        notes.append("train_time was logged in milliseconds")
    found.update(quality(finished.value, "final_", targets, notes, _in_percent(events)))
    metrics.refuse_impossible(found)
    return found, notes


def evaluations(events: Sequence[Event], targets: Sequence[str]) -> list[metrics.Evaluation]:
    """The evaluations of a FlagPerf run; a log without values in its EVALUATE events gives none."""
    start = next((event for event in events if event.name == perflog.TRAIN_START), None)
    percent = _in_percent(events)
    found = []
    for event in events:
        values = quality(event.value, "eval_", targets, [], percent) if event.name == perflog.EVALUATE else {}
        if values:
            found.append(
                metrics.Evaluation(
                    epoch=_finite(event.value.get("epoch")),
                    step=int(_finite(event.value.get("global_steps"))),
                    seconds=event.seconds_since(start) if start is not None else 0.0,
                    quality=values,
                )
            )
    return found


def quality(
    value: Mapping[str, Any], prefix: str, targets: Sequence[str], notes: list[str], percent: Container[str] = ()
) -> dict[str, float]:
    """Quality metrics in ``value``, whose keys carry ``prefix`` or not, as ratios.

    ``percent`` names the figures that the run logs in percent: an early 0.4 is 0.4 %, if a later one is 75.
    """
    found: dict[str, float] = {}
    for key, raw in value.items():
        plain = key.removeprefix(prefix).lower()
        name = _QUALITY.get(key.lower()) or _QUALITY.get(plain)
        number = _number(raw)
        if name is None or number is None:
            continue
        if name == "accuracy" and "accuracy" not in targets and targets:
            notes.append(f"FlagPerf's {key} is taken as {targets[0]}")
            name = targets[0]
        if metrics.get(name).unit == "ratio" and (1 < number <= 100 or plain in percent):
            notes.append(f"{key} = {number:g} was logged in percent")
            number /= 100
        found[name] = number
    return found


def _in_percent(events: Sequence[Event]) -> frozenset[str]:
    """The quality figures, by their plain names, of which the run logs any above 1."""
    logged = (
        (key.removeprefix("eval_").removeprefix("final_").lower(), _number(raw))
        for event in events
        if event.name in (perflog.EVALUATE, perflog.FINISHED)
        for key, raw in event.value.items()
    )
    return frozenset(name for name, number in logged if number is not None and 1 < number <= 100)


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _finite(value: Any) -> float:
    number = _number(value)
    return number if number is not None and math.isfinite(number) else 0.0
