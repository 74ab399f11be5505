"""What reports tell of inference: its tables, once for every format, in English and in Chinese.

A cell is plain text, which a format escapes as it has to; the units stand in the headers, but for rates, which count
what the case does: images, tokens. What was not measured is blank, and so are the figures of a measurement that cannot
be trusted.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pytest_flagperf.reports import reading
from pytest_flagperf.result import LoadGenResult
from pytest_flagperf.result import MetricValue
from pytest_flagperf.result import Result


# LoadGen's scenario of a role, and the metric that MLPerf ranks it by.
SCENARIOS = {
    "single_stream": ("SingleStream", "latency_early_stopping"),
    "multi_stream": ("MultiStream", "latency_early_stopping"),
    "server": ("Server", "qps"),
    "offline": ("Offline", "p_inference_whole"),
}
# Model → data set and milliseconds in which 99 % of Server's answers have to be there: MLPerf Inference rules, section
# "Benchmarks", data center. Of the cases that ship only this one is a benchmark of MLPerf's, in data and quality too.
BENCHMARKS = {"resnet50": ("imagenet2012", 15.0)}
RATES = ("p_inference_whole", "p_inference_core", "p_validation_whole", "p_validation_core")
_MARKS = {
    **{reading.STAND_IN: "stand-in", reading.OPEN: "open division"},
    **{reading.SYNTHETIC: "synthetic data", reading.RANDOM: "random weights"},
}
_MIB = 1024
_PACKAGES = {"pytorch": "torch", "paddle": "paddlepaddle", "mindspore": "mindspore"}


@dataclass(frozen=True)
class Quality:
    """A quality metric of the reference, which is eager fp32, and of the engine; ``None`` where it was not found."""

    name: str
    reference: float | None
    engine: float | None


@dataclass(frozen=True)
class Column:
    """A column: its header in both languages, and the text of a result's cell."""

    english: str
    chinese: str
    cell: Callable[[Result], str]
    is_figure: bool = True


@dataclass(frozen=True)
class Table:
    """A table of results of certain roles."""

    english: str
    chinese: str
    roles: tuple[str, ...]
    columns: tuple[Column, ...]

    def of(self, results: Iterable[Result]) -> list[Result]:
        """Those of the results that stand in it."""
        return [one for one in results if is_inference(one) and one.case.role in self.roles]

    @property
    def figures(self) -> list[int]:
        """The columns that are flush right."""
        return [number for number, one in enumerate(self.columns) if one.is_figure]


def is_inference(result: Result) -> bool:
    """Whether the result is of a case of inference."""
    return result.case.kind == "inference"


def has_table(result: Result) -> bool:
    """Whether the result stands in one of the tables of inference."""
    return any(table.of([result]) for table in TABLES)


def qualities(result: Result) -> list[Quality]:
    """Quality of the reference and of the engine, in the last round that counts; none with random weights."""
    counting = [one for one in result.rounds if not one.dropped and one.error is None] or result.rounds
    found = {one.step: one.quality for one in counting[-1].evaluations} if counting else {}
    names = dict.fromkeys(name for quality in found.values() for name in quality)
    return [Quality(name, found.get(0, {}).get(name), found.get(1, {}).get(name)) for name in names]


def foremost_quality(result: Result) -> Quality | None:
    """The quality that the case has a target for, else the first that was found."""
    found = {one.name: one for one in qualities(result)}
    named = [target.metric for target in result.targets if target.metric in found]
    return found[named[0]] if named else next(iter(found.values()), None)


def has_random_weights(result: Result) -> bool:
    """Whether there was nothing but the speed to be measured."""
    return reading.RANDOM in reading.marks(result)


def weights(result: Result) -> str:
    """``resnet50-digits``, ``random``; empty where nothing is known of them."""
    if result.weights is None:
        return ""
    return reading.RANDOM if has_random_weights(result) else result.weights.name


def software(result: Result) -> str:
    """``onnxruntime 1.23.2 (torch 2.9.0)``: the engine and the framework whose model it executes, with versions."""
    case = result.case
    version = result.stack.get(case.engine, "")
    package = _PACKAGES.get(case.framework, case.framework)
    framework = " ".join(filter(None, (package, result.stack.get(package, ""))))
    return f"{' '.join(filter(None, (case.engine, version)))} ({framework})"


def batch_size(result: Result) -> str:
    """Samples of a batch; of a scenario of one query after the other it is the scenario's, of generation requests."""
    fixed = {"edge": "1", "single_stream": "1", "multi_stream": "8"}
    if result.case.role == "generation":
        return _first(result, "batch_sizes")
    setting = result.configuration.get("batch_size")
    return fixed.get(result.case.role) or ("" if setting is None else str(setting.value))


def _first(result: Result, name: str) -> str:
    """Of a setting that is a list the first value, which the figures of generation are of."""
    setting = result.configuration.get(name)
    values = setting.value if setting is not None and isinstance(setting.value, (list, tuple)) else ()
    return str(values[0]) if values else ""


