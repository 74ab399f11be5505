"""Vision Transformer: image classification."""

from __future__ import annotations

import pytest

from pytest_flagperf import InferenceCase
from pytest_flagperf import Scale
from pytest_flagperf import at_least


CASE = InferenceCase(
    model="vit",
    title="Image classification",
    unit="images",
    workloads={"pytorch": "pytorch:ViT"},
    scales={
        # ViT-L/16.
        "full": Scale(
            dataset="imagenet2012",
            weights="vit-large-imagenet",
            targets=[
                at_least("top1", 0.82, source="99 % of 82.84 %: benchmark.md of glasses, vit_large_patch16_224"),
                at_least("quality_ratio", 0.99, source="MLPerf Inference"),
            ],
            parameters=304_326_632,
            # 61.55 G multiply-accumulates of matrix products, 1.9 G of them of the attention.
            flops=123.1e9,
            config={
                "hidden_size": 1024,
                "layers": 24,
                "heads": 16,
                "patch_size": 16,
                "image_size": 224,
                "channels": 3,
                "classes": 1000,
                "batch_size": 64,
                "repeat": 3,
                "decoder_processes": 8,
                "calibration_samples": 512,
                "minimum_time": 5.0,
            },
        ),
        "lite": Scale(
            dataset="digits",
            weights="vit-digits",
            targets=[
                at_least("top1", 0.871, source="99 % of what the weights' training has to reach"),
                at_least("quality_ratio", 0.99, source="MLPerf Inference"),
            ],
            parameters=456_490,
            config={
                "hidden_size": 96,
                "layers": 4,
                "heads": 4,
                "patch_size": 8,
                "image_size": 32,
                "channels": 1,
                "classes": 10,
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
@pytest.mark.default_engines("eager", "inductor", "onnxruntime", "openvino")
def test_throughput(case, devices, dataset, launcher):
    """The whole dataset several times over: images/s with and without the pipeline, the answers as right as eager's."""
    run = launcher.run(case, devices, dataset)
    assert run.keeps_quality()
    assert run.measured("p_validation_core", "p_inference_whole", "p_inference_core", "compile_time")
