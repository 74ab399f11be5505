"""Collection: from a module's ``CASE`` to parametrized tests with stable ids and registered markers."""

from __future__ import annotations

import ast
import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pytest_flagperf import overlay
from pytest_flagperf import words
from pytest_flagperf.case import ResolvedCase
from pytest_flagperf.case import Selection
from pytest_flagperf.case import Topology
from pytest_flagperf.case import TrainingCase
from pytest_flagperf.errors import ConfigurationError
from pytest_flagperf.operators import case as operators
from pytest_flagperf.operators.case import OperatorCase
from pytest_flagperf.operators.case import ResolvedOperator
from pytest_flagperf.replay import Recorded
from pytest_flagperf.session import Session
from pytest_flagperf.words import FRAMEWORKS
from pytest_flagperf.words import KINDS
from pytest_flagperf.words import PRECISIONS
from pytest_flagperf.words import ROLES
from pytest_flagperf.words import SCALES


_KERNELS = Path(__file__).parent / "worker" / "operators"
# All-reduce of one rank is none.
OPERATOR_TOPOLOGY = Topology(1, 2)


def parametrize(metafunc: pytest.Metafunc, session: Session, case: TrainingCase) -> None:
    """One test for each selection of framework, precision, topology and scale."""
    register_model(metafunc.config, session, case)
    role = _role(metafunc)
    for name, scale in case.scales.items():
        if role == "convergence" and not scale.targets:
            raise ConfigurationError(
                f"{metafunc.definition.nodeid}: scale {name} of {case.model} has no target to meet"
            )
    if session.options.replay is not None:
        values = [_recorded(session, case, run, role, metafunc) for run in session.recorded]
        values = [value for value in values if value is not None]
        missing = f"{session.options.replay} holds no {role} run of {case.model}"
    else:
        values = [_parameter(session, case, selection, role, metafunc) for selection in _selections(session, case)]
        missing = (
            f"{case.model} has no workload for {', '.join(session.options.frameworks)}"
            if not session.frameworks(case)
            else f"{case.model} has no scale {', '.join(session.options.scales)}; it has {', '.join(case.scales)}"
        )
    if not values:
        marks = [getattr(pytest.mark, case.model), getattr(pytest.mark, case.kind), pytest.mark.skip(missing)]
        values = [pytest.param(None, id="none", marks=marks)]
    metafunc.parametrize("case", values)


def parametrize_operators(metafunc: pytest.Metafunc, session: Session, case: OperatorCase) -> None:
    """One test for each problem, precision, direction and framework; see ``operators.case``."""
    options, directory = session.options, Path(metafunc.module.__file__ or "").resolve().parent
    found = operators.resolve(
        case,
        case.load(directory),
        frameworks=_operator_frameworks(session, case),
        precisions=options.precisions if "precision" in options.explicit else (),
        topologies=options.topologies if "topology" in options.explicit else (OPERATOR_TOPOLOGY,),
        vendor=session.vendor.name,
        directory=directory,
    )
    marks = {name: getattr(pytest.mark, name) for name in _operator_words(case)}
    reasons = {name: _no_operators(session, name) for name in case.frameworks}
    values = [_operator(one, marks, reasons[one.framework]) for one in found]
    if not values:
        asked = ", ".join((*options.frameworks, *options.precisions))
        missing = f"{case.family} is not defined in {asked}; it is in {', '.join((*case.frameworks, *case.precisions))}"
        chosen = [marks[operators.family_marker(case.family)], marks[case.kind], pytest.mark.skip(missing)]
        values = [pytest.param(None, id="none", marks=chosen)]
    metafunc.parametrize("case", values)


def _operator_frameworks(session: Session, case: OperatorCase) -> list[str]:
    """Those asked for, or else the first of the case's that is installed: another framework is another measurement."""
    if session.options.frameworks:
        return [name for name in session.options.frameworks if name in case.frameworks]
    return [next((name for name in case.frameworks if session.installed(name)), case.frameworks[0])]


