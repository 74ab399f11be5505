"""Results and events of inference for the tests of reports, as a run leaves them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from pytest_flagperf import records
from pytest_flagperf import result as results
from pytest_flagperf.reports.inference import SCENARIOS
from pytest_flagperf.result import CaseInfo
from pytest_flagperf.result import DatasetInfo
from pytest_flagperf.result import ErrorResult
from pytest_flagperf.result import EvaluationResult
from pytest_flagperf.result import LoadGenResult
from pytest_flagperf.result import Result
from pytest_flagperf.result import RoundResult
from pytest_flagperf.result import SettingResult
from pytest_flagperf.result import TargetResult
from pytest_flagperf.result import WeightsInfo
from tests.inference.test_loadgen_log import VALID


COMMON = {
    "e2e_time": 613.4,
    "p_validation_whole": 1358.9,
    "p_validation_core": 4263.3,
    "compile_time": 61.5,
    "engine_size": 49.2,
    "output_error": 0.0021,
    "quality_ratio": 0.9987,
    "memory_peak": 19.7,
    "memory_total": 40.0,
}
FIGURES: Mapping[str, Mapping[str, float]] = {
    "throughput": {"p_inference_whole": 1391.4, "p_inference_core": 12406.0, "mfu": 0.168},
    "edge": {
        **{"p_inference_whole": 90.0, "p_inference_core": 95.0, "latency_mean": 11.1, "latency_p50": 10.5},
        **{"latency_p90": 12.25, "latency_p99": 18.75, "latency_p999": 30.5, "memory_peak": 0.05, "energy": 812.5},
    },
    "single_stream": {"p_inference_whole": 88.0, "latency_p50": 1.1, "latency_p90": 2.2, "latency_early_stopping": 2.4},
    "server": {"qps": 497.31, "latency_p50": 1.1, "latency_p90": 2.2, "latency_p99": 3.3},
    "offline": {"p_inference_whole": 20321.5},
    "generation": {"ttft": 21.5, "tpot": 7.25, "tokens_per_second_per_device": 137.9},
}
WEIGHTS = WeightsInfo("resnet50-digits", "trained here: resnet50 lite, seed 1", "a8e12bb6", {"top1": 0.967})
RANDOM = WeightsInfo("resnet50-imagenet", "random")
SHORTENED = {"shortened": {"duration": [2.0, 600.0]}, "scenario": "Server"}
SEARCHED = [
    {"rate": 100.0, "valid": True, "latency_p99_ns": 1_200_000},
    {"rate": 800.0, "valid": False, "latency_p99_ns": 90_000_000},
    {"rate": 500.0, "valid": True, "latency_p99_ns": 3_100_000},
]
# Name of an event, seconds since the first, value.
Line = tuple[str, float, Mapping[str, Any]]


def inferred(
    role: str = "throughput",
    engine: str = "onnxruntime",
    *,
    precision: str = "fp16",
    metrics: Mapping[str, float] | None = None,
    quality: tuple[float | None, float | None] = (0.762, 0.761),
    verdict: str = "passed",
    error: ErrorResult | None = None,
    configuration: Mapping[str, Any] | None = None,
    **more: Any,
) -> Result:
    """A result of ResNet-50 on one A100; ``quality`` is top1 of the reference and of the engine.

    LoadGen calls its run valid where nothing else is said.
    """
    told = LoadGenResult(SCENARIOS[role][0], True) if role in SCENARIOS else None
    found = dict({**COMMON, **FIGURES[role]} if metrics is None else metrics)
    ours = quality[1]
    found |= {} if ours is None else {"top1": ours}
    case = more.pop("case", {})
    identity = f"resnet50-{role}-pytorch-{engine}-{precision}-1x1-full"
    evaluations = [
        EvaluationResult(0.0, step, 10.0 * step, {"top1": value})
        for step, value in enumerate(quality)
        if value is not None
    ]
    info = {
        **{"id": identity, "node_id": f"suites/inference/resnet50/test_resnet50.py::test_{role}[{identity}]"},
        **{"model": "resnet50", "kind": "inference", "role": role, "framework": "pytorch", "precision": precision},
        **{"topology": "1x1", "scale": "full", "vendor": "nvidia", "chip": "A100", "devices": [0], "unit": "images"},
        **{"engine": engine, **case},
    }
    settings = {"batch_size": 256, **(configuration or {})}
    return Result(
        case=CaseInfo(**info),
        verdict=verdict,
        metrics=results.with_units(found),
        targets=[
            TargetResult("top1", 0.757, "at least", "MLPerf Inference", ours, ours is not None and ours >= 0.757),
            TargetResult("quality_ratio", 0.99, "at least", "MLPerf Inference", found.get("quality_ratio"), True),
        ],
        rounds=[
            RoundResult(
                1,
                seed=1,
                directory="/another/machine/session/case1/round1",
                time_started=1.79e9,
                metrics=results.with_units(found),
                evaluations=evaluations,
                precision={"asked": precision, "engine": engine},
                error=error,
                loadgen=more.pop("loadgen", told),
            )
        ],
        configuration={name: SettingResult(value, "case resnet50, scale full") for name, value in settings.items()},
        dataset=more.pop("dataset", DatasetInfo("imagenet2012", False, "abc", {"val": 50_000})),
        rerun=["pytest"],
        error=error,
        stack={"torch": "2.9.0", "onnxruntime": "1.23.2"},
        weights=more.pop("weights", WEIGHTS),
        **more,
    )


def shortened() -> LoadGenResult:
    """What LoadGen says of a server's run of 2 s instead of 600."""
    return LoadGenResult("Server", True, shortened={"duration": [2.0, 600.0]})


