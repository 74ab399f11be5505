"""Recurrent layers; see ``pytorch.recurrent`` for the equations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from pytest_flagperf.operators.problems import Recurrent
from pytest_flagperf.worker.operators import reference
from pytest_flagperf.worker.operators.allocating.base import ArrayKernel
from pytest_flagperf.worker.operators.allocating.base import Library
from pytest_flagperf.worker.operators.correctness import product_bound
from pytest_flagperf.worker.operators.correctness import recurrent_bound
from pytest_flagperf.worker.operators.correctness import recurrent_error
from pytest_flagperf.worker.operators.correctness import relative_error
from pytest_flagperf.worker.operators.kernel import Check
from pytest_flagperf.worker.operators.request import Request


class RecurrentKernel(ArrayKernel):
    """The recurrence, written out in the framework's operators."""

    def __init__(self, library: Library, request: Request) -> None:
        super().__init__(library, request)
        problem = request.problem
        assert isinstance(problem, Recurrent)
        self.cell, self.gates = problem.cell, problem.gates
        self.hidden, self.batch, self.steps = problem.hidden, problem.batch, problem.timesteps

    def prepare_forward(self) -> None:
        """Operands of the forward pass."""
        hidden, batch, steps = self.hidden, self.batch, self.steps
        self.weights = self.draw("weights", self.gates * hidden, hidden, scale=math.sqrt(3 / hidden))
        self.inputs = [*self.draw("x", steps, batch, self.gates * hidden)]
        self.first = self.draw("first_state", batch, hidden)
        self.first_cell = self.draw("first_cell", batch, hidden) if self.cell == "lstm" else None
        self.notes.append("step by step, W x given; sampled sequences and units are checked at every step")

    def forward(self) -> tuple[list[Any], list[Any]]:
        """States after each step, and what each step saved for the backward pass."""
        lib, h, c = self.library, self.first, self.first_cell
        states: list[Any] = []
        saved: list[tuple[Any, ...]] = []
        for x in self.inputs:
            u = lib.matmul(h, self.weights, transpose_right=True)
            before = h
            if self.cell == "vanilla":
                h = lib.relu(x + u)
                saved.append((before,))
            elif self.cell == "lstm":
                i, f, o, g = lib.split(x + u, 4)
                i, f, o, g = lib.sigmoid(i), lib.sigmoid(f), lib.sigmoid(o), lib.tanh(g)
                c_before, c = c, f * c + i * g
                tanh_c = lib.tanh(c)
                h = o * tanh_c
                saved.append((i, f, o, g, c_before, tanh_c))
            else:
                (x_r, x_z, x_n), (u_r, u_z, u_n) = lib.split(x, 3), lib.split(u, 3)
                r, z = lib.sigmoid(x_r + u_r), lib.sigmoid(x_z + u_z)
                n = lib.tanh(x_n + r * u_n)
                h = n + z * (before - n)
                saved.append((r, z, n, u_n, before))
            states.append(h)
        return states, saved

    def sample(self) -> tuple[Any, Any]:
        """Sequences of the batch, and hidden units."""
        return (
            reference.sampled(self.batch, reference.SEQUENCES, self.seed),
            reference.sampled(self.hidden, reference.UNITS, self.seed),
        )

    def stacked(self, tensors: Sequence[Any], sequences: Any) -> Any:
        """The sampled sequences of one tensor a step: (t, sequences, ...)."""
        return np.stack([self.library.numbers(tensor)[sequences] for tensor in tensors])

    def expected_gates(self, states: Sequence[Any], sequences: Any, units: Any) -> dict[str, Any]:
        """The reference, each step from the state that the kernel had before it."""
        before = self.stacked([self.first, *states[:-1]], sequences)
        columns = self.columns(units)
        x = self.arrays["x"][:, sequences][:, :, columns]
        x = x.reshape(self.steps, len(sequences), self.gates, len(units))
        weights = self.arrays["weights"][columns].reshape(self.gates, len(units), self.hidden)
        cell = self.arrays["first_cell"][sequences][:, units] if self.cell == "lstm" else None
        return reference.recurrent_gates(self.cell, x, before, weights, units, cell)

    def columns(self, units: Any) -> Any:
        """Where the gates of the sampled units are."""
        return np.concatenate([gate * self.hidden + units for gate in range(self.gates)])

    def bound(self, backward: bool = False) -> float:
        """A product and the roundings of the gates after it."""
        length = self.gates * self.hidden if backward else self.hidden
        return recurrent_bound(self.cell, self.request.precision, length, backward)


class RecurrentForward(RecurrentKernel):
    """All states, from the first and the inputs."""

    def __init__(self, library: Library, request: Request) -> None:
        super().__init__(library, request)
        self.prepare_forward()
        self.states: list[Any] = []

    def poison(self) -> None:
        """Forget the states."""
        self.states = []

    def run(self) -> None:
        """The forward recurrence; what it saves is let go of."""
        self.states, _ = self.forward()

    def check(self) -> Check:
        """Every state of the sampled units."""
        sequences, units = self.sample()
        if len(self.states) != self.steps:
            return Check(math.inf, self.bound())
        found = self.stacked(self.states, sequences)
        if not np.isfinite(found).all():
            return Check(math.nan, self.bound())
        expected = self.expected_gates(self.states, sequences, units)["h"]
        return Check(recurrent_error(found[:, :, units], expected), self.bound())


