"""A job in a temporary directory, and the proof that nothing of it is left."""

from __future__ import annotations

import json
import os
import sys
import time
import uuid
from collections.abc import Callable
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pytest_flagperf.launch import engines
from pytest_flagperf.launch import processes
from pytest_flagperf.launch.job import JobSpec


HERE = Path(__file__).parent
MARKER = "FLAGPERF_TEST_MARKER"


def _fake_argv(request: engines.LaunchRequest) -> list[str]:
    launcher = str(HERE / "fake_launcher.py")
    return [request.python, launcher, str(request.nproc), str(request.master_port), *request.rank_argv]


@pytest.fixture(autouse=True)
def fake_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine named ``fake``, as a vendor would add one."""
    monkeypatch.setattr(engines, "_ENGINES", dict(engines._ENGINES))
    engines.register(engines.Engine("fake", _fake_argv, ("RANK", "LOCAL_RANK", "WORLD_SIZE")))


@pytest.fixture
def marker() -> str:
    """A value that every process of the test's job carries in its environment."""
    return uuid.uuid4().hex


@pytest.fixture
def make_spec(tmp_path: Path, marker: str) -> Callable[..., JobSpec]:
    """Build the job of the test; ``fault`` goes into its case, ``env`` is added to its environment."""

    def make(entry: str, engine: str = "single", nproc: int = 1, **options: Any) -> JobSpec:
        case_file = tmp_path / "case.json"
        case_file.write_text(json.dumps({"fault": options.pop("fault", None)}))
        env = {**os.environ, MARKER: marker, "OMP_NUM_THREADS": "1", **options.pop("env", {})}
        return JobSpec(
            engine=engine,
            python=sys.executable,
            case_file=case_file,
            host_dir=tmp_path / "host",
            nproc=nproc,
            env=env,
            entry=f"{HERE / 'entries.py'}:{entry}",
            **options,
        )

    return make


@pytest.fixture
def wait_until() -> Callable[[Callable[[], Any]], Any]:
    """Poll until a condition holds and give its value; the test fails after 10 s."""

    def wait(condition: Callable[[], Any]) -> Any:
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            value = condition()
            if value:
                return value
            time.sleep(0.02)
        raise AssertionError("not within 10 s")

    return wait


@pytest.fixture
def no_leftovers(marker: str) -> Iterator[Callable[[], list[int]]]:
    """The processes of the job that still live; the test fails if there are any at its end."""

    def left() -> list[int]:
        return processes.with_variable(MARKER, marker)

    yield left
    remaining = left()
    for pid in remaining:
        processes.send_signal(pid, 9)
    assert not remaining
