"""Podman and Docker for the tests, each with a storage of its own, so that nothing of the host's is touched."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class Engine:
    """Podman or Docker with a storage of its own, and an image without anything in it.

    The host's programs are mounted into the image's empty directories: ``mounts``.
    """

    name: str
    directory: Path
    mounts: tuple[str, ...]
    image: str = "localhost/hostroot:1"

    def __call__(self, *arguments: str) -> str:
        """What the client prints; the one that is first on PATH."""
        done = subprocess.run([self.name, *arguments], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def containers(self) -> list[str]:
        """The names of the containers there are, whether they run or not."""
        return self("ps", "--all", "--format={{.Names}}").split()


# No more than this machine may grant: without CAP_SYS_RESOURCE a limit cannot be raised.
CONFIGURATION = """
[containers]
default_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]
"""
PODMAN = """#!/bin/sh
export CONTAINERS_CONF={0}/containers.conf
exec {1} --root {0}/store --runroot {0}/run --tmpdir {0}/tmp --storage-driver vfs --runtime runc \\
    --cgroup-manager cgroupfs "$@"
"""
DOCKER = """#!/bin/sh
exec {1} --host unix://{0}/socket "$@"
"""


def make_root(directory: Path) -> tuple[str, ...]:
    """Make the image's root below ``directory``; returns what has to be mounted for this Python to run in it."""
    root = directory / "rootfs"
    needed = {"/usr", sys.prefix, sys.base_prefix}
    for name in ("usr", "etc", "proc", "sys", "dev", "run", "opt", "tmp", "root"):
        (root / name).mkdir(parents=True)
    (root / "tmp").chmod(0o1777)
    for name in ("bin", "sbin", "lib", "lib64"):
        path = Path("/", name)
        if path.is_symlink():
            (root / name).symlink_to(os.readlink(path))
        elif path.is_dir():
            (root / name).mkdir()
            needed.add(str(path))
    shutil.copy("/etc/ld.so.cache", root / "etc")
    (root / "etc" / "passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    (root / "etc" / "group").write_text("root:x:0:\n")
    subprocess.run(["tar", "-C", root, "-cf", directory / "root.tar", "."], check=True)
    return tuple(sorted(needed))


def start_docker(directory: Path) -> subprocess.Popen[bytes]:
    """A daemon of our own, which touches no network of the host."""
    configuration = {
        "hosts": [f"unix://{directory}/socket"],
        "data-root": str(directory / "data"),
        "exec-root": str(directory / "exec"),
        "pidfile": str(directory / "pid"),
        "storage-driver": "vfs",
        "bridge": "none",
        **dict.fromkeys(("iptables", "ip6tables", "ip-forward"), False),
    }
    (directory / "daemon.json").write_text(json.dumps(configuration))
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    with open(directory / "log", "wb") as log:
        return subprocess.Popen(
            ["dockerd", "--config-file", directory / "daemon.json"], stdout=log, stderr=log, env={"PATH": path}
        )


def import_image(engine: Engine, daemon: subprocess.Popen[bytes] | None) -> None:
    until = time.monotonic() + 20
    while daemon is not None and not (engine.directory / "pid").exists() and time.monotonic() < until:
        time.sleep(0.05)
    try:
        while daemon is not None and time.monotonic() < until:
            if subprocess.run([engine.name, "info"], capture_output=True, timeout=20, check=False).returncode == 0:
                break
        engine("import", str(engine.directory / "root.tar"), engine.image)
        shown = [f"--volume={path}:{path}:ro" for path in engine.mounts]
        engine("run", "--rm", "--network=none", *shown, engine.image, sys.executable, "-c", "")
    except (AssertionError, subprocess.TimeoutExpired) as error:
        pytest.skip(f"{engine.name} cannot run a container here: {error}")


def clear(engine: Engine, daemon: subprocess.Popen[bytes] | None) -> None:
    try:
        for name in engine.containers():
            engine("rm", "--force", name)
        engine("rmi", "--force", engine.image)
    except AssertionError:  # it never ran: nothing to clear
        pass
    if daemon is not None:
        daemon.terminate()
        try:
            daemon.wait(20)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()


def control_groups() -> list[Path]:
    """Those that the runtimes leave behind, empty; the inner ones first."""
    names = ("libpod_parent/conmon", "libpod_parent", "docker")
    return [path for name in names for path in Path("/sys/fs/cgroup").glob(f"*/{name}")]
