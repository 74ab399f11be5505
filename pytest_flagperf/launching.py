"""From a case to its Result: lease devices, run the rounds, judge, record.

This is where the rooms meet; what each does it does itself.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
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
from pytest_flagperf.run import build_result
from pytest_flagperf.run import figures_of
from pytest_flagperf.run import judge_rounds
from pytest_flagperf.run import round_result
from pytest_flagperf.session import Session


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
            raise LaunchFailed(
                f"{case.label}: no results can be written to {self.session.directory}: {error}"
            ) from error
        failed: FlagPerfError | None = None
        try:
            if case.recorded is not None:
                chip += [case.recorded.hardware] if case.recorded.hardware else []
                notes += self._replay(case, rounds)
                return self._record(case, directory, rounds, dataset, leased, notes, chip, None)
            with leases.leased(
                devices.vendor,
                devices.available,
                devices.wanted,
                owner=case.label,
                waiting=lambda who: self.progress.line(case.label, f"waiting for {devices.vendor} ({who})"),
            ) as lease:
                leased += lease.devices
                for number in range(1, self.session.options.rounds + 1):
                    one = Round(self.session, case, directory, number, lease, dataset, self.progress)
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

    def _replay(self, case: ResolvedCase, rounds: list[results.RoundResult]) -> list[str]:
        """Append what each recorded round measured; gives the notes."""
        __tracebackhide__ = True
        notes: list[str] = []
        for number, directory in enumerate(case.recorded.rounds, 1):
            try:
                measured = replay.measure(case, directory)
            except FlagPerfError as failed:
                rounds.append(round_result(number, None, directory, None, Measured({}), failed))
                raise
            rounds.append(round_result(number, None, directory, None, measured, None))
            notes += [note for note in measured.notes if note not in notes]
        return notes

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
        figures = metrics.summarize([figures_of(one) for one in rounds if one.error is None])
        judged = judge_rounds(case.targets, [figures_of(one) for one in rounds]) if case.role == "convergence" else ()
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
            failed.args = (f"{case.label}: {failed}\nresult: {directory / 'result.json'}\nrerun:  {shlex.join(rerun)}",)
            raise failed
        return Run(case, result, directory)


def publish(session: Session, item: pytest.Item, result: results.Result, directory: Path) -> None:
    """Write ``result.json`` and hand the Result to every report."""
    try:
        results.write_result(directory, result)
    except OSError as error:
        raise LaunchFailed(f"{directory / 'result.json'} cannot be written: {error}") from error
    session.config.hook.pytest_flagperf_result(config=session.config, item=item, result=result, directory=directory)
