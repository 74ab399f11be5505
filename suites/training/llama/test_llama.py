"""Llama: language modelling, byte by byte."""

from __future__ import annotations

import pytest

from pytest_flagperf import Scale
from pytest_flagperf import TrainingCase
from pytest_flagperf import at_most


CASE = TrainingCase(
    model="llama",
    title="Language modelling",
    unit="sequences",
    workloads={"pytorch": "pytorch:LanguageModelling"},
    scales={
        "lite": Scale(
            dataset="verses",
            targets=[at_most("perplexity", 5.0, source="measured over 3 seeds, see docs/reference/lite-targets.md")],
            parameters=426_624,
            config={
                "vocabulary": 256,
                "width": 128,
                "hidden": 384,
                "layers": 2,
                "heads": 4,
                "key_value_heads": 2,
                "positions": 256,
                "norm_epsilon": 1e-6,
                "tied": True,
                "context": 128,
                # 125 steps of eight windows; all of the text has 29,574.
                "epoch_samples": 1000,
                "evaluation_samples": 256,
                "global_batch_size": 8,
                "epochs": 4,
                "evaluation_interval": 1,
                "learning_rate": 0.0025,
                "weight_decay": 0.1,
                "beta2": 0.98,
                "gradient_norm": 1.0,
                "cpu_threads": 1,
            },
        ),
    },
    tunable={"learning_rate", "weight_decay", "beta2", "epochs"},
    config={"seed": 1, "gradient_accumulation_steps": 1},
)


@pytest.mark.convergence
def test_converges(case, devices, dataset, launcher):
    """Train from initial weights until a byte of held-out verses is as likely as the target asks."""
    run = launcher.run(case, devices, dataset)
    assert run.meets(case.targets)
