"""What the suites of inference say where a package is missing that a network is of."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.conftest import ROOT
from tests.conftest import SUITES


WITHOUT = """
import sys

sys.modules["{package}"] = None
from pytest_flagperf.errors import ConfigurationError
from pytest_flagperf.worker.inference.workload import load

try:
    kind = load("{directory}", "pytorch:{workload}")
    {then}
except ConfigurationError as error:
    print(error)
else:
    print("imported")
"""
NETWORK = "kind.network(type('W', (), {'config': type('C', (), {'network': 'wav2vec2'})})())"


@pytest.mark.pytorch
@pytest.mark.parametrize(
    ("model", "workload", "package", "then", "told"),
    [
        ("unet", "UNet", "diffusers", "pass", "of diffusers, not installed here .* 'pytest-flagperf[diffusion]'"),
        ("vit", "ViT", "transformers", "pass", "of transformers, not installed here.* 'pytest-flagperf[vision]'"),
        # The network of the lite scale is our own.
        ("ctc_asr", "CtcAsr", "transformers", "pass", "imported"),
        ("ctc_asr", "CtcAsr", "transformers", NETWORK, "of transformers, not installed.* 'pytest-flagperf[speech]'"),
    ],
    ids=["unet", "vit", "ctc_asr-lite", "ctc_asr-full"],
)
def test_a_missing_package_is_named_with_the_extra_that_has_it(model, workload, package, then, told):
    pytest.importorskip("torch")
    script = WITHOUT.format(package=package, directory=SUITES / "inference" / model, workload=workload, then=then)
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    *_, last = done.stdout.splitlines()
    for part in told.split(".*"):
        assert part.strip() in last
