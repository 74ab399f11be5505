"""One execution of a case, in a directory of its own, from ``case.json`` to its metrics."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
import uuid
from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from pytest_flagperf import children
from pytest_flagperf import loadgen_log
from pytest_flagperf import metrics
from pytest_flagperf import perflog
from pytest_flagperf import records
from pytest_flagperf import result as results
from pytest_flagperf import samples
from pytest_flagperf.case import ResolvedCase
from pytest_flagperf.devices import lease as leases
from pytest_flagperf.devices import occupied
from pytest_flagperf.devices import visible
from pytest_flagperf.devices.monitor import MONITOR
from pytest_flagperf.devices.monitor import ROUND_VARIABLE
from pytest_flagperf.devices.monitor import Spec as MonitorSpec
from pytest_flagperf.devices.monitor import watching
from pytest_flagperf.devices.vendor import Vendor
from pytest_flagperf.errors import FlagPerfError
from pytest_flagperf.errors import Regressed
from pytest_flagperf.launch import containers
from pytest_flagperf.launch import engines
from pytest_flagperf.launch import runtimes
from pytest_flagperf.launch.diagnosis import failure
from pytest_flagperf.launch.job import JobOutcome
from pytest_flagperf.launch.job import JobSpec
from pytest_flagperf.launch.job import run_job
from pytest_flagperf.measured import TIMES
from pytest_flagperf.measured import Measured
from pytest_flagperf.measured import measure
from pytest_flagperf.provision import Data
from pytest_flagperf.reports.progress import Progress
from pytest_flagperf.run import round_result
from pytest_flagperf.session import Session
from pytest_flagperf.session import masked
from pytest_flagperf.session import masked_environment
from pytest_flagperf.worker.inference import leftovers


class Round:
    """One execution of a case, in a directory of its own.

    There are ``of`` rounds, as far as is known when it starts. ``guard`` sees the events of rank 0 while the job runs;
    what it raises ends the job.
    """

    def __init__(
        self,
        session: Session,
        case: ResolvedCase,
        directory: Path,
        number: int,
        lease: leases.Lease,
        dataset: Data,
        progress: Progress,
        *,
        of: int = 1,
        guard: Callable[[perflog.Event], None] | None = None,
    ) -> None:
        self.session, self.case, self.number, self.of = session, case, number, of
        self.lease, self.dataset, self.progress, self.guard = lease, dataset, progress, guard
        self.directory = directory / f"round{number}"
        self.host_dir = self.directory / socket.gethostname()
        # In the environment of all that the round starts, so that its processes are known on the devices.
        self.name = uuid.uuid4().hex
        self.seed = int(case.config.get("seed", 1)) + number - 1
        self.started = time.time()
        self.container: containers.Container | None = None

    def run(self, rounds: list[results.RoundResult]) -> Measured:
        """Run, and append what came of it to ``rounds``, whatever it is; the ledger has a line before and after."""
        __tracebackhide__ = True
        self.host_dir.mkdir(parents=True)
        identity = {
            "case": self.case.id,
            "test": self.case.node_id,
            "round": self.number,
            "seed": self.seed,
            "directory": str(self.directory),
        }
        self.session.ledger("round_start", **identity, devices=self.lease.devices)
        outcome, error = "interrupted", ""
        try:
            measured = self._measure()
            outcome = "finished"
        except FlagPerfError as failed:
            outcome, error = type(failed).__name__, str(failed)
            rounds.append(self._result(Measured({}, loadgen=loadgen_log.said_in(self.directory)), failed))
            raise
        except Regressed as failed:
            # Stopped by the guard: what it had evaluated by then is kept.
            outcome, error = type(failed).__name__, str(failed)
            rounds.append(self._result(Measured({}, self._evaluations()), failed))
            raise
        except Exception as failed:
            # pytest's own exit is an Exception too: it is how SIGTERM ends a session.
            if not isinstance(failed, pytest.exit.Exception):
                outcome, error = type(failed).__name__, str(failed)
            raise
        finally:
            self.session.ledger("round_end", **identity, outcome=outcome, **({"error": error} if error else {}))
        rounds.append(self._result(measured, None))
        return measured

    def _measure(self) -> Measured:
        __tracebackhide__ = True
        self.container = self._container()
        case_file = self.directory / "case.json"
        records.write_json(case_file, self._case_document())
        topology = self.case.selection.topology
        watch = self.progress.watch(self.case, self.host_dir, self.number, self.of, self.guard)
        if self.session.options.monitor is not None:
            occupied.refuse(self.session.vendor, self.lease.devices, self.name, os.getpid())
        with self._watching():
            outcome = self._run(case_file, watch)
        failed = failure(outcome, self.host_dir)
        seen = samples.read(self.host_dir / MONITOR)
        if failed is not None:
            # A rank that was killed could not.
            leftovers.keep_small(self.host_dir / leftovers.ENGINE_DIRECTORY)
            raise _explained(failed, seen, self.session.vendor)
        ranks = [perflog.read_events(self.host_dir / f"rank{r}.events.jsonl") for r in range(topology.world_size)]
        times = metrics.JobTimes(outcome.started, outcome.ended, outcome.time_started, outcome.time_ended)
        records.write_json(self.directory / TIMES, asdict(times))
        return measure(self.session.vendor, self.case, ranks, times, seen)

    def _run(self, case_file: Path, watch: Callable[[], None]) -> JobOutcome:
        topology = self.case.selection.topology
        return run_job(
            JobSpec(
                engine=engines.engine_for(self.case.selection.framework, topology.world_size),
                python=self._python(),
                case_file=case_file,
                host_dir=self.host_dir,
                nproc=topology.devices,
                env=self._environment(),
                timeout=self.session.options.timeout,
                stall_timeout=_stall_timeout(self.session, self.case),
                lease_fds=self.lease.files,
                container=self.container,
            ),
            on_poll=_and_alive(watch),
        )

    def _watching(self) -> contextlib.AbstractContextManager[object]:
        """The monitor of this round, unless nobody wants one."""
        interval, vendor = self.session.options.monitor, self.session.vendor
        if interval is None:
            return contextlib.nullcontext()
        return watching(
            MonitorSpec(
                vendor_file=str(vendor.directory / "vendor.toml"),
                devices=self.lease.devices,
                interval=interval,
                output=str(self.host_dir / MONITOR),
                round=self.name,
                owner=os.getpid(),
            )
        )

    def _case_document(self) -> dict[str, Any]:
        case, vendor = self.case, self.session.vendor
        support = self.session.support(case.selection.framework)
        return {
            "schema_version": results.SCHEMA_VERSION,
            "id": case.id,
            "kind": case.case.kind,
            "model": case.model,
            "role": case.role,
            "framework": case.selection.framework,
            "precision": case.selection.precision,
            "topology": str(case.selection.topology),
            "scale": case.selection.scale,
            **_of_inference(self.session, self.case, self.dataset),
            "vendor": vendor.name,
            "seed": self.seed,
            "directory": str(case.directory),
            "division": case.division,
            **({"diff": case.replaced.diff} if case.replaced else {}),
            "workload_directory": str(case.workload_directory),
            "workload": case.workload,
            "config": case.config,
            "origins": {key: setting.origin for key, setting in case.settings.items()},
            "deviations": list(case.deviations),
            "parameters": case.scale.parameters,
            "flops": case.scale.flops,
            "targets": [
                {"metric": t.metric, "bound": t.bound, "direction": t.direction, "source": t.source}
                for t in case.targets
            ],
            "device": {
                "device": support.device,
                "backend": support.backend,
                "stand_in": case.stand_in,
                "module": support.module,
                "amp_dtype": support.amp_dtype,
                "tf32_switches": support.tf32_switches,
                "indices": list(self.lease.devices),
            },
            "vendor_file": self.session.vendor_file,
            "environment": masked(self.session.vendor_environment(case.selection.framework)),
            **({"container": self.container.record()} if self.container else {}),
            "dataset": {
                "name": self.dataset.name,
                "synthetic": self.dataset.synthetic,
                "path": str(self.dataset.found.path) if self.dataset.found else None,
                "checksum": self.dataset.found.checksum if self.dataset.found else "",
            },
        }

    def _environment(self) -> dict[str, str]:
        vendor, ranks = self.session.vendor, self.case.selection.topology.devices
        environment = self._our_environment()
        environment.update(self.session.vendor_environment(self.case.selection.framework))
        for name, value in visible.environment(vendor, self.lease.devices).items():
            if value is None:
                environment.pop(name, None)
            else:
                environment[name] = value
        parts = split_processors(sorted(os.sched_getaffinity(0)), ranks)
        threads = str(self._threads() or len(parts[0]))
        for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
            environment[name] = threads
        if vendor.shared or self.case.stand_in == "cpu":
            environment["FLAGPERF_AFFINITY"] = json.dumps(parts)
        environment["PYTHONUNBUFFERED"] = "1"
        environment[ROUND_VARIABLE] = self.name
        if self.container is not None:
            self._contain(environment)
        return environment

    def _threads(self) -> int | None:
        """Threads of a rank on the host's processor, where the case says; at the edge they are few."""
        config = self.case.config
        given = config.get("edge_threads", 1) if self.case.role == "edge" else config.get("cpu_threads")
        return int(given) if given else None

    def _our_environment(self) -> dict[str, str]:
        """What the job gets of this process' environment; in a container only what means the same in there."""
        if self.container is not None:
            return containers.carried({name: os.environ[name] for name in masked_environment(os.environ)})
        return children.without_pytest()

    def _contain(self, environment: dict[str, str]) -> None:
        """What the vendor says of the environment in containers; one with the leased devices alone needs no choice."""
        assert self.container is not None
        vendor = self.session.vendor
        if containers.holds_only_leased(vendor.container, self.container.runtime.name):
            for name in (vendor.visible_devices, *vendor.also_visible):
                environment.pop(name, None)
        environment.update(containers.expand_environment(vendor.container, self.lease.devices))

    def _container(self) -> containers.Container | None:
        """What the round's container is made of, where ``--container`` names an image."""
        options, case = self.session.options, self.case
        if options.container is None or options.container_runtime is None:
            return None
        data = [self.dataset.found.path] if self.dataset.found else []
        if self.dataset.weights is not None and self.dataset.weights.path is not None:
            data.append(self.dataset.weights.path)
        return runtimes.prepare(
            options.container_runtime,
            options.container,
            self.session.vendor.container,
            self.lease.devices,
            [case.directory, case.workload_directory, *data],
            str(self.session.vendor.directory / "vendor.toml"),
        )

    def _python(self) -> str:
        framework = self.case.selection.framework
        if self.container is not None:
            return self.session.options.pythons.get(framework, containers.PYTHON)
        return self.session.python(framework)

    def _evaluations(self) -> list[metrics.Evaluation]:
        return metrics.evaluations(perflog.read_events(self.host_dir / "rank0.events.jsonl"))

    def _result(self, measured: Measured, failed: FlagPerfError | Regressed | None) -> results.RoundResult:
        return round_result(self.number, self.seed, self.directory, self.started, measured, failed)


