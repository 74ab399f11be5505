"""What LoadGen wrote of a run: ``mlperf_log_summary.txt`` and ``mlperf_log_detail.txt``, read and judged.

Standard library only: the workload reads them while it looks for a rate, and pytest when it computes metrics.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field
from pathlib import Path
from typing import Any

from pytest_flagperf.errors import InvalidMeasurement


SUMMARY, DETAIL, ACCURACY = "mlperf_log_summary.txt", "mlperf_log_detail.txt", "mlperf_log_accuracy.json"

# LoadGen's scenario → the key of its rate in the summary. MultiStream prints none.
RATES = {
    "SingleStream": "QPS w/ loadgen overhead",
    "Server": "Completed samples per second",
    "Offline": "Samples per second",
}
LATENCIES = {
    "latency_mean": "Mean latency (ns)",
    "latency_p50": "50.00 percentile latency (ns)",
    "latency_p90": "90.00 percentile latency (ns)",
    "latency_p99": "99.00 percentile latency (ns)",
    "latency_p999": "99.90 percentile latency (ns)",
}
# LoadGen's scenario → where its summary has the latency that MLPerf ranks it by: the estimate of early stopping, which
# is above the percentile that was seen by as much as so few queries leave open.
ESTIMATES = {
    "SingleStream": "* Early stopping 90.0th percentile estimate",
    "MultiStream": "* Early stopping 99.0th percentile estimate",
}

_MARK = ":::MLLOG "
# The last line that LoadGen writes, once everything else is on disk.
_END = re.compile(r"^(?:No errors|\d+ ERRORS?) encountered", re.MULTILINE)
# LoadGen compares its two clocks in whole milliseconds, to 1 %: of a run this short it is rounding.
_CLOCKS, _COMPARABLE = "PerfClock and system_clock differ", 1000
_FAILED = re.compile(r"^\s*(.+?)\s*: NO$", re.MULTILINE)


@dataclass(frozen=True)
class Outcome:
    """A run of LoadGen. ``text`` is its summary as it is, ``summary`` the lines ``key : value`` of it.

    ``errors`` are those of its detailed log, ``detail`` that log's last value of each key.
    """

    text: str
    summary: Mapping[str, str]
    errors: tuple[str, ...] = ()
    detail: Mapping[str, Any] = field(default_factory=dict)

    @property
    def scenario(self) -> str:
        """``SingleStream``, ``MultiStream``, ``Server`` or ``Offline``."""
        return self.summary["Scenario"]

    @property
    def valid(self) -> bool:
        """Whether LoadGen calls the run valid, in both of its logs, and met no error."""
        said = (self.summary["Result is"], self.detail.get("result_validity", "VALID"))
        return said == ("VALID", "VALID") and not self.errors

    @property
    def too_short(self) -> bool:
        """Whether queries ran out before the minimum duration, and nothing else was wrong."""
        slow = self.summary.get("Performance constraints satisfied", "Yes") != "Yes"
        return self.summary.get("Min duration satisfied") == "NO" and not slow

    @property
    def reasons(self) -> list[str]:
        """Why the run is invalid, in LoadGen's words: what is not satisfied, its advice, its errors."""
        advice = re.search(r"^Recommendations:\n((?: .*\n)+)", self.text, re.MULTILINE)
        stopping = re.search(r"^Early Stopping Result:\n((?: .*\n)+)", self.text, re.MULTILINE)
        found = [f"{what}: NO" for what in _FAILED.findall(self.text)]
        found += _points(advice[1]) if advice else []
        if stopping and self.summary.get("Early stopping satisfied") != "Yes":
            found += _points(stopping[1])
        return [*found, *self.errors]

    def refuse(self) -> None:
        """Raises ``InvalidMeasurement`` with LoadGen's reasons where it calls the run invalid."""
        if not self.valid:
            raise InvalidMeasurement(f"LoadGen calls its {self.scenario} run INVALID: " + "; ".join(self.reasons))

    def nanoseconds(self, key: str) -> int:
        """A latency of the summary. Raises ``InvalidMeasurement`` where it is not there."""
        try:
            return int(self.summary[key])
        except (KeyError, ValueError):
            raise InvalidMeasurement(f"{SUMMARY} has no {key!r}: {self.summary.get(key)!r}") from None

    def estimate(self) -> int | None:
        """Nanoseconds of the latency that MLPerf ranks a stream by; ``None`` where there were too few queries."""
        key = ESTIMATES.get(self.scenario)
        return None if key is None or key not in self.summary else self.nanoseconds(key)

    def rate(self) -> float | None:
        """Samples a second as the scenario counts them; ``None`` of MultiStream, which prints none."""
        key = RATES.get(self.scenario)
        if key is None:
            return None
        try:
            return float(self.summary[key])
        except (KeyError, ValueError):
            raise InvalidMeasurement(f"{SUMMARY} has no {key!r}: {self.summary.get(key)!r}") from None


def read(directory: Path) -> Outcome:
    """The run whose logs are in ``directory``. Raises ``InvalidMeasurement`` for logs that are missing or torn."""
    detail, errors = _detail(_text(directory / DETAIL))
    if detail.get("effective_min_duration_ms", 0) < _COMPARABLE:
        errors = tuple(error for error in errors if not error.startswith(_CLOCKS))
    outcome = parse(_text(directory / SUMMARY), errors)
    if "result_validity" not in detail:
        raise InvalidMeasurement(f"{directory / DETAIL} says nothing of validity: LoadGen did not end")
    return Outcome(outcome.text, outcome.summary, outcome.errors, detail)


def parse(text: str, errors: tuple[str, ...] = ()) -> Outcome:
    """A summary. Raises ``InvalidMeasurement`` for one that is torn: LoadGen ends it with its count of errors."""
    pairs = (line.partition(":") for line in text.splitlines())
    summary = {" ".join(key.split()): value.strip() for key, colon, value in pairs if colon}
    missing = [key for key in ("Scenario", "Result is") if key not in summary]
    if missing or not _END.search(text):
        what = f"it lacks {' and '.join(missing)}" if missing else "it has no end"
        raise InvalidMeasurement(f"{SUMMARY} is torn: {what}. LoadGen, or the disk, did not last to the end of the run")
    return Outcome(text, summary, errors)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise InvalidMeasurement(f"LoadGen left no {path.name}: {error}") from error


def _detail(text: str) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Key → last value, and the messages that LoadGen marks as errors."""
    values: dict[str, Any] = {}
    errors = []
    for line in text.splitlines():
        if not line.startswith(_MARK):
            continue
        try:
            record = json.loads(line[len(_MARK) :])
            values[record["key"]] = record["value"]
            if record["metadata"]["is_error"]:
                errors.append(str(record["value"]))
        except (ValueError, KeyError, TypeError):
            # A commit message with a quotation mark is no JSON; a line that matters is missed by who asks for it.
            continue
    return values, tuple(errors)


def _points(text: str) -> list[str]:
    """The points of a list whose lines begin with `` * ``, each on one line."""
    return [" ".join(point.split()) for point in re.split(r"^ \* ", text, flags=re.MULTILINE) if point.strip()]
