"""Running a job: the pytest process's side.

``run_job`` starts the supervisor and follows it. The pytest process holds the lifeline, the write end of the
supervisor's standard input; whatever way the pytest process ends, the lifeline closes and the supervisor ends the job.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import replace
from pathlib import Path

from pytest_flagperf.errors import ConfigurationError
from pytest_flagperf.launch import engines
from pytest_flagperf.launch import ports
from pytest_flagperf.launch import processes
from pytest_flagperf.launch import records
from pytest_flagperf.launch.diagnosis import failure
from pytest_flagperf.launch.diagnosis import tail
from pytest_flagperf.launch.outcome import JobOutcome
from pytest_flagperf.launch.outcome import RankOutcome
from pytest_flagperf.launch.outcome import read_outcome


__all__ = ["JobOutcome", "JobSpec", "RankOutcome", "failure", "run_job"]

_HERE = Path(__file__).resolve().parent
_PATIENCE = 12.0  # seconds for the supervisor to end a job: settle, stacks, grace and sweep
_CHAIN_PATIENCE = 2.0  # seconds for the kernel to end a chain of processes that die with their parents
_TICK = 0.02


@dataclass(frozen=True)
class JobSpec:
    """One job of ``nproc`` ranks on this host.

    ``env`` is the job's whole environment. ``entry`` is ``package.module:function`` or ``/path/file.py:function``; it
    is called with a :class:`~pytest_flagperf.launch.context.RankContext` and returns nothing or a function for
    teardown. The job runs in ``host_dir``, so relative paths mean places in there.

    ``timeout`` is the deadline in seconds, ``None`` for none. A rank that writes no event for ``stall_timeout`` seconds
    ends the job. ``grace`` is how long ranks may take to end when told to, ``linger`` how long teardown and the
    launcher may take once every rank has succeeded. The supervisor keeps ``lease_fds`` open until nothing of the job
    is left; no process of the job inherits them.
    """

    engine: str
    python: str
    case_file: Path
    host_dir: Path
    nproc: int
    env: Mapping[str, str]
    entry: str = "pytest_flagperf.worker.main:main"
    timeout: float | None = None
    stall_timeout: float = 300.0
    grace: float = 2.0
    lease_fds: tuple[int, ...] = ()
    linger: float = 30.0


def run_job(spec: JobSpec, on_poll: Callable[[], None] | None = None, poll_interval: float = 0.2) -> JobOutcome:
    """Run the job to its end, calling ``on_poll`` about every ``poll_interval`` seconds.

    Nothing of the job is left when it returns or raises. A failed job is no exception here: see :func:`failure`.
    An exception of ``on_poll``, ``KeyboardInterrupt`` included, ends the job and goes on.

    Raises :class:`~pytest_flagperf.errors.ConfigurationError` for an engine that is unknown or cannot do this, and for
    a ``host_dir`` that holds the records of another job.
    """
    spec = replace(spec, host_dir=spec.host_dir.resolve(), case_file=spec.case_file.resolve())
    engine = engines.engine(spec.engine)
    if (spec.host_dir / records.SUPERVISOR_SPEC).exists():
        raise ConfigurationError(f"{spec.host_dir} already holds a job: give each job a directory of its own")
    started = records.now()
    if not engine.needs_port:
        return _attempt(spec, engine, 0, started, on_poll=on_poll, poll_interval=poll_interval)
    port = ports.free_port()
    outcome = _attempt(spec, engine, port, started, on_poll=on_poll, poll_interval=poll_interval)
    if _lost_its_port(outcome, port, spec.host_dir):
        _set_aside(spec.host_dir, "attempt1")
        outcome = _attempt(spec, engine, ports.free_port(), started, on_poll=on_poll, poll_interval=poll_interval)
    return outcome


def _attempt(
    spec: JobSpec,
    engine: engines.Engine,
    port: int,
    started: records.Record,
    *,
    on_poll: Callable[[], None] | None,
    poll_interval: float,
) -> JobOutcome:
    marker = uuid.uuid4().hex
    supervisor = _start_supervisor(spec, engine, port, marker)
    try:
        said = _follow(supervisor, on_poll, poll_interval)
        code = supervisor.wait(_PATIENCE)
    except BaseException:
        _abandon(supervisor, marker)
        raise
    finally:
        _close(supervisor)
    outcome = read_outcome(spec.host_dir, range(spec.nproc), started)
    if code == 0:
        return outcome
    swept = _end_orphans(marker)
    return replace(outcome, reason="launcher failed", detail=_supervisor_end(code, said), swept=outcome.swept + swept)


def _start_supervisor(spec: JobSpec, engine: engines.Engine, port: int, marker: str) -> subprocess.Popen[bytes]:
    python = os.path.abspath(spec.python) if os.sep in spec.python else spec.python
    rank_argv = ("--host-dir", str(spec.host_dir), "--case", str(spec.case_file), "--entry", spec.entry)
    command = engine.command(
        engines.LaunchRequest(
            python=python,
            nproc=spec.nproc,
            log_dir=spec.host_dir / records.LAUNCHER_DIR,
            rank_argv=(str(_HERE / "shim.py"), *rank_argv),
            master_port=port,
            path=spec.env.get("PATH", ""),
        )
    )
    (spec.host_dir / records.LAUNCHER_DIR).mkdir(parents=True, exist_ok=True)
    spec_file = spec.host_dir / records.SUPERVISOR_SPEC
    records.write(spec_file, _supervisor_spec(spec, engine, command))
    return subprocess.Popen(
        [sys.executable, "-I", str(_HERE / "supervisor.py"), str(spec_file)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=_environment(spec, engine, command, marker),
        start_new_session=True,
        pass_fds=spec.lease_fds,
    )


def _supervisor_spec(spec: JobSpec, engine: engines.Engine, command: engines.LaunchCommand) -> records.Record:
    return {
        "argv": list(command.argv),
        "cwd": str(spec.host_dir),
        "host_dir": str(spec.host_dir),
        "ranks": list(range(spec.nproc)),
        "stop_signal": command.stop_signal,
        "discard": list(engine.discard),
        "timeout": spec.timeout,
        "stall_timeout": spec.stall_timeout,
        "grace": spec.grace,
        "linger": spec.linger,
        "heartbeat": None,
        "parent_pid": os.getpid(),
    }


def _environment(spec: JobSpec, engine: engines.Engine, command: engines.LaunchCommand, marker: str) -> dict[str, str]:
    """The job's environment. The supervisor has it too, so that no file need hold what may be secret in it."""
    env = engines.without_launcher_variables(spec.env)
    env.update(command.env)
    env[records.JOB_VARIABLE] = marker
    if engine.rank_variables is not None:
        env[records.RANK_VARIABLES_VARIABLE] = ",".join(engine.rank_variables)
    if env.get("PYTHONPATH"):  # relative entries would mean places in the host directory
        env["PYTHONPATH"] = os.pathsep.join(os.path.abspath(entry) for entry in env["PYTHONPATH"].split(os.pathsep))
    return env


