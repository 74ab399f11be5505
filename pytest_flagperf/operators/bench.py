"""``flagperf bench``: one problem by hand, by the engine and with the output of a test run."""

from __future__ import annotations

import argparse
import difflib
import platform
import secrets
import sys
import time
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from pytest_flagperf import __version__
from pytest_flagperf import result as results
from pytest_flagperf import suites
from pytest_flagperf import verdict
from pytest_flagperf.case import Topology
from pytest_flagperf.devices import vendor as vendors
from pytest_flagperf.devices.vendor import Vendor
from pytest_flagperf.errors import ConfigurationError
from pytest_flagperf.operators import case as cases
from pytest_flagperf.operators import catalogue
from pytest_flagperf.operators import published
from pytest_flagperf.operators import table
from pytest_flagperf.operators.arguments import COLLECTIVES
from pytest_flagperf.operators.case import OperatorCase
from pytest_flagperf.operators.case import ResolvedOperator
from pytest_flagperf.operators.engine import Engine
from pytest_flagperf.operators.engine import Outcome
from pytest_flagperf.operators.pool import Pool
from pytest_flagperf.operators.problems import FAMILIES
from pytest_flagperf.operators.problems import Operator
from pytest_flagperf.operators.problems import Problem
from pytest_flagperf.options import Options
from pytest_flagperf.provision import find_devices
from pytest_flagperf.session import Session


