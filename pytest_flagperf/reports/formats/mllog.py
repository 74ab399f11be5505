"""MLPerf Training's log: ``:::MLLOG`` lines that the official compliance checker reads.

The rules are those of 4.0.0, the last that have ResNet. A log is one round: its events as rank 0 wrote them, and the
hyper-parameters of the effective configuration under MLPerf's names. ``python -m mlperf_logging.compliance_checker
--ruleset 4.0.0 FILE`` (extra ``mlperf``) checks it.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytest_flagperf import bounds
from pytest_flagperf import perflog
from pytest_flagperf.errors import ConfigurationError
from pytest_flagperf.errors import ReplayError
from pytest_flagperf.perflog import Event
from pytest_flagperf.reports import reading
from pytest_flagperf.reports.formats import OPTIONS
from pytest_flagperf.reports.formats import common
from pytest_flagperf.result import Result
from pytest_flagperf.result import RoundResult
from pytest_flagperf.sessions import SessionFiles
from pytest_flagperf.sessions import round_directory


RULES = "4.0.0"
PREFIX = ":::MLLOG"
DIVISIONS = ("closed", "open")
STATUSES = ("cloud", "onprem", "preview", "research")
# Our model → MLPerf's benchmark, and the quality that it calls eval_accuracy.
BENCHMARKS: Mapping[str, tuple[str, str]] = {"resnet50": ("resnet", "top1")}

# MLPerf's name, after the optimizer's prefix → our configuration's.
_OPTIMIZER_KEYS = {
    "opt_end_learning_rate": "end_learning_rate",
    "opt_learning_rate_decay_poly_power": "learning_rate_decay_power",
    "opt_learning_rate_decay_steps": "learning_rate_decay_steps",
    "opt_weight_decay": "weight_decay",
    "opt_momentum": "momentum",
}
_LARS_KEYS = {"epsilon": "epsilon", "opt_learning_rate_warmup_epochs": "warmup_epochs"}
_POINTS = {
    perflog.INIT_START: ("init_start", "INTERVAL_START"),
    perflog.INIT_END: ("init_stop", "INTERVAL_END"),
    perflog.TRAIN_START: ("run_start", "INTERVAL_START"),
}
_CLOSED_OPTIMIZERS = ("sgd", "lars")
_YES, _NO = ("yes", "true", "1"), ("no", "false", "0", "")


@dataclass(frozen=True)
class Submission:
    """What no session knows: who submits, on which system, as what."""

    submitter: str
    platform: str
    division: str
    status: str
    poc_name: str
    poc_email: str
    cache_cleared: bool


@dataclass(frozen=True)
class Log:
    """One round's log; ``name`` is ``<case id>/result_<k>.txt``, as in a submission.

    A round that broke off before it trained has none: ``problem`` says why.
    """

    name: str
    text: str
    problem: str = ""


def render(sessions: Sequence[SessionFiles], output: Path | None, **given: str) -> str | None:
    """The log of the only round there is, or with several a file each below the directory ``output``, and their names.

    ``given`` are the keywords of ``OPTIONS["mllog"]``; one that is missing is taken from ``FLAGPERF_MLPERF_<NAME>``.
    Raises ``ConfigurationError`` for what is missing or unknown, and where no round can be told as MLPerf's.
    """
    found = list(_logs(sessions, given))
    logs, without = [one for one in found if not one.problem], [one for one in found if one.problem]
    if not logs and without:
        raise ReplayError("no round here has a log in MLPerf's form: " + "; ".join(one.problem for one in without))
    if not logs:
        known = ", ".join(BENCHMARKS)
        raise ConfigurationError(f"no convergence test here has a log in MLPerf's form: it knows {known}")
    if len(found) == 1 and (output is None or not output.is_dir()):
        return common.finish(logs[0].text, output)
    if output is None:
        raise ConfigurationError(
            f"there are {len(found)} rounds, and a log of MLPerf's is one: give a directory with --output DIR"
        )
    for one in logs:
        reading.write(output / one.name, one.text.encode())
    left = [f"left out: {one.name}: {one.problem}\n" for one in without]
    return "".join([*(f"{output / one.name}\n" for one in logs), *left])


def _logs(sessions: Sequence[SessionFiles], given: Mapping[str, str]) -> Iterator[Log]:
    numbers: Counter[str] = Counter()
    for session, result in common.results(sessions):
        case = result.case
        if case.kind != "training" or case.role != "convergence" or case.model not in BENCHMARKS:
            continue
        submission = submission_of(result, given)
        directory = _directory(case.id)
        for one in result.rounds:
            try:
                text = log(result, one, events_of(session, result, one), submission)
            except ReplayError as error:
                yield Log(f"{session.name}: {case.id}, round {one.round}", "", str(error))
                continue
            # Rounds of several sessions are runs of one submission: their numbers go on.
            yield Log(f"{directory}/result_{numbers[directory]}.txt", text)
            numbers[directory] += 1


def _directory(case: str) -> str:
    """The case's id, as one directory's name. Raises ``ConfigurationError`` for one that would lead elsewhere."""
    if not case or case.startswith(".") or any(one in case for one in ("/", "\\", "\0")):
        raise ConfigurationError(f"{case!r} cannot be a directory's name, so its logs have no place. Rename the case")
    return case


def submission_of(result: Result, given: Mapping[str, str]) -> Submission:
    """What was said about the submission. Raises ``ConfigurationError`` that names the option."""
    unknown = sorted(set(given) - set(OPTIONS["mllog"]))
    if unknown:
        raise ConfigurationError(f"mllog has no option {unknown[0]!r}; known: {', '.join(OPTIONS['mllog'])}")
    said = {name: given.get(name) or os.environ.get(_variable(name), "") for name in OPTIONS["mllog"]}
    if not said["submitter"]:
        raise ConfigurationError(f"MLPerf's log names who submits: give {_option('submitter')}")
    case = result.case
    division = _one_of("division", said["division"] or "open", DIVISIONS)
    if division == "closed" and case.division != "closed":
        raise ConfigurationError(f"{case.id} ran in the open division, so {_option('division')} cannot be closed")
    cleared = said["cache_cleared"].lower()
    return Submission(
        submitter=said["submitter"],
        platform=said["platform"] or " ".join(filter(None, (case.topology, case.vendor, case.chip))),
        division=division,
        status=_one_of("status", said["status"] or "research", STATUSES),
        poc_name=said["poc_name"],
        poc_email=said["poc_email"],
        cache_cleared=_one_of("cache_cleared", cleared, (*_YES, *_NO)) in _YES,
    )


def _variable(name: str) -> str:
    return f"FLAGPERF_MLPERF_{name.upper()}"


def _option(name: str) -> str:
    return f"--mlperf-{name.replace('_', '-')} (or {_variable(name)})"


def _one_of(name: str, value: str, known: Sequence[str]) -> str:
    if value not in known:
        raise ConfigurationError(f"{_option(name)} is {value!r}; MLPerf knows {', '.join(filter(None, known))}")
    return value


def events_of(session: SessionFiles, result: Result, one: RoundResult) -> list[Event]:
    """Rank 0's events of a round. Raises ``ReplayError`` where the session does not have them."""
    directory = round_directory(session, result, one)
    paths = sorted(directory.glob("*/rank0.events.jsonl"))
    if not paths:
        raise ReplayError(f"{directory} holds no rank0.events.jsonl: without events there is no log to write")
    return perflog.read_events(paths[0])


