"""What a device could do at best: from the vendor file, or for a processor estimated from what Linux tells of it.

The estimate is cores x vector lanes x FMA units x 2 x clock. Its assumptions are:

* cores are those the worker's threads may run on, one thread a core at most;
* the clock is the higher of what the monitor saw and what one busy core was measured to have, else the kernel's
  figure: in a virtual machine that is the nominal clock, and cores that run faster exceed the estimate;
* there are two FMA units a core. AMD's cores before family 1Ah have them 256 bits wide also under AVX-512, Intel's
  with AVX-512 are server cores with two units of 512 bits;
* bf16 counts where the processor has instructions for it (AVX512-BF16 twice, AMX 16 times the fp32 rate of AVX-512),
  int8 likewise (VNNI 4 times, AMX 32 times), fp16 with AVX512-FP16 alone.

So it is good to a factor, not to percent: it is called *estimated* wherever it is shown. The memory's bandwidth is
estimated too, by reading more than the caches hold, by as many threads as the worker has; a busy host gives a low one.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import re
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from pytest_flagperf.devices.vendor import Chip
from pytest_flagperf.devices.vendor import Vendor
from pytest_flagperf.operators.clock import measured_clock
from pytest_flagperf.worker.operators import host


CPUINFO = Path("/proc/cpuinfo")
CACHES = Path("/sys/devices/system/cpu")
_FMA_UNITS = 2
# Of the memory: what caches are taken to hold at least, how often it is read, and how much of the free may be taken.
_SMALLEST_CACHE = 32 * 2**20
_PASSES = 8
_SHARE_OF_MEMORY = 0.25
# From this family on AMD's units are 512 bits wide (Zen 5).
_AMD_WIDE = 0x1A
_RATES: Mapping[str, tuple[tuple[str, float], ...]] = {
    # precision → (flag, multiple of the fp32 rate), the best first.
    "bf16": (("amx_bf16", 16.0), ("avx512_bf16", 2.0), ("avx_bf16", 2.0)),
    "int8": (("amx_int8", 32.0), ("avx512_vnni", 4.0), ("avx_vnni", 4.0)),
    "fp16": (("amx_fp16", 16.0), ("avx512_fp16", 2.0)),
}


@dataclass(frozen=True)
class Peak:
    """A ceiling with its unit (TFLOP/s, GB/s or GiB), and where it comes from."""

    value: float
    unit: str
    source: str
    estimated: bool = False

    def __str__(self) -> str:
        return f"{self.value:.4g} {self.unit}" + (" (estimated)" if self.estimated else "")


@dataclass(frozen=True)
class Ceilings:
    """What bounds a device: arithmetic by precision, memory, link. Absent where nobody published it."""

    compute: Mapping[str, Peak]
    bandwidth: Peak | None = None
    capacity: Peak | None = None
    link: Peak | None = None


def of_chip(chip: Chip) -> Ceilings:
    """The verified figures of a vendor file.

    ``memory`` is given in the GB of data sheets, which for the memory of accelerators are GiB: a device of "40 GB" lets
    39.2 GiB be allocated. A link that is given for both directions counts half.
    """
    compute = {}
    for precision in chip.peak:
        value = chip.ceiling(precision)
        if value is not None:
            compute[precision] = Peak(value, "TFLOP/s", _source(chip, f"peak.{precision}"))
    link = chip.link
    one_way = None if link is None else link.bandwidth / (2 if link.direction == "bidirectional" else 1)
    return Ceilings(
        compute,
        _verified(chip, "memory_bandwidth", chip.memory_bandwidth, "GB/s"),
        _verified(chip, "memory", chip.memory, "GiB"),
        _verified(chip, "link.bandwidth", one_way, "GB/s"),
    )


def _verified(chip: Chip, name: str, value: float | None, unit: str) -> Peak | None:
    return None if value is None or name in chip.unverified else Peak(value, unit, _source(chip, name))


def _source(chip: Chip, name: str) -> str:
    if name == "link.bandwidth" and chip.link is not None:
        return chip.link.source
    return chip.sources.get(name, chip.source)


def of_device(
    vendor: Vendor, chip: Chip | None, *, threads: int | None, clock: float | None, cpuinfo: Path = CPUINFO
) -> Ceilings:
    """The ceilings of the device that was measured. ``clock`` in MHz is what the monitor saw."""
    if chip is not None:
        return of_chip(chip)
    if not vendor.shared:
        return Ceilings({})
    # The monitor sees a mean, of idle cores too.
    clocks = [one for one in (clock, measured_clock()) if one]
    usable = len(os.sched_getaffinity(0))
    rate = read_bandwidth(min(threads or usable, usable))
    bandwidth = None if rate is None else Peak(rate, "GB/s", "estimated: read once by all threads", estimated=True)
    return Ceilings(estimate(cpuinfo, threads, max(clocks, default=None)), bandwidth)


def estimate(cpuinfo: Path, threads: int | None, clock: float | None = None) -> dict[str, Peak]:
    """The processor's peaks by precision; nothing for one that is not x86 with FMA. ``clock``: measured, MHz."""
    try:
        blocks = [_fields(block) for block in cpuinfo.read_text(errors="replace").strip().split("\n\n")]
    except OSError:
        return {}
    flags = set(blocks[0].get("flags", "").split())
    if "fma" not in flags:
        return {}
    # Two threads of one core share its units.
    cores = len({(one.get("physical id"), one.get("core id", number)) for number, one in enumerate(blocks)})
    used = min(cores, threads or cores)
    megahertz = clock or max((_number(one.get("cpu MHz")) for one in blocks), default=0.0)
    bits = _bits(blocks[0], flags)
    if not megahertz:
        return {}
    fp32 = used * (bits / 32) * _FMA_UNITS * 2 * megahertz * 1e6 / 1e12
    source = (
        f"estimated: {used} cores x {bits // 32} lanes x {_FMA_UNITS} FMA units x 2 x {megahertz:.0f} MHz "
        f"({'measured' if clock else 'nominal clock; turbo not known'})"
    )
    rates = {"fp32": 1.0, "fp64": 0.5}
    for precision, known in _RATES.items():
        rate = next((rate for flag, rate in known if flag in flags), None)
        if rate is not None:
            rates[precision] = rate
    return {
        precision: Peak(
            fp32 * rate, "TFLOP/s", source + (f" x {rate:g} for {precision}" if rate != 1 else ""), estimated=True
        )
        for precision, rate in rates.items()
    }


