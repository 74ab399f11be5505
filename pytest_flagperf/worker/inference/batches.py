"""FlagPerf's own offline loop, and the same with one sample at a time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING
from typing import Any

import numpy as np

from pytest_flagperf import perflog


if TYPE_CHECKING:
    from pytest_flagperf.worker.inference.flow import UnderTest

# Latencies in one QUERIES event.
CHUNK = 4096


def throughput(test: UnderTest) -> None:
    """``repeat`` passes over the whole dataset at ``batch_size``: FlagPerf's loop. Writes INFERENCE_BEGIN to _END."""
    _measure(test, latencies=False)


def edge(test: UnderTest) -> None:
    """The same with one sample at a time, each a query.

    A query arrives once the last one is answered and its own sample is in memory, as MLPerf's SingleStream has it: what
    prepares the samples is part of the throughput and of no latency.
    """
    _measure(test, latencies=True)


def _measure(test: UnderTest, *, latencies: bool) -> None:
    """Samples come in another order than in the accuracy run, so that no batch of several was seen before.

    A single sample was, in the accuracy run: what remembers the answers to inputs is not found by this.

    The core is the forward pass with its inputs on the device; the whole is also the data pipeline, both copies and
    this loop.
    """
    workload, compiled = test.workload, test.compiled
    samples = units = 0
    core, took = 0.0, []
    total = workload.samples() * test.repeat
    test.events.write(perflog.INFERENCE_BEGIN, {"batch_size": test.batch_size, "repeat": test.repeat})
    for indices in _batches(test):
        inputs = workload.inputs(indices)
        begin = time.perf_counter()
        compiled.load(inputs)
        loaded = time.perf_counter()
        compiled.execute()
        executed = time.perf_counter()
        outputs = compiled.outputs()
        if latencies:
            took.append(round((time.perf_counter() - begin) * 1e9))
        core += executed - loaded
        samples += len(indices)
        units += workload.unit_count(outputs)
        test.seen.add(indices, outputs)
        test.alive("inference", samples, total)
        if len(took) == CHUNK:
            queries(test.events, took)
            took = []
    if took:
        queries(test.events, took)
    test.events.write(perflog.INFERENCE_END, {"samples": samples, "units": units, "core_time": core})


def queries(events: Any, latencies: list[int]) -> None:
    """A chunk of latencies in nanoseconds, from the scheduled arrival of a query to its answer on the host."""
    events.write(perflog.QUERIES, {"latencies_ns": latencies})


def _batches(test: UnderTest) -> Iterator[Any]:
    random = np.random.default_rng([test.seed, 2])
    for _ in range(test.repeat):
        order = random.permutation(test.workload.samples())
        for start in range(0, len(order), test.batch_size):
            yield order[start : start + test.batch_size]
