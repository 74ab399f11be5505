"""SSD: detection of objects. The weights of the inference suite's lite scale come from here."""

from __future__ import annotations

import pytest

from pytest_flagperf import Scale
from pytest_flagperf import TrainingCase
from pytest_flagperf import at_least


CASE = TrainingCase(
    model="ssd",
    title="Object detection",
    unit="images",
    workloads={"pytorch": "pytorch:Detector"},
    scales={
        "lite": Scale(
            dataset="digits",
            targets=[at_least("box_ap", 0.5, source="measured: 0.607, 0.595, 0.611 with seeds 1 to 3, less a margin")],
            parameters=167_848,
            config={
                "classes": 10,
                "channels": 1,
                "pool": False,
                "stages": [[16, 1, 2], [32, 1, 1], [64, 1, 2]],
                "extra_layers": [[32, 64, 2, 1]],
                "feature_sides": [12, 6],
                "steps": [8, 16],
                "sizes": [16, 28, 42],
                "aspect_ratios": [[2], [2]],
                "train_scenes": 1600,
                "test_scenes": 300,
                "global_batch_size": 16,
                "epochs": 4,
                "evaluation_interval": 1,
                "learning_rate": 0.004,
                "weight_decay": 0.01,
                "warmup_share": 0.15,
                "gradient_norm": 5.0,
            },
        ),
    },
    tunable={"learning_rate", "epochs", "weight_decay"},
    config={"seed": 1},
)


@pytest.mark.convergence
def test_converges(case, devices, dataset, launcher):
    """Train from initial weights until the average precision on the evaluation scenes meets the target."""
    run = launcher.run(case, devices, dataset)
    assert run.meets(case.targets)
