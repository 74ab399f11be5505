"""CRNN: recognition of text."""

from __future__ import annotations

import pytest

from pytest_flagperf import InferenceCase
from pytest_flagperf import Scale
from pytest_flagperf import at_least
from pytest_flagperf import at_most


CASE = InferenceCase(
    model="crnn",
    title="Recognition of text",
    unit="images",
    workloads={"pytorch": "pytorch:Recogniser"},
    scales={
        # Shi et al. 2015, table 1.
        "full": Scale(
            dataset="iiit5k",
            weights="crnn-words",
            targets=[
                at_most("wer", 0.203, source="99 % of 80.53 % right: MMOCR 1.x, CRNN on IIIT5K"),
                at_least("quality_ratio", 0.99, source="MLPerf Inference"),
            ],
            parameters=8_330_789,
            # 0.62 G multiply-accumulates of convolutions, 0.07 G of the recurrent layers over 24 columns.
            flops=1.367e9,
            config={
                "width": 64,
                "hidden_size": 256,
                "recurrent_layers": 2,
                "classes": 37,
                "normalized": [5, 6],
                "image_height": 32,
                "image_width": 100,
                "batch_size": 250,
                "repeat": 5,
                "decoder_processes": 8,
                "calibration_samples": 512,
                "minimum_time": 5.0,
            },
        ),
        "lite": Scale(
            dataset="digits",
            weights="crnn-digits",
            targets=[
                at_most("cer", 0.061, source="what the weights' training has to reach, by 0.99"),
                at_least("quality_ratio", 0.99, source="MLPerf Inference"),
            ],
            parameters=155_547,
            config={
                "width": 8,
                "hidden_size": 64,
                "recurrent_layers": 1,
                "classes": 11,
                "normalized": [1, 2, 3, 4, 5, 6, 7],
                "image_height": 32,
                "image_width": 128,
                "test_lines": 600,
                # It divides the 600 lines: a compiler of static shapes works once.
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
