"""Recurrent layers: the recurrence alone, with the input's product ``W x_t`` given, as DeepBench counts it.

PyTorch's own layers multiply the input too, which doubles the counted work, so the recurrence is written out, a step at
a time, into tensors that are allocated beforehand. No bias, one layer, one direction in time.

* vanilla: ``h = relu(x + h U')``.
* lstm: gates in the order i, f, o, g; ``c = f c + i g``, ``h = o tanh(c)``.
* gru: gates in the order r, z, n; reset after the product: ``n = tanh(x_n + r (h U_n'))``, ``h = n + z (h - n)``.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pytest_flagperf.operators.problems import Recurrent
from pytest_flagperf.worker.operators import reference
from pytest_flagperf.worker.operators.correctness import product_bound
from pytest_flagperf.worker.operators.correctness import recurrent_bound
from pytest_flagperf.worker.operators.correctness import recurrent_error
from pytest_flagperf.worker.operators.correctness import relative_error
from pytest_flagperf.worker.operators.kernel import Check
from pytest_flagperf.worker.operators.kernel import Kernel
from pytest_flagperf.worker.operators.kernel import Unsupported
from pytest_flagperf.worker.operators.pytorch.tensors import TensorKernel
from pytest_flagperf.worker.operators.pytorch.tensors import numbers
from pytest_flagperf.worker.operators.pytorch.tensors import rows_of


if TYPE_CHECKING:
    from pytest_flagperf.worker.operators.pytorch.framework import Framework
    from pytest_flagperf.worker.operators.request import Request


sigmoid_backward = torch.ops.aten.sigmoid_backward.grad_input
tanh_backward = torch.ops.aten.tanh_backward.grad_input
relu_backward = torch.ops.aten.threshold_backward.grad_input


def prepare(framework: Framework, request: Request) -> Kernel:
    """The kernel of the direction asked for."""
    if request.precision in ("int8", "fp8"):
        raise Unsupported(f"PyTorch has no recurrent layer in {request.precision}")
    assert isinstance(request.problem, Recurrent)
    kinds: dict[str, type[TensorKernel]] = {"fwd": Forward, "bwd_data": BackwardData, "bwd_weights": BackwardWeights}
    return kinds[request.direction](framework, request)


class RecurrentKernel(TensorKernel):
    """Sizes, weights and the forward pass, which the backward one needs too."""

    def __init__(self, framework: Framework, request: Request) -> None:
        super().__init__(framework, request)
        problem = request.problem
        assert isinstance(problem, Recurrent)
        self.cell, self.gates = problem.cell, problem.gates
        self.hidden, self.batch, self.steps = problem.hidden, problem.batch, problem.timesteps

    def prepare_forward(self, save: bool) -> None:
        """Operands and results of the forward pass; ``save`` keeps the gates of each step for the backward one."""
        hidden, batch, steps = self.hidden, self.batch, self.steps
        # This variance keeps the state's size over the time steps, for all three cells.
        self.weights = self.draw("weights", self.gates * hidden, hidden, scale=math.sqrt(3 / hidden))
        self.x = self.draw("x", steps, batch, self.gates * hidden)
        self.first = self.draw("first_state", batch, hidden)
        self.h = self.empty("h", steps, batch, hidden)
        self.states = [self.first, *self.h.unbind()]
        self.inputs = list(self.x.unbind())
        self.transposed = self.weights.t()
        kept = steps if save else 1
        if self.cell != "vanilla":
            self.pre = self._steps(self.empty("gates", kept, batch, self.gates * hidden))
        if self.cell == "lstm":
            self.first_cell = self.draw("first_cell", batch, hidden)
            self.c = [self.first_cell, *self._steps(self.empty("c", kept, batch, hidden))]
            self.tanh_c = self._steps(self.empty("tanh_c", kept, batch, hidden))
            self.parts = [gates.split(hidden, dim=1) for gates in self.pre]
            self.together = [(gates[:, : 3 * hidden], gates[:, 3 * hidden :]) for gates in self.pre]
        elif self.cell == "gru":
            self.product = self._steps(self.empty("product", kept, batch, 3 * hidden))
            self.parts = [gates.split(hidden, dim=1) for gates in self.pre]
            self.split_inputs = [(x[:, : 2 * hidden], x[:, 2 * hidden :]) for x in self.inputs]
            self.split_products = [(u[:, : 2 * hidden], u[:, 2 * hidden :]) for u in self.product]
            self.both = [gates[:, : 2 * hidden] for gates in self.pre]

    def _steps(self, tensor: Tensor) -> list[Tensor]:
        """One view a time step; the same for all where only one is kept."""
        return list(tensor.unbind()) if len(tensor) == self.steps else [tensor[0]] * self.steps

    def forward(self) -> None:
        """The recurrence over all time steps."""
        getattr(self, f"_{self.cell}")()

    def _vanilla(self) -> None:
        transposed, states = self.transposed, self.states
        for t, x in enumerate(self.inputs):
            torch.addmm(x, states[t], transposed, out=states[t + 1]).relu_()

    def _lstm(self) -> None:
        transposed, states, c = self.transposed, self.states, self.c
        for t, x in enumerate(self.inputs):
            torch.addmm(x, states[t], transposed, out=self.pre[t])
            logistic, candidate = self.together[t]
            logistic.sigmoid_()
            candidate.tanh_()
            i, f, o, g = self.parts[t]
            torch.mul(f, c[t], out=c[t + 1]).addcmul_(i, g)
            torch.tanh(c[t + 1], out=self.tanh_c[t])
            torch.mul(o, self.tanh_c[t], out=states[t + 1])

    def _gru(self) -> None:
        transposed, states = self.transposed, self.states
        for t in range(self.steps):
            torch.mm(states[t], transposed, out=self.product[t])
            x_both, x_candidate = self.split_inputs[t]
            u_both, u_candidate = self.split_products[t]
            torch.add(x_both, u_both, out=self.both[t]).sigmoid_()
            r, z, n = self.parts[t]
            torch.addcmul(x_candidate, r, u_candidate, out=n).tanh_()
            torch.lerp(n, states[t], z, out=states[t + 1])

    # --- the reference of the sampled sequences and units

    def sample(self) -> tuple[Any, Any]:
        """Sequences of the batch, and hidden units."""
        return (
            reference.sampled(self.batch, reference.SEQUENCES, self.seed),
            reference.sampled(self.hidden, reference.UNITS, self.seed),
        )

    def expected_gates(self, sequences: Any, units: Any) -> dict[str, Any]:
        """Gates and states of the sample, each step from the state that the kernel had before it."""
        columns = self.columns(units)
        first = numbers(self.first)[sequences][None]
        before = np.concatenate([first, rows_of(self.h, sequences, dim=1)[:-1]])
        x = rows_of(self.x[:, torch.as_tensor(sequences, device=self.device)], columns, dim=2)
        weights = rows_of(self.weights, columns).reshape(self.gates, len(units), self.hidden)
        cell = numbers(self.first_cell)[sequences][:, units] if self.cell == "lstm" else None
        x = x.reshape(self.steps, len(sequences), self.gates, len(units))
        return reference.recurrent_gates(self.cell, x, before, weights, units, cell)

    def columns(self, units: Any) -> Any:
        """Where the gates of the sampled units are, gate by gate."""
        return np.concatenate([gate * self.hidden + units for gate in range(self.gates)])

    def bound(self, backward: bool = False) -> float:
        """A product and the roundings of the gates after it."""
        length = self.gates * self.hidden if backward else self.hidden
        return recurrent_bound(self.cell, self.request.precision, length, backward)


class Forward(RecurrentKernel):
    """All states, from the first and the inputs."""

    def __init__(self, framework: Framework, request: Request) -> None:
        super().__init__(framework, request)
        trained = request.problem.directions != ("fwd",)
        self.prepare_forward(save=trained)
        self.notes.append(
            f"step by step, W x given, {'gates saved for the backward pass' if trained else 'nothing saved'}; "
            "sampled sequences and units are checked at every step"
        )

    def run(self) -> None:
        """The forward recurrence."""
        self.forward()

    def check(self) -> Check:
        """Every state of the sampled units."""
        sequences, units = self.sample()
        found = rows_of(self.h, sequences, dim=1)
        bound = self.bound()
        if not np.isfinite(found).all():
            return Check(math.nan, bound)
        expected = self.expected_gates(sequences, units)["h"]
        return Check(recurrent_error(found[:, :, units], expected), bound)


class BackwardData(RecurrentKernel):
    """The chain back in time: gradients of all gates and of the first state, from those of the outputs."""

    def __init__(self, framework: Framework, request: Request) -> None:
        super().__init__(framework, request)
        self.prepare_forward(save=True)
        self.forward()
        # What the forward pass has left behind is an operand now, and not to be poisoned.
        self.outputs.clear()
        hidden, batch, steps = self.hidden, self.batch, self.steps
        self.given = self.draw("dh", steps, batch, hidden)
        self.gradients = self.empty("gate_gradients", steps, batch, self.gates * hidden)
        self.first_gradient = self.empty("first_state_gradient", batch, hidden)
        self.back = list(self.gradients.unbind())
        self.back_parts = [gradient.split(hidden, dim=1) for gradient in self.back]
        self.outer = list(self.given.unbind())
        self.dh, self.carry, self.scratch, self.other = (torch.empty_like(self.first) for _ in range(4))
        if self.cell == "gru":
            # The input's part of the candidate has a gradient of its own: the reset gate stands between the two.
            self.candidates = list(self.empty("candidate_gradients", steps, batch, hidden).unbind())
            self.u_candidate = [u for _, u in self.split_products]
        self.notes.append(
            "step by step, after a forward pass that saved its gates; sampled sequences and units are checked at every "
            "step"
        )

    def run(self) -> None:
        """The backward-data recurrence."""
        getattr(self, f"_{self.cell}_back")()

    def _vanilla_back(self) -> None:
        weights, dh = self.weights, self.outer[-1]
        for t in reversed(range(self.steps)):
            if t + 1 < self.steps:
                dh = torch.addmm(self.outer[t], self.back[t + 1], weights, out=self.dh)
            relu_backward(dh, self.states[t + 1], 0, grad_input=self.back[t])
        torch.mm(self.back[0], weights, out=self.first_gradient)

    def _lstm_back(self) -> None:
        weights, dh, dc, scratch, other = self.weights, self.outer[-1], self.carry, self.scratch, self.other
        dc.zero_()
        for t in reversed(range(self.steps)):
            if t + 1 < self.steps:
                dh = torch.addmm(self.outer[t], self.back[t + 1], weights, out=self.dh)
            i, f, o, g = self.parts[t]
            di, df, do, dg = self.back_parts[t]
            tanh_c = self.tanh_c[t]
            torch.mul(dh, o, out=scratch)
            dc.add_(tanh_backward(scratch, tanh_c, grad_input=other))
            sigmoid_backward(torch.mul(dh, tanh_c, out=scratch), o, grad_input=do)
            sigmoid_backward(torch.mul(dc, g, out=scratch), i, grad_input=di)
            sigmoid_backward(torch.mul(dc, self.c[t], out=scratch), f, grad_input=df)
            tanh_backward(torch.mul(dc, i, out=scratch), g, grad_input=dg)
            dc.mul_(f)
        torch.mm(self.back[0], weights, out=self.first_gradient)

    def _gru_back(self) -> None:
        weights, dh, carry, scratch = self.weights, self.outer[-1], self.carry, self.scratch
        for t in reversed(range(self.steps)):
            if t + 1 < self.steps:
                dh = torch.addmm(self.outer[t], self.back[t + 1], weights, out=self.dh).add_(carry)
            r, z, n = self.parts[t]
            dr, dz, dn = self.back_parts[t]
            candidate = self.candidates[t]
            torch.mul(dh, z, out=carry)
            tanh_backward(torch.sub(dh, carry, out=scratch), n, grad_input=candidate)
            torch.mul(candidate, r, out=dn)
            sigmoid_backward(torch.mul(candidate, self.u_candidate[t], out=scratch), r, grad_input=dr)
            torch.sub(self.states[t], n, out=scratch).mul_(dh)
            sigmoid_backward(scratch, z, grad_input=dz)
        torch.addmm(carry, self.back[0], weights, out=self.first_gradient)

    def check(self) -> Check:
        """The gates' gradients of the sampled units at every step, and what reaches the first state."""
        sequences, units = self.sample()
        columns = self.columns(units)
        found = rows_of(self.gradients, sequences, dim=1)
        bound = self.bound(backward=True)
        if not np.isfinite(found).all():
            return Check(math.nan, bound)
        weights = rows_of(self.weights, units, dim=1).astype(np.float64)
        through = found.astype(np.float64) @ weights
        recurrent = np.concatenate([through[1:], np.zeros_like(through[:1])])
        gates = self.expected_gates(sequences, units)
        if self.cell == "vanilla":
            # Whether a state that is nearly zero was rounded to zero is the forward pass's to say.
            gates["h"] = rows_of(self.h, sequences, dim=1)[:, :, units]
        given = rows_of(self.given, sequences, dim=1)[:, :, units]
        expected = reference.recurrent_gradients(self.cell, gates, given, recurrent)
        shape = (self.steps, len(sequences), self.gates, len(units))
        error = recurrent_error(found[:, :, columns].reshape(shape), expected)
        first = relative_error(rows_of(self.first_gradient, sequences)[:, units], self._first(gates, given, through))
        return Check(error if error >= first else first, bound)

    def _first(self, gates: dict[str, Any], given: Any, through: Any) -> Any:
        """What reaches the first state: through the product, and in a GRU past the gates as well."""
        if self.cell != "gru":
            return through[0]
        carry = np.zeros_like(through[0])
        for t in reversed(range(self.steps)):
            arriving = given[t] + carry + (through[t + 1] if t + 1 < self.steps else 0.0)
            carry = arriving * gates["z"][t]
        return through[0] + carry


class BackwardWeights(RecurrentKernel):
    """The gradient of U over all time steps as one accumulated product, on drawn states and gate gradients."""

    def __init__(self, framework: Framework, request: Request) -> None:
        super().__init__(framework, request)
        rows = self.steps * self.batch
        self.before = self.draw("states", rows, self.hidden)
        self.gradients = self.draw("gate_gradients", rows, self.gates * self.hidden)
        self.left = self.gradients.t()
        self.result = self.empty("weight_gradient", self.gates * self.hidden, self.hidden)
        self.notes.append("one product over all time steps; checked at sampled rows and columns")

    def run(self) -> None:
        """The product."""
        torch.mm(self.left, self.before, out=self.result)

    def check(self) -> Check:
        """Sampled rows by sampled columns."""
        length = self.steps * self.batch
        rows = reference.sampled_rows(self.gates * self.hidden, length, self.seed)
        columns = reference.sampled_rows(self.hidden, length, self.seed)
        expected = reference.product(rows_of(self.left, rows), rows_of(self.before, columns, dim=1))
        found = rows_of(self.result, rows)[:, columns]
        return Check(relative_error(found, expected), product_bound(self.request.precision, length))
