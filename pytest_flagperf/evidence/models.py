"""A model's result beside its rounds: measured again from the events, summarised and judged again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from pytest_flagperf import measured
from pytest_flagperf import metrics
from pytest_flagperf import perflog
from pytest_flagperf import samples
from pytest_flagperf import sessions
from pytest_flagperf import verdict
from pytest_flagperf.case import ResolvedCase
from pytest_flagperf.case import Target
from pytest_flagperf.devices.monitor import MONITOR
from pytest_flagperf.devices.vendor import Vendor
from pytest_flagperf.errors import ConfigurationError
from pytest_flagperf.errors import FlagPerfError
from pytest_flagperf.errors import InvalidMeasurement
from pytest_flagperf.errors import ReplayError
from pytest_flagperf.evidence import comparisons
from pytest_flagperf.evidence import recorded
from pytest_flagperf.evidence.findings import UNREADABLE
from pytest_flagperf.evidence.findings import Findings
from pytest_flagperf.evidence.same_case import same_case
from pytest_flagperf.judging import baselines
from pytest_flagperf.judging import curves
from pytest_flagperf.judging import provenance
from pytest_flagperf.judging import rounds as judging
from pytest_flagperf.measured import Measured
from pytest_flagperf.perflog import Event
from pytest_flagperf.result import Result
from pytest_flagperf.result import RoundResult
from pytest_flagperf.run import figures_of
from pytest_flagperf.run import judge_rounds
from pytest_flagperf.run import round_result
from pytest_flagperf.sessions import SessionFiles
from pytest_flagperf.sessions import inside_session


# Of these the vendor's file decides: the peak, and what its driver's power is of.
_BY_VENDOR = ("mfu", "power", "energy")
_BY_TIMES = ("e2e_time", "init_time")
_BY_MONITOR = (
    *("power", "energy", "temperature", "device_utilization", "memory_device_peak", "clock", "throttled"),
    *("ecc_errors", "cpu_utilization", "host_memory_used"),
)
# Seconds by which the two clocks of an event may come apart from one event to the next: time_ms is cut to
# milliseconds, and who sets a clock by the network moves it by 0.05 % of the time between.
_APART, _SLEWED = 0.02, 0.001


@dataclass(frozen=True)
class Files:
    """Where a result is from: the session, and the vendor that its rounds ran with, if it is known."""

    session: SessionFiles
    file: str
    vendor: Vendor | None

    def directory(self, one: RoundResult) -> Path | None:
        """Where a round's raw files are; nothing outside of the session is evidence."""
        inside = inside_session(one.directory)
        if inside is None:
            return None
        case = (self.session.directory / self.file).parent
        found = next((p for p in (self.session.directory / inside, case / inside.name) if p.is_dir()), None)
        # The directory of a round is in that of its result, whatever a path says.
        return found if found is not None and found.parent == case else None

    def name(self, path: Path) -> str:
        """A path as it is called in messages: relative to the session."""
        return str(path.relative_to(self.session.directory))


def check(result: Result, files: Files, findings: Findings) -> None:
    """Everything that a result says and that follows from its rounds' files."""
    findings.results += 1
    try:
        recorded.register({name: one for each in result.rounds for name, one in each.metrics.items()})
        recorded.register(result.metrics)
    except ConfigurationError as error:
        findings.problem(files.file, "metrics", str(error))
    again: list[RoundResult] = []
    for one in result.rounds:
        try:
            again.append(_round(result, one, files, findings))
        except UNREADABLE as error:
            findings.problem(files.file, f"round {one.round}", f"it cannot be judged again: {_text(error)}")
    if not result.rounds and result.error is None:
        findings.problem(files.file, "rounds", "there is none, and no error that says why")
    if len(again) == len(result.rounds):
        try:
            _judged(result, again, files, findings)
        except UNREADABLE as error:
            findings.problem(files.file, "", f"it cannot be judged again: {_text(error)}")


def _text(error: BaseException) -> str:
    text = str(error).splitlines()[0] if str(error) else ""
    return text if isinstance(error, FlagPerfError) else f"{type(error).__name__}: {text}"


