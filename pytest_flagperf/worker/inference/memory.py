"""Resident memory of this process above what it had before the model was loaded, for engines on its processor."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any


_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")
# See proc_pid_clear_refs(5): the peak becomes what is resident now.
_RESET_PEAK = "5"
_GIB = 2**30
RESTARTED = "end of the accuracy run"


def resident() -> int:
    """Bytes resident now."""
    return _kilobytes("VmRSS") * 1024


def total() -> float:
    """Memory of the host in GiB."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / _GIB


def size(value: Any) -> int:
    """Bytes of what is in tuples, lists and dictionaries, and of these; an array has to own its numbers."""
    if isinstance(value, dict):
        value = list(value.values())
    inside = sum(map(size, value)) if isinstance(value, (tuple, list)) else 0
    return sys.getsizeof(value) + inside


class Resident:
    """Made before the model is loaded; :meth:`restart` when what came before the measurement has been given back."""

    def __init__(self) -> None:
        give_back()
        self.idle = resident()
        self.since = "start of the process"

    def restart(self) -> None:
        """Forget the peak so far: that of the reference, the export, the compiler and the comparison of answers."""
        give_back()
        try:
            _CLEAR.write_text(_RESET_PEAK)
        except OSError:
            return  # some containers forbid it: then the peak is that of the whole process, and `since` says so
        self.since = RESTARTED

    def exclude(self, count: int) -> None:
        """Bytes of the harness's own that are part of a peak since :meth:`restart` do not count."""
        if self.since == RESTARTED:
            self.idle += count

    @contextlib.contextmanager
    def excluded(self) -> Iterator[None]:
        """What stays resident of a step that leaves nothing but a file, as an exporter's modules, does not count."""
        give_back()
        before = resident()
        yield
        give_back()
        self.idle += max(0, resident() - before)

    def peak(self) -> float:
        """GiB of the peak above what was resident before the model."""
        return max(0, _kilobytes("VmHWM") * 1024 - self.idle) / _GIB


def give_back() -> None:
    """Collect garbage, and give the allocator's free memory to the system where the C library can."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _kilobytes(name: str) -> int:
    found = re.search(rf"^{name}:\s*(\d+) kB", _STATUS.read_text(), re.MULTILINE)
    return int(found[1]) if found else 0
