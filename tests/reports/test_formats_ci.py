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

from pytest_flagperf.reports.formats import markdown
from tests.conftest import ROOT


CI = ROOT / "examples" / "ci"
GITHUB = CI / "github" / "workflow.yml"
GITLAB = CI / "gitlab" / ".gitlab-ci.yml"
JENKINS = CI / "jenkins" / "Jenkinsfile"
GUIDES = ROOT / "docs" / "how-to"

SUBSTITUTES = {
    # The plugin and torch are here already, of this tree.
    '.venv/bin/python -m pip install --constraint constraints.txt "pytest-flagperf[torch,html]"': "INSTALL",
    "python3 -m venv .venv": "mkdir -p .venv && ln -sfn ../bin .venv/bin",
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
    # The second job does no more than show a file of the first.
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
    assert set(job) == {"if", "runs-on", "timeout-minutes", "steps"}
    assert "github.event.pull_request.head.repo.full_name == github.repository" in job["if"]
    for step in job["steps"]:
        assert ("uses" in step) != ("run" in step)
        # A tag can be moved to another commit.
        assert "uses" not in step or re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", step["uses"])
    assert job["steps"][0]["with"] == {"persist-credentials": False, "clean": True}
    kept = job["steps"][-1]
    assert kept["if"] == "always()"
    assert kept["with"]["path"].split() == ["junit.xml", "report.html", "flagperf-results"]


def test_the_pipeline_of_gitlab_is_one() -> None:
    job, shown = yaml.safe_load(GITLAB.read_text()).values()
    known = {"tags", "timeout", "variables", "before_script", "script", "after_script", "artifacts"}
    assert set(job) == known
    assert job["artifacts"]["when"] == "always"
    assert job["artifacts"]["reports"] == {"junit": "junit.xml"}
    # GitLab links to a file only where it is the only path.
    assert "expose_as" not in job["artifacts"]
    assert shown["artifacts"]["paths"] == ["report.html"]
    assert (shown["needs"], shown["when"]) == (["flagperf"], "always")


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
    post = JENKINS.read_text().split("\n    post {")[1]
    # HTML Publisher serves all of a directory, and a report that fails must lose nothing.
    assert "reportDir: 'flagperf-report'" in post
    assert post.index("catchError") > max(post.index("junit "), post.index("publishHTML"))
    assert JENKINS.read_text().index("deleteDir()") < JENKINS.read_text().index("checkout scm")


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


def test_the_guides_take_a_baseline_of_several_sessions_and_say_what_passes() -> None:
    for name in ("github-actions", "gitlab", "jenkins"):
        text = " ".join((GUIDES / f"gate-in-{name}.md").read_text().split())
        assert "twenty rounds over several sessions" in text
        assert "A case that the baseline does not have (*no baseline*)" in text
        assert "`constraints.txt`" in text


def test_the_comment_of_last_time_is_found_by_its_mark() -> None:
    assert f'startswith("{markdown.MARK}")' in (GUIDES / "gate-in-github-actions.md").read_text()


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
        # What the substituted environment holds once it is "installed": those of this tree.
        self.installed = {name: f'#!/bin/sh\nexec {sys.executable} {module} "$@"\n' for name, module in modules.items()}
        self.programs = programs
        for name in ("python", "python3"):
            self._program(name)
        self.summary = directory / "summary.md"
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("GITHUB_")},
            "PATH": f"{programs}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "FLAGPERF_DATA_ROOT": str(data_root),
        }

    def _program(self, name: str) -> None:
        path = self.programs / name
        path.write_text(self.installed[name])
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    def install(self) -> None:
        """As ``pip install`` does."""
        for name in self.installed:
            self._program(name)

    def sh(self, command: str, *, installs: bool = True, **environment: str) -> subprocess.CompletedProcess[str]:
        """What a system's shell makes of a command: it stops at the first that fails."""
        if installs:
            self.install()
        for original, replacement in SUBSTITUTES.items():
            command = command.replace(original, replacement)
        command = command.replace("INSTALL", "true" if installs else "false")
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
    described = rate.split("[case.metric.p_train.samples]")[0]
    (session,) = re.findall(r'^name = "(.*)"', head, re.MULTILINE)
    (block,) = re.findall(r"\[\[session\]\]\n(?:.+\n)+", head)
    # As the guides ask: twenty rounds over several sessions, here as many copies of the one.
    names = [f"{session}-{number}" for number in range(4)]
    head = head.replace(block, "\n".join(block.replace(session, name) for name in names))
    lines = "".join(f"{name} = [FACTOR, FACTOR, FACTOR, FACTOR, FACTOR]\n" for name in names)
    described = re.sub(r"best = .*\n", "", described)
    return f"{head}[case.metric.p_train]{described}[case.metric.p_train.samples]\n{lines}"


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
    (page,) = [
        path for path in (tmp_path / "report.html", tmp_path / "flagperf-report" / "report.html") if path.exists()
    ]
    assert "<script" in page.read_text()
    for command in always:
        done = workspace.sh(command, GITHUB_STEP_SUMMARY=str(workspace.summary))
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout.count("::error file=suite/test_linear.py,") == (code if name == "github" else 0)
    reports = {"github": "summary.md", "gitlab": "flagperf.md", "jenkins": "flagperf.csv"}
    assert ("regressed" if code else "improved") in (tmp_path / reports[name]).read_text()


