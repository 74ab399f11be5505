"""A suite of inference that takes seconds, and engines that are wrong on purpose, found by their entry points."""

from __future__ import annotations

import json
import os
import shutil
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT


# Suites for the tests to run, not tests.
collect_ignore = ["suite", "training"]

HERE = Path(__file__).resolve().parent
ENGINES = {
    "perturbed": "Perturbed",
    "shifted": "Shifted",
    "cached": "Cached",
    "truncated": "Truncated",
    "notanumber": "NotANumber",
    "crashing": "Crashing",
    "hanging": "Hanging",
    "absent": "Absent",
    "outofmemory": "OutOfMemory",
    "damaged": "Damaged",
    "fulldisk": "FullDisk",
    "killed": "Killed",
}
CONFTEST = """
from pathlib import Path

from pytest_flagperf import weights

if "perceptron-digits" not in weights.known():
    weights.register(
        weights.WeightsSet(
            "perceptron-digits",
            "The tests' perceptron",
            "The tests train it.",
            recipe=weights.Recipe("perceptron", suite=Path(__file__).parent / "suites" / "training"),
        )
    )
"""


@pytest.fixture
def perceptron(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory with the suite; the wrong engines are installed."""
    suites = pytester.path / "suites"
    for name in ("suite", "training"):
        shutil.copytree(HERE / name, suites / name, ignore=shutil.ignore_patterns("__pycache__"))
        (suites / name / "__init__.py").touch()
    (suites / "__init__.py").touch()
    pytester.makeconftest(CONFTEST)
    site = pytester.path / "site"
    shutil.copy(HERE / "wrong_engines.py", pytester.mkdir("site"))
    metadata = site / "wrong_engines-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: wrong-engines\nVersion: 1.0\n")
    points = [f"pytorch.{name} = wrong_engines:{kind}" for name, kind in ENGINES.items()]
    (metadata / "entry_points.txt").write_text("\n".join(["[pytest_flagperf.engines]", *points]) + "\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(site), os.environ.get("PYTHONPATH", "")]))
    return suites / "suite"


@pytest.fixture
def run(pytester: pytest.Pytester, perceptron: Path) -> Callable[..., tuple[pytest.RunResult, dict[str, Any]]]:
    """Runs the suite in a pytest of its own; gives what it said, and the results by their engine."""

    def run(*arguments: str) -> tuple[pytest.RunResult, dict[str, Any]]:
        done = pytester.runpytest_subprocess(
            str(perceptron), "--flagperf-dir=results", "-p", "no:cacheprovider", *arguments, timeout=300
        )
        found = [json.loads(path.read_text()) for path in (pytester.path / "results").glob("*/*/result.json")]
        return done, {one["case"]["engine"]: one for one in found}

    return run


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """What TensorRT needs of a device, on the host."""
    import torch

    free = [8 * 2**30]

    def mem_get_info(device: object) -> tuple[int, int]:
        free[0] -= 2**30
        return free[0], 16 * 2**30

    stream = types.SimpleNamespace(cuda_stream=7, synchronize=lambda: None)
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: stream)
    monkeypatch.setattr(torch.cuda, "mem_get_info", mem_get_info)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
