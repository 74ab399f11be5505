"""From the results of sessions to a baseline: which are fit, which metrics count, which conditions have to agree."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Collection
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import msgspec

from pytest_flagperf import verdict
from pytest_flagperf.errors import ConfigurationError
from pytest_flagperf.judging import resume
from pytest_flagperf.judging.baselines import Baseline
from pytest_flagperf.judging.baselines import CaseBaseline
from pytest_flagperf.judging.baselines import MetricBaseline
from pytest_flagperf.judging.baselines import Source
from pytest_flagperf.judging.baselines import hardware
from pytest_flagperf.metrics import known
from pytest_flagperf.result import EvaluationResult
from pytest_flagperf.result import Result
from pytest_flagperf.sessions import SessionFiles
from pytest_flagperf.weights import TRAINED


# Samples of a metric, and rounds of a curve, that are kept: twenty sessions of five.
KEPT = 100

# What is judged where nobody chose: few, because every further one is a further chance of a false alarm.
JUDGED = ("p_train", "time_to_target", "memory_peak")
JUDGED_OF_OPERATORS = ("time", "capacity")
JUDGED_OF_INFERENCE = ("p_inference_core", "latency_p99", "qps", "tokens_per_second_per_device", "memory_peak")
# A bound on numerical noise, and not a figure to get better at.
NOT_JUDGED = ("output_error",)

# A change that does not count, as a ratio. MLPerf Training publishes a spread of 2.5 % for the time to train of imaging
# benchmarks and of 5 % for others; MLPerf Inference asks for 99 % of the reference's quality.
TOLERANCE = 0.05
TOLERANCE_OF_IMAGING = 0.025
TOLERANCE_OF_QUALITY = 0.01
_IMAGING = ("top1", "top5", "map", "box_ap", "mask_ap")

# What a result and its copies in other sessions share.
Measurement = tuple[str, ...]

# With these a result is no measurement to compare with, and why.
_UNFIT = {
    verdict.INVALID: "the measurement is invalid",
    verdict.WRONG: "the kernel's answer is wrong",
    verdict.MISSED: "a target was missed",
    verdict.UNSUPPORTED: "the device has no such kernel",
    # Both or neither: who kept the better half would raise the bar by chance alone.
    verdict.REGRESSED: "it regressed",
    verdict.IMPROVED: "it improved",
}
# For who names a session, or a reason: a change of its figures is no reason to leave them out.
CHANGED = (verdict.REGRESSED, verdict.IMPROVED)


def unfit(result: Result, accepted: Collection[str] = ()) -> str:
    """Why a result is none to compare others with; ``""`` where it is, or where its verdict is ``accepted``."""
    if result.case.stand_in:
        return f"{result.case.stand_in} stood in for the vendor's device"
    if result.verdict in _UNFIT and result.verdict not in accepted:
        return _UNFIT[result.verdict]
    return "" if result.metrics else "nothing was measured"


def from_sessions(
    found: Sequence[SessionFiles],
    *,
    origin: str = "",
    chosen: Sequence[str] = (),
    accepted: Collection[str] = (),
    known: Collection[str] = (),
    apart: Collection[Measurement] = (),
) -> Baseline:
    """The baseline that sessions are together. ``chosen`` names metrics beside those that are judged anyway.

    ``accepted`` are verdicts that keep no result out. What was taken over from another of the sessions, or from one of
    ``known``, counts there. What is ``apart`` counts in none: it is to be judged. Raises ``ConfigurationError`` where
    the sessions are of different vendors or chips.
    """
    found = _each_once(found, known)
    kinds = {
        (one.case.vendor, one.case.chip or "", "" if one.case.chip else hardware(session.description)): session.name
        for session in found
        for one in session.results
        if not unfit(one, accepted) and measurement(one) not in apart
    }
    if len(kinds) > 1:
        listed = "; ".join(f"{name}: {' '.join(filter(None, kind))}" for kind, name in kinds.items())
        raise ConfigurationError(f"{origin or 'the sessions'}: results of several kinds of devices ({listed})")
    vendor, chip, named = next(iter(kinds), ("", "", ""))
    cases: dict[str, CaseBaseline] = {}
    left_out: dict[str, str] = {}
    for session in found:
        for result in session.results:
            reason = "it is what is to be judged" if measurement(result) in apart else unfit(result, accepted)
            if reason:
                left_out[result.case.id] = f"{session.name}: {reason}"
                continue
            one = of_result(result, session.name, chosen)
            before = cases.get(one.id)
            cases[one.id] = one if before is None or differences(before, one) else joined(before, one)
    return Baseline(
        vendor=vendor,
        chip=chip,
        hardware=named,
        session=[source(one) for one in found],
        case=list(cases.values()),
        origin=origin,
        left_out={case: reason for case, reason in left_out.items() if case not in cases},
    )


def _each_once(found: Sequence[SessionFiles], known: Collection[str]) -> list[SessionFiles]:
    """The sessions without results that were measured in another one."""
    own = {measurement(one) for session in found for one in session.results if not resume.source_of(one)}
    seen: set[tuple[Any, ...]] = set()
    kept = []
    for session in found:
        results = []
        for one in session.results:
            place = measurement(one)
            if resume.source_of(one) and (place in own or place in seen or resume.source_of(one) in known):
                continue
            seen.add(place)
            results.append(one)
        kept.append(dataclasses.replace(session, results=tuple(results), files=()))
    return kept


def measurement(result: Result) -> Measurement:
    """What a result and its copies in other sessions share."""
    times = [one.time_started for one in result.rounds] or [result.operator.get("time_started")]
    return result.case.id, result.case.node_id, *map(str, times), str(result.metrics)


def source(session: SessionFiles) -> Source:
    """Where samples of a session are from."""
    code = session.description.get("source")
    code = code if isinstance(code, dict) else {}
    began = session.time_started
    date = time.strftime("%Y-%m-%d", time.gmtime(began)) if began else ""
    return Source(session.name, date, str(code.get("commit") or ""), bool(code.get("changed")))


def of_result(result: Result, session: str, chosen: Sequence[str] = ()) -> CaseBaseline:
    """A result as a case's baseline, its samples filed under ``session``."""
    case = result.case
    names = [name for name in dict.fromkeys([*judged(result), *chosen]) if name in result.metrics]
    return CaseBaseline(
        id=case.id,
        model=case.model,
        kind=case.kind,
        role=case.role,
        framework=case.framework,
        precision=case.precision,
        topology=case.topology,
        scale=case.scale,
        division=case.division,
        dataset=result.dataset.name,
        checksum=result.dataset.checksum,
        synthetic=result.dataset.synthetic,
        weights=weights(result),
        configuration=configuration(result),
        stack=dict(result.stack),
        targets={one.metric: one.bound for one in result.targets},
        metric={name: _of_metric(result, name, session) for name in names},
        curve={
            f"{session} round {one.round}": curve
            for one in result.rounds
            if case.kind == "training" and one.error is None and not one.dropped and (curve := columns(one.evaluations))
        },
    )


