"""From a case to its Result: lease devices, run the rounds, judge, record.

This is where the rooms meet; what each does it does itself.
"""

from __future__ import annotations

import contextlib
import shlex
import time
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pytest_flagperf import loadgen_log
from pytest_flagperf import replay
from pytest_flagperf import result as results
from pytest_flagperf import sessions
from pytest_flagperf import verdict
from pytest_flagperf.attempt import Attempt
from pytest_flagperf.case import ResolvedCase
from pytest_flagperf.devices import lease as leases
from pytest_flagperf.errors import FlagPerfError
from pytest_flagperf.errors import InvalidMeasurement
from pytest_flagperf.errors import LaunchFailed
from pytest_flagperf.errors import Regressed
from pytest_flagperf.judging import gate as gating
from pytest_flagperf.judging import grants
from pytest_flagperf.judging import provenance
from pytest_flagperf.judging import resume as resuming
from pytest_flagperf.judging import rounds as judging
from pytest_flagperf.measured import Measured
from pytest_flagperf.provision import Data
from pytest_flagperf.provision import Devices
from pytest_flagperf.reports.progress import Progress
from pytest_flagperf.rounds import Round
from pytest_flagperf.run import Run
from pytest_flagperf.run import Surroundings
from pytest_flagperf.run import asked_of
from pytest_flagperf.run import build_result
from pytest_flagperf.run import figures_of
from pytest_flagperf.run import judge_rounds
from pytest_flagperf.run import round_result
from pytest_flagperf.session import Session
from pytest_flagperf.session import masked


