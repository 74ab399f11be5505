"""JUnit, Allure and the terminal say what ``result.json`` says: serial, under xdist, with and without the plugins."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path

import pytest
import xmlschema

from tests.conftest import ROOT


pytestmark = [pytest.mark.slow, pytest.mark.pytorch]

SCHEMA = ROOT / "tests" / "data" / "third_party" / "junit-10.xsd"
MODES = {
    "serial": [],
    "n2": ["-n", "2"],
    "without_xdist": ["-p", "no:xdist"],
    "without_allure": ["-p", "no:allure_pytest"],
}


class Session:
    """A finished run of the linear suite: one test passed, one missed its target."""

    def __init__(self, directory: Path, options: list[str], data_root: Path, ini: str = "") -> None:
        self.directory = directory
        (directory / "pytest.ini").write_text(f"[pytest]\njunit_family = xunit2\n{ini}")
        command = [sys.executable, "-m", "pytest", "suite", "-p", "no:cacheprovider", "--junitxml=junit.xml"]
        if "no:allure_pytest" not in options:
            command += ["--alluredir=allure", "--clean-alluredir"]
        done = subprocess.run(
            [*command, "--flagperf-dir=results", "--target=top1=0.9999", *options],
            cwd=directory,
            env={**os.environ, "FLAGPERF_DATA_ROOT": str(data_root)},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        self.code, self.output = done.returncode, done.stdout + done.stderr

    def results(self) -> dict[str, dict]:
        found = [json.loads(path.read_text()) for path in self.directory.glob("results/*/*/result.json")]
        return {result["case"]["role"]: result for result in found}

    def testcases(self) -> dict[str, ElementTree.Element]:
        root = ElementTree.parse(self.directory / "junit.xml").getroot()
        return {case.get("name", "").partition("[")[0]: case for case in root.iter("testcase")}

    def allure(self) -> dict[str, dict]:
        found = [json.loads(path.read_text()) for path in self.directory.glob("allure/*-result.json")]
        return {result["fullName"].rpartition("#")[2]: result for result in found}


@pytest.fixture(scope="module")
def session_of(tmp_path_factory: pytest.TempPathFactory, data_root: Path) -> Callable[[str], Session]:
    """One run a mode, shared by the tests of this module."""
    made: dict[str, Session] = {}

    def make(mode: str) -> Session:
        if mode not in made:
            directory = tmp_path_factory.mktemp(mode)
            shutil.copytree(ROOT / "tests" / "suite", directory / "suite")
            ini = "flagperf_junit_properties = testsuite\n" if mode == "testsuite" else ""
            made[mode] = Session(directory, MODES.get(mode, []), data_root, ini)
        return made[mode]

    return make


@pytest.fixture(params=MODES)
def session(request: pytest.FixtureRequest, session_of: Callable[[str], Session]) -> Session:
    return session_of(request.param)


def test_a_missed_target_is_one_failure_and_the_exit_code_is_1(session: Session) -> None:
    assert session.code == 1, session.output
    cases = session.testcases()
    assert [child.tag for child in cases["test_converges"]] == ["properties", "failure"]
    assert [child.tag for child in cases["test_throughput"]] == ["properties"]
    assert session.results()["convergence"]["verdict"] == "missed"
    assert session.results()["throughput"]["verdict"] == "passed"


def test_the_failure_shows_evaluations_log_and_the_command_to_rerun_it(session: Session) -> None:
    failure = session.testcases()["test_converges"].find("failure")
    assert failure is not None
    text = failure.text or ""
    assert "top1 >= 0.9999" in text
    assert "epoch   3.00  step    120" in text
    log = next(line.split()[-1] for line in text.splitlines() if "log:" in line)
    assert Path(log).is_file()
    rerun = next(line for line in text.splitlines() if "rerun:" in line)
    assert "test_linear.py::test_converges[pytorch-fp32-1x1-lite]" in rerun
    assert "--target=top1=0.9999" in rerun


def test_junit_properties_are_those_of_result_json(session: Session) -> None:
    for name, role in (("test_converges", "convergence"), ("test_throughput", "throughput")):
        found = {p.get("name"): p.get("value") for p in session.testcases()[name].iter("property")}
        result = session.results()[role]
        assert found["flagperf.verdict"] == result["verdict"]
        metrics = {k.removeprefix("flagperf.metric."): v for k, v in found.items() if k.startswith("flagperf.metric.")}
        assert metrics == {name: str(metric["value"]) for name, metric in result["metrics"].items()}
        units = {k.removeprefix("flagperf.unit."): v for k, v in found.items() if k.startswith("flagperf.unit.")}
        assert units == {name: metric["unit"] for name, metric in result["metrics"].items()}
        for key in ("model", "framework", "precision", "topology", "scale", "vendor"):
            assert found[f"flagperf.{key}"] == result["case"][key]


def test_junit_is_valid_but_for_properties_of_a_testcase(session: Session, tmp_path: Path) -> None:
    """Jenkins' schema knows properties of a suite only; pytest itself writes those of a test into ``testcase``."""
    tree = ElementTree.parse(session.directory / "junit.xml")
    for case in tree.iter("testcase"):
        for properties in case.findall("properties"):
            case.remove(properties)
    tree.write(tmp_path / "junit.xml")
    xmlschema.XMLSchema(str(SCHEMA)).validate(str(tmp_path / "junit.xml"))


