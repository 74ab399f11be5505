"""What a vendor's repository checks on every change, without any hardware."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import example_flagperf


FOLDER = Path(example_flagperf.__file__).parent


def test_the_vendor_folder_is_clean():
    done = subprocess.run(
        [sys.executable, "-m", "pytest_flagperf.cli", "lint", str(FOLDER)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def test_the_driver_tells_of_a_device():
    done = subprocess.run(
        [sys.executable, "-m", "pytest_flagperf.cli", "devices", "--vendor=example"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Example E1" in done.stdout, done.stderr
