"""The perceptron answers, executed by whichever engine, right or wrong."""

from __future__ import annotations

import os

import pytest

from pytest_flagperf import InferenceCase
from pytest_flagperf import Scale
from pytest_flagperf import at_least


CASE = InferenceCase(
    model="perceptron",
    title="Perceptron",
    unit="images",
    workloads={"pytorch": "pytorch:Perceptron"},
    engines=("eager", "inductor", "onnxruntime"),
    scales={
        "lite": Scale(
            dataset="digits",
            weights="perceptron-digits",
            targets=[
                at_least("top1", 0.84, source="99 % of what the training reaches"),
                at_least("quality_ratio", 0.99, source="MLPerf Inference"),
            ],
            parameters=25_450,
            flops=50_816.0,
            config={
                "hidden": 32,
                # 1,000 digits leave a last batch of 40.
                "batch_size": 64,
                "repeat": 2,
                "cpu_threads": 1,
                "calibration_samples": 256,
                "compile_timeout": float(os.environ.get("PERCEPTRON_COMPILE_TIMEOUT", "300")),
                "fault": os.environ.get("PERCEPTRON_FAULT", ""),
            },
        ),
    },
    tunable={"batch_size"},
    config={"seed": 1},
)


@pytest.mark.throughput
def test_throughput(case, devices, dataset, launcher):
    """As the suites that ship do it."""
    run = launcher.run(case, devices, dataset)
    assert run.keeps_quality()
    assert run.measured("p_inference_whole", "p_inference_core", "memory_peak", "output_error")


@pytest.mark.edge
def test_edge(case, devices, dataset, launcher):
    """One at a time."""
    run = launcher.run(case, devices, dataset)
    assert run.keeps_quality()
    assert run.measured("latency_p99")
