"""Speech recognition with CTC: letters from recordings."""

from __future__ import annotations

import pytest

from pytest_flagperf import InferenceCase
from pytest_flagperf import Scale
from pytest_flagperf import at_least
from pytest_flagperf import at_most


CASE = InferenceCase(
    model="ctc_asr",
    title="Speech recognition",
    unit="recordings",
    workloads={"pytorch": "pytorch:CtcAsr"},
    precisions=("fp32", "bf16", "fp16"),
    scales={
        "full": Scale(
            dataset="librispeech",
            weights="wav2vec2-base-960h",
            targets=[
                # The margin: the authors give every recording as it is, here all are padded to one length, and what
                # that costs was not measured.
                at_most("wer", 0.036, source="3.4 % by the model's authors on test-clean, no language model; 0.2 more"),
                at_least("quality_ratio", 0.99, source="MLPerf Inference"),
            ],
            parameters=94_396_320,
            # Counted by PyTorch's FlopCounterMode for 35 s: convolutions 188.3 G, matrix products 411.3 G.
            flops=599.64e9,
            config={
                "network": "wav2vec2",
                # The longest of test-clean has 34.96 s.
                "seconds": 35.0,
                "batch_size": 16,
                "repeat": 1,
                "synthetic_samples": 64,
                "minimum_time": 5.0,
            },
        ),
        "lite": Scale(
            dataset="asterisk_prompts",
            weights="ctc-asr-prompts",
            targets=[
                # 1.0 is what hearing nothing gives, 0.91 always the same word.
                at_most("cer", 0.454, source="101 % of what the weights' training has to reach"),
                at_least("quality_ratio", 0.99, source="MLPerf Inference"),
            ],
            parameters=294_269,
            config={
                "network": "recogniser",
                "width": 160,
                "kernel": 9,
                "blocks": 4,
                "dropout": 0.0,
                # The longest prompt has 4 s.
                "frames": 400,
                # It divides the 80 prompts: a compiler of static shapes works once.
                "batch_size": 20,
                "repeat": 3,
                "synthetic_samples": 80,
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
    """All recordings several times over: recordings/s with and without the pipeline, heard as well as by eager."""
    run = launcher.run(case, devices, dataset)
    assert run.keeps_quality()
    assert run.measured("p_validation_core", "p_inference_whole", "p_inference_core", "compile_time")
