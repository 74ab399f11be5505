"""MLPerf's traffic patterns: the official LoadGen asks, the compiled model answers.

LoadGen draws samples and arrivals, keeps the clock and judges the run; its summary is where the metrics come from. The
engine stays in the main thread, where it was compiled and warmed up. Of SingleStream, MultiStream and Offline LoadGen
runs there, too, and its callbacks execute the model; of Server it has a thread of its own, which keeps to the schedule
while the model executes.
"""

from __future__ import annotations

import importlib
import re
import time
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING
from typing import Any

import numpy as np

from pytest_flagperf import perflog
from pytest_flagperf.errors import ConfigurationError
from pytest_flagperf.errors import InvalidMeasurement
from pytest_flagperf.worker.inference import loadgen_results
from pytest_flagperf.worker.inference import scenarios
from pytest_flagperf.worker.inference import server_search
from pytest_flagperf.worker.inference.loadgen_results import Outcome
from pytest_flagperf.worker.inference.loadgen_samples import Library
from pytest_flagperf.worker.inference.loadgen_samples import Responses
from pytest_flagperf.worker.inference.loadgen_samples import logged_answers
from pytest_flagperf.worker.inference.loadgen_systems import Answering
from pytest_flagperf.worker.inference.loadgen_systems import Serving
from pytest_flagperf.worker.inference.scenarios import Scenario
from pytest_flagperf.worker.inference.scenarios import Seeds
from pytest_flagperf.worker.inference.workload import Arrays


if TYPE_CHECKING:
    from pytest_flagperf.worker.inference.flow import UnderTest

try:
    loadgen: Any = importlib.import_module("mlperf_loadgen")
except ImportError as _error:
    raise ConfigurationError(
        f"the roles single_stream, multi_stream, server and offline need LoadGen ({_error}): pip install "
        "mlcommons-loadgen, or pytest-flagperf[loadgen]"
    ) from _error

DIRECTORY = "loadgen"
# LoadGen makes its queries beforehand, from a guess of how fast the system is; a guess too low ends the run early.
ATTEMPTS = 4
PROBES, PROBE_SECONDS = 5, 0.2
# What LoadGen keeps of a query and of a sample, in bytes: measured with 6.0.17, rounded up.
QUERY_BYTES, SAMPLE_BYTES = 350, 100
_MEMORY = Path("/proc/meminfo")
# Seconds between looks at whether a sign of life is due.
ALIVE = 0.5


def single_stream(test: UnderTest) -> None:
    """SingleStream: the next query when the last one is answered."""
    _measure_inline(test, "single_stream")


def multi_stream(test: UnderTest) -> None:
    """MultiStream: queries of eight samples, the next when all of the last are answered."""
    _measure_inline(test, "multi_stream")


def offline(test: UnderTest) -> None:
    """Offline: one query with all samples."""
    _measure_inline(test, "offline")


def server(test: UnderTest) -> None:
    """Server: queries arrive at random; the highest rate at which the answers hold the bound, found and shown again."""
    bench = Bench(test, "server")
    scenario, bound = bench.scenario, bench.scenario.latency_bound
    assert bound is not None
    alone = bench.seconds[min(bench.seconds)] * 1e3
    if alone > bound:
        raise InvalidMeasurement(
            f"no rate can hold latency_bound = {bound:g} ms: one sample alone takes {alone:.4g} ms"
        )
    trail: list[dict[str, Any]] = []

    def passes(rate: float) -> bool:
        outcome = bench.run(Serving(bench), scenario.search_duration, rate)
        latency = outcome.nanoseconds(loadgen_results.LATENCIES["latency_p99"])
        trail.append({"rate": rate, "valid": outcome.valid, "latency_p99_ns": latency, **bench.last})
        return outcome.valid

    found = server_search.search(passes, bench.capacity / 2, precision=scenario.search_precision)
    last: list[Outcome] = []

    def verifies(rate: float) -> bool:
        bench.begin(rate=rate, searched=trail, found=found.rate)
        last[:] = [bench.run(Serving(bench), scenario.duration, rate)]
        return last[0].valid

    verified = server_search.verify(verifies, found, precision=scenario.search_precision)
    bench.end(last[0], rate=verified.rate, found=found.rate, steps_down=verified.steps)


def _measure_inline(test: UnderTest, role: str) -> None:
    bench = Bench(test, role)
    guess = bench.guess()
    for attempt in range(1, ATTEMPTS + 1):
        bench.begin(expected_rate=guess, attempt=attempt)
        outcome = bench.run(Answering(bench), bench.scenario.duration, guess)
        if not outcome.too_short or attempt == ATTEMPTS:
            break
        # It ran out of queries: nothing of it can be taken for a measurement.
        guess = 1.5 * max(guess, outcome.rate() or guess)
    bench.end(outcome)