def _of_metric(result: Result, name: str, session: str) -> MetricBaseline:
    metric = result.metrics[name]
    # More digits than any clock has would make a file that nobody reads.
    return MetricBaseline(metric.unit, metric.better, {session: [rounded(one) for one in samples(result, name)]})


def rounded(figure: float) -> float:
    """Seven significant digits of it."""
    return float(f"{figure:.7g}")


def samples(result: Result, name: str) -> list[float]:
    """A metric's figure in each round that has it; of an operator the one figure of the session.

    The calls of an operator within one run hang together: their median is one sample.
    """
    spread = result.spreads.get(name)
    if spread is not None and spread.samples:
        return list(spread.samples)
    found = [one.metrics[name].value for one in result.rounds if name in one.metrics and one.error is None]
    if not found and name in result.metrics:
        found = [result.metrics[name].value]
    return found


def columns(evaluations: Sequence[EvaluationResult]) -> dict[str, list[float]]:
    """Evaluations as columns: ``epoch``, ``step`` and the quality metrics that all of them have."""
    if not evaluations:
        return {}
    shared = [name for name in evaluations[0].quality if all(name in one.quality for one in evaluations)]
    found = {
        "epoch": [rounded(one.epoch) for one in evaluations],
        "step": [float(one.step) for one in evaluations],
    }
    return {**found, **{name: [rounded(one.quality[name]) for one in evaluations] for name in shared}}


def judged(result: Result) -> list[str]:
    """The metrics of a result that are judged where nobody chose."""
    if result.case.kind == "operator":
        return [name for name in JUDGED_OF_OPERATORS if name in result.metrics]
    targets = [one.metric for one in result.targets if one.metric not in NOT_JUDGED]
    first = JUDGED_OF_INFERENCE if result.case.kind == "inference" else JUDGED
    return [name for name in dict.fromkeys([*first, *targets]) if name in result.metrics]


