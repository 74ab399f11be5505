"""The comparisons of a result, all judged again by the baseline that the session keeps, and the verdict of it all."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import msgspec

from pytest_flagperf import sessions
from pytest_flagperf import verdict
from pytest_flagperf.evidence.findings import Findings
from pytest_flagperf.judging import baselines
from pytest_flagperf.judging import compare
from pytest_flagperf.judging import curves
from pytest_flagperf.judging import gathering
from pytest_flagperf.judging import kept
from pytest_flagperf.judging.baselines import Baseline
from pytest_flagperf.options import NO_BASELINE
from pytest_flagperf.result import ComparisonResult
from pytest_flagperf.result import Result
from pytest_flagperf.sessions import SessionFiles


_UNJUDGED = (verdict.NO_BASELINE, verdict.NOT_COMPARABLE)
_COMPARED = ("verdict", "value", "baseline", "change", "interval", "tolerance", "samples", "method")
# With these a measurement is compared with nothing.
_BEYOND = (verdict.INVALID, verdict.WRONG, verdict.UNSUPPORTED)


def check(
    result: Result, own: str, file: str, session: SessionFiles, findings: Findings, before: Result | None = None
) -> None:
    """``own`` is the verdict without comparisons, as it follows from rounds and targets.

    ``before`` is an operator's first measurement in the session, where it was measured twice.
    """
    if result.error is None and own not in _BEYOND:
        _compared(result, own, file, session, findings, before)
    elif result.error is not None and own == verdict.REGRESSED:
        _stopped(result, file, session, findings)
    elif result.comparisons:
        findings.problem(file, "comparisons", f"a measurement that is {own} is compared with nothing")
    follows = own if result.error is not None else compare.overall(own, result.comparisons)
    findings.same(file, "verdict", result.verdict, follows, "targets, comparisons and errors")


def baseline_of(result: Result, file: str, session: SessionFiles, findings: Findings) -> list[Baseline]:
    """The baselines that the session keeps for a result; a problem for each that cannot be read."""
    found = []
    for one in kept.read(session.directory, result.case.vendor, result.case.chip):
        name = one.path.relative_to(session.directory).as_posix()
        if one.baseline is None:
            findings.problem(name, "", one.problem)
            continue
        findings.note(f"{name} is the baseline {one.baseline.origin!r}: compare it with that which should be in force")
        found.append(one.baseline)
    return found


def check_kept(session: SessionFiles, findings: Findings) -> None:
    """Every baseline that the ledger names is still there."""
    for line in sessions.ledger(session.directory):
        if line.get("event") == kept.EVENT:
            name = str(line.get("file"))
            if "/" in name or not (session.directory / kept.DIRECTORY / name).is_file():
                findings.problem(f"{kept.DIRECTORY}/{name}", "", "results were judged by it, and it is not there")


def _compared(
    result: Result, own: str, file: str, session: SessionFiles, findings: Findings, before: Result | None
) -> None:
    found = baseline_of(result, file, session, findings)
    if not found:
        _without_baseline(result, file, session, findings)
        return
    told = {one.metric: one for one in result.comparisons}
    # A file that was changed while the session ran leaves two of them: one has to be the one.
    tried = [_again(result, own, baseline, session, before) for baseline in found]
    again = next((one for one in tried if _verdicts(one) == _verdicts(result.comparisons)), tried[0])
    if not told and compare.overall(verdict.PASSED, again) in _UNJUDGED and not _asked(session, findings):
        # Nobody asked for it: a vendor's own file that does not have the case is as good as none.
        return
    follows = {one.metric: one for one in again}
    for name in dict.fromkeys([*follows, *told]):
        one, expected = told.get(name), follows.get(name)
        if one is None or expected is None:
            there = "it is not there" if one is None else "it is there"
            what = f"{expected.verdict!r}" if expected is not None else "none"
            findings.problem(file, f"comparison {name}", f"{there}; {what} follows from the session's baseline")
            continue
        for key in _COMPARED:
            source = "the session's baseline"
            findings.same(file, f"comparison {name} {key}", getattr(one, key), getattr(expected, key), source)


def _again(
    result: Result, own: str, baseline: Baseline, session: SessionFiles, before: Result | None
) -> list[ComparisonResult]:
    """The comparisons as the session made them."""
    hardware = baselines.hardware(session.description)
    plain = msgspec.structs.replace(result, verdict=own, comparisons=[])
    found = compare.judge(plain, baseline, hardware)
    if before is None:
        return found
    first = msgspec.structs.replace(before, comparisons=compare.judge(before, baseline, hardware))
    return compare.settled(first, msgspec.structs.replace(plain, comparisons=found)).comparisons


def _verdicts(found: Sequence[ComparisonResult]) -> dict[str, str]:
    return {one.metric: one.verdict for one in found}


def _asked(session: SessionFiles, findings: Findings) -> bool:
    """Whether ``--baseline`` named something to compare with; a note where it was given and nobody knows what."""
    if "baseline" in session.description:
        return True
    origin = sessions.table(session.description, "options").get("baseline")
    if origin is None:
        return False
    given = _given(session.description, str(origin))
    if given is None:
        findings.note(f"{sessions.DESCRIPTION}: --baseline was given ({origin}), and neither names one nor says none")
    return given not in (None, NO_BASELINE)


def _given(description: Mapping[str, Any], origin: str) -> str | None:
    """What ``--baseline`` was, as command or environment tell it; ``None`` for that of a file of options."""
    of, _, variable = origin.partition(" ")
    if of == "environment":
        found = sessions.table(description, "environment").get(variable)
        return None if found is None else str(found)
    command = description.get("command")
    words = list(map(str, command)) if isinstance(command, list) else []
    values = [one.partition("=")[2] for one in words if one.startswith("--baseline=")]
    values += [value for name, value in itertools.pairwise(words) if name == "--baseline"]
    return values[-1] if values and origin == "command line" else None


def _without_baseline(result: Result, file: str, session: SessionFiles, findings: Findings) -> None:
    """Of a session without its baseline: nothing of what is compared follows from anything."""
    if not result.comparisons:
        if _asked(session, findings):
            findings.problem(file, "comparisons", "--baseline was given, and there is none, nor a baseline")
        return
    missing = set(gathering.judged(result)) - {one.metric for one in result.comparisons}
    for name in sorted(missing):
        findings.problem(file, f"comparison {name}", "it is not there, and others are")
    targets = [one.metric for one in result.targets]
    for one in result.comparisons:
        usual = gathering.tolerance(one.metric, targets)
        if one.tolerance not in (None, usual):
            findings.note(f"{file}: the tolerance of {one.metric} is {one.tolerance:g}, usual is {usual:g}")
        if one.metric in result.metrics:
            findings.same(
                file, f"comparison {one.metric} value", one.value, result.metrics[one.metric].value, "metrics"
            )
    findings.problem(file, "comparisons", f"the session has no {kept.DIRECTORY}/ that they could be judged again by")


def _stopped(result: Result, file: str, session: SessionFiles, findings: Findings) -> None:
    """Of a run that was stopped: what it evaluated last is outside of the band of the baseline's curves."""
    last = [one for round_ in result.rounds for one in round_.evaluations][-1:]
    for one in result.comparisons:
        value = last[0].quality.get(one.metric) if last else None
        findings.same(file, f"comparison {one.metric} value", one.value, value, "the last evaluation")
    found = baseline_of(result, file, session, findings)
    # Of one round and its first look: no limit that the session can have looked at is stricter.
    bands = [curves.band(result, one, baselines.hardware(session.description)) for one in found]
    if not any(bands):
        findings.problem(
            file, "error", "it was stopped early, and the session has no baseline with curves that says why"
        )
    elif last and not any(band and band.outside(last[0].epoch, last[0].quality) for band in bands):
        findings.problem(file, "error", "it was stopped early, and its last evaluation is inside the baseline's band")
