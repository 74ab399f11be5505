"""The processor's clock, measured by a chain of multiplications whose length in cycles is known.

What the kernel tells is the nominal clock in most virtual machines, and one of many on a host that turbo-clocks. Each
32-bit integer multiplication of the chain needs the result of the one before and takes three cycles, on Intel's cores
since Nehalem and on AMD's since Zen (Agner Fog, Instruction tables: IMUL r32, r32). So cycles over time is the clock.
The standard library only.
"""

from __future__ import annotations

import ctypes
import mmap
import platform
import time
from collections.abc import Callable
from functools import cache


# Cycles of one multiplication, multiplications of one turn of the loop.
LATENCY = 3
CHAIN = 16
TURNS = 20_000
# A look takes some 0.3 ms: of so many, one at least is not interrupted, and the first ones wake the clock.
LOOKS = 40
# What a processor may run at, in MHz; anything else was no clock.
PLAUSIBLE = (200.0, 10_000.0)


@cache
def measured_clock() -> float | None:
    """The clock of one core at work in MHz, the highest of some; ``None`` where it cannot be measured.

    That is on other processors than x86-64, and where the host forbids memory that is written and executed.
    """
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return None
    try:
        page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    except OSError:
        return None
    # The page is not closed but let go of: while a call is in it, as when Ctrl-C comes, it cannot be closed.
    page.write(_code())
    held = ctypes.c_char.from_buffer(page)
    run = ctypes.CFUNCTYPE(ctypes.c_uint, ctypes.c_uint)(ctypes.addressof(held))
    shortest = min(_nanoseconds(run) for _ in range(LOOKS))
    found = LATENCY * CHAIN * TURNS / shortest * 1e3
    return found if PLAUSIBLE[0] <= found <= PLAUSIBLE[1] else None


def _nanoseconds(run: Callable[[int], int]) -> int:
    begin = time.perf_counter_ns()
    run(TURNS)
    return max(1, time.perf_counter_ns() - begin)


def _code() -> bytes:
    """``unsigned f(unsigned turns)`` by the System V ABI: it touches EAX and EDI alone."""
    enter = bytes.fromhex("f30f1efa 89f8")  # endbr64; mov eax, edi
    turn = bytes.fromhex("0fafc0") * CHAIN + bytes.fromhex("ffcf")  # imul eax, eax ...; dec edi
    jump = bytes([0x75, (-len(turn) - 2) & 0xFF])  # jnz: back to the first multiplication
    return enter + turn + jump + b"\xc3"  # ret
