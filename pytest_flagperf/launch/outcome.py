"""What became of a job and of each of its ranks, read from the files they left."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytest_flagperf.launch import records


@dataclass(frozen=True)
class RankOutcome:
    """The end of one rank.

    ``state`` is ``ok`` (the entry returned), ``exception`` (it raised), ``exit`` (the process exited before the entry
    returned), ``signal`` (a signal ended it), ``stopped`` (it was told to end), ``lost`` (it vanished without a
    record) or ``unknown`` (it never started, or nobody was left to see its end). ``started``, ``ended`` and ``exited``
    are seconds of the monotonic clock, ``time_ended`` is Unix time; ``exited`` is the end of the process, teardown
    included. ``process_state`` and ``silent_for`` (seconds without an event) are of the moment the job was found
    stalled or past its deadline. ``signal_at_exit`` names a signal that ended the process after its outcome.
    """

    rank: int
    state: str
    exit_code: int | None = None
    signal: str | None = None
    exception_type: str | None = None
    exception_message: str | None = None
    traceback: str | None = None
    started: float | None = None
    ended: float | None = None
    exited: float | None = None
    time_ended: float | None = None
    pid: int | None = None
    process_state: str | None = None
    silent_for: float | None = None
    signal_at_exit: str | None = None


@dataclass(frozen=True)
class JobOutcome:
    """The end of a job.

    ``reason`` is ``exit`` (every rank ended well), ``rank failed``, ``stalled``, ``timed out``, ``stopped`` (from
    outside) or ``launcher failed``. ``started`` is taken before the first process is spawned, ``ended`` is when the
    last rank exited; both in seconds of the monotonic clock, ``time_started`` and ``time_ended`` in Unix time.
    ``stop`` is when the supervisor began to end the job: what ranks record later is a consequence. ``swept`` counts
    the processes that had to be killed, ``survivors`` the ones that even that did not end.
    """

    reason: str
    detail: str
    ranks: tuple[RankOutcome, ...]
    launcher_exit_code: int | None
    launcher_signal: str | None
    swept: int
    survivors: tuple[int, ...]
    started: float
    ended: float
    time_started: float
    time_ended: float
    stop: float | None = None

    @property
    def ok(self) -> bool:
        """Whether every rank's entry returned."""
        return self.reason == "exit" and all(rank.state == "ok" for rank in self.ranks)


def read_outcome(host_dir: Path, ranks: range, started: records.Record) -> JobOutcome:
    """The outcome of the job in ``host_dir``; ``started`` is when it began, as :func:`records.now` gave it.

    Without a ``job.json``, because the supervisor itself was killed, the reason is ``launcher failed`` and the ranks
    are judged by their own records.
    """
    job = records.read(host_dir / records.JOB) or {
        "reason": "launcher failed",
        "detail": "the supervisor ended without a report",
    }
    seen = {rank["rank"]: rank for rank in job.get("ranks", ())}
    stop = _seconds(job.get("stop"))
    outcomes = tuple(_rank_outcome(host_dir, rank, seen.get(rank, {}), stop) for rank in ranks)
    # A rank without an exit of its own was swept: the job lasted until then.
    gone = outcomes and all(rank.exited is not None for rank in outcomes)
    last = max(outcomes, key=lambda rank: rank.exited or 0) if gone else None
    ended = job.get("ended") or {"time": time.time(), "monotonic_ns": time.monotonic_ns()}
    launcher = job.get("launcher", {})
    return JobOutcome(
        reason=job["reason"],
        detail=job["detail"],
        ranks=outcomes,
        launcher_exit_code=launcher.get("exit_code"),
        launcher_signal=launcher.get("signal"),
        swept=job.get("swept", 0),
        survivors=tuple(job.get("survivors", ())),
        started=started["monotonic_ns"] / 1e9,
        ended=last.exited if last and last.exited else ended["monotonic_ns"] / 1e9,
        time_started=started["time"],
        time_ended=last.time_ended if last and last.time_ended else ended["time"],
        stop=stop,
    )


def _seconds(record: records.Record | None) -> float | None:
    return record["monotonic_ns"] / 1e9 if record else None


def _rank_outcome(host_dir: Path, rank: int, seen: records.Record, stop: float | None) -> RankOutcome:
    files = records.RankFiles(host_dir, rank)
    started = records.read(files.started)
    common: dict[str, Any] = {
        "rank": rank,
        "started": _seconds(started),
        "pid": started["pid"] if started else None,
        "process_state": seen.get("process_state"),
        "silent_for": seen.get("silent_for"),
    }
    outcome = records.read(files.outcome)
    if outcome is None:
        return RankOutcome(**common, **_vanished(seen.get("lost"), stop))
    exception = outcome.get("exception") or {}
    exited = outcome.get("exit_monotonic_ns")
    return RankOutcome(
        **common,
        state=outcome["state"],
        exit_code=outcome.get("exit_code"),
        signal=outcome.get("signal"),
        exception_type=exception.get("type"),
        exception_message=exception.get("message"),
        traceback=outcome.get("traceback"),
        ended=_seconds(outcome),
        exited=exited / 1e9 if exited is not None else None,
        time_ended=outcome.get("exit_time", outcome["time"]),
        signal_at_exit=outcome.get("signal_at_exit") if outcome["state"] == "ok" else None,
    )


def _vanished(lost: records.Record | None, stop: float | None) -> dict[str, Any]:
    """The end of a rank that left no record: by our own hand if it was still there when we began to stop the job."""
    if lost is None:
        return {"state": "unknown"}
    ended = lost["monotonic_ns"] / 1e9
    state = "stopped" if stop is not None and ended >= stop else "lost"
    return {"state": state, "ended": ended, "exited": ended, "time_ended": lost["time"]}
