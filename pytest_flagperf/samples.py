"""What the monitor saw of a round, and the metrics of devices and host that follow from it.

Standard library only, and nothing is measured here: ``monitor.jsonl`` says it all.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from pathlib import Path
from typing import Any

from pytest_flagperf.errors import InvalidMeasurement


# Between two samples of power more may have happened than a straight line shows (InferenceX' rule).
LONGEST_GAP = 3.0

Window = tuple[float, float]


@dataclass(frozen=True)
class Sample:
    """One device at one moment; ``figures`` in the units of ``devices.reading.Reading``."""

    device: int
    monotonic: float
    time: float
    figures: Mapping[str, Any]


@dataclass(frozen=True)
class Gap:
    """A look that gave nothing: when, how long it took, and why."""

    monotonic: float
    seconds: float
    error: str


@dataclass(frozen=True)
class Foreign:
    """A process on a leased device that is none of the round's."""

    device: int
    pid: int
    command: str
    monotonic: float


@dataclass(frozen=True)
class Samples:
    """The content of one ``monitor.jsonl``.

    ``unseen`` are processes whose owner could not be found out; ``blind`` says why the processes on the devices could
    not be listed; ``ended`` is false where the monitor itself was killed.
    """

    devices: tuple[int, ...] = ()
    source: str = ""
    samples: tuple[Sample, ...] = ()
    host: tuple[Sample, ...] = ()
    gaps: tuple[Gap, ...] = ()
    foreign: tuple[Foreign, ...] = ()
    unseen: frozenset[int] = frozenset()
    blind: str = ""
    interval: float = 1.0
    ended: bool = True

    def of(self, device: int) -> list[Sample]:
        """The samples of one device, in order."""
        return [one for one in self.samples if one.device == device]


@dataclass(frozen=True)
class Seen:
    """What a window's samples amount to: ``figures`` by metric, and ``notes`` a reader has to know."""

    figures: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def read(path: Path) -> Samples:
    """Read a ``monitor.jsonl``; one that is not there, or torn, gives what it holds."""
    from pytest_flagperf.records import read_lines

    try:
        lines = read_lines(path)
    except OSError:
        return Samples()
    return parse(lines)


def parse(lines: Iterable[Mapping[str, Any]]) -> Samples:
    """The samples in the lines of a ``monitor.jsonl``, or of a part of it that begins with its first ones."""
    found: dict[str, list[Any]] = {"sample": [], "host": [], "gap": [], "foreign": []}
    devices: tuple[int, ...] = ()
    source, error, blind, interval, ended = "", "", "", 1.0, False
    unseen: set[int] = set()
    for line in lines:
        event, monotonic = line.get("event"), line.get("monotonic")
        if not isinstance(monotonic, (int, float)) or not math.isfinite(monotonic):
            continue
        rest = {k: v for k, v in line.items() if k not in ("event", "monotonic", "time", "device")}
        if event == "monitor_start":
            devices, interval = tuple(line.get("devices", ())), float(line.get("interval", 1.0))
        elif event == "monitor_end":
            ended = True
        elif event == "monitor_source":
            source = str(line.get("source", ""))
        elif event in ("sample", "host"):
            found[event].append(Sample(int(line.get("device", 0)), monotonic, float(line.get("time", 0)), rest))
        elif event == "gap":
            error = str(line.get("error", error))
            found["gap"].append(Gap(monotonic, float(line.get("seconds", 0)), error))
        elif event == "processes_gap":
            blind = str(line.get("error", ""))
        elif event == "processes":
            unseen.update(line.get("unseen", ()))
            for one in line.get("foreign", ()):
                found["foreign"].append(Foreign(int(line["device"]), one["pid"], one.get("command", ""), monotonic))
    return Samples(
        devices,
        source,
        tuple(found["sample"]),
        tuple(found["host"]),
        tuple(found["gap"]),
        tuple(found["foreign"]),
        frozenset(unseen),
        blind,
        interval,
        ended or not lines,
    )


def refuse_foreign(seen: Samples) -> None:
    """Raise ``InvalidMeasurement`` where somebody else's process was on a leased device."""
    __tracebackhide__ = True
    if seen.foreign:
        who = {(one.device, one.pid): one.command for one in seen.foreign}
        listed = "; ".join(f"device {device}: pid {pid} {text}".rstrip() for (device, pid), text in who.items())
        raise InvalidMeasurement(
            f"a process of somebody else was on a leased device while it was measured: {listed}\n"
            "End it, or leave it a device of its own by the visible-devices variable, and run again"
        )


