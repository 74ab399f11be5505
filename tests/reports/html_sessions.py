"""Sessions for the tests of the HTML report: on disk as a run leaves them, with events, samples and logs."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from pytest_flagperf import records
from pytest_flagperf import result as results
from pytest_flagperf.judging import gathering
from pytest_flagperf.judging import kept
from pytest_flagperf.judging.baselines import Baseline
from pytest_flagperf.result import CaseInfo
from pytest_flagperf.result import ComparisonResult
from pytest_flagperf.result import DatasetInfo
from pytest_flagperf.result import ErrorResult
from pytest_flagperf.result import EvaluationResult
from pytest_flagperf.result import Result
from pytest_flagperf.result import RoundResult
from pytest_flagperf.result import SettingResult
from pytest_flagperf.result import SpreadResult
from pytest_flagperf.result import TargetResult


STEPS = 1200
SECONDS = 30
# Would run if any of it were taken for markup, wherever it stands: in text, an attribute, a script, JSON.
HOSTILE = "</script><script>window.hacked=1</script><img src=x onerror=window.hacked=1>\"'&lt;b&gt;\u2028</noscript><b>"


def info(number: int, **more: Any) -> CaseInfo:
    """A case of a made-up model."""
    given = {
        "id": f"model{number}-convergence-pytorch-bf16-1x8-full",
        "node_id": f"suites/test_model{number}.py::test_converges[pytorch-bf16-1x8-full]",
        "model": f"model{number}",
        "kind": "training",
        "role": "convergence",
        "framework": "pytorch",
        "precision": "bf16",
        "topology": "1x8",
        "scale": "full",
        "vendor": "kunlunxin",
        "chip": "R300",
        "devices": [0, 1],
        "unit": "images",
        **more,
    }
    return CaseInfo(**given)


def case(number: int = 1, verdict: str = "passed", speed: float = 1000.0, **more: Any) -> Result:
    """A result of two rounds, the first of which does not count."""
    figures = {"p_whole": speed, "p_core": 1.1 * speed, "e2e_time": 3600.0, "memory_peak": 30.5, "top1": 0.761}
    rounds = [
        RoundResult(
            number_of_round,
            seed=number_of_round,
            directory=f"/another/machine/session/case{number}/round{number_of_round}",
            time_started=1.79e9,
            metrics=results.with_units({name: value for name, value in figures.items() if name != "top1"}),
            evaluations=[
                EvaluationResult(1.0, 600, 10.0, {"top1": 0.5}),
                EvaluationResult(2.0, STEPS, 20.0, {"top1": 0.761}),
            ],
            precision={"asked": "bf16", "device_name": "R300"},
            dropped="the slowest of five" if number_of_round == 1 else "",
        )
        for number_of_round in (1, 2)
    ]
    given = {
        "case": info(number),
        "verdict": verdict,
        "metrics": results.with_units({name: value for name, value in figures.items() if name != "top1"}),
        "targets": [TargetResult("top1", 0.759, "at least", "MLPerf Training v0.7", 0.761, True)],
        "rounds": rounds,
        "configuration": {
            "batch_size": SettingResult(256, "vendors/kunlunxin/model1.toml"),
            "epochs": SettingResult(90, "case model1, scale full"),
        },
        "dataset": DatasetInfo("imagenet2012", False, "abc", {"train": 1281167}),
        "rerun": [
            "pytest",
            f"suites/test_model{number}.py::test_converges[pytorch-bf16-1x8-full]",
            "--vendor=kunlunxin",
        ],
        "deviations": ["batch_size = 256 (standard case: 128), from vendors/kunlunxin/model1.toml"],
        "spreads": {"p_whole": SpreadResult([speed, 1.02 * speed], "median", 0.98 * speed, 1.03 * speed, 0.014)},
        "stack": {"torch": "2.9"},
        **more,
    }
    return Result(**given)


def comparison(verdict: str, change: float) -> ComparisonResult:
    """``p_whole`` beside a baseline of 1,050 samples/s."""
    return ComparisonResult(
        "p_whole", verdict, 1000.0, 1050.0, change, [change - 0.01, change + 0.01], "a t-test", 0.02
    )


def operator(number: int = 1, verdict: str = "passed", time: float = 120.0, **more: Any) -> Result:
    """A matrix product."""
    operator_facts = {
        "problem": {"family": "gemm", "m": 128 * number, "n": 16, "k": 64, "a_transposed": False, "b_transposed": True},
        "id": f"m{128 * number}-n16-k64-nt",
        "samples": [time + math.sin(i) for i in range(300)],
        "iterations": 300,
        "ended": "converged",
        "device_name": "R300",
        "peak": {"value": 128.0, "unit": "TFLOP/s", "source": "data sheet", "estimated": True},
        **more.pop("facts", {}),
    }
    identity = f"gemm-train-fp32-fwd-m{128 * number}-n16-k64-nt"
    return Result(
        case=info(
            number,
            id=identity,
            node_id=f"suites/operators/test_gemm.py::test_gemm[{identity}]",
            model="gemm",
            kind="operator",
            role="fwd",
            precision="fp32",
            topology="1x1",
            scale="train",
            unit="calls",
            **more.pop("case", {}),
        ),
        verdict=verdict,
        metrics=results.with_units({"time": time, "tflops": 0.5, "utilization": 0.42}),
        targets=[],
        rounds=[],
        configuration={},
        dataset=DatasetInfo("generated", False),
        rerun=["pytest", f"suites/operators/test_gemm.py::test_gemm[{identity}]"],
        operator=operator_facts,
        notes=["column-major, as BLAS is called"],
        **more,
    )


def write(
    directory: Path,
    found: Sequence[Result],
    *,
    description: Mapping[str, Any] | None = None,
    log: str = "a line of the log\n",
    host: str = "host1",
) -> Path:
    """The session's directory."""
    directory.mkdir(parents=True)
    standard = {
        "session": directory.name,
        "time_started": 1.79e9,
        "time_ended": 1.79e9 + 60,
        "exit_status": 1,
        "vendor": "kunlunxin",
        "host": {"name": "host1", "cpu": "Kunpeng 920", "cpus": 192},
        "device_list": [{"index": 0, "name": "R300"}, {"index": 1, "name": "R300"}],
        "versions": {"python": "3.11.7", "torch": "2.9"},
        "command": ["pytest", "suites", "-m", "training and pytorch"],
    }
    records.write_json(directory / "session.json", {**standard, **(description or {})})
    lines = results.Results(directory / "operators" / "main")
    for number, one in enumerate(found, 1):
        if one.case.kind == "operator":
            lines.append(one)
            continue
        target = directory / f"case{number}"
        for round_of_case in one.rounds:
            _write_round(target / Path(round_of_case.directory).name / host, log)
        target.mkdir(parents=True, exist_ok=True)
        # Not by write_result: hundreds of them need not be on the disk for a test.
        (target / "result.json").write_bytes(msgspec.json.encode(one))
    lines.close()
    return directory


