"""Operator cases: a family of problems, and how one of them is run.

A suite's test module holds one ``CASE`` as any other does; its problems are a data file beside it. Nothing of an
operator is tunable, so a vendor's overlay does not apply: every vendor runs the same sizes the same way.
"""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from dataclasses import replace
from pathlib import Path
from typing import Any
from typing import ClassVar

from pytest_flagperf.case import Selection
from pytest_flagperf.case import Topology
from pytest_flagperf.errors import ConfigurationError
from pytest_flagperf.operators.problems import FAMILIES
from pytest_flagperf.operators.problems import AllReduce
from pytest_flagperf.operators.problems import Interconnect
from pytest_flagperf.operators.problems import Operator
from pytest_flagperf.operators.problems import Problem
from pytest_flagperf.words import ELEMENT_TYPES
from pytest_flagperf.words import FRAMEWORKS
from pytest_flagperf.words import PRECISIONS
from pytest_flagperf.words import SETS


ONE_DEVICE = Topology(1, 1)

DEFAULT_PRECISIONS = ("fp32",)


@dataclass(frozen=True)
class OperatorCase:
    """A family of problems.

    ``problems`` is a file in the directory ``problems`` beside the test module, or a list of problems. ``precisions``
    are those the family is defined in; ``defaults`` says which of them are run in a set where ``--precision`` does not
    say (set → precisions; fp32 for a set that is not named). ``frameworks`` are those that have kernels for the family,
    the preferred one first.
    """

    kind: ClassVar[str] = "operator"
    # Where other cases have theirs: a problem has one size.
    scales: ClassVar[Mapping[str, Any]] = {}

    family: str
    title: str
    problems: str | Sequence[Problem]
    precisions: Sequence[str] = ("fp64", "fp32", "tf32", "bf16", "fp16")
    defaults: Mapping[str, Sequence[str]] = field(default_factory=dict)
    frameworks: Sequence[str] = ("pytorch",)

    def __post_init__(self) -> None:
        for what, names, known in (
            ("family", (self.family,), tuple(FAMILIES)),
            ("precision", (*self.precisions, *(p for ps in self.defaults.values() for p in ps)), ALL_PRECISIONS),
            ("set", self.defaults, SETS),
            ("framework", self.frameworks, FRAMEWORKS),
        ):
            for name in names:
                if name not in known:
                    raise ConfigurationError(
                        f"operator case {self.family}: unknown {what} {name!r}; known: {', '.join(known)}"
                    )

    @property
    def model(self) -> str:
        """The family's name, where other cases have a model's."""
        return self.family

    def load(self, directory: Path) -> list[Problem]:
        """The family's problems; ``directory`` is that of the test module. Raises ``ConfigurationError``."""
        if not isinstance(self.problems, str):
            return list(self.problems)
        from pytest_flagperf.operators import catalogue

        return list(catalogue.load(directory / "problems" / self.problems))

    def wanted(self, problem: Problem, name: str, asked: Sequence[str]) -> list[str]:
        """The precisions in which ``problem`` is run as a member of set ``name``; ``asked`` are ``--precision``'s.

        An operator of the list has element types of its own. One that has none of the default precisions, as
        ``bitwise_and``, is run in its first.
        """
        defined = self.precisions
        if isinstance(problem, Operator):
            defined = tuple(p for p in problem.dtypes if p in self.precisions or p in ELEMENT_TYPES)
        found = [p for p in asked or self.defaults.get(name, DEFAULT_PRECISIONS) if p in defined]
        return found or ([] if asked else list(defined[:1]) if isinstance(problem, Operator) else [])


ALL_PRECISIONS = (*PRECISIONS, *ELEMENT_TYPES)


