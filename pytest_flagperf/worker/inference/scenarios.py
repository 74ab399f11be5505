"""LoadGen's scenarios: MLPerf's rules for each, and what of them a case's configuration shortens.

Source of the numbers: MLPerf Inference rules and LoadGen's ``mlperf.conf``. Standard library only.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pytest_flagperf.errors import ConfigurationError


SAMPLES_PER_QUERY = 8


@dataclass(frozen=True)
class Rules:
    """``queries`` are the fewest of a run; of Offline the samples of its one query. ``duration`` is in seconds."""

    name: str
    queries: int
    percentile: float
    duration: float = 600.0


RULES: Mapping[str, Rules] = {
    "single_stream": Rules("SingleStream", 100, 0.90),
    "multi_stream": Rules("MultiStream", 662, 0.99),
    # The rules have 100; early stopping at the 99th percentile needs as many as here, with one query too late.
    "server": Rules("Server", 662, 0.99),
    "offline": Rules("Offline", 24_576, 0.99),
}

# Samples that LoadGen draws from, held in memory.
PERFORMANCE_SAMPLES = 1024
# Of the measured run's answers, how many LoadGen is asked to log.
LOGGED_ANSWERS = 1024


@dataclass(frozen=True)
class Seeds:
    """What LoadGen draws samples and arrivals with; ``schedule`` is another one in every run."""

    library: int
    samples: int
    schedule: int
    accuracy: int

    @classmethod
    def of(cls, seed: int, run: int) -> Seeds:
        """Those of the case's ``seed``, in the ``run``-th run of LoadGen within it."""
        return cls(
            _drawn(seed, "library"), _drawn(seed, "samples"), _drawn(seed, "schedule", run), _drawn(seed, "log", run)
        )


def _drawn(*parts: object) -> int:
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    # LoadGen's generators take 32 bits of a seed.
    return int.from_bytes(digest[:4], "little")


@dataclass(frozen=True)
class Scenario:
    """What a role asks LoadGen for. Durations are in seconds, ``latency_bound`` in ms and of Server only.

    ``queries`` are the fewest of a run, of Offline samples; ``asked`` is how many the rules want.

    ``loadgen_duration``, ``loadgen_queries``, ``offline_samples``, ``loadgen_samples``, ``latency_bound``,
    ``latency_percentile``, ``search_duration`` and ``search_precision`` of the configuration are read here. Raises
    ``ConfigurationError`` for a value that cannot be.
    """

    role: str
    duration: float
    queries: int
    percentile: float
    performance_samples: int
    asked: int
    latency_bound: float | None = None
    search_duration: float = 0.0
    search_precision: float = 0.0

    @classmethod
    def of(cls, role: str, config: Mapping[str, Any], samples: int) -> Scenario:
        """The scenario of ``role`` over an evaluation set of ``samples``."""
        rules = RULES[role]
        offline = role == "offline"
        # Of an evaluation set that has fewer, Offline asks for all of it.
        asked = min(rules.queries, samples) if offline else rules.queries
        duration = _figure(config, "loadgen_duration", rules.duration)
        held = min(samples, int(_figure(config, "loadgen_samples", PERFORMANCE_SAMPLES)))
        bound = None
        if role == "server":
            if "latency_bound" not in config:
                raise ConfigurationError("role server needs latency_bound in the case's configuration: milliseconds")
            bound = _figure(config, "latency_bound", 0.0)
        if role == "multi_stream" and held < SAMPLES_PER_QUERY:
            raise ConfigurationError(
                f"role multi_stream needs {SAMPLES_PER_QUERY} samples to draw from, there are {held}: see "
                "loadgen_samples and the evaluation split"
            )
        percentile = _figure(config, "latency_percentile", rules.percentile) if role == "server" else rules.percentile
        if percentile >= 1:
            raise ConfigurationError(f"latency_percentile is a share below 1, not {percentile:g}")
        queries = int(_figure(config, "offline_samples" if offline else "loadgen_queries", asked))
        # Of a stream LoadGen says so itself, after one run; a search would halve the rate for ever.
        if role == "server" and queries < fewest_queries(percentile):
            raise ConfigurationError(
                f"loadgen_queries is {queries}: of fewer than {fewest_queries(percentile)} queries LoadGen's early "
                f"stopping can tell nothing about {percentile:.0%} of them, so that no rate would pass"
            )
        return cls(
            role=role,
            duration=duration,
            queries=queries,
            percentile=percentile,
            performance_samples=held,
            asked=asked,
            latency_bound=bound,
            search_duration=_figure(config, "search_duration", min(duration, 60.0)),
            search_precision=_figure(config, "search_precision", 0.02),
        )

    @property
    def name(self) -> str:
        """LoadGen's."""
        return RULES[self.role].name

    @property
    def samples_per_query(self) -> int:
        """Of Offline it is LoadGen's to say."""
        return SAMPLES_PER_QUERY if self.role == "multi_stream" else 1

    def shortened(self) -> dict[str, list[float]]:
        """What is below MLPerf's rules: name → [what it is here, what the rules ask for]."""
        rules = RULES[self.role]
        pairs = {
            "duration": (self.duration, rules.duration),
            "queries": (self.queries, self.asked),
            "percentile": (self.percentile, rules.percentile),
        }
        return {name: [here, asked] for name, (here, asked) in pairs.items() if here < asked}


def fewest_queries(percentile: float) -> int:
    """Queries of which none may be late, so that LoadGen's early stopping is sure of ``percentile`` by 99 %."""
    return math.ceil(math.log(0.01) / math.log(percentile))


def batch_size(role: str, configured: int) -> int:
    """Samples of a batch in a role: one at the edge and of SingleStream, a query's of MultiStream."""
    if role in ("edge", "single_stream"):
        return 1
    return SAMPLES_PER_QUERY if role == "multi_stream" else configured


def batch_sizes(role: str, size: int, samples: int) -> tuple[int, ...]:
    """All sizes that come in a role, the usual one first: of Server every power of two below it, and what is left over.

    A batch of another size is filled up to the next of these.
    """
    sizes = [size, samples % size]
    if role == "server":
        sizes += [2**power for power in range(size.bit_length()) if 2**power < size]
    return tuple(dict.fromkeys(one for one in sizes if one))


def _figure(config: Mapping[str, Any], key: str, default: float) -> float:
    value = config.get(key, default)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < float("inf"):
        raise ConfigurationError(f"{key} is {value!r}: a number above 0 is wanted")
    return value