def scoring(role: str = "throughput", **more: Any) -> Result:
    """A result of Llama, which counts tokens."""
    identity = f"llama-{role}-pytorch-onnxruntime-fp16-1x1-full"
    case = {"id": identity, "node_id": f"test_llama.py::test_{role}[{identity}]", "model": "llama", "unit": "tokens"}
    return inferred(role, case=case, **more)


def steps(measured: Sequence[Line]) -> list[Line]:
    """The events of a round: a second for each step, then those of the role."""
    quality = {"quality": {"top1": 0.762}}
    return [
        ("LOAD_BEGIN", 0.0, {}),
        ("LOAD_END", 1.0, {"samples": 1000, "random_weights": False}),
        ("VALIDATION_BEGIN", 1.5, {"engine": "eager"}),
        ("VALIDATION_END", 3.5, quality),
        ("EXPORT_BEGIN", 3.5, {}),
        ("EXPORT_END", 4.0, {}),
        ("COMPILE_BEGIN", 4.0, {}),
        ("COMPILE_END", 8.0, {"size_bytes": 1000}),
        ("WARMUP_END", 8.5, {}),
        ("ACCURACY_BEGIN", 8.5, {}),
        ("ACCURACY_END", 9.5, quality),
        *measured,
    ]


def edge(latencies: Sequence[int]) -> list[Line]:
    """The events of a round at the edge."""
    half = len(latencies) // 2
    return steps(
        [
            ("INFERENCE_BEGIN", 9.5, {"batch_size": 1, "repeat": 1}),
            ("QUERIES", 10.0, {"latencies_ns": list(latencies[:half])}),
            ("QUERIES", 10.4, {"latencies_ns": list(latencies[half:])}),
            ("INFERENCE_END", 10.5, {"samples": len(latencies)}),
            ("FINISHED", 10.5, {}),
        ]
    )


def server(**told: Any) -> list[Line]:
    """The events of a round as a server, whose search took half of the time."""
    begin = {"latency_bound": 15.0, "searched": SEARCHED, **SHORTENED}
    loadgen = {"summary": VALID, "errors": [], "rate": 500.0, "version": "6.0.17", **told}
    return steps(
        [("INFERENCE_BEGIN", 19.5, begin), ("INFERENCE_END", 21.5, {"loadgen": loadgen}), ("FINISHED", 21.5, {})]
    )


def write(directory: Path, found: Sequence[tuple[Result, Sequence[Line]]]) -> Path:
    """A session of these results and the events of their one round."""
    directory.mkdir(parents=True)
    described = {"session": directory.name, "time_started": 1.79e9, "time_ended": 1.79e9 + 60, "vendor": "nvidia"}
    records.write_json(directory / "session.json", described)
    for number, (one, lines) in enumerate(found, 1):
        path = f"/another/machine/session/case{number}/round1"
        moved = msgspec.structs.replace(one, rounds=[msgspec.structs.replace(one.rounds[0], directory=path)])
        host = directory / f"case{number}" / "round1" / "host1"
        host.mkdir(parents=True)
        text = "".join(f"{json.dumps(event(*line))}\n" for line in lines)
        (host / "rank0.events.jsonl").write_text(text, encoding="utf-8")
        (directory / f"case{number}" / "result.json").write_bytes(msgspec.json.encode(moved))
    return directory


def event(name: str, seconds: float, value: Mapping[str, Any]) -> dict[str, Any]:
    """A line of a rank's log."""
    return {"event": name, "value": value, "metadata": {"time_ms": 0, "monotonic_ns": int(seconds * 1e9), "rank": 0}}
