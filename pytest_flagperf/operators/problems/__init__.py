"""What is measured: one frozen class for each family of problem, with its sizes, its work and its traffic.

The standard library only: pytest and the worker both import it, and the worker may be another interpreter.

Two counts belong to a problem and not to whoever runs it:

* ``flops(direction)``: the operations of the mathematical definition. An algorithm that needs fewer (Winograd, FFT)
  does the same work faster. Point-wise operations beside a product are not counted.
* ``bytes(precision, direction)``: the traffic no implementation avoids: each operand read once, each result written
  once. int8 products are written as int32 and fp8 products as bf16.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from pytest_flagperf.operators.problems.base import ELEMENT_BYTES as ELEMENT_BYTES
from pytest_flagperf.operators.problems.base import PRODUCT_BYTES as PRODUCT_BYTES
from pytest_flagperf.operators.problems.base import Problem as Problem
from pytest_flagperf.operators.problems.hardware import Computation as Computation
from pytest_flagperf.operators.problems.hardware import Interconnect as Interconnect
from pytest_flagperf.operators.problems.hardware import Memory as Memory
from pytest_flagperf.operators.problems.kernels import GATES as GATES
from pytest_flagperf.operators.problems.kernels import AllReduce as AllReduce
from pytest_flagperf.operators.problems.kernels import Convolution as Convolution
from pytest_flagperf.operators.problems.kernels import Gemm as Gemm
from pytest_flagperf.operators.problems.kernels import Recurrent as Recurrent
from pytest_flagperf.operators.problems.kernels import SparseGemm as SparseGemm
from pytest_flagperf.operators.problems.operators import Operator as Operator


FAMILIES: dict[str, type[Problem]] = {
    kind.family: kind
    for kind in (
        Gemm,
        Convolution,
        Recurrent,
        SparseGemm,
        AllReduce,
        Memory,
        Interconnect,
        Computation,
        Operator,
    )
}


def to_json(problem: Problem) -> dict[str, Any]:
    """The problem as plain JSON values, with its ``family``; what is empty is left out."""
    fields = {field.name: getattr(problem, field.name) for field in dataclasses.fields(problem)}
    return {
        "family": problem.family,
        **{name: _plain(value) for name, value in fields.items() if value not in ((), "")},
    }


def from_json(given: dict[str, Any]) -> Problem:
    """The inverse of `to_json`. ValueError: an unknown family, a field too many, or one missing."""
    family = given.get("family")
    if family not in FAMILIES:
        raise ValueError(f"unknown family {family!r}; the families are {', '.join(FAMILIES)}")
    kind = FAMILIES[family]
    fields = dataclasses.fields(kind)
    known = {field.name for field in fields}
    needed = {field.name for field in fields if field.default is dataclasses.MISSING}
    values = {name: _frozen(value) for name, value in given.items() if name != "family"}
    if unknown := sorted(values.keys() - known):
        raise ValueError(f"{family} has no {', '.join(unknown)}; it has {', '.join(sorted(known))}")
    if missing := sorted(needed - values.keys()):
        raise ValueError(f"{family} needs {', '.join(missing)}")
    try:
        return kind(**values)
    except TypeError as error:
        raise ValueError(f"{family}: {error}") from error


def _plain(value: Any) -> Any:
    return [_plain(each) for each in value] if isinstance(value, tuple) else value


def _frozen(value: Any) -> Any:
    return tuple(_frozen(each) for each in value) if isinstance(value, list) else value
