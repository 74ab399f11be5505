"""A vendor of the tests' own: what its management program prints is what a test wrote."""

from __future__ import annotations

import stat
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_flagperf.devices import vendor as vendors


VENDOR = """
schema_version = 1
name = "acme"
title = "Acme"
precisions = ["fp32"]
hot = 90

[frameworks.pytorch]
device = "acme"

[[probe]]
command = ["acme-smi", "--csv"]
output = "csv"
directories = ["@"]
timeout = 1.0
processes = ["acme-smi", "--processes"]
processes_output = "processes"

[output.csv]
format = "csv"
fields = { index = "index", name = "name", power = "power", temperature = "temperature", memory_used = "used" }
units = { power = "W", temperature = "C", memory_used = "MiB" }

[output.processes]
format = "pattern"
[[output.processes.layouts]]
device = '''^device (?P<index>\\d+)'''
start = "^device"
process = '''^process (?P<index>\\d+) (?P<pid>\\d+)'''

[chips.A1]
names = ["Acme A1"]
peak = { fp32 = 10 }
source = "datasheet"
"""


@pytest.fixture
def acme(tmp_path: Path) -> Callable[[str], vendors.Vendor]:
    """Gives the vendor, with ``acme-smi`` running the Python code given: ``sys.argv[1]`` is what it is asked for."""

    def make(code: str) -> vendors.Vendor:
        tools = tmp_path / "tools"
        tools.mkdir(exist_ok=True)
        program = tools / "acme-smi"
        program.write_text(f"#!{sys.executable} -IS\nimport os, sys, time\n{code}\n")
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        file = tmp_path / "vendors" / "acme" / "vendor.toml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(VENDOR.replace("@", str(tools)))
        return vendors.load(file)

    return make
