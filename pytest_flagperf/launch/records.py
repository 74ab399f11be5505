"""The files a job leaves in its host directory, and how they are written.

==========================  ==========  ==============================================================
``rank<N>.started.json``    worker      rank, local_rank, shim_pid, shim_start, pid, pid_start, time, monotonic_ns
``rank<N>.outcome.json``    worker or   rank, state, exit_code, signal, exception {type, message}, traceback,
                            its shim    time, monotonic_ns; once the process is gone also exit_time,
                                        exit_monotonic_ns and signal_at_exit
``rank<N>.log``             rank        standard output and error
``rank<N>.stacks.txt``      rank        Python stacks, when the supervisor asked for them
``rank<N>.events.jsonl``    worker      the event log; its growth is the sign of life
``job.json``                supervisor  reason, detail, launcher, ranks, swept, survivors, started, stop, ended
``launcher.log``            launcher    console of the framework's launcher
``scheduler.failed.json``   shim        message, time, monotonic_ns; for msrun's extra process, whose log is
                                        ``scheduler.log``
==========================  ==========  ==============================================================

Times come in pairs: Unix seconds and the host's monotonic clock in nanoseconds, which the processes of a host share.
Standard library only and Python 3.9.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any


SCHEMA_VERSION = 1
JOB = "job.json"
SUPERVISOR_SPEC = "supervisor.json"
LAUNCHER_LOG = "launcher.log"
LAUNCHER_DIR = "launcher"
SCHEDULER_LOG = "scheduler.log"
SCHEDULER_FAILED = "scheduler.failed.json"

# Variables between the parts of a job.
JOB_VARIABLE = "FLAGPERF_JOB"
SUPERVISOR_VARIABLE = "FLAGPERF_SUPERVISOR"
RANK_VARIABLES_VARIABLE = "FLAGPERF_RANK_VARIABLES"
AFFINITY_VARIABLE = "FLAGPERF_AFFINITY"

Record = dict[str, Any]


class RankFiles:
    """The paths of one rank."""

    def __init__(self, host_dir: Path, rank: int) -> None:
        self.started = host_dir / f"rank{rank}.started.json"
        self.outcome = host_dir / f"rank{rank}.outcome.json"
        self.log = host_dir / f"rank{rank}.log"
        self.stacks = host_dir / f"rank{rank}.stacks.txt"
        self.events = host_dir / f"rank{rank}.events.jsonl"


def now() -> Record:
    """The two clocks, as they stand in every record."""
    return {"time": time.time(), "monotonic_ns": time.monotonic_ns()}


def write(path: Path, record: Record) -> None:
    """Write ``record`` so that a reader sees all of it or nothing, whenever the writer is killed."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(record), encoding="utf-8")
    os.replace(temporary, path)


def read(path: Path) -> Record | None:
    """The record at ``path``; ``None`` if it is not there or is not a record."""
    try:
        record = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    return record if isinstance(record, dict) else None
