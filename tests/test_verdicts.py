"""Every verdict, in every output: JUnit, Allure, HTML, ``result.json``, the terminal and the exit code agree.

One table. Each row is a case of its own; all rows of a mode run in two sessions, one of what ends well and one of what
does not, so that the exit code is a row's too.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from pytest_flagperf.reports import html
from tests.conftest import ROOT


pytestmark = [pytest.mark.slow, pytest.mark.pytorch]

MODES = {"serial": [], "n2": ["-n", "2"]}
CASE = "convergence-pytorch-fp32-1x1-lite"
JINJA = find_spec("jinja2") is not None
# The import of a framework on a busy machine has to fit in; one row waits for it.
TIMEOUT = 25


@dataclass(frozen=True)
class Row:
    """What a case does, and what every output has to say of it.

    ``verdict`` is that of ``result.json``, ``None`` where there is none; ``error`` the exception; ``junit`` the element
    in its ``<testcase>``; ``allure`` its status.
    """

    verdict: str | None
    junit: str = ""
    allure: str = "passed"
    error: str = ""
    workload: str = "pytorch:Linear"
    dataset: str = "digits"
    bound: float = 0.5
    epochs: int = 1
    precisions: tuple[str, ...] = ("fp32",)
    baseline: float | None = None
    tolerance: float = 0.5

    @property
    def ends_well(self) -> bool:
        return self.allure in ("passed", "skipped")


# A linear classifier of digits reaches a top1 near 0.85 in an epoch: the baselines are far from it, but for one.
ROWS = {
    "passed": Row("passed", baseline=0.8),
    "improved": Row("improved", baseline=0.2, tolerance=0.05),
    "inconclusive": Row("inconclusive", baseline=1.2, tolerance=0.2),
    "new": Row("no baseline"),
    "skipped": Row(None, "skipped", "skipped", precisions=("bf16",)),
    "retried": Row("passed", workload="faults:CrashesOnce", baseline=0.8),
    "missed": Row("missed", "failure", "failed", "TargetMissed", bound=0.9999, baseline=0.8),
    "regressed": Row("regressed", "failure", "failed", "Regressed", baseline=3.0, tolerance=0.05),
    "invalid": Row("invalid", "failure", "broken", "InvalidMeasurement", workload="faults:Percent"),
    "infrastructure": Row("invalid", "error", "broken", "DatasetError", dataset="imagenet2012"),
    "timeout": Row(
        "invalid", "failure", "broken", "JobTimedOut", workload="faults:Endless", bound=0.9999, epochs=10_000
    ),
    "crash": Row("invalid", "failure", "broken", "RankCrashed", workload="faults:Crashes"),
}

MODULE = """
import pytest

from pytest_flagperf import Scale
from pytest_flagperf import TrainingCase
from pytest_flagperf import at_least

CASE = TrainingCase(
    model="row_{name}",
    title="{name}",
    unit="images",
    workloads={{"pytorch": "{row.workload}"}},
    precisions={row.precisions!r},
    scales={{
        "lite": Scale(
            dataset="{row.dataset}",
            targets=[at_least("top1", {row.bound}, source="made up")],
            config={{
                "global_batch_size": 100, "epochs": {row.epochs}, "learning_rate": 0.5, "fault": "", "cpu_threads": 1,
            }},
        )
    }},
)


@pytest.mark.convergence
def test_{name}(case, devices, dataset, launcher):
    assert launcher.run(case, devices, dataset).meets(case.targets)
"""

FAULTS = """
import os
import signal
import time
from pathlib import Path

from .pytorch import Linear


class Percent(Linear):
    def evaluate(self, model):
        return {name: 100 * value for name, value in super().evaluate(model).items()}


class Crashes(Linear):
    def evaluate(self, model):
        os.kill(os.getpid(), signal.SIGKILL)


class CrashesOnce(Linear):
    def evaluate(self, model):
        seen = Path(os.environ["SEEN"])
        if not seen.exists():
            seen.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().evaluate(model)


class Endless(Linear):
    def batches(self, split):
        for batch in super().batches(split):
            time.sleep(0.2)
            yield batch
