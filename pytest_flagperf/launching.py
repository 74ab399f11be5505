"""From a case to its Result: lease devices, run the rounds, read their events, judge, record.

This is where the rooms meet; what each does it does itself.
"""

from __future__ import annotations

import json
import os
import shlex
import socket
import time
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pytest_flagperf import datasets
from pytest_flagperf import metrics
from pytest_flagperf import perflog
from pytest_flagperf import result as results
from pytest_flagperf import verdict
from pytest_flagperf.case import ResolvedCase
from pytest_flagperf.case import Target
from pytest_flagperf.datasets import FoundDataset
from pytest_flagperf.devices import lease as leases
from pytest_flagperf.devices.vendor import Vendor
from pytest_flagperf.errors import ConfigurationError
from pytest_flagperf.errors import DeviceUnavailable
from pytest_flagperf.errors import FlagPerfError
from pytest_flagperf.errors import InvalidMeasurement
from pytest_flagperf.errors import LaunchFailed
from pytest_flagperf.errors import TargetMissed
from pytest_flagperf.launch import engines
from pytest_flagperf.launch.diagnosis import failure
from pytest_flagperf.launch.job import JobSpec
from pytest_flagperf.launch.job import run_job
from pytest_flagperf.perflog import Event
from pytest_flagperf.reports.progress import Progress
from pytest_flagperf.session import Session


SYNTHETIC = "synthetic"
SHOWN_EVALUATIONS = 5


@dataclass(frozen=True)
class Devices:
    """What the ``devices`` fixture gives: which devices a case may use. They are leased only while it runs."""

    vendor: str
    available: tuple[int, ...]
    wanted: int


@dataclass(frozen=True)
class Data:
    """What the ``dataset`` fixture gives: where the case's dataset is, or that it is synthetic."""

    name: str
    found: FoundDataset | None

    @property
    def synthetic(self) -> bool:
        """Whether the workload makes its batches itself."""
        return self.found is None


@dataclass(frozen=True)
class Measured:
    """What one round gave: metrics, evaluations, and what precision was in force."""

    figures: Mapping[str, float]
    evaluations: Sequence[metrics.Evaluation] = ()
    precision: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    chip: str | None = None


@dataclass(frozen=True)
class Run:
    """A case that ran to its end: what the test asserts on."""

    case: ResolvedCase
    result: results.Result
    directory: Path

    @property
    def metrics(self) -> dict[str, float]:
        """Name → value, in the registry's units."""
        return {name: metric.value for name, metric in self.result.metrics.items()}

    def meets(self, targets: Sequence[Target]) -> bool:
        """True where every target holds in every round; else raises ``TargetMissed`` that says by how much."""
        __tracebackhide__ = True
        judged = _judge_rounds(targets, [_figures(one) for one in self.result.rounds])
        if verdict.of_targets(judged) == verdict.PASSED:
            return True
        raise TargetMissed(self._missed_message(judged))

    def measured(self, *names: str) -> bool:
        """True where each metric was measured; else raises ``InvalidMeasurement`` that names those missing."""
        __tracebackhide__ = True
        missing = [name for name in names if metrics.get(name).name not in self.result.metrics]
        if missing:
            raise InvalidMeasurement(f"{self.case.label}: not measured: {', '.join(missing)}\n{self._where()}")
        return True

    def _missed_message(self, judged: Sequence[verdict.Judged]) -> str:
        lines = [f"{self.case.label} missed its target", *(f"  {one}" for one in judged)]
        for one in self.result.rounds:
            lines.append(f"last evaluations{f' of round {one.round}' if len(self.result.rounds) > 1 else ''}:")
            for evaluation in one.evaluations[-SHOWN_EVALUATIONS:]:
                quality = "  ".join(f"{name} {value:.4f}" for name, value in evaluation.quality.items())
                lines.append(
                    f"  epoch {evaluation.epoch:6.2f}  step {evaluation.step:6d}  {evaluation.seconds:8.1f} s  {quality}"
                )
        return "\n".join([*lines, self._where()])

    def _where(self) -> str:
        log = next(iter(sorted(Path(self.result.rounds[-1].directory).glob("*/rank0*.log"))), None)
        return "\n".join(
            [
                *([f"log:    {log}"] if log else []),
                f"result: {self.directory / 'result.json'}",
                f"rerun:  {shlex.join(self.result.rerun)}",
            ]
        )


def _figures(one: results.RoundResult) -> dict[str, float]:
    return {name: metric.value for name, metric in one.metrics.items()}


