"""Whole jobs in containers of Podman and Docker, where they are installed: every way they can end."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pytest_flagperf import errors
from pytest_flagperf.devices.vendor import Container as Description
from pytest_flagperf.launch import containers
from pytest_flagperf.launch import job
from pytest_flagperf.launch import records
from pytest_flagperf.launch import runtimes
from pytest_flagperf.launch.job import JobSpec
from pytest_flagperf.launch.job import failure
from pytest_flagperf.launch.job import run_job
from tests.conftest import ROOT
from tests.launch.container_engines import CONFIGURATION
from tests.launch.container_engines import DOCKER
from tests.launch.container_engines import PODMAN
from tests.launch.container_engines import Engine
from tests.launch.container_engines import clear
from tests.launch.container_engines import control_groups
from tests.launch.container_engines import import_image
from tests.launch.container_engines import make_root
from tests.launch.container_engines import start_docker


HERE = Path(__file__).parent
MakeSpec = Callable[..., JobSpec]


@pytest.fixture(scope="module", params=["podman", "docker"])
def hostroot(request: pytest.FixtureRequest) -> Iterator[Engine]:
    """The runtime, first on PATH, with the image."""
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    for program in {"podman": ("podman", "runc"), "docker": ("docker", "dockerd")}[request.param]:
        if shutil.which(program, path=path) is None:
            pytest.skip(f"{program} is not installed")
    if request.param == "docker" and os.geteuid() != 0:
        pytest.skip("a Docker daemon of our own needs root")
    # Not pytest's directory: sockets in it would have too long a name.
    with tempfile.TemporaryDirectory(prefix="flagperf-", dir="/tmp", ignore_cleanup_errors=True) as name:
        directory = Path(name)
        found = Engine(request.param, directory, make_root(directory))
        wrapper = directory / "bin" / found.name
        wrapper.parent.mkdir()
        template = {"podman": PODMAN, "docker": DOCKER}[found.name]
        wrapper.write_text(template.format(directory, shutil.which(found.name)))
        wrapper.chmod(0o755)
        (directory / "containers.conf").write_text(CONFIGURATION)
        daemon = start_docker(directory) if found.name == "docker" else None
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PATH", f"{wrapper.parent}:{os.environ['PATH']}")
            groups = control_groups()
            try:
                import_image(found, daemon)
                yield found
            finally:
                clear(found, daemon)
                for group in control_groups():
                    if group not in groups:
                        with contextlib.suppress(OSError):  # somebody uses it meanwhile
                            group.rmdir()


@pytest.fixture
def engine(hostroot: Engine, monkeypatch: pytest.MonkeyPatch, no_leftovers: Any) -> Iterator[Engine]:
    """The runtime; the test fails if a container is left."""
    monkeypatch.setenv("PATH", f"{hostroot.directory / 'bin'}:{os.environ['PATH']}")
    yield hostroot
    assert hostroot.containers() == []


@pytest.fixture
def in_container(engine: Engine, make_spec: MakeSpec, marker: str) -> Callable[..., JobSpec]:
    """Build a job in a container; ``env`` is all it gets."""

    def make(entry: str, *arguments: Any, file: str = "entries.py", **options: Any) -> JobSpec:
        env = {"FLAGPERF_TEST_MARKER": marker, **options.pop("env", {})}
        container = runtimes.prepare(engine.name, engine.image, Description(mounts=list(engine.mounts)), [0], [HERE])
        spec = make_spec(entry, *arguments, **options)
        return replace(spec, env=env, container=container, entry=f"{HERE / file}:{entry}")

    return make


def test_two_ranks_in_a_container_succeed_and_leave_complete_records(in_container):
    spec = in_container("good", "fake", 2)
    before = time.monotonic()
    outcome = run_job(spec)
    assert failure(outcome, spec.host_dir) is None and outcome.ok and outcome.swept == 0
    # Times are of one clock, inside and outside.
    assert before <= outcome.started < outcome.ended <= time.monotonic()
    for number, rank in enumerate(outcome.ranks):
        assert outcome.started < rank.started < rank.ended <= rank.exited <= outcome.ended
        assert rank.pid is None
        report = json.loads((spec.host_dir / f"report{number}.json").read_text())
        assert (report["rank"], report["local_rank"], report["world_size"]) == (number, number, 2)
        assert (spec.host_dir / f"rank{number}.log").read_text() == f"hello from {number}\n"


def test_a_rank_sees_its_results_and_nothing_else_it_could_change(in_container):
    spec = in_container("looks_around", file="container_entries.py", env={"NCCL_DEBUG": "INFO"})
    outcome = run_job(spec)
    assert failure(outcome, spec.host_dir) is None
    seen = json.loads((spec.host_dir / "seen0.json").read_text())
    assert seen["user"] == [os.getuid(), os.getgid()]
    assert seen["capabilities"] == [0, 0, 0] and seen["no_new_privileges"] == "1"
    assert seen["interfaces"] == ["lo"] and seen["outside"] and seen["own_name"] == "127.0.0.1"
    assert seen["project"] == seen["package"] == seen["case"] == "OSError 30"  # EROFS
    assert seen["home"] == ""
    assert seen["directory"] == str(spec.host_dir)
    assert seen["environment"]["NCCL_DEBUG"] == "INFO"
    assert not {"PYTEST_CURRENT_TEST", "FLAGPERF_LEASE_DIR", "PYTHONPATH"} & set(seen["environment"])
    assert seen["shared_memory"] > 2**30
    for path in spec.host_dir.rglob("*"):
        assert (path.stat().st_uid, path.stat().st_gid) == (os.getuid(), os.getgid())
        assert stat.S_IMODE(path.stat().st_mode) & stat.S_IRUSR


def test_the_leased_device_nodes_are_in_the_container_and_no_others(engine, make_spec, marker):
    nodes = [Path(f"/dev/tty{number}") for number in (2, 3, 5)]
    if not all(node.exists() for node in nodes):
        pytest.skip("this host has no virtual terminals to stand for devices")
    description = Description(devices=["/dev/tty{index}"], mounts=list(engine.mounts))
    container = runtimes.prepare(engine.name, engine.image, description, [2, 5], [HERE])
    spec = make_spec("looks_around")
    entry = f"{HERE / 'container_entries.py'}:looks_around"
    outcome = run_job(replace(spec, env={"FLAGPERF_TEST_MARKER": marker}, container=container, entry=entry))
    assert failure(outcome, spec.host_dir) is None
    seen = json.loads((spec.host_dir / "seen0.json").read_text())["devices"]
    assert {"tty2", "tty5"} <= set(seen) and "tty3" not in seen


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("raises", "rank 1 of 2 raised ValueError: boom on purpose"),
        ("is_killed", "rank 1 of 2 was ended by SIGKILL"),
        ("connection_lost", "rank 1 of 2 was ended by SIGKILL"),
    ],
)
def test_the_rank_that_failed_in_a_container_is_named(in_container, entry, message):
    spec = in_container(entry, "fake", 2)
    error = failure(run_job(spec), spec.host_dir)
    assert type(error) is errors.RankCrashed and str(error).startswith(message)


def test_a_job_past_its_deadline_is_ended_with_its_container(in_container, engine):
    spec = in_container("hangs_with_grandchildren", "fake", 2, timeout=1.5)
    outcome = run_job(spec)
    error = failure(outcome, spec.host_dir)
    assert type(error) is errors.JobTimedOut and "wait_for_ever" in str(error)
    assert engine.containers() == []
    assert outcome.ended - outcome.started < 15


def test_an_interrupt_ends_the_container(in_container, engine):
    spec = in_container("ignores_sigterm", grace=0.2)

    def interrupt() -> None:
        if (spec.host_dir / "waiting0").exists():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_job(spec, on_poll=interrupt)
    assert engine.containers() == []


def test_when_the_parent_is_killed_nothing_is_left_and_then_the_lease_is_free(
    engine, make_spec, marker, wait_until, no_leftovers, tmp_path
):
    spec = make_spec("ignores_sigterm")
    lock = tmp_path / "lock"
    arguments = [engine.name, engine.image, spec.case_file, spec.host_dir, spec.entry, lock, HERE, *engine.mounts]
    env = {**os.environ, "FLAGPERF_TEST_MARKER": marker, "PYTHONPATH": str(ROOT)}
    parent = subprocess.Popen([sys.executable, HERE / "container_parent.py", *arguments], env=env)
    try:
        wait_until((spec.host_dir / "waiting0").exists)
        assert len(engine.containers()) == 1
    finally:
        parent.kill()
        parent.wait()
    with open(lock) as file:
        with pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        wait_until(lambda: engine.containers() == [] and not no_leftovers())
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert records.read(spec.host_dir / records.JOB)["detail"] == "the lifeline was closed"


def _clients(spec: JobSpec) -> list[int]:
    """The processes whose command line has the label of the job: the runtime's client."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if f"flagperf.directory={spec.host_dir}".encode() in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def test_when_the_client_is_killed_the_container_goes_too(in_container, engine):
    spec = in_container("wait_for_ever")

    def kill() -> None:
        if (spec.host_dir / "waiting0").exists():
            for pid in _clients(spec):
                os.kill(pid, signal.SIGKILL)

    outcome = run_job(spec, on_poll=kill)
    assert outcome.reason == "launcher failed" and outcome.detail == f"{engine.name}'s client was killed"
    assert engine.containers() == []


