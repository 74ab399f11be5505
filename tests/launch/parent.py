"""A pytest process to be killed: ``parent.py CASE_FILE HOST_DIR ENTRY LOCK`` holds the lock and runs a job."""

from __future__ import annotations

import fcntl
import os
import sys
from pathlib import Path

from pytest_flagperf.launch.job import JobSpec
from pytest_flagperf.launch.job import run_job


def main() -> None:
    case_file, host_dir, entry, lock = sys.argv[1:]
    lease = os.open(lock, os.O_RDWR | os.O_CREAT)
    fcntl.flock(lease, fcntl.LOCK_EX)
    run_job(
        JobSpec("single", sys.executable, Path(case_file), Path(host_dir), 1, os.environ, entry, lease_fds=(lease,))
    )


if __name__ == "__main__":
    main()
