"""What the ``operators`` fixture gives: a problem measured by the pool's workers, its Result handed to every report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from pytest_flagperf import verdict
from pytest_flagperf import words
from pytest_flagperf.errors import FlagPerfError
from pytest_flagperf.errors import LaunchFailed
from pytest_flagperf.errors import WrongResult
from pytest_flagperf.judging import compare
from pytest_flagperf.judging import gate
from pytest_flagperf.judging import provenance
from pytest_flagperf.judging import resume as resuming
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
        self.results = Results(directory)
        self.pool = Pool(session, directory)

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
        outcome, reason = self._resumed(case, devices, code, stack)
        if outcome is None:
            outcome = engine.measure(case, devices, rerun=self.session.rerun(self.item), on_wait=self._wait)
            notes = [*outcome.result.notes, *([reason] if reason else [])]
            known = msgspec.structs.replace(outcome.result, code=code, stack=stack, notes=notes)
            try:
                outcome = self._confirmed(replace(outcome, result=self._judged(known)), engine, case, devices, mine)
            except FlagPerfError as error:
                outcome = engine.refused(case, error, self.session.rerun(self.item))
        self._publish(outcome, mine)
        if outcome.unsupported:
            pytest.skip(outcome.unsupported)
        if outcome.error is not None:
            raise self._explained(outcome, case, mine).with_traceback(None)
        return Measurement(case, outcome, mine.results.path, self.session.options.on_inconclusive)

    def _confirmed(
        self, first: Outcome, engine: Engine, case: ResolvedOperator, devices: Devices, mine: Workers
    ) -> Outcome:
        """What looks changed is measured again before it is called so; both measurements are kept."""
        if not compare.alarming(first.result):
            return first
        mine.results.append(first.result)
        second = engine.measure(case, devices, rerun=self.session.rerun(self.item), on_wait=self._wait)
        if second.error is not None or second.wrong or second.unsupported:
            return second
        told = first.result
        known = msgspec.structs.replace(second.result, code=told.code, stack=told.stack, notes=told.notes)
        return replace(second, result=compare.settled(told, self._judged(known)))

    def _judged(self, result: Result) -> Result:
        """With its comparisons. A problem has no rounds that could be added: one not decided stays so."""
        judged: Result = self.session.gate.judged(result)
        if judged.verdict != verdict.INCONCLUSIVE or self.session.options.on_inconclusive != "rerun":
            return judged
        note = "not decided, and an operator has no rounds to add: run it in further sessions"
        return msgspec.structs.replace(judged, notes=[*judged.notes, note])

    def _resumed(
        self, case: ResolvedOperator, devices: Devices, code: str, stack: Mapping[str, str]
    ) -> tuple[Outcome | None, str]:
        """What the session in ``--resume`` has of the problem, judged anew, or why it is measured again."""
        resume = self.session.resume
        if resume is None:
            return None, ""
        offer = resume.operator(case.node_id, code, stack, case=case, devices=devices, session=self.session)
        if offer.result is None:
            self.session.tell_elsewhere(case.id, case.node_id, offer)
            return None, offer.reason
        notes = resuming.noted(offer.result.notes, resume.note())
        taken = msgspec.structs.replace(offer.result, notes=notes, rerun=self.session.rerun(self.item))
        self.session.note("resumed", case=case.id, test=case.node_id, session=resume.name, rounds=[])
        said = next(iter(offer.result.notes), "")
        unsupported = said if taken.verdict == verdict.UNSUPPORTED else ""
        wrong = said if taken.verdict == verdict.WRONG else ""
        return Outcome(self._judged(taken), wrong=wrong, unsupported=unsupported), ""

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
        try:
            mine.results.append(outcome.result)
        except OSError as error:
            raise LaunchFailed(f"{mine.results.path} cannot be written: {error}") from error
        self.config.hook.pytest_flagperf_result(
            config=self.config, item=self.item, result=outcome.result, directory=mine.results.path.parent
        )

    @staticmethod
    def _explained(outcome: Outcome, case: ResolvedOperator, mine: Workers) -> FlagPerfError:
        assert outcome.error is not None
        outcome.error.args = (message(outcome, case, mine.results.path, str(outcome.error)),)
        return outcome.error
