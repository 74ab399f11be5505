"""FlagPerf's operators."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from pytest_flagperf.operators.problems import Operator
from pytest_flagperf.worker.operators import data
from pytest_flagperf.worker.operators import operator_reference
from pytest_flagperf.worker.operators import reductions
from pytest_flagperf.worker.operators import reference
from pytest_flagperf.worker.operators.allocating.base import ArrayKernel
from pytest_flagperf.worker.operators.allocating.base import Library
from pytest_flagperf.worker.operators.correctness import SMALLEST_NORMAL
from pytest_flagperf.worker.operators.kernel import Check
from pytest_flagperf.worker.operators.request import Request


COMPARISONS = ("eq", "ne", "ge", "gt", "le", "lt")
# Of a product's operands, how many are neither 1 nor -1: as many twos as halves.
FACTORS = 15


class OperatorKernel(ArrayKernel):
    """Operands ``in0`` ..., drawn as :mod:`pytest_flagperf.worker.operators.pytorch.operator_list` draws them."""

    def __init__(self, library: Library, request: Request) -> None:
        super().__init__(library, request)
        assert isinstance(request.problem, Operator)
        self.operator, self.given = request.problem, dict(request.problem.arguments)
        kinds = self.operator.input_dtypes or ("same",) * len(self.operator.inputs)
        self.inputs = [
            self.take(f"in{i}", self._array(i, shape), self._dtype(i, kind))
            for i, (shape, kind) in enumerate(zip(self.operator.inputs, kinds, strict=True))
        ]
        self.call = library.operators[self.operator.name]
        self.tried = reductions.Tried()
        self.notes.append("checked at sampled elements, rows or images")

    def _dtype(self, number: int, kind: str) -> str:
        if self.operator.name == "cross_entropy_loss" and number == 1:
            if self.library.labels != kind:
                self.notes.append(f"labels are {self.library.labels}, as the framework has them, and not {kind}")
            return self.library.labels
        return self.request.precision if kind == "same" else kind

    def _array(self, number: int, shape: tuple[int, ...]) -> Any:
        name, random = self.operator.name, np.random.default_rng([self.seed, number])
        if name == "cross_entropy_loss" and number == 1:
            return random.integers(0, self.operator.inputs[0][1], shape)
        if name.startswith("bitwise"):
            self.distribution = "uniform whole numbers [-127, 127]"
            return random.integers(-127, 128, shape)
        return self._floating(number, random.random(shape, dtype=np.float32) * 2 - 1)

    def _floating(self, number: int, array: Any) -> Any:
        """Uniform data in [-1, 1), made such that the operator has something to decide."""
        name, shape = self.operator.name, array.shape
        if name in data.RANGES:
            self.distribution = f"uniform [-{data.RANGES[name]:g}, {data.RANGES[name]:g})"
            array *= np.float32(data.RANGES[name])
        elif name in ("sum", "mean"):
            self._cancel(array.reshape(-1))
        elif name in ("max", "min"):
            self.distribution = "uniform [-1, 1); one larger element at a time for the check"
        elif name in ("amax", "argmax"):
            places, values = data.extrema(shape, int(self.given["dim"]) % len(shape), self.seed)
            array.reshape(-1)[places] = values
            self.distribution = "uniform [-1, 1); each maximum in [2, 4)"
        elif name in ("reciprocal", "rsqrt"):
            self.distribution = "uniform [0.5, 1.5)"
            array = array / 2 + 1
        elif name == "prod":
            self.distribution = f"1 or -1, and {FACTORS} twos and halves"
            array = np.where(array < 0, np.float32(-1), np.float32(1))
            places = reference.sampled(array.size, 2 * FACTORS, self.seed)
            array.ravel()[places[: len(places) // 2]] = 2.0
            array.ravel()[places[len(places) // 2 :]] = 0.5
        elif name in COMPARISONS and number == 1:
            self.distribution = "uniform [-1, 1); every second pair is equal"
            array[..., ::2] = np.random.default_rng([self.seed, 0]).random(shape, dtype=np.float32)[..., ::2] * 2 - 1
        elif name in ("isinf", "isnan"):
            self.distribution = f"uniform [-1, 1); every third is {'infinite' if name == 'isinf' else 'a NaN'}"
            array[..., ::3] = math.inf if name == "isinf" else math.nan
        return array

    def _cancel(self, flat: Any) -> None:
        """See :class:`~pytest_flagperf.worker.operators.data.Cancelling`."""
        plan = data.cancelling(flat.size, SMALLEST_NORMAL.get(self.request.precision, 0.0), self.seed)
        # Rounded to three digits before it is negated, so that it cancels in every type.
        flat[:] = np.copysign(np.round(np.abs(flat) * 64 + 64) / 128, flat)
        flat[plan.half : 2 * plan.half] = -np.roll(flat[: plan.half], plan.shift)
        flat[plan.ones] = 1.0
        self.distribution = plan.DISTRIBUTION

    def check(self) -> Check:
        """See :mod:`pytest_flagperf.worker.operators.operator_reference`."""
        return operator_reference.judge(self, self.request, self.tried, self._tried)

    def _tried(self, trial: reductions.Trial) -> Any:
        """What the call gives with one element changed. Afterwards all is as it was."""
        kept, given = dict(self.results), self.inputs[0]
        array = self.arrays["in0"].copy()
        array.reshape(-1)[trial.place] = trial.value
        self.inputs[0] = self.library.tensor(array, self.request.precision)
        self.results.clear()
        try:
            self.run()
            return self.result("out0")
        finally:
            self.results, self.inputs[0] = kept, given

    def array(self, name: str) -> Any:
        """An operand or a result by its name."""
        return self.arrays[name] if name in self.arrays else self.result(name)

    def shape(self, name: str) -> tuple[int, ...]:
        """See :class:`~pytest_flagperf.worker.operators.elements.Tensors`."""
        return tuple(self.array(name).shape)

    def flat(self, name: str, indices: Any) -> Any:
        """See :class:`~pytest_flagperf.worker.operators.elements.Tensors`."""
        return self.array(name).reshape(-1)[indices]

    def rows(self, name: str, indices: Any) -> Any:
        """See :class:`~pytest_flagperf.worker.operators.elements.Tensors`."""
        return self.array(name)[indices]


class OperatorForward(OperatorKernel):
    """The operator itself."""

    def run(self) -> None:
        """The call."""
        result = self.call(self.inputs, self.given)
        for i, part in enumerate(result if isinstance(result, tuple) else (result,)):
            self.results[f"out{i}"] = part


class OperatorBackward(OperatorKernel):
    """The gradient of the first operand alone."""

    def __init__(self, library: Library, request: Request) -> None:
        super().__init__(library, request)
        shape = self.operator.outputs[0]
        gradient = self.draw("gradient", *shape)
        rest = self.inputs[1:]

        def forward(x: Any) -> Any:
            result = self.call([x, *rest], self.given)
            return result[0] if isinstance(result, tuple) else result

        result, self.back = library.gradient(self.operator, forward, self.inputs[0], gradient)
        self.arrays["forward"] = library.numbers(result)
        self.notes.append("the gradient of the first operand alone")

    def run(self) -> None:
        """The backward pass."""
        self.results["out0"] = self.back()

    def drawn(self) -> Mapping[str, Any]:
        """The forward result was not drawn."""
        return {name: array for name, array in self.arrays.items() if name != "forward"}
