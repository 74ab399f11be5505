"""Collection: from a module's ``CASE`` to parametrized tests with stable ids and registered markers."""

from __future__ import annotations

import ast
import difflib
import itertools
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from typing import TypeGuard

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
from pytest_flagperf.words import FRAMEWORKS
from pytest_flagperf.words import KINDS
from pytest_flagperf.words import PRECISIONS
from pytest_flagperf.words import ROLES
from pytest_flagperf.words import SCALES
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
        chosen = _selections(session, case, usual)
        values = [_parameter(session, case, selection, role, metafunc) for selection in chosen]
        missing = _nothing(session, case)
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


def _nothing(session: Session, case: ModelCase) -> str:
    """Why no selection of a case is asked for."""
    if not session.frameworks(case):
        return f"{case.model} has no workload for {', '.join(session.options.frameworks)}"
    if set(session.options.scales).isdisjoint(case.scales):
        return f"{case.model} has no scale {', '.join(session.options.scales)}; it has {', '.join(case.scales)}"
    asked = ", ".join(session.options.engines)
    return f"{case.model} is not defined for engine {asked}; it is for {', '.join(getattr(case, 'engines', ()))}"


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


def _selections(session: Session, case: ModelCase, usual: Sequence[str]) -> Iterator[Selection]:
    options = session.options
    for framework, precision, topology, scale in itertools.product(
        session.frameworks(case), options.precisions, options.topologies, options.scales
    ):
        if scale in case.scales:
            for engine in _engines(session, case, framework, usual):
                yield Selection(framework, precision, topology, scale, engine)


def _engines(session: Session, case: ModelCase, framework: str, usual: Sequence[str]) -> list[str]:
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
    return [name for name in chosen if registry.has(framework, name)]


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


def check_marker_expression(config: pytest.Config, session: Session, items: list[pytest.Item]) -> None:
    """A name in ``-m`` that nothing is marked with is a typo: an error that lists what exists.

    Where the names are right and no test is left all the same, a line after the collection says which of them did it.
    """
    expression = config.getoption("markexpr", "")
    try:
        tree = ast.parse(expression, mode="eval").body if expression else None
    except SyntaxError:
        return  # pytest says what is wrong with it
    if tree is None:
        return
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    known = {line.partition(":")[0].partition("(")[0].strip() for line in config.getini("markers")}
    unknown = sorted(used - known)
    if unknown:  # only then are all marks of all tests looked at
        unknown = sorted(set(unknown) - {mark.name for item in items for mark in item.iter_markers()})
    if unknown:
        refuse(config, items, _unknown_markers(session, unknown, known))
    elif items and not hasattr(config, "workeroutput") and not config.pluginmanager.hasplugin(_EMPTIED):
        config.pluginmanager.register(_Emptied(session, tree, list(items)), _EMPTIED)


def _unknown_markers(session: Session, unknown: list[str], known: set[str]) -> str:
    groups = {
        "Models": sorted(session.models),
        "Frameworks": FRAMEWORKS,
        "Precisions": PRECISIONS,
        "Kinds": KINDS,
        "Roles": ROLES,
        "Engines": (*words.ENGINES, *sorted(session.engine_markers)),
        "Scales": SCALES,
        "Operators": words.FAMILIES,
        "Sets": words.SETS,
        "Directions": words.DIRECTIONS,
    }
    near = "".join(f"\n{name}:{meant}" for name in unknown if (meant := _meant(name, known)))
    listed = ". ".join(f"{group}: {', '.join(names)}" for group, names in groups.items() if names)
    return f"-m: unknown marker {', '.join(map(repr, unknown))}. {listed}{near}"


def _meant(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, sorted(known), n=2)
    return f" Did you mean {' or '.join(map(repr, near))}?" if near else ""


def refuse(config: pytest.Config, items: list[pytest.Item], message: str) -> None:
    """Raise a usage error; a worker of xdist that did would leave its controller with an internal error."""
    if not hasattr(config, "workeroutput"):
        raise pytest.UsageError(message)
    config.workeroutput[words.USAGE_ERROR] = message
    items[:] = []


