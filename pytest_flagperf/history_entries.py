"""What of a session enters the history: which of its results, and the rows that they are there."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pytest_flagperf import sessions
from pytest_flagperf import verdict
from pytest_flagperf import weights
from pytest_flagperf.judging import gathering
from pytest_flagperf.judging.baselines import hardware
from pytest_flagperf.result import RESULTS
from pytest_flagperf.result import Result
from pytest_flagperf.sessions import SessionFiles


def fingerprint_of(directory: Path) -> str:
    """Changes when the session's results do; empty for a directory that holds no session."""
    # Thousands of sessions are looked at before a question is answered: no patterns, a look at each file.
    names = sorted(os.listdir(directory))
    files = [f"{directory}/{name}/{sessions.RESULT}" for name in names if name != "operators"]
    files += [f"{directory}/{sessions.DESCRIPTION}", f"{directory}/{sessions.RESULT}"]
    files += map(str, sessions.operator_files(directory)) if "operators" in names or RESULTS in names else ()
    digest, found = hashlib.sha256(), False
    for path in files:
        try:
            seen = os.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            continue
        digest.update(f"{path[len(str(directory)) :]} {seen.st_size} {seen.st_mtime_ns}\n".encode())
        found = True
    return digest.hexdigest() if found else ""


def is_kept(result: Result) -> bool:
    """Whether a result is a measurement of its vendor that can be trusted, made in its session.

    What was replayed was measured at another time; where a stand-in ran, nothing was measured of the vendor.
    """
    if result.error is not None or result.verdict in (verdict.INVALID, verdict.WRONG, verdict.UNSUPPORTED):
        return False
    if result.case.stand_in or not result.metrics:
        return False
    return not result.rounds or any(one.time_started is not None for one in result.rounds)


def variant_of(result: Result) -> str:
    """What sets a result apart from the standard case: the open division, data or weights that are none."""
    return ", ".join(
        [
            *(["open division"] if result.case.division == "open" else []),
            *(["synthetic data"] if result.dataset.synthetic else []),
            *(["random weights"] if result.weights is not None and result.weights.origin == weights.RANDOM else []),
        ]
    )


def time_of(session: SessionFiles, result: Result) -> float:
    """When a result's first round began, in Unix seconds; for older files when its session did."""
    times = [one.time_started for one in result.rounds if one.time_started is not None]
    begun = times[0] if times else result.operator.get("time_started")
    return float(begun) if isinstance(begun, (int, float)) else session.time_started or 0.0


def measurement(session: SessionFiles, result: Result) -> tuple[Any, ...]:
    """A result as a row of ``measurement``, without its number."""
    case = result.case
    devices = hardware(session.description) or str(sessions.table(session.description, "host").get("cpu", ""))
    return (
        session.name,
        case.id,
        case.vendor,
        case.chip or devices,
        variant_of(result),
        case.kind,
        case.role,
        time_of(session, result),
        result.verdict,
        json.dumps(result.stack or sessions.table(session.description, "versions"), sort_keys=True),
        result.code,
    )


def figures(result: Result) -> Iterator[tuple[Any, ...]]:
    """Its metrics as rows of ``figure``, without the number of their measurement."""
    compared = {one.metric: one.verdict for one in result.comparisons}
    for name, metric in result.metrics.items():
        spread = result.spreads.get(name)
        samples = [] if result.case.kind == "operator" else gathering.samples(result, name)
        yield (
            name,
            metric.value,
            metric.unit,
            metric.better,
            json.dumps(samples),
            spread.low if spread else None,
            spread.high if spread else None,
            compared.get(name, ""),
        )
