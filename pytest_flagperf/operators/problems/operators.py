"""FlagPerf's operation list: the operators of a framework, one by one."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar
from typing import Literal
from typing import get_args

from pytest_flagperf.operators.problems.base import ELEMENT_BYTES
from pytest_flagperf.operators.problems.base import Problem


Argument = bool | int | float | str
Shape = tuple[int, ...]
FlopsModel = Literal["per_element", "matrix_product", "matrix_product_add", "matrix_vector", "below_diagonal"]
FLOPS_MODELS: tuple[str, ...] = get_args(FlopsModel)


@dataclass(frozen=True)
class Operator(Problem):
    """One operator of FlagPerf's operation list, by its name in PyTorch's aten.

    ``inputs`` and ``outputs`` are shapes in the order of the call; ``input_dtypes`` and ``output_dtypes`` say ``same``
    (the element type being measured) or a fixed one. ``dtypes`` are the element types measured; ``arguments`` the rest
    of the call. ``flops_model``: see `flops`.
    """

    family: ClassVar[str] = "operator"

    name: str
    inputs: tuple[Shape, ...]
    outputs: tuple[Shape, ...]
    dtypes: tuple[str, ...]
    flops_model: FlopsModel
    flops_per_element: int = 1
    backward: bool = False
    input_dtypes: tuple[str, ...] = ()
    output_dtypes: tuple[str, ...] = ()
    arguments: tuple[tuple[str, Argument], ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        for what, shapes, dtypes in (
            ("inputs", self.inputs, self.input_dtypes),
            ("outputs", self.outputs, self.output_dtypes),
        ):
            if not shapes or any(size < 1 for shape in shapes for size in shape):
                raise ValueError(f"{self.name}: {what} are {shapes}; one shape at least, of sizes of at least 1")
            if dtypes and len(dtypes) != len(shapes):
                raise ValueError(f"{self.name}: {len(shapes)} {what} and {len(dtypes)} dtypes for them")
        if unknown := {*self.dtypes, *self.input_dtypes, *self.output_dtypes} - {*ELEMENT_BYTES, "same"}:
            raise ValueError(f"{self.name}: unknown element types {sorted(unknown)}")
        if self.flops_model not in FLOPS_MODELS:
            raise ValueError(f"{self.name}: unknown flops_model {self.flops_model!r}; it is {', '.join(FLOPS_MODELS)}")

    @property
    def id(self) -> str:
        shapes = [shape_in_words(shape) for shape in self.inputs]
        same = len({*self.inputs, *self.outputs}) == 1
        return "-".join([self.name, *(shapes[:1] if same else shapes)])

    @property
    def elements(self) -> int:
        """What the per-element counts multiply: the largest of the tensors."""
        return max(math.prod(shape) for shape in (*self.inputs, *self.outputs))

    @property
    def directions(self) -> tuple[str, ...]:
        return ("fwd", "bwd") if self.backward else ("fwd",)

    def flops(self, direction: str) -> int:
        """FlagPerf's models, for one call.

        per_element: a fixed number for each element. matrix_product: 2 M N K (for each of a batch);
        matrix_product_add: and 3 M N. matrix_vector: M N + M (N - 1). below_diagonal: N (N - 1) / 2, what triu clears.
        ``bwd`` is the gradient alone and counts twice the forward: FlagPerf's factor 3 was for both.
        """
        self._check(direction)
        return self._forward_flops() * (2 if direction == "bwd" else 1)

    def bytes(self, precision: str, direction: str) -> int | None:
        """fwd: all inputs and outputs. bwd: the outputs' gradients and what was saved in, the inputs' gradients out."""
        self._check(direction)
        if precision not in ELEMENT_BYTES:
            return None
        inputs = _tensors(self.inputs, self.input_dtypes, precision)
        outputs = _tensors(self.outputs, self.output_dtypes, precision)
        if direction == "fwd":
            return sum(size for _, size in inputs + outputs)
        masks = [size for kind, size in outputs if kind == "bool"]
        saved = sum(masks) if masks else sum(size for _, size in inputs)
        return saved + sum(size for kind, size in inputs + outputs if kind == "same")

    def _forward_flops(self) -> int:
        if self.flops_model == "per_element":
            return self.flops_per_element * self.elements
        output = math.prod(self.outputs[0])
        if self.flops_model == "matrix_product":
            return 2 * output * self.inputs[0][-1]
        if self.flops_model == "matrix_product_add":
            return 2 * output * self.inputs[1][-1] + 3 * output
        if self.flops_model == "matrix_vector":
            rows, columns = self.inputs[0]
            return rows * columns + rows * (columns - 1)
        size = self.inputs[0][0]
        return size * (size - 1) // 2


def _tensors(shapes: tuple[Shape, ...], dtypes: tuple[str, ...], precision: str) -> list[tuple[str, int]]:
    """(declared dtype, bytes) of each tensor; where no dtypes are declared all are ``same``."""
    kinds = dtypes or ("same",) * len(shapes)
    return [
        (kind, math.prod(shape) * ELEMENT_BYTES[precision if kind == "same" else kind])
        for shape, kind in zip(shapes, kinds, strict=True)
    ]


def shape_in_words(shape: Shape) -> str:
    return "x".join(map(str, shape)) or "scalar"
