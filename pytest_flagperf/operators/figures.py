"""From a worker's reply to figures that can be trusted, or to the reason why they cannot."""

from __future__ import annotations

import math
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from typing import Any

from pytest_flagperf import metrics
from pytest_flagperf.errors import InvalidMeasurement
from pytest_flagperf.metrics import UTILIZATION_LIMIT
from pytest_flagperf.operators.case import ResolvedOperator
from pytest_flagperf.operators.peaks import Ceilings
from pytest_flagperf.operators.peaks import Peak
from pytest_flagperf.operators.peaks import position
from pytest_flagperf.operators.problems import AllReduce
from pytest_flagperf.operators.problems import Convolution
from pytest_flagperf.operators.problems import Interconnect
from pytest_flagperf.operators.problems import Memory
from pytest_flagperf.operators.problems import Operator
from pytest_flagperf.operators.problems import SparseGemm
from pytest_flagperf.worker.operators.measure import interval_depth


# Without these a reply is no measurement; of a capacity nothing is timed.
REQUIRED = ("time", "time_min", "time_p99", "cv", "first_call")
# What an estimate may be wrong by; also what no precision can do beyond the fastest that is known.
ESTIMATE_LIMIT = 2.0
# Winograd's F(4, 3) multiplies four times less than the declared direct convolution (Lavin and Gray 2015).
WINOGRAD = 4.0
# Of the interval of the median.
CONFIDENCE = 0.95
# More than any cache holds: then declared bytes over time are the memory's bandwidth.
BEYOND_CACHES = 512 * 2**20

# A note of sparse products begins so.
SLOW_DENSE = "the dense call is slow"

_TF32_ON = (True, "tf32", "high", "medium")


@dataclass(frozen=True)
class Figures:
    """What is recorded of one problem: metrics in the registry's units, and what a reader has to know of them."""

    metrics: Mapping[str, float]
    notes: tuple[str, ...] = ()
    peak: Peak | None = None
    roofline: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)


# What of a reply is kept beside its figures.
_FACTS = (
    "samples",
    "iterations",
    "ended",
    "error_bound",
    "precision",
    "padded",
    "clock",
    "device_name",
    "threads",
    "data",
    "context_switches",
)


def of_reply(one: ResolvedOperator, reply: Mapping[str, Any], ceilings: Ceilings) -> Figures:
    """The figures of a reply whose status is ``measured``. Raises ``InvalidMeasurement`` for what cannot be trusted."""
    given = reply.get("figures")
    if not isinstance(given, Mapping):
        raise InvalidMeasurement("the worker's reply has no figures")
    if "correct" not in reply:
        raise InvalidMeasurement("the result of the timed call was not checked")
    found = {name: _figure(name, value) for name, value in given.items()}
    capacity = isinstance(one.problem, Memory) and one.problem.kind == "capacity"
    missing = [name for name in (("capacity",) if capacity else REQUIRED) if name not in found]
    if missing:
        raise InvalidMeasurement(f"not measured: {', '.join(missing)}")
    if "time" in found and found["time"] <= 0:
        raise InvalidMeasurement(f"time is {found['time']:g} µs: not a time")
    refuse_other_precision(one.precision, reply.get("precision") or {})
    found.update(_rates(one, found))
    metrics.refuse_impossible(found)
    achieved, peak = _against(one, found, ceilings)
    notes = [str(note) for note in reply.get("notes") or ()]
    if achieved is not None and peak is not None:
        utilization, note = _utilization(one, achieved, peak, ceilings)
        found.update(utilization)
        notes += [note] if note else []
    _refuse_beyond_every_peak(one, found, ceilings)
    notes += [*_cache_notes(one), *_dense_notes(one, found)]
    interval = interval_of(reply)
    if reply.get("ended") == "budget" and "time" in found:
        notes.append(_unknown(found["time"], interval))
    return Figures(
        found,
        tuple(notes),
        peak,
        position(
            one.problem.flops(one.direction),
            one.problem.bytes(one.precision, one.direction),
            ceilings.compute.get(one.precision),
            ceilings.bandwidth,
        ),
        {
            **{name: reply[name] for name in _FACTS if reply.get(name) is not None},
            **({} if interval is None else {"interval": interval}),
        },
    )


