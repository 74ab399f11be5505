"""A session judged again from its raw files, and its ledger beside what the results hold."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pytest_flagperf import sessions
from pytest_flagperf.devices import vendor as vendors
from pytest_flagperf.devices.vendor import Vendor
from pytest_flagperf.evidence import comparisons
from pytest_flagperf.evidence import models
from pytest_flagperf.evidence import operators
from pytest_flagperf.evidence import recorded
from pytest_flagperf.evidence.findings import UNREADABLE
from pytest_flagperf.evidence.findings import Findings
from pytest_flagperf.judging import compare
from pytest_flagperf.judging import rounds
from pytest_flagperf.result import Result
from pytest_flagperf.sessions import SessionFiles


# Seconds between the start of a round and its line in the ledger.
_LATER = 60.0


def check(directory: Path, findings: Findings, brought: Iterable[Path] = ()) -> None:
    """Judge every result in a session again. ``brought`` are directories of vendors that came with it.

    Raises ``ReplayError`` where there is no session.
    """
    session = sessions.read(directory)
    for problem in session.problems:
        file, _, message = problem.replace(f"{session.directory}/", "").partition(" ")
        findings.problem(file.rstrip(","), "", message)
    pairs = [(path, result) for path in _files(session) for result in sessions.results_of(path, [])]
    known = _Vendors(session, [*brought, *vendors.installed(), vendors.bundled()])
    every = [(str(path.relative_to(session.directory)), result) for path, result in pairs]
    before: dict[str, Result] = {}
    for file, result in every:
        if result.case.vendor != session.description.get("vendor", result.case.vendor):
            findings.note(f"{file}: its vendor {result.case.vendor} is not that of the session")
        vendor = known.of(result, findings)
        if result.case.kind == "operator":
            first = before.get(result.case.node_id)
            operators.check(result, file, vendor, session, findings, first)
            if first is None and compare.alarming(result):
                before[result.case.node_id] = result
        elif result.case.kind in ("training", "inference"):
            models.check(result, models.Files(session, file, vendor), findings)
        else:
            findings.problem(file, "case.kind", f"results of {result.case.kind} cannot be judged again by this version")
    try:
        _check_ledger(session, every, findings)
        comparisons.check_kept(session, findings)
    except UNREADABLE as error:
        findings.problem(sessions.LEDGER, "", f"it cannot be judged again: {type(error).__name__}: {error}")
    _check_operators(session, every, findings)
    if not every:
        findings.problem(sessions.RESULT, "", "the session holds no result")


def _files(session: SessionFiles) -> list[Path]:
    return [*sessions.model_files(session.directory), *sessions.operator_files(session.directory)]


class _Vendors:
    """The vendor files that results name, each looked for once."""

    def __init__(self, session: SessionFiles, directories: Sequence[Path]) -> None:
        self.session, self.directories = session, directories
        self._found: dict[tuple[str, str], recorded.VendorFile] = {}

    def of(self, result: Result, findings: Findings) -> Vendor | None:
        """The vendor that a result was judged by; a note where it is not here."""
        told = result.case.vendor_file or self._told(result)
        key = result.case.vendor, told.get("sha256", "")
        if key not in self._found:
            self._found[key] = recorded.vendor(result.case.vendor, told, self.directories)
        found = self._found[key]
        if found.told:
            findings.note(found.told + ("" if found.vendor else ": mfu, power and peaks are not judged again"))
        return found.vendor

    def _told(self, result: Result) -> Mapping[str, str]:
        """Of an operator the session says it, if anybody does: its results do not."""
        told = self.session.description.get("vendor_file")
        return told if isinstance(told, dict) and result.case.kind == "operator" else {}


def _check_operators(session: SessionFiles, every: Sequence[tuple[str, Result]], findings: Findings) -> None:
    lines = [(file, result) for file, result in every if result.case.kind == "operator"]
    if not lines:
        return
    try:
        operators.check_count(session, lines, findings)
        operators.check_taken(session, lines, findings)
        operators.check_tables(session, [one for one in session.results if one.case.kind == "operator"], findings)
    except UNREADABLE as error:
        findings.problem("operators", "", f"it cannot be judged again: {error}")


# --- the ledger


def _check_ledger(session: SessionFiles, every: Sequence[tuple[str, Result]], findings: Findings) -> None:
    """Every round that was started is in a result, and a result has no other rounds; whole lines only."""
    path = session.directory / sessions.LEDGER
    held = {rounds.place(one.directory): (file, one) for file, result in every for one in result.rounds}
    if not path.is_file():
        if held:
            findings.problem(sessions.LEDGER, "", "there is none: which rounds were started is not known")
        return
    lines = sessions.ledger(session.directory)
    torn = sum(1 for line in path.read_bytes().splitlines() if line.strip()) - len(lines)
    if torn:
        findings.problem(sessions.LEDGER, "", f"{torn} lines of it cannot be read")
    _check_order(lines, findings)
    started = {rounds.place(str(line.get("directory"))): line for line in lines if line.get("event") == "round_start"}
    ended = {rounds.place(str(line.get("directory"))): line for line in lines if line.get("event") == "round_end"}
    taken = {
        rounds.place(str(one.get("directory"))): {**one, "session": line.get("session")}
        for line in lines
        if line.get("event") == "resumed"
        for one in line.get("rounds") or ()
    }
    for place, (file, one) in held.items():
        known = started.get(place) or taken.get(place)
        if known is None:
            findings.problem(sessions.LEDGER, "/".join(place), f"{file} has this round, and it was never started")
            continue
        name = f"round {one.round}"
        findings.same(file, name, one.round, known.get("round"), sessions.LEDGER)
        findings.same(file, f"{name} seed", one.seed, known.get("seed"), sessions.LEDGER)
        if place not in started:
            findings.note(f"{file}: {name} was taken from session {known.get('session')}")
            continue
        outcome = one.error.type if one.error else "finished"
        end = ended.get(place, {})
        findings.same(file, f"{name} outcome", outcome, end.get("outcome", "not ended"), sessions.LEDGER)
        begun = known.get("time")
        # The line is written right after; a disk may take its time.
        findings.same(file, f"{name} time_started", one.time_started, begun, sessions.LEDGER, within=_LATER)
    _check_left_out(session, started, ended, held.keys(), findings)


def _check_left_out(
    session: SessionFiles,
    started: Mapping[tuple[str, ...], Mapping[str, Any]],
    ended: Mapping[tuple[str, ...], Mapping[str, Any]],
    held: Iterable[tuple[str, ...]],
    findings: Findings,
) -> None:
    """A round that is in no result: chosen rounds, unless its session was killed meanwhile."""
    cases = {place[0] for place in held}
    for place in started.keys() - set(held):
        name = "/".join(place)
        if place in ended and ended[place].get("outcome") != "interrupted":
            findings.problem(sessions.LEDGER, name, "the round was started and ended, and no result has it")
        elif place[0] in cases:
            findings.problem(sessions.LEDGER, name, "the round was started, and its case's result does not have it")
        else:
            findings.note(f"{name} was started and did not end; no result claims it")
    on_disk = {(path.parent.name, path.name) for path in session.directory.glob("*/round*") if path.is_dir()}
    for place in sorted(on_disk - started.keys() - set(held)):
        findings.problem("/".join(place), "", "the ledger does not know this round")


def _check_order(lines: Sequence[Mapping[str, Any]], findings: Findings) -> None:
    """Each process' lines in order of time: a line that was put in later stands out."""
    last: dict[Any, float] = {}
    for number, line in enumerate(lines, 1):
        when, who = line.get("time"), line.get("pid")
        if not isinstance(when, (int, float)):
            findings.problem(sessions.LEDGER, f"line {number} time", "it has none")
            continue
        if when < last.get(who, 0.0) - 1.0:
            findings.note(f"{sessions.LEDGER}: line {number} is older than the line above it of the same process")
        last[who] = float(when)
