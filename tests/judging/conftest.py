"""Results and sessions to judge, made by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pytest_flagperf import result as results
from pytest_flagperf.judging import rounds as judging


CASE_ID = "toy-throughput-pytorch-fp32-1x1-lite"


def make_result(
    figures: dict[str, Sequence[float]] | None = None,
    *,
    verdict: str = "passed",
    configuration: dict[str, Any] | None = None,
    curves: Sequence[Sequence[tuple[float, float]]] = (),
    target: float | None = None,
    stack: dict[str, str] | None = None,
    operator: dict[str, Any] | None = None,
    **case: Any,
) -> results.Result:
    """A result of rounds with these figures, metric → one a round; ``curves`` are each round's (epoch, top1)."""
    figures = figures or {}
    count = max([len(values) for values in figures.values()] + [len(curves), 0])
    rounds = []
    for number in range(count):
        found = {name: values[number] for name, values in figures.items() if number < len(values)}
        curve = curves[number] if number < len(curves) else ()
        rounds.append(
            results.RoundResult(
                round=number + 1,
                seed=number + 1,
                directory=f"round{number + 1}",
                time_started=None,
                metrics=results.with_units(found),
                evaluations=[results.EvaluationResult(e, int(100 * e), 10 * e, {"top1": v}) for e, v in curve],
            )
        )
    info: dict[str, Any] = {
        "id": CASE_ID,
        "node_id": f"test_toy.py::test[{CASE_ID}]",
        "model": "toy",
        "kind": "training",
        "role": "throughput",
        "framework": "pytorch",
        "precision": "fp32",
        "topology": "1x1",
        "scale": "lite",
        "vendor": "acme",
        "devices": [0],
        "unit": "images",
        "chip": "A1",
        **case,
    }
    targets = [] if target is None else [results.TargetResult("top1", target, "at least", "a paper", None, True)]
    return results.Result(
        case=results.CaseInfo(**info),
        verdict=verdict,
        metrics=results.with_units(judging.of_rounds(rounds)[0]),
        targets=targets,
        rounds=[] if operator is not None else rounds,
        configuration={k: results.SettingResult(v, "case") for k, v in (configuration or {"seed": 1}).items()},
        dataset=results.DatasetInfo("digits", synthetic=False, checksum="c0ffee" * 10),
        rerun=[],
        stack=stack or {},
        operator=operator or {},
    )


@pytest.fixture
def write_session(tmp_path: Path) -> Callable[..., Path]:
    """Writes results as a session's directory, and gives that."""

    def write(name: str, *found: results.Result, started: float = 1_790_000_000.0, **description: Any) -> Path:
        directory = tmp_path / "sessions" / name
        directory.mkdir(parents=True)
        document = {
            "session": name,
            "time_started": started,
            "source": {"commit": "abc1234", "changed": False},
            **description,
        }
        (directory / "session.json").write_text(json.dumps(document))
        for one in found:
            (directory / one.case.id).mkdir()
            results.write_result(directory / one.case.id, one)
        return directory

    return write


def replaced(result: results.Result, **changes: Any) -> results.Result:
    """The result with other fields, those of its case among them."""
    own = {key: changes.pop(key) for key in list(changes) if key in results.CaseInfo.__struct_fields__}
    return msgspec.structs.replace(result, case=msgspec.structs.replace(result.case, **own), **changes)
