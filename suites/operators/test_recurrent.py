"""Recurrent layer: DeepBench's 124 sizes of vanilla, LSTM and GRU layers, each direction by itself.

One layer in one direction, with input size = hidden size. The input's product W x of all steps is given, so that what
is measured is the chain: h_t = g(x_t + U h_{t-1}). vanilla is a ReLU; the GRU is the one whose candidate is a tanh
and whose reset gate comes after the recurrent product. ``bwd_data`` is the whole way back through time and
``bwd_weights`` one product over all steps. Each is 2 G T N H^2 operations with G = 1, 4 or 3 gates; point-wise
operations are not counted.

``bwd_data`` starts from what a forward pass saved; inference does not save anything.
"""

from __future__ import annotations

from pytest_flagperf import OperatorCase


CASE = OperatorCase(
    family="rnn",
    title="Recurrent layer",
    problems="recurrent.json",
    precisions=("fp64", "fp32", "tf32", "bf16", "fp16"),
    defaults={
        "train": ("fp32", "tf32", "bf16", "fp16"),
        "inference_server": ("fp32", "fp16"),
    },
    frameworks=("pytorch", "paddle", "mindspore"),
)


def test_rnn(case, devices, operators):
    """The states or gradients of all steps are right within their bound, then timed."""
    assert operators.measure(case, devices).correct()
