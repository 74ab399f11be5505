"""The flow of an inference case: the same for every model, framework and engine.

load → validation by the framework's own eager execution in fp32, the reference → export → compile → warm-up → accuracy
of the engine → performance of the role → FINISHED. Every step writes events; the figures are computed from those.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import replace
from pathlib import Path
from typing import Any
from typing import Protocol

from pytest_flagperf import perflog
from pytest_flagperf.errors import ConfigurationError
from pytest_flagperf.errors import PrecisionUnavailable
from pytest_flagperf.perflog import EventWriter
from pytest_flagperf.worker import tf32
from pytest_flagperf.worker.inference import leftovers
from pytest_flagperf.worker.inference import memory
from pytest_flagperf.worker.inference import registry
from pytest_flagperf.worker.inference import scenarios
from pytest_flagperf.worker.inference.answers import Answers
from pytest_flagperf.worker.inference.answers import Seen
from pytest_flagperf.worker.inference.answers import difference
from pytest_flagperf.worker.inference.answers import refuse_unfit
from pytest_flagperf.worker.inference.engine import Compiled
from pytest_flagperf.worker.inference.engine import CompileOptions
from pytest_flagperf.worker.inference.engine import Engine
from pytest_flagperf.worker.inference.engines.files import size_of
from pytest_flagperf.worker.inference.plan import Plan
from pytest_flagperf.worker.inference.workload import InferenceWorkload


# A sign of life at most so often, in seconds.
LOG_INTERVAL = 1.0
REFERENCE = "eager"


class Runtime(Protocol):
    """A framework on this rank's device, as the flow needs it."""

    device: Any
    threads: int

    def count(self, model: Any) -> int:
        """Trainable parameters of a model."""

    def state(self) -> dict[str, Any]:
        """``device_name``, and ``tf32`` where the device has that mode."""

    def teardown(self) -> None:
        """What is to be done once the outcome is on disk."""


@dataclass(frozen=True)
class UnderTest:
    """What a role measures: the very object whose accuracy was found. It writes INFERENCE_BEGIN and INFERENCE_END.

    ``seen.add(indices, outputs)`` is to be called with every batch that is answered; ``alive`` as often as one likes.
    ``accuracy`` has the answers of the accuracy run. Files of a role's own go into ``directory``.
    """

    workload: InferenceWorkload
    compiled: Compiled
    events: EventWriter
    config: Mapping[str, Any]
    batch_size: int
    seed: int
    directory: Path
    accuracy: Answers
    seen: Seen
    alive: Callable[[str, int, int], None]

    @property
    def repeat(self) -> int:
        """Passes over the dataset that are measured."""
        return max(1, int(self.config.get("repeat", 1)))


Role = Callable[[UnderTest], None]


