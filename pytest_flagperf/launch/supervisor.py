"""Owns every process of a job on one host: starts the launcher, watches the ranks, ends everything.

Run by path in a session of its own: ``PYTHON -I supervisor.py SPECFILE``, with the lifeline as standard input. It
prints nothing; ``job.json`` says what happened. It exists because no launcher can be trusted with the end of a job:
SIGKILL of torchrun or paddle's launcher leaves the ranks running, msrun does so even on SIGTERM and takes 45 s to
notice a crashed rank, and a rank that hangs ends none of them. In a container it is the first process: the kernel ends
all others with it. There the parent has no number, and a heartbeat on the lifeline says that somebody is there.

Standard library only and Python 3.9.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple


_HERE = os.path.dirname(os.path.abspath(__file__))

if __name__ == "__main__":
    # Siblings, without the package's own __init__ and without its parent directory on the path.
    for _name, _path in (("pytest_flagperf", os.path.dirname(_HERE)), ("pytest_flagperf.launch", _HERE)):
        sys.modules[_name] = types.ModuleType(_name)
        sys.modules[_name].__path__ = [_path]

from pytest_flagperf.launch import processes  # noqa: E402 (the path above must be set right first)
from pytest_flagperf.launch import records  # noqa: E402
from pytest_flagperf.launch.watch import RankWatch  # noqa: E402
from pytest_flagperf.launch.watch import dump_stacks  # noqa: E402


_TICK = 0.1  # seconds between looks at the ranks' records
_SETTLE = 0.5  # after the first failure: an earlier one of another rank may be a moment late on disk
_LINGER_ALONE = 2.0  # for a launcher whose ranks are all gone; msrun would wait half a minute for their heartbeats
_SWEEP_LIMIT = 3.0  # SIGKILL does not reach a process in uninterruptible sleep


class End(NamedTuple):
    """Why the job is over."""

    reason: str
    detail: str = ""


class Spec(NamedTuple):
    """The job, as ``run_job`` writes it. All times are in seconds."""

    argv: list[str]
    cwd: str
    host_dir: str
    ranks: list[int]
    stop_signal: str
    discard: list[str]
    timeout: float | None
    stall_timeout: float
    grace: float
    linger: float
    heartbeat: float | None
    parent_pid: int | None


class Supervisor:
    """One job on one host."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.host_dir = Path(spec.host_dir)
        self.started = records.now()
        self.began = time.monotonic()
        self.ranks = [RankWatch(rank, self.host_dir, self.began) for rank in spec.ranks]
        self.launcher_pid: int | None = None
        self.launcher_status: int | None = None
        self.stop: records.Record | None = None
        self._stop_request: str | None = None
        self._last_beat = self.began
        self._all_ok_since: float | None = None
        self._alone_since: float | None = None
        self._poll = select.poll()
        self._wakeup, self._wakeup_end = os.pipe()

    # --- life

    def run(self) -> None:
        """Run the job to its end and write ``job.json``. Nothing of the job lives on afterwards."""
        self._listen()
        swept: list[int] = []
        try:
            end = self._start() or self._watch()
            if end.reason in ("stalled", "timed out"):
                dump_stacks(self.ranks)
            self._stop_launcher(end)
        finally:
            swept, survivors = self._sweep()
            self._discard()
        self._look()
        self._write_job(end, swept, survivors)

    def _listen(self) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.set_blocking(self._wakeup, False)
        os.set_blocking(self._wakeup_end, False)
        signal.set_wakeup_fd(self._wakeup_end, warn_on_full_buffer=False)
        for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(signum, self._on_stop_signal)
        signal.signal(signal.SIGCHLD, lambda signum, frame: None)
        processes.become_subreaper()
        os.set_blocking(0, False)
        self._poll.register(0, select.POLLIN | select.POLLHUP)
        self._poll.register(self._wakeup, select.POLLIN)
        if self.spec.parent_pid is not None:
            # A second lifeline: a process that the parent forked may hold the first one open.
            processes.die_with_parent(signal.SIGTERM)
            if os.getppid() != self.spec.parent_pid:
                self._stop_request = "the process that asked for the job is gone"

    def _on_stop_signal(self, signum: int, frame: types.FrameType | None) -> None:
        if self._stop_request is None:
            parent = self.spec.parent_pid
            gone = parent is not None and os.getppid() != parent
            name = signal.Signals(signum).name
            self._stop_request = "the process that asked for the job is gone" if gone else f"{name} to the supervisor"

    def _start(self) -> End | None:
        stat = processes.read_stat(os.getpid())
        env = {**os.environ, records.SUPERVISOR_VARIABLE: f"{os.getpid()}:{stat.start if stat else 0}"}
        with open(self.host_dir / records.LAUNCHER_LOG, "ab") as log:
            try:
                launcher = subprocess.Popen(
                    self.spec.argv,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    cwd=self.spec.cwd,
                    env=env,
                    start_new_session=True,
                    preexec_fn=self._before_exec(),  # noqa: PLW1509 (there are no threads here)
                )
            except (OSError, subprocess.SubprocessError) as error:
                return End("launcher failed", f"cannot start {self.spec.argv[0]}: {error}")
        self.launcher_pid = launcher.pid
        launcher.returncode = 0  # reaped by us with all others, so it must not wait
        return None

    def _before_exec(self) -> Callable[[], None]:
        supervisor = os.getpid()

        def prepare() -> None:
            # A pytest started in the background of a shell ignores SIGINT, and its children inherit that.
            for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE, signal.SIGCHLD):
                signal.signal(signum, signal.SIG_DFL)
            processes.die_with_parent()
            if os.getppid() != supervisor:
                os._exit(1)

        return prepare

    # --- watching

    def _watch(self) -> End:
        while True:
            self._wait(_TICK)
            self._look()
            end = self._judge(time.monotonic())
            if end is not None:
                return end

    def _judge(self, now: float) -> End | None:
        if self._stop_request is not None:
            return End("stopped", self._stop_request)
        if any(rank.failed for rank in self.ranks):
            return self._first_failure()
        if all(rank.ok for rank in self.ranks):
            return self._lingering(now)
        if self.launcher_status is not None:
            return self._launcher_left()
        return self._overdue(now)

    def _overdue(self, now: float) -> End | None:
        if (self.host_dir / records.SCHEDULER_FAILED).exists():
            return End("launcher failed", "its scheduler failed")
        if self.spec.timeout is not None and now - self.began > self.spec.timeout:
            return End("timed out", f"still running after {self.spec.timeout:g} s")
        if any(rank.silence(now) > self.spec.stall_timeout for rank in self.ranks):
            return End("stalled", f"no event for {self.spec.stall_timeout:g} s")
        return None

    def _first_failure(self) -> End:
        self._settle()
        lost_with_launcher = all(rank.lost is not None for rank in self.ranks if rank.failed)
        shims = [rank.started["shim_pid"] for rank in self.ranks if rank.started]
        if lost_with_launcher and self._launcher_signal() and self.launcher_pid not in shims:
            return End("launcher failed", f"the launcher was ended by {self._launcher_signal()}")
        return End("rank failed")

    def _launcher_left(self) -> End:
        self._settle()
        if all(rank.ok for rank in self.ranks):
            return End("exit")
        if any(rank.failed for rank in self.ranks):
            return self._first_failure()
        return End("launcher failed", "the launcher ended before its ranks did")

    def _lingering(self, now: float) -> End | None:
        """All ranks have succeeded: wait for the rest a while, but it can no longer change the result."""
        self._all_ok_since = self._all_ok_since or now
        if self.launcher_status is not None:
            return End("exit")
        if self._alone_since is None and not any(rank.shim_alive for rank in self.ranks):
            self._alone_since = now
        if now - self._all_ok_since > self.spec.linger:
            return End("exit", f"the launcher was still there {self.spec.linger:g} s after its ranks had succeeded")
        if self._alone_since is not None and now - self._alone_since > min(_LINGER_ALONE, self.spec.linger):
            return End("exit", f"the launcher was still there {_LINGER_ALONE:g} s after its ranks had gone")
        return None

    def _settle(self) -> None:
        until = time.monotonic() + _SETTLE
        while time.monotonic() < until and not all(rank.ended for rank in self.ranks):
            self._wait(_TICK / 2)
            self._look()

    def _look(self) -> None:
        """Bring everything known up to date. Before that, reap: a dead launcher explains ranks that died of it."""
        self._reap()
        now = time.monotonic()
        for rank in self.ranks:
            rank.poll(now)

    def _wait(self, seconds: float) -> None:
        """Sleep until a child ends, the lifeline says something, a signal comes, or ``seconds`` have passed."""
        for descriptor, _ in self._poll.poll(max(seconds, 0) * 1000):
            if descriptor == 0:
                self._read_lifeline()
            else:
                os.read(self._wakeup, 4096)
        silent = time.monotonic() - self._last_beat
        if self.spec.heartbeat is not None and silent > self.spec.heartbeat:
            self._stop_request = self._stop_request or f"no heartbeat for {silent:.1f} s"

    def _read_lifeline(self) -> None:
        if os.read(0, 4096):
            self._last_beat = time.monotonic()
        else:
            self._poll.unregister(0)
            self._stop_request = self._stop_request or "the lifeline was closed"

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid == self.launcher_pid:
                self.launcher_status = status

    def _launcher_signal(self) -> str | None:
        if self.launcher_status is None or not os.WIFSIGNALED(self.launcher_status):
            return None
        return signal.Signals(os.WTERMSIG(self.launcher_status)).name

    # --- ending

    def _stop_launcher(self, end: End) -> None:
        """Let the launcher end its ranks in its own way, for at most the grace period."""
        self.stop = records.now()
        if end.reason == "exit" or self.launcher_pid is None or self.launcher_status is not None:
            return
        processes.send_signal(self.launcher_pid, signal.Signals[self.spec.stop_signal])
        until = time.monotonic() + self.spec.grace
        while time.monotonic() < until:
            self._wait(min(_TICK / 2, until - time.monotonic()))
            self._reap()
            if self.launcher_status is not None and not any(rank.shim_alive for rank in self.ranks):
                return

    def _sweep(self) -> tuple[list[int], list[int]]:
        """SIGKILL whatever is left, again and again: it may have just forked. Returns the killed and the surviving."""
        killed: set[int] = set()
        until = time.monotonic() + _SWEEP_LIMIT
        while True:
            left = processes.descendants(os.getpid())
            if not left or time.monotonic() > until:
                break
            killed.update(pid for pid in left if processes.send_signal(pid, signal.SIGKILL))
            self._wait(0.02)
            self._reap()
        self._reap()
        return sorted(killed), left

    def _discard(self) -> None:
        """Remove what says nothing, and what the launcher should not have written."""
        found = [path for path in self.host_dir.glob("rank*.stacks.txt") if path.stat().st_size == 0]
        for pattern in self.spec.discard:
            found += (self.host_dir / records.LAUNCHER_DIR).glob(pattern)
        for path in found:
            # What cannot be removed must not turn a good run into a failed one.
            with contextlib.suppress(OSError):
                path.unlink()

    def _write_job(self, end: End, swept: list[int], survivors: list[int]) -> None:
        status = self.launcher_status
        exited = status is not None and os.WIFEXITED(status)
        job = {
            "schema_version": records.SCHEMA_VERSION,
            "reason": end.reason,
            "detail": end.detail,
            "launcher": {
                "argv": self.spec.argv,
                "pid": self.launcher_pid,
                "exit_code": os.WEXITSTATUS(status) if status is not None and exited else None,
                "signal": self._launcher_signal(),
            },
            "ranks": [rank.to_record() for rank in self.ranks],
            "swept": len(swept),
            "survivors": survivors,
            "started": self.started,
            "stop": self.stop,
            "ended": records.now(),
        }
        records.write(self.host_dir / records.JOB, job)


def main() -> None:
    """Read the specification named by the only argument and run it."""
    record = records.read(Path(sys.argv[1]))
    if record is None:
        sys.exit(f"{sys.argv[1]} is not a job specification")
    Supervisor(Spec(**record)).run()


if __name__ == "__main__":
    main()
