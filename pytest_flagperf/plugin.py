"""The pytest plugin: thin hooks, each delegating to a room. PYTEST_DONT_REWRITE

Loaded at every start of pytest, so it imports next to nothing until a case or one of our options is seen.
"""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING
from typing import Any

import pytest

from pytest_flagperf import options
from pytest_flagperf import words
from pytest_flagperf.fixtures import dataset
from pytest_flagperf.fixtures import devices
from pytest_flagperf.fixtures import launcher
from pytest_flagperf.fixtures import operators


if TYPE_CHECKING:
    from pytest_flagperf.session import Session


__all__ = ["dataset", "devices", "launcher", "operators"]

# The property that tells the controller where a test's result.json is.
DIRECTORY_PROPERTY = "flagperf.directory"
KIND_PROPERTY = "flagperf.kind"
VERDICT_PROPERTY = "flagperf.verdict"


def pytest_addoption(parser: pytest.Parser, pluginmanager: pytest.PytestPluginManager) -> None:
    options.add_options(parser, pluginmanager)


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    from pytest_flagperf import hookspecs

    pluginmanager.add_hookspecs(hookspecs)


def pytest_configure(config: pytest.Config) -> None:
    words.register_markers(config)
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(_Controller(config), "flagperf-controller")
        if config.pluginmanager.hasplugin("xdist"):
            config.pluginmanager.register(_Distributed(), "flagperf-xdist")
        if config.pluginmanager.hasplugin("html") and config.getoption("htmlpath", None):
            from pytest_flagperf.reports import pytest_html

            # After the controller's, so that it sees a test's properties before they may be moved elsewhere.
            config.pluginmanager.register(pytest_html.Columns(config), "flagperf-pytest-html")
    if options.is_any_given(config):
        start(config)


def pytest_unconfigure(config: pytest.Config) -> None:
    if words.WORKERS in config.stash:
        config.stash[words.WORKERS].close()
    if words.PROGRESS in config.stash:
        config.stash[words.PROGRESS].close()


def start(config: pytest.Config) -> Session:
    """The session's state, made when the first case or option is seen."""
    if words.SESSION not in config.stash:
        from pytest_flagperf import reports
        from pytest_flagperf import session

        config.stash[words.SESSION] = session.Session(config)
        reports.start(config)
    found: Session = config.stash[words.SESSION]
    return found


def pytest_report_header(config: pytest.Config) -> list[str]:
    # Under xdist the controller collects nothing: it knows of cases only by our options.
    return _says(config) if config.getoption("numprocesses", None) else []


def pytest_report_collectionfinish(config: pytest.Config) -> list[str]:
    return _says(config)


def _says(config: pytest.Config) -> list[str]:
    """One line on what the cases run on and where their results go."""
    if words.SESSION not in config.stash or config.get_verbosity() < 0:
        return []
    session = config.stash[words.SESSION]
    # Nobody waits for a driver to see which tests there are.
    seen = f"{session.seen}, " if not config.option.collectonly else ""
    return [f"flagperf: vendor {session.vendor.name}, {seen}results in {session.directory}"]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    case: Any = getattr(metafunc.module, "CASE", None)
    # Who defines a case has imported its class; a suite of somebody else's does not pay for ours.
    kind = type(case).__module__
    if "case" not in metafunc.fixturenames or kind not in ("pytest_flagperf.case", "pytest_flagperf.operators.case"):
        return
    from pytest_flagperf import collection
    from pytest_flagperf.errors import ConfigurationError

    parametrize: Any = collection.parametrize if kind == "pytest_flagperf.case" else collection.parametrize_operators
    try:
        parametrize(metafunc, start(metafunc.config), case)
    except ConfigurationError as error:
        # It names file and key; where in the plugin that was found out helps nobody.
        raise pytest.Collector.CollectError(f"ConfigurationError: {error}") from error


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """A test that asserts nothing on its result does not pass where the result says that something is amiss."""
    done = yield
    told = dict(pyfuncitem.user_properties).get(VERDICT_PROPERTY)
    if told is not None:
        from pytest_flagperf import run

        run.refuse_unasserted(str(told))
    return done


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection_modifyitems(
    session: pytest.Session, config: pytest.Config, items: list[pytest.Item]
) -> Generator[None, None, None]:
    if words.SESSION in config.stash:
        from pytest_flagperf import collection
        from pytest_flagperf import marker_expression

        marker_expression.check(config, config.stash[words.SESSION], items)
        if hasattr(config, "workerinput"):
            collection.order_for_packing(config.stash[words.SESSION], items)
    yield
    # After -m, -k and whatever else selects. Where a module could not be collected, pytest says that.
    if words.SESSION in config.stash and not session.testsfailed:
        from pytest_flagperf import targets

        targets.check(config, config.stash[words.SESSION], items)


