"""What a vendor file may not ask of a container, each refused before a runtime is asked for anything."""

from __future__ import annotations

import re
import socket
from typing import Any

import pytest

from pytest_flagperf import errors
from pytest_flagperf.devices.vendor import Container as Description
from pytest_flagperf.launch import runtimes


def prepare(**described: Any) -> None:
    runtimes.prepare("docker", "acme/train:1", Description(**described), [0, 1], [])


@pytest.mark.parametrize(
    ("runtime", "option"),
    [
        ("docker", "--privileged"),
        ("docker", "--network=host"),
        ("docker", "--net=host"),
        ("docker", "--pid=host"),
        ("podman", "--ipc=host"),
        ("podman", "--uts=host"),
        ("podman", "--userns=host"),
        ("docker", "--cgroupns=host"),
        ("docker", "--user=0:0"),
        ("docker", "--volume=/:/host"),
        ("docker", "-v/:/host"),
        ("docker", "--mount=type=bind,src=/,dst=/host"),
        ("docker", "--volumes-from=other"),
        ("docker", "--security-opt=seccomp=unconfined"),
        ("docker", "--security-opt=apparmor=unconfined"),
        ("docker", "--cap-add=ALL"),
        ("docker", "--cap-add=sys_admin"),
        ("docker", "--cap-add=CAP_SYS_PTRACE"),
        ("docker", "--device=/dev"),
        ("docker", "--device=/dev/mem"),
        ("docker", "--device=/dev/../etc/shadow"),
        ("docker", "--device-cgroup-rule=a *:* rwm"),
        ("docker", "--env=AWS_SESSION_TOKEN"),
        ("docker", "--env-file=/root/.aws/credentials"),
        ("docker", "--runtime=/tmp/mine"),
        ("podman", "--hooks-dir=/tmp/hooks"),
        ("docker", "acme/other:1"),
        ("docker", "--gpus"),
        ("apptainer", "--bind=/:/host"),
        ("apptainer", "--writable"),
        ("apptainer", "--nv=1"),
        ("apptainer", "--add-caps=CAP_SYS_ADMIN"),
    ],
)
def test_what_would_open_the_host_to_a_container_is_refused_with_the_file_the_key_and_a_reason(runtime, option):
    description = Description(options={runtime: [option]})
    with pytest.raises(errors.ConfigurationError) as caught:
        runtimes.prepare(runtime, "acme/train:1", description, [0, 1], [], "vendors/acme/vendor.toml")
    assert str(caught.value).startswith(f"vendors/acme/vendor.toml: container.options.{runtime}: {option}")
    assert " is refused: " in str(caught.value)


def test_an_option_in_two_entries_is_no_way_around_the_list():
    for entries in (["--cap-add", "ALL"], ["--device", "/dev/mem"], ["--gpus", "all", "--pid", "host"]):
        with pytest.raises(errors.ConfigurationError, match=r"container.options.docker: .* is refused"):
            prepare(options={"docker": entries})
    # Repeated, the second half would be an option of its own.
    with pytest.raises(errors.ConfigurationError, match=r"/dev/acme1 is refused"):
        prepare(options={"docker": ["--device", "/dev/acme{index}"]})


@pytest.mark.parametrize(
    "path",
    [
        *("/", "//", "/etc", "/etc/", "/etc/shadow", "/etc/ssl/private/key.pem", "/home", "/home/me", "/root", "/var"),
        *("/var/run/docker.sock", "/run/podman/podman.sock", "/var/lib", "/var/lib/docker/volumes", "/proc/1", "/sys"),
        *("/dev", "/dev/mem", "/root/.ssh", "/home/me/.aws/credentials", "/opt/../etc/shadow", "etc"),
    ],
)
def test_a_mount_of_what_is_the_hosts_own_is_refused(path):
    with pytest.raises(errors.ConfigurationError, match=rf"container\.mounts: {re.escape(path)} is refused: "):
        prepare(mounts=[path])


def test_a_mount_is_refused_for_where_its_link_leads_and_for_being_a_socket(tmp_path):
    (tmp_path / "driver").symlink_to("/etc")
    with pytest.raises(errors.ConfigurationError, match=r"driver leads to /etc is refused"):
        prepare(mounts=[str(tmp_path / "driver")])
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "s"))
        with pytest.raises(errors.ConfigurationError, match="through a socket"):
            prepare(mounts=[str(tmp_path / "s")])


@pytest.mark.parametrize("device", ["/dev", "/dev/", "/dev/mem", "/dev/mapper/root", "/etc/shadow", "/dev/../sda", ""])
def test_what_is_no_accelerators_node_is_no_device(device):
    with pytest.raises(errors.ConfigurationError, match=rf"container\.devices: {re.escape(device)} is refused: "):
        prepare(devices=[device])
