"""New sessions into a baseline: what changes, what is refused and why. Pure functions; ``flagperf rebase`` writes."""

from __future__ import annotations

import math
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from fnmatch import fnmatchcase

import msgspec

from pytest_flagperf import verdict
from pytest_flagperf.errors import ConfigurationError
from pytest_flagperf.judging import compare
from pytest_flagperf.judging import gathering
from pytest_flagperf.judging import statistics
from pytest_flagperf.judging.baselines import Baseline
from pytest_flagperf.judging.baselines import CaseBaseline
from pytest_flagperf.judging.baselines import MetricBaseline
from pytest_flagperf.judging.baselines import Source
from pytest_flagperf.sessions import SessionFiles


# A baseline is lowered by more than this only for a reason.
LOWERED = 0.05


@dataclass(frozen=True)
class Change:
    """A metric of a case, before and after. ``note`` says why samples were replaced instead of added."""

    case: str
    metric: str
    unit: str
    better: str
    old: MetricBaseline | None
    new: MetricBaseline
    note: str = ""

    @property
    def figures(self) -> tuple[float | None, float | None]:
        """The baseline's figure before and after; ``None`` where there are no samples."""
        return figure(self.old), figure(self.new)

    @property
    def changed(self) -> bool:
        """Whether the file would say something else."""
        return self.old != self.new


@dataclass
class Merge:
    """What would become of a baseline file. With anything in ``refused`` it is not to be written."""

    baseline: Baseline
    changes: list[Change] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Wanted:
    """What of the sessions is taken: case ids by pattern, metrics by name; and for which reason, on which day."""

    case: str = "*"
    metrics: Sequence[str] = ()
    reason: str = ""
    date: str = ""


def merge(old: Baseline | None, found: Sequence[SessionFiles], wanted: Wanted) -> Merge:
    """``old`` with the samples of the sessions. Raises ``ConfigurationError`` where they are of another chip."""
    found = [_chosen(one, wanted.case) for one in found]
    accepted = gathering.CHANGED if wanted.reason else (verdict.IMPROVED,)
    known = {one.name for one in old.session} if old is not None else set()
    new = gathering.from_sessions(found, chosen=wanted.metrics, accepted=accepted, known=known)
    if old is None:
        old = Baseline(vendor=new.vendor, chip=new.chip, hardware=new.hardware)
    outcome = Merge(old, warnings=_warnings(found))
    _refuse_unfit(found, accepted, outcome)
    if not new.case:
        if not outcome.refused:
            outcome.refused.append(f"no result with an id like {wanted.case!r} was measured")
        return outcome
    if (old.vendor, old.chip, old.hardware) != (new.vendor, new.chip, new.hardware):
        was, now = (" ".join(filter(None, (b.vendor, b.chip, b.hardware))) for b in (old, new))
        raise ConfigurationError(f"{old.origin or 'the baseline'} is of {was}, the sessions are of {now}")
    cases = {one.id: one for one in old.case}
    ages = {one.name: one.date for one in [*old.session, *new.session]}
    for one in new.case:
        cases[one.id] = _case(cases.get(one.id), _only(one, wanted.metrics), wanted, outcome, ages)
    session = _sources(old.session, [gathering.source(one) for one in found], cases.values())
    outcome.baseline = msgspec.structs.replace(old, session=session, case=list(cases.values()))
    return outcome


def figure(metric: MetricBaseline | None) -> float | None:
    """What the samples of a metric come to."""
    if metric is None or not metric.values:
        return None
    return gathering.rounded(statistics.summarize(metric.values).value)


def _chosen(session: SessionFiles, pattern: str) -> SessionFiles:
    kept = tuple(one for one in session.results if one.case.id == pattern or fnmatchcase(one.case.id, pattern))
    return SessionFiles(session.directory, session.name, session.description, kept, problems=session.problems)


def _warnings(found: Sequence[SessionFiles]) -> list[str]:
    said = []
    for session in found:
        source = gathering.source(session)
        if not source.commit:
            said.append(f"{session.name} says no git commit: nobody can tell which code these figures are of")
        elif source.changed:
            said.append(f"{session.name} ran with files changed since commit {source.commit[:12]}")
        said += [f"{session.name}: {problem}" for problem in session.problems]
    return said


def _refuse_unfit(found: Sequence[SessionFiles], accepted: Sequence[str], outcome: Merge) -> None:
    for session in found:
        for result in session.results:
            reason = gathering.unfit(result, accepted)
            if reason and result.verdict != verdict.UNSUPPORTED:
                outcome.refused.append(f"{session.name}: {result.case.id}: {reason}{_advice(result.verdict)}")


def _advice(found: str) -> str:
    return ": give a --reason to accept it" if found == verdict.REGRESSED else ""


def _only(case: CaseBaseline, names: Sequence[str]) -> CaseBaseline:
    """With ``--metric`` the metrics named and no others."""
    kept = {name: one for name, one in case.metric.items() if not names or name in names}
    return msgspec.structs.replace(case, metric=kept)


