"""Jobs in containers: what goes in, what stays out, and that nothing is left. Podman and Docker, if installed."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from pytest_flagperf import errors
from pytest_flagperf.devices import vendor as vendors
from pytest_flagperf.devices.lease import Lease
from pytest_flagperf.devices.vendor import Container as Description
from pytest_flagperf.devices.vendor import FrameworkSupport
from pytest_flagperf.devices.vendor import Vendor
from pytest_flagperf.launch import confinement
from pytest_flagperf.launch import containers
from pytest_flagperf.launch import job
from pytest_flagperf.launch import runtimes
from pytest_flagperf.launch.containers import Contained
from pytest_flagperf.launch.containers import Container
from pytest_flagperf.launch.containers import Image
from pytest_flagperf.launch.containers import Runtime
from pytest_flagperf.launch.job import JobSpec
from pytest_flagperf.launch.job import failure
from pytest_flagperf.launch.job import run_job
from pytest_flagperf.rounds import Round
from tests.conftest import ROOT


HERE = Path(__file__).parent
SHIPPED = {name: vendors.load(path) for name, path in vendors.names([vendors.bundled()]).items()}
MakeSpec = Callable[..., JobSpec]
Wait = Callable[[Callable[[], Any]], Any]

PODMAN = Runtime("podman", "/usr/bin/podman", ("--user=1000:1000",), ("--http-proxy=false",))
APPTAINER = Runtime("apptainer", "/usr/bin/apptainer")


# --- the command line


def contained(**env: str) -> Contained:
    directory = Path("/results/round1")
    host_dir = directory / "host"
    return Contained("m1", host_dir, directory / "case.json", host_dir / "supervisor.json", "python3", env)


def argv(runtime: Runtime = PODMAN, job: Contained | None = None, **parts: Any) -> list[str]:
    return containers.argv(Container(runtime, Image("acme/train:1"), **parts), job or contained())


def mounts(command: list[str]) -> dict[str, bool]:
    """Target → whether it is writable."""
    given = [argument.partition("=")[2] for argument in command if argument.startswith("--mount=")]
    parts = [dict(part.partition("=")[::2] for part in mount.split(",")) for mount in given]
    assert all(part["type"] == "bind" and part["src"] for part in parts)
    return {part["dst"]: "ro" not in part for part in parts}


def test_a_container_is_named_removed_and_never_pulled():
    command = argv()
    assert command[:2] == ["/usr/bin/podman", "run"]
    assert {"--rm", "--interactive", "--pull=never", "--name=flagperf-m1", "--label=flagperf.job=m1"} <= set(command)
    image = command.index("acme/train:1")
    assert command[image - 1] == "--entrypoint=python3"
    assert command[image + 1 :] == [
        "-I",
        "/opt/flagperf/pytest_flagperf/launch/supervisor.py",
        "/results/round1/host/supervisor.json",
    ]


def test_a_container_has_no_privileges_no_network_and_the_caller_as_its_user():
    command = set(argv())
    assert {"--cap-drop=ALL", "--security-opt=no-new-privileges", "--network=none", "--user=1000:1000"} <= command
    assert not any("privileged" in argument and "no-new" not in argument for argument in command)


def test_only_the_results_of_the_host_can_be_written():
    found = mounts(argv(readable=(Path("/suites/resnet50"), Path("/data/imagenet"), Path("/results"))))
    assert [path for path, writable in found.items() if writable] == ["/results/round1/host"]
    assert {"/suites/resnet50", "/data/imagenet", "/results/round1/case.json", containers.PACKAGE} <= set(found)
    # A mount hides what was mounted below it before.
    assert list(found).index("/results") < list(found).index("/results/round1/host")


def test_values_of_the_environment_are_not_in_the_command_line():
    job = contained(NCCL_TOKEN="s3cret", LD_LIBRARY_PATH="/usr/local/acme/lib")
    container = Container(PODMAN, Image("acme/train:1"))
    command = containers.argv(container, job)
    assert "--env=NCCL_TOKEN" in command
    assert not [argument for argument in command if "s3cret" in argument]
    environment = containers.client_environment(container, job, {"PATH": "/usr/bin", "DOCKER_HOST": "unix:///d"})
    assert environment == {"PATH": "/usr/bin", "DOCKER_HOST": "unix:///d", "NCCL_TOKEN": "s3cret"}
    # A vendor's library path is for the workload, not for the client.
    assert "--env=LD_LIBRARY_PATH=/usr/local/acme/lib" in command


def test_what_names_a_place_of_the_host_is_not_carried_into_the_container():
    host = {
        "NCCL_DEBUG": "INFO",
        "CUDA_HOME": "/usr/local/cuda",
        "GLOO_SOCKET_IFNAME": "eth0",
        "LD_LIBRARY_PATH": "lib",
        "PYTHONPATH": "src",
        "NCCL_*": "1",
        "TORCH_HOME": "~/torch",
    }
    assert containers.carried(host) == {"NCCL_DEBUG": "INFO"}


def test_each_leased_device_is_given_to_the_container_and_no_other():
    entries = ["/dev/acme{index}", "/dev/acme_manager"]
    assert containers.expand(entries, [2, 5]) == ("/dev/acme2", "/dev/acme5", "/dev/acme_manager")
    pairs = ["--gpus", '"device={indices}"', "--env", "A=1", "--env", "B=1"]
    assert containers.expand(pairs, [2, 5]) == ("--gpus", '"device=2,5"', "--env", "A=1", "--env", "B=1")
    command = argv(devices=("/dev/acme2", "/dev/acme5"), groups=("44",))
    assert [a for a in command if a.startswith("--device")] == ["--device=/dev/acme2", "--device=/dev/acme5"]
    assert "--group-add=44" in command


def test_devices_in_a_container_are_chosen_by_number_only_where_all_of_them_are_there():
    assert containers.holds_only_leased(Description(devices=["/dev/acme{index}"]), "docker")
    assert containers.holds_only_leased(Description(options={"docker": ["--gpus=device={indices}"]}), "docker")
    assert not containers.holds_only_leased(Description(options={"docker": ["--gpus=device={indices}"]}), "podman")
    assert not containers.holds_only_leased(Description(devices=["/dev/dri"]), "docker")


@dataclass(frozen=True)
class Acme:
    """What a round asks of its session, of a vendor with eight devices."""

    vendor: Vendor

    def support(self, framework: str) -> FrameworkSupport:
        return self.vendor.frameworks[framework]

    def vendor_environment(self, framework: str) -> dict[str, str]:
        return {**self.vendor.environment, **self.support(framework).environment}


def round_environment(tmp_path: Path, description: Description) -> dict[str, str]:
    """What a round on devices 2 and 5 gives its ranks in a container."""
    vendor = Vendor(
        schema_version=1,
        name="acme",
        title="Acme",
        precisions=["fp32"],
        frameworks={"pytorch": FrameworkSupport(device="acme", environment={"ACME_FAST": "1"})},
        visible_devices="ACME_VISIBLE_DEVICES",
        also_visible=["ACME_OLD_DEVICES"],
        container=description,
    )
    topology = SimpleNamespace(devices=2, world_size=2)
    case: Any = SimpleNamespace(
        config={}, role="throughput", stand_in="", selection=SimpleNamespace(framework="pytorch", topology=topology)
    )
    unused: Any = None
    session: Any = Acme(vendor)
    one = Round(session, case, tmp_path, 1, Lease((2, 5), ()), unused, unused)
    one.container = Container(PODMAN, Image("acme/train:1"))
    return one._environment()


def test_a_round_carries_into_the_container_what_the_job_needs_and_no_more(tmp_path, monkeypatch):
    monkeypatch.setenv("NCCL_DEBUG", "INFO")
    monkeypatch.setenv("CUDA_HOME", "/usr/local/cuda")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "s3cret")
    found = round_environment(tmp_path, Description(environment={"LD_LIBRARY_PATH": "/acme"}))
    expected = {"NCCL_DEBUG": "INFO", "ACME_FAST": "1", "LD_LIBRARY_PATH": "/acme"}
    assert {name: found.get(name) for name in expected} == expected
    assert found["OMP_NUM_THREADS"] and found["FLAGPERF_ROUND"]
    assert not {"CUDA_HOME", "AWS_SESSION_TOKEN", "PATH", "HOME"} & set(found)
    # Every device of the host is in the container, so the leased ones are chosen by the host's numbers.
    assert found["ACME_VISIBLE_DEVICES"] == "2,5"


def test_where_only_leased_devices_are_in_the_container_none_is_chosen_by_the_numbers_of_the_host(tmp_path):
    found = round_environment(tmp_path, Description(devices=["/dev/acme{index}"]))
    assert not {"ACME_VISIBLE_DEVICES", "ACME_OLD_DEVICES"} & set(found)
    # Some runtimes are told in the environment what to put there.
    found = round_environment(tmp_path, Description(environment={"ACME_PICK": "{indices}"}))
    assert found["ACME_PICK"] == "2,5" and "ACME_VISIBLE_DEVICES" not in found
    found = round_environment(tmp_path, Description(environment={"ACME_VISIBLE_DEVICES": "{indices}"}))
    assert found["ACME_VISIBLE_DEVICES"] == "2,5"


def test_a_size_that_the_vendor_gives_replaces_ours_and_nothing_else_can_be_replaced():
    command = argv(options=("--shm-size=1g", "--pids-limit=4096"))
    assert [a for a in command if a.startswith(("--shm-size", "--pids-limit"))] == [
        "--shm-size=1g",
        "--pids-limit=4096",
    ]
    assert {"--network=none", "--ipc=private", "--cap-drop=ALL"} <= set(command)


@pytest.mark.parametrize("path", ["/data/a,b", '/data/a"b', "/data/../b"])
def test_a_path_that_cannot_be_mounted_at_its_place_is_refused(path):
    with pytest.raises(errors.ConfigurationError, match="cannot be mounted"):
        argv(readable=(Path(path),))


def test_apptainer_gets_the_same_mounts_and_no_value_in_its_command_line():
    job = contained(NCCL_TOKEN="s3cret", PATH="/opt/bin")
    container = Container(APPTAINER, Image("/images/a.sif"), (Path("/data"),), ("/dev/acme0",), options=("--nv",))
    command = containers.argv(container, job)
    assert command[:6] == [APPTAINER.executable, "exec", "--containall", "--no-privs", "--net", "--network=none"]
    found = mounts(command)
    assert found == {**mounts(argv(readable=(Path("/data"),))), "/dev/acme0": True}
    assert command[command.index("/images/a.sif") - 1] == "--nv"
    assert command[command.index("/images/a.sif") + 1 :][:2] == ["python3", "-I"]
    assert not [argument for argument in command if "s3cret" in argument]
    environment = containers.client_environment(container, job, {"PATH": "/usr/bin"})
    assert environment["APPTAINERENV_NCCL_TOKEN"] == "s3cret" and environment["APPTAINERENV_PATH"] == "/opt/bin"
    assert environment["PATH"] == "/usr/bin"


def test_the_vendor_file_of_the_how_to_is_read():
    page = (ROOT / "docs" / "how-to" / "run-in-a-container.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```toml\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    description = msgspec.convert(msgspec.toml.decode(block)["container"], type=Description)
    assert containers.expand(description.devices, [0]) == ("/dev/acme0", "/dev/acme_manager")
    assert set(description.options) <= set(runtimes.RUNTIMES)
    confinement.check(description, "the how-to")


# --- runtimes that are not what one hopes for


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Put a shell script in front of PATH."""
    directory = tmp_path / "bin"
    directory.mkdir()
    monkeypatch.setenv("PATH", f"{directory}:/usr/bin:/bin")

    def write(name: str, script: str) -> None:
        (directory / name).write_text(f"#!/bin/sh\n{script}\n")
        (directory / name).chmod(0o755)

    return write