def _judge_rounds(targets: Sequence[Target], rounds: Sequence[Mapping[str, float]]) -> tuple[verdict.Judged, ...]:
    """Each target beside its worst round: a target is met where it is met in every round."""
    judged = []
    for target in targets:
        values = [figures.get(target.metric) for figures in rounds]
        present = [value for value in values if value is not None]
        worst = (min if target.direction == "at least" else max)(present) if present else None
        judged.append(verdict.Judged(target, worst if len(present) == len(values) else None))
    return tuple(judged)


class Launcher:
    """What the ``launcher`` fixture gives."""

    def __init__(self, session: Session, item: pytest.Item, progress: Progress) -> None:
        self.session = session
        self.item = item
        self.progress = progress

    def run(self, case: ResolvedCase, devices: Devices, dataset: Data) -> Run:
        """Run all rounds of ``case`` and give what was measured.

        Raises a ``FlagPerfError`` where the measurement could not be made or trusted. Either way a ``result.json`` is
        written and handed to the reports first.
        """
        __tracebackhide__ = True
        case = replace(case, node_id=self.item.nodeid)
        rounds: list[results.RoundResult] = []
        notes: list[str] = []
        chip: list[str] = []
        leased: list[int] = []
        try:
            directory = self.session.case_directory(case.id)
        except OSError as error:
            raise LaunchFailed(f"{case.label}: no results can be written to {self.session.directory}: {error}") from error
        failed: FlagPerfError | None = None
        try:
            with leases.leased(
                devices.vendor,
                devices.available,
                devices.wanted,
                owner=case.label,
                waiting=lambda who: self.progress.line(case.label, f"waiting for {devices.vendor} ({who})"),
            ) as lease:
                leased += lease.devices
                for number in range(1, self.session.options.rounds + 1):
                    one = _Round(self.session, case, directory, number, lease, dataset, self.progress)
                    measured = one.run(rounds)
                    notes += [note for note in measured.notes if note not in notes]
                    if measured.chip:
                        chip.append(measured.chip)
        except FlagPerfError as error:
            failed = error
        except OSError as error:
            failed = LaunchFailed(f"the run directory {directory} cannot be written: {error}")
            failed.__cause__ = error
        return self._record(case, directory, rounds, dataset, leased, notes, chip, failed)

    def _record(
        self,
        case: ResolvedCase,
        directory: Path,
        rounds: list[results.RoundResult],
        dataset: Data,
        leased: Sequence[int],
        notes: Sequence[str],
        chip: Sequence[str],
        failed: FlagPerfError | None,
    ) -> Run:
        __tracebackhide__ = True
        figures = metrics.summarize([_figures(one) for one in rounds if one.error is None])
        judged = _judge_rounds(case.targets, [_figures(one) for one in rounds]) if case.role == "convergence" else ()
        outcome = verdict.INVALID if failed is not None else verdict.of_targets(judged)
        rerun = self.session.rerun(self.item)
        result = build_result(
            case,
            outcome,
            {} if failed is not None else figures,
            judged,
            rounds,
            dataset,
            leased,
            notes=notes,
            chip=chip[0] if chip else None,
            rerun=rerun,
            error=failed,
        )
        publish(self.session, self.item, result, directory)
        if failed is not None:
            # The message is completed here, where the case, its files and the way to run it again are known.
            failed.args = (
                f"{case.label}: {failed}\nresult: {directory / 'result.json'}\nrerun:  {shlex.join(rerun)}",
            )
            raise failed
        return Run(case, result, directory)


def build_result(
    case: ResolvedCase,
    outcome: str,
    figures: Mapping[str, float],
    judged: Sequence[verdict.Judged],
    rounds: Sequence[results.RoundResult],
    dataset: Data,
    leased: Sequence[int],
    *,
    rerun: Sequence[str],
    notes: Sequence[str] = (),
    chip: str | None = None,
    error: FlagPerfError | None = None,
) -> results.Result:
    """The Result of a case from its parts."""
    chosen = case.selection
    return results.Result(
        case=results.CaseInfo(
            id=case.id,
            node_id=case.node_id,
            model=case.model,
            kind=case.case.kind,
            role=case.role,
            framework=chosen.framework,
            precision=chosen.precision,
            topology=str(chosen.topology),
            scale=chosen.scale,
            vendor=case.vendor,
            devices=list(leased),
            unit=case.case.unit,
            chip=chip,
        ),
        verdict=outcome,
        metrics=results.with_units(figures),
        targets=[
            results.TargetResult(
                j.target.metric, j.target.bound, j.target.direction, j.target.source, j.value, j.met
            )
            for j in judged
        ],
        rounds=list(rounds),
        configuration={k: results.SettingResult(s.value, s.origin) for k, s in sorted(case.settings.items())},
        dataset=results.DatasetInfo(
            name=dataset.name,
            synthetic=dataset.synthetic,
            checksum=dataset.found.checksum if dataset.found else "",
            splits=dict(dataset.found.splits) if dataset.found else {},
        ),
        rerun=list(rerun),
        deviations=list(case.deviations),
        notes=list(notes),
        error=error and results.ErrorResult(type(error).__name__, str(error)),
    )


