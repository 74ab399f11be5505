"""Vision Transformer: image classification. The weights of the inference suite's lite scale come from here."""

from __future__ import annotations

import pytest

from pytest_flagperf import Scale
from pytest_flagperf import TrainingCase
from pytest_flagperf import at_least


CASE = TrainingCase(
    model="vit",
    title="Image classification",
    unit="images",
    workloads={"pytorch": "pytorch:ViT"},
    scales={
        "lite": Scale(
            dataset="digits",
            targets=[at_least("top1", 0.88, source="measured: 0.926, 0.947, 0.936 with seeds 1 to 3, less a margin")],
            parameters=456_490,
            config={
                "hidden_size": 96,
                "layers": 4,
                "heads": 4,
                "patch_size": 8,
                "image_size": 32,
                "channels": 1,
                "classes": 10,
                "global_batch_size": 64,
                "epochs": 8,
                "evaluation_interval": 1,
                "learning_rate": 0.003,
                "weight_decay": 0.05,
                "label_smoothing": 0.05,
                "warmup_share": 0.2,
                "gradient_norm": 1.0,
            },
        ),
    },
    tunable={"learning_rate", "epochs", "weight_decay"},
    config={"seed": 1},
)


@pytest.mark.convergence
def test_converges(case, devices, dataset, launcher):
    """Train from initial weights until top-1 on the evaluation split meets the target."""
    run = launcher.run(case, devices, dataset)
    assert run.meets(case.targets)
