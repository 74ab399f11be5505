"""The gate on real runs: a workload whose steps take a tenth longer is caught, and one that is as before passes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import ROOT


pytestmark = [pytest.mark.slow, pytest.mark.pytorch]

STEP = 0.03
SESSIONS, SESSION_ROUNDS, ROUNDS = 6, 2, 5

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Runs the throughput test of the small suite, whose every step sleeps as long as it is told."""
    directory = tmp_path_factory.mktemp("gate")
    shutil.copytree(ROOT / "tests" / "suite", directory / "suite", ignore=shutil.ignore_patterns("__pycache__"))
    workload = directory / "suite" / "pytorch.py"
    text = workload.read_text().replace("import time\n", "import os\nimport time\n", 1)
    sleep = '        time.sleep(float(os.environ["STEP_SECONDS"]))\n        images, labels = batch\n'
    workload.write_text(text.replace("        images, labels = batch\n", sleep, 1))
    module = directory / "suite" / "test_linear.py"
    module.write_text(module.read_text().replace('"measured_steps": 10', '"measured_steps": 40'))

    def execute(name: str, seconds: float, *options: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "pytest", "suite", "-m", "throughput", "-p", "no:cacheprovider", *options]
        environment = {**os.environ, "STEP_SECONDS": str(seconds), "PYTHONPATH": str(ROOT)}
        return subprocess.run(
            [*command, f"--flagperf-dir={directory / name}"],
            cwd=directory,
            env=environment,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )

    return execute


def session(directory: Path) -> Path:
    (found,) = [path for path in directory.iterdir() if (path / "session.json").is_file()]
    return found


def result(directory: Path) -> dict[str, object]:
    (path,) = session(directory).glob("*/result.json")
    return json.loads(path.read_text())


@pytest.fixture(scope="module")
def before(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sessions that the others are compared with."""
    directory = tmp_path_factory.mktemp("before")
    for _ in range(SESSIONS):
        done = run(directory, STEP, f"--rounds={SESSION_ROUNDS}")
        assert done.returncode == 0, done.stdout + done.stderr
    return directory


def judged(run: Run, directory: Path, before: Path, slower: float, disturbed: tuple[str, ...]) -> tuple[int, str]:
    """Exit code, and the verdict on the rate, of a session whose steps take ``slower`` times as long.

    Up to four are made: a neighbour's load is a slowdown too, or makes a session undecided. What it may do to the
    verdict is ``disturbed``.
    """
    for attempt in range(4):
        now = directory / str(attempt)
        done = run(now, STEP * slower, f"--rounds={ROUNDS}", f"--baseline={before}")
        assert done.returncode in (0, 1), done.stdout + done.stderr
        (rate,) = [one for one in result(now)["comparisons"] if one["metric"] == "p_train"]
        if rate["verdict"] not in disturbed:
            break
    return done.returncode, rate["verdict"]


def test_a_real_slowdown_of_a_tenth_fails_the_test(run: Run, before: Path, tmp_path: Path) -> None:
    assert judged(run, tmp_path, before, 1.1, ("inconclusive",)) == (1, "regressed")


def test_the_same_speed_passes(run: Run, before: Path, tmp_path: Path) -> None:
    assert judged(run, tmp_path, before, 1.0, ("inconclusive", "regressed")) == (0, "passed")
