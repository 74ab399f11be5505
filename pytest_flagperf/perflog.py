"""The event log: what a rank writes while it works, and the only thing metrics are computed from.

One JSON object a line, flushed, in the schema of FlagPerf's ``[PerfLog]`` lines: ``event``, then ``value`` (an
object) or ``other`` (a string), and ``metadata`` with ``file``, ``lineno``, ``time_ms`` (Unix time) and ``rank``.
Ours adds ``monotonic_ns`` to the metadata, the clock durations are computed with: it does not jump when the
wall clock is set. The reader takes both dialects, with or without the ``[PerfLog]`` prefix, from our
``rank<N>.events.jsonl`` files and from FlagPerf's ``rank<N>.out.log``.

Standard library only: the ranks of a job import this module.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Iterable
from collections.abc import Iterator
from dataclasses import dataclass
from dataclasses import field
from pathlib import Path
from typing import Any


PREFIX = "[PerfLog]"

# FlagPerf's events; the names are part of its log format.
LAUNCH_TRAINING = "LAUNCH_TRAINING"
SUBMIT_INFO = "SUBMIT_INFO"
INIT_START = "INIT_START"
INIT_END = "INIT_END"
CONVERT_MODEL = "CONVERT_MODEL"
CREATE_OPTIMIZER = "CREATE_OPTIMIZER"
MODEL_TO_FP16 = "MODEL_TO_FP16"
MODEL_TO_DDP = "MODEL_TO_DDP"
INIT_EVALUATION = "INIT_EVALUATION"
TRAIN_START = "TRAIN_START"
EPOCH_BEGIN = "EPOCH_BEGIN"
STEP_BEGIN = "STEP_BEGIN"
STEP_END = "STEP_END"
BACKWARD = "BACKWARD"
EVALUATE = "EVALUATE"
EPOCH_END = "EPOCH_END"
TRAIN_END = "TRAIN_END"
FINISHED = "FINISHED"

# Ours. FlagPerf marks only the end of an evaluation, so its duration cannot be read from its log.
EVALUATE_BEGIN = "EVALUATE_BEGIN"
PROGRESS = "PROGRESS"
PRECISION = "PRECISION"

# Of inference, in their order.
LOAD_BEGIN = "LOAD_BEGIN"
LOAD_END = "LOAD_END"
VALIDATION_BEGIN = "VALIDATION_BEGIN"
VALIDATION_END = "VALIDATION_END"
EXPORT_BEGIN = "EXPORT_BEGIN"
EXPORT_END = "EXPORT_END"
COMPILE_BEGIN = "COMPILE_BEGIN"
COMPILE_END = "COMPILE_END"
WARMUP_END = "WARMUP_END"
ACCURACY_BEGIN = "ACCURACY_BEGIN"
ACCURACY_END = "ACCURACY_END"
INFERENCE_BEGIN = "INFERENCE_BEGIN"
QUERIES = "QUERIES"
INFERENCE_END = "INFERENCE_END"

FLAGPERF_EVENTS = frozenset(
    {
        LAUNCH_TRAINING,
        SUBMIT_INFO,
        INIT_START,
        INIT_END,
        CONVERT_MODEL,
        CREATE_OPTIMIZER,
        MODEL_TO_FP16,
        MODEL_TO_DDP,
        INIT_EVALUATION,
        TRAIN_START,
        EPOCH_BEGIN,
        STEP_BEGIN,
        STEP_END,
        BACKWARD,
        EVALUATE,
        EPOCH_END,
        TRAIN_END,
        FINISHED,
    }
)
INFERENCE_EVENTS = frozenset(
    {
        LOAD_BEGIN,
        LOAD_END,
        VALIDATION_BEGIN,
        VALIDATION_END,
        EXPORT_BEGIN,
        EXPORT_END,
        COMPILE_BEGIN,
        COMPILE_END,
        WARMUP_END,
        ACCURACY_BEGIN,
        ACCURACY_END,
        INFERENCE_BEGIN,
        QUERIES,
        INFERENCE_END,
    }
)
EVENTS = FLAGPERF_EVENTS | INFERENCE_EVENTS | {EVALUATE_BEGIN, PROGRESS, PRECISION}


@dataclass(frozen=True)
class Event:
    """One line of a rank's log.

    ``time`` is Unix time in seconds; ``monotonic`` is the host's monotonic clock in seconds, or ``None`` in logs
    of FlagPerf's own, which have only ``time_ms``.
    """

    name: str
    value: dict[str, Any] = field(default_factory=dict)
    other: str = ""
    time: float = 0.0
    monotonic: float | None = None
    rank: int = 0
    file: str = ""
    line: int = 0

    def seconds_since(self, earlier: Event) -> float:
        """Seconds from ``earlier`` to this event, by the monotonic clock where both have it."""
        if self.monotonic is not None and earlier.monotonic is not None:
            return self.monotonic - earlier.monotonic
        return self.time - earlier.time


class EventWriter:
    """Appends the events of one rank to its file, a flushed line each.

    A line is written with one ``write`` call, so a reader sees whole lines, and a torn last line only
    where the process died within that call.
    """

    def __init__(self, path: str | os.PathLike[str], rank: int) -> None:
        self.path = Path(path)
        self.rank = rank
        self.last_written = time.monotonic()
        self._file = open(self.path, "ab", buffering=0)  # noqa: SIM115 (lives as long as the rank)

    def write(self, name: str, value: dict[str, Any] | None = None, other: str = "") -> None:
        """Write one event. Raises ``ValueError`` for a name that is not in the schema."""
        if name not in EVENTS:
            raise ValueError(f"unknown PerfLog event {name!r}")
        frame = sys._getframe(1)
        record: dict[str, Any] = {"event": name}
        if value is not None:
            record["value"] = to_json(value)
        elif other:
            record["other"] = other
        record["metadata"] = {
            "file": frame.f_code.co_filename,
            "lineno": frame.f_lineno,
            "time_ms": time.time_ns() // 1_000_000,
            "monotonic_ns": time.monotonic_ns(),
            "rank": self.rank,
        }
        self._file.write(json.dumps(record, allow_nan=False).encode() + b"\n")
        self.last_written = time.monotonic()

    def close(self) -> None:
        """Close the file; every event is on it already."""
        self._file.close()


def to_json(value: Any) -> Any:
    """A plain JSON value: numbers that JSON lacks become the strings ``nan``, ``inf`` and ``-inf``."""
    if isinstance(value, dict):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_json(item) for item in value]
    if isinstance(value, bool) or value is None or isinstance(value, (int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if hasattr(value, "item"):
        return to_json(value.item())
    return str(value)


def from_json_number(value: Any) -> Any:
    """The inverse of :func:`to_json` for one number: ``"nan"`` is a float again."""
    if isinstance(value, str) and value in ("nan", "inf", "-inf"):
        return float(value)
    return value


def parse_line(line: str) -> Event | None:
    """The event on ``line``, or ``None`` for any other text: ranks print what they like between events."""
    start = line.find(PREFIX)
    text = line[start + len(PREFIX) :] if start >= 0 else line
    text = text.strip()
    if not text.startswith("{"):
        return None
    try:
        record = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict):
        return None
    name = record.get("event")
    if not isinstance(name, str):
        return None
    value = record.get("value")
    metadata = record.get("metadata")
    if not isinstance(metadata, dict):
        metadata = {}
    monotonic_ns = _number(metadata.get("monotonic_ns"))
    return Event(
        name=name,
        value={key: from_json_number(item) for key, item in value.items()} if isinstance(value, dict) else {},
        other=str(record.get("other", "")),
        time=(_number(metadata.get("time_ms")) or 0.0) / 1e3,
        monotonic=None if monotonic_ns is None else monotonic_ns / 1e9,
        rank=int(_number(metadata.get("rank")) or 0),
        file=str(metadata.get("file", "")),
        line=int(_number(metadata.get("lineno")) or 0),
    )


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        return value if math.isfinite(value) else None
    except OverflowError:  # JSON's whole numbers have no limit, those of a clock do
        return None


def parse_lines(lines: Iterable[str]) -> Iterator[Event]:
    """The events among ``lines``, in order."""
    for line in lines:
        event = parse_line(line)
        if event is not None:
            yield event


def read_events(path: str | os.PathLike[str]) -> list[Event]:
    """The events of one rank's file. A torn last line and text in any encoding are passed over."""
    with open(path, encoding="utf-8", errors="replace") as lines:
        return list(parse_lines(lines))


class EventTail:
    """Reads a growing event file: each call of :meth:`read` gives the events added since the last one."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._offset = 0
        self._rest = b""

    def read(self) -> list[Event]:
        """Events on whole lines added since the last call; none while the file is not there yet."""
        try:
            with open(self.path, "rb") as file:
                file.seek(self._offset)
                added = file.read()
        except FileNotFoundError:
            return []
        self._offset += len(added)
        *whole, self._rest = (self._rest + added).split(b"\n")
        return list(parse_lines(line.decode("utf-8", errors="replace") for line in whole))