class Bench:
    """The system under test, and the runs of LoadGen that it goes through."""

    def __init__(self, test: UnderTest, role: str) -> None:
        self.test = test
        self.scenario = Scenario.of(role, test.config, test.workload.samples())
        size = scenarios.batch_size(role, test.batch_size)
        self.sizes = sorted(scenarios.batch_sizes(role, size, test.workload.samples()))
        self.batch_size = size
        # Samples → the size of the batch that they are filled up to.
        self._fits = [next(one for one in self.sizes if one >= count) for count in range(size + 1)]
        self.library = Library(test.workload, size, lambda done, of: test.alive("samples in memory", done, of))
        self.responses = Responses(loadgen, test.workload)
        self.runs = 0
        self.last: dict[str, Any] = {}
        self.answered = 0
        self.began = self.due = 0.0
        self.seconds = {one: self._probe(one) for one in self.sizes}

    @property
    def capacity(self) -> float:
        """Samples a second that the model can execute, at best."""
        return max(size / seconds for size, seconds in self.seconds.items())

    def guess(self) -> float:
        """Queries a second, of Offline samples: more than can be expected."""
        return self.capacity * 1.25 if self.scenario.role == "offline" else 1 / self.seconds[self.batch_size]

    def _probe(self, size: int) -> float:
        """The shortest of several answers to a batch, in seconds; it is also the warm-up of that size."""
        indices, places = list(range(size)), np.arange(size)
        rows = self.test.workload.inputs(indices)
        took: list[float] = []
        until = time.perf_counter() + PROBE_SECONDS
        while len(took) < PROBES or (time.perf_counter() < until and len(took) < 1000):
            began = time.perf_counter()
            self._execute(tuple(array[places] for array in rows), size)
            # All that is done for a query but LoadGen's own part.
            self.responses.filled(indices)
            took.append(max(time.perf_counter() - began, 1e-7))
            self.test.alive(f"probing batches of {size}", len(took), PROBES)
        return min(took)

    def answer(self, ids: Sequence[int], indices: Sequence[int]) -> None:
        """Execute a batch, at most ``batch_size`` samples, and hand LoadGen the answers."""
        count = len(ids)
        size = self._fits[count]
        # What is left over is filled up with the first sample again, whose second answer nobody gets.
        wanted = indices if size == count else [*indices, *[indices[0]] * (size - count)]
        self.responses.complete(ids, indices, self._execute(self.library.inputs(wanted), size))
        self.answered += count
        if self.responses.error is not None:
            raise self.responses.error

    def _execute(self, inputs: Arrays, size: int) -> Arrays:
        compiled = self.test.compiled
        compiled.load(inputs)
        compiled.execute()
        outputs = compiled.outputs()
        for output in outputs:
            if len(output) != size:
                raise InvalidMeasurement(
                    f"the engine answered {len(output)} of the {size} samples of a batch while it was measured"
                )
        return outputs

    def alive(self, what: str = "") -> None:
        """A sign of life now and then; only after an answer, so that an engine that hangs is silent."""
        now = time.monotonic()
        if now >= self.due:
            self.due = now + ALIVE
            self.test.alive(what or f"{self.scenario.name} (s)", round(now - self.began), round(self.last["duration"]))

    def begin(self, **more: Any) -> None:
        """INFERENCE_BEGIN; where there are several, the last one counts."""
        scenario = self.scenario
        self.test.events.write(
            perflog.INFERENCE_BEGIN,
            {
                "scenario": scenario.name,
                "batch_size": self.batch_size,
                "repeat": 1,
                "samples_per_query": scenario.samples_per_query,
                "minimum_duration": scenario.duration,
                "minimum_queries": scenario.queries,
                "shortened": scenario.shortened(),
                "seeds": asdict(Seeds.of(self.test.seed, self.runs + 1)),
                **({"latency_bound": scenario.latency_bound} if scenario.latency_bound is not None else {}),
                **more,
            },
        )

    def end(self, outcome: Outcome, **more: Any) -> None:
        """INFERENCE_END with LoadGen's summary as it is, after the answers it logged were taken for a comparison.

        Raises ``InvalidMeasurement`` where LoadGen calls the run invalid, once that is written too.
        """
        if outcome.valid:
            self.test.seen.taken[:] = logged_answers(self._directory(), self.test.accuracy)
        self.test.events.write(
            perflog.INFERENCE_END,
            {
                "loadgen": {
                    "version": version("mlcommons-loadgen"),
                    "directory": str(self._directory().relative_to(self.test.directory)),
                    "summary": outcome.text,
                    "errors": list(outcome.errors),
                    "valid": outcome.valid,
                    "samples": self.answered,
                    "samples_in_memory": self.library.in_memory,
                    **self.last,
                    **more,
                }
            },
        )
        outcome.refuse()

    def _directory(self) -> Path:
        return self.test.directory / DIRECTORY / f"run{self.runs}"

    def run(self, system: Answering | Serving, duration: float, rate: float) -> Outcome:
        """One run of LoadGen at that rate, or that guess of one. Raises what the engine raised."""
        self._refuse_too_many(duration, rate)
        self.runs += 1
        directory = self._directory()
        directory.mkdir(parents=True)
        seeds = Seeds.of(self.test.seed, self.runs)
        self.last = {"schedule_seed": seeds.schedule, "duration": duration}
        self.answered, self.began = 0, time.monotonic()
        total = self.test.workload.samples()
        sut = loadgen.ConstructFastSUT(system.issue, system.flush)
        qsl = loadgen.ConstructQSL(total, self.scenario.performance_samples, system.load, lambda _: None)
        log = loadgen.LogSettings()
        log.log_output.outdir = str(directory)
        settings = self._settings(duration, rate, seeds)
        # LoadGen takes settings from an audit.config in the current directory, were there one.
        audit = str(directory / "audit.config")

        def start() -> None:
            loadgen.StartTestWithLogSettings(sut, qsl, settings, log, audit)
            loadgen.DestroyQSL(qsl)
            loadgen.DestroyFastSUT(sut)

        system.run(start)
        return loadgen_results.read(directory)

    def _refuse_too_many(self, duration: float, rate: float) -> None:
        """LoadGen makes all queries beforehand, twice as many as it expects of a stream.

        Raises ``ConfigurationError`` where they do not fit into half of the memory that is left.
        """
        scenario = self.scenario
        twice = 2 if scenario.role in ("single_stream", "multi_stream") else 1
        queries = 1 if scenario.role == "offline" else max(scenario.queries, twice * rate * duration)
        samples = max(scenario.queries, rate * duration) if scenario.role == "offline" else queries
        size = queries * QUERY_BYTES + samples * scenario.samples_per_query * SAMPLE_BYTES
        left = _memory_left()
        if left is not None and size > left / 2:
            raise ConfigurationError(
                f"for {duration:g} s of {scenario.name} at {rate:.4g}/s LoadGen makes {max(queries, samples):,.0f} "
                f"queries beforehand, about {size / 2**30:.1f} GiB; {left / 2**30:.1f} GiB are left, of which it may "
                "have half: set a shorter loadgen_duration"
            )

    def _settings(self, duration: float, rate: float, seeds: Seeds) -> Any:
        scenario, settings = self.scenario, loadgen.TestSettings()
        settings.scenario = getattr(loadgen.TestScenario, scenario.name)
        settings.mode = loadgen.TestMode.PerformanceOnly
        settings.min_duration_ms = round(duration * 1e3)
        settings.min_query_count = scenario.queries
        settings.qsl_rng_seed, settings.sample_index_rng_seed = seeds.library, seeds.samples
        settings.schedule_rng_seed, settings.accuracy_log_rng_seed = seeds.schedule, seeds.accuracy
        expected = max(scenario.queries, rate * duration) * scenario.samples_per_query
        settings.accuracy_log_probability = min(1.0, scenarios.LOGGED_ANSWERS / expected)
        if scenario.role == "server":
            bound = scenario.latency_bound or 0.0
            settings.server_target_qps = rate
            settings.server_target_latency_ns = round(bound * 1e6)
            settings.server_target_latency_percentile = scenario.percentile
            # Queries that are due while the thread is held up come in one call, each with its own arrival.
            settings.server_coalesce_queries = True
            # With so many waiting the bound was missed long ago: the run ends.
            settings.server_max_async_queries = round(max(4 * rate * bound / 1e3, 4 * self.batch_size, 100))
        elif scenario.role == "offline":
            settings.offline_expected_qps = rate
        else:
            settings.single_stream_expected_latency_ns = settings.multi_stream_expected_latency_ns = 1e9 / rate
            settings.single_stream_target_latency_percentile = scenario.percentile
            settings.multi_stream_target_latency_percentile = scenario.percentile
            settings.multi_stream_samples_per_query = scenario.samples_per_query
        return settings


def _memory_left() -> float | None:
    """Bytes, or ``None`` where the system does not tell."""
    try:
        found = re.search(r"^MemAvailable:\s*(\d+) kB", _MEMORY.read_text(), re.MULTILINE)
    except OSError:
        return None
    return int(found[1]) * 1024.0 if found else None