def rate_unit(result: Result) -> str:
    """``images/s``: what the rates of a result count; empty where there is none."""
    found = (reading.unit(result, name) for name in RATES if figure(result, name) is not None)
    return next(found, "")


def threads(result: Result) -> str:
    """Threads on the host's processor that the case sets; at the edge it is one, if nothing is said."""
    is_edge = result.case.role == "edge"
    setting = result.configuration.get("edge_threads" if is_edge else "cpu_threads")
    return str(setting.value) if setting is not None else "1" if is_edge else ""


def rules(result: Result) -> str:
    """``MLPerf`` where a run by LoadGen kept to MLPerf's rules, else what it did otherwise.

    Empty of an untrusted run, and where nothing is known of LoadGen's.
    """
    runs = _runs(result)
    if not reading.is_trusted(result) or not runs:
        return ""
    short = {name: pair for one in runs for name, pair in one.shortened.items()}
    other = _otherwise(result)
    if short:
        pairs = ", ".join(f"{name} {here:g} of {asked:g}" for name, (here, asked) in short.items())
        return "; ".join([f"shortened: {pairs} (s, samples or queries)", *other])
    return f"not MLPerf's: {'; '.join(other)}" if other else "MLPerf"


def _otherwise(result: Result) -> list[str]:
    """What makes a run none by MLPerf's rules however long it was."""
    found = [_MARKS[one] for one in reading.marks(result)]
    found += [f"scale {result.case.scale}"] if result.case.scale != "full" else []
    dataset, standard = BENCHMARKS.get(result.case.model, ("", None))
    if result.dataset.name != dataset:
        found.append("model or data set is none of MLPerf's")
    bound = result.configuration.get("latency_bound")
    if result.case.role == "server" and bound is not None and standard not in (None, bound.value):
        found.append(f"bound {bound.value} ms, MLPerf's is {standard:g}")
    if result.deviations:
        found.append(f"≠ {len(result.deviations)} from the standard case")
    return found


def validity(result: Result) -> str:
    """LoadGen's word for its run, ``VALID`` or ``INVALID``; empty where it did not come to one.

    Empty too of a run that LoadGen calls valid and that cannot be trusted for another reason.
    """
    runs = _runs(result)
    if not all(one.valid for one in runs):
        return "INVALID"
    return "VALID" if runs and reading.is_trusted(result) else ""


def _runs(result: Result) -> list[LoadGenResult]:
    """What LoadGen said in the rounds that count."""
    return [one.loadgen for one in result.rounds if one.loadgen is not None and not one.dropped]


def figure(result: Result, name: str) -> MetricValue | None:
    """A figure that may stand in a table: those of a measurement that cannot be trusted may not."""
    return result.metrics.get(name) if reading.is_trusted(result) else None


def _ranked(result: Result) -> MetricValue | None:
    return figure(result, SCENARIOS[result.case.role][1]) if result.case.role in SCENARIOS else None


def _text(name: str, scale: float = 1.0) -> Callable[[Result], str]:
    def cell(result: Result) -> str:
        found = figure(result, name)
        return "" if found is None else reading.figure(found.value * scale)

    return cell


def _percent(name: str) -> Callable[[Result], str]:
    def cell(result: Result) -> str:
        found = figure(result, name)
        return "" if found is None else f"{100 * found.value:.1f}%"

    return cell


def _qualities(result: Result) -> str:
    """``top1 0.967 / 0.967``: of the engine, then of the reference."""
    one = foremost_quality(result)
    if one is None or not reading.is_trusted(result):
        return ""
    return f"{one.name} {quality_pair(one)}"


def quality_pair(one: Quality) -> str:
    """``0.967/0.967``: the engine's, then the reference's."""
    return f"{reading.figure(one.engine, one.reference)}/{reading.figure(one.reference, one.engine)}"


def _ranking(result: Result) -> str:
    found = _ranked(result)
    if found is None:
        return ""
    return f"{reading.figure(found.value)} {reading.unit(result, SCENARIOS[result.case.role][1])}"


def ranking(result: Result) -> str:
    """``latency_early_stopping 1.234 ms``: the figure that MLPerf ranks a scenario by; empty of any other role."""
    said = _ranking(result)
    return f"{SCENARIOS[result.case.role][1]} {said}" if said else ""


def _device(result: Result) -> str:
    return result.case.chip or result.case.vendor


def _verdict(result: Result) -> str:
    named = result.error is not None and not reading.is_trusted(result)
    said = f"{result.verdict}: {result.error.type}" if named and result.error is not None else result.verdict
    told = [_MARKS[one] for one in reading.marks(result)]
    told += [f"≠ {len(result.deviations)} from the standard case"] if result.deviations else []
    return said + (f" ({', '.join(told)})" if told else "")


