"""From a case to its Result: lease devices, run the rounds, judge, record.

This is where the rooms meet; what each does it does itself.
"""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from dataclasses import field
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_flagperf import metrics
from pytest_flagperf import replay
from pytest_flagperf import result as results
from pytest_flagperf import verdict
from pytest_flagperf.case import ResolvedCase
from pytest_flagperf.devices import lease as leases
from pytest_flagperf.errors import FlagPerfError
from pytest_flagperf.errors import LaunchFailed
from pytest_flagperf.measured import Measured
from pytest_flagperf.provision import Data
from pytest_flagperf.provision import Devices
from pytest_flagperf.reports.progress import Progress
from pytest_flagperf.rounds import Round
from pytest_flagperf.run import Run
from pytest_flagperf.run import Surroundings
from pytest_flagperf.run import build_result
from pytest_flagperf.run import figures_of
from pytest_flagperf.run import judge_rounds
from pytest_flagperf.run import round_result
from pytest_flagperf.session import Session
from pytest_flagperf.session import masked


@dataclass
class Attempt:
    """What has come of a case so far."""

    rounds: list[results.RoundResult] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    devices: list[int] = field(default_factory=list)
    chip: str | None = None
    container: dict[str, str] = field(default_factory=dict)

    def note(self, measured: Measured) -> None:
        """Keep what a round says about itself."""
        self.notes += [note for note in measured.notes if note not in self.notes]
        self.chip = self.chip or measured.chip


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
        directory = self._directory(case)
        attempt = Attempt(notes=[*case.notes, *self._unwatched(case)])
        failed: FlagPerfError | None = None
        try:
            if case.recorded is not None:
                self._replay(case, attempt)
            else:
                self._launch(case, devices, dataset, directory, attempt)
        except FlagPerfError as error:
            failed = error
        except OSError as error:
            failed = LaunchFailed(f"the job in {directory} could not be run: {error}")
            failed.__cause__ = error
        result = self._record(case, directory, dataset, attempt, failed)
        if failed is not None:
            raise failed
        return Run(case, result, directory)

    def refuse(self, case: ResolvedCase, failed: FlagPerfError) -> None:
        """Record a case that could not even start: no device, no dataset."""
        __tracebackhide__ = True
        self._record(case, self._directory(case), Data(case.scale.dataset), Attempt(), failed)

    def _unwatched(self, case: ResolvedCase) -> list[str]:
        if case.recorded is not None or self.session.vendor.shared or self.session.options.monitor is not None:
            return []
        return ["the devices were not watched (--monitor=off): whether others used them is not known"]

    def _surroundings(self, case: ResolvedCase, attempt: Attempt) -> Surroundings:
        if case.recorded is not None:
            return Surroundings(case.recorded.container, case.recorded.vendor_file, case.recorded.environment)
        framework = case.selection.framework
        environment = self.session.vendor_environment(framework) if framework in self.session.vendor.frameworks else {}
        return Surroundings(attempt.container, self.session.vendor_file, masked(environment))

    def _chip(self, case: ResolvedCase) -> str | None:
        """The chip that is here, where no round came as far as to tell it; of a replay nobody knows."""
        found = self.session.chip if case.recorded is None else None
        return found[0] if found else None

    def _directory(self, case: ResolvedCase) -> Path:
        try:
            return self.session.case_directory(case.id)
        except OSError as error:
            where = self.session.directory
            raise LaunchFailed(f"{case.label}: no results can be written to {where}: {error}") from error

    def _launch(self, case: ResolvedCase, devices: Devices, dataset: Data, directory: Path, attempt: Attempt) -> None:
        __tracebackhide__ = True
        with leases.leased(
            devices.vendor,
            devices.available,
            devices.wanted,
            owner=case.label,
            waiting=lambda who: self.progress.line(case.label, f"waiting for {devices.vendor} ({who})"),
        ) as lease:
            attempt.devices += lease.devices
            with self._entered(case, devices, lease):
                for number in range(1, self.session.options.rounds + 1):
                    one = Round(self.session, case, directory, number, lease, dataset, self.progress)
                    try:
                        attempt.note(one.run(attempt.rounds))
                    finally:
                        attempt.container = one.container.record() if one.container else {}
        self.progress.end()

    @contextlib.contextmanager
    def _entered(self, case: ResolvedCase, devices: Devices, lease: leases.Lease) -> Iterator[None]:
        """A line in the ledger once the lease is held and one before it ends: they prove that no two overlapped."""
        held = {"case": case.id, "vendor": devices.vendor, "devices": lease.devices, "requested": lease.requested}
        self.session.ledger("lease_start", **held, granted=lease.granted, available=devices.available)
        try:
            yield
        finally:
            self.session.ledger("lease_end", **held)

    def _replay(self, case: ResolvedCase, attempt: Attempt) -> None:
        """Measure each recorded round; nothing is launched."""
        __tracebackhide__ = True
        attempt.chip = case.recorded.hardware or None
        for number, directory in enumerate(case.recorded.rounds, 1):
            try:
                measured = replay.measure(self.session.known_vendor(case.vendor), case, directory)
            except FlagPerfError as failed:
                attempt.rounds.append(round_result(number, None, directory, None, Measured({}), failed))
                raise
            attempt.rounds.append(round_result(number, None, directory, None, measured, None))
            attempt.note(measured)

    def _record(
        self, case: ResolvedCase, directory: Path, dataset: Data, attempt: Attempt, failed: FlagPerfError | None
    ) -> results.Result:
        """Judge what there is, write it, hand it to the reports; completes the message of ``failed``."""
        __tracebackhide__ = True
        figures = [figures_of(one) for one in attempt.rounds]
        judged = judge_rounds(case.targets, figures) if case.role == "convergence" else ()
        rerun = self.session.rerun(self.item)
        result = build_result(
            replace(case, node_id=self.item.nodeid),
            verdict.INVALID if failed is not None else verdict.of_targets(judged),
            metrics.summarize(figures) if failed is None else {},
            judged,
            attempt.rounds,
            dataset,
            attempt.devices,
            notes=attempt.notes,
            chip=attempt.chip or self._chip(case),
            ran=self._surroundings(case, attempt),
            rerun=rerun,
            error=failed,
        )
        publish(self.session, self.item, result, directory)
        if failed is not None:
            # The message is completed here, where the case, its files and the way to run it again are known.
            failed.args = (f"{case.label}: {failed}\nresult: {directory / 'result.json'}\nrerun:  {shlex.join(rerun)}",)
        return result


def publish(session: Session, item: pytest.Item, result: results.Result, directory: Path) -> None:
    """Write ``result.json`` and hand the Result to every report."""
    try:
        results.write_result(directory, result)
    except OSError as error:
        raise LaunchFailed(f"{directory / 'result.json'} cannot be written: {error}") from error
    session.config.hook.pytest_flagperf_result(config=session.config, item=item, result=result, directory=directory)
