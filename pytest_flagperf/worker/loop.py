"""The training loop: the same for every model and framework.

It owns the clock, the evaluation cadence, the stop at the target, the event log and the checks that every run has
to pass. What differs between frameworks is behind :class:`Backend`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any
from typing import Protocol

from pytest_flagperf import bounds
from pytest_flagperf import perflog
from pytest_flagperf.errors import ConfigurationError
from pytest_flagperf.errors import NonFiniteLoss
from pytest_flagperf.errors import ParametersDiverged
from pytest_flagperf.perflog import EventWriter
from pytest_flagperf.worker import tf32
from pytest_flagperf.worker.workload import Config
from pytest_flagperf.worker.workload import Workload


# Reading a loss waits for the device, so it is read once a second and not once a step.
LOG_INTERVAL = 1.0


class Backend(Protocol):
    """A framework, as the loop needs it. One optimizer step is one call of :meth:`train_step`."""

    rank: int
    world_size: int
    core_time: float

    def prepare(self, workload: Any) -> None:
        """Build model and optimizer, put the precision in force, wrap the model for data-parallel training."""

    def parameters(self) -> int:
        """Trainable parameters of the model."""

    def to_device(self, batch: Any) -> Any:
        """The batch on this rank's device."""

    def train_step(self, batches: Sequence[Any]) -> None:
        """One optimizer step over micro-batches that are on the device; may return before the device is done."""

    def losses(self) -> list[float]:
        """Losses of the steps since the last call, read from the device; brings ``core_time`` (seconds) up to date."""

    def evaluate(self, workload: Any) -> dict[str, float]:
        """Quality of the model over the whole evaluation split and all ranks."""

    def sum(self, values: Sequence[float]) -> list[float]:
        """Element-wise sum over the ranks."""

    def synchronize(self) -> None:
        """Wait until the device has done all its work."""

    def digests(self) -> list[str]:
        """A digest of the trainable parameters of each rank, in rank order."""

    def memory(self) -> dict[str, float]:
        """``memory_peak`` and, where known, ``memory_total``, in GiB."""

    def precision(self) -> dict[str, Any]:
        """What is really in force, read back: ``asked``, ``tf32`` (``None`` where there is no such mode), types …"""


@dataclass(frozen=True)
class Plan:
    """What a run does, from the case's configuration."""

    role: str
    epochs: int
    evaluation_interval: float
    accumulation: int
    warmup_steps: int
    measured_steps: int
    targets: tuple[tuple[str, float, str], ...]
    parameters: int | None

    @classmethod
    def of(cls, case: Mapping[str, Any]) -> Plan:
        """The plan in a ``case.json``."""
        config = case["config"]
        return cls(
            role=case["role"],
            epochs=int(config["epochs"]),
            evaluation_interval=float(config.get("evaluation_interval", 1)),
            accumulation=int(config.get("gradient_accumulation_steps", 1)),
            warmup_steps=int(config.get("warmup_steps", 10)),
            measured_steps=int(config.get("measured_steps", 50)),
            targets=tuple((t["metric"], t["bound"], t["direction"]) for t in case["targets"]),
            parameters=case.get("parameters"),
        )

    def met(self, quality: Mapping[str, float]) -> bool:
        """Whether every target holds; a case without targets is never done early."""
        return bool(self.targets) and all(
            bounds.holds(quality.get(metric), bound, direction) for metric, bound, direction in self.targets
        )


def rank_batch_size(config: Config | Mapping[str, Any], world_size: int) -> int:
    """Samples of one micro-batch on one rank: ``batch_size``, or the rank's part of ``global_batch_size``."""
    if "global_batch_size" not in config:
        return int(config["batch_size"])
    parts = world_size * int(config.get("gradient_accumulation_steps", 1))
    size, rest = divmod(int(config["global_batch_size"]), parts)
    if rest or size < 1:
        raise ConfigurationError(
            f"global_batch_size {config['global_batch_size']} cannot be split into {parts} equal micro-batches "
            f"({world_size} ranks x {parts // world_size} accumulation steps)"
        )
    return size