class Flow:
    """One run of one workload by one engine."""

    def __init__(self, runtime: Runtime, events: EventWriter, plan: Plan, directory: Path) -> None:
        self.runtime, self.events, self.plan, self.directory = runtime, events, plan, directory
        self.model: Any = None
        self.engine = usable(plan.framework, plan.engine, plan.precision, plan.role)

    def run(self, build: Callable[[], InferenceWorkload], role: Role, versions: Mapping[str, str]) -> None:
        """Everything, in order. ``build`` makes the workload."""
        self._load(build, versions)
        try:
            found = self._measured(role)
        except BaseException:
            leftovers.keep_small(self.directory / leftovers.ENGINE_DIRECTORY)
            raise
        leftovers.remove(self.directory / leftovers.ENGINE_DIRECTORY)
        self.events.write(perflog.FINISHED, found)

    def _measured(self, role: Role) -> dict[str, Any]:
        """What FINISHED is to say."""
        reference = self._validate()
        compiled = self._compile()
        # Also where an answer is refused: an engine may have processes of its own, which would outlive this one.
        try:
            # The engine alone is to be in memory from here on, unless it runs the model itself.
            self.model = None
            self._warm_up(compiled)
            answers = self._accuracy(compiled, reference)
            del reference
            test = UnderTest(
                workload=self.workload,
                compiled=compiled,
                events=self.events,
                config=self.plan.config,
                batch_size=self.plan.batch_size,
                seed=self.plan.seed,
                directory=self.directory,
                accuracy=answers,
                seen=self._seen(answers),
                alive=self.alive,
            )
            self.resident.restart()
            self.resident.exclude(answers.held)
            role(test)
            # An engine does the same batch after batch: at its peak, all of these were there. Tokens are few.
            self.resident.exclude(test.seen.held if isinstance(test.seen, Seen) else 0)
            # Before the comparison, which takes memory of its own.
            found = self._memory(compiled)
            found = {**test.seen.compare(answers, self.plan.precision), **found}
            self._refuse_tf32()
        finally:
            compiled.release()
        return found

    def alive(self, what: str, done: int, total: int) -> None:
        """A PROGRESS event, at most one a ``LOG_INTERVAL``: a silent rank counts as stalled."""
        if time.monotonic() - self.events.last_written >= LOG_INTERVAL:
            self.events.write(perflog.PROGRESS, {"what": what, "done": done, "total": total})

    def _load(self, build: Callable[[], InferenceWorkload], versions: Mapping[str, str]) -> None:
        self.events.write(perflog.LOAD_BEGIN)
        self.workload = build()
        samples = self.workload.samples()
        if samples < 1:
            raise ConfigurationError("the evaluation split has no sample")
        if self.plan.batch_size > samples:
            raise ConfigurationError(f"batch_size is {self.plan.batch_size}, the evaluation split has {samples}")
        # The data that a workload reads at the first batch is none of the model's memory.
        self.workload.inputs(range(min(samples, self.plan.batch_size)))
        self.resident = memory.Resident()
        self.model = self.workload.model()
        count = self.runtime.count(self.model)
        if self.plan.parameters is not None and count != self.plan.parameters:
            raise ConfigurationError(
                f"the model has {count:,} trainable parameters, the standard case has {self.plan.parameters:,}"
            )
        self.events.write(perflog.LOAD_END, {"samples": samples, "random_weights": self.plan.random_weights})
        self.events.write(perflog.INIT_END, {"parameters": count, "versions": {**versions, **self.engine.versions()}})

    def _validate(self) -> Answers:
        """The reference's answers."""
        options = replace(self._options(), precision="fp32", directory=self.directory / "reference")
        compiled = registry.load(self.plan.framework, REFERENCE, self.plan.role).compile(
            self.model, self.workload, options
        )
        try:
            for size in options.batch_sizes:
                compiled.run(self.workload.inputs(range(size)))
            self.events.write(perflog.VALIDATION_BEGIN, {"engine": REFERENCE, "precision": "fp32"})
            passed = self._pass(compiled, "validation")
            self.events.write(perflog.VALIDATION_END, {**passed.counted(), "quality": self._quality(passed.answers)})
            self._ask_more(compiled)
        finally:
            compiled.release()
        return passed.answers

    def _ask_more(self, reference: Compiled) -> None:
        """What the reference is to answer beside the evaluation set; nobody times it."""

    def _compile(self) -> Compiled:
        """Export and compile, each in its events. Their silence beyond ``compile_timeout`` is a stall."""
        options = self._options()
        options.directory.mkdir(parents=True, exist_ok=True)
        self.events.write(perflog.EXPORT_BEGIN, {"engine": self.plan.engine})
        with self._within_limit("exporting"), self.resident.excluded():
            exported = self.engine.export(self.model, self.workload, options)
        size = {"bytes": size_of(exported)} if exported is not None else {}
        self.events.write(perflog.EXPORT_END, {"path": str(exported) if exported else None, **size})
        self.events.write(perflog.COMPILE_BEGIN, {"engine": self.plan.engine})
        with self._within_limit("compiling"):
            compiled = self.engine.compile(self.model, self.workload, replace(options, exported=exported))
        self.events.write(perflog.COMPILE_END, {"size_bytes": compiled.size_bytes})
        return compiled

    def _warm_up(self, compiled: Compiled) -> None:
        sizes = self._options().batch_sizes
        for done in range(self.plan.warmup_batches):
            for size in sizes:
                refuse_unfit(compiled.run(self.workload.inputs(range(size))), size, self._named)
            self.alive("warm-up", done, self.plan.warmup_batches)
        # What an engine puts in force may show only once it has run.
        in_force = {"asked": self.plan.precision, "engine": self.plan.engine, **compiled.precision()}
        self.events.write(perflog.PRECISION, {**in_force, **self.runtime.state()})
        self._refuse_tf32()
        self.events.write(perflog.WARMUP_END)

    def _accuracy(self, compiled: Compiled, reference: Answers) -> Answers:
        self.events.write(perflog.ACCURACY_BEGIN, {"engine": self.plan.engine, "precision": self.plan.precision})
        passed = self._pass(compiled, "accuracy")
        self.events.write(
            perflog.ACCURACY_END,
            {
                **passed.counted(),
                "quality": self._quality(passed.answers),
                **self._compared(reference, passed.answers),
            },
        )
        return passed.answers

    def _compared(self, reference: Answers, answers: Answers) -> dict[str, Any]:
        """How far the engine's answers are from the reference's."""
        apart = difference(reference, answers)
        found: dict[str, Any] = {"output_error": apart.relative, "output_error_absolute": apart.absolute}
        return found if answers.kept is None else {**found, "outputs_compared": len(answers.kept)}

    def _seen(self, answers: Answers) -> Any:
        """What looks at answers while the engine is measured."""
        return Seen(self.workload, self.plan.seed, answers.kept)

    def _pass(self, compiled: Compiled, what: str) -> _Pass:
        """Once over the whole evaluation set, in order."""
        workload, size = self.workload, self.plan.batch_size
        count = workload.samples()
        passed = _Pass(Answers(workload, size))
        began = time.perf_counter()
        for start in range(0, count, size):
            indices = range(start, min(start + size, count))
            compiled.load(workload.inputs(indices))
            loaded = time.perf_counter()
            compiled.execute()
            passed.core_time += time.perf_counter() - loaded
            outputs = compiled.outputs()
            refuse_unfit(outputs, len(indices), self._named if what == "accuracy" else "the framework's own execution")
            passed.samples += len(indices)
            passed.units += workload.unit_count(outputs)
            passed.answers.add(outputs)
            self.alive(what, passed.samples, count)
        passed.whole_time = time.perf_counter() - began - passed.answers.judging_time
        return passed

    def _quality(self, answers: Answers) -> dict[str, float]:
        return dict(self.workload.quality(answers.batches)) if self.plan.has_quality else {}

    def _options(self) -> CompileOptions:
        size = self.plan.batch_size
        count = self.plan.calibration_samples
        return CompileOptions(
            precision=self.plan.precision,
            batch_sizes=scenarios.batch_sizes(self.plan.role, size, self.workload.samples()),
            dynamic=self.plan.dynamic,
            directory=self.directory / leftovers.ENGINE_DIRECTORY,
            device=self.runtime.device,
            threads=self.runtime.threads,
            calibration=lambda: self.workload.calibration(count),
            settings=self.plan.config,
        )

    @contextlib.contextmanager
    def _within_limit(self, what: str) -> Iterator[None]:
        """Signs of life from a thread, for as long as a compiler may take and no longer.

        The supervisor ends a rank that has been silent for ``stall_timeout``: the signs end that long before the limit.
        """
        done = threading.Event()
        began = time.monotonic()
        until = began + max(0.0, self.plan.compile_timeout - self.plan.stall_timeout)
        limit = round(self.plan.compile_timeout)

        def beat() -> None:
            while not done.wait(LOG_INTERVAL) and time.monotonic() < until:
                self.alive(f"{what} with {self.plan.engine} (s)", round(time.monotonic() - began), limit)

        thread = threading.Thread(target=beat, name="flagperf-compile", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def _memory(self, compiled: Compiled) -> dict[str, Any]:
        found: dict[str, Any] = dict(compiled.memory())
        if "memory_peak" not in found and str(getattr(self.runtime.device, "type", self.runtime.device)) in _HOSTS:
            found = {"memory_peak": self.resident.peak(), "memory_since": self.resident.since, **found}
            found.setdefault("memory_total", memory.total())
        return found

    def _refuse_tf32(self) -> None:
        tf32.refuse_other(self.runtime.state(), self.plan.precision)

    @property
    def _named(self) -> str:
        return f"engine {self.plan.engine}"


# What frameworks call the host's processor.
_HOSTS = ("cpu", "CPU", "Place(cpu)")


@dataclass
class _Pass:
    answers: Answers
    samples: int = 0
    units: int = 0
    core_time: float = 0.0
    whole_time: float = 0.0

    def counted(self) -> dict[str, Any]:
        return {
            "samples": self.samples,
            "units": self.units,
            "core_time": self.core_time,
            "whole_time": self.whole_time,
        }


def usable(framework: str, name: str, precision: str, role: str = "") -> Engine:
    """The engine, known to be usable here in that precision.

    Raises ``ConfigurationError`` for one that is unknown or not installed, ``PrecisionUnavailable``.
    """
    engine = registry.load(framework, name, role)
    missing = engine.available()
    if missing:
        raise ConfigurationError(missing)
    if precision not in engine.precisions:
        raise PrecisionUnavailable(f"engine {name} has no {precision}; it has {', '.join(engine.precisions)}")
    return engine
