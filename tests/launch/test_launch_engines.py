"""The command each launcher is started with."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import pytest

from pytest_flagperf.errors import ConfigurationError
from pytest_flagperf.launch import engines
from pytest_flagperf.launch import ports


def request(**changes: object) -> engines.LaunchRequest:
    values: dict[str, object] = {
        "python": sys.executable,
        "nproc": 2,
        "log_dir": Path("/logs"),
        "rank_argv": ("shim.py", "--case", "c.json"),
        "master_port": 12345,
        "path": "/usr/bin",
    }
    return engines.LaunchRequest(**{**values, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("framework", "world_size", "name"),
    [("pytorch", 2, "torchrun"), ("paddle", 8, "paddle"), ("mindspore", 2, "msrun"), ("mindspore", 1, "single")],
)
def test_a_framework_has_its_launcher_and_one_process_needs_none(framework: str, world_size: int, name: str) -> None:
    assert engines.engine_for(framework, world_size) == name


def test_unknown_names_are_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigurationError, match=r"unknown engine 'mpirun': known are .*torchrun"):
        engines.engine("mpirun")
    with pytest.raises(ConfigurationError, match="no launcher for framework 'jax'"):
        engines.engine_for("jax", 2)


@pytest.mark.parametrize("name", ["torchrun", "paddle", "msrun"])
def test_every_launcher_ends_with_the_rank_and_knows_the_port(name: str) -> None:
    command = engines.engine(name).command(request())
    assert command.argv[0] == sys.executable
    assert command.argv[-3:] == ("shim.py", "--case", "c.json")
    assert any("12345" in argument for argument in command.argv)


def test_msrun_is_stopped_by_interrupt_and_finds_its_interpreter_on_the_path() -> None:
    command = engines.engine("msrun").command(request())
    assert command.stop_signal == "SIGINT"
    assert command.env["PATH"] == f"{Path(sys.executable).parent}:/usr/bin"
    assert command.argv[-5] in ("python", "python3")
    assert "--join=True" in command.argv


def test_msrun_refuses_an_interpreter_it_could_not_start(tmp_path: Path) -> None:
    python = tmp_path / "python3.11"
    python.touch()
    with pytest.raises(ConfigurationError, match="add such a link"):
        engines.engine("msrun").command(request(python=str(python)))
    (tmp_path / "python3").symlink_to(python)
    assert "python3" in engines.engine("msrun").command(request(python=str(python))).argv


def test_a_single_process_takes_one_rank() -> None:
    assert engines.engine("single").command(request(nproc=1)).argv[:2] == (sys.executable, "-u")
    with pytest.raises(ConfigurationError, match="starts 1 process, not 1x2"):
        engines.engine("single").command(request())


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("torchrun", {"--nnodes=2", "--node-rank=1", "--master-addr=10.0.0.1", "--local-addr=10.0.0.2"}),
        ("paddle", {"--nnodes=2", "--rank=1", "--master=10.0.0.1:12345", "--host=10.0.0.2"}),
        ("msrun", {"--worker_num=4", "--local_worker_num=2", "--node_rank=1", "--master_addr=10.0.0.1"}),
    ],
)
def test_the_second_of_two_hosts_has_its_place(name: str, expected: set[str]) -> None:
    two = request(nnodes=2, node_rank=1, master_addr="10.0.0.1", local_addr="10.0.0.2")
    assert expected <= set(engines.engine(name).command(two).argv)


def test_variables_of_another_launcher_are_dropped() -> None:
    env = {"RANK": "1", "TORCHELASTIC_RUN_ID": "x", "PADDLE_TRAINER_ID": "1", "MS_ROLE": "MS_SCHED", "HOME": "/root"}
    assert engines.without_launcher_variables(env) == {"HOME": "/root"}


@pytest.mark.parametrize(
    "text",
    ["OSError: [Errno 98] Address already in use", "failed to listen (errno: 98 - ...)", "code: EADDRINUSE, port: 1"],
)
def test_a_taken_port_is_recognised(text: str) -> None:
    assert ports.is_taken(text) and not ports.is_taken("errno: 980")


def test_a_port_is_held_while_somebody_listens() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        assert ports.is_held(listener.getsockname()[1])
    assert not ports.is_held(ports.free_port())
