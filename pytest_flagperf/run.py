"""A case that ran to its end: what its test asserts on, and the Result that is kept of it."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from math import isfinite
from pathlib import Path

import msgspec

from pytest_flagperf import metrics
from pytest_flagperf import result as results
from pytest_flagperf import verdict
from pytest_flagperf.case import ResolvedCase
from pytest_flagperf.case import Target
from pytest_flagperf.errors import FlagPerfError
from pytest_flagperf.errors import InvalidMeasurement
from pytest_flagperf.errors import Regressed
from pytest_flagperf.errors import TargetMissed
from pytest_flagperf.errors import WrongResult
from pytest_flagperf.judging import gate
from pytest_flagperf.measured import Measured
from pytest_flagperf.provision import Data


SHOWN_EVALUATIONS = 5


@dataclass(frozen=True)
class Surroundings:
    """What a case ran in: the container, the vendor file and what that adds to the ranks' environment."""

    container: Mapping[str, str] = field(default_factory=dict)
    vendor_file: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Run:
    """A case that ran to its end: what the test asserts on."""

    case: ResolvedCase
    result: results.Result
    directory: Path
    on_inconclusive: str = "pass"
    # Writes the Result anew, where the test finds amiss what nobody knew it would ask for.
    republish: Callable[[results.Result], None] = lambda result: None

    @property
    def metrics(self) -> dict[str, float]:
        """Name → value, in the registry's units."""
        return {name: metric.value for name, metric in self.result.metrics.items()}

    def meets(self, targets: Sequence[Target]) -> bool:
        """True where every target holds in every round that counts, and nothing is worse than its baseline.

        Else raises ``TargetMissed``, ``Regressed`` or ``Undecided`` that says by how much.
        """
        __tracebackhide__ = True
        if not targets:
            raise self._invalid("there is no target to meet")
        judged = judge_rounds(targets, [figures_of(one) for one in self.result.rounds if not one.dropped])
        if verdict.of_targets(judged) != verdict.PASSED:
            if self.result.verdict != verdict.MISSED:
                told = msgspec.structs.replace(self.result, verdict=verdict.MISSED, targets=target_results(judged))
                self.republish(told)
            raise TargetMissed(self._missed_message(judged))
        return self.not_worse()

    def keeps_quality(self) -> bool:
        """Of inference: true where every target holds that the run can be judged by; else as :meth:`meets`.

        With random weights, or synthetic data, there is no quality to keep, and the result says so.
        """
        __tracebackhide__ = True
        judged = {target.metric for target in self.result.targets}
        targets = [target for target in self.case.targets if target.metric in judged]
        return self.meets(targets) if targets or not self.case.targets else self.not_worse()

    def measured(self, *names: str) -> bool:
        """True where each metric was measured and nothing is worse than its baseline.

        Else raises ``InvalidMeasurement`` that names what is missing, ``Regressed`` or ``Undecided``.
        """
        __tracebackhide__ = True
        missing = [name for name in names if metrics.get(name).name not in self.result.metrics]
        if missing:
            raise self._invalid(f"not measured: {', '.join(missing)}")
        return self.not_worse()

    def _invalid(self, text: str) -> InvalidMeasurement:
        """The error, and the Result that goes with it in every report."""
        failed = InvalidMeasurement(f"{self.case.label}: {text}\n{self._where()}")
        self.republish(
            msgspec.structs.replace(
                self.result, verdict=verdict.INVALID, metrics={}, comparisons=[], error=results.ErrorResult.of(failed)
            )
        )
        return failed

    def not_worse(self) -> bool:
        """True where no metric is worse than its baseline; else raises ``Regressed`` or ``Undecided``."""
        __tracebackhide__ = True
        complaint = gate.complaint(self.result, self.case.label, self.directory.parent, self.on_inconclusive)
        if complaint is not None:
            complaint.args = (f"{complaint}\n{self._where()}",)
            raise complaint
        return True

    def _missed_message(self, judged: Sequence[verdict.Judged]) -> str:
        lines = [f"{self.case.label} missed its target", *(f"  {one}" for one in judged)]
        for one in self.result.rounds:
            lines += [f"round {one.round} {one.dropped}"] if one.dropped else []
            if self.case.case.kind == "inference":
                lines += self._kept(one)
                continue
            lines.append(f"last evaluations{f' of round {one.round}' if len(self.result.rounds) > 1 else ''}:")
            for evaluation in one.evaluations[-SHOWN_EVALUATIONS:]:
                quality = "  ".join(f"{name} {value:.4f}" for name, value in evaluation.quality.items())
                when = f"epoch {evaluation.epoch:6.2f}  step {evaluation.step:6d}  {evaluation.seconds:8.1f} s"
                lines.append(f"  {when}  {quality}")
        return "\n".join([*lines, *self.result.notes, self._where()])

    def _kept(self, one: results.RoundResult) -> list[str]:
        """Quality of the reference and of the engine, beside each other."""
        names = ("eager fp32", f"{self.case.selection.engine} {self.case.selection.precision}")
        width = max(map(len, names))
        of_round = f" of round {one.round}" if len(self.result.rounds) > 1 else ""
        lines = [f"quality{of_round}:"] if one.evaluations else []
        for name, evaluation in zip(names, one.evaluations, strict=False):
            quality = "  ".join(f"{metric} {value:.4f}" for metric, value in evaluation.quality.items())
            lines.append(f"  {name:{width}}  {quality}")
        return lines

    def _where(self) -> str:
        log = next(iter(sorted(Path(self.result.rounds[-1].directory).glob("*/rank0*.log"))), None)
        return "\n".join(
            [
                *([f"log:    {log}"] if log else []),
                f"result: {self.directory / 'result.json'}",
                f"rerun:  {shlex.join(self.result.rerun)}",
            ]
        )


