"""Hooks that others implement: a vendor's own repository, a report."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest


if TYPE_CHECKING:
    from pytest_flagperf.result import Result


@pytest.hookspec
def pytest_flagperf_vendors(config: pytest.Config) -> Sequence[Path]:
    """Directories with vendors of one's own, each laid out as ``<vendor>/vendor.toml``.

    They come before the plugin's own, so a vendor may be replaced. In a ``conftest.py``::

        def pytest_flagperf_vendors(config):
            return [config.rootpath / "vendors"]
    """
    return ()


@pytest.hookspec
def pytest_flagperf_result(config: pytest.Config, item: pytest.Item, result: Result, directory: Path) -> None:
    """A case has its result: passed, missed or invalid. Called in the process that ran it, under xdist the worker.

    ``directory`` holds ``result.json`` and the rounds. A report reads both and computes nothing.
    """


@pytest.hookspec(firstresult=True)
def pytest_flagperf_workload_device(config: pytest.Config, framework: str) -> Mapping[str, str] | None:
    """For tests of a vendor's files only: run the workload on another device than the vendor's.

    Returns ``{"device": ..., "backend": ...}`` as a vendor file has them for ``framework``. Devices are still found,
    leased and watched as the vendor's. What was measured so is no measurement of the vendor: its Result says so in
    ``stand_in``, and every report shows it. There is no option for this, on purpose.
    """
