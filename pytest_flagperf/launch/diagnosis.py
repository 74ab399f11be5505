"""From the outcome of a job to the one error that explains it.

When one rank fails, the others fail of it, often sooner on the screen. The cause is the earliest failure that is not
itself a consequence of another.
"""

from __future__ import annotations

import re
from pathlib import Path

from pytest_flagperf import errors
from pytest_flagperf.launch import records
from pytest_flagperf.launch.outcome import JobOutcome
from pytest_flagperf.launch.outcome import RankOutcome


_LOG_LINES = 15
_LOG_TAIL = 32_768  # bytes
_STACK_LINES = 3

# What a rank says when the trouble is its peer's: gloo, NCCL, HCCL and the frameworks' stores.
_VICTIM = re.compile(
    r"connection closed by peer|connection reset|connection refused|broken pipe|socket closed|peer closed"
    r"|gloo/transport/|TIMEOUT self_rank"
    r"|remote process exited|ncclRemoteError|ncclSystemError|NCCL.*(aborted|timed? ?out)|Watchdog caught"
    r"|HCCL.*(timed? ?out|remote|EI000[26])|EI000[26]"
    r"|(recv|send|wait|barrier|gloo|store).*timed out|timed out waiting \d+ ?ms"
    r"|node.*(is|are) timed out|disconnect|server may be down|heartbeat",
    re.IGNORECASE,
)

_ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\-_])")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def failure(outcome: JobOutcome, host_dir: Path) -> errors.FlagPerfError | None:
    """The error that explains ``outcome``, or ``None`` if every rank ended well.

    Raises nothing itself; ``host_dir`` is where the job's records and logs lie.
    """
    if outcome.ok:
        return None
    if outcome.reason == "stalled":
        return errors.RankStalled(_stall_message(outcome, host_dir))
    if outcome.reason == "timed out":
        return errors.JobTimedOut(_deadline_message(outcome, host_dir))
    cause = root_cause(outcome)
    if outcome.reason == "stopped" and (cause is None or cause.state == "stopped"):
        return errors.FlagPerfError(f"the job was stopped: {outcome.detail}\nLogs: {host_dir}")
    if cause is None or (outcome.reason == "launcher failed" and cause.state in ("lost", "stopped")):
        return errors.LaunchFailed(_launcher_message(outcome, host_dir))
    return _rank_error(cause, outcome, host_dir)


def root_cause(outcome: JobOutcome) -> RankOutcome | None:
    """The rank whose failure came first, leaving aside what failed because of another rank or of our stopping it."""
    failed = [rank for rank in outcome.ranks if rank.state not in ("ok", "unknown")]
    return min(failed, key=lambda rank: (_remoteness(rank, outcome), rank.ended or 0.0), default=None)


def _remoteness(rank: RankOutcome, outcome: JobOutcome) -> int:
    """How far a failure may be from the cause: 0 is its own, higher is more likely another's."""
    if rank.state == "stopped":
        return 4
    if outcome.stop is not None and rank.ended is not None and rank.ended > outcome.stop:
        return 3
    if rank.state == "exception" and _VICTIM.search(f"{rank.exception_type}: {rank.exception_message}"):
        return 2
    # Losing a peer makes paddle's gloo, and now and then torch's, abort the process.
    return 1 if rank.signal == "SIGABRT" else 0


def _rank_error(rank: RankOutcome, outcome: JobOutcome, host_dir: Path) -> errors.FlagPerfError:
    log = records.RankFiles(host_dir, rank.rank).log
    lines = [f"rank {rank.rank} of {len(outcome.ranks)} {_what_happened(rank)}"]
    others = [_brief(other) for other in outcome.ranks if other is not rank and other.state != "ok"]
    if others:
        lines.append(f"(then {', '.join(others)})")
    if rank.traceback:
        lines += ["", clean(rank.traceback).rstrip(), ""]
    else:
        lines += _quoted_tail(log)
    lines.append(f"Log: {log}")
    return _error_class(rank)("\n".join(lines))


def _error_class(rank: RankOutcome) -> type[errors.FlagPerfError]:
    found = getattr(errors, rank.exception_type or "", None)
    if rank.state == "exception" and isinstance(found, type) and issubclass(found, errors.FlagPerfError):
        return found
    return errors.RankCrashed