class _Controller:
    """Hooks of the process that reports: the only one, or xdist's controller. It gathers where results are."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.directories: dict[str, Path] = {}
        # Of operators: directories with a results.jsonl, each of many tests.
        self.operators: dict[str, Path] = {}
        self.problem = ""

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        properties = dict(report.user_properties)
        if DIRECTORY_PROPERTY in properties:
            from pytest_flagperf.reports import junit

            found = self.operators if properties.get(KIND_PROPERTY) == "operator" else self.directories
            junit.place(self.config, report, first=report.nodeid not in found)
            found[report.nodeid] = Path(str(properties[DIRECTORY_PROPERTY]))

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_runtestloop(self, session: pytest.Session) -> Generator[None, object, object]:
        done = yield
        started = self.config.stash.get(words.SESSION, None)
        if started is not None and started.options.requirements and not self.config.option.collectonly:
            from pytest_flagperf import reports
            from pytest_flagperf import requiring

            requiring.run(session, started.options.requirements, reports.derived(self.directories))
        return done

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        if self.directories or self.operators:
            from pytest_flagperf import reports
            from pytest_flagperf.errors import FlagPerfError

            try:
                reports.finish(self.config, self.directories, self.operators, int(exitstatus))
            except (OSError, FlagPerfError) as error:
                # The tests have run: what they found is reported all the same.
                self.problem = f"flagperf: the session's files are incomplete: {error}"
            self._report(session, int(exitstatus))
        elif words.SESSION in self.config.stash and self.config.stash[words.SESSION].options.html is not None:
            self.problem = "flagperf: no case has a result, so there is no report"

    def _report(self, session: pytest.Session, exitstatus: int) -> None:
        """The HTML report, where one is asked for: a session that owes it is not well."""
        from pytest_flagperf import reports
        from pytest_flagperf.errors import FlagPerfError

        try:
            reports.write_html(self.config, self.directories, self.operators, exitstatus)
        except (OSError, FlagPerfError) as error:
            said = f"flagperf: --flagperf-html: {error}"
            self.problem = f"{self.problem}\n{said}" if self.problem else said
            session.exitstatus = exitstatus or pytest.ExitCode.TESTS_FAILED

    @pytest.hookimpl
    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        if self.directories or self.operators:
            from pytest_flagperf.reports import terminal
        if self.directories:
            terminal.summarize(terminalreporter, self.directories)
        if self.operators:
            from pytest_flagperf.operators import table

            table.summarize(terminalreporter, self.operators)
            session = next(iter(self.operators.values())).parent.parent
            terminal.summarize_operators(terminalreporter, table.read(self.operators), session)
        if self.problem:
            terminalreporter.write_line(self.problem, red=True)


class _Distributed:
    """Hooks of pytest-xdist; registered only where it is loaded."""

    def __init__(self) -> None:
        self.usage_error = ""

    @pytest.hookimpl
    def pytest_testnodedown(self, node: Any) -> None:
        self.usage_error = getattr(node, "workeroutput", {}).get(words.USAGE_ERROR, "") or self.usage_error

    @pytest.hookimpl(wrapper=True)
    def pytest_runtestloop(self) -> Generator[None, object, object]:
        done = yield
        if self.usage_error:
            raise pytest.UsageError(self.usage_error)
        return done

    @pytest.hookimpl
    def pytest_configure_node(self, node: Any) -> None:
        node.workerinput["flagperf_session"] = words.session_name(node.config)