def _of_inference(session: Session, case: ResolvedCase, data: Data) -> dict[str, Any]:
    """What only the ``case.json`` of inference has."""
    if case.case.kind != "inference":
        return {}
    found = data.weights
    return {
        "engine": case.selection.engine,
        "stall_timeout": _stall_timeout(session, case),
        "weights": {
            "name": found.name if found else "",
            "path": str(found.path) if found and found.path else None,
            "checksum": found.checksum if found else "",
            "origin": found.origin if found else "",
        },
    }


def _stall_timeout(session: Session, case: ResolvedCase) -> float:
    """How long a rank may be silent; in inference no longer than its compiler may take."""
    limit = session.options.stall_timeout
    if case.case.kind != "inference":
        return limit
    return min(limit, float(case.config.get("compile_timeout", limit)))


def _explained(failed: FlagPerfError, seen: samples.Samples, vendor: Vendor) -> FlagPerfError:
    """``failed`` with what the devices went through meanwhile."""
    found = samples.conditions(seen, (float("-inf"), float("inf")), vendor.hot)
    if found:
        failed.args = ("\n".join([str(failed), *found]),)
    return failed


def split_processors(processors: Sequence[int], ranks: int) -> list[list[int]]:
    """The host's processors divided between its ranks; with more ranks than processors they share them in turn."""
    if ranks >= len(processors):
        return [[processors[rank % len(processors)]] for rank in range(ranks)]
    size = len(processors) // ranks
    return [list(processors[rank * size : (rank + 1) * size]) for rank in range(ranks)]


def _and_alive(watch: Callable[[], None]) -> Callable[[], None]:
    """``watch``, and an end of this process' wait once its parent is gone: an xdist worker outlives its controller."""
    parent = os.getppid()
    is_worker = "PYTEST_XDIST_WORKER" in os.environ

    def poll() -> None:
        if is_worker and os.getppid() != parent:
            raise KeyboardInterrupt("the xdist controller is gone")
        watch()

    return poll
