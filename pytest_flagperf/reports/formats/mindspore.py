"""Throughput and scaling as MindSpore publishes them, and AMP speed-up as NVIDIA does.

The columns are those of MindSpore r1.7's benchmark.md and of NVIDIA's DeepLearningExamples (PyTorch, "Training
performance"). Scaling efficiency and speed-up are the session's derived metrics; none is computed here, and what
nobody derived is blank. NVIDIA's weak scaling is the efficiency times the devices.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pytest_flagperf.judging.derived import AMP_SPEEDUP
from pytest_flagperf.judging.derived import SCALING_EFFICIENCY
from pytest_flagperf.judging.derived import DerivedMetric
from pytest_flagperf.reports import reading
from pytest_flagperf.reports.formats import common
from pytest_flagperf.reports.formats import marked
from pytest_flagperf.reports.formats import models
from pytest_flagperf.result import Result
from pytest_flagperf.sessions import SessionFiles


SCALING = (
    *("Network", "Network Type", "Dataset", "{} Version", "Resource"),
    *("Precision", "Batch Size", "Throughput", "Speedup"),
)
AMP = (
    *("Devices", "Batch size / device", "Throughput - {}", "Throughput - mixed precision"),
    *("Throughput speedup ({} to mixed precision)", "Weak scaling - {}", "Weak scaling - mixed precision"),
)

_FRAMEWORKS = {
    "pytorch": ("PyTorch", "torch"),
    "paddle": ("Paddle", "paddlepaddle"),
    "mindspore": ("MindSpore", "mindspore"),
}
_PRECISIONS = {"amp": "Mixed"}
_MIXED = "amp"
_WITHOUT = ("fp32", "tf32")


@dataclass(frozen=True)
class _One:
    """A Result with what its session says of it."""

    session: SessionFiles
    result: Result
    derived: tuple[DerivedMetric, ...]

    @property
    def count(self) -> int:
        return common.devices(self.result.case.topology)

    def figure(self, name: str) -> float | None:
        """A derived figure of this case, which is the first of those that it is made of."""
        return next(
            (one.value for one in self.derived if one.name == name and one.cases[0] == self.result.case.id), None
        )


def render(sessions: Sequence[SessionFiles], output: Path | None) -> str | None:
    """A table for each model, framework, dataset, vendor and chip; then AMP speed-ups, where both were measured."""
    found = _chosen(sessions)
    groups: dict[tuple[str, ...], list[_One]] = {}
    for one in found:
        case = one.result.case
        key = (case.model, case.framework, one.result.dataset.name, case.scale, case.vendor, case.chip or "")
        groups.setdefault(key, []).append(one)
    parts = ["# 基准性能\n", "## 训练性能\n"] if groups else ["没有测得训练吞吐量的结果。\n"]
    parts += [_section(ones) for ones in groups.values()]
    return common.finish("\n".join(parts), output)


def _chosen(sessions: Sequence[SessionFiles]) -> list[_One]:
    """One Result for each way to run a model.

    One that can be trusted before one that cannot, one of the chip before a stand-in's, a throughput test before a
    convergence test, the last session's.
    """
    found: dict[tuple[str, ...], _One] = {}
    derived: dict[Path, tuple[DerivedMetric, ...]] = {}
    for session, result in common.results(sessions):
        case = result.case
        if case.kind != "training" or "p_train" not in result.metrics:
            continue
        key: tuple[str, ...] = (
            *(case.model, case.framework, case.precision, case.topology, case.scale),
            *(case.vendor, case.chip or "", result.dataset.name),
        )
        if key in found and _standing(found[key].result) > _standing(result):
            continue
        if session.directory not in derived:
            derived[session.directory] = tuple(common.derived(session))
        found[key] = _One(session, result, derived[session.directory])
    return sorted(found.values(), key=lambda one: (one.result.case.precision, one.count, one.result.case.topology))


def _standing(result: Result) -> tuple[bool, bool, bool]:
    return reading.is_trusted(result), not result.case.stand_in, result.case.role == "throughput"


def _section(ones: Sequence[_One]) -> str:
    first = ones[0].result
    name, _ = _FRAMEWORKS.get(first.case.framework, (first.case.framework, ""))
    device = first.case.chip or first.case.vendor
    title = f"{models.find(first.case.model).network} ({device}, {name})"
    header = [column.format(marked.escape(name)) for column in SCALING]
    parts = [f"### {marked.escape(title)}\n", marked.table(header, _scaling(ones)), _notes(ones)]
    table = _amp(ones)
    if table:
        parts += ["#### 混合精度加速比\n", table]
    return "\n".join(parts)


def _scaling(ones: Iterable[_One]) -> list[tuple[str, ...]]:
    """A line for each topology; what repeats of the line above is blank, as in the original."""
    lines = []
    above: tuple[str, ...] = ("",) * 4
    for one in ones:
        case = one.result.case
        names = models.find(case.model)
        facts = (names.network, names.type, one.result.dataset.name, _version(one))
        precision = _PRECISIONS.get(case.precision, case.precision.upper())
        shown = ["" if fact == before else marked.escape(fact) for fact, before in zip(facts, above, strict=True)]
        above = facts
        throughput = _rate(one, "sec").replace(",", "")
        efficiency = one.figure(SCALING_EFFICIENCY)
        speedup = "-" if one.count == 1 else "" if efficiency is None else f"{efficiency:.2f}"
        lines.append((*shown, _resource(one), marked.escape(precision), _batch(one), throughput, speedup))
    return lines


def _rate(one: _One, second: str) -> str:
    """The throughput; blank where it could not be trusted."""
    if not reading.is_trusted(one.result):
        return ""
    return f"{reading.figure(one.result.metrics['p_train'].value)} {one.result.case.unit}/{second}"


def _version(one: _One) -> str:
    _, package = _FRAMEWORKS.get(one.result.case.framework, ("", ""))
    versions = one.session.description.get("versions")
    recorded = versions if isinstance(versions, Mapping) else {}
    return str(one.result.stack.get(package) or recorded.get(package) or "")


def _resource(one: _One) -> str:
    """``Ascend: 8 * Ascend 910 </br> CPU：192 Cores``; the cores of one node, the only one that was counted."""
    case = one.result.case
    text = f"{marked.escape(case.vendor)}: {one.count} &#42; {marked.escape(case.chip or case.vendor)}"
    host = one.session.description.get("host")
    cores = host.get("cpus") if isinstance(host, Mapping) else None
    is_one_node = case.topology.startswith("1x")
    return text + (f" </br> CPU：{cores} Cores" if isinstance(cores, int) and is_one_node else "")


def _batch(one: _One) -> str:
    """``16000*8``, the batch of a device times the devices; a global batch is one number."""
    sizes = common.settings(one.result)
    if "global_batch_size" in sizes:
        return marked.escape(str(sizes["global_batch_size"]))
    size = marked.escape(str(sizes.get("batch_size", "")))
    return f"{size}&#42;{one.count}" if size and one.count > 1 else size


def _notes(ones: Sequence[_One]) -> str:
    lines = ["Throughput 为训练吞吐量 p_train（不含评估）；Speedup 为扩展效率 scaling_efficiency；空白处未测量。"]
    if _amp(ones):
        lines.append("Weak scaling 为扩展效率乘以设备数。")
    lines += dict.fromkeys(f"{one.result.case.id}：{remark}" for one in ones for remark in _remarks(one.result))
    return "".join(f"{number}. {marked.escape(line)}\n" for number, line in enumerate(lines, 1))


def _remarks(result: Result) -> list[str]:
    case = result.case
    found = [] if case.scale == "full" else [f"{case.scale} 规模，不能与公布的数值比较"]
    if not reading.is_trusted(result):
        found.append("测量无效" + (f"：{result.error.type}" if result.error is not None else ""))
    found += ["合成数据"] if result.dataset.synthetic else []
    found += ["开放赛道：厂商替换了模型代码"] if case.division == "open" else []
    found += [f"在 {case.stand_in} 上代跑，不是 {case.vendor} 硬件的测量结果"] if case.stand_in else []
    if result.deviations:
        found.append(f"与标准用例有 {len(result.deviations)} 处不同：{'；'.join(result.deviations)}")
    return found


def _amp(ones: Sequence[_One]) -> str:
    """NVIDIA's table, where a topology was measured with mixed precision and without; else empty."""
    by = {(one.result.case.precision, one.result.case.topology): one for one in ones}
    for precision in _WITHOUT:
        mixed = [one for one in ones if one.result.case.precision == _MIXED]
        pairs = [(by.get((precision, one.result.case.topology)), one) for one in mixed]
        both = [(without, one) for without, one in pairs if without is not None]
        if both:
            header = [column.format(precision.upper()) for column in AMP]
            return marked.table(header, [_pair(*pair) for pair in both], right=range(len(header)))
    return ""


def _pair(without: _One, mixed: _One) -> tuple[str, ...]:
    # It is derived beside fp32 only.
    speedup = mixed.figure(AMP_SPEEDUP) if without.result.case.precision == "fp32" else None
    sizes = [str(common.settings(one.result).get("batch_size", "")) for one in (without, mixed)]
    batch = sizes[0] if sizes[0] == sizes[1] else " / ".join(sizes)
    rates = [_rate(one, "s") for one in (without, mixed)]
    scaling = [_weak(one) for one in (without, mixed)]
    return (str(mixed.count), marked.escape(batch), *rates, "" if speedup is None else f"{speedup:.2f} x", *scaling)


def _weak(one: _One) -> str:
    """NVIDIA's weak scaling: how many times one device's throughput; the efficiency times the devices."""
    efficiency = 1.0 if one.count == 1 else one.figure(SCALING_EFFICIENCY)
    return "" if efficiency is None else f"{efficiency * one.count:.2f}"