def interval_of(reply: Mapping[str, Any]) -> list[float] | None:
    """The 95 % interval of the median in µs, from a reply's samples; ``None`` for fewer than six.

    By order statistics, as the worker decides when to stop. Of very many samples only some are kept, evenly chosen:
    their quantiles are those of all, so the ranks are scaled.
    """
    kept = reply.get("samples")
    if not isinstance(kept, list) or not all(isinstance(one, (int, float)) for one in kept):
        return None
    taken = reply.get("iterations")
    count = max(len(kept), taken if isinstance(taken, int) else 0)
    depth = interval_depth(count, CONFIDENCE)
    if depth < 1 or not kept:
        return None
    ordered = sorted(kept)
    place = min(max(math.ceil(depth / count * len(kept)) - 1, 0), (len(kept) - 1) // 2)
    return [ordered[place], ordered[-1 - place]]


def half_width(time: float, interval: Sequence[float]) -> float:
    """How far the median may be from the truth: the longer side of its interval, as a share of it."""
    return max(time - interval[0], interval[1] - time, 0.0) / time


def percent(share: float) -> str:
    """``1.8 %`` or ``35 %``."""
    return f"{100 * share:.1f} %" if share < 0.0995 else f"{100 * share:,.0f} %"


def _unknown(time: float, interval: Sequence[float] | None) -> str:
    known = "" if interval is None else f", only to {percent(half_width(time, interval))}"
    return f"the median is not known to 2 %{known}: the budget was spent before"


def _dense_notes(one: ResolvedOperator, found: Mapping[str, float]) -> list[str]:
    """What a speed-up means that is more than the work that was saved."""
    if not isinstance(one.problem, SparseGemm) or "speedup_vs_dense" not in found:
        return []
    work = one.problem.dense_flops / (one.problem.flops(one.direction) or 1)
    if found["speedup_vs_dense"] <= work:
        return []
    return [
        f"{SLOW_DENSE}, not the sparse one fast: it takes {found['speedup_vs_dense']:.3g} times as long "
        f"and does {work:.3g} times the work (1 / density)"
    ]


def _refuse_beyond_every_peak(one: ResolvedOperator, found: Mapping[str, float], ceilings: Ceilings) -> None:
    """Raise ``InvalidMeasurement`` for a rate that no precision of the device reaches, whatever bounds the problem.

    A precision without a peak of its own, and an operator that is compared with the memory, are held against it too.
    """
    known = [peak for peak in ceilings.compute.values() if peak.value > 0]
    if "tflops" not in found or not known:
        return
    highest = max(known, key=lambda peak: peak.value)
    most = highest.value * ESTIMATE_LIMIT * (WINOGRAD if _has_fast_algorithm(one) else 1)
    if found["tflops"] > most:
        raise InvalidMeasurement(
            f"{found['tflops']:.4g} TFLOP/s in {one.precision}: more than twice the peak of any precision ({highest}). "
            "Suspect a kernel that did not do the work; the declared work; a clock that stopped before the work did"
        )


def _figure(name: str, value: Any) -> float:
    if name not in metrics.known():
        raise InvalidMeasurement(f"the worker gave {name}, which is no metric that is registered")
    # JSON has no NaN: the worker writes it as a string.
    number = float(value) if isinstance(value, str) and value in ("nan", "inf", "-inf") else value
    if isinstance(number, bool) or not isinstance(number, (int, float)):
        raise InvalidMeasurement(f"{name} is {value!r}: not a figure")
    if not math.isfinite(number):
        raise InvalidMeasurement(f"{name} is {number}: not a figure")
    return float(number)


def refuse_other_precision(asked: str, in_force: Mapping[str, Any]) -> None:
    """Raise ``InvalidMeasurement`` where TF32 is in force and fp32 was asked for, or the other way round.

    ``in_force`` is what the worker read back after the timed calls: of its keys with ``tf32`` in the name any that is
    on counts, and a precision of float32 products below the highest.
    """
    if asked not in ("fp32", "tf32"):
        return
    switches = {
        name: value
        for name, value in in_force.items()
        if name == "float32_matmul" or name.endswith("fp32_precision") or "tf32" in name
    }
    on = [name for name, value in switches.items() if _is_on(value)]
    if asked == "fp32" and on:
        raise InvalidMeasurement(
            f"fp32 was asked for and TF32 was in force ({', '.join(f'{name} = {switches[name]}' for name in on)}): "
            "something switched it on behind the plugin's back. Look for allow_tf32 and NVIDIA_TF32_OVERRIDE"
        )
    if asked == "tf32" and len(on) < max(1, len(switches)):
        off = ", ".join(f"{name} = {value}" for name, value in switches.items() if name not in on)
        raise InvalidMeasurement(
            f"tf32 was asked for and was not in force when the calls were timed: {off or in_force}"
        )


def _is_on(value: Any) -> bool:
    return value in _TF32_ON if isinstance(value, (bool, str)) else bool(value)


def _rates(one: ResolvedOperator, found: Mapping[str, float]) -> dict[str, float]:
    """What follows from the problem's declared work and the time."""
    time = found.get("time")
    if time is None:
        return {}
    rates = {}
    flops = one.problem.flops(one.direction)
    if flops is not None:
        rates["tflops"] = flops / time / 1e6
    traffic = one.problem.bytes(one.precision, one.direction)
    if isinstance(one.problem, (Memory, Operator)) and traffic is not None:
        rates["bandwidth"] = traffic / time / 1e3
    if "dense_time" in found:
        rates["speedup_vs_dense"] = found["dense_time"] / time
    if isinstance(one.problem, (AllReduce, Interconnect)) and traffic is not None:
        ranks = one.selection.topology.world_size
        if isinstance(one.problem, AllReduce) or one.problem.kind == "all_reduce":
            rates["algbw"] = traffic / time / 1e3
            rates["busbw"] = rates["algbw"] * 2 * (ranks - 1) / ranks
        else:
            rates["bandwidth"] = traffic / time / 1e3
    return rates


def _against(one: ResolvedOperator, found: Mapping[str, float], ceilings: Ceilings) -> tuple[float | None, Peak | None]:
    """What was achieved, and the peak that it is compared with."""
    problem = one.problem
    if isinstance(problem, Memory):
        if problem.kind == "capacity":
            return found.get("capacity"), ceilings.capacity
        return found.get("bandwidth"), ceilings.bandwidth
    if isinstance(problem, AllReduce) or (isinstance(problem, Interconnect) and problem.kind == "all_reduce"):
        return found.get("busbw"), None if _leaves_server(one) else ceilings.link
    if isinstance(problem, Interconnect):
        between = problem.kind == "device_to_device" and not _leaves_server(one)
        return found.get("bandwidth"), ceilings.link if between else None
    if isinstance(problem, Operator) and not problem.flops_model.startswith("matrix_product"):
        return found.get("bandwidth"), None if _may_be_cached(one) else ceilings.bandwidth
    return found.get("tflops"), ceilings.compute.get(one.precision)


def _may_be_cached(one: ResolvedOperator) -> bool:
    """Whether caches may hold all that is read and written, so that the memory does not bound it."""
    return (one.problem.bytes(one.precision, one.direction) or 0) <= BEYOND_CACHES


def _cache_notes(one: ResolvedOperator) -> list[str]:
    """Why an operator that does little with each element has no utilization where it is small."""
    if not isinstance(one.problem, Operator) or one.problem.flops_model.startswith("matrix_product"):
        return []
    traffic = one.problem.bytes(one.precision, one.direction)
    if traffic is None or not _may_be_cached(one):
        return []
    return [f"no utilization: caches may hold the {traffic / 2**20:.3g} MiB, and then the memory is no bound"]


def _leaves_server(one: ResolvedOperator) -> bool:
    """Whether the message passes a network: a vendor file's link is the one within a server."""
    return getattr(one.problem, "scope", "") == "cluster" or one.selection.topology.nodes > 1


def _utilization(
    one: ResolvedOperator, achieved: float, peak: Peak, ceilings: Ceilings
) -> tuple[dict[str, float], str]:
    """``utilization``, or a note why it is left out. Raises ``InvalidMeasurement`` for one that cannot be."""
    value = achieved / peak.value
    if value < 0 or not math.isfinite(value):
        raise InvalidMeasurement(
            f"utilization is {value:.4g}: it cannot be negative. Suspect the peak ({peak}; {peak.source})"
        )
    # Nothing can allocate more than there is, while a rate has its clock's uncertainty.
    limit = 1.0 if peak.unit == "GiB" else UTILIZATION_LIMIT
    if value <= limit:
        return {"utilization": value}, ""
    # A bandwidth is estimated while others may use the memory: it says what is usual, not what is possible.
    if peak.estimated and (value <= ESTIMATE_LIMIT or peak.unit == "GB/s"):
        return {}, f"no utilization: {achieved:.4g} {peak.unit} is above the estimated peak of {peak.value:.4g}"
    if _has_fast_algorithm(one) and value <= WINOGRAD * UTILIZATION_LIMIT:
        return {}, (
            f"no utilization: {achieved:.4g} {peak.unit} by the direct count is above the peak of {peak.value:.4g}, "
            "as Winograd's algorithm, which multiplies less, makes possible"
        )
    raise InvalidMeasurement(
        f"utilization is {value:.4g} ({achieved:.4g} of {peak}): more than the peak. "
        f"Suspect {'; '.join(_suspects(one, achieved, peak, ceilings))}"
    )


def _has_fast_algorithm(one: ResolvedOperator) -> bool:
    problem = one.problem
    if not isinstance(problem, Convolution):
        return False
    return min(problem.filter_w, problem.filter_h) >= 3 and problem.stride_w == problem.stride_h == 1


def _suspects(one: ResolvedOperator, achieved: float, peak: Peak, ceilings: Ceilings) -> list[str]:
    if peak.unit == "GiB":
        return ["GB reported as GiB", f"the memory in the vendor file ({peak.source})"]
    found = []
    if peak.unit == "TFLOP/s":
        faster = [
            (other.value, name)
            for name, other in ceilings.compute.items()
            if other.value > peak.value and achieved <= other.value * UTILIZATION_LIMIT
        ]
        if faster:
            value, name = min(faster)
            found.append(f"that {name} was computed instead of {one.precision} (its peak is {value:.4g})")
    else:
        found.append("both directions counted as one, or a cache that answered for the memory")
    return [*found, f"the peak ({peak.source})", "the declared work", "a clock that stopped before the work did"]
