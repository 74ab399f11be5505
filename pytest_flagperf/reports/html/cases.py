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
from pytest_flagperf.judging import gate
from pytest_flagperf.judging import resume
from pytest_flagperf.judging.curves import Band
from pytest_flagperf.reports import inference as inferring
from pytest_flagperf.reports import reading
from pytest_flagperf.reports import terminal
from pytest_flagperf.reports.html import inference
from pytest_flagperf.reports.html import latency
from pytest_flagperf.reports.html import series
from pytest_flagperf.reports.html import texts
from pytest_flagperf.result import MetricValue
from pytest_flagperf.result import Result
from pytest_flagperf.result import RoundResult
from pytest_flagperf.result import TargetResult
from pytest_flagperf.sessions import SessionFiles


# Characters of the ends of all logs together, and of one case's at most and at least.
LOGS_TOGETHER, MOST_LOG, LEAST_LOG = 1_500_000, 12_000, 600
MOST_LOGS = 8
# Beyond this a message is cut; result.json has all of it.
MOST_MESSAGE, LEAST_MESSAGE, MESSAGES_TOGETHER = 20_000, 400, 2_000_000
MOST_NOTES, MOST_EVALUATIONS = 30, 30
# What a reader looks at first.
MAIN = (
    *("p_whole", "p_train", "p_core", "e2e_time", "train_time", "time_to_target"),
    *("p_inference_core", "p_inference_whole", "quality_ratio", "latency_p50", "latency_p90", "latency_p99", "qps"),
    *("ttft", "tpot", "tokens_per_second_per_device", "compile_time", "memory_peak", "time"),
)
# What tells a case from others.
_IDENTITY = (
    *("id", "node_id", "model", "kind", "role", "framework", "precision", "topology", "scale"),
    *("engine", "vendor", "division", "stand_in"),
)

# What colours a terminal, and what no document may hold.
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[\x00-\x08\x0b-\x1f\x7f]")


