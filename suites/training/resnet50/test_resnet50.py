"""ResNet-50 v1.5: image classification."""

from __future__ import annotations

import pytest

from pytest_flagperf import Scale
from pytest_flagperf import TrainingCase
from pytest_flagperf import at_least


CASE = TrainingCase(
    model="resnet50",
    title="Image classification",
    unit="images",
    workloads={
        "pytorch": "pytorch:ResNet50",
        "paddle": "paddle:ResNet50",
        "mindspore": "mindspore:ResNet50",
    },
    scales={
        "full": Scale(
            dataset="imagenet2012",
            targets=[at_least("top1", 0.759, source="MLPerf Training v0.7, ResNet-50 v1.5")],
            parameters=25_557_032,
            # 4.089 G multiply-accumulates of convolutions and matrix products forward, twice that backward.
            flops=24.54e9,
            config={
                "width": 64,
                "channels": 3,
                "classes": 1000,
                "image_size": 224,
                "batch_size": 256,
                "epochs": 90,
                "evaluation_interval": 4,
                "optimizer": "sgd",
                "learning_rate": 0.1,
                "reference_batch_size": 256,
                "momentum": 0.9,
                "nesterov": False,
                "weight_decay": 1e-4,
                "label_smoothing": 0.1,
                "warmup_epochs": 5,
                "decoder_processes": 8,
                # Longer than the decoders' queue, so that p_whole is not what was decoded ahead.
                "warmup_steps": 50,
                "measured_steps": 200,
                "minimum_time": 5.0,
            },
        ),
        "lite": Scale(
            dataset="digits",
            targets=[at_least("top1", 0.96, source="measured over 5 seeds, see docs/reference/lite-targets.md")],
            parameters=1_484_538,
            config={
                "width": 16,
                "channels": 1,
                "classes": 10,
                "image_size": 32,
                "global_batch_size": 64,
                "epochs": 8,
                "evaluation_interval": 1,
                "optimizer": "adamw",
                "learning_rate": 0.004,
                "weight_decay": 0.05,
                "label_smoothing": 0.05,
                "warmup_epochs": 1.6,
                "cpu_threads": 1,
                "warmup_steps": 3,
                "measured_steps": 20,
            },
        ),
    },
    tunable={
        "batch_size",
        "learning_rate",
        "warmup_epochs",
        "weight_decay",
        "epochs",
        "gradient_accumulation_steps",
        "decoder_processes",
    },
    config={"seed": 1, "gradient_accumulation_steps": 1},
)


@pytest.mark.convergence
def test_converges(case, devices, dataset, launcher):
    """Train from initial weights until top-1 on the evaluation split meets the target."""
    run = launcher.run(case, devices, dataset)
    assert run.meets(case.targets)


@pytest.mark.throughput
def test_throughput(case, devices, dataset, launcher):
    """A fixed number of steps after a warm-up: images/s with and without the data pipeline."""
    run = launcher.run(case, devices, dataset)
    assert run.measured("p_whole", "p_train", "p_core", "memory_peak")
