"""Kernels for frameworks whose calls allocate their results: written once, over the few functions of :class:`Library`.

Gemm, computation, convolution, recurrent and the operator list. Operands are drawn by NumPy, so that the frameworks
are given the same numbers; references are computed from what the framework holds after rounding to its type.
"""

from __future__ import annotations

from pytest_flagperf.operators.problems import Computation
from pytest_flagperf.operators.problems import Convolution
from pytest_flagperf.operators.problems import Gemm
from pytest_flagperf.operators.problems import Operator
from pytest_flagperf.operators.problems import Recurrent
from pytest_flagperf.worker.operators.allocating.base import ArrayKernel
from pytest_flagperf.worker.operators.allocating.base import Library
from pytest_flagperf.worker.operators.allocating.operator_list import OperatorBackward
from pytest_flagperf.worker.operators.allocating.operator_list import OperatorForward
from pytest_flagperf.worker.operators.allocating.products import ConvolutionData
from pytest_flagperf.worker.operators.allocating.products import ConvolutionForward
from pytest_flagperf.worker.operators.allocating.products import ConvolutionWeights
from pytest_flagperf.worker.operators.allocating.products import GemmKernel
from pytest_flagperf.worker.operators.allocating.recurrent import RecurrentData
from pytest_flagperf.worker.operators.allocating.recurrent import RecurrentForward
from pytest_flagperf.worker.operators.allocating.recurrent import RecurrentWeights
from pytest_flagperf.worker.operators.kernel import Kernel
from pytest_flagperf.worker.operators.kernel import Unsupported
from pytest_flagperf.worker.operators.request import Request


def prepare(library: Library, request: Request) -> Kernel:
    """The kernel of the request's family and direction."""
    problem, direction = request.problem, request.direction
    if request.precision in ("int8", "fp8") and not isinstance(problem, Operator):
        raise Unsupported(f"no {problem.family} in {request.precision} is known for this framework")
    if isinstance(problem, (Gemm, Computation)):
        return GemmKernel(library, request)
    kinds: dict[str, type[ArrayKernel]]
    if isinstance(problem, Convolution):
        kinds = {"fwd": ConvolutionForward, "bwd_data": ConvolutionData, "bwd_weights": ConvolutionWeights}
    elif isinstance(problem, Recurrent):
        kinds = {"fwd": RecurrentForward, "bwd_data": RecurrentData, "bwd_weights": RecurrentWeights}
    elif isinstance(problem, Operator):
        if direction == "fwd" and problem.name in library.refused:
            raise Unsupported(library.refused[problem.name])
        if problem.name not in library.operators:
            raise Unsupported(f"no call of this framework is known for the operator {problem.name}")
        kinds = {"fwd": OperatorForward, "bwd": OperatorBackward}
    else:
        raise Unsupported(f"{problem.family} problems are measured with PyTorch only")
    return kinds[direction](library, request)
