"""A warm worker: a job that stays and answers requests, so that a problem costs its own work and no import.

It is a job like any other, under the same supervisor, which ends it when pytest goes, whatever way. ``run_job`` follows
it in a thread; requests and replies are JSON lines through two FIFOs in its host directory.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import threading
import time
from collections.abc import Callable
from collections.abc import Mapping
from typing import Any
from typing import NamedTuple

from pytest_flagperf import perflog
from pytest_flagperf.errors import FlagPerfError
from pytest_flagperf.errors import JobTimedOut
from pytest_flagperf.errors import LaunchFailed
from pytest_flagperf.errors import OperatorFailed
from pytest_flagperf.launch.diagnosis import failure
from pytest_flagperf.launch.job import JobOutcome
from pytest_flagperf.launch.job import JobSpec
from pytest_flagperf.launch.job import run_job
from pytest_flagperf.perflog import EventTail


REQUESTS = "requests.fifo"
REPLIES = "replies.fifo"

_POLL = 0.1
_GRACE = 5.0  # seconds for a worker that is told to end
_PATIENCE = 30.0  # seconds for its supervisor to end it otherwise


class Limit(NamedTuple):
    """The longest time in seconds: of a problem as a whole or, with ``of_silence``, without a sign of life."""

    seconds: float
    of_silence: bool = False


class _Unwanted(Exception):
    """Raised in the job's thread: nobody wants the job any more."""