def _operator_words(case: OperatorCase) -> list[str]:
    sets = (*words.SETS, *words.DIRECTIONS, *operators.ALL_PRECISIONS, *case.frameworks)
    return [*sets, operators.family_marker(case.family), case.kind]


def _operator(one: ResolvedOperator, marks: dict[str, pytest.MarkDecorator], reason: str) -> Any:
    chosen = [marks[name] for name in one.marks]
    return pytest.param(one, id=one.parameters, marks=[*chosen, pytest.mark.skip(reason)] if reason else chosen)


def _no_operators(session: Session, framework: str) -> str:
    """Why no operator can be measured in ``framework`` here, or an empty text.

    Which precisions there are only the framework knows: the vendor file's are those of whole models.
    """
    vendor, options = session.vendor, session.options
    if options.replay is not None:
        return "results of operators are not replayed"
    if options.container is not None:
        return "operators are not measured in containers"
    if framework not in vendor.frameworks:
        return f"{vendor.title} has no {framework}; it has {', '.join(vendor.frameworks)}"
    if not (_KERNELS / framework).is_dir():
        return f"the plugin has no operators of {framework} yet"
    return ""


def register_model(config: pytest.Config, session: Session, case: TrainingCase) -> None:
    """Make the model's name a marker, once."""
    if case.model not in session.models:
        session.models[case.model] = case.title
        config.addinivalue_line("markers", f"{case.model}: FlagPerf model: {case.title}")


def _role(metafunc: pytest.Metafunc) -> str:
    roles = [mark.name for mark in metafunc.definition.iter_markers() if mark.name in ROLES]
    if len(roles) != 1:
        raise ConfigurationError(
            f"{metafunc.definition.nodeid} needs exactly one role, has {', '.join(roles) or 'none'}: "
            f"mark it with one of {', '.join('@pytest.mark.' + role for role in ROLES)}"
        )
    return roles[0]


def _selections(session: Session, case: TrainingCase) -> Iterator[Selection]:
    options = session.options
    for framework, precision, topology, scale in itertools.product(
        session.frameworks(case), options.precisions, options.topologies, options.scales
    ):
        if scale in case.scales:
            yield Selection(framework, precision, topology, scale)


def _parameter(session: Session, case: TrainingCase, selection: Selection, role: str, metafunc: pytest.Metafunc) -> Any:
    marks = _marks(case, selection)
    reason = _unsupported(session, case, selection)
    if reason:
        marks.append(pytest.mark.skip(reason))
    return pytest.param(_resolve(session, case, selection, role, metafunc), id=selection.id, marks=marks)


def _recorded(session: Session, case: TrainingCase, run: Recorded, role: str, metafunc: pytest.Metafunc) -> Any:
    """The parameter that judges ``run``, or ``None`` where it is of another case or was not asked for."""
    selection, wanted = run.selection, session.options.frameworks
    mine = (run.model, run.role) == (case.model, role) and selection.scale in case.scales
    if not mine or selection.framework not in (wanted or case.workloads):
        return None
    resolved = _resolve(session, case, selection, role, metafunc)
    # What was run counts, not what would be run here and now.
    changed = tuple(text for text in resolved.deviations if text.startswith("target "))
    resolved = replace(
        resolved,
        recorded=run,
        settings=run.settings,
        deviations=(*run.deviations, *changed),
        division=run.division,
        replaced=run.replaced,
        stand_in=run.stand_in,
    )
    if run.vendor and session.options.vendor is None:
        # Whose devices these were, not whose are here.
        resolved = replace(resolved, vendor=run.vendor)
    return pytest.param(resolved, id=run.id, marks=_marks(case, selection))


def _marks(case: TrainingCase, selection: Selection) -> list[pytest.MarkDecorator]:
    names = (case.model, selection.framework, selection.precision, case.kind, selection.scale)
    return [getattr(pytest.mark, name) for name in names]


