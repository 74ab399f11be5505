"""Reports: each reads Results, none computes.

Which of them are active depends on the plugins that are there: a missing one costs nothing and breaks nothing.
``flagperf`` imports this package for its help: what brings pytest with it is imported where it is used.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    import pytest

    from pytest_flagperf.judging.derived import Derived


def start(config: pytest.Config) -> None:
    """Register the reports of the process that runs tests."""
    from pytest_flagperf import words
    from pytest_flagperf.reports import junit
    from pytest_flagperf.reports.progress import Progress

    config.stash[words.PROGRESS] = Progress(config)
    config.pluginmanager.register(junit, "flagperf-junit")
    if _writes_allure(config):
        from pytest_flagperf.reports import allure

        config.pluginmanager.register(allure, "flagperf-allure")


def derived(directories: Mapping[str, Path]) -> Derived:
    """The figures that follow from the cases of the session; a result that cannot be read gives none."""
    from pytest_flagperf import result
    from pytest_flagperf.errors import ReplayError
    from pytest_flagperf.judging import derived as figures

    found = []
    for directory in directories.values():
        with contextlib.suppress(ReplayError):  # said in the terminal's summary
            found.append(result.read_result(directory / "result.json"))
    return figures.compute(found)


def finish(
    config: pytest.Config, directories: Mapping[str, Path], operators: Mapping[str, Path], exit_status: int
) -> None:
    """Write what belongs to the session as a whole; called in the controller only."""
    from pytest_flagperf import result

    session_directory = _session(directories, operators)
    result.finish_session(session_directory, exit_status)
    if operators:
        from pytest_flagperf.operators import table

        table.write_files(session_directory, table.read(operators))
    _write_derived(config, session_directory, directories)
    if _writes_allure(config):
        from pytest_flagperf.reports import allure

        allure.finish(Path(config.option.allure_report_dir), session_directory, directories, operators)


def write_html(
    config: pytest.Config, directories: Mapping[str, Path], operators: Mapping[str, Path], exit_status: int
) -> None:
    """Write the report that ``--flagperf-html`` asks for; called in the controller only, after :func:`finish`.

    Where that fails the session has failed: ``session.json`` says so, and the error is raised.
    """
    from pytest_flagperf import result
    from pytest_flagperf import words
    from pytest_flagperf.errors import FlagPerfError

    html = config.stash[words.SESSION].options.html if words.SESSION in config.stash else None
    if html is not None:
        from pytest_flagperf.reports import html as page

        session = _session(directories, operators)
        try:
            page.write([session], html)
        except (OSError, FlagPerfError):
            with contextlib.suppress(OSError, FlagPerfError):
                result.finish_session(session, exit_status or 1)
            raise


def _session(directories: Mapping[str, Path], operators: Mapping[str, Path]) -> Path:
    """The session's directory: a case's is in it, one of operators is ``<session>/operators/<worker>``."""
    return next(iter(directories.values())).parent if directories else next(iter(operators.values())).parent.parent


def _write_derived(config: pytest.Config, session: Path, directories: Mapping[str, Path]) -> None:
    from pytest_flagperf import words
    from pytest_flagperf.judging import derived as figures
    from pytest_flagperf.judging import requirements

    wanted = config.stash[words.SESSION].options.requirements if words.SESSION in config.stash else ()
    found = derived(directories)
    if found.metrics or found.left_out or wanted:
        figures.write(session, requirements.checked(found, wanted))


def _writes_allure(config: pytest.Config) -> bool:
    return config.pluginmanager.hasplugin("allure_pytest") and bool(getattr(config.option, "allure_report_dir", None))
