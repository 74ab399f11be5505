"""Running a job: the pytest process's side.

``run_job`` starts the supervisor and follows it. The pytest process holds the lifeline, the write end of the
supervisor's standard input; whatever way the pytest process ends, the lifeline closes and the supervisor ends the job.
A job in a container has its supervisor in there, and what is started here is the client of the container's runtime.
"""

from __future__ import annotations

import contextlib
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
from pytest_flagperf.errors import LaunchFailed
from pytest_flagperf.launch import containers
from pytest_flagperf.launch import engines
from pytest_flagperf.launch import ports
from pytest_flagperf.launch import processes
from pytest_flagperf.launch import records
from pytest_flagperf.launch import runtimes
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
_BEAT = 5.0  # seconds between heartbeats, where there are any


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

    With a ``container`` the job runs in there: ``python`` is then the image's, ``env`` comes on top of what the image
    sets, and ``entry`` lies in the package or in what the container mounts. The runtime's client keeps ``lease_fds``.
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
    container: containers.Container | None = None


@dataclass(frozen=True)
class _Start:
    """How the supervisor is started. ``marker`` is in the environment of all that the job starts."""

    argv: list[str]
    env: dict[str, str]
    marker: str
    contained: tuple[containers.Container, containers.Contained] | None = None


def run_job(spec: JobSpec, on_poll: Callable[[], None] | None = None, poll_interval: float = 0.2) -> JobOutcome:
    """Run the job to its end, calling ``on_poll`` about every ``poll_interval`` seconds.

    Nothing of the job is left when it returns or raises. A failed job is no exception here: see :func:`failure`.
    An exception of ``on_poll``, ``KeyboardInterrupt`` included, ends the job and goes on.

    Raises :class:`~pytest_flagperf.errors.ConfigurationError` for an engine that is unknown or cannot do this, and for
    a ``host_dir`` that holds the records of another job; :class:`~pytest_flagperf.errors.LaunchFailed` for a container
    that does not start in time.
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
    if _lost_its_port(outcome, port, spec):
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
    start = _prepare(spec, engine, port)
    supervisor = subprocess.Popen(
        start.argv,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=start.env,
        start_new_session=True,
        pass_fds=spec.lease_fds,
    )
    try:
        said = _follow(supervisor, on_poll, poll_interval, _pulse(spec, supervisor))
        code = supervisor.wait(_PATIENCE)
    except BaseException as error:
        left = _abandon(supervisor, start)
        if left:
            error.add_note(left)
        raise
    finally:
        _close(supervisor)
    left = runtimes.remove(*start.contained) if start.contained is not None else ""
    outcome = read_outcome(spec.host_dir, range(spec.nproc), started)
    if start.contained is not None:
        return _outcome_in(*start.contained, outcome, code, said, left)
    if code == 0:
        return outcome
    swept = _end_orphans(start.marker)
    return replace(outcome, reason="launcher failed", detail=_supervisor_end(code, said), swept=outcome.swept + swept)


def _prepare(spec: JobSpec, engine: engines.Engine, port: int) -> _Start:
    """Write the supervisor's specification; say how it is started."""
    here, path, python = str(_HERE), spec.env.get("PATH", ""), spec.python
    if spec.container is not None:
        here, path = f"{containers.PACKAGE}/launch", path or spec.container.image.path
    elif os.sep in python:
        python = os.path.abspath(python)
    rank_argv = ("--host-dir", str(spec.host_dir), "--case", str(spec.case_file), "--entry", spec.entry)
    command = engine.command(
        engines.LaunchRequest(
            python=python,
            nproc=spec.nproc,
            log_dir=spec.host_dir / records.LAUNCHER_DIR,
            rank_argv=(f"{here}/shim.py", *rank_argv),
            master_port=port,
            path=path,
        )
    )
    (spec.host_dir / records.LAUNCHER_DIR).mkdir(parents=True, exist_ok=True)
    spec_file = spec.host_dir / records.SUPERVISOR_SPEC
    records.write(spec_file, _supervisor_spec(spec, engine, command))
    marker = uuid.uuid4().hex
    environment = _environment(spec, engine, command, marker)
    if spec.container is None:
        return _Start([sys.executable, "-I", str(_HERE / "supervisor.py"), str(spec_file)], environment, marker)
    contained = containers.Contained(marker, spec.host_dir, spec.case_file, spec_file, python, environment)
    return _Start(
        containers.argv(spec.container, contained),
        containers.client_environment(spec.container, contained, os.environ),
        marker,
        (spec.container, contained),
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
        "heartbeat": containers.HEARTBEAT if spec.container is not None else None,
        # In a container we have no number.
        "parent_pid": os.getpid() if spec.container is None else None,
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


def _follow(
    supervisor: subprocess.Popen[bytes],
    on_poll: Callable[[], None] | None,
    interval: float,
    pulse: Callable[[], None],
) -> str:
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
            pulse()
            if on_poll is not None:
                on_poll()


def _pulse(spec: JobSpec, supervisor: subprocess.Popen[bytes]) -> Callable[[], None]:
    """What a job in a container needs now and then: a heartbeat, and a look whether it has started at all."""
    container = spec.container
    if container is None:
        return lambda: None
    assert supervisor.stdin is not None
    lifeline = supervisor.stdin.fileno()
    os.set_blocking(lifeline, False)
    began = beaten = time.monotonic()

    def pulse() -> None:
        nonlocal beaten
        now = time.monotonic()
        if now - beaten < _BEAT:
            return
        beaten = now
        # A client that reads no more has ended or is stuck: then the job ends for want of a heartbeat.
        with contextlib.suppress(BlockingIOError, BrokenPipeError):
            os.write(lifeline, b".")
        # The supervisor opens the launcher's log first of all.
        if now - began > containers.START_LIMIT and not (spec.host_dir / records.LAUNCHER_LOG).exists():
            name = container.runtime.name
            raise LaunchFailed(f"{name} had not started the container after {containers.START_LIMIT:g} s")

    return pulse


def _outcome_in(
    container: containers.Container,
    contained: containers.Contained,
    outcome: JobOutcome,
    code: int,
    said: str,
    left: str,
) -> JobOutcome:
    """The outcome of a job in a container; ``left`` says what is left of that. Its process ids mean nothing here."""
    ranks = tuple(replace(rank, pid=None) for rank in outcome.ranks)
    outcome = replace(outcome, ranks=ranks, survivors=())
    # What fails once the supervisor has reported is the runtime's tidying, and not the job's concern.
    reported = code >= 0 and (contained.host_dir / records.JOB).exists()
    if not left and (code == 0 or outcome.ok or reported):
        return outcome
    why = containers.explain(container, contained, code) if code else ""
    detail = "\n".join(part for part in (why, said.strip(), left) if part)
    swept = outcome.swept + _end_orphans(contained.marker)
    return replace(outcome, reason="launcher failed", detail=detail, swept=swept)


def _abandon(supervisor: subprocess.Popen[bytes], start: _Start) -> str:
    """End a job that nobody wants any more: close the lifeline, and if that does not do it, kill what can be found.

    Returns what could not be ended.
    """
    _close(supervisor)
    try:
        supervisor.wait(_PATIENCE)
    except subprocess.TimeoutExpired:
        return _kill(supervisor, start)
    except BaseException:  # a second Ctrl-C: no more patience, but nothing may be left either
        _kill(supervisor, start)
        raise
    return runtimes.remove(*start.contained) if start.contained is not None else ""


def _kill(supervisor: subprocess.Popen[bytes], start: _Start) -> str:
    supervisor.kill()
    supervisor.wait()
    left = runtimes.remove(*start.contained) if start.contained is not None else ""
    _end_orphans(start.marker)
    return left


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


def _lost_its_port(outcome: JobOutcome, port: int, spec: JobSpec) -> bool:
    """Whether the job failed because somebody else took the port between our choosing it and the launcher's use."""
    if outcome.reason not in ("launcher failed", "rank failed") or any(rank.state == "ok" for rank in outcome.ranks):
        return False
    # paddle and MindSpore fail of it without naming it. The ports of a container are not the host's.
    if spec.container is None and ports.is_held(port):
        return True
    said = [rank.exception_message or "" for rank in outcome.ranks]
    for name in (records.LAUNCHER_LOG, records.SCHEDULER_LOG):
        said += tail(spec.host_dir / name, lines=None)
    return ports.is_taken("\n".join(said))


def _set_aside(host_dir: Path, name: str) -> None:
    """Move the files of a failed attempt out of the way of the next one."""
    directory = host_dir / name
    directory.mkdir()
    ours = (records.JOB, records.SUPERVISOR_SPEC, "launcher*", "scheduler.*", "rank*")
    for path in [path for pattern in ours for path in host_dir.glob(pattern)]:
        path.rename(directory / path.name)
