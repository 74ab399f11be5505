"""Wide & Deep: will it be clicked on, will it be late."""

from __future__ import annotations

import pytest

from pytest_flagperf import Scale
from pytest_flagperf import TrainingCase
from pytest_flagperf import at_least


CASE = TrainingCase(
    model="wide_deep",
    title="Recommendation",
    workloads={
        "pytorch": "pytorch:WideDeep",
        "paddle": "paddle:WideDeep",
        "mindspore": "mindspore:WideDeep",
    },
    scales={
        "full": Scale(
            dataset="criteo_kaggle",
            # Published on a random split; ours is by time, so the bound leaves a margin.
            targets=[at_least("auc", 0.79, source="1 % under Guo et al. 2017 (DeepFM), table 2, LR & DNN: 0.7981")],
            # 26 fields of 100,001 ids, in the linear part and in embeddings of 16, and three layers of 400.
            parameters=44_693_657,
            config={
                "embedding_size": 16,
                "hidden_sizes": [400, 400, 400],
                "batch_size": 4096,
                "epochs": 2,
                "evaluation_interval": 0.25,
                "learning_rate": 0.001,
                "reference_batch_size": 4096,
                "warmup_steps": 50,
                "measured_steps": 500,
                "minimum_time": 2.0,
            },
        ),
        "lite": Scale(
            dataset="flights",
            targets=[at_least("auc", 0.71, source="measured over 5 seeds, see docs/reference/lite-targets.md")],
            config={
                "embedding_size": 16,
                "hidden_sizes": [128, 64],
                "global_batch_size": 512,
                "epochs": 2,
                "evaluation_interval": 0.5,
                "learning_rate": 0.002,
                "cpu_threads": 1,
                "warmup_steps": 20,
                "measured_steps": 200,
            },
        ),
    },
    tunable={"batch_size", "learning_rate", "epochs", "gradient_accumulation_steps"},
    config={"seed": 1, "gradient_accumulation_steps": 1},
)


@pytest.mark.convergence
def test_converges(case, devices, dataset, launcher):
    """Train from initial weights until the area under the ROC curve meets the target."""
    run = launcher.run(case, devices, dataset)
    assert run.meets(case.targets)


@pytest.mark.throughput
def test_throughput(case, devices, dataset, launcher):
    """A fixed number of steps after a warm-up: samples/s with and without the data pipeline."""
    run = launcher.run(case, devices, dataset)
    assert run.measured("p_whole", "p_train", "p_core", "memory_peak")
