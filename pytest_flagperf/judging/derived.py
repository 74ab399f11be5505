"""Figures of several cases of a session together: AMP speed-up, scaling efficiency, our chip beside a published one.

The way NVIDIA's and MindSpore's tables show them. They are computed when a session ends, from its Results alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import msgspec

from pytest_flagperf import metrics
from pytest_flagperf import references
from pytest_flagperf import verdict
from pytest_flagperf.case import Topology
from pytest_flagperf.errors import ReplayError
from pytest_flagperf.records import UNDECODABLE
from pytest_flagperf.records import read_whole
from pytest_flagperf.records import write_atomically
from pytest_flagperf.result import Result


DERIVED = "derived.json"
SCHEMA_VERSION = "1.0"
# The rate that both are made of.
RATE = "p_train"
AMP_SPEEDUP, SCALING_EFFICIENCY, REFERENCE_RATIO = "amp_speedup", "scaling_efficiency", "reference_ratio"
NAMES = (AMP_SPEEDUP, SCALING_EFFICIENCY, REFERENCE_RATIO)


class DerivedMetric(msgspec.Struct, frozen=True):
    """One figure of several cases.

    ``cases`` are the ids of the cases it is made of, the one that it is a figure of first; ``inputs`` their values by
    case id, in the unit of ``of``, the metric that was divided. ``source`` names the published row of a
    ``reference_ratio``. ``remarks`` say what to mind.
    """

    name: str
    value: float
    unit: str
    better: str
    of: str
    model: str
    role: str
    framework: str
    precision: str
    topology: str
    scale: str
    vendor: str
    chip: str | None
    cases: Annotated[list[str], msgspec.Meta(min_length=1)]
    inputs: dict[str, float]
    source: str = ""
    remarks: list[str] = []

    @property
    def label(self) -> str:
        """What a person reads: ``resnet50 throughput [pytorch-amp-1x8-full] nvidia A100``."""
        chosen = f"{self.framework}-{self.precision}-{self.topology}-{self.scale}"
        return f"{self.model} {self.role} [{chosen}] {self.vendor}" + (f" {self.chip}" if self.chip else "")


class RequirementResult(msgspec.Struct, frozen=True):
    """What ``--require`` asked for, and the cases in which it does not hold; ``found`` counts the figures there are."""

    text: str
    met: bool
    found: int
    missed: list[str] = []


class Derived(msgspec.Struct, frozen=True):
    """``derived.json``. ``left_out`` says which figures could not be made though their cases are there, and why."""

    metrics: list[DerivedMetric]
    left_out: list[str] = []
    requirements: list[RequirementResult] = []
    schema_version: str = SCHEMA_VERSION


def compute(found: Iterable[Result]) -> Derived:
    """Everything that follows from these results."""
    usable = _one_role([one for one in found if _counts(one)])
    left_out: list[str] = []
    made = [*_amp_speedups(usable), *_scaling(usable, left_out), *_beside_published(usable)]
    return Derived(made, left_out)


def write(session: Path, derived: Derived) -> None:
    """Write ``derived.json`` in the session's directory."""
    write_atomically(session / DERIVED, msgspec.json.format(msgspec.json.encode(derived), indent=2))


def read(session: Path) -> Derived | None:
    """The session's ``derived.json``, or ``None`` where it has none. Raises ``ReplayError`` where it cannot be read."""
    path = session / DERIVED
    if not path.is_file():
        return None
    try:
        return msgspec.json.decode(read_whole(path), type=Derived)
    except (OSError, *UNDECODABLE) as error:
        raise ReplayError(f"{path} cannot be read as derived metrics: {error}") from error


def _counts(one: Result) -> bool:
    """Whether the figures of a result may be divided by another's. A target that was missed does not touch a rate.

    Every figure here, and every one that was published, is of training.
    """
    case = one.case
    return one.error is None and one.verdict != verdict.INVALID and case.kind == "training" and not case.stand_in


def _one_role(found: Sequence[Result]) -> list[Result]:
    """A throughput run tells a rate better than one that stops at its target: where both are there it stands alone."""
    measured = {_key(one) for one in found if one.case.role == "throughput"}
    return [one for one in found if one.case.role == "throughput" or _key(one) not in measured]


def _key(one: Result) -> tuple[str | None, ...]:
    case = one.case
    return (*_group(one), case.precision, case.topology)


def _group(one: Result) -> tuple[str | None, ...]:
    """What has to be the same on both sides of a division, but for precision and topology."""
    case = one.case
    return (case.model, case.framework, case.scale, case.vendor, case.chip, case.division)


