"""What a vendor may change, seen by whoever runs pytest: refused at collection, or labelled everywhere."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path

import pytest


VENDOR = """
schema_version = 1
name = "acme"
title = "Acme"
shared = true
precisions = ["fp32"]
hot = 60
environment = { ACME_LOG = "3", ACME_TOKEN = "hunter2" }

[frameworks.pytorch]
device = "cpu"
backend = "gloo"

[[probe]]
library = "probe.py:Probe"

[chips.A1]
names = ["Acme A1"]
family = "A"
peak = { fp32 = 1000 }
source = "datasheet"
"""

# A driver that finds its one device always hot and throttling.
PROBE = """
from pytest_flagperf.devices.reading import Reading

class Probe:
    def read(self):
        return [Reading(0, name="Acme A1", temperature=88.0, power=100.0, throttle=("thermal",))]

    def close(self):
        pass
"""

CONFTEST = """
import pathlib

def pytest_flagperf_vendors(config):
    return [pathlib.Path(__file__).parent / "vendors"]
"""


@pytest.fixture
def run(suite: Path, pytester: pytest.Pytester, data_root: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs the linear suite as vendor acme, with the overlay and files given."""
    folder = pytester.path / "vendors" / "acme"
    folder.mkdir(parents=True)
    (pytester.path / "conftest.py").write_text(CONFTEST)
    (folder / "vendor.toml").write_text(VENDOR)
    (folder / "probe.py").write_text(PROBE)

    def run(*options: str, overlay: str = "", vendor: str = VENDOR, code: str = "") -> subprocess.CompletedProcess[str]:
        (folder / "vendor.toml").write_text(vendor)
        if overlay:
            (folder / "linear.toml").write_text(overlay)
        if code:
            (folder / "own.py").write_text(code)
        return subprocess.run(
            [sys.executable, "-m", "pytest", "suite", "--vendor=acme", "--flagperf-dir=results", *options],
            cwd=pytester.path,
            env={**os.environ, "FLAGPERF_LEASE_DIR": str(pytester.path / "leases")},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return run


@pytest.mark.parametrize(
    ("overlay", "message"),
    [
        ("config = { top1 = 0.5 }", "overlay 1: top1 is a target of linear; a vendor cannot change a target"),
        ("targets = { top1 = 0.5 }", "unknown field `targets`"),
        ("config = { epochs = 1 }", "overlay 1: epochs is not tunable in linear; tunable: learning_rate"),
        ("config = { warp = 9 }", "overlay 1: warp is not tunable in linear"),
        ("config = { learning_rate = 'fast' }", "overlay 1: learning_rate = 'fast' is a str, the case has float"),
        ("chip = 'B2'\nconfig = { learning_rate = 0.1 }", "overlay 1: chip = 'B2' selects nothing; acme has A, A1"),
        ("config = { learning_rate = 0.1 ", "linear.toml: "),
    ],
)
def test_an_overlay_that_breaks_the_rules_is_a_collection_error_with_file_and_key(run, overlay, message) -> None:
    done = run(overlay=f"[[overlay]]\nscale = 'lite'\n{overlay}")
    assert done.returncode == pytest.ExitCode.INTERRUPTED, done.stdout
    assert "acme/linear.toml: " in done.stdout
    assert message in done.stdout
    assert "Traceback" not in done.stdout
    assert "overlay.py" not in done.stdout


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("fp32 = 1000", "fp32 = -1", "chips.A1.peak.fp32 is -1: it is above zero"),
        ("fp32 = 1000", "fp32 = 0", "chips.A1.peak.fp32 is 0: it is above zero"),
        ("fp32 = 1000", "fp32 = '1000'", "chips.A1: Expected `float`, got `str` - at `$.peak.fp32`"),
        ('source = "datasheet"', 'source = ""', "chips.A1.source is empty"),
        ('source = "datasheet"', "", "missing required field `source`"),
        ("[chips.A1]", "[chipz.A1]", "unknown field `chipz`"),
    ],
)
def test_a_vendor_file_that_is_wrong_is_an_error_before_any_test_with_file_and_key(run, old, new, message) -> None:
    done = run(vendor=VENDOR.replace(old, new))
    assert done.returncode == pytest.ExitCode.USAGE_ERROR, done.stdout + done.stderr
    assert "acme/vendor.toml: " in done.stdout + done.stderr
    assert message in done.stdout + done.stderr


