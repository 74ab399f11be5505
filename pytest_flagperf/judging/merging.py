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


@dataclass(frozen=True)
class Loss:
    """Why a session takes a reason: a metric from ``before`` to ``now``; without figures its curve was worse.

    ``bound``: it misses the file's bound, which ``before`` is, and need not have regressed.
    """

    session: str
    metric: str = ""
    unit: str = ""
    before: float | None = None
    now: float | None = None
    bound: bool = False


@dataclass
class Merge:
    """What would become of a baseline file. With anything in ``refused`` it is not to be written.

    ``blamed`` are the sessions that are refused for what they are themselves.
    """

    baseline: Baseline
    changes: list[Change] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    blamed: list[str] = field(default_factory=list)

    def refuse(self, why: str, session: str = "") -> None:
        """Say it once, and whose it is."""
        if why not in self.refused:
            self.refused.append(why)
        if session and session not in self.blamed:
            self.blamed.append(session)


@dataclass(frozen=True)
class Wanted:
    """What of the sessions is taken: case ids by pattern, metrics by name; and for which reason, on which day."""

    case: str = "*"
    metrics: Sequence[str] = ()
    reason: str = ""
    date: str = ""


def merge(old: Baseline | None, found: Sequence[SessionFiles], wanted: Wanted) -> Merge:
    """``old`` with the samples of the sessions. Raises ``ConfigurationError`` where they are of another chip.

    The sessions are pooled. One that regressed takes a reason: when it was tested, or beside what ``old`` holds, whose
    samples then begin anew.
    """
    found = [_chosen(one, wanted.case) for one in found]
    known = {one.name for one in old.session} if old is not None else set()
    new = gathering.from_sessions(found, chosen=wanted.metrics, accepted=gathering.CHANGED, known=known)
    if old is None:
        old = Baseline(vendor=new.vendor, chip=new.chip, hardware=new.hardware)
    outcome = Merge(old, warnings=_warnings(found))
    _refuse_unfit(found, outcome)
    if not new.case:
        if not outcome.refused:
            outcome.refuse(f"no result with an id like {wanted.case!r} was measured")
        return outcome
    if (old.vendor, old.chip, old.hardware) != (new.vendor, new.chip, new.hardware):
        was, now = (" ".join(filter(None, (b.vendor, b.chip, b.hardware))) for b in (old, new))
        raise ConfigurationError(f"{old.origin or 'the baseline'} is of {was}, the sessions are of {now}")
    cases = {one.id: one for one in old.case}
    ages = {one.name: one.date for one in [*old.session, *new.session]}
    tested = _tested(found)
    for one in new.case:
        own = tested.get(one.id, [])
        cases[one.id] = _case(cases.get(one.id), _only(one, wanted.metrics), own, wanted, outcome, ages)
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


def _refuse_unfit(found: Sequence[SessionFiles], outcome: Merge) -> None:
    for session in found:
        for result in session.results:
            reason = gathering.unfit(result, gathering.CHANGED)
            if reason and result.verdict != verdict.UNSUPPORTED:
                outcome.refuse(f"{session.name}: {result.case.id}: {reason}", session.name)


def _tested(found: Sequence[SessionFiles]) -> dict[str, list[Loss]]:
    """By case, what had regressed when the sessions were tested, whatever they were compared with then."""
    losses: dict[str, list[Loss]] = {}
    for session in found:
        for result in session.results:
            if result.verdict != verdict.REGRESSED:
                continue
            worse = [one for one in result.comparisons if one.verdict == verdict.REGRESSED]
            units = {name: one.unit for name, one in result.metrics.items()}
            losses.setdefault(result.case.id, []).extend(
                [Loss(session.name, one.metric, units.get(one.metric, ""), one.baseline, one.value) for one in worse]
                or [Loss(session.name)]
            )
    return losses


def _only(case: CaseBaseline, names: Sequence[str]) -> CaseBaseline:
    """With ``--metric`` the metrics named and no others."""
    kept = {name: one for name, one in case.metric.items() if not names or name in names}
    return msgspec.structs.replace(case, metric=kept)


def _case(
    old: CaseBaseline | None,
    new: CaseBaseline,
    tested: Sequence[Loss],
    wanted: Wanted,
    outcome: Merge,
    ages: Mapping[str, str],
) -> CaseBaseline:
    apart = gathering.differences(old, new) if old is not None else []
    if old is not None and apart and not wanted.reason:
        outcome.refuse(
            f"{new.id} is not what the baseline is of: {'; '.join(apart)}. Give a --reason to begin its samples anew"
        )
        return old
    metric = {} if old is None or apart else dict(old.metric)
    for name in new.metric:
        before = old.metric.get(name) if old is not None else None
        # What regressed and is not taken is no less of a reason to ask for one.
        own = [one for one in tested if one.metric == name or one.metric not in new.metric]
        change, losses = _metric(new, name, before, own, wanted, ages, anew="; ".join(apart))
        if not wanted.reason:
            for loss in losses:
                outcome.refuse(_told(new.id, loss), loss.session)
        reason = None if losses else _lowered(change, wanted)
        if reason:
            outcome.refuse(reason)
        outcome.changes.append(change)
        metric[name] = change.new
    if old is None or apart:
        return msgspec.structs.replace(new, metric=metric)
    return msgspec.structs.replace(gathering.joined(old, new, ages), metric=metric)


