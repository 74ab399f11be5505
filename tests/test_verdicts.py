"""Every verdict, in every output: JUnit, Allure, HTML, ``result.json``, the terminal and the exit code agree.

One table. Each row is a case of its own, of a model or (``tests/operators/judged_suite.py``) an operator; all rows of a
mode run in two sessions, one of what ends well and one of what does not, so that the exit code is a row's too.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pytest_flagperf.reports import html
from pytest_flagperf.result import read_results
from tests.conftest import ROOT
from tests.operators import judged_suite as operators


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

from pytest_flagperf.operators import pool

pool.ENTRY = {ENTRY!r}


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
            names = [*(name for name, row in ROWS.items() if row.ends_well is well), f"operators_{well}"]
            modules = [f"suite/test_{name}.py" for name in names]
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
                env={
                    **os.environ,
                    "FLAGPERF_DATA_ROOT": str(data_root),
                    "SEEN": str(directory / "seen"),
                    "ORDERS": str(directory / "orders.json"),
                },
                capture_output=True,
                text=True,
                timeout=600,
                check=False,
            )
            self.codes[well], self.texts[well] = done.returncode, done.stdout + done.stderr

    def sessions(self) -> list[Path]:
        return [path.parent for path in sorted(self.directory.glob("results-*/*/session.json"))]

    def result(self, name: str) -> dict[str, Any] | None:
        """The last ``result.json`` of a row."""
        found = sorted(self.directory.glob(f"results-*/*/row_{name}-*/result.json"))
        return json.loads(found[-1].read_text()) if found else None

    def operator(self, size: int) -> dict[str, Any]:
        """The last line of a problem in the ``results.jsonl`` of the process that measured it."""
        well = operators.ROWS[size].ends_well
        files = (self.directory / f"results-{well}").glob("*/operators/*/results.jsonl")
        every = [msgspec.to_builtins(one) for path in files for one in read_results(path)]
        (found,) = [one for one in every if one["case"]["id"] == operators.case_id(size)]
        return dict(found)

    def testcase(self, name: str, *, well: bool) -> ElementTree.Element:
        """The test whose name holds this."""
        root = ElementTree.parse(self.directory / f"junit-{well}.xml").getroot()
        (found,) = [case for case in root.iter("testcase") if name in case.get("name", "")]
        return found

    def allure(self, name: str, *, well: bool) -> dict[str, Any]:
        """The last attempt's."""
        paths = (self.directory / f"allure-{well}").glob("*-result.json")
        mine = [one for one in (json.loads(path.read_text()) for path in paths) if name in one["name"]]
        return max(mine, key=lambda one: one["start"])


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory, data_root: Path) -> Callable[[str], Outputs]:
    """The sessions of a mode, run once."""
    made: dict[str, Outputs] = {}

    def make(mode: str) -> Outputs:
        if mode not in made:
            directory = tmp_path_factory.mktemp(mode)
            write_suite(directory / "suite")
            (directory / "baseline.toml").write_text(baseline(), encoding="utf-8")
            (directory / "orders.json").write_text(json.dumps(operators.THEN))
            made[mode] = Outputs(directory, MODES[mode], data_root)
        return made[mode]

    return make


def write_suite(directory: Path) -> None:
    shutil.copytree(ROOT / "tests" / "suite", directory, ignore=shutil.ignore_patterns("test_*", "__pycache__"))
    (directory / "faults.py").write_text(FAULTS)
    (directory / "conftest.py").write_text(CONFTEST.format(ENTRY=operators.ENTRY))
    for well in (True, False):
        sizes = tuple(size for size, row in operators.ROWS.items() if row.ends_well is well)
        (directory / f"test_operators_{well}.py").write_text(operators.SUITE.format(sizes=sizes))
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
    return "".join([*parts, operators.cases()])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ROWS)
def test_every_output_tells_the_same_of_a_case(name: str, mode: str, outputs: Callable[[str], Outputs]) -> None:
    row, said = ROWS[name], outputs(mode)
    result, text = said.result(name), said.texts[row.ends_well]
    agree(said, row, result, f"test_{name}[")
    if result is None:
        return
    (line,) = [
        line for line in text.splitlines() if line.startswith(f"row_{name} convergence [pytorch-fp32-1x1-lite] cpu ")
    ]
    is_error = result["error"] is not None
    assert line.rstrip().endswith(f"invalid: {row.error}" if is_error else row.verdict)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("size", operators.ROWS)
def test_every_output_tells_the_same_of_an_operator(size: int, mode: str, outputs: Callable[[str], Outputs]) -> None:
    row, said = operators.ROWS[size], outputs(mode)
    result, text = said.operator(size), said.texts[row.ends_well]
    agree(said, row, result, f"-m{size}-n64-")
    assert {one["metric"]: one["verdict"] for one in result["comparisons"]} == row.compared
    (line,) = [line for line in text.splitlines() if line.split()[:3] == [str(size), "64", "64"]]
    assert (f" invalid: {row.error}" if row.verdict == "invalid" else f" {row.verdict}") in line


def agree(said: Outputs, row: Row | operators.Row, result: dict[str, Any] | None, name: str) -> None:
    """The exit code, JUnit and Allure say what the row does and the result."""
    case, allure = said.testcase(name, well=row.ends_well), said.allure(name, well=row.ends_well)
    assert said.codes[row.ends_well] == (0 if row.ends_well else 1), said.texts[row.ends_well]
    ended = [child for child in case if child.tag not in ("properties", "system-out", "system-err")]
    assert [child.tag for child in ended] == ([row.junit] if row.junit else [])
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
    if row.error:
        assert row.error in (ended[0].get("message") or "") + (ended[0].text or "")
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
    expected |= {operators.case_id(size): row.verdict for size, row in operators.ROWS.items()}
    shown = [*told["cases"], *(row for family in told["families"] for row in family["rows"])]
    assert {one["id"]: one["verdict"] for one in shown} == expected
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
        assert all((operators.case_id(size) in page) is (one.ends_well is well) for size, one in operators.ROWS.items())


@pytest.mark.parametrize("mode", MODES)
def test_the_terminal_counts_the_verdicts(mode: str, outputs: Callable[[str], Outputs]) -> None:
    said = outputs(mode)
    for well in (True, False):
        of_models = Counter(row.verdict for row in ROWS.values() if row.ends_well is well and row.verdict)
        compared = [row for row in operators.ROWS.values() if row.ends_well is well and row.compared]
        of_operators = Counter(row.verdict for row in compared)
        for start, counts in (("verdicts: ", of_models), ("beside the baseline, verdicts: ", of_operators)):
            (line,) = [line for line in said.texts[well].splitlines() if line.startswith(start)]
            told = dict(part.split(" ", 1)[::-1] for part in line.removeprefix(start).split(", "))
            assert told == {verdict: str(count) for verdict, count in counts.items()}


@pytest.mark.parametrize("mode", MODES)
def test_a_retried_case_says_that_another_round_was_started(mode: str, outputs: Callable[[str], Outputs]) -> None:
    result = outputs(mode).result("retried")
    assert result is not None
    assert len(result["rounds"]) == 1
    (note,) = [note for note in result["notes"] if note.startswith("started for this case beside")]
    assert "round1 (seed 1, RankCrashed)" in note