def _follow(supervisor: subprocess.Popen[bytes], on_poll: Callable[[], None] | None, interval: float) -> str:
    """Wait until the supervisor has closed its output, which it does by ending. Returns what it said: a bug's trace."""
    assert supervisor.stdout is not None
    output = supervisor.stdout.fileno()
    said = b""
    due = time.monotonic() + interval
    while True:
        if select.select([output], [], [], max(0.0, due - time.monotonic()))[0]:
            added = os.read(output, 65536)
            if not added:
                return said.decode("utf-8", errors="replace")
            said += added
        if time.monotonic() >= due:
            due = time.monotonic() + interval
            if on_poll is not None:
                on_poll()


def _abandon(supervisor: subprocess.Popen[bytes], marker: str) -> None:
    """End a job that nobody wants any more: close the lifeline, and if that does not do it, kill what can be found."""
    _close(supervisor)
    try:
        supervisor.wait(_PATIENCE)
    except subprocess.TimeoutExpired:
        _kill(supervisor, marker)
    except BaseException:  # a second Ctrl-C: no more patience, but nothing may be left either
        _kill(supervisor, marker)
        raise


def _kill(supervisor: subprocess.Popen[bytes], marker: str) -> None:
    supervisor.kill()
    supervisor.wait()
    _end_orphans(marker)


def _close(supervisor: subprocess.Popen[bytes]) -> None:
    for stream in (supervisor.stdin, supervisor.stdout):
        if stream is not None:
            stream.close()


def _end_orphans(marker: str) -> int:
    """SIGKILL the processes of a job whose supervisor was itself killed. Returns how many had to be.

    Launcher, shims and workers end with their parents; what workers started does so only if they arranged it.
    """
    killed: set[int] = set()
    until = time.monotonic() + _CHAIN_PATIENCE
    while left := processes.with_variable(records.JOB_VARIABLE, marker):
        if time.monotonic() > until - _CHAIN_PATIENCE / 2:
            killed.update(pid for pid in left if processes.send_signal(pid, signal.SIGKILL))
        if time.monotonic() > until:
            break
        time.sleep(_TICK)
    return len(killed)


def _supervisor_end(code: int, said: str) -> str:
    how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"failed with exit code {code}"
    return f"the job's supervisor {how}" + (f":\n{said.strip()}" if said.strip() else "")


def _lost_its_port(outcome: JobOutcome, port: int, host_dir: Path) -> bool:
    """Whether the job failed because somebody else took the port between our choosing it and the launcher's use."""
    if outcome.reason not in ("launcher failed", "rank failed") or any(rank.state == "ok" for rank in outcome.ranks):
        return False
    if ports.is_held(port):  # paddle and MindSpore fail of it without naming it
        return True
    said = [rank.exception_message or "" for rank in outcome.ranks]
    for name in (records.LAUNCHER_LOG, records.SCHEDULER_LOG):
        said += tail(host_dir / name, lines=None)
    return ports.is_taken("\n".join(said))


def _set_aside(host_dir: Path, name: str) -> None:
    """Move the files of a failed attempt out of the way of the next one."""
    directory = host_dir / name
    directory.mkdir()
    ours = (records.JOB, records.SUPERVISOR_SPEC, "launcher*", "scheduler.*", "rank*")
    for path in [path for pattern in ours for path in host_dir.glob(pattern)]:
        path.rename(directory / path.name)
