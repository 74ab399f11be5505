"""A perceptron of two layers that learns digits in seconds: what the weights of the tests are made by."""

from __future__ import annotations

import pytest

from pytest_flagperf import Scale
from pytest_flagperf import TrainingCase
from pytest_flagperf import at_least


CASE = TrainingCase(
    model="perceptron",
    title="Perceptron",
    unit="images",
    workloads={"pytorch": "pytorch:Perceptron"},
    scales={
        "lite": Scale(
            dataset="digits",
            targets=[at_least("top1", 0.85, source="any perceptron reaches it")],
            config={"global_batch_size": 100, "epochs": 8, "learning_rate": 0.3, "cpu_threads": 1, "hidden": 32},
        )
    },
)


@pytest.mark.convergence
def test_converges(case, devices, dataset, launcher):
    """Reach the target."""
    assert launcher.run(case, devices, dataset).meets(case.targets)