@cache
def read_bandwidth(threads: int, caches: Path = CACHES) -> float | None:
    """Bytes read a second, in GB/s, by the best of some passes; ``None`` where there is no room for them.

    Each thread looks for a byte that is not there (C's ``memchr``) in a part of twice what the last-level caches hold.
    Reading is the fastest that a memory does: a copy comes to less. All is written before, since pages that nobody
    wrote are one page of zeros.
    """
    part = max(mmap.PAGESIZE, 2 * max(_SMALLEST_CACHE, last_level_caches(caches)) // threads)
    available = host.available_memory()
    if available is not None and part * threads > available * _SHARE_OF_MEMORY:
        return None
    look = ctypes.CDLL(None).memchr
    look.argtypes, look.restype = (ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t), ctypes.c_void_p
    passes: list[list[tuple[float, float]]] = [[] for _ in range(_PASSES)]
    together = threading.Barrier(threads)

    def read() -> None:
        try:
            buffer = mmap.mmap(-1, part)
            address = ctypes.addressof(ctypes.c_char.from_buffer(buffer))
            ctypes.memset(address, 1, part)
            for one in passes:
                together.wait()
                begin = time.perf_counter()
                look(address, 2, part)
                one.append((begin, time.perf_counter()))
        except (OSError, threading.BrokenBarrierError):
            together.abort()

    started = [threading.Thread(target=read, daemon=True) for _ in range(threads)]
    try:
        for thread in started:
            thread.start()
    except RuntimeError:
        together.abort()  # there may be no more threads
    for thread in started:
        if thread.ident is not None:
            thread.join()
    whole = [one for one in passes if len(one) == threads]
    seconds = [max(end for _, end in one) - min(begin for begin, _ in one) for one in whole]
    return part * threads / min(seconds) / 1e9 if seconds and not together.broken else None


def last_level_caches(caches: Path = CACHES) -> int:
    """Bytes of all last-level caches of the host together; 0 where the kernel does not say."""
    found: dict[str, int] = {}
    for cpu in caches.glob("cpu[0-9]*/cache"):
        sizes = [
            (_bytes((one / "size").read_text(encoding="ascii").strip()), (one / "shared_cpu_list").read_text("ascii"))
            for one in cpu.glob("index[0-9]*")
            if (one / "size").is_file() and (one / "shared_cpu_list").is_file()
        ]
        if sizes:
            size, shared = max(sizes)
            found[shared.strip()] = size
    return sum(found.values())


def _bytes(text: str) -> int:
    return int(text.rstrip("KMG")) * host.UNITS.get(text[-1], 1)


def _bits(block: Mapping[str, str], flags: set[str]) -> int:
    if "avx512f" not in flags:
        return 256
    if block.get("vendor_id") == "AuthenticAMD" and _number(block.get("cpu family")) < _AMD_WIDE:
        return 256
    return 512


def _fields(block: str) -> dict[str, str]:
    return {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in block.splitlines())}


def _number(text: str | None) -> float:
    return float(text) if text and re.fullmatch(r"[0-9]+(\.[0-9]+)?", text) else 0.0


def position(flops: int | None, traffic: int | None, compute: Peak | None, bandwidth: Peak | None) -> str:
    """Where a problem lies on the roofline: ``compute-bound``, ``bandwidth-bound``, or empty where that is not known.

    Operations a byte of compulsory traffic, against the ratio of the two peaks (Williams, Waterman, Patterson 2009).
    """
    if not flops or not traffic or compute is None or bandwidth is None:
        return ""
    ridge = compute.value * 1e12 / (bandwidth.value * 1e9)
    return "compute-bound" if flops / traffic >= ridge else "bandwidth-bound"
