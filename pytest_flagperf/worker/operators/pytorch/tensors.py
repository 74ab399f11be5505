"""What the PyTorch kernels share: types, drawn tensors, poison, the way to NumPy, and the two usual checks."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from typing import TYPE_CHECKING
from typing import Any

import torch
from torch import Tensor

from pytest_flagperf.worker.operators.correctness import ACCUMULATE
from pytest_flagperf.worker.operators.data import LOOKED_AT
from pytest_flagperf.worker.operators.kernel import Kernel


if TYPE_CHECKING:
    from pytest_flagperf.worker.operators.pytorch.framework import Framework
    from pytest_flagperf.worker.operators.request import Request


DTYPES = {
    "fp64": torch.float64,
    "fp32": torch.float32,
    "tf32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "fp8": torch.float8_e4m3fn,
    "int8": torch.int8,
    "int16": torch.int16,
    "int32": torch.int32,
    "int64": torch.int64,
    "bool": torch.bool,
}
# What a product is stored in, where that is wider than its operands.
PRODUCT_DTYPES = {**DTYPES, "fp8": torch.bfloat16, "int8": torch.int32}


class TensorKernel(Kernel):
    """A kernel whose outputs are the tensors in ``outputs`` and whose drawn operands are those in ``operands``.

    A call that allocates its result itself puts it there.
    """

    def __init__(self, framework: Framework, request: Request) -> None:
        super().__init__()
        self.framework, self.request, self.problem = framework, request, request.problem
        self.device, self.seed = framework.device, request.seed
        self.dtype = DTYPES[request.precision]
        self.operands: dict[str, Tensor] = {}
        self.outputs: dict[str, Tensor | None] = {}
        self._drawn = 0
        self._reference: Any = None
        if request.precision == "int8":
            self.distribution = "uniform whole numbers [-127, 127]"

    def draw(self, name: str, *shape: int, dtype: torch.dtype | None = None, scale: float = 1.0) -> Tensor:
        """A drawn operand: uniform in [-scale, scale), converted into its type; whole numbers in [-127, 127]."""
        dtype = self.dtype if dtype is None else dtype
        # Each operand has a sequence of its own: A equal to B would hide that they were swapped.
        self._drawn += 1
        generator = torch.Generator(self.device).manual_seed(self.seed * 1000 + self._drawn)
        if dtype.is_floating_point and dtype.itemsize == 1:
            tensor = torch.empty(shape, device=self.device).uniform_(-scale, scale, generator=generator).to(dtype)
        elif dtype.is_floating_point:
            tensor = torch.empty(shape, dtype=dtype, device=self.device).uniform_(-scale, scale, generator=generator)
        else:
            tensor = torch.empty(shape, dtype=dtype, device=self.device).random_(-127, 128, generator=generator)
        self.operands[name] = tensor
        return tensor

    def empty(self, name: str, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        """An output, allocated."""
        # Truth values start true, so that the first poison makes them false.
        make = torch.ones if dtype is torch.bool else torch.empty
        tensor = make(shape, dtype=self.dtype if dtype is None else dtype, device=self.device)
        self.outputs[name] = tensor
        return tensor

    def poison(self) -> None:
        """NaN in every output; whole numbers get their type's smallest, truth values their opposite.

        What a call allocates itself is forgotten.
        """
        for name, tensor in self.outputs.items():
            if tensor is None or self.allocates:
                self.outputs[name] = None
            elif tensor.is_floating_point():
                tensor.fill_(float("nan"))
            elif tensor.dtype is torch.bool:
                tensor.logical_not_()
            else:
                tensor.fill_(torch.iinfo(tensor.dtype).min)

    #: Whether the call allocates its outputs itself.
    allocates = False

    def output(self, name: str) -> Tensor:
        """An output of the last call. One that was not written is a NaN."""
        tensor = self.outputs[name]
        return torch.full((), float("nan")) if tensor is None else tensor

    def reference(self, compute: Callable[[], Any]) -> Any:
        """The reference, computed when it is first asked for: the operands stay as they are."""
        if self._reference is None:
            self._reference = compute()
        return self._reference

    def drawn(self) -> Mapping[str, Any]:
        """See :class:`~pytest_flagperf.worker.operators.kernel.Kernel`."""
        found = {}
        for name, tensor in self.operands.items():
            flat = tensor.view(torch.uint8).ravel() if tensor.itemsize == 1 else tensor.ravel()
            found[name] = numbers(flat[:: max(1, flat.numel() // LOOKED_AT)])
        return found

    def precision(self) -> dict[str, Any]:
        """See :class:`~pytest_flagperf.worker.operators.kernel.Kernel`.

        ``accumulate`` is what the error bound supposes; PyTorch does not tell.
        """
        state = self.framework.in_force(self.request.precision)
        state["accumulate"] = ACCUMULATE.get(self.request.precision, "int32")
        for name, tensor in {**self.operands, **self.outputs}.items():
            if tensor is not None:
                state[name] = str(tensor.dtype).removeprefix("torch.")
        return state


def numbers(tensor: Tensor) -> Any:
    """The tensor as a NumPy array; types that NumPy lacks become fp32, which holds their values exactly."""
    tensor = tensor.detach()
    if tensor.is_floating_point() and tensor.dtype not in (torch.float32, torch.float64):
        tensor = tensor.float()
    return tensor.cpu().numpy()


def rows_of(tensor: Tensor, indices: Any, dim: int = 0) -> Any:
    """The rows (or columns) at ``indices``, as a NumPy array; no more than these leave the device."""
    index = torch.as_tensor(indices, dtype=torch.int64, device=tensor.device)
    if tensor.is_floating_point() and tensor.itemsize == 1:
        return numbers(tensor.view(torch.uint8).index_select(dim, index).view(tensor.dtype))
    return numbers(tensor.index_select(dim, index))