def _figure(one: Result) -> float | None:
    metric = one.metrics.get(RATE)
    return metric.value if metric is not None and metric.value > 0 else None


def _amp_speedups(found: Sequence[Result]) -> list[DerivedMetric]:
    """p_train(amp) / p_train(fp32), same topology."""
    made = []
    for one in found:
        other = _find(found, one, precision="fp32") if one.case.precision == "amp" else None
        ours, base = _figure(one), _figure(other) if other is not None else None
        if other is None or ours is None or base is None:
            continue
        made.append(_derived(AMP_SPEEDUP, ours / base, RATE, one, [other], _differing_batches(one, other)))
    return made


def _scaling(found: Sequence[Result], left_out: list[str]) -> list[DerivedMetric]:
    """p_train at n devices / (n x p_train at 1), same precision and per-device batch."""
    made = []
    for one in found:
        ranks = Topology.parse(one.case.topology).world_size
        other = _find(found, one, topology="1x1") if ranks > 1 else None
        ours, base = _figure(one), _figure(other) if other is not None else None
        if other is None or ours is None or base is None:
            continue
        differing = _differing_batches(one, other)
        if differing:
            left_out.append(f"{SCALING_EFFICIENCY} of {one.case.id}: {differing[0]}")
            continue
        made.append(_derived(SCALING_EFFICIENCY, ours / (ranks * base), RATE, one, [other], []))
    return made


def _find(found: Sequence[Result], one: Result, **different: str) -> Result | None:
    """The result of the same but for what is ``different``; the last where a case was run several times."""
    wanted = {"precision": one.case.precision, "topology": one.case.topology, **different}
    for other in reversed(found):
        same = (other.case.precision, other.case.topology) == (wanted["precision"], wanted["topology"])
        if same and _group(other) == _group(one) and other.case.role == one.case.role:
            return other
    return None


def _differing_batches(one: Result, other: Result) -> list[str]:
    batches = device_batch(one), device_batch(other)
    if None in batches or batches[0] == batches[1]:
        return []
    return [f"{batches[0]:g} samples a device and step, {batches[1]:g} in {other.case.id}"]


def device_batch(one: Result) -> float | None:
    """Samples of one optimizer step on one device, from the effective configuration; ``None`` where it does not say."""
    configuration = {name: setting.value for name, setting in one.configuration.items()}
    whole, part = configuration.get("global_batch_size"), configuration.get("batch_size")
    if isinstance(whole, (int, float)):
        return float(whole) / Topology.parse(one.case.topology).world_size
    if isinstance(part, (int, float)):
        return float(part) * float(configuration.get("gradient_accumulation_steps", 1))
    return None


def _beside_published(found: Sequence[Result]) -> list[DerivedMetric]:
    """Our rates by those that were published for another chip, where model, framework, topology and precision match.

    Only of runs at full scale on real data: nothing else is the workload that was published.
    """
    rows = references.rows()
    made = []
    for one in found:
        case = one.case
        if case.scale != "full" or one.dataset.synthetic:
            continue
        for row in rows:
            theirs = (row.model, row.framework, row.topology, row.precision)
            if theirs != (case.model, case.framework, case.topology, case.precision):
                continue
            made += _ratios(one, row)
    return made


def _ratios(one: Result, row: references.Row) -> list[DerivedMetric]:
    """Above 1 is better than what was published, for times as for rates."""
    made = []
    for name, published in row.metrics.items():
        metric = metrics.get(name)
        ours = one.metrics.get(name)
        if ours is None or metric.quality or min(ours.value, published) <= 0:
            continue
        ratio = ours.value / published if metric.better == "higher" else published / ours.value
        remarks = [f"{row.chip}: {published:g} {metric.unit}", *([row.note] if row.note else [])]
        made.append(_derived(REFERENCE_RATIO, ratio, name, one, [], remarks, source=row.source))
    return made


def _derived(
    name: str,
    value: float,
    of: str,
    one: Result,
    others: Sequence[Result],
    remarks: Sequence[str],
    *,
    source: str = "",
) -> DerivedMetric:
    metric, case = metrics.get(name), one.case
    inputs: Mapping[str, float] = {each.case.id: each.metrics[of].value for each in (one, *others)}
    return DerivedMetric(
        name=name,
        value=value,
        unit=metric.unit,
        better=metric.better,
        of=of,
        model=case.model,
        role=case.role,
        framework=case.framework,
        precision=case.precision,
        topology=case.topology,
        scale=case.scale,
        vendor=case.vendor,
        chip=case.chip,
        cases=list(inputs),
        inputs=dict(inputs),
        source=source,
        remarks=list(remarks),
    )