def _what_happened(rank: RankOutcome) -> str:
    if rank.state == "exception":
        return f"raised {rank.exception_type}: {clean(rank.exception_message or '')}"
    if rank.state == "exit":
        return f"exited early with code {rank.exit_code}, before its work was done"
    if rank.state == "signal":
        hint = " (the kernel's out-of-memory killer uses it too)" if rank.signal == "SIGKILL" else ""
        return f"was ended by {rank.signal}{hint}"
    if rank.state == "stopped":
        return f"was told to end by {rank.signal or 'a signal'}, which did not come from its supervisor"
    return "vanished without a record: it and its shim were killed together"


def _brief(rank: RankOutcome) -> str:
    detail = {"exception": rank.exception_type, "exit": f"code {rank.exit_code}", "signal": rank.signal}
    return f"rank {rank.rank}: {detail.get(rank.state) or rank.state}"


def _stall_message(outcome: JobOutcome, host_dir: Path) -> str:
    silent = [rank for rank in outcome.ranks if rank.silent_for is not None]
    names = ", ".join(str(rank.rank) for rank in silent)
    lines = [f"{outcome.detail}: rank {names} of {len(outcome.ranks)}"]
    for rank in silent:
        lines += _where_it_was(rank, host_dir)
    return "\n".join([*lines, f"Logs: {host_dir}"])


def _deadline_message(outcome: JobOutcome, host_dir: Path) -> str:
    lines = [f"the job was {outcome.detail}"]
    for rank in outcome.ranks:
        if rank.state == "ok" and rank.silent_for is None:
            lines.append(f"rank {rank.rank}: done")
        else:
            lines += _where_it_was(rank, host_dir)
    return "\n".join([*lines, f"Logs: {host_dir}"])


def _where_it_was(rank: RankOutcome, host_dir: Path) -> list[str]:
    if rank.started is None:
        return [f"rank {rank.rank}: never started", *_quoted_tail(host_dir / records.LAUNCHER_LOG)]
    silent = f"no event for {rank.silent_for:.1f} s" if rank.silent_for is not None else rank.state
    path = records.RankFiles(host_dir, rank.rank).stacks
    stack = innermost_lines(path)
    where = [f"    {line}" for line in stack] or ["    it did not answer with a stack"]
    return [f"rank {rank.rank}: {silent}, process state {rank.process_state or 'unknown'}", *where, f"    all: {path}"]


def innermost_lines(path: Path, count: int = _STACK_LINES) -> list[str]:
    """The innermost ``count`` frames of the main thread in a dump by ``faulthandler``, which writes it last."""
    stack: list[str] = []
    for line in tail(path, lines=None):
        if line.endswith("(most recent call first):"):
            stack = []
        elif line.startswith("  File "):
            stack.append(line.strip())
    return stack[:count]


def _launcher_message(outcome: JobOutcome, host_dir: Path) -> str:
    code = outcome.launcher_exit_code
    end = f"exit code {code}" if code is not None else outcome.launcher_signal
    started = sum(rank.started is not None for rank in outcome.ranks)
    lines = [
        f"the launcher failed: {outcome.detail or 'unknown reason'}" + (f" ({end})" if end else ""),
        f"{started} of {len(outcome.ranks)} ranks had started",
    ]
    logs = [host_dir / records.LAUNCHER_LOG, host_dir / records.SCHEDULER_LOG]
    # Where a launcher puts the output of a rank that never came as far as our shim.
    logs += sorted(path for path in (host_dir / records.LAUNCHER_DIR).rglob("*") if path.is_file())
    for log in logs:
        lines += _quoted_tail(log)
    return "\n".join([*lines, f"Logs: {host_dir}"])


def _quoted_tail(path: Path) -> list[str]:
    lines = tail(path)
    return [f"Last lines of {path.name}:", *(f"    {line}" for line in lines)] if lines else []


def tail(path: Path, lines: int | None = _LOG_LINES) -> list[str]:
    """The last ``lines`` lines of a log that may hold any bytes, without control characters; none if it is not there.

    Not more than the last 32 KiB are read.
    """
    try:
        with open(path, "rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - _LOG_TAIL))
            data = file.read()
    except OSError:
        return []
    found = clean(data.decode("utf-8", errors="replace")).splitlines()
    return found if lines is None else found[-lines:]


def clean(text: str) -> str:
    """``text`` without terminal sequences and control characters, so that it can stand in a report."""
    return _CONTROL.sub("", _ANSI.sub("", text.replace("\r\n", "\n").replace("\r", "\n")))