def test_without_a_heartbeat_the_job_ends_itself(in_container, monkeypatch):
    monkeypatch.setattr(containers, "HEARTBEAT", 1.0)
    monkeypatch.setattr(job, "_BEAT", 600.0)
    spec = in_container("wait_for_ever", timeout=20)
    outcome = run_job(spec)
    assert outcome.reason == "stopped" and outcome.detail.startswith("no heartbeat for 1.")


def test_with_a_heartbeat_it_does_not(in_container, monkeypatch):
    monkeypatch.setattr(containers, "HEARTBEAT", 1.0)
    monkeypatch.setattr(job, "_BEAT", 0.2)
    spec = in_container("wait_for_ever", timeout=2.5)
    assert run_job(spec).reason == "timed out"


def test_a_secret_reaches_the_rank_and_no_command_line(in_container):
    secret = "correct-horse-battery-staple"
    spec = in_container("shows_itself", file="container_entries.py", env={"FLAGPERF_SECRET": secret})
    looked: list[bytes] = []

    def look() -> None:
        if (spec.host_dir / "secret").exists() and not looked:
            looked.extend(_command_lines())
            (spec.host_dir / "looked").touch()

    outcome = run_job(spec, on_poll=look)
    assert outcome.ok and (spec.host_dir / "secret").read_text() == secret
    assert [line for line in looked if b"--env=FLAGPERF_SECRET" in line]
    assert not [line for line in looked if secret.encode() in line]
    written = [path for path in spec.host_dir.rglob("*") if path.is_file() and path.name != "secret"]
    assert not [path for path in written if secret in path.read_text(errors="replace")]


