"""SSD: object detection."""

from __future__ import annotations

import pytest

from pytest_flagperf import InferenceCase
from pytest_flagperf import Scale
from pytest_flagperf import at_least


CASE = InferenceCase(
    model="ssd",
    title="Object detection",
    unit="images",
    workloads={"pytorch": "pytorch:Detector"},
    scales={
        # The network of MLPerf Training v0.6's SSD-ResNet-34, with 91 classes.
        "full": Scale(
            dataset="coco2017",
            weights="ssd-coco",
            targets=[
                at_least("box_ap", 0.2277, source="99 % of 0.23, MLPerf Training v0.6"),
                at_least("quality_ratio", 0.99, source="MLPerf Inference"),
            ],
            parameters=20_940_514,
            # 16.13 G multiply-accumulates of convolutions.
            flops=32.25e9,
            config={
                "classes": 90,
                "first_category": 1,
                "channels": 3,
                "image_size": 300,
                "pool": True,
                "stages": [[64, 3, 1], [128, 4, 2], [256, 6, 1]],
                "extra_layers": [
                    [256, 512, 2, 1],
                    [256, 512, 2, 1],
                    [128, 256, 2, 1],
                    [128, 256, 1, 0],
                    [128, 256, 1, 0],
                ],
                "feature_sides": [38, 19, 10, 5, 3, 1],
                "steps": [8, 16, 32, 64, 100, 300],
                "sizes": [21, 45, 99, 153, 207, 261, 315],
                "aspect_ratios": [[2], [2, 3], [2, 3], [2, 3], [2], [2]],
                "batch_size": 64,
                "repeat": 3,
                "decoder_processes": 8,
                "calibration_samples": 512,
                "minimum_time": 5.0,
            },
        ),
        "lite": Scale(
            dataset="digits",
            weights="ssd-digits",
            targets=[
                at_least("box_ap", 0.495, source="99 % of what the weights' training has to reach"),
                at_least("quality_ratio", 0.99, source="MLPerf Inference"),
            ],
            parameters=167_848,
            config={
                "classes": 10,
                "first_category": 0,
                "channels": 1,
                "image_size": 96,
                "pool": False,
                "stages": [[16, 1, 2], [32, 1, 1], [64, 1, 2]],
                "extra_layers": [[32, 64, 2, 1]],
                "feature_sides": [12, 6],
                "steps": [8, 16],
                "sizes": [16, 28, 42],
                "aspect_ratios": [[2], [2]],
                "test_scenes": 300,
                # It divides the 300 scenes: a compiler of static shapes works once.
                "batch_size": 50,
                "repeat": 3,
                "calibration_samples": 256,
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
@pytest.mark.default_engines("eager", "inductor", "onnxruntime", "openvino")
def test_throughput(case, devices, dataset, launcher):
    """The whole dataset several times over: images/s with and without the pipeline, the answers as right as eager's."""
    run = launcher.run(case, devices, dataset)
    assert run.keeps_quality()
    assert run.measured("p_validation_core", "p_inference_whole", "p_inference_core", "compile_time")
