"""Sessions for the tests of the formats: written to disk as a run writes them, and read again."""

from __future__ import annotations

import json
from collections.abc import Iterable
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from pytest_flagperf import result as results
from pytest_flagperf import sessions
from pytest_flagperf.result import CaseInfo
from pytest_flagperf.result import DatasetInfo
from pytest_flagperf.result import ErrorResult
from pytest_flagperf.result import Result
from pytest_flagperf.result import SettingResult
from pytest_flagperf.result import TargetResult
from pytest_flagperf.sessions import SessionFiles


FIGURES = {
    "e2e_time": 28661.0,
    "p_whole": 4475.0,
    "p_train": 4586.0,
    "p_core": 4659.0,
    "memory_peak": 31.8,
    "memory_total": 32.0,
}
HOST = {"name": "host", "platform": "Linux-5.4.0", "cpu": "Kunpeng 920", "cpus": 192}
STANDARD = {"batch_size": SettingResult(256, "case resnet50, scale full")}


def training(
    *,
    model: str = "resnet50",
    role: str = "convergence",
    framework: str = "pytorch",
    precision: str = "fp32",
    topology: str = "1x8",
    scale: str = "full",
    vendor: str = "kunlunxin",
    chip: str | None = "R300",
    verdict: str = "passed",
    metrics: Mapping[str, float] | None = None,
    quality: float | None = 0.7612,
    bound: float = 0.759,
    configuration: Mapping[str, SettingResult] | None = None,
    error: str = "",
    **more: Any,
) -> Result:
    """A result of ResNet-50 on eight R300, but for what is given."""
    found = dict(FIGURES if metrics is None else metrics)
    targets = []
    if role == "convergence":
        found |= {} if quality is None else {"top1": quality}
        met = quality is not None and quality >= bound
        targets = [TargetResult("top1", bound, "at least", "MLPerf Training v0.7", quality, met)]
    identity = f"{model}-{role}-{framework}-{precision}-{topology}-{scale}"
    case = CaseInfo(
        id=identity,
        node_id=more.pop("node_id", f"suites/training/{model}/test_{model}.py::test_{role}[{identity}]"),
        model=model,
        kind="training",
        role=role,
        framework=framework,
        precision=precision,
        topology=topology,
        scale=scale,
        vendor=vendor,
        devices=[0],
        unit="images",
        chip=chip,
        division=more.pop("division", "closed"),
        stand_in=more.pop("stand_in", ""),
    )
    return Result(
        case=case,
        verdict=verdict,
        metrics=results.with_units(found),
        targets=targets,
        rounds=more.pop("rounds", []),
        configuration=dict(STANDARD if configuration is None else configuration),
        dataset=more.pop("dataset", DatasetInfo("imagenet2012", False, splits={"train": 1_281_167, "val": 50_000})),
        rerun=["pytest"],
        error=ErrorResult("RankCrashed", error) if error else None,
        **more,
    )


def operator(family: str, problem: Mapping[str, Any], figures: Mapping[str, float], **more: Any) -> Result:
    """A result of an operator on one A100."""
    precision, verdict = more.pop("precision", "fp16"), more.pop("verdict", "passed")
    identity = f"{family}-flagperf-{precision}-fwd-{'-'.join(map(str, problem.values()))}"
    case = CaseInfo(
        id=identity,
        node_id=f"suites/operators/test_{family}.py::test_{family}[{identity}]",
        model=family,
        kind="operator",
        role="fwd",
        framework="pytorch",
        precision=precision,
        topology="1x1",
        scale="flagperf",
        vendor="nvidia",
        devices=[0],
        unit="calls",
        chip=more.pop("chip", "A100"),
    )
    facts = {"problem": {"family": family, **problem}, "id": "x", "sets": ["flagperf"], **more}
    return Result(
        case=case,
        verdict=verdict,
        metrics=results.with_units(figures),
        targets=[],
        rounds=[],
        configuration={},
        dataset=DatasetInfo("generated", False),
        rerun=["pytest"],
        operator=facts,
    )


def session(directory: Path, found: Iterable[Result], derived: Iterable[Mapping[str, Any]] = ()) -> SessionFiles:
    """The results written below ``directory`` and read back."""
    directory.mkdir(parents=True, exist_ok=True)
    versions = {"pytest-flagperf": "0.1.0", "torch": "2.9.0", "mindspore": "2.6.0", "numpy": "1.26.4"}
    described = {"session": directory.name, "time_started": 1.79e9, "versions": versions, "host": HOST}
    (directory / "session.json").write_text(json.dumps(described))
    lines = directory / "operators" / "main" / results.RESULTS
    for one in found:
        if one.case.kind == "operator":
            lines.parent.mkdir(parents=True, exist_ok=True)
            with open(lines, "ab") as file:
                file.write(msgspec.json.encode(one) + b"\n")
        else:
            case = directory / one.case.id
            case.mkdir()
            # Not by write_result: hundreds of them need not be on the disk for a test.
            (case / "result.json").write_bytes(msgspec.json.encode(one))
    listed = list(derived)
    if listed:
        (directory / "derived.json").write_text(json.dumps({"metrics": listed}))
    return sessions.read(directory)


def derived(name: str, value: float, one: Result, other: Result) -> dict[str, Any]:
    """A derived figure of ``one`` beside ``other``, as ``derived.json`` holds it."""
    case = one.case
    names = ("model", "role", "framework", "precision", "topology", "scale", "vendor", "chip")
    return {
        **{field: getattr(case, field) for field in names},
        **{"name": name, "value": value, "unit": "ratio", "better": "higher", "of": "p_train", "inputs": {}},
        "cases": [case.id, other.case.id],
    }


def tables(text: str) -> list[list[list[str]]]:
    """Every table of a Markdown text: its rows, the header first, without the rule."""
    found: list[list[list[str]]] = []
    inside = False
    for line in text.splitlines():
        if not line.startswith("|"):
            inside = False
            continue
        if not inside:
            found.append([])
        inside = True
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if not all(cell.strip("-:") == "" and cell for cell in cells):
            found[-1].append(cells)
    return found
