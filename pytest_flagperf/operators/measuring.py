"""What the ``operators`` fixture gives: a problem measured by the pool's workers, its Result handed to every report."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from pytest_flagperf import sessions
from pytest_flagperf import verdict
from pytest_flagperf import words
from pytest_flagperf.errors import FlagPerfError
from pytest_flagperf.errors import LaunchFailed
from pytest_flagperf.errors import OperatorFailed
from pytest_flagperf.errors import WrongResult
from pytest_flagperf.judging import compare
from pytest_flagperf.judging import gate
from pytest_flagperf.judging import provenance
from pytest_flagperf.judging import resume as resuming
from pytest_flagperf.judging import rounds
from pytest_flagperf.judging.resume import Offer
from pytest_flagperf.operators.case import ResolvedOperator
from pytest_flagperf.operators.engine import Engine
from pytest_flagperf.operators.engine import Outcome
from pytest_flagperf.operators.engine import message
from pytest_flagperf.operators.engine import where
from pytest_flagperf.operators.pool import Pool
from pytest_flagperf.provision import Devices
from pytest_flagperf.reports.progress import Progress
from pytest_flagperf.result import Result
from pytest_flagperf.result import Results
from pytest_flagperf.session import Session


# Of the valid measurements there are so far, and the notes of the new one, the new one.
Measure = Callable[[Sequence[Result], Sequence[str]], Outcome]

NO_ROUNDS = "not decided, and an operator has no rounds to add: run it in further sessions"


@dataclass(frozen=True)
class Measurement:
    """A problem that was measured, or whose answer was found to be wrong: what the test asserts on."""

    case: ResolvedOperator
    outcome: Outcome
    path: Path
    on_inconclusive: str = "pass"

    @property
    def result(self) -> Result:
        """The Result that the reports got."""
        return self.outcome.result

    @property
    def metrics(self) -> dict[str, float]:
        """Name → value, in the registry's units."""
        return {name: metric.value for name, metric in self.result.metrics.items()}

    def correct(self) -> bool:
        """True where the timed call's answer was right, and it took no longer than its baseline.

        Else raises ``WrongResult`` that says how wrong it was, ``Regressed`` or ``Undecided``.
        """
        __tracebackhide__ = True
        if self.outcome.wrong:
            text = f"the kernel's answer is wrong: {self.outcome.wrong}"
            raise WrongResult(message(self.outcome, self.case, self.path, text))
        # <session>/operators/<worker>/results.jsonl
        complaint = gate.complaint(self.result, self.case.label, self.path.parents[2], self.on_inconclusive)
        if complaint is not None:
            complaint.args = (f"{complaint}\n{where(self.outcome, self.path)}",)
            raise complaint
        return True


class Workers:
    """The pool of a pytest process, made when the first problem is measured, and where its results go."""

    def __init__(self, session: Session) -> None:
        where = getattr(session.config, "workerinput", {}).get("workerid", "main")
        directory = session.open() / "operators" / where
        # What the session holds already: another process may have started a test and died.
        self.kept = sessions.operator_lines(session.directory)
        self.results = Results(directory)
        self.pool = Pool(session, directory)

    def keep(self, result: Result) -> None:
        """Add a line to the results. Raises ``LaunchFailed`` where it cannot be written."""
        try:
            self.results.append(result)
        except OSError as error:
            raise LaunchFailed(f"{self.results.path} cannot be written: {error}") from error
        self.kept.setdefault(result.case.node_id, []).append(result)

    def earlier(self, node_id: str) -> list[Result]:
        """What the session's earlier attempts of a test left, in their order: a failed test may be run again."""
        return list(self.kept.get(node_id, ()))

    def close(self) -> None:
        """End the workers."""
        try:
            self.pool.close()
        finally:
            self.results.close()


def workers(config: pytest.Config) -> Workers:
    """The process' workers; ``plugin`` ends them with the session."""
    if words.WORKERS not in config.stash:
        try:
            config.stash[words.WORKERS] = Workers(config.stash[words.SESSION])
        except OSError as error:
            raise LaunchFailed(f"no results can be written: {error}") from error
    return config.stash[words.WORKERS]