def _round(result: Result, one: RoundResult, files: Files, findings: Findings) -> RoundResult:
    """The round as its files tell it; what differs from what the result says of it is a problem."""
    directory = files.directory(one)
    if directory is None:
        raise ReplayError(f"its files are not in the session ({one.directory}): what it says follows from nothing")
    findings.rounds += 1
    name = files.name(directory)
    document = recorded.read(directory / "case.json")
    same_case(result, document, f"{name}/case.json", files.file, findings)
    findings.same(files.file, f"round {one.round} seed", one.seed, document.get("seed"), f"{name}/case.json")
    case = recorded.case(document, result.case.kind)
    if not (directory / measured.TIMES).is_file():
        if one.error is None:
            raise ReplayError(f"{name}/{measured.TIMES} is not there: the round did not end well")
        findings.same_table(files.file, f"round {one.round} ", figures_of(one), {}, f"{name}: the round failed")
        if one.evaluations:
            # Who is ended in the middle of a line leaves a torn one.
            ranks, _ = _events(case, directory, whole=False)
            found = Measured({}, metrics.evaluations(ranks[0]))
            again = round_result(one.round, one.seed, directory, one.time_started, found, None)
            _same_evaluations(one, again, f"{name}/*/rank0.events.jsonl", files, findings)
        return one
    return _measured(result, one, case, directory, files, findings)


def _measured(
    result: Result, one: RoundResult, case: ResolvedCase, directory: Path, files: Files, findings: Findings
) -> RoundResult:
    name = files.name(directory)
    ranks, logs = _events(case, directory)
    for events, log in zip(ranks, logs, strict=True):
        _plausible(events, files.name(log), findings)
    _submitted(ranks[0], case, files.name(logs[0]), findings)
    _versions(ranks[0], result, files.name(logs[0]), files, findings)
    try:
        found = _measure(case, ranks, directory, files)
    except InvalidMeasurement as error:
        if one.error is None or one.error.type != type(error).__name__:
            findings.problem(files.file, f"round {one.round}", f"{name} gives no valid measurement: {_text(error)}")
        return one
    again = round_result(one.round, one.seed, directory, one.time_started, found, None)
    if one.error is not None:
        # A slow round that is called failed could be dropped.
        why = f"{one.error.type} is written there; a valid measurement follows from {name}"
        findings.problem(files.file, f"round {one.round} error", why)
        return msgspec.structs.replace(one, metrics={})
    figures, told = figures_of(again), figures_of(one)
    if files.vendor is None:
        figures, told = ({k: v for k, v in each.items() if k not in _BY_VENDOR} for each in (figures, told))
    elif "mfu" in told and case.scale.flops is None:
        why = "neither case.json nor a suite here says the model's FLOPs"
        findings.note(f"{files.file}: mfu is not judged again: {why}")
        told = {key: value for key, value in told.items() if key != "mfu"}
    for metric in dict.fromkeys([*figures, *told]):
        source = _source(metric, name)
        findings.same(files.file, f"round {one.round} {metric}", told.get(metric), figures.get(metric), source)
    _same_evaluations(one, again, f"{name}/*/rank0.events.jsonl", files, findings)
    precision = f"round {one.round} precision."
    findings.same_table(files.file, precision, one.precision, again.precision, f"{name}/*/rank0.events.jsonl")
    if one.loadgen != again.loadgen:
        told, said = msgspec.to_builtins(one.loadgen), msgspec.to_builtins(again.loadgen)
        findings.same(files.file, f"round {one.round} loadgen", told, said, f"{name}/*/rank0.events.jsonl")
    if files.vendor is not None:
        chip = found.chip or recorded.chip_of(files.session, files.vendor)
        findings.same(files.file, "case.chip", result.case.chip, chip, f"{name}, session.json and the vendor file")
    kept = {**again.metrics, **{k: v for k, v in one.metrics.items() if k in _BY_VENDOR}}
    return msgspec.structs.replace(again, metrics=kept)


def _measure(case: ResolvedCase, ranks: Sequence[Sequence[Event]], directory: Path, files: Files) -> measured.Measured:
    seen = samples.read(next(iter(sorted(directory.glob(f"*/{MONITOR}"))), directory / MONITOR))
    times = metrics.JobTimes(**recorded.read(directory / measured.TIMES))
    vendor = files.vendor if files.vendor is not None else _nobody(case)
    found = measured.measure(vendor, case, ranks, times, seen if seen.devices else None)
    end = next((event for event in ranks[0] if event.name in (perflog.TRAIN_END, perflog.INFERENCE_END)), None)
    if end is not None and end.monotonic is not None and end.monotonic > times.ended:
        raise InvalidMeasurement(f"{case.case.kind} ends after its job")
    return found


def _nobody(case: ResolvedCase) -> Vendor:
    return Vendor(1, case.vendor, case.vendor, [], {})


