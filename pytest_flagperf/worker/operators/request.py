"""One request of pytest's side: a problem, and how it is to be measured. One JSON object a line."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any
from typing import Self

from pytest_flagperf.operators.problems import Problem
from pytest_flagperf.operators.problems import from_json


CACHES = ("hot", "flushed")


@dataclass(frozen=True)
class Request:
    """What to measure. ``budget`` and ``warmup`` are seconds; ``least`` and ``most`` count samples."""

    id: int
    problem: Problem
    precision: str = "fp32"
    direction: str = "fwd"
    seed: int = 1
    budget: float = 5.0
    cache: str = "hot"
    warmup: float = 1.0
    least: int = 5
    most: int = 1000

    @classmethod
    def parse(cls, record: dict[str, Any]) -> Self:
        """The request in a line's object. ValueError: something in it cannot be carried out."""
        fields = {name: record[name] for name in cls.__dataclass_fields__ if name in record and name != "problem"}
        try:
            request = cls(problem=from_json(record["problem"]), **fields)
            in_range = 1 <= request.least <= request.most and request.budget >= 0 and request.warmup >= 0
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not a request: {type(error).__name__}: {error}") from error
        if request.direction not in request.problem.directions:
            raise ValueError(
                f"{request.problem.family} {request.problem.id} has no direction {request.direction!r}, only "
                f"{', '.join(request.problem.directions)}"
            )
        if request.cache not in CACHES:
            raise ValueError(f"cache is {' or '.join(CACHES)}, not {request.cache!r}")
        if not in_range:
            raise ValueError(
                f"least {request.least}, most {request.most}, budget {request.budget} and warmup {request.warmup}: "
                "counts are 1 <= least <= most, seconds are not negative"
            )
        return request


def parse_line(line: bytes) -> dict[str, Any]:
    """The object on a line of the requests. ValueError: it is none."""
    record = json.loads(line)
    if not isinstance(record, dict):
        raise ValueError(f"a request is an object, not {type(record).__name__}")
    return record
