"""One case of the report: everything of its Result, the published figures beside it, its logs. Nothing is computed."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from pytest_flagperf import references
from pytest_flagperf import sessions
from pytest_flagperf.reports import terminal
from pytest_flagperf.reports.html import series
from pytest_flagperf.reports.html import texts
from pytest_flagperf.result import MetricValue
from pytest_flagperf.result import Result
from pytest_flagperf.result import RoundResult
from pytest_flagperf.sessions import SessionFiles


# Characters of the ends of all logs together, and of one case's at most and at least.
LOGS_TOGETHER, MOST_LOG, LEAST_LOG = 1_500_000, 12_000, 600
MOST_LOGS = 8
# Beyond this a message is cut; result.json has all of it.
MOST_MESSAGE = 20_000
# What a reader looks at first.
MAIN = ("p_whole", "p_train", "p_core", "e2e_time", "train_time", "time_to_target", "memory_peak", "time")
# The comparison that stands for its case in the table of cases: the first of these.
_WORST_FIRST = ("regressed", "inconclusive", "improved", "passed", "not comparable", "no baseline")

# What colours a terminal, and what no document may hold.
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[\x00-\x08\x0b-\x1f\x7f]")


@dataclass(frozen=True)
class Share:
    """What a case may take of the report: points of a curve, characters of logs."""

    points: int
    logs: int

    @classmethod
    def of(cls, results: Sequence[Result]) -> Share:
        """The share of each of these cases."""
        curves = sum(2 * len(one.rounds) + len(series.DEVICE) + len(series.HOST) for one in results)
        logs = min(MOST_LOG, LOGS_TOGETHER // max(1, len(results)))
        return cls(series.points_for(curves), max(LEAST_LOG, logs))


def describe(session: SessionFiles, result: Result, share: Share) -> dict[str, Any]:
    """What the report shows of one case."""
    directories = [(one, sessions.round_directory(session, result, one)) for one in result.rounds]
    there = [(one, directory) for one, directory in directories if directory.is_dir()]
    return {
        **identity(session, result),
        "quality": terminal.quality(result),
        "memory": terminal.memory(result),
        "remarks": terminal.remarks(result),
        "targets": [msgspec.to_builtins(one) for one in result.targets],
        "metrics": [_metric(result, name, metric) for name, metric in result.metrics.items()],
        "several_samples": any(len(one.samples) > 1 for one in result.spreads.values()),
        "comparisons": [msgspec.to_builtins(one) for one in result.comparisons],
        "change": worst(result),
        "published": published(result),
        "configuration": [
            {"key": key, "value": _text(one.value), "origin": one.origin, "changed": not one.origin.startswith("case ")}
            for key, one in result.configuration.items()
        ],
        "deviations": result.deviations,
        "diff": result.diff,
        "notes": result.notes,
        "environment": environment(result),
        "rounds": [_round(one) for one in result.rounds],
        "logs": _logs(there, share.logs),
        "rerun": shlex.join(result.rerun),
        "charts": series.charts(result, there, share.points),
        "files_missing": [one.directory for one, directory in directories if not directory.is_dir()],
    }


def identity(session: SessionFiles, result: Result) -> dict[str, Any]:
    """Which case of which session, and its verdict."""
    case = result.case
    error = result.error
    return {
        "session": session.name,
        "id": case.id,
        "node_id": case.node_id,
        "model": case.model,
        "kind": case.kind,
        "role": case.role,
        "framework": case.framework,
        "precision": case.precision,
        "topology": case.topology,
        "scale": case.scale,
        "vendor": case.vendor,
        "chip": case.chip or "",
        "on": f"{case.vendor} {case.chip}" if case.chip else case.vendor,
        "division": case.division,
        "verdict": result.verdict,
        "amiss": texts.word(result.verdict).tone in ("bad", "doubtful"),
        "error": None if error is None else {"type": error.type, "message": cut(error.message)},
    }


def cut(message: str) -> str:
    """The message, or the beginning of one that is too long to show."""
    return message if len(message) <= MOST_MESSAGE else message[:MOST_MESSAGE] + " …"


def worst(result: Result) -> dict[str, Any] | None:
    """The comparison that a reader has to see first."""
    order = {word: number for number, word in enumerate(_WORST_FIRST)}
    found = sorted(result.comparisons, key=lambda one: order.get(one.verdict, len(order)))
    return msgspec.to_builtins(found[0]) if found else None


def published(result: Result) -> list[dict[str, Any]]:
    """What others published for this model, a row for each figure, beside ours of the same name."""
    rows = _references().get(result.case.model, [])
    same = sorted(rows, key=lambda row: row.framework != result.case.framework)
    return [figure for row in same for figure in _published(result, row)]


def environment(result: Result) -> list[tuple[str, str, str]]:
    """What the figures depend on beside the configuration: kind, name within it, text. The unknown is left out."""
    case, data = result.case, result.dataset
    last = result.rounds[-1].precision if result.rounds else {}
    splits = ", ".join(f"{name} {count:,}" for name, count in data.splits.items())
    found = [
        *(("software", name, version) for name, version in result.stack.items()),
        ("devices", "", ", ".join(map(str, case.devices))),
        *(("precision", name, _text(value)) for name, value in last.items()),
        ("dataset", "", " · ".join(part for part in (data.name, splits) if part)),
        ("dataset", "checksum", data.checksum),
        ("division", "", case.division),
        ("stand_in", "", case.stand_in),
        *(("container", name, value) for name, value in case.container.items()),
        *(("vendor_file", name, value) for name, value in case.vendor_file.items()),
        *(("environment", name, value) for name, value in case.environment.items()),
        ("code", "", result.code),
    ]
    return [(kind, name, value) for kind, name, value in found if value]


def _metric(result: Result, name: str, metric: MetricValue) -> dict[str, Any]:
    spread = result.spreads.get(name)
    return {
        "name": name,
        "value": metric.value,
        "unit": metric.unit,
        "better": metric.better,
        "spread": None if spread is None else msgspec.to_builtins(spread),
    }


def _published(result: Result, row: references.Row) -> list[dict[str, Any]]:
    where = {
        "framework": row.framework,
        "chip": row.chip,
        "topology": row.topology,
        "precision": row.precision,
        "target": row.target,
        "note": row.note,
        "source": row.source,
    }
    ours = result.metrics
    known = [
        {"name": name, "value": value, "unit": ours[name].unit if name in ours else "", "ours": _value(ours.get(name))}
        for name, value in row.metrics.items()
    ]
    other = [{"name": one.name, "value": one.value, "unit": one.unit, "ours": None} for one in row.other]
    return [{**where, **one} for one in (*known, *other)]


def _value(metric: MetricValue | None) -> float | None:
    return None if metric is None else metric.value


@cache
def _references() -> Mapping[str, list[references.Row]]:
    found: dict[str, list[references.Row]] = {}
    for row in references.rows():
        found.setdefault(row.model, []).append(row)
    return found


def _round(one: RoundResult) -> dict[str, Any]:
    return {
        "round": one.round,
        "seed": one.seed,
        "time_started": one.time_started,
        "dropped": one.dropped,
        "error": None if one.error is None else {"type": one.error.type, "message": cut(one.error.message)},
        "metrics": {name: msgspec.to_builtins(one.metrics[name]) for name in MAIN if name in one.metrics},
        "quality": one.evaluations[-1].quality if one.evaluations else {},
        "evaluations": len(one.evaluations),
    }


def _logs(directories: Iterable[tuple[RoundResult, Path]], most: int) -> list[dict[str, Any]]:
    """The ends of the last round's logs that are not empty, the launcher's and the first ranks'."""
    last = [directory for _, directory in directories][-1:]
    paths = [path for directory in last for path in sorted(directory.glob("*/*.log")) if path.stat().st_size]
    chosen = paths[:MOST_LOGS]
    return [
        {"name": f"{path.parent.parent.name}/{path.parent.name}/{path.name}", **_tail(path, most // len(chosen))}
        for path in chosen
    ]


def _tail(path: Path, most: int) -> dict[str, Any]:
    size = path.stat().st_size
    with open(path, "rb") as file:
        file.seek(max(0, size - most))
        text = file.read(most).decode("utf-8", errors="replace")
    if size > most:
        text = text.partition("\n")[2] or text
    return {"text": _CONTROL.sub("", text), "size": size, "is_cut": size > most}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
