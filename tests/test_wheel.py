"""The built wheel alone, in a fresh environment and an empty directory: no clone, no xdist, no Allure."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT


pytestmark = [pytest.mark.slow, pytest.mark.pytorch]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(directory), str(ROOT)]
    subprocess.run(command, check=True, timeout=300, capture_output=True)
    (built,) = directory.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The interpreter of a fresh environment with the wheel and its torch extra."""
    directory = tmp_path_factory.mktemp("venv")
    subprocess.run([sys.executable, "-m", "venv", str(directory)], check=True, timeout=120)
    found = directory / "bin" / "python"
    requirement = f"pytest-flagperf[torch] @ {wheel.as_uri()}"
    command = [str(found), "-m", "pip", "install", "--quiet", "-c", str(ROOT / "constraints.txt"), requirement]
    subprocess.run(command, check=True, timeout=900)
    yield found


def test_the_wheel_ships_suites_vendors_schema_and_types(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {
        "flagperf_suites/training/resnet50/test_resnet50.py",
        "flagperf_suites/training/wide_deep/mindspore.py",
        "pytest_flagperf/vendors/cpu/vendor.toml",
        "pytest_flagperf/vendors/nvidia/vendor.toml",
        "pytest_flagperf/schemas/result.schema.json",
        "pytest_flagperf/py.typed",
    } <= names
    assert not [name for name in names if name.startswith(("tests/", "benchmarks/", "suites/", "vendors/"))]


def test_the_installed_suites_run_without_a_clone(python: Path, tmp_path: Path, data_root: Path) -> None:
    command = [str(python), "-m", "pytest", "--pyargs", "flagperf_suites", "-m", "wide_deep and pytorch"]
    environment = {**os.environ, "FLAGPERF_DATA_ROOT": str(data_root)}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout
    results = [json.loads(path.read_text()) for path in tmp_path.glob("flagperf-results/*/*/result.json")]
    assert {result["verdict"] for result in results} == {"passed"}
    listed = subprocess.run([str(python), "-m", "pip", "list"], capture_output=True, text=True, check=True).stdout
    assert "xdist" not in listed
    assert "allure" not in listed


def test_the_flagperf_command_is_installed(python: Path) -> None:
    command = [str(python.parent / "flagperf"), "datasets"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    assert "imagenet2012" in listed


def test_a_vendors_own_package_is_installed_and_its_vendor_runs(
    python: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, data_root: Path
) -> None:
    """The example repository, as its README says. It comes last: the environment has its vendor from here on."""
    example = tmp_path_factory.mktemp("repo") / "vendor-repo"
    shutil.copytree(ROOT / "examples" / "vendor-repo", example, ignore=shutil.ignore_patterns("__pycache__"))
    install = [str(python), "-m", "pip", "install", "--quiet", "-c", str(ROOT / "constraints.txt"), str(example)]
    subprocess.run(install, check=True, timeout=600)
    environment = {
        **os.environ,
        "FLAGPERF_DATA_ROOT": str(data_root),
        "PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}",
    }
    command = [str(python), "-m", "pytest", "--pyargs", "flagperf_suites", "-m", "wide_deep and pytorch"]
    done = subprocess.run(
        [*command, "--vendor=example", "--monitor=0.1"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout
    results = [json.loads(path.read_text()) for path in tmp_path.glob("flagperf-results/*/*/result.json")]
    for result in results:
        assert (result["case"]["vendor"], result["case"]["chip"], result["verdict"]) == ("example", "E1", "passed")
        assert result["case"]["division"] == "closed"
        assert result["deviations"][0].startswith("learning_rate = 0.0025 (standard case: 0.002)")
    # A case that is over between two looks of the monitor has neither, and says so.
    told = [result["metrics"] for result in results if "device_utilization" in result["metrics"]]
    assert told
    assert all(one["cpu_utilization"]["value"] > 0 and one["device_utilization"]["value"] > 0 for one in told)

    # Its own checks too, which run its `lint` and `devices`.
    own = subprocess.run(
        [str(python), "-m", "pytest", str(example / "tests"), "-q"],
        cwd=example,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert own.returncode == 0, own.stdout + own.stderr
