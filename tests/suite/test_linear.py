"""A linear classifier of digits: learns in seconds, and misbehaves on request."""

from __future__ import annotations

import os

import pytest

from pytest_flagperf import Scale
from pytest_flagperf import TrainingCase
from pytest_flagperf import at_least


CASE = TrainingCase(
    model="linear",
    title="Linear classifier",
    unit="images",
    workloads={"pytorch": "pytorch:Linear"},
    scales={
        "lite": Scale(
            dataset="digits",
            targets=[at_least("top1", 0.8, source="any linear classifier reaches it")],
            config={
                "global_batch_size": 100,
                "epochs": int(os.environ.get("LINEAR_EPOCHS", "3")),
                "learning_rate": 0.5,
                "fault": os.environ.get("LINEAR_FAULT", ""),
                "cpu_threads": 1,
                "warmup_steps": 2,
                "measured_steps": 10,
            },
        )
    },
    tunable={"learning_rate"},
)


@pytest.mark.convergence
def test_converges(case, devices, dataset, launcher):
    """Reach the target."""
    assert launcher.run(case, devices, dataset).meets(case.targets)


@pytest.mark.throughput
def test_throughput(case, devices, dataset, launcher):
    """Measure a few steps."""
    assert launcher.run(case, devices, dataset).measured("p_whole", "p_train", "p_core")