def _write_round(directory: Path, log: str) -> None:
    directory.mkdir(parents=True)
    (directory / "rank0.log").write_text(log, encoding="utf-8")
    events = [_event("TRAIN_START", 2.0, {})]
    events += [
        _event("STEP_END", 2 + s / 60, {"loss": 2 / (1 + s / 100), "global_steps": s}) for s in range(1, STEPS + 1)
    ]
    events.append(_event("TRAIN_END", 22.5, {}))
    (directory / "rank0.events.jsonl").write_text("".join(f"{json.dumps(one)}\n" for one in events), encoding="utf-8")
    samples = [{"event": "monitor_start", "monotonic": 0.0, "devices": [0, 1]}]
    samples += [
        {
            "event": "sample",
            "monotonic": float(s),
            "time": 1.79e9 + s,
            "device": device,
            "power": 300.0 + s + device,
            "temperature": 60 + s / 10,
        }
        for s in range(SECONDS)
        for device in (0, 1)
    ]
    samples.append({"event": "monitor_end", "monotonic": float(SECONDS)})
    (directory / "monitor.jsonl").write_text("".join(f"{json.dumps(one)}\n" for one in samples), encoding="utf-8")


def _event(name: str, seconds: float, value: dict[str, Any]) -> dict[str, Any]:
    return {"event": name, "value": value, "metadata": {"time_ms": 0, "monotonic_ns": int(seconds * 1e9), "rank": 0}}


