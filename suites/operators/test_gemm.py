"""Dense matrix product: DeepBench's 243 sizes of training and inference.

C = op(A) · op(B), where C is m x n, op(A) is m x k and op(B) is k x n. All three are column-major, as in BLAS; ``n``
and ``t`` at the end of an id say whether A and B are stored as they are multiplied or transposed. 2 m n k operations.

The layers are fully connected and recurrent ones of speech recognition, translation, language models, speaker
identification and keyword spotting. Sizes are kept as networks have them, odd ones too: where a device wants a
multiple of eight, the operands are padded and the rate is that of the size asked for.
"""

from __future__ import annotations

from pytest_flagperf import OperatorCase


CASE = OperatorCase(
    family="gemm",
    title="Dense matrix product",
    problems="gemm.json",
    precisions=("fp64", "fp32", "tf32", "bf16", "fp16", "fp8", "int8"),
    defaults={
        "train": ("fp32", "tf32", "bf16", "fp16"),
        "inference_server": ("fp32", "fp16", "int8"),
        "inference_device": ("fp32", "int8"),
        "smoke": ("fp32", "bf16", "int8"),
    },
    frameworks=("pytorch", "paddle", "mindspore"),
)


def test_gemm(case, devices, operators):
    """The product is right within the bound of its precision and k, then timed; int8 is right to the bit."""
    assert operators.measure(case, devices).correct()