def prepare(runtime: str = "docker", image: str = "acme/train:1", **described: Any) -> Container:
    return runtimes.prepare(runtime, image, Description(**described), [0, 1], [])


# What Docker's client says where its daemon answers.
DOCKER = """
case "$*" in
  --version) echo Docker version 28.2.2;;
  info*) echo '["name=seccomp,profile=builtin"%s]';;
  "image inspect acme/train:1")
    echo '[{"Id": "sha256:77", "RepoDigests": ["acme/train@sha256:db"],'
    echo ' "Config": {"Env": ["PATH=/opt/ml/bin:/bin"]}}]';;
  *) echo 'Error response from daemon: No such image: acme/train:2' >&2; exit 1;;
esac
"""


def test_the_image_is_recorded_by_what_identifies_it(program):
    program("docker", DOCKER % "")
    found = prepare()
    expected = {"runtime": "docker", "image": "acme/train:1", "id": "sha256:77", "digest": "acme/train@sha256:db"}
    assert {name: found.record()[name] for name in expected} == expected
    assert found.image.path == "/opt/ml/bin:/bin"
    assert found.runtime.user == (f"--user={os.getuid()}:{os.getgid()}",)


def test_in_a_rootless_daemon_root_is_the_caller(program):
    program("docker", DOCKER % ', "name=rootless"')
    assert prepare().runtime.user == ("--user=0:0",)


