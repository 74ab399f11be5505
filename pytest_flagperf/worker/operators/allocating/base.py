"""What the kernels ask of a framework, and what they share."""

from __future__ import annotations

import math
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any
from typing import Protocol

import numpy as np

from pytest_flagperf.operators.problems import Operator
from pytest_flagperf.worker.operators.correctness import ACCUMULATE
from pytest_flagperf.worker.operators.kernel import Kernel
from pytest_flagperf.worker.operators.request import Request


Call = Callable[..., Any]


class Library(Protocol):
    """What the kernels ask of a framework. Tensors support ``+ - *`` and slicing."""

    #: Operators of the list: operands, and the other arguments by name, give the result or results.
    operators: Mapping[str, Callable[[Sequence[Any], Mapping[str, Any]], Any]]
    #: Those whose forward call would be timed together with something that is not the operator: why.
    refused: Mapping[str, str]
    #: The type of the labels of a loss: another one would be converted within the call.
    labels: str

    def tensor(self, array: Any, dtype: str) -> Any:
        """``array`` on the device, in ``fp32``, ``bf16``, ``int64`` ... Raises :class:`Unsupported`."""

    def numbers(self, tensor: Any) -> Any:
        """The tensor as a NumPy array; what NumPy lacks becomes fp32."""

    def dtype_name(self, tensor: Any) -> str:
        """The tensor's type, in the framework's words."""

    def matmul(self, left: Any, right: Any, transpose_left: bool = False, transpose_right: bool = False) -> Any:
        """A matrix product, of operands that are stored transposed or not."""

    def convolution(self, x: Any, filters: Any, stride: Any, padding: Any) -> Any:
        """The forward convolution; NCHW."""

    def convolution_gradient(self, which: str, dy: Any, x: Any, filters: Any, stride: Any, padding: Any) -> Call:
        """A call that gives one gradient, of ``x`` or of ``filters``, and no other."""

    def gradient(self, problem: Operator, call: Callable[[Any], Any], x: Any, dy: Any) -> tuple[Any, Call]:
        """The result of ``call(x)``, and a call that gives the gradient of ``x`` for the result's gradient ``dy``.

        Raises :class:`Unsupported` where the framework cannot give it without the forward pass.
        """

    def sigmoid(self, x: Any) -> Any:
        """The logistic function."""

    def tanh(self, x: Any) -> Any:
        """The hyperbolic tangent."""

    def relu(self, x: Any) -> Any:
        """The positive part."""

    def split(self, x: Any, parts: int) -> Sequence[Any]:
        """Equal parts along the last dimension."""

    def concatenate(self, parts: Sequence[Any]) -> Any:
        """Joined along the last dimension."""

    def in_force(self, precision: str) -> dict[str, Any]:
        """What is in force, read back."""


class ArrayKernel(Kernel):
    """A kernel whose call leaves its results in ``results``."""

    def __init__(self, library: Library, request: Request) -> None:
        super().__init__()
        self.library, self.request, self.seed = library, request, request.seed
        self.operands: dict[str, Any] = {}
        self.arrays: dict[str, Any] = {}
        self.results: dict[str, Any] = {}
        self._reference: Any = None
        self.notes.append("each call allocates its result")

    def draw(self, name: str, *shape: int, scale: float = 1.0) -> Any:
        """A drawn operand: uniform in [-scale, scale)."""
        random = np.random.default_rng([self.seed, len(self.operands)])
        array = random.random(shape, dtype=np.float32)
        array *= 2 * scale
        array -= scale
        return self.take(name, array, self.request.precision)

    def take(self, name: str, array: Any, dtype: str) -> Any:
        """An operand as it is given. What is compared with is what the framework made of it."""
        tensor = self.library.tensor(array, dtype)
        self.operands[name] = tensor
        self.arrays[name] = array if dtype in ("fp32", "tf32") else self.library.numbers(tensor)
        return tensor

    def poison(self) -> None:
        """Forget every result: the next call makes them anew."""
        self.results.clear()

    def result(self, name: str = "result") -> Any:
        """A result of the last call as an array; a NaN where it left none."""
        return self.library.numbers(self.results[name]) if name in self.results else np.float32(math.nan)

    def reference(self, compute: Callable[[], Any]) -> Any:
        """The reference, computed when it is first asked for."""
        if self._reference is None:
            self._reference = compute()
        return self._reference

    def drawn(self) -> Mapping[str, Any]:
        """See :class:`~pytest_flagperf.worker.operators.kernel.Kernel`."""
        return self.arrays

    def precision(self) -> dict[str, Any]:
        """See :class:`~pytest_flagperf.worker.operators.kernel.Kernel`."""
        state = self.library.in_force(self.request.precision)
        state["accumulate"] = ACCUMULATE.get(self.request.precision, "int32")
        for name, tensor in {**self.operands, **self.results}.items():
            state[name] = self.library.dtype_name(tensor)
        return state