def publish(session: Session, item: pytest.Item, result: results.Result, directory: Path) -> None:
    """Write ``result.json`` and hand the Result to every report."""
    try:
        results.write_result(directory, result)
    except OSError as error:
        raise LaunchFailed(f"{directory / 'result.json'} cannot be written: {error}") from error
    session.config.hook.pytest_flagperf_result(config=session.config, item=item, result=result, directory=directory)


class _Round:
    """One execution of a case, in a directory of its own."""

    def __init__(
        self,
        session: Session,
        case: ResolvedCase,
        directory: Path,
        number: int,
        lease: leases.Lease,
        dataset: Data,
        progress: Progress,
    ) -> None:
        self.session, self.case, self.number = session, case, number
        self.lease, self.dataset, self.progress = lease, dataset, progress
        self.directory = directory / f"round{number}"
        self.host_dir = self.directory / socket.gethostname()
        self.seed = int(case.config.get("seed", 1)) + number - 1
        self.started = time.time()

    def run(self, rounds: list[results.RoundResult]) -> Measured:
        """Run, and append what came of it to ``rounds``, whatever it is; the ledger has a line before and after."""
        __tracebackhide__ = True
        self.host_dir.mkdir(parents=True)
        identity = {"case": self.case.id, "round": self.number, "seed": self.seed, "directory": str(self.directory)}
        self.session.ledger("round_start", **identity, devices=self.lease.devices)
        outcome, error = "interrupted", ""
        try:
            measured = self._measure()
            outcome = "finished"
        except FlagPerfError as failed:
            outcome, error = type(failed).__name__, str(failed)
            rounds.append(self._result(Measured({}), failed))
            raise
        finally:
            self.session.ledger("round_end", **identity, outcome=outcome, **({"error": error} if error else {}))
        rounds.append(self._result(measured, None))
        return measured

    def _measure(self) -> Measured:
        __tracebackhide__ = True
        case_file = self.directory / "case.json"
        results.write_json(case_file, self._case_document())
        topology = self.case.selection.topology
        watch = self.progress.watch(self.case, self.host_dir, self.number, self.session.options.rounds)
        outcome = run_job(
            JobSpec(
                engine=engines.engine_for(self.case.selection.framework, topology.world_size),
                python=self.session.python(self.case.selection.framework),
                case_file=case_file,
                host_dir=self.host_dir,
                nproc=topology.devices,
                env=self._environment(),
                timeout=self.session.options.timeout,
                stall_timeout=self.session.options.stall_timeout,
                lease_fds=self.lease.files,
            ),
            on_poll=_and_alive(watch),
        )
        failed = failure(outcome, self.host_dir)
        if failed is not None:
            raise failed
        ranks = [perflog.read_events(self.host_dir / f"rank{r}.events.jsonl") for r in range(topology.world_size)]
        times = metrics.JobTimes(outcome.started, outcome.ended, outcome.time_started, outcome.time_ended)
        return measure(self.session, self.case, ranks, times)

    def _case_document(self) -> dict[str, Any]:
        case, vendor = self.case, self.session.vendor
        support = vendor.frameworks[case.selection.framework]
        return {
            "schema_version": results.SCHEMA_VERSION,
            "id": case.id,
            "model": case.model,
            "role": case.role,
            "framework": case.selection.framework,
            "precision": case.selection.precision,
            "topology": str(case.selection.topology),
            "scale": case.selection.scale,
            "vendor": vendor.name,
            "seed": self.seed,
            "directory": str(case.directory),
            "workload": case.workload,
            "config": case.config,
            "origins": {key: setting.origin for key, setting in case.settings.items()},
            "deviations": list(case.deviations),
            "parameters": case.scale.parameters,
            "targets": [
                {"metric": t.metric, "bound": t.bound, "direction": t.direction, "source": t.source}
                for t in case.targets
            ],
            "device": {
                "device": support.device,
                "backend": support.backend,
                "module": support.module,
                "amp_dtype": support.amp_dtype,
                "tf32_switches": support.tf32_switches,
                "indices": list(self.lease.devices),
            },
            "dataset": {
                "name": self.dataset.name,
                "synthetic": self.dataset.synthetic,
                "path": str(self.dataset.found.path) if self.dataset.found else None,
                "checksum": self.dataset.found.checksum if self.dataset.found else "",
            },
        }

    def _environment(self) -> dict[str, str]:
        vendor, ranks = self.session.vendor, self.case.selection.topology.devices
        support = vendor.frameworks[self.case.selection.framework]
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST_", "COV_CORE_"))}
        environment.update(vendor.environment)
        environment.update(support.environment)
        if vendor.visible_devices:
            environment[vendor.visible_devices] = ",".join(map(str, self.lease.devices))
        parts = split_processors(sorted(os.sched_getaffinity(0)), ranks)
        threads = str(self.case.config.get("cpu_threads") or len(parts[0]))
        for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
            environment[name] = threads
        if vendor.shared:
            environment["FLAGPERF_AFFINITY"] = json.dumps(parts)
        environment["PYTHONUNBUFFERED"] = "1"
        return environment

    def _result(self, measured: Measured, failed: FlagPerfError | None) -> results.RoundResult:
        return results.RoundResult(
            round=self.number,
            seed=self.seed,
            directory=str(self.directory),
            time_started=self.started,
            metrics=results.with_units(measured.figures),
            evaluations=[
                results.EvaluationResult(e.epoch, e.step, e.seconds, dict(e.quality)) for e in measured.evaluations
            ],
            precision=dict(measured.precision),
            error=failed and results.ErrorResult(type(failed).__name__, str(failed)),
        )


