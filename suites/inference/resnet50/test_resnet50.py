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
                # MLPerf Inference, data centre: 15 ms at the 99th percentile.
                "latency_bound": 15.0,
                "loadgen_duration": 600.0,
                "search_duration": 60.0,
                "search_precision": 0.02,
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
                # A few seconds of LoadGen: shortened, and the result says so.
                "latency_bound": 500.0,
                "loadgen_duration": 2.0,
                "search_duration": 1.0,
                "search_precision": 0.25,
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
@pytest.mark.default_engines("eager", "inductor", "onnxruntime", "openvino", "paddle_inference", "mindir")
def test_throughput(case, devices, dataset, launcher):
    """The whole dataset several times over: images/s with and without the pipeline, the answers as right as eager's."""
    run = launcher.run(case, devices, dataset)
    assert run.keeps_quality()
    assert run.measured("p_validation_core", "p_inference_whole", "p_inference_core", "compile_time")


@pytest.mark.edge
@pytest.mark.default_engines("onnxruntime", "openvino")
def test_edge(case, devices, dataset, launcher):
    """One image at a time with one thread: latency and memory."""
    run = launcher.run(case, devices, dataset)
    assert run.keeps_quality()
    assert run.measured("latency_p50", "latency_p99")


@pytest.mark.single_stream
@pytest.mark.default_engines("onnxruntime")
def test_single_stream(case, devices, dataset, launcher):
    """LoadGen's SingleStream: one image after the other."""
    run = launcher.run(case, devices, dataset)
    assert run.keeps_quality()
    assert run.measured("latency_mean", "latency_p90")


@pytest.mark.multi_stream
@pytest.mark.default_engines("onnxruntime")
def test_multi_stream(case, devices, dataset, launcher):
    """LoadGen's MultiStream: eight images after the other eight."""
    run = launcher.run(case, devices, dataset)
    assert run.keeps_quality()
    assert run.measured("latency_mean", "latency_p99")


@pytest.mark.server
@pytest.mark.default_engines("onnxruntime")
def test_server(case, devices, dataset, launcher):
    """LoadGen's Server: the highest rate of random arrivals whose answers are there in time."""
    run = launcher.run(case, devices, dataset)
    assert run.keeps_quality()
    assert run.measured("qps", "latency_p99")


@pytest.mark.offline
@pytest.mark.default_engines("onnxruntime")
def test_offline(case, devices, dataset, launcher):
    """LoadGen's Offline: every image in one query."""
    run = launcher.run(case, devices, dataset)
    assert run.keeps_quality()
    assert run.measured("p_inference_whole")
