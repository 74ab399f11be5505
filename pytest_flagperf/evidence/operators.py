"""Results of operators beside their samples, and beside what the workers' logs say was measured."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pytest_flagperf import metrics
from pytest_flagperf import perflog
from pytest_flagperf import sessions
from pytest_flagperf import verdict
from pytest_flagperf.case import Selection
from pytest_flagperf.case import Topology
from pytest_flagperf.devices.vendor import Vendor
from pytest_flagperf.errors import InvalidMeasurement
from pytest_flagperf.evidence import comparisons
from pytest_flagperf.evidence import recorded
from pytest_flagperf.evidence.findings import UNREADABLE
from pytest_flagperf.evidence.findings import Findings
from pytest_flagperf.judging.resume import is_note
from pytest_flagperf.judging.resume import source_of
from pytest_flagperf.operators import figures as operator_figures
from pytest_flagperf.operators import peaks
from pytest_flagperf.operators import table
from pytest_flagperf.operators.case import OperatorCase
from pytest_flagperf.operators.case import ResolvedOperator
from pytest_flagperf.operators.peaks import Ceilings
from pytest_flagperf.operators.peaks import Peak
from pytest_flagperf.operators.problems import from_json
from pytest_flagperf.result import RESULTS
from pytest_flagperf.result import Result
from pytest_flagperf.sessions import SessionFiles
from pytest_flagperf.worker.operators.measure import Measurement
from pytest_flagperf.worker.operators.measure import median_interval


# What follows from the problem's declared work, the time and the peak, and is never given by a worker.
_DERIVED = ("tflops", "speedup_vs_dense", "algbw", "busbw", "utilization")
_FROM_SAMPLES = ("time", "time_mean", "time_min", "time_p99", "cv")
# Samples are kept to a tenth of a nanosecond, in microseconds.
_ROUNDED = 5.1e-5
# Of what the worker alone saw nothing is kept that it could be computed from.
_TOLD = "first_call, wall_time by a device's clock, max_relative_error, dense_time and what the monitor saw"
_SURE = 0.9999

Measured = Counter[tuple[str, str, str]]


def check(
    result: Result,
    file: str,
    vendor: Vendor | None,
    session: SessionFiles,
    findings: Findings,
    before: Result | None = None,
) -> None:
    """Everything that a result says and that follows from its samples.

    ``before`` is the measurement that made this one wanted: it looked worse, or better, than the baseline.
    """
    findings.results += 1
    try:
        if result.error is None and result.verdict not in (verdict.WRONG, verdict.UNSUPPORTED):
            _figures(result, file, vendor, findings)
        elif result.metrics:
            findings.problem(file, result.case.id, f"it is {result.verdict} and has figures")
        _verdict(result, file, session, findings, before)
    except UNREADABLE as error:
        findings.problem(file, result.case.id, f"it cannot be judged again: {error}")


def _figures(result: Result, file: str, vendor: Vendor | None, findings: Findings) -> None:
    one, facts = resolved(result), result.operator
    name = f"{result.case.id} "
    named = vendor.chip(str(facts.get("device_name", ""))) if vendor is not None else None
    if named is not None:
        findings.same(file, name + "chip", result.case.chip, named[0], "the device's name and the vendor file")
    findings.same(file, name + "id", (result.case.id, facts.get("id")), (one.id, one.problem.id), "the problem")
    found = {metric: value.value for metric, value in result.metrics.items()}
    _samples(facts, found, file, name, findings)
    reply = {
        "figures": {key: value for key, value in found.items() if key not in _DERIVED},
        "correct": True,
        "precision": facts.get("precision"),
        "ended": facts.get("ended"),
    }
    again = operator_figures.of_reply(one, reply, _ceilings(one, result, vendor, file, findings))
    metrics.refuse_impossible(found)
    for metric in dict.fromkeys([*again.metrics, *found]):
        source = "the problem's declared work, its time and the peak"
        if metric in _DERIVED or metric == "bandwidth":
            findings.same(file, name + metric, found.get(metric), again.metrics.get(metric), source)
    error, bound = found.get("max_relative_error"), facts.get("error_bound")
    if error is not None and bound is not None and error > bound:
        raise InvalidMeasurement(f"max_relative_error is {error:g}, the bound {bound:g}: the answer is wrong")
    findings.note(f"taken as the workers told it, for want of raw figures: {_TOLD}")


def resolved(result: Result) -> ResolvedOperator:
    """The problem of a result. Raises ``ValueError`` or ``KeyError`` for one that is none."""
    case, facts = result.case, result.operator
    problem = from_json(dict(facts["problem"]))
    return ResolvedOperator(
        OperatorCase(case.model, case.model, [problem]),
        problem,
        set=case.scale,
        sets=tuple(facts.get("sets", ())),
        direction=case.role,
        selection=Selection(case.framework, case.precision, Topology.parse(case.topology), case.scale),
        vendor=case.vendor,
        directory=Path(),
        stand_in=case.stand_in,
    )


def _samples(facts: Mapping[str, Any], found: Mapping[str, float], file: str, name: str, findings: Findings) -> None:
    kept = [float(sample) for sample in facts.get("samples") or ()]
    if not kept:
        if "time" in found:
            findings.problem(file, name + "samples", "there are none, and a time is told")
        return
    count = int(facts["iterations"])
    if count > len(kept):
        _some_samples(kept, count, found, file, name, findings)
        return
    again = Measurement(tuple(kept), tuple(kept), 1, "", 0).figures()
    for metric in _FROM_SAMPLES:
        scale = 4 / again["time_mean"] if metric == "cv" else 1.0
        findings.same(
            file, name + metric, found.get(metric), again.get(metric), f"{count} samples", within=_ROUNDED * scale
        )
    if facts.get("clock") == "host":
        findings.same(file, name + "wall_time", found.get("wall_time"), again["time"], "samples", within=_ROUNDED)


def _some_samples(
    kept: Sequence[float], count: int, found: Mapping[str, float], file: str, name: str, findings: Findings
) -> None:
    """Of very many samples some were kept: then the median has to lie where theirs may, and the ends not inside."""
    interval = median_interval(kept, _SURE)
    low, high = interval if interval is not None else (min(kept), max(kept))
    findings.figures += 1
    if not low - _ROUNDED <= found["time"] <= high + _ROUNDED:
        findings.problem(
            file, name + "time", f"{found['time']} is written there; the samples kept give {low} to {high} µs"
        )
    if found["time_min"] > min(kept) + _ROUNDED:
        findings.problem(file, name + "time_min", f"{found['time_min']} is written there; a sample is {min(kept)} µs")
    if not found["time_min"] <= found["time_mean"] or not found["time"] <= found["time_p99"]:
        findings.problem(file, name + "time", "minimum, median, mean and 99th percentile are not in order")
    findings.note(f"{file}: where an operator has more than 1,000 samples a part is kept, and judges its time")


def _ceilings(one: ResolvedOperator, result: Result, vendor: Vendor | None, file: str, findings: Findings) -> Ceilings:
    """The vendor file's where the chip is known, else the peak that the result holds, as an estimate of its host's."""
    if one.stand_in:
        return Ceilings({})
    told = result.operator.get("peak")
    chip = vendor.chips.get(result.case.chip) if vendor is not None and result.case.chip else None
    if chip is not None:
        known = peaks.of_chip(chip)
        every = [*known.compute.values(), known.bandwidth, known.capacity, known.link]
        if told is not None and not any(one is not None and one.value == told.get("value") for one in every):
            findings.problem(file, f"{result.case.id} peak", f"{told.get('value')} is none of the vendor file's")
        return known
    if result.case.chip:
        findings.note(f"the peak of {result.case.chip} is taken as it is written: its vendor file is not here")
    if not told:
        return Ceilings({})
    peak = Peak(float(told["value"]), str(told["unit"]), str(told["source"]), bool(told.get("estimated")))
    return Ceilings({one.precision: peak}, peak, peak, peak)


def _verdict(result: Result, file: str, session: SessionFiles, findings: Findings, before: Result | None) -> None:
    own = result.verdict if result.verdict in (verdict.WRONG, verdict.UNSUPPORTED) else verdict.PASSED
    if result.error is not None:
        own = verdict.INVALID
    comparisons.check(result, own, file, session, findings, before)


# --- how often each problem was measured


def check_count(session: SessionFiles, every: Sequence[tuple[str, Result]], findings: Findings) -> None:
    """As many results as the workers' logs tell answers, and as many wrong ones; ``every`` is (file, result) of each
    line.
    """
    answered, wrong = _answered(session.directory)
    held: Measured = Counter()
    held_wrong: Measured = Counter()
    for _, result in every:
        if not _is_taken(result):
            held[_key(result)] += 1
            held_wrong[_key(result)] += result.verdict == verdict.WRONG
    for key, count in answered.items():
        if count > held[key]:
            findings.problem(
                f"operators/*/{RESULTS}",
                " ".join(key),
                f"measured {count} times by the workers' logs, and {held[key]} results are there",
            )
        if wrong[key] > held_wrong[key]:
            findings.problem(
                f"operators/*/{RESULTS}",
                " ".join(key),
                f"wrong {wrong[key]} times by the workers' logs, and {held_wrong[key]} results say so",
            )
    for file, result in every:
        if result.error is None and not _is_taken(result) and not answered[_key(result)]:
            findings.problem(file, result.case.id, "no worker's log tells that it was measured")


def _is_taken(result: Result) -> bool:
    """Whether a line says that it was taken from the session in ``--resume``, so that no log here tells of it."""
    return any(map(is_note, result.notes))


def check_taken(session: SessionFiles, every: Sequence[tuple[str, Result]], findings: Findings) -> None:
    """What was taken from another session follows from nothing here: session and ledger say which it was, the reader is
    told how many, and none stands in the place of what was measured here.
    """
    resumed = str(sessions.table(session.description, "resumed").get("session", ""))
    lines = [line for line in sessions.ledger(session.directory) if line.get("event") == "resumed"]
    told = {(str(line.get("test")), str(line.get("session"))) for line in lines}
    counting = {result.case.node_id: number for number, (_, result) in enumerate(every)}
    measured: set[str] = set()
    measured_in: set[tuple[str, str]] = set()
    taken: dict[str, set[str]] = {}
    for number, (file, result) in enumerate(every):
        test = result.case.node_id
        if not _is_taken(result):
            measured.add(test)
            measured_in.add((file, test))
            continue
        source = source_of(result)
        taken.setdefault(source, set()).add(test)
        name = f"{result.case.id} notes"
        if not source or source != resumed:
            why = f"it says that it was taken from session {source!r}, and session.json that {resumed!r} was resumed"
            findings.problem(file, name, why)
        elif (test, source) not in told:
            findings.problem(file, name, f"{sessions.LEDGER} does not say that it was taken from session {source}")
        if (file, test) in measured_in or (test in measured and counting[test] == number):
            findings.problem(file, name, "it was measured here, and a result that was taken stands in its place")
    for source, tests in taken.items():
        counted = "1 operator was" if len(tests) == 1 else f"{len(tests)} operators were"
        findings.note(f"{counted} taken from session {source}, whose files are not here: verify that one too")


def _key(result: Result) -> tuple[str, str, str]:
    facts = result.operator
    problem = facts.get("problem") or {}
    what = f"{problem.get('family')} {facts.get('id')} {result.case.precision} {result.case.role}"
    return result.case.framework, result.case.topology, what


def _answered(directory: Path) -> tuple[Measured, Measured]:
    """How often each problem was answered, and how often the answer was found to be wrong."""
    found: Measured = Counter()
    wrong: Measured = Counter()
    for case_file in sorted(directory.glob("operators/*/*/case.json")):
        case = recorded.read(case_file)
        for log in sorted(case_file.parent.glob("*/rank0.events.jsonl")):
            for event in perflog.read_events(log):
                value = event.value
                if event.name == perflog.PROGRESS and value.get("done") == 1 and "status" in value:
                    key = str(case.get("framework")), str(case.get("topology")), str(value.get("what"))
                    found[key] += 1
                    wrong[key] += value["status"] == verdict.WRONG
    return found, wrong


# --- the tables


def check_tables(session: SessionFiles, found: Sequence[Result], findings: Findings) -> None:
    """``operators.json`` and ``operators.csv`` say what the results say. A killed session has neither."""
    path = session.directory / table.JSON
    if path.is_file():
        _table(table.JSON, recorded.read(path).get("results"), table.as_json(found)["results"], findings)
    path = session.directory / table.CSV
    if path.is_file():
        with open(path, encoding="utf-8", newline="") as file:
            _table(table.CSV, list(csv.DictReader(file)), csv.DictReader(io.StringIO(table.as_csv(found))), findings)


def _table(name: str, told: Any, follow: Iterable[Mapping[str, Any]], findings: Findings) -> None:
    rows = {str(row.get("node_id")): row for row in told or () if isinstance(row, dict)}
    expected = {str(row.get("node_id")): row for row in follow}
    if sorted(rows) != sorted(expected) or len(rows) != len(told or ()):
        findings.problem(name, "node_id", "it does not list the results that are there, each once")
    for node_id in rows.keys() & expected.keys():
        row, wanted = rows[node_id], expected[node_id]
        for key in dict.fromkeys([*wanted, *row]):
            source = "results.jsonl"
            findings.same(name, f"{row.get('id')} {key}", row.get(key), wanted.get(key), source)
