"""FlagPerf's tables of hardware (``base/``) and of operators (``operation/``), as its READMEs have them.

What FlagPerf takes from the system's power meter, and means where we have maxima, is blank: it was not measured.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from collections.abc import Sequence

from pytest_flagperf.devices import vendor as vendors
from pytest_flagperf.errors import FlagPerfError
from pytest_flagperf.reports.formats import common
from pytest_flagperf.reports.formats import marked
from pytest_flagperf.result import MetricValue
from pytest_flagperf.result import Result
from pytest_flagperf.sessions import SessionFiles


CORE = (
    *("评测项", "correctness", "TFLOPS(cpu wall clock)", "TFLOPS(kernel clock)"),
    *("FU(FLOPS Utilization)-cputime", "FU-kerneltime"),
)
OTHER = ("评测项", "cputime", "kerneltime", "cputime吞吐", "kerneltime吞吐", "无预热时延", "预热后时延")
POWER = (
    *("监控项", "系统平均功耗", "系统最大功耗", "系统功耗标准差", "单机TDP"),
    *("单卡平均功耗", "单卡最大功耗", "单卡功耗标准差", "单卡TDP"),
)
MONITOR = ("监控项", "系统平均CPU占用", "系统平均内存占用", "单卡平均温度", "单卡最大显存占用")
BASE_MONITOR = (*MONITOR[:-1], "单卡平均显存占用")

# FlagPerf's case → what its table of results measures.
_LINKS = {
    ("host_to_device", "host"): ("interconnect-h2d", "CPU-芯片互联带宽"),
    ("device_to_device", "server"): ("interconnect-P2P_intraserver", "服务器内P2P互联带宽"),
    ("device_to_device", "cluster"): ("interconnect-P2P_interserver", "服务器间P2P互联带宽"),
    ("all_reduce", "server"): ("interconnect-MPI_intraserver", "服务器内MPI互联带宽"),
    ("all_reduce", "cluster"): ("interconnect-MPI_interserver", "服务器间MPI互联带宽"),
}
_MEMORIES = {
    "bandwidth": ("main_memory-bandwidth", "主存储带宽"),
    "capacity": ("main_memory-capacity", "主存储容量"),
}
_BASE = ("computation", "memory", "interconnect")
_OPERATORS = "operator"
# Ours and FlagPerf's name of the library whose kernels are timed.
_LIBRARIES = {"pytorch": "nativetorch"}
_DEVICE_CLOCK = "device events"


def sections(sessions: Sequence[SessionFiles]) -> list[str]:
    """A section for each vendor, chip and FlagPerf case of hardware, then one for its operators."""
    base: dict[tuple[str, str], list[Result]] = {}
    operators: dict[str, list[Result]] = {}
    others = 0
    for _, result in common.results(sessions):
        if result.case.kind != "operator" or result.verdict == "unsupported":
            continue
        device = " ".join(part for part in (result.case.vendor, result.case.chip) if part)
        if result.case.model in _BASE:
            base.setdefault((device, base_case(result)[0]), []).append(result)
        elif result.case.model == _OPERATORS:
            operators.setdefault(device, []).append(result)
        else:
            others += 1
    found = [_base(device, name, results) for (device, name), results in base.items()]
    found += [_operators(device, results) for device, results in operators.items()]
    if others:
        found.append(f"注：另有 {others} 项 DeepBench 算子结果，FlagPerf 没有对应的表格。\n")
    return found


def base_case(result: Result) -> tuple[str, str]:
    """FlagPerf's name of a hardware case, and of what it measures: ``computation-FP32``, ``FP32算力``."""
    problem = result.operator.get("problem", {})
    kind = str(problem.get("kind", ""))
    if result.case.model == "memory":
        return _MEMORIES.get(kind, (f"main_memory-{kind}", f"主存储{kind}"))
    if result.case.model == "interconnect":
        scope = str(problem.get("scope", ""))
        return _LINKS.get((kind, scope), (f"interconnect-{kind}-{scope}", "互联带宽"))
    precision = result.case.precision.upper()
    return f"computation-{precision}", f"{precision}算力"


def _base(device: str, name: str, results: Sequence[Result]) -> str:
    what = base_case(results[0])[1]
    header = ("评测项", f"{what}测试值", f"{what}标定值", "测试标定比例")
    core = [(_label(one), _achieved(one), _peak(one), _percent(one, "utilization")) for one in results]
    parts = [
        f"### {marked.escape(device)} {marked.escape(name)}\n",
        "#### 核心评测结果\n",
        marked.table(header, core),
        "#### 能耗监控结果\n",
        marked.table(POWER, [_power(one, _label(one, "监控结果")) for one in results]),
        "#### 其他重要监控结果\n",
        marked.table(BASE_MONITOR, [_monitored(one, _label(one, "监控结果")) for one in results]),
        _notes(results),
    ]
    return "\n".join(parts)


def _operators(device: str, results: Sequence[Result]) -> str:
    rows = [(one, _operator_label(one)) for one in results]
    parts = [
        f"### {marked.escape(device)} 算子评测结果\n",
        "#### 核心评测结果\n",
        marked.table(CORE, [_core(one, label) for one, label in rows]),
        "#### 其他评测结果\n",
        marked.table(OTHER, [_other(one, label) for one, label in rows]),
        "#### 能耗监控结果\n",
        marked.table(POWER, [_power(one, label) for one, label in rows]),
        "#### 其他重要监控结果\n",
        marked.table(MONITOR, [_monitored(one, label) for one, label in rows]),
        _notes(results),
    ]
    return "\n".join(parts)