def log(result: Result, one: RoundResult, events: Sequence[Event], submission: Submission) -> str:
    """The lines of one round, in the order of time.

    A round without TRAIN_END, or one whose target was not met, ends with status ``aborted``. Raises
    ``ConfigurationError`` for a round of the closed division whose configuration lacks what MLPerf asks for.
    """
    start = next((event for event in events if event.name == perflog.TRAIN_START), None)
    first = events[0] if events else None
    if first is None or start is None:
        raise ReplayError(f"{result.case.id}, round {one.round}: its log has no TRAIN_START, so no run to tell of")
    lines = [_line(first, key, value) for key, value in _facts(result, one, start, submission).items()]
    status = _status(result, one, events)
    lines += [line for number, event in enumerate(events) for line in _told(result, events, number, event, status)]
    if not any(event.name == perflog.TRAIN_END for event in events):
        lines.append(_line(events[-1], "run_stop", None, "INTERVAL_END", status="aborted"))
    return "".join(f"{line}\n" for line in lines)


def _facts(result: Result, one: RoundResult, start: Event, submission: Submission) -> dict[str, Any]:
    """What holds for the whole round: the submission, the data and the hyper-parameters."""
    found: dict[str, Any] = {
        "submission_benchmark": BENCHMARKS[result.case.model][0],
        "submission_org": submission.submitter,
        "submission_platform": submission.platform,
        "submission_division": submission.division,
        "submission_status": submission.status,
    }
    contact = {"submission_poc_name": submission.poc_name, "submission_poc_email": submission.poc_email}
    found |= {name: text for name, text in contact.items() if text}
    found["cache_clear"] = submission.cache_cleared
    if one.seed is not None:
        found["seed"] = one.seed
    # Ours: the checker passes over them, and a reader sees when it was no ImageNet.
    found |= {"flagperf_case": result.case.id, "flagperf_dataset": result.dataset.name}
    return found | _samples(result) | hyper_parameters(result, start, submission.division)