def _events(case: ResolvedCase, directory: Path, *, whole: bool = True) -> tuple[list[list[Event]], list[Path]]:
    size = case.selection.topology.world_size
    if size > len(list(directory.glob("*/rank*.events.jsonl"))):
        raise ReplayError(f"{directory.name} does not have the events of {size} ranks")
    logs = [sorted(directory.glob(f"*/rank{rank}.events.jsonl")) for rank in range(size)]
    missing = [str(rank) for rank, paths in enumerate(logs) if len(paths) != 1]
    if missing:
        raise ReplayError(f"{directory.name} lacks the events of rank {', '.join(missing)}, or has them twice")
    for (log,) in logs if whole else ():
        _whole(log)
    return [perflog.read_events(log) for (log,) in logs], [log for (log,) in logs]


def _whole(log: Path) -> None:
    """The reader of events leaves out what it cannot read; in evidence there is nothing to leave out."""
    for number, line in enumerate(log.read_bytes().splitlines(), 1):
        try:
            json.loads(line)
        except ValueError as error:
            raise ReplayError(f"line {number} of {log.parent.name}/{log.name} is no event: {error}") from error


def _source(metric: str, directory: str) -> str:
    if metric in _BY_MONITOR:
        return f"{directory}/*/{MONITOR}"
    if metric in _BY_TIMES:
        return f"{directory}/{measured.TIMES} and */rank*.events.jsonl"
    return f"{directory}/*/rank*.events.jsonl"


def _same_evaluations(one: RoundResult, again: RoundResult, source: str, files: Files, findings: Findings) -> None:
    prefix = f"round {one.round} evaluation"
    if len(one.evaluations) != len(again.evaluations):
        findings.same(files.file, f"{prefix}s", len(one.evaluations), len(again.evaluations), source)
        return
    for number, (said, follows) in enumerate(zip(one.evaluations, again.evaluations, strict=True), 1):
        findings.same_table(
            files.file, f"{prefix} {number} ", msgspec.structs.asdict(said), msgspec.structs.asdict(follows), source
        )


def _submitted(events: Sequence[Event], case: ResolvedCase, file: str, findings: Findings) -> None:
    """What rank 0 says it was given, which is the only place the configuration stands twice."""
    told = next((event.value for event in events if event.name == perflog.SUBMIT_INFO), None)
    if told is None:
        findings.problem(file, perflog.SUBMIT_INFO, "rank 0 does not say what it was given")
        return
    findings.same_table(file, "SUBMIT_INFO.config.", told.get("config", {}), case.config, "case.json")
    for key in ("vendor", "model"):
        findings.same(file, f"SUBMIT_INFO.{key}", told.get(key), getattr(case, key), "case.json")


def _versions(events: Sequence[Event], result: Result, log: str, files: Files, findings: Findings) -> None:
    """The software of the result is what rank 0 said that it ran with; older ranks did not say it."""
    told = next((event.value.get("versions") for event in events if event.name == perflog.INIT_END), None)
    if not isinstance(told, dict) or not result.stack:
        return
    for name, version in told.items():
        if version not in result.stack.values():
            findings.problem(files.file, "stack", f"{name} {version}, of {log}, is not in it")


def _plausible(events: Sequence[Event], file: str, findings: Findings) -> None:
    """Note where time runs backwards in a log, or where its two clocks come apart."""
    previous: Event | None = None
    for event in events:
        if event.monotonic is None:
            continue
        if previous is not None and previous.monotonic is not None:
            passed, by_wall = event.monotonic - previous.monotonic, event.time - previous.time
            if passed < 0:
                findings.problem(file, event.name, "it is written before the event above it: time runs backwards")
                return
            if abs(passed - by_wall) > _APART + _SLEWED * passed:
                findings.note(
                    f"{file}: {passed:.3f} s by one clock and {by_wall:.3f} s by the other lie before {event.name}: "
                    "the host's clock was set at that moment, or the log was edited"
                )
                return
        previous = event


