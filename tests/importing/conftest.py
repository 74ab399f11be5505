"""Small FlagPerf layouts of our own, and a vendor of our own to take them for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_flagperf import suites
from pytest_flagperf.importing import names
from pytest_flagperf.importing import plan
from pytest_flagperf.importing.ours import Ours
from pytest_flagperf.importing.plan import Plan


VENDOR = """
schema_version = 1
name = "acme"
title = "Acme"
precisions = ["fp32", "amp", "bf16"]

[frameworks.pytorch]
device = "acme"

[chips.A1-80GB]
names = ["Acme A1 80GB"]
family = "A1"
source = "datasheet"
"""

TEST_CONF = """
'''What to run.'''
VENDOR = "acme"
ACCE_CONTAINER_OPT = " --device=/dev/acme0 " + "--privileged --net=host"
PIP_SOURCE = "https://packages.example.org/simple"
FLAGPERF_PATH = "/srv/FlagPerf/training"
FLAGPERF_LOG_PATH = FLAGPERF_PATH + "/result/"
CLEAR_CACHES = True
DATA = "/datasets"
CASES = {
    "resnet50:pytorch_1.13:A1:1:8:3": f"{DATA}/imagenet",
    "wide_deep:paddle:A1:1:1:1": DATA + "/clicks",
    "resnet50:pytorch_1.13:A1:2:8:1": "/datasets/imagenet",
    "nosuch:pytorch:A1:1:8:1": "/datasets/x",
    "resnet50:jax:A1:1:8:1": "/datasets/imagenet",
}
"""

CLUSTER_CONF = """
HOSTS = ["node1", "node2"]
MASTER_PORT = "29501"
"""

CONFIG_COMMON = """
vendor: str = "acme"
dist_backend = "accl"
fp16 = True
"""

CONFIG = """
from config_common import *

train_batch_size = 128 * 4
eval_batch_size = train_batch_size
lr = 0.8
weight_decay_rate: float = 1e-4
momentum = 0.8
target_acc1 = 70
max_steps = 1000
"""

ENVIRONMENT = """
# before the ranks
export ACME_RING=1
source /opt/acme/env
"""


@pytest.fixture
def write(tmp_path: Path) -> Callable[[dict[str, str]], Path]:
    """Puts files below a directory of the test and gives that directory."""

    def put(files: dict[str, str]) -> Path:
        for name, text in files.items():
            path = tmp_path / "flagperf" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        return tmp_path / "flagperf"

    return put


@pytest.fixture
def clone(write: Callable[[dict[str, str]], Path]) -> Path:
    """A clone with one vendor's settings of one case."""
    case = "training/acme/resnet50-pytorch"
    return write(
        {
            "training/run_benchmarks/config/test_conf.py": TEST_CONF,
            "training/run_benchmarks/config/cluster_conf.py": CLUSTER_CONF,
            f"{case}/config/config_common.py": CONFIG_COMMON,
            f"{case}/config/config_A1x1x8.py": CONFIG,
            f"{case}/config/environment_variables.sh": ENVIRONMENT,
            f"{case}/config/requirements.txt": "numpy\n",
            f"{case}/extern/trainer_adapter.py": "def backward(): ...\n",
        }
    )


@pytest.fixture
def ours(tmp_path: Path) -> Ours:
    """Our suites, and acme's vendor file beside the plugin's."""
    directory = tmp_path / "vendors" / "acme"
    directory.mkdir(parents=True)
    (directory / "vendor.toml").write_text(VENDOR)
    found = suites.bundled()
    return Ours(names.load(), suites.cases(found), (directory.parent,), ("suites",))


@pytest.fixture
def build(ours: Ours) -> Callable[..., Plan]:
    """``plan.build`` for acme."""

    def make(path: Path, vendor: str | None = None) -> Plan:
        return plan.build(path, vendor=vendor, ours=ours)

    return make