@dataclass(frozen=True)
class Share:
    """What a case may take of the report: points of a curve, characters of logs, and of each of its other texts."""

    points: int
    logs: int
    text: int = MOST_MESSAGE

    @classmethod
    def of(cls, results: Sequence[Result], together: int = 0) -> Share:
        """The share of each of these cases, where there are so many ``together`` with the operators."""
        # A band has three.
        curves = sum(2 * len(one.rounds) + 3 + len(series.DEVICE) + len(series.HOST) for one in results)
        logs = min(MOST_LOG, LOGS_TOGETHER // max(1, len(results)))
        text = min(MOST_MESSAGE, MESSAGES_TOGETHER // max(1, len(results), together))
        return cls(series.points_for(curves), max(LEAST_LOG, logs), max(LEAST_MESSAGE, text))


def describe(session: SessionFiles, result: Result, share: Share, band: Band | None = None) -> dict[str, Any]:
    """What the report shows of one case; ``band`` is where its rounds were to stay."""
    directories = [(one, sessions.round_directory(session, result, one)) for one in result.rounds]
    there = [(one, directory) for one, directory in directories if directory.is_dir()]
    is_inference = inferring.is_inference(result)
    seen = [(one, series.events_of(directory)) for one, directory in there] if is_inference else []
    return {
        **identity(session, result, share),
        "quality": _quality(result, is_inference),
        "memory": terminal.memory(result),
        "is_resumed": any(map(resume.is_note, result.notes)),
        "is_judged": reading.is_trusted(result),
        "targets": [{**msgspec.to_builtins(one), "worst_round": _differs(result, one)} for one in result.targets],
        "metrics": [_metric(result, name, metric) for name, metric in result.metrics.items()],
        "several_samples": any(len(one.samples) > 1 for one in result.spreads.values()),
        "comparisons": [msgspec.to_builtins(one) for one in result.comparisons],
        "change": worst(result),
        "published": published(result),
        "configuration": [
            {"key": key, "value": _text(one.value), "origin": one.origin, "changed": not one.origin.startswith("case ")}
            for key, one in result.configuration.items()
        ],
        "deviations": cut_all(result.deviations, share.text),
        "diff": cut(result.diff, share.text),
        "notes": cut_all(result.notes, share.text),
        "environment": environment(result),
        "rounds": [_round(one, share) for one in result.rounds],
        **_evaluations(result),
        "logs": _logs(session.directory, there, share.logs),
        "rerun": shlex.join(result.rerun),
        "charts": [*latency.charts(result, seen, share.points), *series.charts(result, there, share.points, band)],
        "inference": inference.describe(result, seen[-1][1] if seen else []),
        "files_missing": [one.directory for one, directory in directories if not directory.is_dir()],
    }


def identity(session: SessionFiles, result: Result, share: Share) -> dict[str, Any]:
    """Which case of which session, and its verdict."""
    case = result.case
    error = result.error
    return {
        "session": session.name,
        **{name: getattr(case, name) for name in _IDENTITY},
        "chip": case.chip or "",
        "on": f"{case.vendor} {case.chip}" if case.chip else case.vendor,
        "marks": reading.marks(result),
        "changes": len(result.deviations),
        "verdict": result.verdict,
        "amiss": texts.word(result.verdict).tone in ("bad", "doubtful"),
        "error": None if error is None else {"type": error.type, "message": cut(error.message, share.text)},
    }


def cut(message: str, most: int = MOST_MESSAGE) -> str:
    """The message, or the beginning of one that is too long to show; the session's files have all of it."""
    return message if len(message) <= most else message[:most] + " …"


def cut_all(texts: Sequence[str], most: int) -> list[str]:
    """Texts that together take no more than ``most`` characters, and how many are left out."""
    shown: list[str] = []
    left = most
    for text in texts[:MOST_NOTES]:
        if left <= 0:
            break
        shown.append(cut(text, left))
        left -= len(text)
    more = len(texts) - len(shown)
    return [*shown, *([f"… {more} more in result.json"] if more else [])]


def worst(result: Result) -> dict[str, Any] | None:
    """The comparison that a reader has to see first."""
    found = gate.foremost(result.comparisons)
    return msgspec.to_builtins(found[0]) if found else None


def published(result: Result) -> list[dict[str, Any]]:
    """What others published for this model, a row for each figure, beside ours of the same name.

    All of it is of training.
    """
    if inferring.is_inference(result):
        return []
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
        *(("weights", name, text) for name, text in inferring.described(result)),
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
        "unit": reading.unit(result, name),
        "better": metric.better,
        "is_target": any(one.metric == name for one in result.targets),
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
    apart = _apart(result, row)
    ours = {} if apart else {name: one.value for name, one in result.metrics.items()}
    known = [
        {"name": name, "value": value, "unit": reading.unit(result, name), "ours": ours.get(name), "apart": apart}
        for name, value in row.metrics.items()
    ]
    other = [
        {"name": one.name, "value": one.value, "unit": one.unit, "ours": None, "apart": apart} for one in row.other
    ]
    return [{**where, **one} for one in (*known, *other)]


def _apart(result: Result, row: references.Row) -> list[str]:
    """What makes ours another workload than the published one, as keys of texts; as ``derived`` asks for its ratios."""
    case = result.case
    pairs = {
        "framework": (case.framework, row.framework),
        "topology": (case.topology, row.topology),
        "precision": (case.precision, row.precision),
        "scale": (case.scale, "full"),
    }
    found = [name for name, (ours, theirs) in pairs.items() if ours != theirs]
    found += [f"mark.{mark}" for mark in reading.marks(result) if mark != reading.OPEN]
    return found if reading.is_trusted(result) and result.error is None else [*found, "not.trusted"]


def _quality(result: Result, is_inference: bool) -> str:
    """The targets with what was found; of inference those that the case has, and what its engine did not keep."""
    if not reading.is_trusted(result):
        return ""
    return terminal.quality(result, leave_out=terminal.OF_ENGINE if is_inference else ())


def _differs(result: Result, target: TargetResult) -> bool:
    """Whether the value that a target was judged by is another than the metric's, which is of all rounds."""
    metric = result.metrics.get(target.metric)
    return metric is not None and target.value is not None and metric.value != target.value


def _evaluations(result: Result) -> dict[str, Any]:
    """The last evaluations of the last round, for readers without charts, and how many came before.

    Of inference they stand beside each other elsewhere.
    """
    last = result.rounds[-1].evaluations if result.rounds and not inferring.is_inference(result) else []
    shown = last[-MOST_EVALUATIONS:]
    names = list(dict.fromkeys(name for one in shown for name in one.quality))
    return {
        "evaluations": [msgspec.to_builtins(one) for one in shown],
        "evaluated": names,
        "evaluations_before": len(last) - len(shown),
    }


@cache
def _references() -> Mapping[str, list[references.Row]]:
    found: dict[str, list[references.Row]] = {}
    for row in references.rows():
        found.setdefault(row.model, []).append(row)
    return found


def _round(one: RoundResult, share: Share) -> dict[str, Any]:
    return {
        "round": one.round,
        "seed": one.seed,
        "time_started": one.time_started,
        "dropped": one.dropped,
        "error": None if one.error is None else {"type": one.error.type, "message": cut(one.error.message, share.text)},
        "metrics": {name: msgspec.to_builtins(one.metrics[name]) for name in MAIN if name in one.metrics},
        "quality": one.evaluations[-1].quality if one.evaluations else {},
        "evaluations": len(one.evaluations),
    }


def _logs(session: Path, directories: Iterable[tuple[RoundResult, Path]], most: int) -> list[dict[str, Any]]:
    """The ends of the last round's logs that are not empty, the launcher's and the first ranks'.

    Of the ``session`` alone: a path or a link in somebody else's session may lead to any file of the reader's.
    """
    last = [directory for _, directory in directories][-1:]
    paths = [path for directory in last for path in sorted(directory.glob("*/*.log")) if _is_log(session, path)]
    chosen = paths[:MOST_LOGS]
    return [
        {"name": f"{path.parent.parent.name}/{path.parent.name}/{path.name}", **_tail(path, most // len(chosen))}
        for path in chosen
    ]


def _is_log(session: Path, path: Path) -> bool:
    return path.resolve().is_relative_to(session) and path.is_file() and path.stat().st_size > 0


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