"""

# What a plugin for reruns does: a first attempt that failed is told as such, and the second one counts.
CONFTEST = """
import pytest
from _pytest.runner import runtestprotocol


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item, nextitem):
    if "retried" not in item.name:
        return None
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    for attempt in range(2):
        reports = runtestprotocol(item, nextitem=nextitem, log=False)
        again = attempt == 0 and any(report.failed for report in reports)
        if again:
            item._initrequest()
            continue
        for report in reports:
            item.ihook.pytest_runtest_logreport(report=report)
        break
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True
"""


class Outputs:
    """What two sessions of a mode said: one of the rows that end well, one of the others."""

    def __init__(self, directory: Path, options: list[str], data_root: Path) -> None:
        self.directory = directory
        self.codes, self.texts = {}, {}
        for well in (True, False):
            modules = [f"suite/test_{name}.py" for name, row in ROWS.items() if row.ends_well is well]
            command = [sys.executable, "-m", "pytest", *modules, "-p", "no:cacheprovider", "-rA", *options]
            done = subprocess.run(
                [
                    *command,
                    f"--junitxml=junit-{well}.xml",
                    f"--alluredir=allure-{well}",
                    f"--flagperf-dir=results-{well}",
                    "--baseline=baseline.toml",
                    f"--flagperf-timeout={TIMEOUT}",
                    *([f"--flagperf-html=report-{well}.html"] if JINJA else []),
                ],
                cwd=directory,
                env={**os.environ, "FLAGPERF_DATA_ROOT": str(data_root), "SEEN": str(directory / "seen")},
                capture_output=True,
                text=True,
                timeout=300,
                check=False,
            )
            self.codes[well], self.texts[well] = done.returncode, done.stdout + done.stderr

    def sessions(self) -> list[Path]:
        return [path.parent for path in sorted(self.directory.glob("results-*/*/session.json"))]

    def result(self, name: str) -> dict[str, Any] | None:
        """The last ``result.json`` of a row."""
        found = sorted(self.directory.glob(f"results-*/*/row_{name}-*/result.json"))
        return json.loads(found[-1].read_text()) if found else None

    def testcase(self, name: str) -> ElementTree.Element:
        root = ElementTree.parse(self.directory / f"junit-{ROWS[name].ends_well}.xml").getroot()
        (found,) = [case for case in root.iter("testcase") if case.get("name", "").startswith(f"test_{name}[")]
        return found

    def allure(self, name: str) -> dict[str, Any]:
        """The last attempt's."""
        paths = (self.directory / f"allure-{ROWS[name].ends_well}").glob("*-result.json")
        found = [json.loads(path.read_text()) for path in paths]
        mine = [one for one in found if one["fullName"].endswith(f"#test_{name}")]
        return max(mine, key=lambda one: one["start"])


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory, data_root: Path) -> Callable[[str], Outputs]:
    """The sessions of a mode, run once."""
    made: dict[str, Outputs] = {}

    def make(mode: str) -> Outputs:
        if mode not in made:
            directory = tmp_path_factory.mktemp(mode)
            write_suite(directory / "suite")
            (directory / "baseline.toml").write_text(baseline())
            made[mode] = Outputs(directory, MODES[mode], data_root)
        return made[mode]

    return make


def write_suite(directory: Path) -> None:
    shutil.copytree(ROOT / "tests" / "suite", directory, ignore=shutil.ignore_patterns("test_*", "__pycache__"))
    (directory / "faults.py").write_text(FAULTS)
    (directory / "conftest.py").write_text(CONFTEST)
    for name, row in ROWS.items():
        (directory / f"test_{name}.py").write_text(MODULE.format(name=name, row=row))


def baseline() -> str:
    """A figure of top1 for each row that has a baseline, as ``flagperf rebase`` would write it."""
    parts = ['schema_version = 1\nvendor = "cpu"\n']
    for name, row in ROWS.items():
        if row.baseline is not None:
            parts.append(f"""
[[case]]
id = "row_{name}-{CASE}"
model = "row_{name}"
kind = "training"
role = "convergence"
framework = "pytorch"
precision = "fp32"
topology = "1x1"
scale = "lite"
dataset = "digits"
configuration = {{ global_batch_size = 100, epochs = 1, learning_rate = 0.5, fault = "", cpu_threads = 1 }}
targets = {{ top1 = {row.bound} }}

[case.metric.top1]
unit = "ratio"
better = "higher"
tolerance = {row.tolerance}

[case.metric.top1.samples]
""")
            # One sample beside one tells little; six sessions decide.
            count = 6 if row.verdict in ("improved", "regressed") else 1
            parts += [f"before{number} = [{row.baseline * (1 + number / 1000)}]\n" for number in range(count)]
    return "".join(parts)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ROWS)
