"""Two-dimensional convolutions, each direction a call of its own.

PyTorch has no convolution that writes into a given tensor: the allocation of the result is part of the call.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from typing import Any

import torch
from torch import Tensor

from pytest_flagperf.operators.problems import Convolution
from pytest_flagperf.worker.operators import reference
from pytest_flagperf.worker.operators.correctness import TRANSFORMED
from pytest_flagperf.worker.operators.correctness import product_bound
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


def prepare(framework: Framework, request: Request) -> Kernel:
    """The kernel of the direction asked for."""
    if request.precision == "fp8":
        raise Unsupported("PyTorch has no convolution of fp8 operands")
    if request.precision == "int8":
        if request.direction != "fwd":
            raise Unsupported("an int8 convolution has no backward pass")
        return IntegerForward(framework, request)
    kinds: dict[str, type[TensorKernel]] = {"fwd": Forward, "bwd_data": BackwardData, "bwd_weights": BackwardWeights}
    return kinds[request.direction](framework, request)


class ConvolutionKernel(TensorKernel):
    """What the directions share: shapes by name, and which operands there are."""

    allocates = True

    def __init__(self, framework: Framework, request: Request) -> None:
        super().__init__(framework, request)
        assert isinstance(request.problem, Convolution)
        p = request.problem
        self.x_shape = (p.n, p.c, p.h, p.w)
        self.filter_shape = (p.k, p.c, p.filter_h, p.filter_w)
        self.y_shape = (p.n, p.k, p.out_h, p.out_w)
        self.stride, self.padding = (p.stride_h, p.stride_w), (p.pad_h, p.pad_w)
        self.x: Tensor
        self.filters: Tensor
        self.outputs["result"] = None
        self.notes.append("NCHW; the result is allocated by the call; checked at sampled places")

    def draw_image(self) -> Tensor:
        """The input."""
        return self.draw("x", *self.x_shape)

    def draw_filters(self) -> Tensor:
        """The filters."""
        return self.draw("filters", *self.filter_shape)

    def draw_gradient(self) -> Tensor:
        """The gradient of the output."""
        return self.draw("dy", *self.y_shape)

    def backward(self, dy: Tensor, x: Tensor, filters: Tensor, mask: list[bool]) -> Any:
        """One of the gradients, and no other."""
        return torch.ops.aten.convolution_backward(
            dy, x, filters, None, self.stride, self.padding, (1, 1), False, (0, 0), 1, mask
        )

    def bound(self, length: int) -> float:
        """Of sums of ``length`` products, by whatever algorithm."""
        return TRANSFORMED * product_bound(self.request.precision, length)

    def at(self, result: Tensor, places: list[tuple[int, int, int]]) -> Any:
        """All channels of ``result`` at each (image, row, column)."""
        images, rows, columns = (torch.tensor(index, device=self.device) for index in zip(*places, strict=True))
        return numbers(result[images, :, rows, columns])

    def forward_at(self, places: list[tuple[int, int, int]]) -> Any:
        """The forward convolution's reference at each (image, row, column)."""
        images, renumbered = self.compact(self.x, places)
        return reference.convolution_forward(images, numbers(self.filters), self.stride, self.padding, renumbered)

    def compact(self, tensor: Tensor, places: list[tuple[int, int, int]]) -> tuple[Any, list[tuple[int, int, int]]]:
        """Only the images that ``places`` are in, and the places renumbered for them."""
        images = sorted({image for image, _, _ in places})
        renumbered = [(images.index(image), row, column) for image, row, column in places]
        return rows_of(tensor, images), renumbered


class Forward(ConvolutionKernel):
    """``y = conv(x, filters)``."""

    def __init__(self, framework: Framework, request: Request) -> None:
        super().__init__(framework, request)
        self.x, self.filters = self.draw_image(), self.draw_filters()

    def run(self) -> None:
        """The forward convolution."""
        self.outputs["result"] = torch.conv2d(self.x, self.filters, None, self.stride, self.padding)

    def check(self) -> Check:
        """All output channels at sampled output pixels."""
        y = self.output("result")
        length = self.filter_shape[1] * self.filter_shape[2] * self.filter_shape[3]
        if y.shape != self.y_shape:
            return Check(float("inf"), self.bound(length))
        places = reference.pixels(self.y_shape[0], *self.y_shape[2:], seed=self.seed)
        expected = self.reference(lambda: self.forward_at(places))
        return Check(relative_error(self.at(y, places), expected), self.bound(length))