def _command_lines() -> list[bytes]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(path.read_bytes())
        except OSError:
            continue
    return found


def test_an_image_without_the_interpreter_says_how_to_name_it(in_container):
    spec = replace(in_container("good"), python="/opt/none/bin/python")
    error = failure(run_job(spec), spec.host_dir)
    assert type(error) is errors.LaunchFailed
    assert "/opt/none/bin/python cannot be run in the image localhost/hostroot:1" in str(error)
    assert "--python FRAMEWORK=PATH" in str(error)


def test_results_that_cannot_be_written_are_a_failed_launch(in_container, engine):
    spec = in_container("good")
    container = replace(spec.container, options=("--user=12345:12345", *spec.container.options))
    if os.getuid() != 0:
        pytest.skip("only root's containers can have any user")
    error = failure(run_job(replace(spec, container=container)), spec.host_dir)
    assert type(error) is errors.LaunchFailed
    assert "PermissionError" in str(error) and str(spec.host_dir) in str(error)


def test_the_runtime_says_which_image_to_pull(engine):
    expected = f"{engine.name} has no image localhost/other:1 .*: {engine.name} pull localhost/other:1"
    with pytest.raises(errors.ConfigurationError, match=expected):
        runtimes.prepare(engine.name, "localhost/other:1", Description(), [0], [])


SESSION = """
from pathlib import Path

def pytest_flagperf_vendors(config):
    return [Path(__file__).parent / "vendors"]
"""


@pytest.mark.slow
@pytest.mark.pytorch
@pytest.mark.parametrize("topology", ["1x1", "1x2"])
def test_a_real_case_runs_in_a_container(engine, tmp_path, topology):
    shutil.copytree(ROOT / "vendors" / "cpu", tmp_path / "vendors" / "cpu")
    with open(tmp_path / "vendors" / "cpu" / "vendor.toml", "a") as file:
        file.write(f"\n[container]\nmounts = {json.dumps(engine.mounts)}\n")
    (tmp_path / "hostvendors.py").write_text(SESSION)
    results = tmp_path / "results"
    command = [sys.executable, "-m", "pytest", "-p", "hostvendors", "-p", "no:cacheprovider", "-q", "suites"]
    command += ["-m", "wide_deep and pytorch and throughput", f"--topology={topology}", f"--flagperf-dir={results}"]
    command += [
        f"--container={engine.image}",
        f"--container-runtime={engine.name}",
        f"--python=pytorch={sys.executable}",
    ]
    env = {**os.environ, "PYTHONPATH": str(tmp_path), "FLAGPERF_LEASE_DIR": str(tmp_path / "leases")}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0 and "1 passed" in done.stdout, done.stdout + done.stderr
    (case_file,) = results.glob("*/*/round1/case.json")
    container = json.loads(case_file.read_text())["container"]
    assert (container["runtime"], container["image"]) == (engine.name, engine.image)
    assert container["id"] in engine("image", "inspect", engine.image)
    result = json.loads((case_file.parent.parent / "result.json").read_text())
    assert result["verdict"] == "passed" and result["metrics"]["p_core"]["value"] > 0