@dataclass(frozen=True, repr=False)
class ResolvedOperator:
    """One problem ready to run: what the ``case`` parameter of an operator's test is.

    ``set`` is the first list that has the problem, as in the test id; ``sets`` are all that have it at this precision
    and in this direction.
    """

    case: OperatorCase
    problem: Problem
    set: str
    sets: tuple[str, ...]
    direction: str
    selection: Selection
    vendor: str
    directory: Path
    node_id: str = ""
    recorded: Any = None
    role: str = "measure"
    division: str = "closed"
    stand_in: str = ""

    def __repr__(self) -> str:
        return self.id

    @property
    def model(self) -> str:
        """The family's name, where other cases have a model's."""
        return self.case.family

    @property
    def framework(self) -> str:
        """The framework whose kernel is measured."""
        return self.selection.framework

    @property
    def precision(self) -> str:
        """The precision, or for an operator of the list its element type."""
        return self.selection.precision

    @property
    def parameters(self) -> str:
        """The test's id: ``train-fp32-fwd-m1760-n128-k1760-nn``; another framework than PyTorch comes first."""
        framework = () if self.framework == "pytorch" else (self.framework,)
        topology = (str(self.selection.topology),) if is_collective(self.problem) else ()
        return "-".join([*framework, self.set, self.precision, self.direction, *topology, self.problem.id])

    @property
    def id(self) -> str:
        """Unique among families: ``gemm-train-fp32-fwd-m1760-n128-k1760-nn``."""
        return f"{self.case.family}-{self.parameters}"

    @property
    def label(self) -> str:
        """What a person reads in messages: ``gemm [train-fp32-fwd-m1760-n128-k1760-nn]``."""
        return f"{self.case.family} [{self.parameters}]"

    @property
    def marks(self) -> tuple[str, ...]:
        """Names of the markers of its test."""
        family = family_marker(self.case.family)
        return (family, *self.sets, self.precision, self.direction, self.framework, self.case.kind)

    def of(self, node_id: str, vendor: str, stand_in: str = "") -> ResolvedOperator:
        """The same as run by a certain test on a certain vendor's devices."""
        return replace(self, node_id=node_id, vendor=vendor, stand_in=stand_in)


def family_marker(family: str) -> str:
    """The marker of a family. FlagPerf's operator list is ``operator_list``: ``operator`` marks every operator case."""
    return "operator_list" if family == "operator" else family


def is_collective(problem: Problem) -> bool:
    """Whether several ranks run the problem together."""
    return isinstance(problem, AllReduce) or (isinstance(problem, Interconnect) and problem.kind != "host_to_device")


def resolve(
    case: OperatorCase,
    problems: Sequence[Problem],
    *,
    frameworks: Sequence[str],
    precisions: Sequence[str],
    topologies: Sequence[Topology],
    vendor: str,
    directory: Path,
    name: str = "",
) -> Iterator[ResolvedOperator]:
    """Every way to run the problems; ``precisions`` is empty where nobody asked for certain ones.

    ``topologies`` are for what several ranks do together; everything else is measured on one device. ``name``
    stands in the ids of problems that are in no list.
    """
    for framework in frameworks:
        for problem in problems:
            for precision, direction, sets in _members(case, problem, precisions):
                for topology in topologies if is_collective(problem) else (ONE_DEVICE,):
                    yield ResolvedOperator(
                        case,
                        problem,
                        _first(problem) or name,
                        sets,
                        direction,
                        Selection(framework, precision, topology, _first(problem) or name),
                        vendor,
                        directory,
                    )


def _first(problem: Problem) -> str:
    """The set that names a problem: smoke is a selection of the others, and comes last; empty where it is in none."""
    return next((name for name in problem.sets if name != "smoke"), problem.sets[0] if problem.sets else "")


def _members(
    case: OperatorCase, problem: Problem, precisions: Sequence[str]
) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """Precision, direction, and the sets in which the problem is run so."""
    found: dict[tuple[str, str], list[str]] = {}
    for name in problem.sets or ("",):
        for precision in case.wanted(problem, name, precisions):
            for direction in problem.directions_in(name):
                found.setdefault((precision, direction), []).extend([name] if name else [])
    for (precision, direction), sets in found.items():
        yield precision, direction, tuple(sets)