def _plain(english: str, chinese: str, cell: Callable[[Result], str]) -> Column:
    return Column(english, chinese, cell, is_figure=False)


_MODEL = _plain("model", "模型", lambda one: one.case.model)
_SCALE = _plain("scale", "规模", lambda one: one.case.scale)
_DEVICE = _plain("device", "设备", _device)
_ENGINE = _plain("engine (framework)", "推理工具", software)
_PRECISION = _plain("precision", "precision", lambda one: one.case.precision)
_BATCH = Column("batch size", "bs", batch_size)
_UNIT = _plain("rates in", "吞吐量单位", rate_unit)
_QUALITY = _plain("quality: engine / reference", "质量(推理/验证)", _qualities)
_KEPT = Column("kept", "质量保持率", _text("quality_ratio"))
_ERROR = Column("output error", "输出误差", _text("output_error"))
_COMPILE = Column("compile (s)", "编译时间(s)", _text("compile_time"))
_GIB = Column("memory (GiB)", "内存(GiB)", _text("memory_peak"))
_SIZE = Column("engine size (MiB)", "引擎大小(MiB)", _text("engine_size"))
_VERDICT = _plain("verdict", "判定", _verdict)
_SUBJECT = (_MODEL, _SCALE, _DEVICE, _ENGINE, _PRECISION)
_MEAN, _P50, _P90, _P99 = (
    Column(f"{name} (ms)", f"{chinese}(ms)", _text(f"latency_{name}"))
    for name, chinese in (("mean", "平均时延"), ("p50", "P50"), ("p90", "P90"), ("p99", "P99"))
)

THROUGHPUT = Table(
    "Throughput of inference",
    "推理吞吐量",
    ("throughput",),
    (
        *_SUBJECT,
        _BATCH,
        _UNIT,
        Column("p_val_whole", "p_val_whole", _text("p_validation_whole")),
        Column("p_val_core", "p_val_core", _text("p_validation_core")),
        Column("p_infer_whole", "p_infer_whole", _text("p_inference_whole")),
        Column("p_infer_core", "p_infer_core", _text("p_inference_core")),
        Column("MFU", "MFU", _percent("mfu")),
        _QUALITY,
        _KEPT,
        _ERROR,
        _COMPILE,
        _GIB,
        _VERDICT,
    ),
)
EDGE = Table(
    "At the edge: one sample at a time",
    "端侧推理：批尺寸 1，限定线程数",
    ("edge",),
    (
        *_SUBJECT,
        Column("threads", "线程数", threads),
        _BATCH,
        *(_MEAN, _P50, _P90, _P99),
        _UNIT,
        Column("p_infer_whole", "吞吐量", _text("p_inference_whole")),
        Column("memory peak (MiB)", "内存峰值(MiB)", _text("memory_peak", _MIB)),
        _SIZE,
        Column("energy (J)", "能耗(J)", _text("energy")),
        _QUALITY,
        _KEPT,
        _VERDICT,
    ),
)
LOADGEN = Table(
    "MLPerf's scenarios, by LoadGen",
    "MLPerf 场景（LoadGen）",
    tuple(SCENARIOS),
    (
        *_SUBJECT,
        _plain("scenario", "场景", lambda one: SCENARIOS[one.case.role][0]),
        _plain("ranked by", "排名指标", lambda one: SCENARIOS[one.case.role][1]),
        Column("figure", "指标值", _ranking),
        *(_P50, _P90, _P99),
        _plain("LoadGen", "LoadGen", validity),
        _plain("rules", "规则", rules),
        _QUALITY,
        _KEPT,
        _VERDICT,
    ),
)
GENERATION = Table(
    "Generation of text",
    "文本生成",
    ("generation",),
    (
        *_SUBJECT,
        _BATCH,
        Column("prompt (tokens)", "提示长度(token)", lambda one: _first(one, "prompt_lengths")),
        Column("new tokens", "生成长度(token)", lambda one: _first(one, "new_tokens")),
        Column("TTFT (ms)", "TTFT(ms)", _text("ttft")),
        Column("TPOT (ms)", "TPOT(ms)", _text("tpot")),
        Column("tokens/s/device", "token/p/s", _text("tokens_per_second_per_device")),
        _GIB,
        _QUALITY,
        _KEPT,
        _VERDICT,
    ),
)
TABLES = (THROUGHPUT, EDGE, LOADGEN, GENERATION)


def cells(table: Table, results: Sequence[Result]) -> list[list[str]]:
    """The table's rows: each result's texts."""
    return [[column.cell(one) for column in table.columns] for one in results]


def described(result: Result) -> list[tuple[str, Any]]:
    """Name and text of what is to be known of the weights of a result; empty of one without."""
    found = result.weights
    if found is None:
        return []
    quality = ", ".join(f"{name} {reading.figure(value)}" for name, value in found.quality.items())
    return [("name", found.name), ("origin", found.origin), ("checksum", found.checksum), ("quality", quality)]
