"""Leases: exclusive use of devices on a host, across pytest processes, xdist workers and users.

A lease is one ``flock`` a device, taken all or none. The kernel drops it with its last holder, so a dead process
never keeps a device. The job's supervisor inherits the locked files: a device stays leased until the last rank
is gone, even if pytest was killed.

Who asks draws a ticket, a file with the next number, and holds it locked while waiting; the kernel drops that lock too.
Whoever could use a device that an earlier ticket is for waits behind it. So requests are served in the order they were
made, the one for many devices is not overtaken by those for few, and nobody holds devices while waiting for more.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import stat
import time
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import msgspec

from pytest_flagperf.errors import DeviceUnavailable


# How often who waits looks again, in seconds: one lock is tried then, or by the first in the queue one for each device.
# It adds to the wait of each in turn, so it is short beside the shortest job; looking costs some 0.5 % of a core.
TICK = 0.02
TELL = 1.0

_MOST_BYTES = 65536
# What opening says of a ticket that is gone, of a link, and of a socket.
_NONE_OF_OURS = (errno.ENOENT, errno.ELOOP, errno.ENXIO)

T = TypeVar("T")


@dataclass(frozen=True)
class Lease:
    """Devices that are ours until the lease is released.

    ``files`` are the locked file descriptors. ``requested`` and ``granted`` are Unix times: of two requests that could
    use the same devices, the one that was requested first was granted first.
    """

    devices: tuple[int, ...]
    files: tuple[int, ...]
    requested: float | None = None
    granted: float | None = None


@contextlib.contextmanager
def leased(
    vendor: str,
    available: Sequence[int],
    wanted: int,
    *,
    owner: str,
    waiting: Callable[[str], None] = lambda who: None,
) -> Iterator[Lease]:
    """Hold ``wanted`` of the ``available`` devices; waits in turn while others have them.

    ``waiting`` is called about once a second with a text that says who holds them. Raises ``DeviceUnavailable`` where
    there are fewer devices than wanted, however long one waits.
    """
    if not 0 < wanted <= len(available):
        raise DeviceUnavailable(
            f"{wanted} devices of {vendor} are needed, {len(available)} are there"
            f" ({', '.join(map(str, available)) or 'none'})"
        )
    waiter = _Waiter(waiting, lambda: [holder(vendor, device) for device in available])
    with _opened(vendor, available) as files:
        with _queued(vendor, available, owner, waiter) as ticket:
            ticket.wait_for_turn(waiter)
            devices = waiter.until(lambda: _take(files, wanted))
            # While the ticket is still there: the next in the queue is granted its devices later than this.
            granted = time.time()
        lease = Lease(devices, tuple(files[device] for device in devices), ticket.requested, granted)
        try:
            for handle in lease.files:
                _write(handle, _Record(os.getpid(), owner))
            yield lease
        finally:
            for handle in lease.files:
                os.ftruncate(handle, 0)


def holder(vendor: str, device: int) -> str:
    """Who holds a device, as it wrote itself into the lock file, for messages; empty where nobody did."""
    with _looked_into(vendor, device) as handle:
        return str(_read(handle) or "") if handle is not None else ""


def held_by(vendor: str, device: int) -> str:
    """Who holds a device now, for a person who looks; empty where nobody does, whatever a dead holder left written."""
    with _looked_into(vendor, device) as handle:
        if handle is None or _lock(handle, fcntl.LOCK_SH):
            return ""
        return str(_read(handle) or "somebody")


@contextlib.contextmanager
def _looked_into(vendor: str, device: int) -> Iterator[int | None]:
    """The lock file of a device, open for reading; ``None`` where there is none that can be read."""
    try:
        handle = os.open(_path(vendor, str(device)), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        yield None
        return
    try:
        yield handle
    finally:
        os.close(handle)


def contended(vendor: str, devices: Iterable[int]) -> bool:
    """Whether somebody waits for one of these devices: what a holder asks between two pieces of work.

    A ticket that is just being drawn, or that a dead process left, counts for nothing; the next look sees the former.
    """
    held = frozenset(devices)
    for number in _tickets(vendor):
        try:
            handle = os.open(
                _path(vendor, f"ticket-{number}"), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            )
        except OSError:
            continue
        try:
            if not _lock(handle, fcntl.LOCK_SH):
                record = _read(handle)
                if record is None or not held.isdisjoint(record.devices):
                    return True
        finally:
            os.close(handle)
    return False


def directory() -> Path:
    """Where the lock files are: one place for all users of the host. ``FLAGPERF_LEASE_DIR`` replaces it."""
    chosen = os.environ.get("FLAGPERF_LEASE_DIR")
    # Not TMPDIR: that is another place for every user, and would exclude nobody.
    path = Path(chosen) if chosen else _shared() / "flagperf"
    try:
        # Only a directory made here is opened to all: one that was there may be somebody's own, or a link to it.
        path.mkdir(parents=True)
        path.chmod(0o1777)
    except FileExistsError:
        if not chosen and path.is_symlink():
            raise DeviceUnavailable(
                f"the lock directory {path} is a link: somebody wants our locks elsewhere"
            ) from None
    except OSError as error:
        raise DeviceUnavailable(f"the lock directory {path} cannot be used: {error}") from error
    return path


def _shared() -> Path:
    """The first directory that every user may write: what only root may use would exclude nobody else."""
    for name in ("/run/lock", "/tmp"):  # noqa: S108 (both are sticky, and no link is followed)
        with contextlib.suppress(OSError):
            if os.stat(name).st_mode & stat.S_IWOTH:
                return Path(name)
    raise DeviceUnavailable("neither /run/lock nor /tmp can be written by everybody; set FLAGPERF_LEASE_DIR")


def choose(free: Sequence[int], wanted: int) -> list[int]:
    """``wanted`` of the ``free`` devices: the first ones, but whole aligned groups where there are any.

    Two of a card, four of a board: devices of a group are numbered in a row, from a multiple of its size. Three devices
    are a group of two and one more.
    """
    chosen: list[int] = []
    left = list(free)
    size = 1 << max(wanted.bit_length() - 1, 0)
    while len(chosen) < wanted and left:
        group = _aligned(left, size) if size <= wanted - len(chosen) else []
        chosen += group
        left = [device for device in left if device not in group]
        size = size if group else size // 2
    return chosen


def _aligned(free: Sequence[int], size: int) -> list[int]:
    for device in free:
        start = device - device % size
        group = list(range(start, start + size))
        if set(group).issubset(free):
            return group
    return []


class _Record(msgspec.Struct, omit_defaults=True):
    """What a lock file says of who holds it; ``devices`` are those that a ticket is for."""

    pid: int
    owner: str
    devices: list[int] = []

    def __str__(self) -> str:
        return f"pid {self.pid}, {self.owner[:200]}"


def _write(handle: int, record: _Record) -> None:
    os.ftruncate(handle, 0)
    os.pwrite(handle, msgspec.json.encode(record), 0)


def _read(handle: int) -> _Record | None:
    """The record in a file that every user may write; ``None`` where it is none of ours."""
    try:
        return msgspec.json.decode(os.pread(handle, _MOST_BYTES, 0), type=_Record)
    except (OSError, msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return None


def _path(vendor: str, name: str) -> Path:
    return directory() / f"{vendor}-{name}.lock"


def _open(path: Path) -> int:
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        # Without O_CREAT first: Linux refuses that flag on another user's file in a sticky directory.
        with contextlib.suppress(FileNotFoundError):
            return os.open(path, flags)
        return _shared_with_all(os.open(path, flags | os.O_CREAT, 0o666))
    except OSError as error:
        raise DeviceUnavailable(f"the lock file {path} cannot be opened: {error}") from error


def _shared_with_all(handle: int) -> int:
    """Undo what the umask took from a file that was made; one that another user made a moment ago is left alone."""
    with contextlib.suppress(PermissionError):
        os.fchmod(handle, 0o666)
    return handle


def _lock(handle: int, how: int) -> bool:
    try:
        fcntl.flock(handle, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextlib.contextmanager
def _opened(vendor: str, devices: Sequence[int]) -> Iterator[dict[int, int]]:
    """The open lock file of each device; closing it releases what of it is locked."""
    with contextlib.ExitStack() as opened:
        files = {}
        for device in devices:
            files[device] = _open(_path(vendor, str(device)))
            opened.callback(os.close, files[device])
        yield files


def _take(files: Mapping[int, int], wanted: int) -> tuple[int, ...]:
    """``wanted`` of the devices now, or none of them; in the order of ``files``."""
    free = [device for device, handle in files.items() if _lock(handle, fcntl.LOCK_EX)]
    chosen = choose(free, wanted) if len(free) >= wanted else []
    for device in free:
        if device not in chosen:
            fcntl.flock(files[device], fcntl.LOCK_UN)
    return tuple(device for device in free if device in chosen)


class _Waiter:
    """Looks again every ``TICK`` seconds, and says about once a second whom one waits for."""

    def __init__(self, say: Callable[[str], None], holders: Callable[[], Iterable[str]]) -> None:
        self._say, self._holders = say, holders
        self._next = 0.0

    def until(self, condition: Callable[[], T], also: str = "") -> T:
        """What ``condition`` gives, once that is true. ``also`` is told beside who holds the devices."""
        while not (found := condition()):
            if time.monotonic() >= self._next:
                self._next = time.monotonic() + TELL
                self._say("; ".join(dict.fromkeys(filter(None, (*self._holders(), also)))))
            time.sleep(TICK)
        return found


@dataclass(frozen=True)
class _Ticket:
    """A place in the queue for any of ``devices``. ``earlier`` are the tickets drawn before it, the last one first."""

    devices: frozenset[int]
    requested: float
    earlier: tuple[Path, ...]

    def wait_for_turn(self, waiter: _Waiter) -> None:
        """Wait until no earlier ticket is left that is for a device this one could use.

        One at a time is looked at, and each once: none can come before this one any more.
        """
        for path in self.earlier:
            handle = _waiting_ticket(path)
            if handle is None:
                continue
            try:
                record = _read(handle)
                if record is None or not self.devices.isdisjoint(record.devices):
                    gone = partial(_lock, handle, fcntl.LOCK_SH)
                    waiter.until(gone, f"queued before: {record or path}")
                    _remove(path)
            finally:
                os.close(handle)


@contextlib.contextmanager
def _queued(vendor: str, devices: Sequence[int], owner: str, waiter: _Waiter) -> Iterator[_Ticket]:
    """Draw the next ticket and keep it until the end of the block, or of the process."""
    with contextlib.ExitStack() as drawn:
        # Under this lock a ticket is not seen before it is whole, and the times of requests follow the numbers.
        with _locked(_path(vendor, "queue"), waiter):
            numbers = sorted(_tickets(vendor), reverse=True)
            path = _path(vendor, f"ticket-{numbers[0] + 1 if numbers else 1}")
            handle = _make(path)
            drawn.callback(os.close, handle)
            drawn.callback(path.unlink, missing_ok=True)
            fcntl.flock(handle, fcntl.LOCK_EX)
            _write(handle, _Record(os.getpid(), owner, list(devices)))
            requested = time.time()
        earlier = tuple(_path(vendor, f"ticket-{number}") for number in numbers)
        yield _Ticket(frozenset(devices), requested, earlier)


def _make(path: Path) -> int:
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return _shared_with_all(os.open(path, flags, 0o666))
    except OSError as error:
        raise DeviceUnavailable(f"the ticket {path} cannot be made: {error}") from error


@contextlib.contextmanager
def _locked(path: Path, waiter: _Waiter) -> Iterator[None]:
    handle = _open(path)
    try:
        # Not a lock that blocks: who is stopped or hostile in there must not silence all others.
        waiter.until(lambda: _lock(handle, fcntl.LOCK_EX), f"{path} is locked")
        yield
    finally:
        os.close(handle)


def _tickets(vendor: str) -> list[int]:
    pattern = re.compile(re.escape(vendor) + r"-ticket-([1-9][0-9]*)\.lock")
    return [int(match[1]) for match in map(pattern.fullmatch, os.listdir(directory())) if match]


def _waiting_ticket(path: Path) -> int | None:
    """The open file of a ticket whose owner still waits. One that a dead process left is removed, if that is ours."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in _NONE_OF_OURS:
            return None
        raise DeviceUnavailable(f"the ticket {path} cannot be read: {error}") from error
    if not _lock(handle, fcntl.LOCK_SH):
        return handle
    _remove(path)
    os.close(handle)
    return None


def _remove(ticket: Path) -> None:
    """Clean up after a dead process. What another user's left stays there, and counts for nothing."""
    with contextlib.suppress(FileNotFoundError, PermissionError, IsADirectoryError):
        ticket.unlink()
