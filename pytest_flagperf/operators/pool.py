"""The pool of warm workers: one for each framework and topology, started when first needed.

A worker measures only while its devices are leased. On a device that all share, a processor, the lease is taken for
each problem, and between two of them the worker is idle but warm. On others an idle process would be in the way of
whoever comes next: so worker and lease are kept until somebody waits for a device, and then given up between two
problems, though not before ``HOLD`` seconds, for a worker costs seconds to start.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import threading
import time
import uuid
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import replace
from pathlib import Path
from typing import Any
from typing import Protocol

from pytest_flagperf import records
from pytest_flagperf import result as results
from pytest_flagperf.devices import lease as leases
from pytest_flagperf.devices import visible
from pytest_flagperf.devices.monitor import MONITOR
from pytest_flagperf.devices.monitor import ROUND_VARIABLE
from pytest_flagperf.devices.monitor import Spec as MonitorSpec
from pytest_flagperf.devices.monitor import watching
from pytest_flagperf.devices.vendor import FrameworkSupport
from pytest_flagperf.devices.vendor import Vendor
from pytest_flagperf.errors import FlagPerfError
from pytest_flagperf.errors import JobTimedOut
from pytest_flagperf.launch import engines
from pytest_flagperf.launch.job import JobSpec
from pytest_flagperf.operators.case import ResolvedOperator
from pytest_flagperf.operators.warm import Limit
from pytest_flagperf.operators.warm import WarmWorker
from pytest_flagperf.operators.watched import MonitorTail
from pytest_flagperf.options import Options
from pytest_flagperf.provision import Devices
from pytest_flagperf.rounds import split_processors
from pytest_flagperf.samples import Samples
from pytest_flagperf.samples import Window
from pytest_flagperf.samples import conditions


ENTRY = "pytest_flagperf.worker.operators.serve:main"
HOLD = 20.0
_GRACE = 0.5
_NEVER = 1e9
_STARTS = 2  # workers that fail to start before no other is tried: thousands of problems would wait for each
_LONG = 5.0  # seconds after which a person is told what is waited for
_LOOK = 1.0  # seconds between looks of an idle worker whether somebody waits


class Place(Protocol):
    """What the pool needs to know of where it runs: a session of pytest, or of ``flagperf bench``."""

    @property
    def options(self) -> Options:
        """The options."""

    @property
    def vendor(self) -> Vendor:
        """Whose devices are measured."""

    def open(self) -> Path:
        """The session's directory, made."""

    def support(self, framework: str) -> FrameworkSupport:
        """What the framework calls the devices."""

    def python(self, framework: str) -> str:
        """The framework's interpreter."""

    def stand_in(self, framework: str) -> Mapping[str, str] | None:
        """The device that stands in for the vendor's, in tests of vendor files."""

    def note(self, event: str, **record: Any) -> None:
        """A line in the ledger."""


@dataclass(frozen=True)
class Answer:
    """A worker's reply; ``window`` is when it was at work, on which devices, and what the monitor saw meanwhile."""

    reply: Mapping[str, Any]
    window: Window
    devices: tuple[int, ...]
    seen: Samples
    host_dir: Path


class Pool:
    """The warm workers of one process; each writes into a directory of its own below ``directory``."""

    def __init__(self, place: Place, directory: Path) -> None:
        self.place, self.directory = place, directory
        self._slots: dict[tuple[str, str], Slot] = {}
        self._numbers = 0

    def ask(
        self,
        one: ResolvedOperator,
        devices: Devices,
        request: Mapping[str, Any],
        limit: Limit,
        on_wait: Callable[[str], None] = lambda text: None,
    ) -> Answer:
        """The answer of the worker that ``one`` belongs to. Raises what ended the worker; the next one gets a new."""
        key = (one.framework, str(one.selection.topology))
        if not self.place.vendor.shared:
            for other in [slot for name, slot in self._slots.items() if name != key]:
                other.give_up()
        slot = self._slots.setdefault(key, Slot(self.place, self, key))
        self._numbers += 1
        return slot.ask(one, devices, {**request, "id": self._numbers}, limit, on_wait)

    def close(self) -> None:
        """End every worker and give up every lease."""
        for slot in self._slots.values():
            slot.give_up()
        self._slots.clear()


