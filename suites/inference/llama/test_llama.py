"""Llama: a language model that scores text, and continues it."""

from __future__ import annotations

import pytest

from pytest_flagperf import InferenceCase
from pytest_flagperf import Scale
from pytest_flagperf import at_least
from pytest_flagperf import at_most


CASE = InferenceCase(
    model="llama",
    title="Language modelling",
    unit="tokens",
    precisions=("fp32", "bf16", "fp16"),
    workloads={"pytorch": "pytorch:LanguageModel"},
    scales={
        "full": Scale(
            dataset="llama-text",
            weights="llama2-7b",
            # Which perplexity is right is the text's matter.
            targets=[at_least("quality_ratio", 0.99, source="MLPerf Inference")],
            parameters=6_738_415_616,
            # A token: twice the 6.607 G weights that are multiplied with it (all but the embedding's), and of the
            # attention 4 x layers x width x context = 4 x 32 x 4096 x 512, as if it were not causal (Chowdhery et al.
            # 2022, PaLM, appendix B).
            flops=1.348e10,
            config={
                "vocabulary": 32_000,
                "width": 4096,
                "hidden": 11_008,
                "layers": 32,
                "heads": 32,
                "key_value_heads": 32,
                "positions": 4096,
                "norm_epsilon": 1e-5,
                "tied": False,
                "context": 512,
                "evaluation_samples": 64,
                "batch_size": 8,
                "repeat": 5,
                "minimum_time": 5.0,
                "prompt_lengths": [512, 128, 2048],
                "batch_sizes": [1, 8, 32],
                "new_tokens": [128],
                "generation_prompts": 32,
            },
        ),
        "lite": Scale(
            dataset="verses",
            weights="llama-verses",
            targets=[
                at_most("perplexity", 5.05, source="101 % of what the weights' training has to reach"),
                at_least("quality_ratio", 0.99, source="MLPerf Inference"),
            ],
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
                "evaluation_samples": 256,
                # It divides the 256 windows: a compiler of static shapes works once.
                "batch_size": 32,
                "repeat": 3,
                "cpu_threads": 1,
                "prompt_lengths": [32, 96],
                "batch_sizes": [1, 8],
                "new_tokens": [32],
                "generation_prompts": 32,
            },
        ),
    },
    tunable={
        "batch_size",
        "repeat",
        "cpu_threads",
        "inductor_mode",
        "onnxruntime_provider",
        "xtcl_target",
        "compile_timeout",
        "prompt_lengths",
        "batch_sizes",
        "new_tokens",
        "vllm_memory",
        "sglang_memory",
        "openai_base_url",
        "openai_model",
        "openai_timeout",
    },
    config={
        "seed": 1,
        "warmup_batches": 3,
        "compile_timeout": 600.0,
        "inductor_mode": "default",
        "onnxruntime_provider": "",
        "xtcl_target": "",
        "vllm_memory": 0.9,
        "sglang_memory": None,
        "openai_base_url": "",
        "openai_model": "",
        "openai_timeout": 60.0,
    },
)


@pytest.mark.throughput
@pytest.mark.default_engines("eager", "inductor", "onnxruntime", "openvino")
def test_throughput(case, devices, dataset, launcher):
    """Held-out text scored, window by window: tokens/s with and without the pipeline, as likely as eager says."""
    run = launcher.run(case, devices, dataset)
    assert run.keeps_quality()
    assert run.measured("p_validation_core", "p_inference_whole", "p_inference_core", "compile_time")


@pytest.mark.generation
@pytest.mark.default_engines("eager")
def test_generation(case, devices, dataset, launcher):
    """Held-out prompts continued greedily: how long until the first token, and between the others."""
    run = launcher.run(case, devices, dataset)
    assert run.keeps_quality()
    assert run.measured("ttft", "tpot", "tokens_per_second_per_device")
