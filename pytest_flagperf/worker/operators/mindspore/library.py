"""The functions of MindSpore that the kernels are written over; see ``allocating.Library``."""

from __future__ import annotations

import re
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import mindspore as ms
from mindspore import ops
from mindspore.ops import operations as primitives
from mindspore.ops.operations import _grad_ops as gradients

from pytest_flagperf.operators.problems import Problem
from pytest_flagperf.worker.operators.kernel import Unsupported


DTYPES = {
    "fp64": ms.float64,
    "fp32": ms.float32,
    "tf32": ms.float32,
    "bf16": ms.bfloat16,
    "fp16": ms.float16,
    "int8": ms.int8,
    "int16": ms.int16,
    "int32": ms.int32,
    "int64": ms.int64,
}

Operator = Callable[[Sequence[Any], Mapping[str, Any]], Any]


def _named(name: str, theirs: str = "") -> Operator:
    """The function of that name, given all operands and nothing else."""
    call = getattr(ops, theirs or name)
    return lambda x, _: call(*x)


def _layer_norm(x: Sequence[Any], _: Mapping[str, Any]) -> Any:
    axis = x[0].ndim - x[1].ndim
    return primitives.LayerNorm(axis, axis, 1e-5)(*x)[0]


OPERATORS: dict[str, Operator] = {
    **{
        name: _named(name)
        for name in (
            *("abs", "cos", "neg", "reciprocal", "sin", "tanh", "exp", "rsqrt", "isinf", "isnan"),
            *("add", "sub", "eq", "ne", "ge", "gt", "le", "lt", "bitwise_and", "bitwise_or"),
            *("relu", "sigmoid", "silu", "gelu", "mean", "sum", "prod"),
            *("mm", "bmm", "addmm", "mv", "outer", "triu"),
        )
    },
    "bitwise_not": _named("bitwise_not", "invert"),
    "max": lambda x, _: ops.max(x[0])[0],
    "min": lambda x, _: ops.min(x[0])[0],
    "rsub": lambda x, _: ops.sub(x[1], x[0]),
    "mul": lambda x, given: x[0] * given["other"],
    "div": lambda x, given: x[0] / given["other"],
    "pow": lambda x, given: ops.pow(x[0], given["exponent"]),
    "softmax": lambda x, given: ops.softmax(x[0], given["dim"]),
    "log_softmax": lambda x, given: ops.log_softmax(x[0], given["dim"]),
    "amax": lambda x, given: ops.amax(x[0], given["dim"]),
    "argmax": lambda x, given: ops.argmax(x[0], given["dim"]),
    "linear": lambda x, _: primitives.MatMul(transpose_b=True)(*x),
    "dropout": lambda x, given: ops.dropout(x[0], given["p"], True),
    # Asked for its gradient alone: see REFUSED.
    "native_dropout": lambda x, given: ops.dropout(x[0], given["p"], True),
    "layer_norm": _layer_norm,
    "group_norm": lambda x, given: ops.group_norm(x[0], given["groups"], x[1], x[2]),
    "native_group_norm": lambda x, given: ops.group_norm(x[0], given["groups"], x[1], x[2]),
    "cross_entropy_loss": lambda x, _: ops.cross_entropy(x[0], x[1]),
}
# What a forward call would time besides the operator, since it belongs to the call here.
REFUSED = {
    "all": "MindSpore's all takes booleans alone: the conversion of the operand would be timed with it",
    "native_dropout": "MindSpore's dropout gives no mask: a comparison that makes one would be timed with it",
}
# Gradients that are operators of their own: operand, result, the result's gradient, other arguments.
GRADIENTS: dict[str, Callable[[Any, Any, Any, Mapping[str, Any]], Any]] = {
    "relu": lambda _, y, dy, __: gradients.ReluGrad()(dy, y),
    "sigmoid": lambda _, y, dy, __: gradients.SigmoidGrad()(y, dy),
    "tanh": lambda _, y, dy, __: gradients.TanhGrad()(y, dy),
    "silu": lambda x, _, dy, __: gradients.SiLUGrad()(dy, x),
    "log_softmax": lambda _, y, dy, given: gradients.LogSoftmaxGrad(given["dim"])(y, dy),
}