def _samples(result: Result) -> dict[str, int]:
    splits = dict(result.dataset.splits)
    evaluated = next((splits[name] for name in ("test", "val", "validation") if name in splits), None)
    found = {"train_samples": splits.get("train"), "eval_samples": evaluated}
    missing = [name for name, count in found.items() if count is None]
    if missing:
        raise ConfigurationError(
            f"{result.case.id}: MLPerf asks for {missing[0]}, and the result does not say how many samples "
            f"{result.dataset.name} has (splits: {', '.join(splits) or 'none'})"
        )
    return {name: count for name, count in found.items() if count is not None}


def hyper_parameters(result: Result, start: Event, division: str) -> dict[str, Any]:
    """The effective configuration by MLPerf's names; what it does not have is absent.

    The learning rate is the one in force, scaled to the global batch. Batch normalization spans what one rank computes
    at once. Raises ``ConfigurationError`` where the closed division wants what is not there.
    """
    settings, total = common.settings(result), start.value.get("global_batch_size")
    accumulation = int(settings.get("gradient_accumulation_steps", 1))
    optimizer = str(settings.get("optimizer", ""))
    found: dict[str, Any] = {"global_batch_size": total, "gradient_accumulation_steps": accumulation}
    found |= {"opt_name": optimizer, "opt_base_learning_rate": _learning_rate(settings, total)}
    prefix = f"{optimizer}_" if optimizer in _CLOSED_OPTIMIZERS else ""
    if prefix:
        found[f"{prefix}opt_base_learning_rate"] = found["opt_base_learning_rate"]
    names = {**_OPTIMIZER_KEYS, **(_LARS_KEYS if optimizer == "lars" else {})}
    found |= {prefix + key: settings.get(name) for key, name in names.items()}
    found["opt_learning_rate_warmup_epochs"] = settings.get("warmup_epochs")
    if isinstance(total, int):
        found["model_bn_span"] = total // (common.devices(result.case.topology) * accumulation)
    if division == "closed":
        _check_closed(result, optimizer, found)
    return {name: value for name, value in found.items() if value not in (None, "")}


