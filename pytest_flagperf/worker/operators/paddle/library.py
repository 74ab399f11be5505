"""The functions of PaddlePaddle that the kernels are written over; see ``allocating.Library``."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import paddle
from paddle.nn import functional

from pytest_flagperf.operators.problems import Problem
from pytest_flagperf.worker.operators.kernel import Unsupported


DTYPES = {
    "fp64": "float64",
    "fp32": "float32",
    "tf32": "float32",
    "bf16": "bfloat16",
    "fp16": "float16",
    "int8": "int8",
    "int16": "int16",
    "int32": "int32",
    "int64": "int64",
}

Operator = Callable[[Sequence[Any], Mapping[str, Any]], Any]


def _named(name: str, theirs: str = "") -> Operator:
    """The function of that name, given all operands and nothing else."""
    call = getattr(paddle, theirs or name)
    return lambda x, _: call(*x)


OPERATORS: dict[str, Operator] = {
    **{
        name: _named(name)
        for name in (
            *("abs", "cos", "neg", "reciprocal", "sin", "tanh", "exp", "rsqrt", "isinf", "isnan"),
            *("add", "bitwise_and", "bitwise_or", "bitwise_not", "max", "min", "mean", "sum", "prod"),
            *("mm", "bmm", "addmm", "mv", "outer", "triu"),
        )
    },
    "sub": _named("sub", "subtract"),
    "eq": _named("eq", "equal"),
    "ne": _named("ne", "not_equal"),
    "ge": _named("ge", "greater_equal"),
    "gt": _named("gt", "greater_than"),
    "le": _named("le", "less_equal"),
    "lt": _named("lt", "less_than"),
    "rsub": lambda x, _: paddle.subtract(x[1], x[0]),
    "mul": lambda x, given: x[0] * given["other"],
    "div": lambda x, given: x[0] / given["other"],
    "pow": lambda x, given: paddle.pow(x[0], given["exponent"]),
    "relu": lambda x, _: functional.relu(x[0]),
    "sigmoid": lambda x, _: functional.sigmoid(x[0]),
    "silu": lambda x, _: functional.silu(x[0]),
    "gelu": lambda x, _: functional.gelu(x[0]),
    "softmax": lambda x, given: functional.softmax(x[0], given["dim"]),
    "log_softmax": lambda x, given: functional.log_softmax(x[0], given["dim"]),
    "amax": lambda x, given: paddle.amax(x[0], given["dim"]),
    "argmax": lambda x, given: paddle.argmax(x[0], given["dim"]),
    # Paddle stores a linear layer's weights as (in, out); FlagPerf's list as (out, in).
    "linear": lambda x, _: paddle.matmul(x[0], x[1], transpose_y=True),
    "dropout": lambda x, given: functional.dropout(x[0], given["p"], training=True),
    # Asked for its gradient alone: see REFUSED.
    "native_dropout": lambda x, given: functional.dropout(x[0], given["p"], training=True),
    "layer_norm": lambda x, _: functional.layer_norm(x[0], x[1].shape, x[1].flatten(), x[2].flatten()),
    "group_norm": lambda x, given: functional.group_norm(x[0], given["groups"], 1e-5, x[1], x[2]),
    "native_group_norm": lambda x, given: functional.group_norm(x[0], given["groups"], 1e-5, x[1], x[2]),
    "cross_entropy_loss": lambda x, _: functional.cross_entropy(x[0], x[1]),
}
# What a forward call would time besides the operator, since it belongs to the call here.
REFUSED = {
    "all": "PaddlePaddle's all takes booleans alone: the conversion of the operand would be timed with it",
    "native_dropout": "PaddlePaddle's dropout gives no mask: a comparison that makes one would be timed with it",
}


class PaddleLibrary:
    """See :class:`pytest_flagperf.worker.operators.allocating.Library`."""

    operators: Mapping[str, Operator] = OPERATORS
    refused: Mapping[str, str] = REFUSED
    labels = "int64"

    def __init__(self, device: str, in_force: Callable[[str], dict[str, Any]]) -> None:
        self._device = device
        self.in_force = in_force

    def tensor(self, array: Any, dtype: str) -> Any:
        """See :class:`~pytest_flagperf.worker.operators.allocating.Library`."""
        if dtype not in DTYPES:
            raise Unsupported(f"PaddlePaddle's kernels are not measured in {dtype}")
        return paddle.to_tensor(array, place=self._device).astype(DTYPES[dtype])

    def numbers(self, tensor: Any) -> Any:
        """See :class:`~pytest_flagperf.worker.operators.allocating.Library`."""
        tensor = tensor.detach()
        # NumPy would be given the bits of a bfloat16.
        return (tensor.astype("float32") if tensor.dtype in (paddle.bfloat16, paddle.float16) else tensor).numpy()

    def dtype_name(self, tensor: Any) -> str:
        """See :class:`~pytest_flagperf.worker.operators.allocating.Library`."""
        return str(tensor.dtype).removeprefix("paddle.")

    def matmul(self, left: Any, right: Any, transpose_left: bool = False, transpose_right: bool = False) -> Any:
        """See :class:`~pytest_flagperf.worker.operators.allocating.Library`."""
        return paddle.matmul(left, right, transpose_left, transpose_right)

    def convolution(self, x: Any, filters: Any, stride: Any, padding: Any) -> Any:
        """See :class:`~pytest_flagperf.worker.operators.allocating.Library`."""
        return functional.conv2d(x, filters, stride=list(stride), padding=list(padding))

    def convolution_gradient(
        self, which: str, dy: Any, x: Any, filters: Any, stride: Any, padding: Any
    ) -> Callable[[], Any]:
        """See :class:`~pytest_flagperf.worker.operators.allocating.Library`.

        Paddle's gradient leaves out the operand that needs none.
        """
        asked = x if which == "x" else filters
        asked.stop_gradient = False
        y = self.convolution(x, filters, stride, padding)
        return lambda: paddle.grad([y], [asked], [dy], retain_graph=True)[0]

    def gradient(self, problem: Problem, call: Callable[[Any], Any], x: Any, dy: Any) -> tuple[Any, Callable[[], Any]]:
        """See :class:`~pytest_flagperf.worker.operators.allocating.Library`."""
        x.stop_gradient = False
        result = call(x)
        return result, lambda: paddle.grad([result], [x], [dy], retain_graph=True)[0]

    def sigmoid(self, x: Any) -> Any:
        """See :class:`~pytest_flagperf.worker.operators.allocating.Library`."""
        return functional.sigmoid(x)

    def tanh(self, x: Any) -> Any:
        """See :class:`~pytest_flagperf.worker.operators.allocating.Library`."""
        return paddle.tanh(x)

    def relu(self, x: Any) -> Any:
        """See :class:`~pytest_flagperf.worker.operators.allocating.Library`."""
        return functional.relu(x)

    def split(self, x: Any, parts: int) -> Sequence[Any]:
        """See :class:`~pytest_flagperf.worker.operators.allocating.Library`."""
        return paddle.split(x, parts, axis=-1)  # type: ignore[no-any-return]

    def concatenate(self, parts: Sequence[Any]) -> Any:
        """See :class:`~pytest_flagperf.worker.operators.allocating.Library`."""
        return paddle.concat(list(parts), axis=-1)


def reason(error: BaseException) -> str:
    """The line of Paddle's many-line messages that says something."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = next((line for line in lines if "Error:" in line or line.startswith("(")), lines[-1] if lines else "")
    return f"{type(error).__name__}: {told}"
