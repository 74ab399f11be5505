"""A workload that is edited while its case runs: nobody knows what was measured, and the file is named."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pytest_flagperf import launching
from pytest_flagperf import sessions
from pytest_flagperf.attempt import Attempt
from pytest_flagperf.errors import InvalidMeasurement
from pytest_flagperf.judging import provenance
from tests.test_resume import toy


CASE = "linear-convergence-pytorch-fp32-1x1-lite"
# The rank of one round writes into a module beside it, which is an edit that no clock decides.
EDIT = """
    def evaluate(self, model):
        if str(self.seed) == os.environ.get("EDIT_IN_ROUND"):
            path = Path(__file__).with_name(os.environ["EDIT_FILE"])
            path.write_text(path.read_text() + "# edited\\n")
"""
# Somebody edits while the case waits for its devices.
EDITED_WHILE_IT_WAITS = """
from pathlib import Path

from pytest_flagperf.devices import lease

leased = lease.leased


def slowly(*args, **keywords):
    path = Path(__file__).with_name("layers.py")
    path.write_text(path.read_text() + "# edited\\n")
    return leased(*args, **keywords)


lease.leased = slowly
"""
# Every round is stopped at its first evaluation, as one that leaves the band of its baseline's curves is.
STOPPED = """
from pytest_flagperf.errors import Regressed
from pytest_flagperf.judging.gate import Gate


def guard(self, result, rounds):
    def look(event):
        if event.name == "EVALUATE":
            raise Regressed("stopped early")

    return look