def leading(batch: Any) -> int | None:
    """Samples of a batch: the first dimension of its first array; ``None`` where that cannot be seen."""
    while isinstance(batch, (tuple, list, dict)):
        if not batch:
            return None
        batch = next(iter(batch.values())) if isinstance(batch, dict) else batch[0]
    shape = getattr(batch, "shape", None)
    return int(shape[0]) if shape else None


class Training:
    """One run of one workload on one rank."""

    def __init__(
        self,
        backend: Backend,
        workload: Workload,
        events: EventWriter,
        plan: Plan,
        versions: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.backend, self.workload, self.events, self.plan = backend, workload, events, plan
        self.versions = dict(versions)
        samples_a_step = workload.global_batch_size
        self.steps_per_epoch = workload.samples("train") // samples_a_step
        if self.steps_per_epoch < 1:
            raise ConfigurationError(
                f"the training split has {workload.samples('train')} samples, fewer than one global batch of "
                f"{samples_a_step}"
            )
        self.step = 0
        self._epochs = 0
        self.rank_samples = 0
        self.quality: dict[str, float] = {}
        self._logged_step = 0
        self._logged_samples = 0
        self._logged_time = time.monotonic()
        self._core_start = 0.0
        workload.total_steps = self.steps_per_epoch * plan.epochs

    def prepare(self) -> None:
        """Everything before the clock: model, optimizer, distribution; no training data is touched."""
        self.backend.prepare(self.workload)
        count = self.backend.parameters()
        if self.plan.parameters is not None and count != self.plan.parameters:
            raise ConfigurationError(
                f"the model has {count:,} trainable parameters, the standard case has {self.plan.parameters:,}"
            )
        self.events.write(perflog.PRECISION, self._precision())
        value = {"parameters": count, "steps_per_epoch": self.steps_per_epoch, "versions": self.versions}
        self.events.write(perflog.INIT_END, value)

    def converge(self) -> None:
        """Train until every target holds at an evaluation, or ``epochs`` are done. Writes TRAIN_START to TRAIN_END."""
        every = max(1, round(self.plan.evaluation_interval * self.steps_per_epoch))
        last = self.steps_per_epoch * self.plan.epochs
        self._start(last)
        met = False
        while self.step < last and not met:
            for batches in self._epoch():
                self._train(batches)
                if self.step % every == 0 or self.step == last:
                    met = self._evaluate()
                    if met:
                        break
            self.events.write(perflog.EPOCH_END, {"epoch": self.workload.epoch})
        self._end()

    def measure(self) -> None:
        """Run ``measured_steps`` after ``warmup_steps``; TRAIN_START is written when the warm-up is done."""
        batches = self._endless()
        self._logged_time = time.monotonic()
        for _ in range(self.plan.warmup_steps):
            self._train(next(batches))
            self._alive("warm-up", self.step, self.plan.warmup_steps)
        self._check_losses()
        self.backend.synchronize()
        self.backend.sum([0.0])
        self.step, self.rank_samples, self._logged_step, self._logged_samples = 0, 0, 0, 0
        self._start(self.plan.measured_steps)
        while self.step < self.plan.measured_steps:
            self._train(next(batches))
        self.backend.synchronize()
        self._end()

    def finish(self) -> None:
        """What every run has to hold at its end, then FINISHED."""
        self._precision()
        digests = self.backend.digests()
        if len(set(digests)) > 1:
            listed = ", ".join(f"rank {rank}: {digest[:12]}" for rank, digest in enumerate(digests))
            raise ParametersDiverged(f"the ranks ended with different parameters ({listed})")
        value: dict[str, Any] = {
            "converged": self.plan.role == "convergence" and self.plan.met(self.quality),
            "parameters_digest": digests[self.backend.rank],
            **self.backend.memory(),
            **{f"final_{name}": value for name, value in self.quality.items()},
        }
        self.events.write(perflog.FINISHED, value)

    def _precision(self) -> dict[str, Any]:
        """What is in force. Raises ``PrecisionUnavailable`` where TF32 is on unasked, or off though asked for."""
        state = self.backend.precision()
        tf32.refuse_other(state, state["asked"])
        return state

    def _alive(self, what: str, done: int, total: int) -> None:
        """A PROGRESS event, at most one a ``LOG_INTERVAL``: a silent rank counts as stalled."""
        if time.monotonic() - self.events.last_written >= LOG_INTERVAL:
            self.events.write(perflog.PROGRESS, {"what": what, "done": done, "total": total})

    def _start(self, total_steps: int) -> None:
        self._core_start = self.backend.core_time
        self.events.write(
            perflog.TRAIN_START, {"total_steps": total_steps, "global_batch_size": self.workload.global_batch_size}
        )
        self._logged_time = time.monotonic()

    def _end(self) -> None:
        self._log()
        samples = self.backend.sum([float(self.rank_samples)])[0]
        self.events.write(
            perflog.TRAIN_END,
            {
                "global_steps": self.step,
                "num_trained_samples": int(samples),
                "rank_samples": self.rank_samples,
                "core_time": self.backend.core_time - self._core_start,
            },
        )

    def _epoch(self) -> Iterator[list[Any]]:
        """The micro-batches of each optimizer step of the next epoch."""
        self._epochs += 1
        self.workload.epoch = self._epochs
        self.events.write(perflog.EPOCH_BEGIN, {"epoch": self.workload.epoch})
        batches = iter(self.workload.batches("train"))
        for done in range(self.steps_per_epoch):
            fetched = []
            for _ in range(self.plan.accumulation):
                try:
                    batch = next(batches)
                except StopIteration:
                    raise ConfigurationError(
                        f"the workload's epoch ended after {done} steps of {self.steps_per_epoch}: samples('train') "
                        "and batches('train') disagree"
                    ) from None
                if leading(batch) not in (None, self.workload.batch_size):
                    raise ConfigurationError(
                        f"a training batch has {leading(batch)} samples, not {self.workload.batch_size}: what is "
                        "counted as trained would not be"
                    )
                fetched.append(self.backend.to_device(batch))
            # The last step's batches live until the next are there: memory given back in between is paid for again.
            group = fetched
            yield group

    def _endless(self) -> Iterator[list[Any]]:
        """Epoch after epoch, for measurements that are longer than one."""
        while True:
            yield from self._epoch()

    def _train(self, batches: list[Any]) -> None:
        self.backend.train_step(batches)
        self.step += 1
        self.rank_samples += self.workload.batch_size * len(batches)
        if time.monotonic() - self._logged_time >= LOG_INTERVAL:
            self._log()

    def _check_losses(self) -> float | None:
        """The last loss since the last check. Raises ``NonFiniteLoss`` with the step it first went wrong at."""
        losses = self.backend.losses()
        for index, loss in enumerate(losses):
            if not math.isfinite(loss):
                raise NonFiniteLoss(f"the training loss is {loss} at step {self._logged_step + index + 1}")
        return losses[-1] if losses else None

    def _log(self) -> None:
        loss = self._check_losses()
        now = time.monotonic()
        if loss is None:
            return
        samples = self.rank_samples * self.backend.world_size
        self.events.write(
            perflog.STEP_END,
            {
                "loss": loss,
                "epoch": self.workload.epoch,
                "global_steps": self.step,
                "num_trained_samples": samples,
                "samples_per_second": (samples - self._logged_samples) / max(now - self._logged_time, 1e-9),
            },
        )
        self._logged_step, self._logged_samples, self._logged_time = self.step, samples, now

    def _evaluate(self) -> bool:
        self._log()
        self.backend.synchronize()
        self.events.write(perflog.EVALUATE_BEGIN, {"global_steps": self.step})
        self.quality = self.backend.evaluate(self.workload)
        for name, value in self.quality.items():
            if not math.isfinite(value):
                raise NonFiniteLoss(f"the evaluation after step {self.step} gave {name} = {value}")
        epoch = self.step / self.steps_per_epoch
        self.events.write(perflog.EVALUATE, {**self.quality, "epoch": epoch, "global_steps": self.step})
        self._logged_time = time.monotonic()
        return self.plan.met(self.quality)
