"""FlagPerf's tables of inference in Chinese, as the README of a case has them (``inference/benchmarks/<case>``).

A section for each model: data and weights, the environment of each device, 指标列表 and 指标值, a row for each engine,
precision and device. What FlagPerf has no table for follows in ours: the edge, LoadGen's scenarios, generation.
"""

from __future__ import annotations

from collections.abc import Sequence

from pytest_flagperf.reports import inference
from pytest_flagperf.reports import reading
from pytest_flagperf.reports.formats import common
from pytest_flagperf.reports.formats import flagperf_shared as shared
from pytest_flagperf.reports.formats import marked
from pytest_flagperf.reports.formats import models
from pytest_flagperf.reports.inference import Table
from pytest_flagperf.result import Result
from pytest_flagperf.sessions import SessionFiles


NAMES = ("指标名称", "指标值索引", "特殊说明")
# The first column is ours: FlagPerf's page has one device.
VALUES = (
    *("配置", "推理工具", "precision", "bs", "byte_per_batch", "e2e_time", "p_val_whole", "*p_val_core"),
    *("p_infer_whole", "*p_infer_core", "*MFU", "acc(推理/验证)", "mem"),
)
_RATES = ("p_validation_whole", "p_validation_core", "p_inference_whole", "p_inference_core")
_BESIDE = (inference.EDGE, inference.LOADGEN, inference.GENERATION)

Found = Sequence[tuple[SessionFiles, Result]]


def sections(sessions: Sequence[SessionFiles]) -> list[str]:
    """A section for each model of which anything was inferred."""
    groups: dict[str, list[tuple[SessionFiles, Result]]] = {}
    for session, result in common.results(sessions):
        if inference.is_inference(result):
            groups.setdefault(result.case.model, []).append((session, result))
    return [_section(model, found) for model, found in groups.items()]


def _section(model: str, found: Found) -> str:
    results = sorted((one for _, one in found), key=_order)
    notes = shared.Notes()
    # The marks count on over the tables, and are told below the last one.
    tables = [*_values(inference.THROUGHPUT.of(results), notes), *_beside(results, notes)]
    parts = [
        f"### {marked.escape(model)} 推理\n",
        _sources(model, results),
        *_environments(found),
        "#### 运行情况\n",
        *tables,
        "注：空白处未测量。\n",
        *([notes.lines()] if notes.texts else []),
    ]
    return "\n".join(parts)


def _order(result: Result) -> tuple[str, ...]:
    case = result.case
    return (case.vendor, case.chip or "", case.framework, case.engine, case.precision, case.scale)


def _sources(model: str, results: Sequence[Result]) -> str:
    """Data and weights, each set once."""
    data = dict.fromkeys(one.dataset.name + (" (合成数据)" if one.dataset.synthetic else "") for one in results)
    weights = dict.fromkeys(_weights(one) for one in results if one.weights is not None)
    lines = {"任务类别": models.find(model).task, "推理数据集": ", ".join(data), "模型权重": "; ".join(weights)}
    return "".join(f"- {name}: {marked.escape(text)}".rstrip() + "\n" for name, text in lines.items())


def _weights(result: Result) -> str:
    told = result.weights
    if told is None or inference.has_random_weights(result):
        return "随机权重"
    return f"{told.name} ({told.origin})"


def _environments(found: Found) -> list[str]:
    """The environment of each device, framework and engine, each once."""
    kinds = {(one.case.vendor, one.case.chip, one.case.framework): (session, one) for session, one in found}
    texts = []
    for session, one in kinds.values():
        same = [
            each
            for _, each in found
            if (each.case.vendor, each.case.chip, each.case.framework)
            == (one.case.vendor, one.case.chip, one.case.framework)
        ]
        tools = dict.fromkeys(inference.software(each) for each in same)
        tool = f"- ##### 推理工具包\n  - {marked.escape(', '.join(tools))}\n"
        texts.append(shared.environment(session, one) + tool)
    return texts


def _values(results: Sequence[Result], notes: shared.Notes) -> list[str]:
    """指标列表 and 指标值; nothing where nothing ran in FlagPerf's own loop."""
    if not results:
        return []
    return [
        "* 指标列表\n",
        marked.table(NAMES, _names(results)),
        "* 指标值\n",
        marked.table([name.replace("*", r"\*") for name in VALUES], [_row(one, notes) for one in results]),
    ]


def _names(results: Sequence[Result]) -> list[tuple[str, str, str]]:
    units = "、".join(dict.fromkeys(filter(None, map(inference.rate_unit, results))))
    counted = f"，单位为{marked.escape(units)}" if units else ""
    quality = dict.fromkeys(one.name for result in results for one in (inference.foremost_quality(result),) if one)
    return [
        ("数据精度", "precision", "可选fp32/fp16/bf16/int8"),
        ("批尺寸", "bs", ""),
        ("批输入大小", "byte_per_batch", "每一个batch包含的字节数"),
        ("硬件存储使用", "mem", "通常称为“显存”,单位为GiB"),
        ("端到端时间", "e2e_time", "总时间+Perf初始化等时间"),
        ("验证总吞吐量", "p_val_whole", f"实际验证样本数除以总验证时间；验证为框架自身的eager执行，fp32{counted}"),
        ("验证计算吞吐量", r"\*p_val_core", "不包含IO部分耗时"),
        ("推理总吞吐量", "p_infer_whole", f"实际推理样本数除以总推理时间{counted}"),
        ("**推理计算吞吐量**", r"**\*p_infer_core**", "不包含IO部分耗时"),
        ("**计算卡使用率**", r"**\*MFU**", "model flops utilization"),
        ("推理结果", "acc(推理/验证)", marked.escape(", ".join(quality))),
    ]


def _row(result: Result, notes: shared.Notes) -> list[str]:
    return [
        shared.configuration(result) + notes.mark(shared.remarks(result)),
        marked.escape(inference.software(result)),
        marked.escape(result.case.precision),
        marked.escape(inference.batch_size(result)),
        # No run tells it.
        "",
        shared.figure(result, "e2e_time"),
        *(shared.figure(result, name) for name in _RATES),
        shared.percent(result, "mfu"),
        marked.escape(accuracy(result)),
        shared.memory(result),
    ]


def accuracy(result: Result) -> str:
    """``76.20/76.20``: the engine's and the reference's, ratios in percent, as FlagPerf writes them."""
    one = inference.foremost_quality(result)
    if one is None or not reading.is_trusted(result):
        return ""
    if reading.unit(result, one.name) != "ratio":
        return inference.quality_pair(one)
    return "/".join("" if value is None else f"{100 * value:.2f}" for value in (one.engine, one.reference))


def _beside(results: Sequence[Result], notes: shared.Notes) -> list[str]:
    found = [(table, table.of(results)) for table in _BESIDE]
    return [_table(table, ones, notes) for table, ones in found if ones]


def _table(table: Table, results: Sequence[Result], notes: shared.Notes) -> str:
    header = [marked.escape(one.chinese) for one in table.columns]
    lines = [[marked.escape(text) for text in row] for row in inference.cells(table, results)]
    for line, result in zip(lines, results, strict=True):
        line[0] += notes.mark(shared.remarks(result))
    return f"* {table.chinese}\n\n" + marked.table(header, lines, right=table.figures)
