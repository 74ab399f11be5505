"""Leases: exclusive use of devices on a host, across pytest processes, xdist workers and users.

A lease is one ``flock`` a device, taken all or none. The kernel drops it with its last holder, so a dead process
never keeps a device. The job's supervisor inherits the locked files: a device stays leased until the last rank
is gone, even if pytest was killed.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import stat
import time
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pytest_flagperf.errors import DeviceUnavailable


# How often the first in the queue looks again: a device is free when a job of seconds to days has ended.
POLL_INTERVAL = 0.05
MOST_DEVICES = 1024


@dataclass(frozen=True)
class Lease:
    """Devices that are ours until the lease is released. ``files`` are the locked file descriptors."""

    devices: tuple[int, ...]
    files: tuple[int, ...]


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


def _open(path: Path) -> int:
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        # Without O_CREAT first: Linux refuses that flag on another user's file in a sticky directory.
        with contextlib.suppress(FileNotFoundError):
            return os.open(path, flags)
        handle = os.open(path, flags | os.O_CREAT, 0o666)
        with contextlib.suppress(PermissionError):
            os.fchmod(handle, 0o666)
        return handle
    except OSError as error:
        raise DeviceUnavailable(f"the lock file {path} cannot be opened: {error}") from error


def _try_lock(path: Path) -> int | None:
    handle = _open(path)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        return None
    return handle


def _path(vendor: str, name: str) -> Path:
    return directory() / f"{vendor}-{name}.lock"


def holder(vendor: str, device: int) -> str:
    """Who wrote itself into a device's lock file last, for messages; empty where nobody did."""
    try:
        record = json.loads(_path(vendor, str(device)).read_text(encoding="utf-8", errors="replace"))
        return f"pid {int(record['pid'])}, {str(record['owner'])[:200]}"
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _take(vendor: str, available: Sequence[int], wanted: int) -> Lease | None:
    """``wanted`` of the ``available`` devices now, or none of them."""
    taken: dict[int, int] = {}
    for device in available:
        handle = _try_lock(_path(vendor, str(device)))
        if handle is not None:
            taken[device] = handle
            if len(taken) == wanted:
                return Lease(tuple(taken), tuple(taken.values()))
    for handle in taken.values():
        os.close(handle)
    return None


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
    if wanted > len(available):
        raise DeviceUnavailable(
            f"{wanted} devices of {vendor} are needed, {len(available)} are there"
            f" ({', '.join(map(str, available)) or 'none'})"
        )
    lease = _wait(vendor, available, wanted, waiting)
    try:
        record = json.dumps({"pid": os.getpid(), "owner": owner}).encode()
        for handle in lease.files:
            os.ftruncate(handle, 0)
            os.pwrite(handle, record, 0)
        yield lease
    finally:
        for handle in lease.files:
            os.close(handle)


def _wanted_first(vendor: str) -> set[int]:
    """The devices that the first in the queue waits for any of; of a record that cannot be read, all there are."""
    try:
        record = json.loads(_path(vendor, "queue").read_text(encoding="utf-8", errors="replace"))
        return {int(device) for device in record["devices"]}
    except (OSError, ValueError, KeyError, TypeError):
        return set(range(MOST_DEVICES))


def _wait(vendor: str, available: Sequence[int], wanted: int, waiting: Callable[[str], None]) -> Lease:
    """One at a time looks for devices, the others queue behind it: who needs many is not overtaken for ever.

    Only who may not use any device that the first in the queue waits for passes it by.
    """
    told = 0.0
    turn: int | None = None
    lease: Lease | None = None
    try:
        while lease is None:
            if turn is None:
                turn = _try_lock(_path(vendor, "queue"))
                if turn is not None:
                    os.ftruncate(turn, 0)
                    os.pwrite(turn, json.dumps({"pid": os.getpid(), "devices": list(available)}).encode(), 0)
            if turn is not None or not _wanted_first(vendor).intersection(available):
                lease = _take(vendor, available, wanted)
            if lease is None:
                if time.monotonic() - told >= 1:
                    told = time.monotonic()
                    waiting("; ".join(filter(None, (holder(vendor, device) for device in available))))
                time.sleep(POLL_INTERVAL)
    finally:
        if turn is not None:
            os.close(turn)
    return lease
