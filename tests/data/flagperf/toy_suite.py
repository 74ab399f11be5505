"""A suite that trains nothing: what its tests were given is all they look at."""

from __future__ import annotations

import pytest

from pytest_flagperf import Scale
from pytest_flagperf import TrainingCase
from pytest_flagperf import at_least


CASE = TrainingCase(
    model="toy",
    title="Toy",
    workloads={"pytorch": "toy:Toy", "paddle": "toy:Toy", "mindspore": "toy:Toy"},
    scales={
        "full": Scale(dataset="digits", targets=[at_least("top1", 0.99, source="toy")], config={"batch_size": 256}),
        "lite": Scale(dataset="digits", targets=[at_least("top1", 0.9, source="toy")], config={"batch_size": 8}),
    },
    tunable={"batch_size"},
    config={"learning_rate": 0.1},
)


@pytest.mark.convergence
def test_converges(case):
    assert case.model == "toy"


@pytest.mark.throughput
def test_throughput(case):
    assert case.role == "throughput"