class Operators:
    """Measures problems for one test."""

    def __init__(self, config: pytest.Config, item: pytest.Item, progress: Progress) -> None:
        self.config, self.item, self.progress = config, item, progress
        self.session = config.stash[words.SESSION]

    def measure(self, case: ResolvedOperator, devices: Devices) -> Measurement:
        """Measure ``case`` and record its Result.

        What the framework has no kernel for is skipped with its own reason. Raises a ``FlagPerfError`` where the
        measurement could not be made or trusted; a wrong answer is told by ``Measurement.correct``.
        """
        __tracebackhide__ = True
        case = self._own(case)
        mine = workers(self.config)
        engine = Engine(self.session, mine.pool)
        code = provenance.of_operator(case, engine.request(case))
        stack = provenance.stack(self.session, case.framework)

        def measured(known: Sequence[Result], notes: Sequence[str]) -> Outcome:
            rerun = self.session.rerun(self.item)
            made = engine.measure(case, devices, rerun=rerun, on_wait=self._wait)
            before = next((one for one in known if one.verdict != verdict.UNSUPPORTED), None)
            if made.unsupported and before is not None:
                told = f"it was measured before ({before.verdict}), and now has no kernel: {made.unsupported}"
                made = engine.refused(case, OperatorFailed(told), rerun)
            made_here = msgspec.structs.replace(made.result, code=code, stack=stack, notes=[*made.result.notes, *notes])
            return replace(made, result=self.session.gate.judged(made_here))

        try:
            offer = self._offered(case, devices, code, stack)
            outcome = self._outcome(offer, mine.earlier(case.node_id), measured, mine)
        except FlagPerfError as error:
            outcome = engine.refused(case, error, self.session.rerun(self.item))
        self._publish(outcome, mine)
        if outcome.unsupported:
            pytest.skip(outcome.unsupported)
        if outcome.error is not None:
            raise self._explained(outcome, case, mine).with_traceback(None)
        return Measurement(case, outcome, mine.results.path, self.session.options.on_inconclusive)

    def _outcome(self, offer: Offer, earlier: Sequence[Result], measured: Measure, mine: Workers) -> Outcome:
        """What comes of a problem. What looks changed is measured again before it is called so, and all are kept.

        Measurements of the session in ``--resume`` count as if they were made here, and those of ``earlier`` attempts
        in this session as if they were this one's: who runs a test again gets no better of two.
        """
        # Who took it, and measured here since, has that too.
        taken = [] if any(not resuming.source_of(one) for one in earlier) else self._taken(offer)
        known = [one.result for one in taken] or [one for one in earlier if one.error is None]
        first = next(filter(compare.alarming, known), None)
        complete = bool(taken) and known[-1] is not first
        for one in known[len(earlier) : -1 if complete else None] if taken else ():
            mine.keep(one)
        if complete:
            result = known[-1]
            if offer.reason and offer.reason not in result.notes:
                result = msgspec.structs.replace(result, notes=[*result.notes, offer.reason])
            return replace(taken[-1], result=self._undecided(result))
        outcome = measured(known, self._of_others(offer, first))
        before = known if taken else list(earlier)
        if first is None and compare.alarming(outcome.result):
            first = outcome.result
            mine.keep(first)
            before.append(first)
            outcome = measured([*known, first], self._of_others(offer, None))
        result = outcome.result
        if first is not None and outcome.error is None and not outcome.wrong:
            result = compare.settled(first, result)
            before = [one for one in before if one is not first]
        notes = rounds.chosen([resuming.told_of_operator(one) for one in before], "measurement")
        result = msgspec.structs.replace(result, notes=[*result.notes, *notes])
        return replace(outcome, result=self._undecided(result))

    @staticmethod
    def _of_others(offer: Offer, first: Result | None) -> list[str]:
        """What a measurement says of those of other sessions, the first of the two among them."""
        source = resuming.source_of(first) if first is not None else ""
        told = f"the first measurement, which looked changed, is of session {source}" if source else ""
        return [note for note in (offer.reason, told) if note]

    def _undecided(self, result: Result) -> Result:
        """A problem has no rounds that could be added: a comparison that is not decided stays so, and says why."""
        if result.verdict != verdict.INCONCLUSIVE or self.session.options.on_inconclusive != "rerun":
            return result
        notes = [*(note for note in result.notes if note != NO_ROUNDS), NO_ROUNDS]
        return msgspec.structs.replace(result, notes=notes)

    def _offered(self, case: ResolvedOperator, devices: Devices, code: str, stack: Mapping[str, str]) -> Offer:
        """What the session in ``--resume`` has of the problem, or why it is measured again."""
        resume = self.session.resume
        if resume is None:
            return Offer()
        offer: Offer = resume.operator(case.node_id, code, stack, case=case, devices=devices, session=self.session)
        self.session.tell_elsewhere(case.id, case.node_id, offer)
        return offer

    def _taken(self, offer: Offer) -> list[Outcome]:
        """The measurements of the earlier session, judged anew; none where there is none to take."""
        resume = self.session.resume
        if resume is None or offer.result is None:
            return []
        case = offer.result.case
        self.session.note("resumed", case=case.id, test=case.node_id, session=resume.name, rounds=[])
        found: list[Outcome] = []
        first: Result | None = None
        for one in (*offer.before, offer.result):
            again = self._again(one, resume.note())
            if first is None:
                first = again.result if compare.alarming(again.result) else None
            elif not again.wrong:
                again = replace(again, result=compare.settled(first, again.result))
            found.append(again)
        return found

    def _again(self, recorded: Result, note: str) -> Outcome:
        notes = resuming.noted(recorded.notes, note)
        taken = msgspec.structs.replace(recorded, notes=notes, rerun=self.session.rerun(self.item))
        said = next(iter(recorded.notes), "")
        return Outcome(
            self.session.gate.judged(taken),
            wrong=said if taken.verdict == verdict.WRONG else "",
            unsupported=said if taken.verdict == verdict.UNSUPPORTED else "",
        )

    def refuse(self, case: ResolvedOperator, failed: FlagPerfError) -> None:
        """Record a problem that could not even be started, and complete the message of ``failed``."""
        __tracebackhide__ = True
        case = self._own(case)
        mine = workers(self.config)
        outcome = Engine(self.session, mine.pool).refused(case, failed, self.session.rerun(self.item))
        self._publish(outcome, mine)
        self._explained(outcome, case, mine)

    def _own(self, case: ResolvedOperator) -> ResolvedOperator:
        stand_in = (self.session.stand_in(case.framework) or {}).get("device", "")
        return case.of(self.item.nodeid, self.session.vendor.name, stand_in)

    def _wait(self, text: str) -> None:
        self.progress.line(self.item.name, text)

    def _publish(self, outcome: Outcome, mine: Workers) -> None:
        mine.keep(outcome.result)
        self.config.hook.pytest_flagperf_result(
            config=self.config, item=self.item, result=outcome.result, directory=mine.results.path.parent
        )

    @staticmethod
    def _explained(outcome: Outcome, case: ResolvedOperator, mine: Workers) -> FlagPerfError:
        assert outcome.error is not None
        outcome.error.args = (message(outcome, case, mine.results.path, str(outcome.error)),)
        return outcome.error