def tolerance(name: str, targets: Iterable[str] = ()) -> float:
    """The change of a metric that does not count where the baseline does not say, as a ratio."""
    registered = known().get(name)
    if registered is not None and registered.quality:
        return TOLERANCE_OF_QUALITY
    if name == "time_to_target" and any(one in _IMAGING for one in targets):
        return TOLERANCE_OF_IMAGING
    return TOLERANCE


def weights(result: Result) -> str:
    """Which weights a model of inference had: ``random``, the file's SHA-256, or the training that makes them.

    A training gives other bytes on other hardware, where the same case has to compare all the same. Its origin ends
    with the quality that it reached there.
    """
    found = result.weights
    if found is None:
        return ""
    if found.origin.startswith(TRAINED):
        return found.origin.partition(" (")[0]
    return found.checksum or found.origin


def configuration(result: Result) -> dict[str, Any]:
    """What was set, without the seed, which rounds change; of an operator the problem, the cache and the threads."""
    if result.case.kind == "operator":
        facts = result.operator
        problem = facts.get("problem") or {}
        found = {key: value for key, value in problem.items() if key not in ("sets", "source", "note", "application")}
        found |= {"cache": (facts.get("request") or {}).get("cache"), "threads": facts.get("threads")}
    else:
        found = {key: setting.value for key, setting in result.configuration.items() if key != "seed"}
    plain: dict[str, Any] = _plain(found)
    return plain


def _plain(value: Any) -> Any:
    """As it comes back from a file: tuples are lists, and what is not set is absent, for TOML has no null."""
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items() if one is not None}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value if one is not None]
    return value


_CONDITIONS = (
    *("model", "kind", "role", "framework", "precision", "topology", "scale", "division"),
    *("dataset", "synthetic"),
)


def differences(stored: CaseBaseline, measured: CaseBaseline) -> list[str]:
    """The conditions in which two measurements of a case differ, so that they do not compare; stack is none of them."""
    found = [
        f"{name} was {getattr(stored, name)!r}, is {getattr(measured, name)!r}"
        for name in _CONDITIONS
        if getattr(stored, name) != getattr(measured, name)
    ]
    if stored.checksum and measured.checksum and stored.checksum != measured.checksum:
        found.append(
            f"the checksum of dataset {stored.dataset} was {stored.checksum[:12]}…, is {measured.checksum[:12]}…"
        )
    # A file need not say which: it had none of them, or was written by hand.
    if stored.weights and measured.weights and stored.weights != measured.weights:
        found.append(f"weights were {stored.weights!r}, are {measured.weights!r}")
    for what, before, after in (
        ("", stored.configuration, measured.configuration),
        ("target ", stored.targets, measured.targets),
    ):
        for key in sorted({*before, *after}):
            if before.get(key) != after.get(key):
                found.append(f"{what}{key} was {before.get(key)!r}, is {after.get(key)!r}")
    return found


def joined(old: CaseBaseline, new: CaseBaseline, ages: Mapping[str, str] = {}) -> CaseBaseline:
    """Both, of which the newest samples are kept. Samples of a session that is in both are those of ``new``.

    ``ages`` has the day of each session; without it ``new`` is the newer.
    """
    metric = dict(old.metric)
    for name, one in new.metric.items():
        before = old.metric.get(name)
        metric[name] = one if before is None else with_samples(before, one.samples, ages)
    rounds = _aged({**old.curve, **new.curve}, ages)
    newest = dict(list(rounds.items())[-KEPT:])
    changed = {"stack": new.stack or old.stack, "targets": new.targets, "metric": metric, "curve": newest}
    return msgspec.structs.replace(old, weights=old.weights or new.weights, **changed)


def with_samples(
    metric: MetricBaseline, samples: Mapping[str, list[float]], ages: Mapping[str, str] = {}
) -> MetricBaseline:
    """The metric with further sessions' samples, of which the newest are kept. A session it has is replaced."""
    left, kept = KEPT, []
    for session, values in reversed(_aged({**metric.samples, **samples}, ages).items()):
        newest = values[-left:] if left else []
        if newest:
            kept.append((session, newest))
        left -= len(newest)
    return msgspec.structs.replace(metric, samples=dict(reversed(kept)))


def _aged(of_sessions: dict[str, Any], ages: Mapping[str, str]) -> dict[str, Any]:
    """The oldest first; what nobody knows the age of stays where it is, before all others."""
    day = {name: ages.get(name.partition(" round ")[0], "") for name in of_sessions}
    return dict(sorted(of_sessions.items(), key=lambda one: day[one[0]]))