def _learning_rate(settings: Mapping[str, Any], global_batch: Any) -> float | None:
    """The linear scaling rule, as the workloads apply it: times global batch / ``reference_batch_size``."""
    rate, reference = settings.get("learning_rate"), settings.get("reference_batch_size")
    if rate is None or not reference:
        return rate
    return float(rate) * float(global_batch) / float(reference) if global_batch else None


def _check_closed(result: Result, optimizer: str, found: Mapping[str, Any]) -> None:
    if optimizer not in _CLOSED_OPTIMIZERS:
        raise ConfigurationError(
            f"{result.case.id}: the closed division takes sgd or lars, not {optimizer or 'no optimizer'}: "
            f"set {_option('division')} to open"
        )
    missing = sorted(key for key, value in found.items() if value is None)
    if missing:
        raise ConfigurationError(
            f"{result.case.id}: the closed division asks for {', '.join(missing)}, which the effective configuration "
            f"does not have (another learning-rate schedule than MLPerf's, for one): set {_option('division')} to open"
        )


def _told(result: Result, events: Sequence[Event], number: int, event: Event, status: str) -> Iterator[str]:
    """The lines that an event becomes."""
    if event.name in _POINTS:
        key, kind = _POINTS[event.name]
        yield _line(event, key, None, kind)
    elif event.name in (perflog.EPOCH_BEGIN, perflog.EPOCH_END):
        begins = event.name == perflog.EPOCH_BEGIN
        key, kind = ("epoch_start", "INTERVAL_START") if begins else ("epoch_stop", "INTERVAL_END")
        yield _line(event, key, None, kind, epoch_num=event.value.get("epoch"))
    elif event.name == perflog.EVALUATE_BEGIN:
        following = (one for one in events[number:] if one.name == perflog.EVALUATE)
        epoch = next((_epoch(one) for one in following), None)
        if epoch is not None:
            yield _line(event, "eval_start", None, "INTERVAL_START", epoch_num=epoch)
    elif event.name == perflog.EVALUATE:
        quality = BENCHMARKS[result.case.model][1]
        if quality in event.value:
            yield _line(event, "eval_accuracy", event.value[quality], epoch_num=_epoch(event))
        yield _line(event, "eval_stop", None, "INTERVAL_END", epoch_num=_epoch(event))
    elif event.name == perflog.TRAIN_END:
        yield _line(event, "run_stop", None, "INTERVAL_END", status=status)


def _status(result: Result, one: RoundResult, events: Sequence[Event]) -> str:
    """``success`` for a round that can be trusted and met its targets, of a case that can.

    A case that missed its target may have rounds that met it; one that is invalid vouches for none of its rounds.
    """
    finished = next((event for event in events if event.name == perflog.FINISHED), None)
    converged = finished is not None and finished.value.get("converged") is True
    trusted = one.error is None and reading.is_trusted(result) and (result.verdict != "missed" or _held(result, one))
    return "success" if converged and trusted else "aborted"


def _held(result: Result, one: RoundResult) -> bool:
    """Whether the round's last evaluation holds the targets that its case missed."""
    quality = one.evaluations[-1].quality if one.evaluations else {}
    return all(bounds.holds(quality.get(each.metric), each.bound, each.direction) for each in result.targets)


def _epoch(event: Event) -> float | int | None:
    """MLPerf counts epochs from 1; ours may be a fraction where a case evaluates within one."""
    epoch = event.value.get("epoch")
    return int(epoch) if isinstance(epoch, float) and epoch.is_integer() else epoch


def _line(event: Event, key: str, value: Any, kind: str = "POINT_IN_TIME", **metadata: Any) -> str:
    record = {
        "namespace": "",
        "time_ms": round(event.time * 1e3),
        "event_type": kind,
        "key": key,
        "value": value,
        "metadata": {"file": event.file, "lineno": event.line, **metadata},
    }
    return f"{PREFIX} {json.dumps(record)}"
