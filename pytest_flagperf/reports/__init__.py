"""Reports: each reads Results, none computes.

Which of them are active depends on the plugins that are there: a missing one costs nothing and breaks nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from pytest_flagperf import words


def start(config: pytest.Config) -> None:
    """Register the reports of the process that runs tests."""
    from pytest_flagperf.reports import junit
    from pytest_flagperf.reports.progress import Progress

    config.stash[words.PROGRESS] = Progress(config)
    config.pluginmanager.register(junit, "flagperf-junit")
    if _writes_allure(config):
        from pytest_flagperf.reports import allure

        config.pluginmanager.register(allure, "flagperf-allure")


def finish(
    config: pytest.Config, directories: Mapping[str, Path], operators: Mapping[str, Path], exit_status: int
) -> None:
    """Write what belongs to the session as a whole; called in the controller only."""
    from pytest_flagperf import result

    # A case's directory is in the session's, one of operators is <session>/operators/<worker>.
    session_directory = (
        next(iter(directories.values())).parent if directories else next(iter(operators.values())).parent.parent
    )
    result.finish_session(session_directory, exit_status)
    if operators:
        from pytest_flagperf.operators import table

        table.write_files(session_directory, table.read(operators))
    if _writes_allure(config):
        from pytest_flagperf.reports import allure

        allure.finish(Path(config.option.allure_report_dir), session_directory, directories, operators)


def _writes_allure(config: pytest.Config) -> bool:
    return config.pluginmanager.hasplugin("allure_pytest") and bool(getattr(config.option, "allure_report_dir", None))
