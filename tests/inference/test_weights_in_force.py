"""Which weights a figure is of: what is taken over, compared and measured is of the file that the result tells."""

from __future__ import annotations

import hashlib
import json

import pytest

from pytest_flagperf import sessions
from pytest_flagperf.errors import DatasetError
from pytest_flagperf.judging import gathering
from pytest_flagperf.worker.inference.workload import InferenceWorkload
from pytest_flagperf.worker.inference.workload import Weights
from pytest_flagperf.worker.workload import Config
from pytest_flagperf.worker.workload import Data


NAME = "perceptron-digits"
# Another process writes the file right after its checksum was taken.
REPLACED = """
found = weights.of_user


def of_user(one, path):
    told = found(one, path)
    path.write_bytes(b"others")
    return told


weights.of_user = of_user
"""


def build(weights: Weights) -> InferenceWorkload:
    return InferenceWorkload(Config({}), Data("none", None, True), weights, seed=1, batch_size=4, device="cpu")


def test_a_rank_refuses_weights_that_changed_since_they_were_found(tmp_path):
    path = tmp_path / "w.npz"
    path.write_bytes(b"w")
    found = Weights("one", path, "--weights one=w.npz", hashlib.sha256(b"w").hexdigest())
    build(found)
    path.write_bytes(b"v")
    with pytest.raises(DatasetError, match=rf"weights one: .*w\.npz changed .* expected {found.checksum}"):
        build(found)
    path.unlink()
    with pytest.raises(DatasetError, match=r"weights one: .*w\.npz cannot be read"):
        build(found)


def test_weights_that_are_random_are_not_looked_for():
    build(Weights("one", None, "random"))


@pytest.mark.slow
def test_a_session_with_other_weights_is_not_resumed_and_its_figures_do_not_compare(pytester, run):
    def session(*arguments: str) -> tuple[sessions.SessionFiles, dict]:
        before = {path.parent for path in (pytester.path / "results").glob("*/session.json")}
        done, _ = run("-m", "throughput", "--engine=eager", *arguments)
        done.assert_outcomes(passed=1)
        (made,) = {path.parent for path in (pytester.path / "results").glob("*/session.json")} - before
        (path,) = made.glob("*/result.json")
        return sessions.read(made), json.loads(path.read_text())

    first, result = session(f"--weights={NAME}=random")
    assert gathering.from_sessions([first]).case[0].weights == "random"
    second, result = session(f"--resume={first.directory}")
    assert result["weights"]["origin"].startswith("trained here")
    assert "top1" in result["metrics"]
    assert any("random weights was True, is False" in note for note in result["notes"])
    assert gathering.from_sessions([second]).case[0].weights == "trained here: perceptron lite, seed 1, on digits"
    _, result = session(f"--resume={second.directory}", f"--baseline={first.directory}")
    assert any(note.startswith("resumed: ") for note in result["notes"])
    assert result["verdict"] == "not comparable"
    reason = "weights were 'random', are 'trained here: perceptron lite, seed 1, on digits'"
    assert all(reason in one["reasons"] for one in result["comparisons"])


@pytest.mark.slow
def test_weights_that_are_replaced_while_a_case_starts_are_not_measured(pytester, run):
    conftest = pytester.path / "conftest.py"
    conftest.write_text(conftest.read_text() + REPLACED)
    (pytester.path / "own.npz").write_bytes(b"those that the user means")
    done, results = run("-m", "throughput", "--engine=eager", f"--weights={NAME}=own.npz")
    done.assert_outcomes(failed=1)
    assert results["eager"]["error"]["type"] == "DatasetError"
    assert f"weights {NAME}: " in results["eager"]["error"]["message"]
    assert "own.npz changed since pytest found it" in results["eager"]["error"]["message"]
