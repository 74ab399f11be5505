"""From one problem to its Result: ask the worker, make figures of the reply, judge."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from pytest_flagperf import errors
from pytest_flagperf import metrics
from pytest_flagperf import result as results
from pytest_flagperf import samples
from pytest_flagperf import verdict
from pytest_flagperf.devices.vendor import Chip
from pytest_flagperf.errors import DeviceOutOfMemory
from pytest_flagperf.errors import FlagPerfError
from pytest_flagperf.errors import LaunchFailed
from pytest_flagperf.errors import OperatorFailed
from pytest_flagperf.measured import chip_of
from pytest_flagperf.operators import figures
from pytest_flagperf.operators import peaks
from pytest_flagperf.operators.case import ResolvedOperator
from pytest_flagperf.operators.pool import Answer
from pytest_flagperf.operators.pool import Place
from pytest_flagperf.operators.pool import Pool
from pytest_flagperf.operators.problems import to_json
from pytest_flagperf.operators.warm import Limit
from pytest_flagperf.provision import Devices


# How a problem is measured where no option says otherwise; the smoke set is to take less than a minute.
BUDGET, SMOKE_BUDGET = 1.0, 0.15
WARMUP, SMOKE_WARMUP = 0.5, 0.05
LEAST, SMOKE_LEAST = 5, 3
MOST = 10_000
SEED = 1

# The limit of a problem without --timeout: no sign of life for a minute, and for as long as one call takes a device of
# 1 GFLOP/s. A processor without the instructions of a type is that slow.
LIMIT = 60.0
_SLOWEST = 1e9

# Of the monitor's figures those that mean something over a window shorter than its interval.
_WATCHED = ("temperature", "clock", "throttled", "memory_device_peak", "device_utilization", "cpu_utilization")


@dataclass(frozen=True)
class Outcome:
    """What came of a problem. At most one of ``error``, ``wrong`` and ``unsupported`` is told."""

    result: results.Result
    error: FlagPerfError | None = None
    wrong: str = ""
    unsupported: str = ""


class Engine:
    """Measures problems; the same for tests and for ``flagperf bench``."""

    def __init__(self, place: Place, pool: Pool) -> None:
        self.place, self.pool = place, pool

    def measure(
        self,
        one: ResolvedOperator,
        devices: Devices,
        *,
        rerun: Sequence[str],
        on_wait: Callable[[str], None] = lambda text: None,
    ) -> Outcome:
        """Measure one problem; what goes wrong is in the outcome, and raises nothing but what ends the session."""
        started = time.time()
        answer = None
        try:
            answer = self.pool.ask(one, devices, self.request(one), self.limit(one), on_wait)
            outcome = self._judge(one, answer, rerun, started)
        except FlagPerfError as error:
            outcome = self.refused(one, error, rerun, answer, started)
        except OSError as error:
            failed = LaunchFailed(f"the worker could not be run: {error}")
            failed.__cause__ = error
            outcome = self.refused(one, failed, rerun, answer, started)
        return outcome

    def request(self, one: ResolvedOperator) -> dict[str, Any]:
        """What the worker is asked, without its number."""
        options, smoke = self.place.options, "smoke" in one.sets
        return {
            "problem": to_json(one.problem),
            "precision": one.precision,
            "direction": one.direction,
            "seed": SEED,
            "budget": options.budget or (SMOKE_BUDGET if smoke else BUDGET),
            "cache": options.cache,
            "warmup": SMOKE_WARMUP if smoke else WARMUP,
            "least": SMOKE_LEAST if smoke else LEAST,
            "most": MOST,
        }

    def limit(self, one: ResolvedOperator) -> Limit:
        """How long the worker may take: ``--timeout`` in all, or else how long it may be silent."""
        if self.place.options.timeout:
            return Limit(self.place.options.timeout)
        return Limit(LIMIT + (one.problem.longest_flops(one.direction) or 0) / _SLOWEST, of_silence=True)

    def refused(
        self,
        one: ResolvedOperator,
        error: FlagPerfError,
        rerun: Sequence[str],
        answer: Answer | None = None,
        started: float | None = None,
    ) -> Outcome:
        """The outcome of a problem that could not be measured."""
        facts = {} if answer is None else _facts(answer)
        result = self._result(one, verdict.INVALID, rerun, answer, facts=facts, error=error, started=started)
        return Outcome(result, error=error)

    def _judge(self, one: ResolvedOperator, answer: Answer, rerun: Sequence[str], started: float) -> Outcome:
        reply = answer.reply
        status, message = str(reply.get("status")), str(reply.get("message", ""))
        if status == "unsupported":
            reason = message or f"{one.framework} has no such kernel here"
            result = self._result(one, verdict.UNSUPPORTED, rerun, answer, notes=[reason], started=started)
            return Outcome(result, unsupported=reason)
        if status == "wrong" or (status == "measured" and reply.get("correct") is False):
            found = reply.get("figures") or {}
            error = found.get("max_relative_error", "unknown")
            text = message or f"the largest relative error is {error}, the bound {reply.get('error_bound', 'unknown')}"
            facts = _facts(answer)
            result = self._result(one, verdict.WRONG, rerun, answer, notes=[text], facts=facts, started=started)
            return Outcome(result, wrong=text)
        if status == "out_of_memory":
            raise DeviceOutOfMemory(message or "the problem does not fit into the device's memory")
        if status != "measured":
            raise _failed(message or f"the worker answered {status!r}")
        return self._measured(one, answer, rerun, started)

    def _measured(self, one: ResolvedOperator, answer: Answer, rerun: Sequence[str], started: float) -> Outcome:
        samples.refuse_foreign(answer.seen)
        seen = samples.metrics_of(_without_power(answer.seen), answer.window, hot=self.place.vendor.hot)
        watched = {name: seen.figures[name] for name in _WATCHED if name in seen.figures}
        chip = self._chip(one, answer)
        ceilings = self._ceilings(one, answer, chip[1] if chip else None, watched.get("clock"))
        found = figures.of_reply(one, answer.reply, ceilings)
        metrics.refuse_impossible(watched)
        facts = {**found.facts, "roofline": found.roofline, **self._published(one, found.metrics.get("time_mean"))}
        if found.peak is not None:
            peak = found.peak
            facts["peak"] = {
                "value": peak.value,
                "unit": peak.unit,
                "source": peak.source,
                "estimated": peak.estimated,
            }
        result = self._result(
            one,
            verdict.PASSED,
            rerun,
            answer,
            found={**found.metrics, **watched},
            notes=[*found.notes, *seen.notes],
            facts=facts,
            started=started,
        )
        return Outcome(result)

    def _chip(self, one: ResolvedOperator, answer: Answer) -> tuple[str, Chip] | None:
        if one.stand_in:
            return None
        named = self.place.vendor.chip(str(answer.reply.get("device_name", "")))
        return named or chip_of(self.place.vendor, answer.seen)

    def _ceilings(
        self, one: ResolvedOperator, answer: Answer, chip: Chip | None, clock: float | None
    ) -> peaks.Ceilings:
        if one.stand_in:
            return peaks.Ceilings({})
        threads = answer.reply.get("threads")
        known = isinstance(threads, int) and not isinstance(threads, bool) and threads > 0
        return peaks.of_device(self.place.vendor, chip, threads=threads if known else None, clock=clock)

    def _published(self, one: ResolvedOperator, mean: float | None) -> dict[str, Any]:
        """What ``--published`` names for this problem: its time in µs, and that divided by ours, a mean by a mean."""
        processor = self.place.options.published
        if processor is None or not mean:
            return {}
        from pytest_flagperf.operators import published

        ranks = one.selection.topology.world_size if one.case.family == "all_reduce" else None
        key = published.key(one.problem, one.direction, one.precision, ranks)
        found = published.times(processor).get(key)
        if found is None:
            return {}
        return {
            "published": {
                "processor": found.processor,
                "time": found.time,
                "ratio": found.time / mean,
                "arithmetic": found.arithmetic,
                "source": f"{found.workbook}, {found.sheet}, row {found.row}",
                "notes": list(found.notes),
            }
        }

    def _result(
        self,
        one: ResolvedOperator,
        outcome: str,
        rerun: Sequence[str],
        answer: Answer | None,
        *,
        found: Mapping[str, float] | None = None,
        notes: Sequence[str] = (),
        facts: Mapping[str, Any] | None = None,
        error: FlagPerfError | None = None,
        started: float | None = None,
    ) -> results.Result:
        chip = self._chip(one, answer) if answer is not None else None
        request = self.request(one)
        return results.Result(
            case=results.CaseInfo(
                id=one.id,
                node_id=one.node_id,
                model=one.case.family,
                kind=one.case.kind,
                role=one.direction,
                framework=one.framework,
                precision=one.precision,
                topology=str(one.selection.topology),
                scale=one.set,
                vendor=one.vendor,
                devices=list(answer.devices) if answer is not None else [],
                unit="calls",
                chip=chip[0] if chip else None,
                stand_in=one.stand_in,
            ),
            verdict=outcome,
            metrics=results.with_units(found or {}),
            targets=[],
            rounds=[],
            configuration={},
            dataset=results.DatasetInfo(name="generated", synthetic=True),
            rerun=list(rerun),
            notes=list(notes),
            error=results.ErrorResult.of(error),
            operator={
                "problem": request.pop("problem"),
                "id": one.problem.id,
                "sets": list(one.sets),
                "request": request,
                "file": _file(one),
                "time_started": started,
                "logs": str(answer.host_dir) if answer is not None else "",
                **(facts or {}),
            },
        )


def _without_power(seen: samples.Samples) -> samples.Samples:
    """A problem is too short for its energy: so nothing is said of it either, not even that it is absent."""
    kept = [
        replace(one, figures={name: value for name, value in one.figures.items() if name not in ("power", "energy")})
        for one in seen.samples
    ]
    return replace(seen, samples=tuple(kept))


def _failed(text: str) -> FlagPerfError:
    """The error that a failed reply tells of: one of ours by its name, any other is the kernel's."""
    name, _, rest = text.partition(": ")
    kind = getattr(errors, name, None)
    if isinstance(kind, type) and issubclass(kind, FlagPerfError):
        return kind(rest)
    return OperatorFailed(text)