class RecurrentData(RecurrentKernel):
    """The chain back in time."""

    def __init__(self, library: Library, request: Request) -> None:
        super().__init__(library, request)
        self.prepare_forward()
        self.states, self.saved = self.forward()
        self.given = [*self.draw("dh", self.steps, self.batch, self.hidden)]
        if self.cell == "vanilla":
            # The derivative of the ReLU, saved as the forward pass would: one where the state is positive.
            positive = [(library.numbers(state) > 0).astype(np.float32) for state in self.states]
            self.saved = [(library.tensor(each, request.precision),) for each in positive]
        self.gradients: list[Any] = []
        self.first_gradient: Any = None

    def poison(self) -> None:
        """Forget the gradients."""
        self.gradients, self.first_gradient = [], None

    def run(self) -> None:
        """The backward-data recurrence."""
        lib, carry, back = self.library, None, None
        gradients = []
        for t in reversed(range(self.steps)):
            dh = self.given[t]
            if back is not None:
                dh = dh + lib.matmul(back, self.weights)
            if self.cell == "vanilla":
                back = dh * self.saved[t][0]
            elif self.cell == "lstm":
                i, f, o, g, c_before, tanh_c = self.saved[t]
                dc = dh * o * (1 - tanh_c * tanh_c)
                if carry is not None:
                    dc = dc + carry
                back = lib.concatenate(
                    [
                        dc * g * i * (1 - i),
                        dc * c_before * f * (1 - f),
                        dh * tanh_c * o * (1 - o),
                        dc * i * (1 - g * g),
                    ]
                )
                carry = dc * f
            else:
                r, z, n, u_n, before = self.saved[t]
                if carry is not None:
                    dh = dh + carry
                dn = dh * (1 - z) * (1 - n * n)
                back = lib.concatenate([dn * u_n * r * (1 - r), dh * (before - n) * z * (1 - z), dn * r])
                carry = dh * z
            gradients.append(back)
        first = lib.matmul(back, self.weights)
        self.first_gradient = first + carry if self.cell == "gru" else first
        self.gradients = gradients[::-1]

    def check(self) -> Check:
        """The gates' gradients of the sampled units at every step."""
        bound = self.bound(backward=True)
        sequences, units = self.sample()
        if len(self.gradients) != self.steps:
            return Check(math.inf, bound)
        found = self.stacked(self.gradients, sequences)
        if not np.isfinite(found).all():
            return Check(math.nan, bound)
        through = found.astype(np.float64) @ self.arrays["weights"][:, units].astype(np.float64)
        recurrent = np.concatenate([through[1:], np.zeros_like(through[:1])])
        gates = self.expected_gates(self.states, sequences, units)
        if self.cell == "vanilla":
            # Whether a state that is nearly zero was rounded to zero is the forward pass's to say.
            gates["h"] = self.stacked(self.states, sequences)[:, :, units]
        given = self.arrays["dh"][:, sequences][:, :, units]
        expected = reference.recurrent_gradients(self.cell, gates, given, recurrent)
        shape = (self.steps, len(sequences), self.gates, len(units))
        error = recurrent_error(found[:, :, self.columns(units)].reshape(shape), expected)
        if self.cell == "gru":
            return Check(error, bound)
        first = self.library.numbers(self.first_gradient)[sequences][:, units]
        other = relative_error(first, through[0])
        return Check(error if error >= other else other, bound)


class RecurrentWeights(RecurrentKernel):
    """The gradient of U as one accumulated product, on drawn states and gate gradients."""

    def __init__(self, library: Library, request: Request) -> None:
        super().__init__(library, request)
        rows = self.steps * self.batch
        self.before = self.draw("states", rows, self.hidden)
        self.drawn_gradients = self.draw("gate_gradients", rows, self.gates * self.hidden)
        self.notes.append("one product over all time steps; checked at sampled rows and columns")

    def run(self) -> None:
        """The product."""
        self.results["result"] = self.library.matmul(self.drawn_gradients, self.before, transpose_left=True)

    def check(self) -> Check:
        """Sampled rows by sampled columns."""
        length, found = self.steps * self.batch, self.result()
        bound = product_bound(self.request.precision, length)
        if found.shape != (self.gates * self.hidden, self.hidden):
            return Check(math.inf, bound)
        rows = reference.sampled_rows(self.gates * self.hidden, length, self.seed)
        columns = reference.sampled_rows(self.hidden, length, self.seed)
        gradients, before = self.arrays["gate_gradients"], self.arrays["states"]
        expected = self.reference(lambda: reference.product(gradients[:, rows].T, before[:, columns]))
        return Check(relative_error(found[rows][:, columns], expected), bound)