def metrics_of(
    seen: Samples, window: Window, *, cards: Mapping[int, int] | None = None, hot: float | None = None
) -> Seen:
    """The metrics of devices and host over ``window``, seconds of the monotonic clock.

    ``power`` and ``energy`` are of all devices of the case together; with ``cards`` (device → card) the power of a
    card is told on one of its devices, and counts where all devices of the card are the case's; ``hot`` is the
    vendor's limit in °C. A metric whose samples do not cover the window is absent, with a note.
    """
    figures: dict[str, float] = {}
    notes: list[str] = []
    inside = [one for one in seen.samples if window[0] <= one.monotonic <= window[1]]
    for name, key, gather in (
        ("temperature", "temperature", max),
        ("memory_device_peak", "memory_used", max),
        ("device_utilization", "utilization", _mean),
        ("clock", "clock", _mean),
    ):
        values = _values(inside, key)
        if values and all(_covers(seen, device, key, window) for device in seen.devices):
            figures[name] = gather(values)
    told = [one.figures["throttle"] for one in inside if "throttle" in one.figures]
    if told and all(_covers(seen, device, "throttle", window) for device in seen.devices):
        figures["throttled"] = sum(1 for reasons in told if reasons) / len(told)
    errors = [_increase(_values(seen.of(device), "ecc_errors")) for device in seen.devices]
    if errors and all(one is not None for one in errors):
        figures["ecc_errors"] = math.fsum(one for one in errors if one is not None)
    figures.update(_energy(seen, window, cards, notes))
    figures.update(_host(seen, window))
    if not inside and seen.samples:
        notes.append("the monitor took no sample in the measured time: it was too short, or the driver was silent")
    elif seen.samples and not all(_covers(seen, device, "", window) for device in seen.devices):
        notes.append("the monitor's samples do not cover the measured time: what they told of it is left out")
    return Seen(figures, (*notes, *conditions(seen, window, hot)))


def conditions(seen: Samples, window: Window, hot: float | None = None) -> tuple[str, ...]:
    """What may explain a bad figure: a device that throttled or ran hot, uncorrected memory errors, gaps."""
    found = []
    for device in seen.devices:
        inside = [one for one in seen.of(device) if window[0] <= one.monotonic <= window[1]]
        slowed = [one for one in inside if one.figures.get("throttle")]
        if slowed:
            reasons = dict.fromkeys(itertools.chain.from_iterable(one.figures["throttle"] for one in slowed))
            found.append(f"device {device} throttled in {len(slowed)} of {len(inside)} samples: {', '.join(reasons)}")
        temperatures = _values(inside, "temperature")
        if hot is not None and temperatures and max(temperatures) >= hot:
            found.append(f"device {device} ran hot: {max(temperatures):g} °C, the vendor's limit is {hot:g} °C")
        errors = _increase(_values(seen.of(device), "ecc_errors"))
        if errors:
            found.append(f"device {device} had {errors:g} uncorrected memory errors")
    if not seen.ended:
        found.append("the monitor ended before the job did: who else used the devices is not known")
    if seen.unseen:
        listed = ", ".join(map(str, sorted(seen.unseen)))
        found.append(f"whose processes were on the devices could not be seen for pid {listed}")
    if seen.blind:
        found.append(f"who else used the devices is not known: {seen.blind.splitlines()[0]}")
    lost = [gap for gap in seen.gaps if window[0] <= gap.monotonic <= window[1]]
    if lost:
        first = lost[0].error.splitlines()[0] if lost[0].error else "no reason given"
        times = "once" if len(lost) == 1 else f"{len(lost)} times"
        found.append(f"the monitor's looks failed {times} while it was measured: {first}")
    return tuple(found)


def _covers(seen: Samples, device: int, key: str, window: Window) -> bool:
    """Whether the samples of a device that tell ``key``, or of any, leave no part of the window open for long."""
    moments = [one.monotonic for one in seen.of(device) if not key or key in one.figures]
    inside = [moment for moment in moments if window[0] <= moment <= window[1]]
    longest = max(LONGEST_GAP, 2.5 * seen.interval)
    around = [window[0], *inside, window[1]]
    return bool(inside) and all(after - before <= longest for before, after in itertools.pairwise(around))


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _values(samples: Iterable[Sample], key: str) -> list[float]:
    found = [one.figures.get(key) for one in samples]
    return [value for value in found if isinstance(value, (int, float)) and math.isfinite(value)]


def _tell(samples: Iterable[Sample], key: str) -> set[int]:
    return {one.device for one in samples if key in one.figures}


def _increase(values: Sequence[float]) -> float | None:
    # A driver that was reset counts from 0 again: then nobody knows.
    return values[-1] - values[0] if len(values) > 1 and values[-1] >= values[0] else None