def test_a_docker_command_that_is_podman_is_told_what_podman_needs(program):
    program("docker", (DOCKER % "").replace("Docker version 28.2.2", "podman version 5.0"))
    assert "--http-proxy=false" in prepare().runtime.own


def test_an_image_that_is_not_there_is_not_fetched(program):
    program("docker", DOCKER % "")
    with pytest.raises(
        errors.ConfigurationError, match=r"docker has no image acme/train:2 .* docker pull acme/train:2"
    ):
        prepare(image="acme/train:2")


def test_a_daemon_that_is_not_there_is_said_to_be_the_trouble(program):
    program("docker", "echo Cannot connect to the Docker daemon at unix:///var/run/docker.sock. >&2; exit 1")
    with pytest.raises(errors.LaunchFailed, match=r"Cannot connect to the Docker daemon.*--container-runtime"):
        prepare()


def test_a_daemon_that_hangs_is_not_waited_for(program, monkeypatch):
    monkeypatch.setattr(runtimes, "_ANSWER", 0.3)
    program("docker", "exec sleep 60")
    before = time.monotonic()
    with pytest.raises(errors.LaunchFailed, match=r"did not end within 0.3 s"):
        prepare()
    assert time.monotonic() - before < 10


@pytest.mark.parametrize("vendor", sorted(SHIPPED))
@pytest.mark.parametrize("runtime", runtimes.RUNTIMES)
def test_what_the_vendors_that_ship_ask_of_a_container_is_allowed(program, tmp_path, vendor, runtime):
    program("docker", DOCKER % "")
    program("podman", DOCKER % "")
    program("apptainer", "")
    (tmp_path / "a.sif").touch()
    image = str(tmp_path / "a.sif") if runtime == "apptainer" else "acme/train:1"
    record = runtimes.prepare(runtime, image, SHIPPED[vendor].container, [2, 5], []).record()
    assert set(record) <= {"runtime", "image", "id", "digest", "options", "mounts", "capabilities"}
    assert all(isinstance(value, str) for value in record.values())


