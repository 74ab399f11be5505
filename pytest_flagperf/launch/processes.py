"""Linux processes: who lives, who descends from whom, and dying together with one's parent.

Standard library only and Python 3.9: the supervisor and the rank shim load this file under other interpreters.
"""

from __future__ import annotations

import ctypes
import os
import signal
from typing import NamedTuple


_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36

_STATES = {
    "R": "running",
    "S": "sleeping",
    "D": "uninterruptible sleep",
    "T": "stopped",
    "t": "traced",
    "Z": "zombie",
    "X": "dead",
}


class ProcessStat(NamedTuple):
    """Fields 3, 4 and 22 of ``/proc/<pid>/stat``; ``start`` is in clock ticks since boot."""

    state: str
    parent: int
    start: int

    @property
    def described(self) -> str:
        """The state for a reader: ``T (stopped)``."""
        return f"{self.state} ({_STATES.get(self.state, 'unknown')})"


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def die_with_parent(signum: int = signal.SIGKILL) -> None:
    """Have the kernel send ``signum`` to this process when its parent dies.

    A parent that died before the call goes unnoticed: compare ``os.getppid()`` afterwards.
    """
    _prctl(_PR_SET_PDEATHSIG, int(signum))


def become_subreaper() -> None:
    """Make every orphan below this process its child.

    All three framework launchers put each rank in a session of its own, so neither a process group nor a session
    reaches them; as descendants of a subreaper they stay findable, whatever dies in between.
    """
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def read_stat(pid: int) -> ProcessStat | None:
    """The state of a process, or ``None`` if there is none with that number."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            text = file.read()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The second field is the command's name in parentheses, which may itself contain parentheses and spaces.
    fields = text[text.rindex(b")") + 2 :].split()
    return ProcessStat(fields[0].decode("ascii", "replace"), int(fields[1]), int(fields[19]))


def is_alive(pid: int, start: int | None = None) -> bool:
    """Whether the process runs; a zombie does not, nor does another process that got the number later."""
    stat = read_stat(pid)
    if stat is None or stat.state in "ZX":
        return False
    return start is None or stat.start == start


def send_signal(pid: int, signum: int) -> bool:
    """Send ``signum``; ``False`` if the process is gone."""
    try:
        os.kill(pid, signum)
    except ProcessLookupError:
        return False
    return True


def _all_processes() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def descendants(root: int) -> list[int]:
    """The living processes below ``root``, in no particular order."""
    children: dict[int, list[int]] = {}
    alive = set()
    for pid in _all_processes():
        stat = read_stat(pid)
        if stat is not None:
            children.setdefault(stat.parent, []).append(pid)
            if stat.state not in "ZX":
                alive.add(pid)
    found = []
    queue = [root]
    while queue:
        below = children.get(queue.pop(), [])
        found.extend(below)
        queue.extend(below)
    return [pid for pid in found if pid in alive]


def with_variable(name: str, value: str) -> list[int]:
    """The living processes of this user that were started with ``name=value`` in their environment.

    It finds the orphans of a supervisor that was itself killed, as far as they kept their environment.
    """
    wanted = f"{name}={value}".encode()
    found = []
    for pid in _all_processes():
        try:
            with open(f"/proc/{pid}/environ", "rb") as file:
                environment = file.read()
        except OSError:  # another user's process, or gone
            continue
        if wanted in environment.split(b"\0") and pid != os.getpid() and is_alive(pid):
            found.append(pid)
    return found
