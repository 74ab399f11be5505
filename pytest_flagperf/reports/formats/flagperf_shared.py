"""What FlagPerf's tables of training and of inference have in common: environment, cells, remarks, footnotes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from dataclasses import field

from pytest_flagperf.reports import reading
from pytest_flagperf.reports.formats import marked
from pytest_flagperf.result import MetricValue
from pytest_flagperf.result import Result
from pytest_flagperf.sessions import SessionFiles


# FlagPerf's short names of the hyper-parameters that its fix_hp cells hold.
_SHORT = {"batch_size": "bs", "global_batch_size": "gbs", "learning_rate": "lr", "gradient_accumulation_steps": "gas"}
_PACKAGES = {"pytorch": ("torch",), "paddle": ("paddlepaddle", "paddlepaddle-gpu"), "mindspore": ("mindspore",)}
_VERDICTS = {
    "invalid": "测量无效",
    "missed": "未达到目标精度",
    "regressed": "相对基线退化",
    "inconclusive": "与基线的比较无结论",
}
_FEW = {"1": "单", "2": "两", "4": "四"}


@dataclass
class Notes:
    """Footnotes of a table: each text once, with its number."""

    texts: list[str] = field(default_factory=list)

    def mark(self, texts: Iterable[str]) -> str:
        """The marks of the texts, for a cell."""
        marks = []
        for text in texts:
            if text not in self.texts:
                self.texts.append(text)
            marks.append(f"<sup>{self.texts.index(text) + 1}</sup>")
        return "".join(marks)

    def lines(self) -> str:
        """What stands below the table."""
        return "".join(f"{number}. {marked.escape(text)}\n" for number, text in enumerate(self.texts, 1))


def environment(session: SessionFiles, result: Result) -> str:
    """FlagPerf's description of host and software; what the session does not say is blank."""
    described, stack = session.description, result.stack
    host, versions = (reading.mapping(described.get(name)) for name in ("host", "versions"))
    names = [str(reading.mapping(one).get("name", "")) for one in reading.listing(described.get("device_list"))]
    packages = _PACKAGES.get(result.case.framework, ())
    others = {name for names in _PACKAGES.values() for name in names} - set(packages)
    known = {**{str(name): str(version) for name, version in versions.items()}, **stack}
    framework = {name: known[name] for name in packages if name in known}
    rest = [f"{name}=={one}" for name, one in known.items() if name not in (*framework, *others, "driver")]
    lines = {
        "硬件环境": {
            "机器型号": "",
            "加速卡型号": result.case.chip or (names[0] if names else ""),
            "CPU型号": str(host.get("cpu", "")),
            "多机网络类型、带宽": "",
        },
        "软件环境": {
            "OS版本": "",
            "OS kernel版本": str(host.get("platform", "")),
            "加速卡驱动版本": known.get("driver", ""),
            "Docker镜像和版本": result.case.container.get("image", ""),
            "训练框架版本": ", ".join(f"{name}-{version}" for name, version in framework.items()),
            "训练编译器版本": "",
            "依赖软件版本": ", ".join(rest),
        },
    }
    text = "#### 环境配置\n"
    for heading, facts in lines.items():
        text += f"- ##### {heading}\n"
        text += "".join(f"  - {name}: {marked.escape(value)}".rstrip() + "\n" for name, value in facts.items())
    return text


def device(result: Result) -> str:
    """The chip, else the vendor."""
    return result.case.chip or result.case.vendor


def configuration(result: Result) -> str:
    """``R300单机8卡（1x8）``, as FlagPerf's pages of cases have it."""
    topology = result.case.topology
    nodes, _, cards = topology.partition("x")
    hosts = _FEW.get(nodes, nodes)
    # One card of one host is in words too; the other pages count the cards of a host in figures.
    each = "单" if topology == "1x1" else cards
    return marked.escape(f"{device(result)}{hosts}机{each}卡（{topology}）")


def fixed(result: Result) -> str:
    """``bs=512,lr=0.2``: what an overlay or the command line set; ``/`` where the standard case was run as it is."""
    changed = {name: one.value for name, one in result.configuration.items() if not one.origin.startswith("case ")}
    return ",".join(f"{_SHORT.get(name, name)}={value}" for name, value in changed.items()) or "/"


def memory(result: Result) -> str:
    """``31.8/32.0``, in GiB: the peak, and what one device has where that is known."""
    peak, total = metric(result, "memory_peak"), metric(result, "memory_total")
    if peak is None:
        return ""
    # Of a small model one digit behind the point would be a zero.
    shown = f"{peak.value:.1f}" if peak.value >= 1 else f"{peak.value:.2g}"
    return shown + (f"/{total.value:.1f}" if total is not None else "")


def metric(result: Result, name: str) -> MetricValue | None:
    """A figure that may stand in a table: those of an invalid measurement may not."""
    return result.metrics.get(name) if reading.is_trusted(result) else None


def figure(result: Result, name: str) -> str:
    """A figure in whole numbers from 100 on, below with four digits."""
    found = metric(result, name)
    return "" if found is None else f"{found.value:.0f}" if found.value >= 100 else f"{found.value:.4g}"


def percent(result: Result, name: str) -> str:
    """A ratio in percent."""
    found = metric(result, name)
    return "" if found is None else f"{100 * found.value:.1f}%"


def remarks(result: Result) -> list[str]:
    """What a reader of a row has to know."""
    case = result.case
    found = []
    if case.kind == "training" and case.role == "throughput":
        found.append("定步数吞吐量测试，不评估精度，无端到端时间")
    if result.error is not None and not reading.is_trusted(result):
        found.append(f"测量无效：{result.error.type}")
    elif result.verdict in _VERDICTS:
        found.append(_VERDICTS[result.verdict])
    if case.scale != "full":
        found.append(f"{case.scale} 规模：小数据集与缩小的模型，不能与 FlagPerf 的数值比较")
    if result.dataset.synthetic:
        found.append("合成数据，不代表收敛" if case.kind == "training" else "合成数据，无精度结果")
    if reading.RANDOM in reading.marks(result):
        found.append("随机权重，仅测速度，无精度结果")
    if result.deviations:
        found.append(f"与标准用例有 {len(result.deviations)} 处不同：{'；'.join(result.deviations)}")
    if case.division == "open":
        found.append("开放赛道：厂商替换了模型代码")
    if case.stand_in:
        found.append(f"在 {case.stand_in} 上代跑，不是 {case.vendor} 硬件的测量结果")
    return found
