"""FlagPerf's operators as PyTorch calls, forward and, where the list has it, backward."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from pytest_flagperf.operators.problems import Operator
from pytest_flagperf.worker.operators import data
from pytest_flagperf.worker.operators import operator_reference
from pytest_flagperf.worker.operators import reductions
from pytest_flagperf.worker.operators import reference
from pytest_flagperf.worker.operators.correctness import SMALLEST_NORMAL
from pytest_flagperf.worker.operators.kernel import Check
from pytest_flagperf.worker.operators.kernel import Kernel
from pytest_flagperf.worker.operators.kernel import Unsupported
from pytest_flagperf.worker.operators.pytorch.tensors import DTYPES
from pytest_flagperf.worker.operators.pytorch.tensors import TensorKernel
from pytest_flagperf.worker.operators.pytorch.tensors import numbers
from pytest_flagperf.worker.operators.pytorch.tensors import rows_of


if TYPE_CHECKING:
    from pytest_flagperf.worker.operators.pytorch.framework import Framework
    from pytest_flagperf.worker.operators.request import Request


Arguments = dict[str, Any]

Into = Callable[[list[Tensor], Arguments, Tensor], Any]


def _named(name: str) -> Into:
    """The function of torch of that name, given all operands and nothing else."""
    call = getattr(torch, name)
    return lambda x, _, out: call(*x, out=out)


# Calls that write into a given tensor: operands, other arguments, where to.
INTO: dict[str, Into] = {
    **{
        name: _named(name)
        for name in (
            *("abs", "cos", "exp", "neg", "reciprocal", "rsqrt", "sin", "tanh", "sigmoid"),
            *("add", "sub", "eq", "ne", "ge", "gt", "le", "lt"),
            *("bitwise_and", "bitwise_or", "bitwise_not", "max", "min", "all"),
            *("mm", "bmm", "addmm", "mv", "outer", "triu"),
        )
    },
    "rsub": lambda x, _, out: torch.sub(x[1], x[0], out=out),
    "mul": lambda x, given, out: torch.mul(x[0], given["other"], out=out),
    "div": lambda x, given, out: torch.div(x[0], given["other"], out=out),
    "pow": lambda x, given, out: torch.pow(x[0], given["exponent"], out=out),
    "silu": lambda x, _, out: torch.ops.aten.silu.out(x[0], out=out),
    "gelu": lambda x, _, out: torch.ops.aten.gelu.out(x[0], out=out),
    "sum": lambda x, _, out: torch.sum(x[0], dim=tuple(range(x[0].dim())), out=out),
    "mean": lambda x, _, out: torch.mean(x[0], dim=tuple(range(x[0].dim())), out=out),
    "amax": lambda x, given, out: torch.amax(x[0], given["dim"], out=out),
    "argmax": lambda x, given, out: torch.argmax(x[0], given["dim"], out=out),
    "softmax": lambda x, given, out: torch.softmax(x[0], given["dim"], out=out),
    "log_softmax": lambda x, given, out: torch.log_softmax(x[0], given["dim"], out=out),
}
# Calls that have no such form: they allocate their result. These are the ones with a gradient, too.
ALLOCATING: dict[str, Callable[[list[Tensor], Arguments], Any]] = {
    "relu": lambda x, _: torch.relu(x[0]),
    "isinf": lambda x, _: torch.isinf(x[0]),
    "isnan": lambda x, _: torch.isnan(x[0]),
    "prod": lambda x, _: torch.prod(x[0]),
    "linear": lambda x, _: functional.linear(*x),
    "dropout": lambda x, given: functional.dropout(x[0], given["p"], training=True),
    "native_dropout": lambda x, given: torch.native_dropout(x[0], given["p"], True),
    "layer_norm": lambda x, _: functional.layer_norm(x[0], x[1].shape, x[1], x[2]),
    "group_norm": lambda x, given: functional.group_norm(x[0], given["groups"], x[1], x[2]),
    "native_group_norm": lambda x, given: functional.group_norm(x[0], given["groups"], x[1], x[2]),
    "cross_entropy_loss": lambda x, _: functional.cross_entropy(x[0], x[1]),
    "sigmoid": lambda x, _: torch.sigmoid(x[0]),
    "silu": lambda x, _: functional.silu(x[0]),
    "tanh": lambda x, _: torch.tanh(x[0]),
    "softmax": lambda x, given: torch.softmax(x[0], given["dim"]),
    "log_softmax": lambda x, given: torch.log_softmax(x[0], given["dim"]),
}

# Of a product's operands, how many are neither 1 nor -1: as many twos as halves.
FACTORS = 15
COMPARISONS = ("eq", "ne", "ge", "gt", "le", "lt")
# Of whole-number types, these are asked for by name.
PRECISIONS = ("fp64", "fp32", "tf32", "bf16", "fp16", "int8", "int16", "int32", "int64")


def prepare(framework: Framework, request: Request) -> Kernel:
    """The call of the operator, in the direction asked for."""
    problem = request.problem
    assert isinstance(problem, Operator)
    if problem.name not in INTO and problem.name not in ALLOCATING:
        raise Unsupported(f"no PyTorch call is known for the operator {problem.name}")
    if request.precision not in PRECISIONS:
        raise Unsupported(f"PyTorch's {problem.name} is not measured in {request.precision}")
    return Backward(framework, request) if request.direction == "bwd" else Forward(framework, request)


class OperatorKernel(TensorKernel):
    """Operands ``in0`` ..., drawn so that the operator has something to decide."""

    def __init__(self, framework: Framework, request: Request) -> None:
        super().__init__(framework, request)
        assert isinstance(request.problem, Operator)
        self.operator = request.problem
        self.given = dict(self.operator.arguments)
        kinds = self.operator.input_dtypes or ("same",) * len(self.operator.inputs)
        self.inputs = [
            self._input(f"in{i}", shape, self.dtype if kind == "same" else DTYPES[kind])
            for i, (shape, kind) in enumerate(zip(self.operator.inputs, kinds, strict=True))
        ]
        self.tried = reductions.Tried()
        self.notes.append("checked at sampled elements, rows or images")

    def _input(self, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        operator = self.operator.name
        if operator == "cross_entropy_loss" and name == "in1":
            generator = torch.Generator(self.device).manual_seed(self.seed)
            classes = self.operator.inputs[0][1]
            return torch.randint(classes, shape, generator=generator, device=self.device, dtype=dtype)
        tensor = self.draw(name, *shape, dtype=dtype)
        if operator in data.RANGES and dtype.is_floating_point:
            tensor.mul_(data.RANGES[operator])
            self.distribution = f"uniform [-{data.RANGES[operator]:g}, {data.RANGES[operator]:g})"
        elif operator in ("sum", "mean") and dtype.is_floating_point:
            self._cancel(tensor.view(-1))
        elif operator == "all":
            # In a type of three digits a few are zero.
            tensor.masked_fill_(tensor == 0, 1.0)
            self.distribution = "uniform [-1, 1), ones for zeros; one zero at a time for the check"
        elif operator in ("max", "min") and dtype.is_floating_point:
            self.distribution = "uniform [-1, 1); one larger element at a time for the check"
        elif operator in ("amax", "argmax") and dtype.is_floating_point:
            places, values = data.extrema(shape, int(self.given["dim"]) % len(shape), self.seed)
            flat = tensor.view(-1)
            flat[torch.as_tensor(places, device=self.device)] = torch.as_tensor(values, dtype=dtype, device=self.device)
            self.distribution = "uniform [-1, 1); each maximum in [2, 4)"
        elif operator in ("reciprocal", "rsqrt"):
            tensor.mul_(0.5).add_(1.0)
            self.distribution = "uniform [0.5, 1.5)"
        elif operator == "prod":
            # The product of a billion factors must neither overflow nor vanish, not even in fp16.
            tensor.copy_(torch.where(tensor < 0, -1.0, 1.0))
            flat = tensor.view(-1)
            places = reference.sampled(flat.numel(), 2 * FACTORS, self.seed)
            flat[torch.as_tensor(places[: len(places) // 2], device=self.device)] = 2.0
            if dtype.is_floating_point:
                flat[torch.as_tensor(places[len(places) // 2 :], device=self.device)] = 0.5
            self.distribution = f"1 or -1, and {FACTORS} twos and halves"
        elif operator in COMPARISONS and name == "in1":
            tensor[..., ::2] = self.inputs_so_far[0][..., ::2]
            self.distribution = "uniform [-1, 1); every second pair is equal"
        elif operator in ("isinf", "isnan"):
            tensor[..., ::3] = float("inf") if operator == "isinf" else float("nan")
            self.distribution = f"uniform [-1, 1); every third is {'infinite' if operator == 'isinf' else 'a NaN'}"
        return tensor

    def _cancel(self, flat: Tensor) -> None:
        """See :class:`~pytest_flagperf.worker.operators.data.Cancelling`."""
        smallest = SMALLEST_NORMAL.get(self.request.precision, 0.0)
        plan = data.cancelling(flat.numel(), smallest, self.seed)
        flat.copy_(torch.copysign(flat.abs() / 2 + 0.5, flat))
        flat[plan.half : 2 * plan.half] = -flat[: plan.half].roll(plan.shift)
        flat[torch.as_tensor(plan.ones, device=self.device)] = 1.0
        self.distribution = plan.DISTRIBUTION

    @property
    def inputs_so_far(self) -> list[Tensor]:
        """The operands that are drawn."""
        return list(self.operands.values())

    def check(self) -> Check:
        """See :mod:`pytest_flagperf.worker.operators.operator_reference`."""
        return operator_reference.judge(self, self.request, self.tried, self._tried)

    def _tried(self, trial: reductions.Trial) -> Any:
        """What the call gives with one element changed. Afterwards all is as it was."""
        element = self.inputs[0].view(-1)[trial.place : trial.place + 1]
        before, result = element.clone(), self.outputs["out0"]
        kept = None if result is None else result.clone()
        element.fill_(trial.value)
        if result is not None and result.dtype is torch.bool:
            result.fill_(not trial.expected)
        elif result is not None and not self.allocates:
            result.fill_(float("nan"))
        try:
            self.run()
            return numbers(self.output("out0").clone())
        finally:
            element.copy_(before)
            self.outputs["out0"] = result
            if result is not None and kept is not None:
                result.copy_(kept)

    # --- elements.Tensors

    def tensor(self, name: str) -> Tensor:
        """An operand or a result by its name."""
        if name.startswith("in"):
            return self.inputs[int(name[2:])]
        return self.output(name)

    def shape(self, name: str) -> tuple[int, ...]:
        """See :class:`~pytest_flagperf.worker.operators.elements.Tensors`."""
        return tuple(self.tensor(name).shape)

    def flat(self, name: str, indices: Any) -> Any:
        """See :class:`~pytest_flagperf.worker.operators.elements.Tensors`."""
        return rows_of(self.tensor(name).reshape(-1), indices)

    def rows(self, name: str, indices: Any) -> Any:
        """See :class:`~pytest_flagperf.worker.operators.elements.Tensors`."""
        return rows_of(self.tensor(name), indices)


class Forward(OperatorKernel):
    """The operator itself."""

    def __init__(self, framework: Framework, request: Request) -> None:
        super().__init__(framework, request)
        name = self.operator.name
        self.into, self.allocating = INTO.get(name), ALLOCATING.get(name)
        self.allocates = self.into is None
        kinds = self.operator.output_dtypes or ("same",) * len(self.operator.outputs)
        for i, (shape, kind) in enumerate(zip(self.operator.outputs, kinds, strict=True)):
            self.empty(f"out{i}", *shape, dtype=self.dtype if kind == "same" else DTYPES[kind])
        self.target = self.outputs["out0"]
        if self.allocates:
            self.notes.append("PyTorch's call allocates its result")

    def run(self) -> None:
        """The call."""
        if self.into is not None:
            assert self.target is not None
            self.into(self.inputs, self.given, self.target)
            return
        assert self.allocating is not None
        result = self.allocating(self.inputs, self.given)
        if isinstance(result, tuple):
            for i, part in enumerate(result):
                self.outputs[f"out{i}"] = part
        else:
            self.outputs["out0"] = result


class Backward(OperatorKernel):
    """The gradient of the floating-point operands; the graph is built once, beforehand."""

    allocates = True

    def __init__(self, framework: Framework, request: Request) -> None:
        super().__init__(framework, request)
        self.leaves = [tensor.requires_grad_() for tensor in self.inputs if tensor.is_floating_point()]
        with torch.enable_grad():
            result = ALLOCATING[self.operator.name](self.inputs, self.given)
        self.forward_result = result[0] if isinstance(result, tuple) else result
        self.gradient = self.draw("gradient", *self.forward_result.shape)
        self.outputs["out0"] = None
        self.notes.append("the gradient alone: the graph is built beforehand and kept; PyTorch allocates the result")

    def run(self) -> None:
        """The backward pass."""
        gradients = torch.autograd.grad(self.forward_result, self.leaves, self.gradient, retain_graph=True)
        self.outputs["out0"] = gradients[0]

    def tensor(self, name: str) -> Tensor:
        """The forward result and the given gradient have names, too."""
        if name == "gradient":
            return self.gradient
        return self.forward_result if name == "forward" else super().tensor(name)