def test_what_is_in_force_is_recorded(program, tmp_path):
    program("docker", DOCKER % "")
    (tmp_path / "a driver").mkdir()
    asked = ["--gpus", '"device={indices}"', "--cap-add=sys_nice", "--shm-size=1g"]
    found = prepare(options={"docker": asked}, mounts=[f"{tmp_path}/a driver"], devices=["/dev/acme{index}"])
    record = found.record()
    options = shlex.split(record["options"])
    assert {"--cap-drop=ALL", "--network=none", "--device=/dev/acme0", "--device=/dev/acme1"} <= set(options)
    assert options[-3:] == ['--gpus="device=0,1"', "--cap-add=sys_nice", "--shm-size=1g"]
    assert set(options) <= set(containers.argv(found, contained()))
    assert shlex.split(record["mounts"]) == [f"{tmp_path}/a driver"]
    assert record["capabilities"] == "sys_nice"
    assert prepare().record()["capabilities"] == "none"


def test_a_gaudi_is_chosen_in_a_container_by_its_module_among_all(tmp_path):
    found = round_environment(tmp_path, SHIPPED["habana"].container)
    assert found["HABANA_VISIBLE_DEVICES"] == "all"
    # The vendor's own variable is left to the process: all modules are there.
    assert found["ACME_VISIBLE_DEVICES"] == "2,5"
    assert not containers.holds_only_leased(SHIPPED["habana"].container, "docker")
    assert (SHIPPED["habana"].visible_devices, SHIPPED["habana"].also_visible) == ("HABANA_VISIBLE_MODULES", [])