def test_every_output_tells_the_same_of_a_case(name: str, mode: str, outputs: Callable[[str], Outputs]) -> None:
    row, said = ROWS[name], outputs(mode)
    result, case, allure = said.result(name), said.testcase(name), said.allure(name)
    text = said.texts[row.ends_well]
    assert said.codes[row.ends_well] == (0 if row.ends_well else 1), text

    assert [child.tag for child in case if child.tag not in ("properties", "system-out", "system-err")] == (
        [row.junit] if row.junit else []
    )
    assert allure["status"] == row.allure
    if row.verdict is None:
        assert result is None
        return
    assert result is not None
    assert result["verdict"] == row.verdict
    properties = [(one.get("name"), one.get("value")) for one in case.iter("property")]
    assert len(properties) == len(dict(properties)), "a property is there twice"
    told = dict(properties)
    assert told["flagperf.verdict"] == row.verdict
    assert f"**{row.verdict}**" in allure["description"]
    assert {"name": "verdict", "value": row.verdict} in allure["labels"]

    (line,) = [
        line for line in text.splitlines() if line.startswith(f"row_{name} convergence [pytorch-fp32-1x1-lite] cpu ")
    ]
    is_error = result["error"] is not None
    assert line.rstrip().endswith(f"invalid: {row.error}" if is_error else row.verdict)
    if row.error:
        child = case.find(row.junit)
        assert child is not None
        assert row.error in (child.get("message") or "") + (child.text or "")
        assert row.error in allure["statusDetails"]["message"]
    for one in result["comparisons"]:
        assert told[f"flagperf.comparison.{one['metric']}"] == one["verdict"]
        assert f"| {one['metric']} |" in allure["description"]
        if one["change"] is not None:
            assert told[f"flagperf.change.{one['metric']}"] == str(one["change"])


@pytest.mark.parametrize("mode", MODES)
def test_the_report_for_reviewers_tells_the_same(mode: str, outputs: Callable[[str], Outputs]) -> None:
    said = outputs(mode)
    told = html.data(said.sessions())
    expected = {f"row_{name}-{CASE}": row.verdict for name, row in ROWS.items() if row.verdict is not None}
    assert {case["id"]: case["verdict"] for case in told["cases"]} == expected
    assert sum(told["counts"].values()) == len(expected)
    assert {name for name, count in told["counts"].items() if count} == set(expected.values())


@pytest.mark.parametrize("mode", MODES)
def test_the_page_that_the_session_writes_has_every_case_and_its_verdict(
    mode: str, outputs: Callable[[str], Outputs]
) -> None:
    said = outputs(mode)
    if not JINJA:
        pytest.skip("the report needs Jinja2")
    for well in (True, False):
        page = (said.directory / f"report-{well}.html").read_text(encoding="utf-8")
        for name, row in ROWS.items():
            if row.ends_well is well and row.verdict is not None:
                assert f"row_{name}" in page


@pytest.mark.parametrize("mode", MODES)
def test_the_terminal_counts_the_verdicts(mode: str, outputs: Callable[[str], Outputs]) -> None:
    said = outputs(mode)
    for well in (True, False):
        counts: dict[str, int] = {}
        for row in ROWS.values():
            if row.ends_well is well and row.verdict is not None:
                counts[row.verdict] = counts.get(row.verdict, 0) + 1
        (line,) = [line for line in said.texts[well].splitlines() if line.startswith("verdicts: ")]
        told = dict(part.split(" ", 1)[::-1] for part in line.removeprefix("verdicts: ").split(", "))
        assert told == {verdict: str(count) for verdict, count in counts.items()}


@pytest.mark.parametrize("mode", MODES)
def test_a_retried_case_says_that_another_round_was_started(mode: str, outputs: Callable[[str], Outputs]) -> None:
    result = outputs(mode).result("retried")
    assert result is not None
    assert len(result["rounds"]) == 1
    (note,) = [note for note in result["notes"] if note.startswith("started for this case beside")]
    assert "round1 (seed 1, RankCrashed)" in note
