"""The network of Stable Diffusion: a step of denoising."""

from __future__ import annotations

import pytest

from pytest_flagperf import InferenceCase
from pytest_flagperf import Scale
from pytest_flagperf import at_least
from pytest_flagperf import at_most


CASE = InferenceCase(
    model="unet",
    title="Image generation",
    unit="steps",
    workloads={"pytorch": "pytorch:UNet"},
    precisions=("fp32", "bf16", "fp16"),
    scales={
        "full": Scale(
            dataset="sd15_latents",
            weights="unet-sd15",
            # Nobody publishes the error of a step: what the engine keeps of the framework's own is bounded.
            targets=[at_least("quality_ratio", 0.99, source="MLPerf Inference")],
            parameters=859_520_964,
            # Counted by PyTorch's FlopCounterMode: convolutions 443.9 G, matrix products 359.3 G.
            flops=803.27e9,
            config={
                "latent_size": 64,
                "latent_channels": 4,
                "tokens": 77,
                "text_width": 768,
                "channels": [320, 640, 1280, 1280],
                "attention": [True, True, True, False],
                "layers": 2,
                "heads": 8,
                "groups": 32,
                "batch_size": 8,
                "repeat": 2,
                "synthetic_samples": 64,
                "minimum_time": 5.0,
            },
        ),
        "lite": Scale(
            dataset="digits",
            weights="unet-digits",
            targets=[
                # 1.0 is what predicting nothing gives, 0.081 the best prediction that is linear in the latents.
                at_most("noise_mse", 0.0767, source="101 % of what the weights' training has to reach"),
                at_least("quality_ratio", 0.99, source="MLPerf Inference"),
            ],
            parameters=723_364,
            config={
                "latent_size": 8,
                "latent_channels": 4,
                "tokens": 4,
                "text_width": 32,
                "channels": [32, 64],
                "attention": [False, False],
                "layers": 1,
                "heads": 2,
                "groups": 8,
                # It divides the 1,000 digits: a compiler of static shapes works once.
                "batch_size": 50,
                "repeat": 2,
                "synthetic_samples": 1000,
            },
        ),
    },
    tunable={"batch_size", "repeat", "inductor_mode", "onnxruntime_provider", "xtcl_target", "compile_timeout"},
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
    """All steps several times over: steps/s with and without the pipeline, the answers as right as eager's."""
    run = launcher.run(case, devices, dataset)
    assert run.keeps_quality()
    assert run.measured("p_validation_core", "p_inference_whole", "p_inference_core", "compile_time")