def test_mounts_and_groups_that_this_host_lacks_are_left_out(program, tmp_path):
    program("docker", DOCKER % "")
    (tmp_path / "driver1").mkdir()
    found = prepare(mounts=[f"{tmp_path}/driver{{index}}"], groups=["nosuchgroup", "root"])
    assert found.readable == (tmp_path / "driver1",)
    assert found.groups == ("0",)


def test_the_first_runtime_on_the_path_is_taken_unless_one_is_named(program, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(errors.ConfigurationError, match="none of docker, podman, apptainer is on PATH"):
        runtimes.find(None)
    program("apptainer", "")
    assert runtimes.find(None) == "apptainer"
    program("podman", "")
    assert runtimes.find(None) == "podman"
    assert runtimes.find("apptainer") == "apptainer"
    with pytest.raises(errors.ConfigurationError, match="--container-runtime: docker is not on PATH"):
        runtimes.find("docker")


@pytest.mark.parametrize("name", ["--privileged", "", "a b"])
def test_what_cannot_be_the_name_of_an_image_is_refused(name):
    with pytest.raises(errors.ConfigurationError, match="is not the name of an image"):
        runtimes.check_name(name)


def test_apptainer_runs_the_supervisor_of_the_job(program, make_spec, tmp_path):
    said = tmp_path / "said"
    program(
        "apptainer", f'echo "$APPTAINERENV_NCCL_DEBUG" "$@" > {said}; cat > /dev/null & echo no such thing; exit 255'
    )
    (tmp_path / "a.sif").touch()
    spec = replace(
        make_spec("good"),
        env={"NCCL_DEBUG": "INFO"},
        python="python3",
        container=prepare("apptainer", str(tmp_path / "a.sif")),
    )
    error = failure(run_job(spec), spec.host_dir)
    assert type(error) is errors.LaunchFailed
    assert "exit code 255 in the container" in str(error) and "no such thing" in str(error)
    assert said.read_text().startswith("INFO exec --containall")
    assert said.read_text().endswith(f"/supervisor.py {spec.host_dir}/supervisor.json\n")
    with pytest.raises(errors.ConfigurationError, match=r"b\.sif is not there.*apptainer pull"):
        prepare("apptainer", str(tmp_path / "b.sif"))


def test_a_container_that_never_starts_is_given_up(program, make_spec, monkeypatch, no_leftovers, marker):
    monkeypatch.setattr(containers, "START_LIMIT", 0.3)
    monkeypatch.setattr(job, "_BEAT", 0.1)
    monkeypatch.setattr(job, "_PATIENCE", 0.3)
    program("docker", 'case "$1" in run) exec sleep 60;; ps) exit 0;; esac')
    container = Container(Runtime("docker", shutil.which("docker") or ""), Image("acme/train:1"))
    spec = replace(make_spec("good"), env={"FLAGPERF_TEST_MARKER": marker}, container=container)
    with pytest.raises(errors.LaunchFailed, match=r"docker had not started the container after 0.3 s"):
        run_job(spec)
    assert not no_leftovers()


def test_a_container_that_cannot_be_removed_is_named(program, make_spec, monkeypatch):
    monkeypatch.setattr(runtimes, "_REMOVAL", 0.3)
    program("docker", 'case "$1" in ps) echo 1234;; *) echo device busy >&2; exit 1;; esac')
    container = Container(Runtime("docker", shutil.which("docker") or ""), Image("acme/train:1"))
    spec = replace(make_spec("good"), env={}, container=container)
    outcome = run_job(spec)
    assert outcome.reason == "launcher failed"
    assert "the container is still there" in outcome.detail and "docker rm --force flagperf-" in outcome.detail
