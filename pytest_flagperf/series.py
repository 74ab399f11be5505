"""A metric of a case over time, as the history tells it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Key:
    """What a series is of; figures of other hardware, of synthetic data or of changed code are other series."""

    case: str
    vendor: str
    hardware: str
    variant: str
    kind: str
    role: str

    def __str__(self) -> str:
        return ", ".join(part for part in (f"{self.case} {self.vendor}", self.hardware, self.variant) if part)


@dataclass(frozen=True)
class Point:
    """One figure of a series.

    ``samples`` are those of its rounds, ``low`` and ``high`` its 95 % confidence interval. ``verdict`` is the result's,
    ``compared`` that of the comparison with a baseline, where there was one. ``gone`` says that the session is no
    longer on disk.
    """

    time: float
    session: str
    value: float
    samples: tuple[float, ...]
    low: float | None
    high: float | None
    verdict: str
    compared: str
    host: str
    commit: str
    code: str
    stack: dict[str, str]
    gone: bool


@dataclass(frozen=True)
class Series:
    """A metric of a case over time."""

    key: Key
    metric: str
    unit: str
    better: str
    points: tuple[Point, ...]