def _facts(answer: Answer) -> dict[str, Any]:
    """What a reply says beside figures, where there are none that count."""
    kept = ("error_bound", "precision", "device_name", "threads", "data", "figures")
    return {name: answer.reply[name] for name in kept if answer.reply.get(name) is not None}


def _file(one: ResolvedOperator) -> dict[str, str]:
    """The file that the problem is from, and its checksum."""
    if not isinstance(one.case.problems, str):
        return {}
    path = one.directory / "problems" / one.case.problems
    return {"path": str(path), "sha256": _checksum(path)}


@lru_cache(maxsize=64)
def _checksum(path: Path) -> str:
    import hashlib

    return hashlib.sha256(path.read_bytes()).hexdigest()


def message(outcome: Outcome, one: ResolvedOperator, path: Path, text: str) -> str:
    """What a test's failure says: what happened, which problem, where to read on and how to run it again.

    The reason first: pytest's summary shows the first line beside the test's id, which says the rest.
    """
    first, _, more = text.partition("\n")
    return "\n".join([first, *([more] if more else []), f"problem: {one.label}", where(outcome, path)])


def where(outcome: Outcome, path: Path) -> str:
    """The files of a problem and the command that measures it again."""
    logs = outcome.result.operator.get("logs")
    lines = [*([f"logs:   {logs}"] if logs else []), f"result: {path}"]
    return "\n".join([*lines, f"rerun:  {shlex.join(outcome.result.rerun)}"])