def _judged(result: Result, again: Sequence[RoundResult], files: Files, findings: Findings) -> None:
    """Which rounds count, the figures of all of them, targets, comparisons, verdict."""
    file = files.file
    case_file = next((files.directory(one) for one in result.rounds), None)
    targets: tuple[Target, ...] = ()
    if case_file is not None:
        targets = recorded.targets(recorded.read(case_file / "case.json"), result.case.kind)
    counted = judging.drop(again, targets if result.case.role == "convergence" else ())
    for said, follows in zip(result.rounds, counted, strict=True):
        findings.same(file, f"round {said.round} dropped", bool(said.dropped), bool(follows.dropped), "the rounds")
    figures, spreads = judging.of_rounds(counted) if result.error is None else ({}, {})
    found = {name: one.value for name, one in result.metrics.items()}
    findings.same_table(file, "", found, figures, "the rounds")
    for name, value in result.metrics.items():
        metric = metrics.get(name)
        findings.same(file, f"{name} unit", (value.unit, value.better), (metric.unit, metric.better), "the registry")
    if result.spreads:
        said_spreads = {name: msgspec.to_builtins(one) for name, one in result.spreads.items()}
        follow = {name: msgspec.to_builtins(one) for name, one in spreads.items()}
        for name in dict.fromkeys([*follow, *said_spreads]):
            findings.same_table(
                file, f"spreads.{name}.", said_spreads.get(name, {}), follow.get(name, {}), "the rounds"
            )
    own = _targets(result, targets, counted, file, findings)
    if result.error is not None:
        own = verdict.REGRESSED if result.error.type == "Regressed" else verdict.INVALID
        _failed(result, counted, figures, files, findings)
    _started(result, files, findings)
    comparisons.check(result, own, file, files.session, findings)


def _targets(
    result: Result, targets: Sequence[Target], counted: Sequence[RoundResult], file: str, findings: Findings
) -> str:
    """The targets beside the worst round. A test may ask for more than its case does: that it then missed."""
    rounds = [figures_of(one) for one in counted if not one.dropped]
    judged = judge_rounds(targets, rounds)
    told = tuple(Target(one.metric, one.bound, one.direction, one.source) for one in result.targets)
    if result.error is None and told != tuple(targets):
        judged = judge_rounds(told, rounds)
        if verdict.of_targets(judged) == verdict.MISSED:
            findings.note(f"{file}: its targets are those that its test asked for, and not the case's")
        else:
            findings.problem(file, "targets", f"{len(told)} are there, the case has {len(targets)}, and none is missed")
    if result.error is None:
        for target, one in zip(result.targets, judged, strict=True):
            findings.same(file, f"target {target.metric} value", target.value, one.value, "the worst round")
            findings.same(file, f"target {target.metric} met", target.met, one.met, "value and bound")
    return verdict.of_targets(judged)


# What a test, or the launcher, may find wrong with rounds that are all valid, beside that the code changed meanwhile.
_UNTARGETED = "there is no target to meet"
_UNMEASURED = "not measured: "


def _failed(
    result: Result, counted: Sequence[RoundResult], figures: Mapping[str, float], files: Files, findings: Findings
) -> None:
    """An error is that of its last round, or there is a reason for it that does not lie in a round."""
    assert result.error is not None
    if not result.rounds:
        return
    message = result.error.message
    if result.error.type == InvalidMeasurement.__name__ and provenance.CODE_CHANGED in message:
        # Whether a round was good or not is then no question, also of one that was stopped.
        findings.note(f"{files.file}: whatever its rounds say, it is called invalid for: {message.splitlines()[0]}")
        return
    errors = [one.error.type for one in result.rounds if one.error is not None]
    if errors:
        findings.same(files.file, "error", result.error.type, errors[-1], "the round that failed")
        return
    every, _ = judging.of_rounds(judging.drop(counted, ()))
    if _UNTARGETED in message and not result.targets:
        findings.note(f"{files.file}: no round failed; it is called invalid for: {message.splitlines()[0]}")
        return
    if _UNMEASURED in message:
        names = message.partition(_UNMEASURED)[2].splitlines()[0].split(", ")
        if any(name not in every for name in names):
            return
    found = comparisons.baseline_of(result, files.file, files.session, findings)
    hardware = baselines.hardware(files.session.description)
    if not any(curves.too_fast(result, one, hardware) for one in found):
        why = f"{result.error.type} is written there, and neither a round failed nor did they converge too fast"
        findings.problem(files.file, "error", why)


def _started(result: Result, files: Files, findings: Findings) -> None:
    """A case that was begun anew says which rounds it leaves out."""
    if "~" not in Path(files.file).parent.name:
        return
    held = {one.directory for one in result.rounds}
    lines = sessions.ledger(files.session.directory)
    own = [number for number, line in enumerate(lines) if line.get("directory") in held]
    told = judging.chosen(judging.unaccounted(lines[: max(own, default=-1) + 1], result))
    for note in told:
        if note not in result.notes:
            findings.problem(files.file, "notes", f"it does not say: {note}")
