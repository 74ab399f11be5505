"""DeepBench's kernels: dense and sparse products, convolutions, recurrent layers and the all-reduce."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar
from typing import Literal

from pytest_flagperf.operators.problems.base import ELEMENT_BYTES
from pytest_flagperf.operators.problems.base import DenseProduct
from pytest_flagperf.operators.problems.base import Problem
from pytest_flagperf.operators.problems.base import has_backward
from pytest_flagperf.operators.problems.base import product_traffic
from pytest_flagperf.operators.problems.base import traffic


GATES = {"vanilla": 1, "lstm": 4, "gru": 3}


@dataclass(frozen=True)
class Gemm(DenseProduct):
    """``C = op(A) · op(B)``: C is m x n, op(A) m x k and op(B) k x n, all **column-major**, as in DeepBench.

    ``a_transposed`` says that A is stored as k x m, ``b_transposed`` that B is stored as n x k. A row-major library
    makes the same call, moving no operand, as ``Cᵀ = op(B)ᵀ · op(A)ᵀ`` on the arrays that `row_major` describes.
    """

    family: ClassVar[str] = "gemm"

    m: int
    n: int
    k: int
    a_transposed: bool = False
    b_transposed: bool = False

    @property
    def layout(self) -> str:
        """``nn``, ``tn``, ``nt`` or ``tt``: A first."""
        return ("t" if self.a_transposed else "n") + ("t" if self.b_transposed else "n")

    @property
    def row_major(self) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
        """The shapes of A, B and C as contiguous row-major arrays of what is stored column by column."""
        a = (self.m, self.k) if self.a_transposed else (self.k, self.m)
        b = (self.k, self.n) if self.b_transposed else (self.n, self.k)
        return a, b, (self.n, self.m)

    @property
    def id(self) -> str:
        return f"m{self.m}-n{self.n}-k{self.k}-{self.layout}"


@dataclass(frozen=True)
class Convolution(Problem):
    """A two-dimensional cross-correlation of n images of c channels, w wide and h high, with k filters.

    Horizontal sizes come first, everywhere. Input (n, c, h, w), filters (k, c, filter_h, filter_w), output
    (n, k, out_h, out_w), as logical shapes; no bias, dilation or groups. Padding counts as work.
    A layer that reads the network's input has no gradient to hand on: no ``bwd_data``.
    """

    family: ClassVar[str] = "conv"
    may_be_zero: ClassVar[tuple[str, ...]] = ("pad_w", "pad_h")

    w: int
    h: int
    c: int
    n: int
    k: int
    filter_w: int
    filter_h: int
    pad_w: int = 0
    pad_h: int = 0
    stride_w: int = 1
    stride_h: int = 1
    network_input: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.out_w < 1 or self.out_h < 1:
            raise ValueError(f"conv: the filter {self.filter_w}x{self.filter_h} is larger than the padded image")

    @property
    def id(self) -> str:
        return (
            f"w{self.w}-h{self.h}-c{self.c}-n{self.n}-k{self.k}-filter{self.filter_w}x{self.filter_h}"
            f"-pad{self.pad_w}x{self.pad_h}-stride{self.stride_w}x{self.stride_h}"
        )

    @property
    def out_w(self) -> int:
        return (self.w + 2 * self.pad_w - self.filter_w) // self.stride_w + 1

    @property
    def out_h(self) -> int:
        return (self.h + 2 * self.pad_h - self.filter_h) // self.stride_h + 1

    @property
    def directions(self) -> tuple[str, ...]:
        if not has_backward(self):
            return ("fwd",)
        return ("fwd", "bwd_weights") if self.network_input else ("fwd", "bwd_data", "bwd_weights")

    def flops(self, direction: str) -> int:
        """The same for each direction: every one is the same set of products, summed over another index."""
        self._check(direction)
        return 2 * self.n * self.k * self.c * self.filter_w * self.filter_h * self.out_w * self.out_h

    def bytes(self, precision: str, direction: str) -> int | None:
        self._check(direction)
        images = self.n * self.c * self.h * self.w
        filters = self.k * self.c * self.filter_h * self.filter_w
        output = self.n * self.k * self.out_h * self.out_w
        result = {"fwd": output, "bwd_data": images, "bwd_weights": filters}[direction]
        return product_traffic(precision, images + filters + output - result, result)


@dataclass(frozen=True)
class Recurrent(Problem):
    """One recurrent layer in one direction: ``h_t = g(x_t + U h_{t-1})`` with ``x_t`` (the input's product) given.

    vanilla: ReLU. lstm: standard gates, no peepholes. gru: the candidate is a tanh and the reset gate is applied after
    the recurrent product, as cuDNN has it. Input size = hidden size; no bias is counted; no dropout.
    """

    family: ClassVar[str] = "rnn"

    cell: Literal["vanilla", "lstm", "gru"]
    hidden: int
    batch: int
    timesteps: int

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.cell not in GATES:
            raise ValueError(f"rnn: unknown cell {self.cell!r}; the cells are {', '.join(GATES)}")

    @property
    def id(self) -> str:
        return f"{self.cell}-h{self.hidden}-n{self.batch}-t{self.timesteps}"

    @property
    def gates(self) -> int:
        return GATES[self.cell]

    @property
    def directions(self) -> tuple[str, ...]:
        return ("fwd", "bwd_data", "bwd_weights") if has_backward(self) else ("fwd",)

    def flops(self, direction: str) -> int:
        """The recurrent products, ``2 G T N H^2`` for each direction; point-wise operations are not counted."""
        self._check(direction)
        return 2 * self.gates * self.timesteps * self.batch * self.hidden**2

    def bytes(self, precision: str, direction: str) -> int | None:
        """fwd: U, x and the first state in, h out. bwd_data: U, dh and the gates in, their gradients out.

        bwd_weights: h and the gates' gradients in, dU out. U counts once, as if it stayed on the chip for all steps.
        """
        self._check(direction)
        if precision not in ELEMENT_BYTES:
            return None
        weights = self.gates * self.hidden**2
        states = self.timesteps * self.batch * self.hidden
        gates = self.gates * states
        first = self.batch * self.hidden * (2 if self.cell == "lstm" else 1)
        elements = {
            "fwd": weights + gates + first + states,
            "bwd_data": weights + states + 2 * gates,
            "bwd_weights": states + gates + weights,
        }[direction]
        return elements * ELEMENT_BYTES[precision]


@dataclass(frozen=True)
class SparseGemm(Problem):
    """``C = A · B`` with A (m x k) in CSR with 32-bit indices, and B (k x n) and C (m x n) dense.

    ``sparsity`` is the fraction of zeros in A, an unstructured pattern.
    """

    family: ClassVar[str] = "sparse"

    m: int
    n: int
    k: int
    sparsity: float

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.sparsity < 1:
            raise ValueError(f"sparse: sparsity is {self.sparsity}; it is the fraction of zeros, in [0, 1)")
        if self.nonzeros < 1:
            raise ValueError(f"sparse: nothing of {self.m}x{self.k} is left at a sparsity of {self.sparsity}")

    @property
    def id(self) -> str:
        return f"m{self.m}-n{self.n}-k{self.k}-s{self.sparsity * 100:g}"

    @property
    def nonzeros(self) -> int:
        """How many entries of A are stored."""
        return round(self.m * self.k * (1 - self.sparsity))

    @property
    def dense_flops(self) -> int:
        return 2 * self.m * self.n * self.k

    def flops(self, direction: str) -> int:
        """``2 nnz n``: what is stored is multiplied, the zeros are not."""
        self._check(direction)
        return 2 * self.nonzeros * self.n

    def longest_flops(self, direction: str) -> int:
        """The dense product beside it."""
        return max(self.flops(direction), self.dense_flops)

    def bytes(self, precision: str, direction: str) -> int | None:
        self._check(direction)
        values = product_traffic(precision, self.nonzeros + self.k * self.n, self.m * self.n)
        indices = 4 * (self.nonzeros + self.m + 1)
        return None if values is None else values + indices


@dataclass(frozen=True)
class AllReduce(Problem):
    """The sum of ``elements`` numbers over all ranks, on every rank. ``world_sizes`` are those of the source."""

    family: ClassVar[str] = "all_reduce"

    elements: int
    world_sizes: tuple[int, ...] = (2,)

    @property
    def id(self) -> str:
        return f"elements{self.elements}"

    def flops(self, direction: str) -> None:
        """None: a collective is judged by its bandwidth."""
        self._check(direction)

    def bytes(self, precision: str, direction: str) -> int | None:
        """The message of one rank: algbw = bytes / time, busbw = algbw · 2 (P - 1) / P over P ranks."""
        self._check(direction)
        return traffic(precision, self.elements)