class WarmWorker:
    """One running worker.

    ``ready`` says whether it has its framework, ``ready_at`` since when, by the monotonic clock. ``idle`` is called
    about every 0.1 s in the job's thread; when it returns true the worker ends. ``ended`` is called in that thread once
    nothing of the job is left.
    """

    def __init__(
        self,
        spec: JobSpec,
        *,
        start_limit: float = 300.0,
        idle: Callable[[], bool] = lambda: False,
        ended: Callable[[], None] = lambda: None,
    ) -> None:
        self.spec, self.start_limit = spec, start_limit
        self._idle, self._ended = idle, ended
        self._unwanted = False
        self.ready_at: float | None = None
        self._events = EventTail(spec.host_dir / "rank0.events.jsonl")
        self._outcome: JobOutcome | None = None
        self._error: BaseException | None = None
        self._buffer = b""
        self._requests, self._replies = _fifo(spec, REQUESTS), _fifo(spec, REPLIES)
        self._gone, self._gone_end = os.pipe()
        self._poll = select.poll()
        for descriptor in (self._replies, self._gone):
            self._poll.register(descriptor, select.POLLIN)
        self.started = time.monotonic()
        # A daemon: if pytest goes without a word the lifeline closes, and the supervisor ends the job.
        self._thread = threading.Thread(target=self._follow, name="flagperf-worker", daemon=True)
        self._thread.start()

    @property
    def ready(self) -> bool:
        """Whether it has its framework."""
        return self.ready_at is not None

    @property
    def usable(self) -> bool:
        """Whether it may be asked something."""
        return not self._unwanted and self._thread.is_alive()

    def ask(
        self, request: Mapping[str, Any], limit: Limit, on_wait: Callable[[], None] = lambda: None
    ) -> dict[str, Any]:
        """The reply to a request. After an exception the worker has ended and is not usable any more.

        ``limit`` counts from when the worker has its framework; ``on_wait`` is called a few times a second.
        Raises ``JobTimedOut``, ``RankCrashed`` and what else ends a job, ``OperatorFailed`` for a reply that is none.
        """
        try:
            os.write(self._requests, json.dumps(request).encode() + b"\n")
            return self._reply(request["id"], limit, on_wait)
        except BaseException:
            self._unwanted = True
            self._thread.join(_PATIENCE)
            raise

    def end(self) -> None:
        """End the worker: in its own way, or else by its supervisor. Nothing of it is left afterwards."""
        if not self._unwanted:
            # A worker that died has nobody who would read it.
            with contextlib.suppress(OSError):
                os.write(self._requests, b'{"end": true}\n')
            self._thread.join(_GRACE)
        self._unwanted = True
        self._thread.join(_PATIENCE)
        if self._requests >= 0:
            for descriptor in (self._requests, self._replies, self._gone, self._gone_end):
                os.close(descriptor)
            self._requests = -1

    # --- in the job's thread

    def _follow(self) -> None:
        try:
            self._outcome = run_job(self.spec, on_poll=self._look, poll_interval=_POLL)
        except _Unwanted:
            pass
        except BaseException as error:  # told to whoever asks
            self._error = error
        finally:
            try:
                self._ended()
            finally:
                with contextlib.suppress(OSError):  # nobody listens any more
                    os.write(self._gone_end, b".")

    def _look(self) -> None:
        if self._unwanted or self._idle():
            self._unwanted = True
            raise _Unwanted

    # --- in the thread that asks

    def _reply(self, number: int, limit: Limit, on_wait: Callable[[], None]) -> dict[str, Any]:
        deadline = time.monotonic() + limit.seconds if self.ready else None
        while True:
            now = time.monotonic()
            left = _POLL if deadline is None else min(2 * _POLL, max(deadline - now, 0))
            ready = {descriptor for descriptor, _ in self._poll.poll(left * 1000)}
            if self._replies in ready:
                # A quick problem may be answered before anybody looked whether the worker is ready.
                self._is_at_work()
                if self.ready_at is None:
                    self.ready_at = now
                reply = self._line(number)
                if reply is not None:
                    return reply
            elif self._gone in ready:
                raise self._why()
            if (deadline is None and (self.ready or self._is_at_work())) or (limit.of_silence and self._events.read()):
                deadline = now + limit.seconds
            if deadline is None and now - self.started > self.start_limit:
                raise LaunchFailed(f"the worker was not ready after {self.start_limit:g} s\nLogs: {self.spec.host_dir}")
            if deadline is not None and now >= deadline:
                what = "no sign of life for" if limit.of_silence else "no answer after"
                raise JobTimedOut(f"{what} {limit.seconds:g} s: its worker was ended\nLogs: {self.spec.host_dir}")
            on_wait()

    def _is_at_work(self) -> bool:
        """Whether it has its framework: its initialization has ended, or it tells of a problem."""
        if self.ready_at is None:
            for event in self._events.read():
                if event.name in (perflog.INIT_END, perflog.PROGRESS):
                    # The worker is on this host: its clock is ours.
                    self.ready_at = time.monotonic() if event.monotonic is None else event.monotonic
                    break
        return self.ready

    def _line(self, number: int) -> dict[str, Any] | None:
        self._buffer += os.read(self._replies, 1 << 20)
        while b"\n" in self._buffer:
            line, _, self._buffer = self._buffer.partition(b"\n")
            try:
                reply = json.loads(line)
            except ValueError as error:
                raise OperatorFailed(f"the worker's reply is not JSON: {line[:200]!r}") from error
            if not isinstance(reply, dict) or reply.get("id") != number:
                raise OperatorFailed(f"the worker's reply is not to request {number}: {line[:200]!r}")
            return reply
        return None

    def _why(self) -> BaseException:
        if self._error is not None:
            if isinstance(self._error, Exception) and not isinstance(self._error, FlagPerfError):
                return LaunchFailed(f"the worker could not be run: {self._error}")
            return self._error
        found = None if self._outcome is None else failure(self._outcome, self.spec.host_dir)
        return found or LaunchFailed(f"the worker ended before it had answered\nLogs: {self.spec.host_dir}")


def _fifo(spec: JobSpec, name: str) -> int:
    path = spec.host_dir / name
    os.mkfifo(path)
    # For both directions, though only one is used: so neither side has to wait for the other, and a worker that dies
    # is told by its supervisor and not by an end of file that may come first.
    return os.open(path, os.O_RDWR | os.O_CLOEXEC)