def split_processors(processors: Sequence[int], ranks: int) -> list[list[int]]:
    """The host's processors divided between its ranks; with more ranks than processors they share them in turn."""
    if ranks >= len(processors):
        return [[processors[rank % len(processors)]] for rank in range(ranks)]
    size = len(processors) // ranks
    return [list(processors[rank * size : (rank + 1) * size]) for rank in range(ranks)]


def measure(
    session: Session, case: ResolvedCase, ranks: Sequence[Sequence[Event]], times: metrics.JobTimes
) -> Measured:
    """Metrics of a round from its events. Raises ``InvalidMeasurement`` for what cannot be trusted."""
    precision = next((event.value for event in ranks[0] if event.name == perflog.PRECISION), {})
    found = session.vendor.chip(str(precision.get("device_name", "")))
    peak = found[1].peak.get(case.selection.precision) if found else None
    figures = metrics.training_metrics(
        ranks,
        times,
        targets=case.targets,
        flops=case.scale.flops,
        peak=peak * 1e12 if peak is not None else None,
    )
    return Measured(figures, metrics.evaluations(ranks[0]), precision, chip=found[0] if found else None)


def _and_alive(watch: Callable[[], None]) -> Callable[[], None]:
    """``watch``, and an end of this process' wait once its parent is gone: an xdist worker outlives its controller."""
    parent = os.getppid()
    is_worker = "PYTEST_XDIST_WORKER" in os.environ

    def poll() -> None:
        if is_worker and os.getppid() != parent:
            raise KeyboardInterrupt("the xdist controller is gone")
        watch()

    return poll


def find_devices(session: Session, case: ResolvedCase) -> Devices:
    """The devices ``case`` may use. Raises ``DeviceUnavailable`` where this host cannot have what the topology asks for."""
    topology, vendor = case.selection.topology, session.vendor
    if topology.nodes > 1:
        raise DeviceUnavailable(
            f"{case.label}: topology {topology} needs {topology.nodes} hosts; this version launches on one"
        )
    wanted = 1 if vendor.shared else topology.devices
    found = Devices(vendor.name, visible(vendor), wanted)
    if wanted > len(found.available):
        raise DeviceUnavailable(
            f"{case.label}: {wanted} devices of {vendor.name} are needed, {len(found.available)} were found"
        )
    return found


def visible(vendor: Vendor) -> tuple[int, ...]:
    """Indices of the devices on this host that the caller's environment does not hide."""
    everything = tuple(range(vendor.count()))
    chosen = os.environ.get(vendor.visible_devices) if vendor.visible_devices else None
    if chosen is None:
        return everything
    try:
        wanted = [int(part) for part in chosen.split(",") if part.strip()]
    except ValueError:
        raise DeviceUnavailable(
            f"{vendor.visible_devices}={chosen!r}: devices are chosen by number here, for example 0,1"
        ) from None
    return tuple(index for index in dict.fromkeys(wanted) if index in everything)


def find_dataset(session: Session, case: ResolvedCase, say: Callable[[str], None]) -> Data:
    """The case's dataset, or that it is synthetic. Raises ``DatasetError`` where it is missing or corrupt."""
    name, given = case.scale.dataset, session.options.datasets
    if given.get(name) == SYNTHETIC:
        if case.role == "convergence":
            raise ConfigurationError(f"{case.label}: nothing converges on synthetic data; give --dataset {name}=PATH")
        return Data(name, None)
    return Data(name, datasets.locate(name, overrides=given, data_root=session.data_root, say=say))