def _resolve(
    session: Session, case: TrainingCase, selection: Selection, role: str, metafunc: pytest.Metafunc
) -> ResolvedCase:
    resolved = overlay.resolve(
        case,
        selection,
        role=role,
        vendor=session.vendor.name,
        overlay=session.overlay(case),
        targets=session.options.targets,
        directory=Path(metafunc.module.__file__ or "").resolve().parent,
        chip=lambda: session.chip,
        stand_in=(session.stand_in(selection.framework) or {}).get("device", ""),
    )
    return replace(resolved, deviations=(*session.vendor_deviations, *resolved.deviations))


def _unsupported(session: Session, case: TrainingCase, selection: Selection) -> str:
    """Why this selection does not exist, or an empty text."""
    vendor = session.vendor
    if selection.precision not in case.precisions:
        return f"{case.model} is not defined in {selection.precision}; it is in {', '.join(case.precisions)}"
    if selection.precision not in vendor.precisions:
        return f"{vendor.title} has no {selection.precision}; it has {', '.join(vendor.precisions)}"
    support = vendor.frameworks.get(selection.framework)
    if support is None:
        return f"{vendor.title} has no {selection.framework}; it has {', '.join(vendor.frameworks)}"
    if support.precisions is not None and selection.precision not in support.precisions:
        has = ", ".join(support.precisions)
        return f"{selection.framework} has no {selection.precision} on {vendor.title}; it has {has}"
    return ""


def check_marker_expression(config: pytest.Config, session: Session, items: list[pytest.Item]) -> None:
    """A name in ``-m`` that nothing is marked with is a typo: an error that lists what exists."""
    expression = config.getoption("markexpr", "")
    try:
        tree = ast.parse(expression, mode="eval") if expression else None
    except SyntaxError:
        return  # pytest says what is wrong with it
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)} if tree else set()
    known = {line.partition(":")[0].partition("(")[0].strip() for line in config.getini("markers")}
    unknown = sorted(used - known)
    if unknown:  # only then are all marks of all tests looked at
        unknown = sorted(set(unknown) - {mark.name for item in items for mark in item.iter_markers()})
    if unknown:
        message = (
            f"-m: unknown marker {', '.join(map(repr, unknown))}. "
            f"Models: {', '.join(sorted(session.models))}. Frameworks: {', '.join(FRAMEWORKS)}. "
            f"Precisions: {', '.join(PRECISIONS)}. Kinds: {', '.join(KINDS)}. Roles: {', '.join(ROLES)}. "
            f"Scales: {', '.join(SCALES)}. Operators: {', '.join(words.FAMILIES)}. Sets: {', '.join(words.SETS)}. "
            f"Directions: {', '.join(words.DIRECTIONS)}"
        )
        if not hasattr(config, "workeroutput"):
            raise pytest.UsageError(message)
        # An xdist worker that raises here leaves its controller with an internal error: the controller raises it.
        config.workeroutput[words.USAGE_ERROR] = message
        items[:] = []


def order_for_packing(session: Session, items: list[pytest.Item]) -> None:
    """Under xdist: of the cases among ``items``, those that want most devices come first.

    With the big ones first the small ones fill what is left beside them and at the end. The other way round a case of
    eight devices has to wait until the last of the small ones is done, and all but one worker idle through it. Tests
    that are no cases keep their positions, and cases that want the same keep their order; the key is in the test id, so
    that every worker comes to the same order, which xdist demands.
    """
    positions = [number for number, item in enumerate(items) if _case_of(item) is not None]
    cases = [items[number] for number in positions]
    cases.sort(key=lambda item: -_wanted(session, item))
    for number, item in zip(positions, cases, strict=True):
        items[number] = item


def _case_of(item: pytest.Item) -> ResolvedCase | None:
    case = item.callspec.params.get("case") if hasattr(item, "callspec") else None
    return case if isinstance(case, ResolvedCase) else None


def _wanted(session: Session, item: pytest.Item) -> int:
    """Devices that a case is going to lease: none in a replay, the one there is where all ranks share it."""
    case = _case_of(item)
    if case is None or case.recorded is not None:
        return 0
    return 1 if session.vendor.shared else case.selection.topology.devices
