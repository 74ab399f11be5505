"""What the tests share: a data root that is prepared once, lock files of their own, a suite that is fast to run."""

from __future__ import annotations

import os
import re
import shutil
import time
import uuid
from collections.abc import Callable
from collections.abc import Iterator
from pathlib import Path

import pytest


# A suite for the tests to run, not tests.
collect_ignore = ["suite"]

ROOT = Path(__file__).resolve().parent.parent
SUITES = ROOT / "suites"


@pytest.fixture(scope="session")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where datasets are prepared: the caller's FLAGPERF_DATA_ROOT, or a directory of this test session.

    xdist's workers share one, so that a dataset is prepared once.
    """
    given = os.environ.get("FLAGPERF_DATA_ROOT")
    if given:
        return Path(given)
    base = tmp_path_factory.getbasetemp()
    return (base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base) / "flagperf-data"


@pytest.fixture(autouse=True)
def own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, data_root: Path) -> None:
    """No option of the caller's reaches a test."""
    for name in list(os.environ):
        if name.startswith("FLAGPERF_") and name not in ("FLAGPERF_DATA_ROOT", "FLAGPERF_LEASE_DIR"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("FLAGPERF_DATA_ROOT", str(data_root))
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture
def marked(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], list[int]]]:
    """Puts a mark into the environment; the function gives the processes that still carry it."""
    mark = f"FLAGPERF_TEST_MARK={uuid.uuid4().hex}"
    name, _, value = mark.partition("=")
    monkeypatch.setenv(name, value)

    def alive() -> list[int]:
        found = []
        for path in Path("/proc").glob("[0-9]*"):
            try:
                carries = mark.encode() in (path / "environ").read_bytes().split(b"\0")
                state = (path / "stat").read_text().rpartition(")")[2].split()[0]
            except OSError:
                continue
            if carries and state != "Z" and int(path.name) != os.getpid():
                found.append(int(path.name))
        return found

    yield alive
    assert wait_for(lambda: not alive(), 5), f"processes were left behind: {alive()}"


def wait_for(condition: Callable[[], object], seconds: float) -> bool:
    """Whether ``condition`` came true within ``seconds``."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.05)
    return bool(condition())


@pytest.fixture
def suite(pytester: pytest.Pytester) -> Path:
    """A directory with the small suite of ``tests/suite``: a linear classifier of digits, with faults to order."""
    target = pytester.path / "suite"
    shutil.copytree(ROOT / "tests" / "suite", target, ignore=shutil.ignore_patterns("__pycache__"))
    return target


def switches(pid: int) -> tuple[int, float]:
    """How often a process has gone to sleep of its own accord, and the seconds it has had a processor."""
    status = Path(f"/proc/{pid}/status").read_text()
    used = int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9
    return int(re.search(r"^voluntary_ctxt_switches:\s*(\d+)", status, re.M)[1]), used