def _energy(seen: Samples, window: Window, cards: Mapping[int, int] | None, notes: list[str]) -> dict[str, float]:
    """Energy in J over the window and the mean power in W, of the devices together; or why there is none."""
    tellers = _tell(seen.samples, "power") | _tell(seen.samples, "energy")
    if not tellers:
        return {}
    if cards is not None and not cards:
        notes.append(
            "power is absent: it is told for a card, and how many devices a card of this chip has is not known"
        )
        return {}
    if cards is None:
        silent = sorted(set(seen.devices) - tellers)
        if silent:
            notes.append(f"power is absent: device {', '.join(map(str, silent))} does not tell it")
            return {}
    else:
        shared = sorted(d for d in tellers if not {o for o in cards if cards[o] == cards[d]} <= set(seen.devices))
        if shared or {cards[d] for d in tellers if d in cards} != {cards[d] for d in seen.devices if d in cards}:
            notes.append("power is absent: it is told for a card, and the case does not have all devices of it")
            return {}
    total = 0.0
    for device in sorted(tellers):
        found = _of_device(seen, device, window, notes)
        if found is None:
            notes.append(
                f"power and energy are absent: the samples of device {device} leave more than {LONGEST_GAP:g} s open"
            )
            return {}
        total += found
    length = window[1] - window[0]
    return {"energy": total, "power": total / length} if length > 0 else {}


# A counter and the samples of power beside it may differ by so much: they are taken at other moments.
_AGREEMENT = 0.2


def _of_device(seen: Samples, device: int, window: Window, notes: list[str]) -> float | None:
    """One device's energy: by its counter where that agrees with its power, else the trapezoid of power."""
    samples = seen.of(device)
    counted = _counted(samples, window)
    drawn = _integral([(one.monotonic, one.figures["power"]) for one in samples if "power" in one.figures], window)
    if counted is None or drawn is None:
        return drawn if counted is None else counted
    if abs(counted - drawn) > _AGREEMENT * drawn:
        notes.append(
            f"the energy counter of device {device} tells {counted:.4g} J, its power {drawn:.4g} J: power is taken"
        )
        return drawn
    return counted


def _counted(samples: Sequence[Sample], window: Window) -> float | None:
    """Energy by the device's own counter, interpolated at the window's ends; ``None`` where it does not cover it.

    No device draws nothing: a counter that stands still does not count.
    """
    points = [(one.monotonic, one.figures["energy"]) for one in samples if "energy" in one.figures]
    around = list(itertools.pairwise(_points_around(points, window)))
    if any(after[1] < before[1] or after[0] - before[0] > LONGEST_GAP for before, after in around):
        return None
    ends = [_interpolated(points, moment) for moment in window]
    return None if ends[0] is None or ends[1] is None or ends[1] <= ends[0] else ends[1] - ends[0]


def _integral(points: Sequence[tuple[float, float]], window: Window) -> float | None:
    """The trapezoid of power over the window; ``None`` where a gap exceeds the longest allowed."""
    ends = [_interpolated(points, moment) for moment in window]
    if ends[0] is None or ends[1] is None:
        return None
    inside = [point for point in points if window[0] < point[0] < window[1]]
    line = [(window[0], ends[0]), *inside, (window[1], ends[1])]
    if any(after[0] - before[0] > LONGEST_GAP for before, after in itertools.pairwise(_points_around(points, window))):
        return None
    return math.fsum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in itertools.pairwise(line))


def _points_around(points: Sequence[tuple[float, float]], window: Window) -> list[tuple[float, float]]:
    """The points in the window, and the one before and the one after it."""
    before = [point for point in points if point[0] <= window[0]][-1:]
    after = [point for point in points if point[0] >= window[1]][:1]
    return [*before, *(point for point in points if window[0] < point[0] < window[1]), *after]


def _interpolated(points: Sequence[tuple[float, float]], moment: float) -> float | None:
    """The value at a moment between two points that are close enough; ``None`` outside them."""
    for before, after in itertools.pairwise(points):
        if before[0] <= moment <= after[0] and after[0] - before[0] <= LONGEST_GAP:
            share = (moment - before[0]) / (after[0] - before[0]) if after[0] > before[0] else 0.0
            return before[1] + share * (after[1] - before[1])
    return None


def _host(seen: Samples, window: Window) -> dict[str, float]:
    inside = [one for one in seen.host if window[0] <= one.monotonic <= window[1]]
    found = {}
    if values := _values(inside, "cpu_utilization"):
        found["cpu_utilization"] = _mean(values)
    if values := _values(inside, "memory_used"):
        found["host_memory_used"] = max(values)
    return found
