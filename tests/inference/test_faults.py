"""Engines whose files or processes meet with an accident: what is said, that the next case runs, and what is left."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pytest_flagperf.errors import ConfigurationError
from pytest_flagperf.errors import InvalidMeasurement
from pytest_flagperf.worker.inference import registry
from pytest_flagperf.worker.inference.engines import files
from tests.conftest import wait_for
from tests.inference.engine_bench import options
from tests.inference.engine_bench import workload


# What a compiler for C++ is called while it compiles; g++ itself only waits for it.
COMPILER = "cc1plus"


@pytest.mark.slow
def test_a_damaged_file_a_full_disk_and_a_killed_process_are_told_and_the_next_case_runs(run, marked, pytester):
    done, results = run("-m", "throughput", "--engine=damaged,fulldisk,killed,eager")
    done.assert_outcomes(failed=3, passed=1)
    told = {engine: result["error"] for engine, result in results.items() if result["error"]}
    assert told["damaged"]["type"] == "InvalidMeasurement"
    assert "engine onnxruntime cannot use " in told["damaged"]["message"]
    assert "/engine/model.onnx: " in told["damaged"]["message"]
    assert told["fulldisk"]["type"] == "ConfigurationError"
    assert "/engine/model.onnx cannot be written: No space left on device. " in told["fulldisk"]["message"]
    assert "--flagperf-dir" in told["fulldisk"]["message"]
    assert told["killed"]["type"] == "RankCrashed"
    assert "SIGKILL" in told["killed"]["message"]
    # Not what it compiled, which may be as large as the weights.
    (left,) = pytester.path.glob("results/*/*-killed-*/round1/*/engine")
    assert [path.name for path in left.iterdir()] == ["removed.txt"]
    assert results["eager"]["verdict"] == "passed"
    for engine in told:
        assert (results[engine]["verdict"], results[engine]["metrics"]) == ("invalid", {})
    assert not marked()


@pytest.mark.slow
@pytest.mark.pytorch
def test_a_killed_pytest_takes_the_compilers_with_it_and_leaves_no_temporary_file(
    pytester: pytest.Pytester, perceptron: Path, marked, monkeypatch: pytest.MonkeyPatch
):
    temporary = pytester.mkdir("temporary")
    monkeypatch.setenv("TMPDIR", str(temporary))
    arguments = ["-m", "throughput", "--engine=inductor", "--flagperf-dir=results", "-p", "no:cacheprovider"]
    process = subprocess.Popen(
        [sys.executable, "-m", "pytest", str(perceptron), *arguments],
        cwd=pytester.path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        # The weights are trained before.
        assert wait_for(lambda: COMPILER in map(command, marked()), 240), "no compiler was started"
        # What Inductor leaves outside its own directory it has made by now.
        assert [path.name for path in temporary.iterdir() if "inductor" in path.name or path.suffix == ".s"] == []
    finally:
        process.kill()
        process.wait()
    assert wait_for(lambda: not marked(), 20), [command(pid) for pid in marked()]
    assert not list(pytester.path.glob("results/*/*/result.json"))


def command(pid: int) -> str:
    """What a process is called; empty where it is gone."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


@pytest.mark.pytorch
@pytest.mark.parametrize(
    ("engine", "name"), [("onnxruntime", "model.onnx"), ("openvino", "model.onnx"), ("aotinductor", "program.4.pt2")]
)
def test_an_exported_file_that_is_damaged_is_named(tmp_path, engine, name):
    for package in registry.load("pytorch", engine).packages:
        pytest.importorskip(package)
    (tmp_path / name).write_bytes(b"cut short")
    exported = tmp_path if name.endswith(".pt2") else tmp_path / name
    chosen = options(tmp_path / "work", precision="fp32", dynamic=False, exported=exported)
    with pytest.raises(InvalidMeasurement) as caught:
        registry.load("pytorch", engine).compile(None, workload(), chosen)
    assert str(caught.value).startswith(f"engine {engine} cannot use {tmp_path / name}: ")


def test_a_directory_that_cannot_be_made_is_named_with_what_to_do(tmp_path):
    (tmp_path / "file").touch()
    path = tmp_path / "file" / "engine" / "model.onnx"
    message = rf"{path} cannot be written: Not a directory\. Make room there, or name another place with --flagperf-dir"
    with pytest.raises(ConfigurationError, match=message), files.written(path):
        pass


def test_an_error_that_is_of_no_file_stays_what_it_is(tmp_path):
    with pytest.raises(ConnectionError), files.written(tmp_path / "model.onnx"):
        raise ConnectionResetError("by a peer")
    with pytest.raises(ConfigurationError, match="install it"), files.read(tmp_path / "model.onnx", "fastrt"):
        raise ConfigurationError("install it")


def test_compilers_have_their_temporary_files_in_the_engines_directory_and_a_failure_removes_them(
    tmp_path, monkeypatch
):
    import os
    import tempfile

    monkeypatch.setenv("TMPDIR", "/somewhere/else")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "/somewhere/else/inductor")
    monkeypatch.setenv("TRITON_CACHE_DIR", "gone")
    monkeypatch.delenv("TRITON_CACHE_DIR")
    before = tempfile.tempdir
    with files.inductor_caches(tmp_path):
        found = Path(tempfile.mkstemp()[1])
        assert found.parent == Path(os.environ["TMPDIR"]) == tmp_path / "tmp"
    assert (os.environ["TMPDIR"], tempfile.tempdir) == ("/somewhere/else", before)
    assert found.exists()
    # What was compiled comes back to its caches.
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(tmp_path / "inductor")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "/somewhere/else/inductor")
    monkeypatch.delenv("TRITON_CACHE_DIR")
    with pytest.raises(ValueError, match="no kernel"), files.inductor_caches(tmp_path):
        raise ValueError("no kernel")
    assert list(tmp_path.iterdir()) == []
    assert os.environ["TMPDIR"] == "/somewhere/else"
    # Nothing was compiled that would come back.
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == "/somewhere/else/inductor"
    assert "TRITON_CACHE_DIR" not in os.environ