def _label(result: Result, what: str = "评测结果") -> str:
    """``评测结果`` or ``监控结果``, with the size where it is none of FlagPerf's."""
    size = "" if "flagperf" in result.operator.get("sets", ()) else f" ({result.operator.get('id', result.case.scale)})"
    return what + marked.escape(size)


def _operator_label(result: Result) -> str:
    """``nativetorch mm FP16``; backward and sizes that are none of FlagPerf's are named."""
    case, problem = result.case, result.operator.get("problem", {})
    parts = [_LIBRARIES.get(case.framework, case.framework), str(problem.get("name", "")), case.precision.upper()]
    parts += [case.role] if case.role != "fwd" else []
    parts += [] if "flagperf" in result.operator.get("sets", ()) else [f"({result.operator.get('id', '')})"]
    return marked.escape(" ".join(parts))


def _achieved(result: Result) -> str:
    for name, unit in (("tflops", "TFLOPS"), ("busbw", "GB/s"), ("bandwidth", "GB/s"), ("capacity", "GiB")):
        if _metric(result, name) is not None:
            return f"{result.metrics[name].value:.4g}{'TOPS' if _is_integer(result, name) else unit}"
    return ""


def _is_integer(result: Result, name: str) -> bool:
    return name == "tflops" and result.case.precision.startswith("int")


def _peak(result: Result) -> str:
    peak = result.operator.get("peak")
    if not isinstance(peak, dict) or "utilization" not in result.metrics:
        return ""
    unit = str(peak.get("unit", "")).replace("TFLOP/s", "TFLOPS").replace("TOP/s", "TOPS")
    estimated = " (估算)" if peak.get("estimated") else ""
    return f"{float(peak['value']):.4g}{marked.escape(unit)}{estimated}"


def _is_by_device(result: Result) -> bool:
    return result.operator.get("clock") == _DEVICE_CLOCK


def _core(result: Result, label: str) -> tuple[str, ...]:
    """A figure stands under the clock it was taken with."""
    figures = ("tflops", "utilization")
    tflops, share = (_metric(result, name) for name in figures)
    shown = [
        "" if tflops is None else f"{tflops.value:.4g}{'TOPS' if _is_integer(result, 'tflops') else 'TFLOPS'}",
        "" if share is None else f"{100 * share.value:.2f}%",
    ]
    by_host, by_device = (["", ""], shown) if _is_by_device(result) else (shown, ["", ""])
    is_checked = "max_relative_error" in result.metrics or result.verdict == "wrong"
    correct = str(result.verdict != "wrong") if is_checked else ""
    return (label, correct, by_host[0], by_device[0], by_host[1], by_device[1])


def _other(result: Result, label: str) -> tuple[str, ...]:
    host = "wall_time" if "wall_time" in result.metrics else "" if _is_by_device(result) else "time"
    device = "time" if _is_by_device(result) else ""
    times = [_time(result, name) for name in (host, device)]
    rates = [_rate(result, name) for name in (host, device)]
    return (label, *times, *rates, _time(result, "first_call"), "")


def _time(result: Result, name: str) -> str:
    metric = _metric(result, name)
    return "" if metric is None else f"{metric.value:.2f}us"


def _rate(result: Result, name: str) -> str:
    """FlagPerf's op/s: the reciprocal of the time of one call."""
    metric = _metric(result, name)
    return "" if metric is None or metric.value <= 0 else f"{1e6 / metric.value:.2f}op/s"


def _power(result: Result, label: str) -> tuple[str, ...]:
    """Ours is the mean of the devices together, so it is that of a card where there is one."""
    metric = _metric(result, "power")
    card = f"{metric.value:.1f}W" if metric is not None and common.devices(result.case.topology) == 1 else ""
    return (label, "", "", "", "", card, "", "", _tdp(result))


def _tdp(result: Result) -> str:
    """The chip's own, from the catalogue; blank for one that is not in it, or whose figure was not checked."""
    tdp = _tdps(result.case.vendor).get(result.case.chip or "")
    return "" if tdp is None else f"{tdp:g}W"


@functools.cache
def _tdps(name: str) -> Mapping[str, float]:
    try:
        chips = vendors.find(name, [vendors.bundled(), *vendors.installed()]).chips
    except FlagPerfError:
        return {}
    known = {chip: one.tdp for chip, one in chips.items() if "tdp" not in one.unverified}
    return {chip: tdp for chip, tdp in known.items() if tdp is not None}


def _metric(result: Result, name: str) -> MetricValue | None:
    """A figure that may stand in a table: those of an invalid measurement may not."""
    return result.metrics.get(name) if result.verdict != "invalid" else None


def _monitored(result: Result, label: str) -> tuple[str, ...]:
    return (label, _percent(result, "cpu_utilization"), "", "", "")


def _percent(result: Result, name: str) -> str:
    metric = _metric(result, name)
    return "" if metric is None else f"{100 * metric.value:.2f}%"


def _notes(results: Sequence[Result]) -> str:
    """What a blank is, and what was measured that FlagPerf has no column for."""
    lines = ["注：空白处未测量；吞吐为单次耗时的倒数。"]
    for one in results:
        facts = [
            f"{text} {one.metrics[name].value:.4g} {one.metrics[name].unit}"
            for name, text in (("temperature", "最高温度"), ("memory_device_peak", "单卡显存峰值"))
            if name in one.metrics and one.case.kind == "operator" and one.case.model in _BASE
        ]
        if one.error is not None:
            facts.append(f"测量无效：{one.error.type}")
        if one.case.stand_in:
            facts.append(f"在 {one.case.stand_in} 上代跑，不是 {one.case.vendor} 硬件的测量结果")
        if facts:
            lines.append(f"- {marked.escape(one.case.id)}: {marked.escape('；'.join(facts))}")
    return "\n".join(lines) + "\n"
