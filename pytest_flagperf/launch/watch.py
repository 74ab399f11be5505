"""The supervisor's view of its ranks: who has started, ended, vanished or fallen silent.

Reads a few small files of one directory and one ``/proc`` entry for each rank; never all of ``/proc``.
Standard library only and Python 3.9.
"""

from __future__ import annotations

import signal
import time
from pathlib import Path

from pytest_flagperf.launch import processes
from pytest_flagperf.launch import records


_STACKS_WAIT = 1.0  # seconds in which a process that can still answer has written its stacks
_STACKS_TICK = 0.02


class RankWatch:
    """One rank of this host."""

    def __init__(self, rank: int, host_dir: Path, now: float) -> None:
        self.rank = rank
        self.started: records.Record | None = None
        self.outcome: records.Record | None = None
        self.lost: records.Record | None = None  # when its shim was found gone without an outcome
        self.process_state: str | None = None
        self.silent_for: float | None = None
        self._files = records.RankFiles(host_dir, rank)
        self._written: tuple[int, int] | None = None
        self._last_sign = now

    @property
    def ok(self) -> bool:
        """Whether the entry returned. What its process does afterwards does not matter."""
        return self.outcome is not None and self.outcome["state"] == "ok"

    @property
    def ended(self) -> bool:
        """Whether there is nothing more to learn about the rank."""
        return self.outcome is not None or self.lost is not None

    @property
    def failed(self) -> bool:
        """Whether it ended without its entry having returned."""
        return self.ended and not self.ok

    @property
    def shim_alive(self) -> bool:
        """Whether the rank's shim, and so perhaps its worker, still runs."""
        return self.started is not None and processes.is_alive(self.started["shim_pid"], self.started["shim_start"])

    def poll(self, now: float) -> None:
        """Read what the rank has written since. ``now`` is the monotonic clock in seconds."""
        if self.started is None:
            self.started = records.read(self._files.started)
            if self.started is not None:
                self._last_sign = now
        if self.ended:
            return
        # In this order: a shim writes its record before it goes.
        alive = self.shim_alive
        self.outcome = records.read(self._files.outcome)
        if self.started is not None and self.outcome is None and not alive:
            self.lost = records.now()
        self._look_for_events(now)

    def _look_for_events(self, now: float) -> None:
        # Compared with itself, not with the clock: the wall clock that mtime is taken from may be set.
        try:
            status = self._files.events.stat()
        except FileNotFoundError:
            return
        written = (status.st_mtime_ns, status.st_size)
        if written != self._written:
            self._written = written
            self._last_sign = now

    def silence(self, now: float) -> float:
        """Seconds since its last event, or its start, or before that since the job's; 0 once it has ended."""
        return 0.0 if self.ended else now - self._last_sign

    def examine(self, now: float) -> None:
        """Note how long it has been silent and what the kernel says of its process."""
        if self.ended:
            return
        self.silent_for = self.silence(now)
        stat = self._worker_stat()
        self.process_state = stat.described if stat else None

    def ask_for_stacks(self) -> bool:
        """Have the worker write its Python stacks; a stopped process is continued so that it can."""
        stat = self._worker_stat()
        if self.ended or stat is None or self.started is None:
            return False
        processes.send_signal(self.started["pid"], signal.SIGUSR2)
        if stat.state == "T":
            processes.send_signal(self.started["pid"], signal.SIGCONT)
        return True

    def stacks_size(self) -> int:
        """Bytes of stacks written so far."""
        try:
            return self._files.stacks.stat().st_size
        except FileNotFoundError:
            return 0

    def _worker_stat(self) -> processes.ProcessStat | None:
        if self.started is None:
            return None
        stat = processes.read_stat(self.started["pid"])
        return stat if stat is not None and stat.start == self.started["pid_start"] else None

    def to_record(self) -> records.Record:
        """What the supervisor alone knows; the rest is in the rank's own records."""
        return {
            "rank": self.rank,
            "ended": self.ended,
            "lost": self.lost,
            "silent_for": self.silent_for,
            "process_state": self.process_state,
        }


def dump_stacks(ranks: list[RankWatch]) -> None:
    """Note every rank's state, then have them write their stacks; returns when they have, or after 1 s."""
    now = time.monotonic()
    for rank in ranks:
        rank.examine(now)
    asked = [rank for rank in ranks if rank.ask_for_stacks()]
    sizes: dict[int, int] = {}
    while asked and time.monotonic() < now + _STACKS_WAIT:
        time.sleep(_STACKS_TICK)
        # A dump takes several writes, so it counts as written once it no longer grows.
        before, sizes = sizes, {rank.rank: rank.stacks_size() for rank in asked}
        if before == sizes and all(sizes.values()):
            return