OWN = '''
from .pytorch import Linear


class Fast(Linear):
    """Faster, it says."""
'''


@pytest.mark.slow
@pytest.mark.pytorch
def test_code_of_the_vendors_own_is_labelled_open_in_json_junit_allure_and_terminal(run, pytester) -> None:
    open_division = "[[overlay]]\nscale = 'lite'\ndivision = 'open'\nframework = 'pytorch'\nworkload = 'own:Fast'"
    done = run("-m", "throughput", "--junitxml=junit.xml", "--alluredir=allure", overlay=open_division, code=OWN)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "passed (open division)" in done.stdout

    (path,) = (pytester.path / "results").glob("*/*/result.json")
    result = json.loads(path.read_text())
    assert result["case"]["division"] == "open"
    assert "+class Fast(Linear):" in result["diff"]
    assert result["deviations"][0].startswith("workload = 'own:Fast' (standard case: 'pytorch:Linear'), open division")

    found = {p.get("name"): p.get("value") for p in ElementTree.parse(pytester.path / "junit.xml").iter("property")}
    assert found["flagperf.division"] == "open"

    (told,) = [json.loads(path.read_text()) for path in (pytester.path / "allure").glob("*-result.json")]
    assert {"name": "tag", "value": "open division"} in told["labels"]
    assert "Open division" in told["description"]
    diff = next(one for one in told["attachments"] if one["name"] == "open-division.diff")
    assert "+class Fast(Linear):" in (pytester.path / "allure" / diff["source"]).read_text()

    again = subprocess.run(
        [sys.executable, "-m", "pytest", "suite", f"--replay={path.parent.parent}", "--flagperf-dir=again"],
        cwd=pytester.path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "passed (replayed" in again.stdout or "open division" in again.stdout, again.stdout + again.stderr


@pytest.mark.slow
@pytest.mark.pytorch
def test_a_tuned_key_of_this_chip_is_listed_as_what_differs_and_stays_closed(run, pytester) -> None:
    done = run("-m", "throughput", overlay="[[overlay]]\nscale = 'lite'\nchip = 'A'\nconfig = { learning_rate = 0.25 }")
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = (pytester.path / "results").glob("*/*/result.json")
    result = json.loads(path.read_text())
    assert (result["case"]["division"], result["case"]["chip"]) == ("closed", "A1")
    assert result["configuration"]["learning_rate"]["value"] == 0.25
    assert result["deviations"][0].startswith("learning_rate = 0.25 (standard case: 0.5), from ")
    assert "open division" not in done.stdout
    assert result["case"]["vendor_file"]["path"].endswith("acme/vendor.toml")
    assert len(result["case"]["vendor_file"]["sha256"]) == 64
    assert result["case"]["environment"] == {"ACME_LOG": "3", "ACME_TOKEN": "***"}


def test_a_vendor_file_in_the_place_of_one_that_ships_is_a_deviation(run, pytester) -> None:
    folder = pytester.path / "vendors" / "cpu"
    folder.mkdir()
    (folder / "vendor.toml").write_text(VENDOR.replace('"acme"', '"cpu"'))
    (folder / "probe.py").write_text(PROBE)
    done = run("-m", "throughput", "--vendor=cpu", "--dataset=digits=/nowhere")
    (path,) = (pytester.path / "results").glob("*/*/result.json")
    assert "in the place of the one that ships" in json.loads(path.read_text())["deviations"][0], done.stdout


@pytest.mark.slow
@pytest.mark.pytorch
def test_a_missed_target_says_that_the_device_throttled_and_ran_hot(run) -> None:
    done = run("-m", "convergence", "--target=top1=0.9999", "--monitor=0.05")
    assert done.returncode == 1
    assert "missed its target" in done.stdout
    assert "device 0 throttled in " in done.stdout
    assert "samples: thermal" in done.stdout
    assert "device 0 ran hot: 88 °C, the vendor's limit is 60 °C" in done.stdout