class BenchSession(Session):
    """A session without pytest: no hooks, no ini file, no test to run again."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.models = {}
        self.name = f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}"

    @property
    def vendor_directories(self) -> list[Path]:
        """Those of installed packages and our own: there is no conftest file."""
        return [*vendors.installed(), vendors.bundled()]

    @property
    def vendor(self) -> Vendor:
        """The vendor asked for, or the one whose accelerator is here, or the processor."""
        name = self.options.vendor
        return vendors.detect(self.vendor_directories) if name is None else vendors.find(name, self.vendor_directories)

    def stand_in(self, framework: str) -> Mapping[str, str] | None:
        """None: what is measured by hand is measured on the device."""
        return None

    def _description(self) -> dict[str, Any]:
        return {
            "schema_version": results.SCHEMA_VERSION,
            "session": self.name,
            "time_started": time.time(),
            "command": ["flagperf", *sys.argv[1:]],
            "versions": {"pytest-flagperf": __version__, "python": platform.python_version()},
            "vendor": self.vendor.name,
        }


def problem_of(chosen: argparse.Namespace) -> Problem:
    """The problem that the command line says. Raises ``ConfigurationError`` for one that cannot be."""
    if chosen.family == "operator":
        return _operator_of(chosen)
    sizes = {name.removeprefix("size_"): value for name, value in vars(chosen).items() if name.startswith("size_")}
    kind = FAMILIES[chosen.family]
    try:
        return kind(**sizes, source="command line")
    except (TypeError, ValueError) as error:
        raise ConfigurationError(str(error).removeprefix(f"{chosen.family}: ")) from error


def _operator_of(chosen: argparse.Namespace) -> Problem:
    """A listed problem, or a listed operator with other shapes where one shape is all there is to it."""
    path = suites.bundled() / "operators" / "problems" / "operator.json"
    listed = [one for one in catalogue.load(path) if isinstance(one, Operator)]
    if chosen.id is not None:
        if chosen.inputs:
            raise ConfigurationError("--inputs belongs to --name: an id says its shapes itself")
        found = [one for one in listed if one.id == chosen.id]
        if not found:
            raise ConfigurationError(f"no operator {chosen.id!r} is listed;{_nearest(chosen.id, listed)}")
        return replace(found[0], sets=())
    named = [one for one in listed if one.name == chosen.name]
    if not named:
        names = ", ".join(dict.fromkeys(one.name for one in listed))
        raise ConfigurationError(f"no operator {chosen.name!r} is listed; there are {names}")
    ids = ", ".join(one.id for one in named)
    first = named[0]
    if first.flops_model != "per_element" or len({*first.inputs, *first.outputs}) > 1:
        raise ConfigurationError(f"the tensors of {chosen.name} are not of one shape: take a listed one, --id {ids}")
    count, shapes = len(first.inputs), set(chosen.inputs or ())
    if len(shapes) != 1 or len(chosen.inputs) not in (1, count):
        raise ConfigurationError(
            f"{chosen.name} wants --inputs: {count} of one shape; or take a listed one, --id {ids}"
        )
    (shape,) = shapes
    if dict(first.arguments).get("dim", 0) not in range(len(shape)):
        raise ConfigurationError(f"{chosen.name} works along dimension 1: --inputs needs two dimensions at least")
    made = replace(first, inputs=(shape,) * count, outputs=(shape,) * len(first.outputs), sets=(), note="")
    return replace(made, source="command line")


def _nearest(wanted: str, listed: Sequence[Operator]) -> str:
    near = difflib.get_close_matches(wanted, [one.id for one in listed], n=3, cutoff=0.4)
    return f" near it: {', '.join(near)}" if near else f" there are {', '.join(one.id for one in listed)}"


def run(chosen: argparse.Namespace) -> int:
    """Measure the problem in every direction asked for, and print what came of it.

    1 where something is amiss; what cannot be asked for ends the program as bad usage, with 2.
    """
    try:
        session, wanted = _asked(chosen)
    except ConfigurationError as error:
        chosen.misused(str(error))
    try:
        outcomes = _measure(session, wanted)
    except OSError as error:
        raise ConfigurationError(f"the results cannot be written to {session.directory}: {error}") from error
    found = [outcome.result for outcome in outcomes]
    if chosen.json:
        print(msgspec.json.format(msgspec.json.encode(found), indent=2).decode())
    else:
        print(_text(session, outcomes))
    return 0 if all(one.verdict in verdict.WELL for one in found) else 1


def _asked(chosen: argparse.Namespace) -> tuple[BenchSession, list[ResolvedOperator]]:
    """What is to be measured, and with what. Raises ``ConfigurationError`` before anything is started."""
    problem = problem_of(chosen)
    directions = [chosen.direction] if chosen.direction else list(problem.directions)
    for direction in directions:
        if direction not in problem.directions:
            raise ConfigurationError(
                f"{problem.id} has no direction {direction!r}; it has {', '.join(problem.directions)}"
            )
    topology = _topology(chosen, problem)
    if chosen.published is not None:
        published.find(chosen.published)
    session = BenchSession(_options(chosen))
    return session, [_resolved(chosen, session, problem, direction, topology) for direction in directions]


def _topology(chosen: argparse.Namespace, problem: Problem) -> Topology:
    collective = cases.is_collective(problem)
    if not chosen.topology:
        return Topology(1, 2) if collective else cases.ONE_DEVICE
    asked = Topology.parse(chosen.topology)
    if not collective and asked != cases.ONE_DEVICE:
        raise ConfigurationError(
            f"--topology {asked}: {chosen.family} {problem.id} is measured on one device; "
            f"several run {' and '.join(COLLECTIVES)} together"
        )
    return asked


def _options(chosen: argparse.Namespace) -> Options:
    return Options(
        vendor=chosen.vendor,
        frameworks=(chosen.framework,),
        pythons={chosen.framework: chosen.python} if chosen.python else {},
        timeout=chosen.timeout,
        budget=chosen.budget,
        cache=chosen.cache,
        published=chosen.published,
        directory=chosen.flagperf_dir,
        explicit={"topology": "command line"} if chosen.topology else {},
    )


def _resolved(
    chosen: argparse.Namespace, session: BenchSession, problem: Problem, direction: str, topology: Topology
) -> ResolvedOperator:
    case = OperatorCase(
        family=chosen.family,
        title="by hand",
        problems=[problem],
        precisions=cases.ALL_PRECISIONS,
        frameworks=(chosen.framework,),
    )
    found = cases.resolve(
        case,
        [problem],
        frameworks=[chosen.framework],
        precisions=[chosen.precision],
        topologies=[topology],
        vendor=session.vendor.name,
        directory=Path.cwd(),
        name="bench",
    )
    for one in found:
        if one.direction == direction:
            return one
    types = ", ".join(getattr(problem, "dtypes", ()))
    raise ConfigurationError(f"--precision {chosen.precision}: {problem.id} has {types}")


def _measure(session: BenchSession, wanted: Sequence[ResolvedOperator]) -> list[Outcome]:
    directory = session.open() / "operators" / "main"
    kept, pool = results.Results(directory), Pool(session, directory)
    engine, outcomes = Engine(session, pool), []
    try:
        for one in wanted:
            rerun = ["flagperf", *sys.argv[1:]]
            outcomes.append(engine.measure(one, find_devices(session, one), rerun=rerun))
            kept.append(outcomes[-1].result)
    finally:
        pool.close()
        kept.close()
    table.write_files(session.directory, [outcome.result for outcome in outcomes])
    return outcomes


def _text(session: BenchSession, outcomes: Sequence[Outcome]) -> str:
    asked = session.options.published
    lines = [table.text([outcome.result for outcome in outcomes], most=None, published=asked)]
    for outcome in outcomes:
        result = outcome.result
        label = f"{result.case.role} {result.case.precision}"
        if outcome.error is not None:
            lines.append(f"{label}: {type(outcome.error).__name__}: {outcome.error}")
        lines += [f"{label}: {note}" for note in result.notes]
        spread = [
            f"{name} {table.microseconds(result.metrics[name].value)}" for name in _SPREAD if name in result.metrics
        ]
        if spread:
            spread += _certainty(result)
            lines.append(f"{label}: {', '.join(spread)}, {result.operator.get('iterations')} iterations")
    return "\n".join([*lines, f"results: {session.directory}"])


def _certainty(result: results.Result) -> list[str]:
    """The interval of the median, where there are enough samples for one, and the coefficient of variation."""
    found = []
    if "interval" in result.operator:
        low, high = (table.microseconds(one) for one in result.operator["interval"])
        found.append(f"95 % interval of the median {low} to {high}")
    if "cv" in result.metrics:
        found.append(f"cv {100 * result.metrics['cv'].value:.1f} %")
    return found


_SPREAD = ("time_min", "time_p99", "first_call", "wall_time")