class MindSporeLibrary:
    """See :class:`pytest_flagperf.worker.operators.allocating.Library`."""

    operators: Mapping[str, Operator] = OPERATORS
    refused: Mapping[str, str] = REFUSED
    labels = "int32"

    def __init__(self, in_force: Callable[[str], dict[str, Any]]) -> None:
        self.in_force = in_force
        self._products = {
            (left, right): primitives.MatMul(transpose_a=left, transpose_b=right)
            for left in (False, True)
            for right in (False, True)
        }

    def tensor(self, array: Any, dtype: str) -> Any:
        """See :class:`~pytest_flagperf.worker.operators.allocating.Library`."""
        if dtype not in DTYPES:
            raise Unsupported(f"MindSpore's kernels are not measured in {dtype}")
        return ms.Tensor(array).astype(DTYPES[dtype])

    def numbers(self, tensor: Any) -> Any:
        """See :class:`~pytest_flagperf.worker.operators.allocating.Library`."""
        return (tensor.astype(ms.float32) if tensor.dtype in (ms.bfloat16, ms.float16) else tensor).asnumpy()

    def dtype_name(self, tensor: Any) -> str:
        """See :class:`~pytest_flagperf.worker.operators.allocating.Library`."""
        return str(tensor.dtype).lower()

    def matmul(self, left: Any, right: Any, transpose_left: bool = False, transpose_right: bool = False) -> Any:
        """See :class:`~pytest_flagperf.worker.operators.allocating.Library`."""
        return self._products[transpose_left, transpose_right](left, right)

    def convolution(self, x: Any, filters: Any, stride: Any, padding: Any) -> Any:
        """See :class:`~pytest_flagperf.worker.operators.allocating.Library`."""
        return ops.conv2d(x, filters, stride=stride, pad_mode="pad", padding=padding)

    def convolution_gradient(
        self, which: str, dy: Any, x: Any, filters: Any, stride: Any, padding: Any
    ) -> Callable[[], Any]:
        """See :class:`~pytest_flagperf.worker.operators.allocating.Library`. Each gradient is an operator."""
        sides = (padding[0], padding[0], padding[1], padding[1])
        shape: dict[str, Any] = {"pad_mode": "pad", "pad": sides, "pad_list": sides, "stride": stride}
        channels, kernel = filters.shape[0], tuple(filters.shape[2:])
        if which == "x":
            of_data = primitives.Conv2DBackpropInput(channels, kernel, **shape)
            return lambda: of_data(dy, filters, x.shape)
        of_filters = gradients.Conv2DBackpropFilter(channels, kernel, **shape)
        return lambda: of_filters(dy, x, filters.shape)

    def gradient(self, problem: Problem, call: Callable[[Any], Any], x: Any, dy: Any) -> tuple[Any, Callable[[], Any]]:
        """See :class:`~pytest_flagperf.worker.operators.allocating.Library`."""
        name = getattr(problem, "name", "")
        if name not in GRADIENTS:
            raise Unsupported(f"MindSpore gives the gradient of {name} only together with its forward pass")
        result, given = call(x), dict(getattr(problem, "arguments", ()))
        return result, lambda: GRADIENTS[name](x, result, dy, given)

    def sigmoid(self, x: Any) -> Any:
        """See :class:`~pytest_flagperf.worker.operators.allocating.Library`."""
        return ops.sigmoid(x)

    def tanh(self, x: Any) -> Any:
        """See :class:`~pytest_flagperf.worker.operators.allocating.Library`."""
        return ops.tanh(x)

    def relu(self, x: Any) -> Any:
        """See :class:`~pytest_flagperf.worker.operators.allocating.Library`."""
        return ops.relu(x)

    def split(self, x: Any, parts: int) -> Sequence[Any]:
        """See :class:`~pytest_flagperf.worker.operators.allocating.Library`."""
        return ops.split(x, x.shape[-1] // parts, axis=-1)  # type: ignore[no-any-return]

    def concatenate(self, parts: Sequence[Any]) -> Any:
        """See :class:`~pytest_flagperf.worker.operators.allocating.Library`."""
        return ops.cat(tuple(parts), axis=-1)


def reason(error: BaseException) -> str:
    """What MindSpore says before the pages for framework developers."""
    text = re.sub(r"The supported data types are .*, but get", "It gets", " ".join(str(error).split()))
    told = next(
        (part.strip() for part in re.split(r"-{8,}", text) if part.strip(" -:") and "select failed" not in part), text
    )
    return f"{type(error).__name__}: {told[:400]}"
