"""The files for GitHub Actions, GitLab and Jenkins: they are well formed, and their commands gate.

The commands are taken out of the files and run by the shell that the systems use. What needs a network or minutes is
replaced, and nothing else: ``SUBSTITUTES`` is all of it.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml

from tests.conftest import ROOT


CI = ROOT / "examples" / "ci"
GITHUB = CI / "github" / "workflow.yml"
GITLAB = CI / "gitlab" / ".gitlab-ci.yml"
JENKINS = CI / "jenkins" / "Jenkinsfile"
GUIDES = ROOT / "docs" / "how-to"

SUBSTITUTES = {
    # The plugin and torch are here already, of this tree.
    'python -m pip install --constraint constraints.txt "pytest-flagperf[torch,html]"': "true",
    "python3 -m venv .venv": "true",
    ". .venv/bin/activate": "true",
    # One test of seconds, in place of a suite.
    "--pyargs flagperf_suites": "suite",
    '"wide_deep and pytorch"': '"linear and throughput"',
    "--rounds=5": "--rounds=1",
    "--max-rounds=10": "--max-rounds=2",
}


def github() -> tuple[list[str], list[str]]:
    """The commands that may fail the job, and those that run whatever happened."""
    (job,) = yaml.safe_load(GITHUB.read_text())["jobs"].values()
    steps = [step for step in job["steps"] if "run" in step]
    return (
        [step["run"] for step in steps if step.get("if") != "always()"],
        [step["run"] for step in steps if step.get("if") == "always()"],
    )


def gitlab() -> tuple[list[str], list[str]]:
    job = yaml.safe_load(GITLAB.read_text())["flagperf"]
    return [*job["before_script"], *job["script"]], job["after_script"]


def jenkins() -> tuple[list[str], list[str]]:
    """The ``sh`` steps; Groovy makes one backslash of two within their quotes."""
    stages, post = JENKINS.read_text().split("\n    post {")
    steps = [re.findall(r"sh '''(.*?)'''", part, re.DOTALL) for part in (stages, post)]
    return tuple([command.replace("\\\\", "\\") for command in found] for found in steps)


SYSTEMS: dict[str, Callable[[], tuple[list[str], list[str]]]] = {"github": github, "gitlab": gitlab, "jenkins": jenkins}


def test_the_workflow_of_github_is_one() -> None:
    document = yaml.safe_load(GITHUB.read_text())
    # YAML 1.1 reads the key "on" as true.
    assert set(document) == {"name", True, "permissions", "jobs"}
    assert document["permissions"] == {"contents": "read"}
    (job,) = document["jobs"].values()
    assert set(job) == {"runs-on", "timeout-minutes", "steps"}
    for step in job["steps"]:
        assert ("uses" in step) != ("run" in step)
        assert re.fullmatch(r"[\w-]+/[\w-]+@v\d+", step.get("uses", "a/b@v1"))
    kept = job["steps"][-1]
    assert kept["if"] == "always()"
    assert kept["with"]["path"].split() == ["junit.xml", "report.html", "flagperf-results"]


def test_the_pipeline_of_gitlab_is_one() -> None:
    (job,) = yaml.safe_load(GITLAB.read_text()).values()
    known = {"tags", "timeout", "before_script", "script", "after_script", "artifacts"}
    assert set(job) == known
    assert job["artifacts"]["when"] == "always"
    assert job["artifacts"]["reports"] == {"junit": "junit.xml"}


def test_the_pipeline_of_jenkins_is_balanced_and_publishes_what_it_writes() -> None:
    text = re.sub(r"'''.*?'''|'[^'\n]*'|//[^\n]*", "", JENKINS.read_text(), flags=re.DOTALL)
    depth: list[str] = []
    for character in text:
        if character in "{[(":
            depth.append(character)
        elif character in "}])":
            assert depth.pop() + character in ("{}", "[]", "()")
    assert not depth
    assert re.findall(r"^    (\w+) ?\{", text, re.MULTILINE) == ["agent", "options", "stages", "post"]
    for written in ("junit.xml", "report.html", "flagperf.csv"):
        assert JENKINS.read_text().count(written) >= 2


@pytest.mark.parametrize("name", SYSTEMS)
def test_every_system_gates_reports_and_keeps(name: str) -> None:
    gating, always = SYSTEMS[name]()
    (run,) = [command for command in gating if "pytest " in command.replace("pytest-", "")]
    for option in ("--baseline=", "--junitxml=", "--flagperf-html=", "--flagperf-timeout=", "-rs"):
        assert option in run
    assert any("flagperf report" in command for command in always)
    assert "|| true" not in "".join([*gating, *always])


@pytest.mark.parametrize("name", ["github-actions", "gitlab", "jenkins"])
def test_the_guide_shows_commands_that_the_file_has(name: str) -> None:
    text = (GUIDES / f"gate-in-{name}.md").read_text()
    assert "examples/ci/" in text
    assert "flagperf rebase flagperf-results --baseline baselines/ci.toml --write" in text


# --- run


class Workspace:
    """A checkout with the small suite, and a ``PATH`` whose programs are of this tree."""

    def __init__(self, directory: Path, data_root: Path) -> None:
        self.directory = directory
        shutil.copytree(ROOT / "tests" / "suite", directory / "suite", ignore=shutil.ignore_patterns("__pycache__"))
        (directory / "pytest.ini").write_text("[pytest]\naddopts = -p no:cacheprovider\n")
        programs = directory / "bin"
        programs.mkdir()
        modules = {"pytest": "-m pytest", "flagperf": "-m pytest_flagperf.cli", "python": "", "python3": ""}
        for name, module in modules.items():
            path = programs / name
            path.write_text(f'#!/bin/sh\nexec {sys.executable} {module} "$@"\n')
            path.chmod(path.stat().st_mode | stat.S_IXUSR)
        self.summary = directory / "summary.md"
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("GITHUB_")},
            "PATH": f"{programs}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "FLAGPERF_DATA_ROOT": str(data_root),
        }

    def sh(self, command: str, *, substitute: bool = True, **environment: str) -> subprocess.CompletedProcess[str]:
        """What a system's shell makes of a command: it stops at the first that fails."""
        for original, replacement in SUBSTITUTES.items() if substitute else ():
            command = command.replace(original, replacement)
        return subprocess.run(
            ["bash", "-e", "-c", command],
            cwd=self.directory,
            env={**self.environment, **environment},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )


