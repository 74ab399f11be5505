"""Two-dimensional convolution: DeepBench's 192 layers of training and inference, each direction by itself.

n images of c channels, w wide and h high; k filters; ids give horizontal sizes before vertical ones. ``fwd`` makes
the output, ``bwd_data`` the gradient of the images, ``bwd_weights`` the gradient of the filters. Each is 2 n k c ·
filter · output operations, padding counted, whatever algorithm the library chooses.

A layer that reads the network's input hands no gradient on, so it has no ``bwd_data``. Inference is ``fwd`` alone.
For speech, the width is time and the height is frequency.
"""

from __future__ import annotations

from pytest_flagperf import OperatorCase


CASE = OperatorCase(
    family="conv",
    title="Two-dimensional convolution",
    problems="convolution.json",
    precisions=("fp64", "fp32", "tf32", "bf16", "fp16", "int8"),
    defaults={
        "train": ("fp32", "tf32", "bf16", "fp16"),
        "inference_server": ("fp32", "fp16", "int8"),
        "inference_device": ("fp32", "int8"),
    },
    frameworks=("pytorch", "paddle", "mindspore"),
)


def test_conv(case, devices, operators):
    """The output or gradient is right within its bound, then timed; the algorithm search is not in the time."""
    assert operators.measure(case, devices).correct()
