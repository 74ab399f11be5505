"""A pytest process to be killed: ``container_parent.py RUNTIME IMAGE CASE_FILE HOST_DIR ENTRY LOCK READABLE...``."""

from __future__ import annotations

import fcntl
import os
import sys
from pathlib import Path

from pytest_flagperf.devices.vendor import Container
from pytest_flagperf.launch import runtimes
from pytest_flagperf.launch.job import JobSpec
from pytest_flagperf.launch.job import run_job


def main() -> None:
    runtime, image, case_file, host_dir, entry, lock, *readable = sys.argv[1:]
    lease = os.open(lock, os.O_RDWR | os.O_CREAT)
    fcntl.flock(lease, fcntl.LOCK_EX)
    container = runtimes.prepare(runtime, image, Container(), [0], map(Path, readable))
    env = {"FLAGPERF_TEST_MARKER": os.environ["FLAGPERF_TEST_MARKER"]}
    run_job(
        JobSpec(
            "single",
            sys.executable,
            Path(case_file),
            Path(host_dir),
            1,
            env,
            entry,
            lease_fds=(lease,),
            container=container,
        )
    )


if __name__ == "__main__":
    main()
