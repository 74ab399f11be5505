"""Real jobs of two ranks under each framework's own launcher: they work, and the right rank is blamed in time."""

from __future__ import annotations

import importlib.util
import socket
import time
from collections.abc import Callable

import pytest

from pytest_flagperf import errors
from pytest_flagperf.launch import engines
from pytest_flagperf.launch import ports
from pytest_flagperf.launch.job import JobOutcome
from pytest_flagperf.launch.job import JobSpec
from pytest_flagperf.launch.job import failure
from pytest_flagperf.launch.job import run_job


MakeSpec = Callable[..., JobSpec]
Left = Callable[[], list[int]]

FRAMEWORKS = [
    pytest.param(name, marks=getattr(pytest.mark, name), id=name) for name in ("pytorch", "paddle", "mindspore")
]
ENTRIES = {"pytorch": "torch_all_reduce", "paddle": "paddle_all_reduce", "mindspore": "mindspore_all_reduce"}
ENV = {"GLOG_v": "3", "ONEDNN_MAX_CPU_ISA": "AVX2"}
IN_TIME = 15.0  # seconds from a fault to a finished report

pytestmark = pytest.mark.slow


@pytest.fixture(params=FRAMEWORKS)
def framework(request: pytest.FixtureRequest) -> str:
    """Each framework that is installed; it is not imported here."""
    name: str = request.param
    module = {"pytorch": "torch"}.get(name, name)
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is not installed")
    return name


def run(make_spec: MakeSpec, framework: str, fault: str | None = None) -> tuple[JobSpec, JobOutcome]:
    engine = engines.engine_for(framework, 2)
    spec = make_spec(ENTRIES[framework], engine, 2, fault=fault, env=ENV, timeout=150.0, stall_timeout=120.0)
    return spec, run_job(spec)


def seconds_since_fault(spec: JobSpec) -> float:
    return time.monotonic() - float((spec.host_dir / "fault").read_text())


def test_an_all_reduce_of_two_ranks_succeeds(make_spec: MakeSpec, framework: str, no_leftovers: Left) -> None:
    spec, outcome = run(make_spec, framework)
    assert failure(outcome, spec.host_dir) is None and outcome.ok
    assert not no_leftovers()
    print(framework, "good job:", round(outcome.ended - outcome.started, 1), "s, swept", outcome.swept)


@pytest.mark.parametrize("fault", ["kill", "raise"])
def test_the_rank_that_failed_is_blamed_in_time(
    make_spec: MakeSpec, framework: str, fault: str, no_leftovers: Left
) -> None:
    spec, outcome = run(make_spec, framework, fault)
    took = seconds_since_fault(spec)
    error = failure(outcome, spec.host_dir)
    assert type(error) is errors.RankCrashed
    what = {"kill": "was ended by SIGKILL", "raise": "raised ValueError: boom on purpose"}[fault]
    assert str(error).startswith(f"rank 1 of 2 {what}")
    assert took < IN_TIME and not no_leftovers()
    states = [(rank.state, rank.signal, rank.exception_message) for rank in outcome.ranks]
    print(framework, fault, "took", round(took, 2), "s, swept", outcome.swept, states)


def test_a_port_that_was_taken_is_replaced(
    make_spec: MakeSpec, framework: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torchrun says so; paddle aborts over it; msrun's scheduler fails, and msrun does not look."""
    with socket.socket() as squatter:
        squatter.bind(("127.0.0.1", 0))
        squatter.listen()
        offered = [ports.free_port(), squatter.getsockname()[1]]
        monkeypatch.setattr(ports, "free_port", offered.pop)
        _, outcome = run(make_spec, framework)
    assert outcome.ok and not offered
    print(framework, "second attempt done after", round(outcome.ended - outcome.started, 1), "s")


@pytest.mark.paddle
def test_paddle_leaves_no_environment_on_disk(make_spec: MakeSpec) -> None:
    """Its launcher writes the environment of every rank, secrets and all, beside its logs."""
    spec = make_spec("good", "paddle", 2, env={"SOME_TOKEN": "not-for-disk"}, timeout=120.0)
    outcome = run_job(spec)
    assert outcome.ok
    assert not [path for path in spec.host_dir.rglob("*") if path.is_file() and b"not-for-disk" in path.read_bytes()]