def _metric(
    case: CaseBaseline,
    name: str,
    old: MetricBaseline | None,
    tested: Sequence[Loss],
    wanted: Wanted,
    ages: Mapping[str, str],
    anew: str,
) -> tuple[Change, list[Loss]]:
    """The metric with the new samples, and for what of them a reason is wanted."""
    new = case.metric[name]
    stored = old.samples if old is not None else {}
    added = {session: values for session, values in new.samples.items() if stored.get(session) != values}
    note, losses = anew, [one for one in tested if one.session in added]
    merged = new
    if old is not None:
        # A session that is in the file already is none that it could differ from.
        before = {session: values for session, values in stored.items() if session not in new.samples}
        decisions = (
            {} if anew or not before else _decisions(added, before, old, gathering.tolerance(name, case.targets))
        )
        worse = [
            Loss(session, name, new.unit, one.baseline, one.value)
            for session, one in decisions.items()
            if one.verdict == verdict.REGRESSED
        ]
        named = {one.session for one in worse}
        losses = [*worse, *(one for one in losses if one.session not in named or one.metric != name)]
        losses += [one for one in _below_bound(name, old, added) if one.session not in named]
        if worse:
            note = verdict.REGRESSED
        elif decisions and all(one.verdict == verdict.IMPROVED for one in decisions.values()):
            note = verdict.IMPROVED
        samples = msgspec.structs.replace(old, samples=new.samples)
        merged = samples if note else gathering.with_samples(old, new.samples, ages)
    settled = _settled(old, merged, wanted, losses, list(added), anew=bool(anew))
    return Change(case.id, name, new.unit, new.better, old, settled, note), losses


def _decisions(
    added: Mapping[str, list[float]], before: Mapping[str, list[float]], old: MetricBaseline, usual: float
) -> dict[str, compare.Decision]:
    """Each new session beside the stored ones, judged as a test that has the file for its baseline judges it."""
    allowed = old.tolerance if old.tolerance is not None else usual
    return {session: compare.decide(values, before, old.better, allowed) for session, values in added.items()}


def _below_bound(name: str, old: MetricBaseline, added: Mapping[str, list[float]]) -> list[Loss]:
    if old.bound is None:
        return []
    figures = {session: statistics.summarize(values).value for session, values in added.items()}
    return [
        Loss(session, name, old.unit, old.bound, one, bound=True)
        for session, one in figures.items()
        if _worse(one, old.bound, old.better)
    ]


def _settled(
    old: MetricBaseline | None,
    merged: MetricBaseline,
    wanted: Wanted,
    losses: Sequence[Loss],
    added: Sequence[str],
    anew: bool,
) -> MetricBaseline:
    """With ``best`` and, for a reason, what that changes."""
    now = figure(merged)
    was = None if old is None else old.best if old.best is not None else figure(old)
    worse = now is not None and was is not None and _worse(now, was, merged.better)
    if not wanted.reason or (old is not None and merged.samples == old.samples):
        return msgspec.structs.replace(merged, best=was if worse else now)
    figures = [one.now for one in losses if one.bound and one.now is not None] + ([now] if now is not None else [])
    bound = merged.bound
    for one in figures:
        bound = one if bound is not None and _worse(one, bound, merged.better) else bound
    said = []
    if worse or (anew and was is not None and now is not None):
        names = dict.fromkeys(one.session for one in losses) or added
        said = [f"{wanted.date}, {', '.join(names)}: {was:.6g} -> {now:.6g} {merged.unit}: {wanted.reason}"]
    elif losses:
        said = [_kept(one, merged, wanted) for one in losses]
    return msgspec.structs.replace(merged, best=now, bound=bound, reasons=[*merged.reasons, *said])


def _kept(loss: Loss, metric: MetricBaseline, wanted: Wanted) -> str:
    """The line of the file that says why a session may be in it."""
    if loss.before is None or loss.now is None:
        return f"{wanted.date}, {loss.session}: {wanted.reason}"
    unit = loss.unit or metric.unit
    return f"{wanted.date}, {loss.session}: {loss.before:.6g} -> {loss.now:.6g} {unit}: {wanted.reason}"


def _told(case: str, loss: Loss) -> str:
    where = f"{loss.session}: {case}"
    if loss.before is None or loss.now is None:
        what = f"{loss.metric} regressed" if loss.metric else "it regressed"
        return f"{where}: {what} when it was tested: give a --reason to make that the baseline"
    if loss.bound:
        return (
            f"{where}: {loss.metric} is {loss.now:.6g} {loss.unit} and misses its bound of {loss.before:.6g}: "
            "give a --reason"
        )
    figures = f"{loss.before:.6g} -> {loss.now:.6g} {loss.unit}"
    return f"{where}: {loss.metric} regressed, {figures}: give a --reason to make that the baseline"


def _worse(figure: float, than: float, better: str) -> bool:
    return figure < than if better == "higher" else figure > than


def _loss(change: float, better: str) -> float:
    return change if better == "lower" else -change


def _lowered(change: Change, wanted: Wanted) -> str | None:
    """Why a change is refused without a reason though nothing regressed: it is the sum of small ones."""
    now, best, old = figure(change.new), change.new.best, change.old
    if wanted.reason or now is None or best is None or old is None:
        return None
    where = f"{change.case}: {change.metric}"
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
