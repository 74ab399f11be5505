"""JUnit: the Result as properties of its test, through ``user_properties``; pytest-html and reportlog read them too."""

from __future__ import annotations

from pathlib import Path

import pytest
from _pytest.junitxml import xml_key

from pytest_flagperf import result as results
from pytest_flagperf.judging.resume import is_note
from pytest_flagperf.operators import table
from pytest_flagperf.options import JUNIT_PROPERTIES
from pytest_flagperf.result import Result
from pytest_flagperf.weights import RANDOM


def pytest_flagperf_result(item: pytest.Item, result: Result, directory: Path) -> None:
    """Replace the test's ``flagperf.*`` properties: a second attempt must not add to the first one's."""
    item.user_properties[:] = [(k, v) for k, v in item.user_properties if not k.startswith("flagperf.")]
    item.user_properties += properties(result, directory)


def place(config: pytest.Config, report: pytest.TestReport, *, first: bool) -> None:
    """Put a report's properties where the ini option wants them. Called in the controller, before JUnit is written.

    pytest writes them into ``<testcase>``, where most readers look; the schema of Jenkins' xUnit plugin allows them in
    ``<testsuite>`` only.
    """
    where = config.getini(JUNIT_PROPERTIES)
    if where == "testcase":
        return
    ours = [(name, value) for name, value in report.user_properties if name.startswith("flagperf.")]
    report.user_properties[:] = [(n, v) for n, v in report.user_properties if not n.startswith("flagperf.")]
    xml = config.stash.get(xml_key, None)
    case = dict(ours).get("flagperf.case")
    # Call and tear-down report the same properties, and so does a set-up that failed.
    if where == "testsuite" and xml is not None and first:
        for name, value in ours:
            xml.add_global_property(f"{case}:{name}", str(value))


def properties(result: Result, directory: Path) -> list[tuple[str, object]]:
    """Name and value of each property. Values are plain: xdist carries them from worker to controller."""
    case = result.case
    found: list[tuple[str, object]] = [
        ("flagperf.schema_version", result.schema_version),
        ("flagperf.case", case.id),
        ("flagperf.model", case.model),
        ("flagperf.kind", case.kind),
        ("flagperf.role", case.role),
        ("flagperf.framework", case.framework),
        ("flagperf.precision", case.precision),
        ("flagperf.topology", case.topology),
        ("flagperf.scale", case.scale),
        ("flagperf.vendor", case.vendor),
        ("flagperf.division", case.division),
        ("flagperf.dataset", result.dataset.name + (" (synthetic)" if result.dataset.synthetic else "")),
        ("flagperf.verdict", result.verdict),
        ("flagperf.directory", str(directory)),
    ]
    if case.chip:
        found.append(("flagperf.chip", case.chip))
    if case.engine:
        found.append(("flagperf.engine", case.engine))
    if result.weights is not None:
        is_random = result.weights.origin == RANDOM
        found.append(("flagperf.weights", result.weights.name + (" (random)" if is_random else "")))
    if case.stand_in:
        found.append(("flagperf.stand_in", case.stand_in))
    if table.is_estimated(result):
        found.append(("flagperf.peak", "estimated"))
    if result.error is not None:
        found.append(("flagperf.error", result.error.type))
    found += [(f"flagperf.metric.{name}", metric.value) for name, metric in result.metrics.items()]
    found += [(f"flagperf.unit.{name}", results.unit_of(result, name)) for name in result.metrics]
    found += comparisons(result)
    found += [
        (f"flagperf.target.{target.metric}", f"{'>=' if target.direction == 'at least' else '<='} {target.bound:g}")
        for target in result.targets
    ]
    return found


def comparisons(result: Result) -> list[tuple[str, object]]:
    """The verdict of each metric beside its baseline; figures that nobody has are absent."""
    found: list[tuple[str, object]] = []
    for one in result.comparisons:
        found.append((f"flagperf.comparison.{one.metric}", one.verdict))
        if one.baseline is not None:
            found.append((f"flagperf.baseline.{one.metric}", one.baseline))
        if one.change is not None:
            found.append((f"flagperf.change.{one.metric}", one.change))
    sources = dict.fromkeys(one.source for one in result.comparisons if one.source)
    found += [("flagperf.baseline", source) for source in list(sources)[:1]]
    if len(result.rounds) > 1:
        found.append(("flagperf.rounds", len(result.rounds)))
    resumed = next(filter(is_note, result.notes), None)
    return [*found, ("flagperf.resumed", resumed)] if resumed else found