class Launcher:
    """What the ``launcher`` fixture gives."""

    def __init__(self, session: Session, item: pytest.Item, progress: Progress) -> None:
        self.session = session
        self.item = item
        self.progress = progress

    def run(self, case: ResolvedCase, devices: Devices, dataset: Data) -> Run:
        """Run all rounds of ``case``, judge them, and give what was measured.

        Raises a ``FlagPerfError`` where the measurement could not be made or trusted, and ``Regressed`` where a round
        was stopped because it left the band of its baseline's curves. Either way a ``result.json`` is written and
        handed to the reports first.
        """
        __tracebackhide__ = True
        case = replace(case, node_id=self.item.nodeid)
        directory = self._directory(case)
        notes = [*case.notes, *self._unwatched(case)]
        attempt = Attempt(notes=notes, code=provenance.digest(case), files=provenance.files(case))
        failed: FlagPerfError | Regressed | None = None
        taken: results.Result | None = None
        try:
            taken = self._resumed(case, devices, dataset, directory, attempt)
            if taken is None:
                result = self._measured(case, devices, dataset, directory, attempt)
        except (FlagPerfError, Regressed) as error:
            failed = error
        except OSError as error:
            failed = LaunchFailed(f"the job in {directory} could not be run: {error}")
            failed.__cause__ = error
        if failed is not None:
            self._record(case, self._result(case, dataset, attempt, failed), directory, failed)
            raise failed
        if taken is not None and taken.error is not None:
            # It was stopped because it left its baseline's band, and is recorded as that already.
            raise Regressed(taken.error.message)
        return self._run(case, taken or self._record(case, result, directory), directory)

    def _measured(
        self, case: ResolvedCase, devices: Devices, dataset: Data, directory: Path, attempt: Attempt
    ) -> results.Result:
        """What comes of all rounds, launched or replayed."""
        __tracebackhide__ = True
        if case.recorded is not None:
            self._replay(case, attempt)
        else:
            self._launch(case, devices, dataset, directory, attempt)
        result = self._result(case, dataset, attempt, None)
        self.session.gate.refuse_too_fast(result)
        return result

    def _run(self, case: ResolvedCase, result: results.Result, directory: Path) -> Run:
        def republish(anew: results.Result) -> None:
            publish(self.session, self.item, anew, directory)

        return Run(case, result, directory, self.session.options.on_inconclusive, republish)

    def _resumed(
        self, case: ResolvedCase, devices: Devices, dataset: Data, directory: Path, attempt: Attempt
    ) -> results.Result | None:
        """The case's result of the session in ``--resume``, taken over and judged anew; ``None`` where it runs."""
        resume = self.session.resume
        if resume is None or case.recorded is not None:
            return None
        stack = provenance.stack(self.session, case.selection.framework)

        def lacking(recorded: results.Result) -> str:
            found = self._rounds_lacking(recorded)
            attempt.least = len(recorded.rounds) if found else 0
            return found

        offer = resume.case(
            case,
            attempt.code,
            stack,
            self.session.options.rounds,
            dataset=dataset,
            devices=devices,
            session=self.session,
            lacking=lacking,
        )
        attempt.notes += [offer.reason] if offer.reason else []
        if offer.result is None:
            self.session.tell_elsewhere(case.id, case.node_id, offer)
            return None
        taken = resume.take(offer, directory)
        self.session.ledger(
            "resumed",
            case=case.id,
            test=case.node_id,
            session=resume.name,
            directory=str(directory),
            rounds=resuming.rounds_of(taken),
        )
        judged = self.session.gate.judged(msgspec.structs.replace(taken, rerun=self.session.rerun(self.item)))
        publish(self.session, self.item, judged, directory)
        return judged

    def _rounds_lacking(self, recorded: results.Result) -> str:
        """Why a result of an earlier session is to run again though it is valid; an empty text where it is not.

        Beside the baseline of today it is not decided, and this session grants it rounds that it has not had.
        """
        options, done = self.session.options, len(recorded.rounds)
        if options.on_inconclusive != "rerun" or gating.next_rounds(done, options.max_rounds) == done:
            return ""
        if self.session.gate.judged(recorded).verdict != verdict.INCONCLUSIVE:
            return ""
        spent = grants.spent(recorded)
        if options.rerun_budget is not None and spent is not None and options.rerun_budget <= spent:
            return ""
        counted = "1 round" if done == 1 else f"{done} rounds"
        return f"it is inconclusive after {counted}, and --on-inconclusive=rerun grants up to {options.max_rounds}"

    def refuse(self, case: ResolvedCase, failed: FlagPerfError) -> None:
        """Record a case that could not even start: no device, no dataset."""
        __tracebackhide__ = True
        case = replace(case, node_id=self.item.nodeid)
        result = self._result(case, Data(case.scale.dataset), Attempt(code=provenance.digest(case)), failed)
        self._record(case, result, self._directory(case), failed)

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
            # Whoever had to wait for the devices may have been edited meanwhile.
            refuse_changed_code(case, attempt)
            with self._entered(case, devices, lease):
                rounds = max(self.session.options.rounds, attempt.least)
                attempt.guard = self.session.gate.guard(self._result(case, dataset, attempt, None), rounds)

                def one_round(number: int, of: int) -> None:
                    self._round(case, directory, lease, dataset, attempt, number, of)

                for number in range(1, rounds + 1):
                    one_round(number, rounds)
                self._decide(case, dataset, attempt, one_round)
        self.progress.end()

    def _round(
        self,
        case: ResolvedCase,
        directory: Path,
        lease: leases.Lease,
        dataset: Data,
        attempt: Attempt,
        number: int,
        of: int,
    ) -> None:
        __tracebackhide__ = True
        one = Round(self.session, case, directory, number, lease, dataset, self.progress, of=of, guard=attempt.guard)
        try:
            attempt.note(one.run(attempt.rounds))
        except Regressed:
            refuse_changed_code(case, attempt)
            if not judging.may_drop(attempt.rounds, case.targets, of):
                raise
        finally:
            attempt.container = one.container.record() if one.container else {}
        refuse_changed_code(case, attempt)

    def _decide(
        self, case: ResolvedCase, dataset: Data, attempt: Attempt, one_round: Callable[[int, int], None]
    ) -> None:
        """Add rounds until the comparison with the baseline is decided, or what was granted is spent."""
        __tracebackhide__ = True
        if self.session.options.on_inconclusive != "rerun":
            return
        options, started, first = self.session.options, time.monotonic(), len(attempt.rounds)
        limit, spent = options.rerun_budget, ""
        while not spent and self._result(case, dataset, attempt, None).verdict == verdict.INCONCLUSIVE:
            wanted = gating.next_rounds(len(attempt.rounds), options.max_rounds)
            spent = f"--max-rounds={options.max_rounds}" if wanted == len(attempt.rounds) else ""
            while not spent and len(attempt.rounds) < wanted:
                took = time.monotonic() - started
                each = took / max(1, len(attempt.rounds) - first)
                if limit is not None and took + each > limit:
                    spent = grants.budget(limit)
                else:
                    one_round(len(attempt.rounds) + 1, wanted)
        if len(attempt.rounds) > first:
            attempt.notes.append(f"rounds added to decide the comparison: {len(attempt.rounds) - first}")
        if spent and self._result(case, dataset, attempt, None).verdict == verdict.INCONCLUSIVE:
            attempt.notes.append(grants.undecided(len(attempt.rounds), spent))

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
                said = Measured({}, loadgen=loadgen_log.said_in(directory))
                attempt.rounds.append(round_result(number, None, directory, None, said, failed))
                raise
            attempt.rounds.append(round_result(number, None, directory, None, measured, None))
            attempt.note(measured)

    def _record(
        self,
        case: ResolvedCase,
        result: results.Result,
        directory: Path,
        failed: FlagPerfError | Regressed | None = None,
    ) -> results.Result:
        """Write the result and hand it to the reports; completes the message of ``failed``."""
        __tracebackhide__ = True
        left = judging.chosen(judging.unaccounted(self._ledger(case, directory), result))
        result = msgspec.structs.replace(result, notes=[*result.notes, *left])
        publish(self.session, self.item, result, directory)
        if failed is not None:
            # The message is completed here, where the case, its files and the way to run it again are known.
            rerun = shlex.join(result.rerun)
            failed.args = (f"{case.label}: {failed}\nresult: {directory / 'result.json'}\nrerun:  {rerun}",)
        return result

    def _result(
        self, case: ResolvedCase, dataset: Data, attempt: Attempt, failed: FlagPerfError | Regressed | None
    ) -> results.Result:
        """What there is so far, judged."""
        targets = asked_of(case, dataset)
        # A round of another role that missed a target is no bad luck.
        dropping = targets if case.role == "convergence" else ()
        rounds = judging.drop(attempt.rounds, dropping) if failed is None else attempt.rounds
        judged = judge_rounds(targets, [figures_of(one) for one in rounds if not one.dropped])
        figures, spreads = judging.of_rounds(rounds) if failed is None else ({}, {})
        result = build_result(
            case,
            _outcome(judged, failed),
            figures,
            judged,
            rounds,
            dataset,
            attempt.devices,
            notes=attempt.notes,
            chip=attempt.chip or self._chip(case),
            ran=self._surroundings(case, attempt),
            rerun=self.session.rerun(self.item),
            error=failed,
            spreads=spreads,
            stack=self._stack(case, [Path(one.directory) for one in rounds]),
            code=attempt.code,
        )
        return self.session.gate.judged(result) if failed is None else self.session.gate.stopped(result)

    def _stack(self, case: ResolvedCase, rounds: Sequence[Path]) -> dict[str, str]:
        """The software in force: of a replay what its ranks recorded, and nothing of what is installed here."""
        if case.recorded is not None:
            return provenance.recorded(rounds)
        return provenance.stack(self.session, case.selection.framework, rounds)

    def _ledger(self, case: ResolvedCase, directory: Path) -> list[dict[str, Any]]:
        """The lines that may tell of rounds which do not count: of an earlier attempt, or beside what is replayed."""
        if case.recorded is not None:
            return sessions.ledger(case.recorded.directory.parent)
        return sessions.ledger(self.session.directory) if "~" in directory.name else []


def refuse_changed_code(case: ResolvedCase, attempt: Attempt) -> None:
    """Raises ``InvalidMeasurement`` that names the files of the workload which changed since the case began."""
    if provenance.digest(case) == attempt.code:
        return
    before, now = attempt.files, provenance.files(case)
    changed = [str(path) for path in sorted({*before, *now}) if before.get(path) != now.get(path)]
    raise InvalidMeasurement(
        f"{provenance.CODE_CHANGED} ({', '.join(changed) or 'its configuration'}): nobody "
        "knows which of it was measured. Leave it alone while the case runs, and run the case again"
    )


def _outcome(judged: Sequence[verdict.Judged], failed: FlagPerfError | Regressed | None) -> str:
    if failed is None:
        return verdict.of_targets(judged)
    return verdict.REGRESSED if isinstance(failed, Regressed) else verdict.INVALID


def publish(session: Session, item: pytest.Item, result: results.Result, directory: Path) -> None:
    """Write ``result.json`` and hand the Result to every report."""
    try:
        results.write_result(directory, result)
    except OSError as error:
        raise LaunchFailed(f"{directory / 'result.json'} cannot be written: {error}") from error
    session.config.hook.pytest_flagperf_result(config=session.config, item=item, result=result, directory=directory)