class BackwardData(ConvolutionKernel):
    """The gradient of the input, from that of the output."""

    def __init__(self, framework: Framework, request: Request) -> None:
        super().__init__(framework, request)
        self.filters, self.dy = self.draw_filters(), self.draw_gradient()
        # Its shape is read, its values are not.
        self.x = torch.empty(self.x_shape, dtype=self.dtype, device=self.device)

    def run(self) -> None:
        """The backward-data pass."""
        self.outputs["result"] = self.backward(self.dy, self.x, self.filters, [True, False, False])[0]

    def check(self) -> Check:
        """All input channels at sampled input pixels."""
        dx = self.output("result")
        bound = self.bound(self.filter_shape[0] * self.filter_shape[2] * self.filter_shape[3])
        if dx.shape != self.x_shape:
            return Check(float("inf"), bound)
        places = reference.pixels(self.x_shape[0], *self.x_shape[2:], seed=self.seed)
        expected = self.reference(lambda: self._expected(places))
        return Check(relative_error(self.at(dx, places), expected), bound)

    def _expected(self, places: list[tuple[int, int, int]]) -> Any:
        gradients, renumbered = self.compact(self.dy, places)
        return reference.convolution_backward_data(
            gradients, numbers(self.filters), self.stride, self.padding, renumbered
        )


class BackwardWeights(ConvolutionKernel):
    """The gradient of the filters."""

    def __init__(self, framework: Framework, request: Request) -> None:
        super().__init__(framework, request)
        self.x, self.dy = self.draw_image(), self.draw_gradient()
        self.filters = torch.empty(self.filter_shape, dtype=self.dtype, device=self.device)

    def run(self) -> None:
        """The backward-weights pass."""
        self.outputs["result"] = self.backward(self.dy, self.x, self.filters, [False, True, False])[1]

    def check(self) -> Check:
        """Every tap of sampled pairs of channels."""
        gradient = self.output("result")
        n, k, p, q = self.y_shape
        bound = self.bound(n * p * q)
        if gradient.shape != self.filter_shape:
            return Check(float("inf"), bound)
        taps = self.filter_shape[2] * self.filter_shape[3]
        channels = reference.CHANNELS if n * p * q * taps < 1 << 26 else reference.CHANNELS // 2
        of_output = reference.sampled(k, channels, self.seed)
        of_input = reference.sampled(self.x_shape[1], channels, self.seed)
        expected = self.reference(
            lambda: reference.convolution_backward_weights(
                rows_of(self.dy, of_output, dim=1),
                rows_of(self.x, of_input, dim=1),
                self.filter_shape[2:],
                self.stride,
                self.padding,
            )
        )
        found = rows_of(gradient, of_output)[:, of_input]
        return Check(relative_error(found, expected), bound)


class IntegerForward(ConvolutionKernel):
    """int8 operands, int32 result: the windows are laid out as rows (im2col), then one integer product.

    PyTorch's own convolution of int8 tensors returns int8, which cannot hold a sum of products.
    """

    allocates = False

    def __init__(self, framework: Framework, request: Request) -> None:
        super().__init__(framework, request)
        if not framework.on_host:
            raise Unsupported("PyTorch has no int8 convolution with an int32 result on this device")
        n, c, h, w = self.x_shape
        k, _, r, s = self.filter_shape
        _, _, p, q = self.y_shape
        self.x, self.filters = self.draw_image(), self.draw_filters()
        padded = torch.zeros(n, h + 2 * self.padding[0], w + 2 * self.padding[1], c, dtype=self.dtype)
        padded[:, self.padding[0] : self.padding[0] + h, self.padding[1] : self.padding[1] + w] = self.x.permute(
            0, 2, 3, 1
        )
        image, row, column, channel = padded.stride()
        self.windows = padded.as_strided(
            (n, p, q, r, s, c), (image, row * self.stride[0], column * self.stride[1], row, column, channel)
        )
        self.rows = torch.empty(n, p, q, r, s, c, dtype=self.dtype)
        self.matrix = self.filters.permute(2, 3, 1, 0).reshape(r * s * c, k).contiguous()
        self.outputs.clear()
        self.y = self.empty("result", n * p * q, k, dtype=torch.int32)
        self.notes[:] = [
            "NHWC, zero-padded beforehand; im2col and torch._int_mm, both timed; checked at sampled places"
        ]

    def run(self) -> None:
        """The windows into rows, and their product with the filters."""
        self.rows.copy_(self.windows)
        torch._int_mm(self.rows.view(self.y.shape[0], -1), self.matrix, out=self.y)

    def check(self) -> Check:
        """All output channels at sampled output pixels: exact."""
        n, _, p, q = self.y_shape
        places = reference.pixels(n, p, q, seed=self.seed)
        expected = self.reference(lambda: self.forward_at(places))
        return Check(relative_error(self.at(self.y.view(n, p, q, -1).permute(0, 3, 1, 2), places), expected), 0.0)