@pytest.fixture(scope="module")
def baseline(tmp_path_factory: pytest.TempPathFactory, data_root: Path) -> str:
    """A baseline as the guides make it, with their commands; ``FACTOR`` stands for the rate's samples."""
    workspace = Workspace(tmp_path_factory.mktemp("baseline"), data_root)
    guide = (GUIDES / "gate-in-gitlab.md").read_text()
    measure, rebase = re.findall(r"^\$ ((?:pytest|flagperf rebase) .*)$", guide, re.MULTILINE)
    for command in (measure, rebase):
        done = workspace.sh(command)
        assert done.returncode == 0, done.stdout + done.stderr
    text = (workspace.directory / "baselines" / "ci.toml").read_text()
    head, rate = text.split("[case.metric.p_train]")
    head = re.sub(r"\n\[case\.metric\..*", "\n", head, flags=re.DOTALL)
    return head + "[case.metric.p_train]" + re.sub(r"(?<=\[)[\d.]+(?=\])", "FACTOR", re.sub(r"best = .*\n", "", rate))


@pytest.mark.slow
@pytest.mark.pytorch
@pytest.mark.parametrize(("rate", "code"), [("1.0", 0), ("1e12", 1)], ids=["better", "worse"])
@pytest.mark.parametrize("name", SYSTEMS)
def test_the_commands_gate(tmp_path: Path, data_root: Path, baseline: str, name: str, rate: str, code: int) -> None:
    workspace = Workspace(tmp_path, data_root)
    (tmp_path / "baselines").mkdir()
    (tmp_path / "baselines" / "ci.toml").write_text(baseline.replace("FACTOR", rate))
    gating, always = SYSTEMS[name]()
    failed = [done for command in gating if (done := workspace.sh(command)).returncode]
    assert len(failed) == code, [done.stdout + done.stderr for done in failed]
    suite = next(ElementTree.parse(tmp_path / "junit.xml").iter("testsuite"))
    assert (suite.get("tests"), suite.get("failures")) == ("1", str(code))
    assert "<script" in (tmp_path / "report.html").read_text()
    for command in always:
        done = workspace.sh(command, GITHUB_STEP_SUMMARY=str(workspace.summary))
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout.count("::error file=suite/test_linear.py,") == (code if name == "github" else 0)
    reports = {"github": "summary.md", "gitlab": "flagperf.md", "jenkins": "flagperf.csv"}
    assert ("regressed" if code else "improved") in (tmp_path / reports[name]).read_text()


@pytest.mark.slow
def test_a_gate_of_which_everything_is_skipped_fails(tmp_path: Path, data_root: Path) -> None:
    workspace = Workspace(tmp_path, data_root)
    for skipped, code in ((1, 1), (0, 0)):
        text = f'<testsuites><testsuite tests="1" skipped="{skipped}"/></testsuites>'
        (tmp_path / "junit.xml").write_text(text)
        for commands, _ in (system() for system in SYSTEMS.values()):
            check = next(command for command in commands if "xml.etree" in command)
            only = check[check.index("python -c") :]
            assert workspace.sh(only).returncode == code