class Slot:
    """One warm worker, or the place for it: its lease, its monitor, its restarts."""

    def __init__(self, place: Place, pool: Pool, key: tuple[str, str]) -> None:
        self.place, self.pool = place, pool
        self.framework, self.topology = key
        self._worker: WarmWorker | None = None
        self._tail = MonitorTail(Path())
        self._monitor = contextlib.ExitStack()
        self._watcher: subprocess.Popen[bytes] | None = None
        self._held = contextlib.ExitStack()
        self._lease: leases.Lease | None = None
        self._lock = threading.RLock()
        self._busy = self._yielding = self._failed = False
        self._looked = self._leased_at = 0.0
        self._count = 0
        self._stillborn: list[FlagPerfError] = []

    def ask(
        self,
        one: ResolvedOperator,
        devices: Devices,
        request: Mapping[str, Any],
        limit: Limit,
        on_wait: Callable[[str], None],
    ) -> Answer:
        """See :meth:`Pool.ask`."""
        with self._devices(one, devices, on_wait) as lease:
            failed_before, self._failed = self._failed, False
            try:
                return self._answer(one, lease, request, limit, on_wait)
            except JobTimedOut:
                raise
            except FlagPerfError:
                # A worker whose device is lost answers that its call failed, and then ends: not this problem's fault.
                if not failed_before:
                    raise
            return self._answer(one, lease, request, limit, on_wait)

    def _answer(
        self,
        one: ResolvedOperator,
        lease: leases.Lease,
        request: Mapping[str, Any],
        limit: Limit,
        on_wait: Callable[[str], None],
    ) -> Answer:
        if len(self._stillborn) >= _STARTS:
            first = self._stillborn[0]
            raise type(first)(f"no worker of {self.framework} starts here; not tried again after: {first}")
        worker = self._running(one, lease)
        began = time.monotonic()

        def wait() -> None:
            if time.monotonic() - began > _LONG:
                on_wait(f"{'measuring' if worker.ready else 'starting'} for {time.monotonic() - began:.0f} s")

        try:
            reply = worker.ask(request, limit, wait)
        except FlagPerfError as failed:
            if not worker.ready:
                self._stillborn.append(failed)
            window = (_start(began, worker), time.monotonic())
            failed.args = ("\n".join([str(failed), *conditions(self._seen(window), window)]),)
            raise
        window = (_start(began, worker), time.monotonic())
        self._failed = reply.get("status") == "failed"
        self._stillborn.clear()
        return Answer(reply, window, lease.devices, self._seen(window), worker.spec.host_dir)

    def _seen(self, window: Window) -> Samples:
        """What the monitor saw. One that is still at work has not written its end, and has not ended early either."""
        watcher = self._watcher
        seen = self._tail.during(window)
        return replace(seen, ended=True) if watcher is not None and watcher.poll() is None else seen

    def give_up(self) -> None:
        """End the worker, then release the lease, if there is one."""
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.end()
        self._release()
        self._yielding = False

    # --- the lease

    @contextlib.contextmanager
    def _devices(
        self, one: ResolvedOperator, devices: Devices, on_wait: Callable[[str], None]
    ) -> Iterator[leases.Lease]:
        if self.place.vendor.shared:
            with contextlib.ExitStack() as held:
                yield self._take(one, devices, on_wait, held)
            return
        with self._lock:
            self._busy = True
            kept = self._lease is not None and not self._yielding
        try:
            if not kept or self._worker is None or not self._worker.usable:
                self.give_up()
                self._lease = self._take(one, devices, on_wait, self._held)
                self._leased_at = time.monotonic()
            assert self._lease is not None
            yield self._lease
        finally:
            with self._lock:
                self._busy = False
            if self._is_overdue():
                self.give_up()

    def _take(
        self, one: ResolvedOperator, devices: Devices, on_wait: Callable[[str], None], held: contextlib.ExitStack
    ) -> leases.Lease:
        """Lease devices until ``held`` is closed; a line in the ledger at either end."""
        self.place.open()
        lease = held.enter_context(
            leases.leased(
                devices.vendor,
                devices.available,
                devices.wanted,
                owner=one.label,
                waiting=lambda who: on_wait(f"waiting for {devices.vendor} ({who})"),
            )
        )
        record = {"case": one.id, "vendor": devices.vendor, "devices": lease.devices, "requested": lease.requested}
        self.place.note("lease_start", **record, granted=lease.granted, available=devices.available)
        held.callback(self.place.note, "lease_end", **record)
        return lease

    def _release(self) -> None:
        with self._lock:
            held, self._held, self._lease = self._held, contextlib.ExitStack(), None
        held.close()

    def _is_overdue(self) -> bool:
        lease = self._lease
        if lease is None or time.monotonic() - self._leased_at < HOLD:
            return False
        return leases.contended(self.place.vendor.name, lease.devices)

    def _is_in_the_way(self) -> bool:
        """In the job's thread: whether the worker is idle and somebody waits for its devices. Then it ends."""
        if self.place.vendor.shared or time.monotonic() - self._looked < _LOOK:
            return False
        self._looked = time.monotonic()
        with self._lock:
            lease = self._lease
            if self._busy or lease is None:
                return False
            self._yielding = leases.contended(self.place.vendor.name, lease.devices)
            return self._yielding

    def _job_ended(self) -> None:
        """In the job's thread, when nothing of the job is left."""
        self._monitor.close()
        with self._lock:
            idle = not self._busy
        if idle and not self.place.vendor.shared:
            self._release()

    # --- the worker

    def _running(self, one: ResolvedOperator, lease: leases.Lease) -> WarmWorker:
        if self._worker is not None and self._worker.usable:
            return self._worker
        if self._worker is not None:
            self._worker.end()
        self._count += 1
        directory = self.pool.directory / f"{self.framework}-{self.topology}-{self._count}"
        host_dir = directory / socket.gethostname()
        host_dir.mkdir(parents=True)
        case_file = directory / "case.json"
        records.write_json(case_file, self._case_document(one, lease))
        name = uuid.uuid4().hex
        self._monitor, self._watcher = contextlib.ExitStack(), None
        self._tail = MonitorTail(host_dir / MONITOR)
        if self.place.options.monitor is not None:
            self._watcher = self._monitor.enter_context(watching(self._watch(host_dir, lease, name)))
        self._worker = WarmWorker(
            self._spec(one, lease, case_file, host_dir, name),
            start_limit=self.place.options.stall_timeout,
            idle=self._is_in_the_way,
            ended=self._job_ended,
        )
        return self._worker

    def _watch(self, host_dir: Path, lease: leases.Lease, name: str) -> MonitorSpec:
        return MonitorSpec(
            vendor_file=str(self.place.vendor.directory / "vendor.toml"),
            devices=lease.devices,
            interval=self.place.options.monitor or 1.0,
            output=str(host_dir / MONITOR),
            round=name,
            owner=os.getpid(),
        )

    def _spec(self, one: ResolvedOperator, lease: leases.Lease, case_file: Path, host_dir: Path, name: str) -> JobSpec:
        ranks = one.selection.topology.devices
        return JobSpec(
            engine=engines.engine_for(self.framework, one.selection.topology.world_size),
            python=self.place.python(self.framework),
            case_file=case_file,
            host_dir=host_dir,
            nproc=ranks,
            env=self._environment(lease, ranks, name),
            entry=ENTRY,
            # Each problem has a limit of its own, and nobody writes events in a call of minutes.
            stall_timeout=_NEVER,
            grace=_GRACE,
            # A worker on a shared device outlives the lease of each problem.
            lease_fds=() if self.place.vendor.shared else lease.files,
        )

    def _case_document(self, one: ResolvedOperator, lease: leases.Lease) -> dict[str, Any]:
        support = self.place.support(self.framework)
        return {
            "schema_version": results.SCHEMA_VERSION,
            "id": f"operators-{self.framework}-{self.topology}",
            "model": "operators",
            "role": "measure",
            "framework": self.framework,
            "topology": self.topology,
            "vendor": self.place.vendor.name,
            "seed": 1,
            "directory": str(one.directory),
            "config": {},
            "device": {
                "device": support.device,
                "backend": support.backend,
                "stand_in": one.stand_in,
                "module": support.module,
                "amp_dtype": support.amp_dtype,
                "tf32_switches": support.tf32_switches,
                "indices": list(lease.devices),
            },
        }

    def _environment(self, lease: leases.Lease, ranks: int, name: str) -> dict[str, str]:
        vendor = self.place.vendor
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST_", "COV_CORE_"))}
        environment.update(vendor.environment)
        environment.update(self.place.support(self.framework).environment)
        for variable, value in visible.environment(vendor, lease.devices).items():
            if value is None:
                environment.pop(variable, None)
            else:
                environment[variable] = value
        parts = split_processors(sorted(os.sched_getaffinity(0)), ranks)
        for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
            environment[variable] = str(len(parts[0]))
        if vendor.shared or self.place.stand_in(self.framework):
            environment["FLAGPERF_AFFINITY"] = json.dumps(parts)
        environment["PYTHONUNBUFFERED"] = "1"
        environment[ROUND_VARIABLE] = name
        return environment


def _start(asked: float, worker: WarmWorker) -> float:
    """When the worker began with a problem: the first one waits until the framework is loaded, which is none of it."""
    return asked if worker.ready_at is None else max(asked, worker.ready_at)