_EMPTIED = "flagperf-emptied"
_GROUPS = (
    (*PRECISIONS, *words.ELEMENT_TYPES),
    words.SETS,
    words.DIRECTIONS,
    words.FAMILIES,
    FRAMEWORKS,
    KINDS,
    words.ENGINES,
    tuple(ROLES),
    SCALES,
)
_SHOWN_REASONS = 3


class _Emptied:
    """Says why ``-m`` left no test. Registered while a session's tests are selected; costs nothing where some are."""

    def __init__(self, session: Session, tree: ast.expr, items: list[pytest.Item]) -> None:
        self.session, self.tree, self.items = session, tree, items

    @pytest.hookimpl
    def pytest_report_collectionfinish(self, items: list[pytest.Item]) -> list[str]:
        return [] if items else [f"flagperf: {line}" for line in self.reasons()]

    def reasons(self) -> list[str]:
        """The part of the expression at which no test was left, and why tests there might be do not exist."""
        marked = [({mark.name for mark in item.iter_markers()}, item) for item in self.items]
        terms = self.tree.values if _is_and(self.tree) else [self.tree]
        before: list[ast.expr] = []
        for term in terms:
            left = [one for one in marked if _holds(term, one[0])]
            if not left:
                break
            marked = left
            before.append(term)
        else:
            return []  # something else left none, such as -k
        asked = self.session.options
        precisions = asked.precisions if "precision" in asked.explicit else ()
        present = {name for item in self.items for name in (mark.name for mark in item.iter_markers())}
        reasons = [_never_run(item) for _, item in marked]
        # Where nothing but what stands in for absent tests is left, its words say it.
        lines = [] if all(reasons) else _emptied_by(term, before, [names for names, _ in marked], present)
        lines += [
            f"--precision={one}: no test that was collected is run in it" for one in precisions if one not in present
        ]
        skipped = list(dict.fromkeys(filter(None, reasons)))
        more = [f"… and {len(skipped) - _SHOWN_REASONS} more such"] if len(skipped) > _SHOWN_REASONS else []
        return [*lines, *skipped[:_SHOWN_REASONS], *more]


def _emptied_by(term: ast.expr, before: list[ast.expr], marked: list[set[str]], present: set[str]) -> list[str]:
    names = [node.id for node in ast.walk(term) if isinstance(node, ast.Name)]
    absent = [name for name in names if name not in present]
    if absent and not isinstance(term, ast.UnaryOp):
        # Of precisions one is not a misspelling of another.
        return [
            f"-m: no test that was collected is marked {name!r}"
            + (_others(name, marked) if name in _GROUPS[0] else f".{_meant(name, present)}")
            for name in absent
        ]
    matched = " and ".join(map(ast.unparse, before))
    which = f" that match {matched!r}" if matched else ""
    line = f"-m: of the {len(marked):,} tests{which} none matches {ast.unparse(term)!r}"
    return [line + (_others(names[0], marked) if len(names) == 1 else "")]


def _others(name: str, marked: list[set[str]]) -> str:
    """The words of the same kind that there are instead."""
    group = next((group for group in _GROUPS if name in group), ())
    there = [other for other in group if other != name and any(other in one for one in marked)]
    return f"; there are {', '.join(there)}" if there else ""


def _is_and(tree: ast.expr) -> TypeGuard[ast.BoolOp]:
    return isinstance(tree, ast.BoolOp) and isinstance(tree.op, ast.And)


def _holds(tree: ast.expr, names: set[str]) -> bool:
    """Whether an expression of ``-m`` is true of a test that is marked with ``names``."""
    if isinstance(tree, ast.BoolOp):
        every = all if isinstance(tree.op, ast.And) else any
        return every(_holds(one, names) for one in tree.values)
    if isinstance(tree, ast.UnaryOp) and isinstance(tree.op, ast.Not):
        return not _holds(tree.operand, names)
    # A mark with arguments is taken by its name.
    tree = tree.func if isinstance(tree, ast.Call) else tree
    return isinstance(tree, ast.Name) and tree.id in names


def _never_run(item: pytest.Item) -> str:
    """Why a case has no test for what was asked for: the reason of the skip that stands in for it."""
    if not hasattr(item, "callspec") or item.callspec.params.get("case", item) is not None:
        return ""
    return next((str(mark.args[0]) for mark in item.iter_markers("skip") if mark.args), "")


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