Gate.guard = guard
"""


class Done:
    """A pytest of the suite's convergence test that has ended."""

    def __init__(self, suite: Path, *options: str, edit: str = "", in_round: int = 0, epochs: int = 1) -> None:
        command = [sys.executable, "-m", "pytest", "suite", "-k", "converges", "-p", "no:cacheprovider", *options]
        done = subprocess.run(
            [
                *command,
                f"--target=top1={0.5 if epochs == 1 else 0.9999}",
                "--flagperf-dir=results",
                "--junitxml=junit.xml",
            ],
            cwd=suite.parent,
            env={**os.environ, "LINEAR_EPOCHS": str(epochs), "EDIT_FILE": edit, "EDIT_IN_ROUND": str(in_round)},
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        self.code, self.output = done.returncode, done.stdout + done.stderr
        (path,) = (suite.parent / "results").glob(f"*/{CASE}/result.json")
        self.result: dict[str, Any] = json.loads(path.read_text())
        lines = sessions.ledger(path.parent.parent)
        self.started = [line["round"] for line in lines if line["event"] == "round_start"]
        self.junit = (suite.parent / "junit.xml").read_text()


@pytest.fixture
def edited(suite: Path) -> Path:
    """The linear suite with a module that its workload imports, one that it does not, and a way to edit them."""
    (suite / "layers.py").write_text("one = 1\n")
    (suite / "unrelated.py").write_text("two = 2\n")
    workload = suite / "pytorch.py"
    text = workload.read_text().replace("import time\n", "import os\nimport time\nfrom pathlib import Path\n", 1)
    text = text.replace("class Linear", "from .layers import one\n\n\nclass Linear", 1)
    workload.write_text(text.replace("    def evaluate(self, model):\n", EDIT.removeprefix("\n"), 1))
    return suite


@pytest.mark.slow
@pytest.mark.pytorch
@pytest.mark.parametrize("in_round", [1, 2])
def test_a_case_whose_code_is_edited_between_or_in_its_rounds_is_refused_and_the_file_is_named(edited, in_round):
    done = Done(edited, "--rounds=3", edit="layers.py", in_round=in_round)
    assert done.code == 1, done.output
    assert (done.result["verdict"], done.result["metrics"]) == ("invalid", {})
    assert done.result["error"]["type"] == "InvalidMeasurement"
    expected = f"the workload's code changed since the case began ({edited / 'layers.py'})"
    for told in (done.result["error"]["message"], done.output, done.junit):
        assert expected in told.replace("&#x27;", "'").replace("&apos;", "'")
    # What was started is told, and no further round is wasted.
    assert done.started == [*range(1, in_round + 1)]
    assert [one["round"] for one in done.result["rounds"]] == done.started
    assert "rerun:" in done.output


@pytest.mark.slow
@pytest.mark.pytorch
def test_an_edit_of_what_the_workload_does_not_import_changes_nothing(edited):
    done = Done(edited, "--rounds=2", edit="unrelated.py", in_round=1)
    assert "# edited" in (edited / "unrelated.py").read_text()
    assert (done.code, done.result["verdict"], done.started) == (0, "passed", [1, 2]), done.output


@pytest.mark.slow
@pytest.mark.pytorch
def test_what_is_edited_while_the_case_waits_for_its_devices_starts_no_round(edited):
    (edited / "conftest.py").write_text(EDITED_WHILE_IT_WAITS)
    done = Done(edited)
    assert (done.code, done.result["verdict"], done.started) == (1, "invalid", []), done.output
    assert f"({edited / 'layers.py'})" in done.result["error"]["message"]


@pytest.mark.slow
@pytest.mark.pytorch
@pytest.mark.parametrize(
    ("edit", "expected"),
    [("layers.py", ("invalid", "InvalidMeasurement")), ("unrelated.py", ("regressed", "Regressed"))],
)
def test_a_round_that_is_stopped_for_its_figures_is_no_regression_where_its_code_was_edited(edited, edit, expected):
    # The guard sees an evaluation that is over, and so is its edit.
    (edited / "conftest.py").write_text(STOPPED)
    done = Done(edited, edit=edit, in_round=1, epochs=100_000)
    assert done.code == 1
    assert (done.result["verdict"], done.result["error"]["type"]) == expected, done.output


# --- which file


@pytest.fixture
def begun(tmp_path: Path) -> Callable[[], None]:
    """A case with two files that has begun; the function is what looks whether they changed."""
    case = toy(tmp_path)
    (tmp_path / "toy.py").write_text("from .layers import one\n")
    (tmp_path / "layers.py").write_text("one = 1\n")
    attempt = Attempt(code=provenance.digest(case), files=provenance.files(case))
    return lambda: launching.refuse_changed_code(case, attempt)


def told(look: Callable[[], None]) -> str:
    with pytest.raises(InvalidMeasurement) as raised:
        look()
    return str(raised.value).partition("(")[2].partition(")")[0]


def test_nothing_is_refused_while_nothing_changes(begun, tmp_path):
    (tmp_path / "layers.py").touch()
    begun()


def test_each_file_that_changed_and_no_other_is_named(begun, tmp_path):
    (tmp_path / "layers.py").write_text("one = 2\n")
    assert told(begun) == str(tmp_path / "layers.py")
    (tmp_path / "toy.py").write_text("from .layers import one as two\n")
    assert told(begun) == f"{tmp_path / 'layers.py'}, {tmp_path / 'toy.py'}"


def test_a_file_that_is_gone_and_one_that_is_new_are_named(begun, tmp_path):
    (tmp_path / "layers.py").unlink()
    assert told(begun) == str(tmp_path / "layers.py")
    (tmp_path / "layers").mkdir()
    (tmp_path / "layers" / "__init__.py").write_text("one = 1\n")
    assert told(begun) == f"{tmp_path / 'layers' / '__init__.py'}, {tmp_path / 'layers.py'}"


def test_a_workload_that_is_gone_is_named(begun, tmp_path):
    (tmp_path / "toy.py").unlink()
    assert str(tmp_path / "toy.py") in told(begun)


def test_a_configuration_that_a_test_writes_into_while_its_case_runs_is_refused_too(tmp_path):
    case = toy(tmp_path)
    attempt = Attempt(code=provenance.digest(case), files=provenance.files(case))
    assert "its configuration" in told(lambda: launching.refuse_changed_code(toy(tmp_path, batch_size=16), attempt))