def hostile(directory: Path) -> Path:
    """A session in which every text that somebody else may have written is hostile."""
    model = case(
        1,
        "invalid",
        case=info(
            1,
            id=f"id{HOSTILE}",
            node_id=f"test{HOSTILE}",
            model=f"model{HOSTILE}",
            role=HOSTILE,
            framework=HOSTILE,
            precision=HOSTILE,
            topology=HOSTILE,
            scale=HOSTILE,
            vendor=HOSTILE,
            chip=HOSTILE,
            container={HOSTILE: HOSTILE},
            vendor_file={HOSTILE: HOSTILE},
            environment={HOSTILE: HOSTILE},
            division=HOSTILE,
            stand_in=HOSTILE,
        ),
        error=ErrorResult(HOSTILE, HOSTILE),
        configuration={f"key{HOSTILE}": SettingResult(HOSTILE, HOSTILE)},
        deviations=[HOSTILE],
        diff=HOSTILE,
        notes=[HOSTILE],
        dataset=DatasetInfo(HOSTILE, False, HOSTILE, {HOSTILE: 1}),
        rerun=["pytest", HOSTILE],
        stack={HOSTILE: HOSTILE},
        targets=[TargetResult(HOSTILE, 1.0, HOSTILE, HOSTILE, None, False)],
        comparisons=[ComparisonResult(HOSTILE, HOSTILE, 1.0, method=HOSTILE, source=HOSTILE, reasons=[HOSTILE])],
    )
    rounds = [
        msgspec.structs.replace(
            model.rounds[1],
            evaluations=[EvaluationResult(1.0, 1, 1.0, {HOSTILE: 0.5}), EvaluationResult(2.0, 2, 2.0, {HOSTILE: 0.6})],
            precision={HOSTILE: HOSTILE},
            dropped=HOSTILE,
            directory="/x/case1/round2",
        )
    ]
    kernel = operator(
        1,
        HOSTILE,
        case={"framework": HOSTILE, "vendor": HOSTILE, "chip": HOSTILE},
        facts={"problem": {"m": HOSTILE}, "id": HOSTILE, "device_name": HOSTILE, "ended": HOSTILE},
        error=ErrorResult(HOSTILE, HOSTILE),
    )
    kernel = msgspec.structs.replace(kernel, notes=[HOSTILE], case=msgspec.structs.replace(kernel.case, model=HOSTILE))
    description = {
        "session": f"session{HOSTILE}",
        "vendor": HOSTILE,
        "host": {"name": HOSTILE, "cpu": HOSTILE},
        "device_list": [{"name": HOSTILE}],
        "versions": {HOSTILE: HOSTILE},
        "command": [HOSTILE],
        "environment": {HOSTILE: HOSTILE},
    }
    model = msgspec.structs.replace(model, rounds=rounds)
    return write(directory, [model, kernel], description=description, log=HOSTILE * 3, host="<b onclick=alert(1)>host")


def mixed(directory: Path) -> Path:
    """Training that is well, missed and broken, one compared with a baseline, and operators."""
    return write(
        directory,
        [
            case(1, "regressed", comparisons=[comparison("regressed", -0.048)]),
            case(2, "missed"),
            case(3, "invalid", error=ErrorResult("RankCrashed", "rank 3 died of signal 9\nsee its log")),
            *(operator(number) for number in range(1, 6)),
            operator(6, "wrong", error=ErrorResult("WrongResult", "0.5 > 1e-6")),
        ],
    )


# Epochs, steps and quality of a baseline whose rounds learn as ``case`` does.
LEARNED = ((1.0, 600.0, 0.5), (2.0, 1200.0, 0.761), (3.0, 1800.0, 0.79))


def learned(rounds: int = 8, curve: Sequence[tuple[float, float, float]] = LEARNED) -> dict[str, Any]:
    """The curves of rounds that differ by a thousandth each."""
    epochs, steps, values = (list(column) for column in zip(*curve, strict=True))
    return {
        f"before round {number}": {
            "epoch": epochs,
            "step": steps,
            "top1": [value + 0.001 * (number - rounds / 2) for value in values],
        }
        for number in range(1, rounds + 1)
    }


def keep_baseline(session: Path, result: Result, curves: Mapping[str, Any]) -> Baseline:
    """Keep in a session a baseline of the case with these curves, as its gate does."""
    stored = msgspec.structs.replace(gathering.of_result(result, "before"), curve=dict(curves))
    baseline = Baseline(result.case.vendor, result.case.chip or "", case=[stored], origin="R300.toml")
    kept.write(session, result.case.vendor, result.case.chip, baseline)
    return baseline
