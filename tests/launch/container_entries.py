"""What the ranks of the container tests do, beside those of ``entries.py``."""

from __future__ import annotations

import json
import os
import socket
import time
from pathlib import Path
from typing import Any


def looks_around(context: Any) -> None:
    """Report what can be seen, reached and written."""
    status = dict(line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":\t" in line)
    report = {
        "user": [os.getuid(), os.getgid()],
        "capabilities": [int(status[name], 16) for name in ("CapEff", "CapPrm", "CapBnd")],
        "no_new_privileges": status["NoNewPrivs"],
        "devices": os.listdir("/dev"),
        "interfaces": sorted(os.listdir("/sys/class/net")),
        "outside": _error(lambda: socket.create_connection(("192.0.2.1", 80), timeout=2)),
        "own_name": socket.gethostbyname(socket.gethostname()),
        "environment": dict(os.environ),
        "directory": os.getcwd(),
        "project": _error(lambda: _touch(Path(__file__).parent / "written")),
        "package": _error(lambda: _touch(Path("/opt/flagperf/pytest_flagperf/written"))),
        "case": _error(lambda: _touch(context.case_file)),
        "home": _error(lambda: _touch(Path.home() / "written")),
        "shared_memory": os.statvfs("/dev/shm").f_frsize * os.statvfs("/dev/shm").f_blocks,
    }
    (context.host_dir / f"seen{context.rank}.json").write_text(json.dumps(report))


def shows_itself(context: Any) -> None:
    """Wait until the test has looked at us from outside."""
    (context.host_dir / "secret").write_text(os.environ["FLAGPERF_SECRET"])
    while not (context.host_dir / "looked").exists():
        time.sleep(0.02)


def _touch(path: Path) -> None:
    with open(path, "a"):
        pass


def _error(action: Any) -> str:
    """The name of the error that ``action`` ends with; empty where it ends well."""
    try:
        action()
    except OSError as error:
        return type(error).__name__ + f" {error.errno}"
    return ""
