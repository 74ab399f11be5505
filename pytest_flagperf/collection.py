"""Collection: from a module's ``CASE`` to parametrized tests with stable ids and registered markers."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pytest_flagperf import overlay
from pytest_flagperf import words
from pytest_flagperf.case import ModelCase
from pytest_flagperf.case import ResolvedCase
from pytest_flagperf.case import Selection
from pytest_flagperf.case import Topology
from pytest_flagperf.errors import ConfigurationError
from pytest_flagperf.operators import case as operators
from pytest_flagperf.operators.case import OperatorCase
from pytest_flagperf.operators.case import ResolvedOperator
from pytest_flagperf.replay import Recorded
from pytest_flagperf.session import Session
from pytest_flagperf.words import ROLES
from pytest_flagperf.worker.inference import registry


_KERNELS = Path(__file__).parent / "worker" / "operators"
# All-reduce of one rank is none.
OPERATOR_TOPOLOGY = Topology(1, 2)


def parametrize(metafunc: pytest.Metafunc, session: Session, case: ModelCase) -> None:
    """One test for each selection of framework, engine, precision, topology and scale."""
    register_model(metafunc.config, session, case)
    register_engines(metafunc.config, session, case)
    role = _role(metafunc)
    _check_role(metafunc, case, role)
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
        usual = _default_engines(metafunc)
        chosen = _selections(session, case, usual, role)
        values = [_parameter(session, case, selection, role, metafunc) for selection in chosen]
        missing = _nothing(session, case, role)
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
        foreign = bool(options.frameworks) and set(options.frameworks).isdisjoint(case.frameworks)
        asked, has = (options.frameworks, case.frameworks) if foreign else (options.precisions, case.precisions)
        missing = f"{case.family} is not defined in {', '.join(asked)}; it is in {', '.join(has)}"
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


def register_model(config: pytest.Config, session: Session, case: ModelCase) -> None:
    """Make the model's name a marker, once."""
    if case.model not in session.models:
        session.models[case.model] = case.title
        config.addinivalue_line("markers", f"{case.model}: FlagPerf model: {case.title}")


def register_engines(config: pytest.Config, session: Session, case: ModelCase) -> None:
    """Make the engines that other packages bring markers, once; those that ship are ones already."""
    if case.kind != "inference":
        return
    for name in (*getattr(case, "engines", ()), *session.options.engines):
        if name not in words.ENGINES and name not in session.engine_markers:
            session.engine_markers.add(name)
            config.addinivalue_line("markers", f"{name}: FlagPerf engine")


def _check_role(metafunc: pytest.Metafunc, case: ModelCase, role: str) -> None:
    if (role == "convergence") if case.kind == "inference" else (role not in words.TRAINING_ROLES):
        raise ConfigurationError(f"{metafunc.definition.nodeid}: {role} is no role of {case.kind}")


def _nothing(session: Session, case: ModelCase, role: str) -> str:
    """Why no selection of a case is asked for."""
    if not session.frameworks(case):
        return f"{case.model} has no workload for {', '.join(session.options.frameworks)}"
    if set(session.options.scales).isdisjoint(case.scales):
        return f"{case.model} has no scale {', '.join(session.options.scales)}; it has {', '.join(case.scales)}"
    own = getattr(case, "engines", ())
    foreign = [name for name in session.options.engines if name not in own]
    idle = [name for name in session.options.engines if name in own]
    does = "generates no text" if role == registry.GENERATION else "does nothing but generate text"
    reasons = []
    for name in idle:
        having = [one for one in case.workloads if registry.has(one, name, role)]
        reasons.append(f"engine {name} " + (f"executes models of {', '.join(having)}" if having else does))
    if foreign:
        reasons.append(f"{case.model} is not defined for engine {', '.join(foreign)}; it is for {', '.join(own)}")
    return "; ".join(reasons)


def _role(metafunc: pytest.Metafunc) -> str:
    roles = [mark.name for mark in metafunc.definition.iter_markers() if mark.name in ROLES]
    if len(roles) != 1:
        raise ConfigurationError(
            f"{metafunc.definition.nodeid} needs exactly one role, has {', '.join(roles) or 'none'}: "
            f"mark it with one of {', '.join('@pytest.mark.' + role for role in ROLES)}"
        )
    return roles[0]