def figures_of(one: results.RoundResult) -> dict[str, float]:
    return {name: metric.value for name, metric in one.metrics.items()}


def judge_rounds(targets: Sequence[Target], rounds: Sequence[Mapping[str, float]]) -> tuple[verdict.Judged, ...]:
    """Each target beside its worst round: a target is met where it is met in every round."""
    judged = []
    for target in targets:
        values = [figures.get(target.metric) for figures in rounds]
        present = [value for value in values if value is not None]
        worst = (min if target.direction == "at least" else max)(present) if present else None
        judged.append(verdict.Judged(target, worst if len(present) == len(values) else None))
    return tuple(judged)


def target_results(judged: Sequence[verdict.Judged]) -> list[results.TargetResult]:
    """What a Result says of its targets."""
    return [
        results.TargetResult(j.target.metric, j.target.bound, j.target.direction, j.target.source, j.value, j.met)
        for j in judged
    ]


def round_result(
    number: int,
    seed: int | None,
    directory: Path,
    started: float | None,
    measured: Measured,
    failed: FlagPerfError | Regressed | None,
) -> results.RoundResult:
    """A round's part of the Result."""
    return results.RoundResult(
        round=number,
        seed=seed,
        directory=str(directory),
        time_started=started,
        metrics=results.with_units(measured.figures),
        evaluations=[
            # JSON has no NaN: a figure that is none is absent.
            results.EvaluationResult(e.epoch, e.step, e.seconds, {k: v for k, v in e.quality.items() if isfinite(v)})
            for e in measured.evaluations
        ],
        precision=dict(measured.precision),
        error=results.ErrorResult.of(failed),
        loadgen=measured.loadgen,
    )


def build_result(
    case: ResolvedCase,
    outcome: str,
    figures: Mapping[str, float],
    judged: Sequence[verdict.Judged],
    rounds: Sequence[results.RoundResult],
    dataset: Data,
    leased: Sequence[int],
    *,
    rerun: Sequence[str],
    notes: Sequence[str] = (),
    chip: str | None = None,
    ran: Surroundings = Surroundings(),
    error: FlagPerfError | Regressed | None = None,
    spreads: Mapping[str, results.SpreadResult] | None = None,
    stack: Mapping[str, str] | None = None,
    code: str = "",
) -> results.Result:
    """The Result of a case from its parts."""
    chosen = case.selection
    return results.Result(
        case=results.CaseInfo(
            id=case.id,
            node_id=case.node_id,
            model=case.model,
            kind=case.case.kind,
            role=case.role,
            framework=chosen.framework,
            precision=chosen.precision,
            topology=str(chosen.topology),
            scale=chosen.scale,
            vendor=case.vendor,
            devices=list(leased),
            unit=case.case.unit,
            chip=chip,
            division=case.division,
            stand_in=case.stand_in,
            engine=chosen.engine,
            container=dict(ran.container),
            vendor_file=dict(ran.vendor_file),
            environment=dict(ran.environment),
        ),
        verdict=outcome,
        metrics=results.with_units(figures),
        targets=target_results(judged),
        rounds=list(rounds),
        configuration={k: results.SettingResult(s.value, s.origin) for k, s in sorted(case.settings.items())},
        dataset=results.DatasetInfo(
            name=dataset.name,
            synthetic=dataset.synthetic,
            checksum=dataset.found.checksum if dataset.found else "",
            splits=dict(dataset.found.splits) if dataset.found else {},
        ),
        rerun=list(rerun),
        deviations=list(case.deviations),
        diff=case.replaced.diff if case.replaced else "",
        notes=list(notes),
        error=results.ErrorResult.of(error),
        spreads=dict(spreads or {}),
        stack=dict(stack or {}),
        code=code,
        weights=_weights(dataset),
    )


def _weights(dataset: Data) -> results.WeightsInfo | None:
    found = dataset.weights
    if found is None:
        return None
    return results.WeightsInfo(found.name, found.origin, found.checksum, dict(found.quality))


def asked_of(case: ResolvedCase, dataset: Data) -> tuple[Target, ...]:
    """The targets that a run is judged by: all in a convergence run and in inference, none in other runs.

    Random weights and synthetic data have no quality: then inference is judged by what its outputs differ.
    """
    if case.case.kind != "inference":
        return case.targets if case.role == "convergence" else ()
    return tuple(
        target
        for target in case.targets
        if dataset.has_quality or not (target.metric == "quality_ratio" or metrics.get(target.metric).quality)
    )


# What of a finished measurement fails its test, and as what.
_FAILS = {verdict.MISSED: TargetMissed, verdict.REGRESSED: Regressed, verdict.WRONG: WrongResult}


def refuse_unasserted(told: str) -> None:
    """Raises for a test that went through although its Result says ``missed``, ``regressed`` or ``wrong``."""
    __tracebackhide__ = True
    if told in _FAILS:
        raise _FAILS[told](
            f"the result says {told}, and the test did not assert on it: write assert run.meets(case.targets), "
            "assert run.measured(...) or, of an operator, assert measurement.correct()"
        )