@pytest.mark.parametrize("name", SYSTEMS)
@pytest.mark.parametrize(
    ("verdicts", "code"),
    [
        (["passed"], 0),
        (["no baseline", "inconclusive"], 0),
        (["no baseline", "not comparable", ""], 1),
        ([], 1),
    ],
)
def test_a_gate_in_which_nothing_was_compared_fails(
    tmp_path: Path, data_root: Path, name: str, verdicts: list[str], code: int
) -> None:
    workspace = Workspace(tmp_path, data_root)
    lines = ["case,comparison", *(f"c{number},{word}" for number, word in enumerate(verdicts))]
    (tmp_path / "flagperf.csv").write_text("\n".join(lines) + "\n")
    commands, _ = SYSTEMS[name]()
    check = next(command for command in commands if "import csv" in command)
    # What makes the CSV is run with the rest above.
    only = check[check.index(".venv/bin/python -c") :]
    workspace.sh("python3 -m venv .venv")
    assert workspace.sh(only).returncode == code


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_gate_of_which_everything_is_skipped_fails(tmp_path: Path, data_root: Path, name: str) -> None:
    workspace = Workspace(tmp_path, data_root)
    commands, _ = SYSTEMS[name]()
    workspace.sh("python3 -m venv .venv")
    check = next(command for command in commands if "--format csv" in command)
    only = check[check.index(".venv/bin/flagperf report") :]
    assert workspace.sh(only).returncode != 0


@pytest.mark.parametrize("name", SYSTEMS)
def test_what_always_runs_is_no_second_failure_after_an_install_that_failed(
    tmp_path: Path, data_root: Path, name: str
) -> None:
    workspace = Workspace(tmp_path, data_root)
    gating, always = SYSTEMS[name]()
    done = [workspace.sh(command, installs=False) for command in gating[: 2 if name == "gitlab" else 1]]
    assert done[-1].returncode == 1
    for command in always:
        after = workspace.sh(command, installs=False)
        assert after.returncode == 0, after.stdout + after.stderr


@pytest.mark.parametrize("name", SYSTEMS)
def test_what_always_runs_is_whole_in_a_workspace_with_something_of_before(
    tmp_path: Path, data_root: Path, name: str
) -> None:
    workspace = Workspace(tmp_path, data_root)
    workspace.sh("python3 -m venv .venv")
    broken = tmp_path / "flagperf-results" / "20200101-000000-aaaaaa"
    (broken / "case").mkdir(parents=True)
    (broken / "session.json").write_text("{")
    (broken / "case" / "result.json").write_text("[]")
    for written in ("flagperf.csv", "flagperf.md"):
        (tmp_path / written).write_text("of before")
    _, always = SYSTEMS[name]()
    for command in always:
        done = workspace.sh(command, GITHUB_STEP_SUMMARY=str(workspace.summary))
        assert done.returncode == 0, done.stdout + done.stderr
    reports = {"github": "summary.md", "gitlab": "flagperf.md", "jenkins": "flagperf.csv"}
    assert "of before" not in (tmp_path / reports[name]).read_text()