def _default_engines(metafunc: pytest.Metafunc) -> list[str]:
    """The engines that a test runs by where none is asked for: all of its case's, unless a mark says which."""
    mark = metafunc.definition.get_closest_marker("default_engines")
    return list(mark.args) if mark else []


def _selections(session: Session, case: ModelCase, usual: Sequence[str], role: str) -> Iterator[Selection]:
    options = session.options
    for framework, precision, topology, scale in itertools.product(
        _frameworks(session, case, role), options.precisions, options.topologies, options.scales
    ):
        if scale in case.scales:
            for engine in _engines(session, case, framework, usual, role):
                yield Selection(framework, precision, topology, scale, engine)


def _frameworks(session: Session, case: ModelCase, role: str) -> list[str]:
    """Those to run a case in, and one that is not installed where only it has an engine that was asked for.

    Its test says what to install: whoever asks for an engine must not be told that all is well without it.
    """
    found, asked = session.frameworks(case), session.options.engines
    if case.kind != "inference" or session.options.frameworks:
        return found
    for name in asked:
        having = [one for one in case.workloads if registry.has(one, name, role)]
        if name in getattr(case, "engines", ()) and set(having).isdisjoint(found):
            found += having
    return found


def _engines(session: Session, case: ModelCase, framework: str, usual: Sequence[str], role: str) -> list[str]:
    """The engines to run a case by in a framework; of training the one that has no name.

    What another package brings no case can name: it executes every case where it is asked for.
    """
    if case.kind != "inference":
        return [""]
    own, asked = list(getattr(case, "engines", ())), session.options.engines
    if asked:
        chosen = [name for name in asked if name in own or not registry.is_built_in(name)]
    else:
        chosen = [name for name in own if name in usual or not usual]
    return [name for name in chosen if registry.has(framework, name, role)]


def _parameter(session: Session, case: ModelCase, selection: Selection, role: str, metafunc: pytest.Metafunc) -> Any:
    marks = _marks(case, selection)
    reason = _unsupported(session, case, selection)
    if reason:
        marks.append(pytest.mark.skip(reason))
    return pytest.param(_resolve(session, case, selection, role, metafunc), id=selection.id, marks=marks)


def _recorded(session: Session, case: ModelCase, run: Recorded, role: str, metafunc: pytest.Metafunc) -> Any:
    """The parameter that judges ``run``, or ``None`` where it is of another case or was not asked for."""
    selection, wanted = run.selection, session.options.frameworks
    mine = (run.model, run.role) == (case.model, role) and selection.scale in case.scales
    mine = mine and bool(selection.engine) == (case.kind == "inference")
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


def _marks(case: ModelCase, selection: Selection) -> list[pytest.MarkDecorator]:
    names = (
        *(case.model, selection.framework, selection.precision, case.kind, selection.scale),
        *([selection.engine] if selection.engine else []),
    )
    return [getattr(pytest.mark, name) for name in names]


def _resolve(
    session: Session, case: ModelCase, selection: Selection, role: str, metafunc: pytest.Metafunc
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


def _unsupported(session: Session, case: ModelCase, selection: Selection) -> str:
    """Why this selection does not exist, or an empty text."""
    vendor = session.vendor
    if selection.precision not in case.precisions:
        return f"{case.model} is not defined in {selection.precision}; it is in {', '.join(case.precisions)}"
    if case.kind == "inference":
        return _unsupported_inference(session, selection)
    if selection.precision not in vendor.precisions:
        return f"{vendor.title} has no {selection.precision}; it has {', '.join(vendor.precisions)}"
    support = vendor.frameworks.get(selection.framework)
    if support is None:
        return f"{vendor.title} has no {selection.framework}; it has {', '.join(vendor.frameworks)}"
    if support.precisions is not None and selection.precision not in support.precisions:
        has = ", ".join(support.precisions)
        return f"{selection.framework} has no {selection.precision} on {vendor.title}; it has {has}"
    return ""


def _unsupported_inference(session: Session, selection: Selection) -> str:
    """As above. Which precisions there are the engine says, once it is asked: those of vendor files are of training."""
    vendor = session.vendor
    if selection.framework not in vendor.frameworks:
        return f"{vendor.title} has no {selection.framework}; it has {', '.join(vendor.frameworks)}"
    if selection.topology.world_size != 1:
        return f"inference is measured on one device, not on {selection.topology}"
    return ""


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
