"""JUnit: the Result as properties of its test, through ``user_properties``; pytest-html and reportlog read them too."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_flagperf.result import Result


def pytest_flagperf_result(item: pytest.Item, result: Result, directory: Path) -> None:
    """Replace the test's ``flagperf.*`` properties: a second attempt must not add to the first one's."""
    item.user_properties[:] = [(k, v) for k, v in item.user_properties if not k.startswith("flagperf.")]
    item.user_properties += properties(result, directory)


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
        ("flagperf.dataset", result.dataset.name + (" (synthetic)" if result.dataset.synthetic else "")),
        ("flagperf.verdict", result.verdict),
        ("flagperf.directory", str(directory)),
    ]
    if result.error is not None:
        found.append(("flagperf.error", result.error.type))
    found += [(f"flagperf.metric.{name}", metric.value) for name, metric in result.metrics.items()]
    found += [(f"flagperf.unit.{name}", metric.unit) for name, metric in result.metrics.items()]
    found += [
        (f"flagperf.target.{target.metric}", f"{'>=' if target.direction == 'at least' else '<='} {target.bound:g}")
        for target in result.targets
    ]
    return found
