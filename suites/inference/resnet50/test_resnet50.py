"""ResNet-50 v1.5: image classification."""

from __future__ import annotations

import pytest

from pytest_flagperf import InferenceCase
from pytest_flagperf import Scale
from pytest_flagperf import at_least


CASE = InferenceCase(
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
            weights="resnet50-imagenet",
            targets=[
                at_least("top1", 0.757, source="99 % of 76.46 %, MLPerf Inference"),
                at_least("quality_ratio", 0.99, source="MLPerf Inference"),
            ],
            parameters=25_557_032,
            # 4.089 G multiply-accumulates of convolutions and matrix products.
            flops=8.18e9,
            config={
                "width": 64,
                "channels": 3,
                "classes": 1000,
                "image_size": 224,
                "batch_size": 256,
                "repeat": 5,
                "decoder_processes": 8,
                "calibration_samples": 512,
                "minimum_time": 5.0,
            },
        ),
        "lite": Scale(
            dataset="digits",
            weights="resnet50-digits",
            targets=[
                at_least("top1", 0.95, source="99 % of what the weights' training has to reach"),
                at_least("quality_ratio", 0.99, source="MLPerf Inference"),
            ],
            parameters=1_484_538,
            config={
                "width": 16,
                "channels": 1,
                "classes": 10,
                "image_size": 32,
                # It divides the 1,000 digits: a compiler of static shapes works once.
                "batch_size": 50,
                "repeat": 3,
                "calibration_samples": 512,
            },
        ),
    },
    tunable={
        "batch_size",
        "repeat",
        "decoder_processes",
        "inductor_mode",
        "onnxruntime_provider",
        "xtcl_target",
        "compile_timeout",
    },
    config={
        "seed": 1,
        "warmup_batches": 3,
        "compile_timeout": 600.0,
        "inductor_mode": "default",
        "onnxruntime_provider": "",
        "xtcl_target": "",
    },
)


@pytest.mark.throughput
def test_throughput(case, devices, dataset, launcher):
    """The whole dataset several times over: images/s with and without the pipeline, the answers as right as eager's."""
    run = launcher.run(case, devices, dataset)
    assert run.keeps_quality()
    assert run.measured("p_validation_core", "p_inference_whole", "p_inference_core", "compile_time")


@pytest.mark.edge
def test_edge(case, devices, dataset, launcher):
    """One image at a time with one thread: latency and memory."""
    run = launcher.run(case, devices, dataset)
    assert run.keeps_quality()
    assert run.measured("latency_p50", "latency_p99")