def _case(
    old: CaseBaseline | None, new: CaseBaseline, wanted: Wanted, outcome: Merge, ages: Mapping[str, str]
) -> CaseBaseline:
    apart = gathering.differences(old, new) if old is not None else []
    if old is not None and apart and not wanted.reason:
        outcome.refused.append(
            f"{new.id} is not what the baseline is of: {'; '.join(apart)}. Give a --reason to begin its samples anew"
        )
        return old
    metric = {} if old is None or apart else dict(old.metric)
    for name in new.metric:
        before = old.metric.get(name) if old is not None else None
        change = _metric(new, name, before, wanted, ages, anew="; ".join(apart))
        reason = _lowered(change, wanted)
        if reason:
            outcome.refused.append(reason)
        outcome.changes.append(change)
        metric[name] = change.new
    if old is None or apart:
        return msgspec.structs.replace(new, metric=metric)
    return msgspec.structs.replace(gathering.joined(old, new, ages), metric=metric)


def _metric(
    case: CaseBaseline, name: str, old: MetricBaseline | None, wanted: Wanted, ages: Mapping[str, str], anew: str
) -> Change:
    new = case.metric[name]
    if old is None:
        return Change(case.id, name, new.unit, new.better, None, msgspec.structs.replace(new, best=figure(new)))
    # A session that is in the file already is none that it could differ from.
    before = {session: values for session, values in old.samples.items() if session not in new.samples}
    note = anew
    if not note and before:
        allowed = old.tolerance if old.tolerance is not None else gathering.tolerance(name, case.targets)
        decision = compare.decide(new.values, before, new.better, allowed)
        if decision.verdict in (verdict.REGRESSED, verdict.IMPROVED):
            note = decision.verdict
        elif decision.change is not None and _loss(decision.change, new.better) > allowed:
            # Few sessions cannot tell whether it is one; to become the baseline without a word it is too much.
            note = verdict.REGRESSED
    merged = (
        msgspec.structs.replace(old, samples=new.samples) if note else gathering.with_samples(old, new.samples, ages)
    )
    return Change(case.id, name, new.unit, new.better, old, _settled(old, merged, wanted), note)


def _settled(old: MetricBaseline, merged: MetricBaseline, wanted: Wanted) -> MetricBaseline:
    """With ``best`` and, for a reason, what that changes."""
    now, best = figure(merged), old.best if old.best is not None else figure(old)
    if now is None or best is None:
        return msgspec.structs.replace(merged, best=now)
    if not _worse(now, best, merged.better):
        return msgspec.structs.replace(merged, best=now)
    if not wanted.reason or merged.samples == old.samples:
        return msgspec.structs.replace(merged, best=best)
    broken = merged.bound is not None and _worse(now, merged.bound, merged.better)
    said = f"{wanted.date}: {best:.6g} -> {now:.6g} {merged.unit}: {wanted.reason}"
    return msgspec.structs.replace(
        merged, best=now, bound=now if broken else merged.bound, reasons=[*merged.reasons, said]
    )


def _worse(figure: float, than: float, better: str) -> bool:
    return figure < than if better == "higher" else figure > than


def _loss(change: float, better: str) -> float:
    return change if better == "lower" else -change


def _lowered(change: Change, wanted: Wanted) -> str | None:
    """Why a change is refused without a reason: it is a regression, or the sum of small ones."""
    now, best, old = figure(change.new), change.new.best, change.old
    if wanted.reason or now is None or best is None or old is None:
        return None
    where = f"{change.case}: {change.metric}"
    if change.note == verdict.REGRESSED:
        was = figure(old)
        return f"{where} regressed, {was:.6g} -> {now:.6g} {change.unit}: give a --reason to make that the baseline"
    if change.new.bound is not None and _worse(now, change.new.bound, change.better):
        return f"{where} is {now:.6g} {change.unit} and misses its bound of {change.new.bound:.6g}: give a --reason"
    # Beside a best of zero there is no ratio: whatever is worse is too much.
    change_of = statistics.change(now, best) if best > 0 else None
    loss = (
        _loss(change_of, change.better)
        if change_of is not None
        else math.inf
        if _worse(now, best, change.better)
        else 0.0
    )
    if loss > LOWERED:
        how = f"{100 * loss:.1f} % " if math.isfinite(loss) else ""
        return (
            f"{where} would be {how}worse than the best it has been, {best:.6g} {change.unit}: more than "
            f"{100 * LOWERED:g} % takes a --reason"
        )
    return None


def _sources(old: Sequence[Source], new: Sequence[Source], cases: Iterable[CaseBaseline]) -> list[Source]:
    """The sessions that samples are still kept of, the oldest first."""
    every = {one.name: one for one in [*old, *new]}
    used = {session for case in cases for metric in case.metric.values() for session in metric.samples}
    return sorted((one for one in every.values() if one.name in used), key=lambda one: (one.date, one.name))
