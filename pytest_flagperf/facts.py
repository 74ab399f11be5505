"""What a session was run with and where, for ``session.json``: packages, the host, the suite's commit."""

from __future__ import annotations

import os
import platform
import socket
import subprocess
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pytest_flagperf import __version__


def versions() -> dict[str, str]:
    """The packages of pytest's interpreter that matter, those that are there."""
    found = {"pytest-flagperf": __version__, "python": platform.python_version()}
    for package in ("pytest", "pytest-xdist", "allure-pytest", "torch", "paddlepaddle", "mindspore", "numpy"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def host() -> dict[str, Any]:
    """This host: name, platform, processor, and how much there is of it."""
    cpu = ""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                cpu = line.partition(":")[2].strip()
                break
    except OSError:
        cpu = platform.processor()
    return {
        "name": socket.gethostname(),
        "platform": platform.platform(),
        "cpu": cpu,
        "cpus": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 2),
    }


def commit(directory: Path) -> dict[str, Any]:
    """The git commit of the suite, and whether it was changed; empty outside a repository."""
    found: dict[str, Any] = {}
    try:
        for key, arguments in (("commit", ["rev-parse", "HEAD"]), ("changed", ["status", "--porcelain", "-uno"])):
            done = subprocess.run(
                ["git", "-C", str(directory), *arguments], capture_output=True, text=True, timeout=10, check=True
            )
            found[key] = bool(done.stdout.strip()) if key == "changed" else done.stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return {}
    return found