def test_junit_with_suite_properties_is_valid_as_it_is(session_of: Callable[[str], Session]) -> None:
    session = session_of("testsuite")
    xmlschema.XMLSchema(str(SCHEMA)).validate(str(session.directory / "junit.xml"))
    root = ElementTree.parse(session.directory / "junit.xml").getroot()
    found = {p.get("name"): p.get("value") for p in root.iter("property")}
    for result in session.results().values():
        for name, metric in result["metrics"].items():
            assert found[f"{result['case']['id']}:flagperf.metric.{name}"] == str(metric["value"])


def test_the_terminal_shows_a_row_for_each_case(session: Session) -> None:
    rows = [line for line in session.output.splitlines() if line.startswith("linear ")]
    summary = [row for row in rows if row.endswith(("missed", "passed"))]
    assert len(summary) == 2
    assert any("top1" in row and "< 0.9999" in row and "GiB" in row for row in summary)


@pytest.mark.parametrize("mode", ["serial", "n2", "without_xdist"])
def test_allure_calls_it_failed_and_tells_devices_apart(mode: str, session_of: Callable[[str], Session]) -> None:
    session = session_of(mode)
    missed, passed = session.allure()["test_converges"], session.allure()["test_throughput"]
    assert (missed["status"], passed["status"]) == ("failed", "passed")
    parameters = {p["name"]: p["value"] for p in missed["parameters"]}
    assert parameters["vendor"] == "'cpu'"
    assert parameters["topology"] == "'1x1'"
    figures = session.results()["convergence"]["metrics"]
    assert f"| p_train | {figures['p_train']['value']:.6g} | samples/s |" in missed["description"]
    attached = {a["name"] for a in missed["attachments"]}
    assert {"result.json", "rank0.log", "curve.csv", "curve"} <= attached
    # History follows the parameters: no measured value may be one of them.
    assert not any(str(metric["value"]) in parameters.values() for metric in figures.values())


@pytest.mark.parametrize("mode", ["serial", "n2", "without_xdist"])
def test_allure_gets_environment_categories_and_performance(mode: str, session_of: Callable[[str], Session]) -> None:
    session = session_of(mode)
    allure = session.directory / "allure"
    assert "vendor=cpu" in (allure / "environment.properties").read_text()
    assert any(c["name"] == "Target missed" for c in json.loads((allure / "categories.json").read_text()))
    (performance,) = allure.glob("*-perf.json")
    records = json.loads(performance.read_text())
    assert all(set(record) == {"id", "key", "value", "start", "stop"} for record in records)
    wanted = {
        (f"{result['case']['id']}-cpu.{name}", metric["value"])
        for result in session.results().values()
        for name, metric in result["metrics"].items()
    }
    assert {(record["key"], record["value"]) for record in records} == wanted


@pytest.mark.parametrize("mode", ["serial", "n2"])
def test_allure_3_renders_the_results(mode: str, session_of: Callable[[str], Session], tmp_path: Path) -> None:
    program = os.environ.get("ALLURE", "") or shutil.which("allure") or ""
    if not program:
        pytest.skip("Allure 3 is not installed: npm install allure@3.18.0, and put it on PATH or into $ALLURE")
    session = session_of(mode)
    (configuration,) = session.directory.glob("results/*/allurerc.mjs")
    command = [program, "awesome", "--single-file", "--config", str(configuration), "-o", str(tmp_path / "report")]
    subprocess.run([*command, str(session.directory / "allure")], cwd=tmp_path, check=True, timeout=120)
    summary = json.loads((tmp_path / "report" / "summary.json").read_text())
    assert summary["stats"]["total"] == 2
    assert (summary["stats"]["failed"], summary["stats"]["passed"]) == (1, 1)


def test_the_session_ends_with_its_exit_status_on_disk(session: Session) -> None:
    (path,) = session.directory.glob("results/*/session.json")
    document = json.loads(path.read_text())
    assert document["exit_status"] == 1
    assert document["time_ended"] >= document["time_started"]
    assert document["vendor"] == "cpu"
    assert document["options"]["target"] == "command line"
