"""Options: command line, ini file and environment in one table, with one precedence.

For each option the command line wins over the ini file, the ini file over the environment, the environment over
the default. ``--vendor`` is also spelt ``--flagperf-vendor``, ``flagperf_vendor`` in the ini file and
``FLAGPERF_VENDOR`` in the environment; the others likewise.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING
from typing import Any

import pytest


if TYPE_CHECKING:
    from pytest_flagperf.case import Topology
    from pytest_flagperf.judging.requirements import Requirement


@dataclass(frozen=True)
class Option:
    """One row of the table. ``many`` options may be given several times and gather."""

    name: str
    metavar: str
    help: str
    many: bool = False

    @property
    def key(self) -> str:
        """Its name in the ini file and on ``config.option``: all start with ``flagperf_``."""
        return self.name if self.name.startswith("flagperf_") else f"flagperf_{self.name}"

    @property
    def variable(self) -> str:
        """Its environment variable."""
        return self.key.upper()

    @property
    def flags(self) -> list[str]:
        """Its spellings on the command line."""
        long = "--" + self.key.replace("_", "-")
        short = "--" + self.name.replace("_", "-")
        return [short, long] if short != long else [long]

    @property
    def flag(self) -> str:
        """The spelling that is ours whichever plugins are there, for messages and commands."""
        return self.flags[-1] if self.flags[0] in _TAKEN else self.flags[0]


TABLE = (
    Option("vendor", "NAME", "Vendor of the devices to run on (default: the accelerator found, else cpu)"),
    Option("framework", "LIST", "Frameworks to run, comma-separated (default: those installed)"),
    Option("precision", "LIST", "Precisions to run, comma-separated (default: fp32)"),
    Option("topology", "LIST", "Topologies to run, NODESxDEVICES, comma-separated (default: 1x1)"),
    Option("scale", "LIST", "lite: minutes on two CPU cores; full: the reference dataset and target (default: lite)"),
    Option("engine", "LIST", "Engines of inference to run, comma-separated (default: the test's own, else the case's)"),
    Option("rounds", "N", "Rounds of each case, with different recorded seeds (default: 1)"),
    Option("dataset", "NAME=PATH", "Where a dataset is; NAME=synthetic for throughput only", many=True),
    Option("weights", "NAME=PATH", "Where a set of weights is; NAME=random for speed only", many=True),
    Option("data_root", "DIR", "Where datasets are looked for and small ones are prepared (default: user cache)"),
    Option("python", "FRAMEWORK=PATH", "Interpreter that a framework is installed in (default: pytest's)", many=True),
    Option("container", "IMAGE", "Image to run the workloads in (default: none, they run on the host)"),
    Option("container_runtime", "NAME", "docker, podman or apptainer (default: the first of them that is on PATH)"),
    Option("target", "METRIC=VALUE", "Replace the bound of a target of every case that has it", many=True),
    Option(
        "timeout", "SECONDS", "Longest time a round or a problem may take (default: none; a problem: 60 s of silence)"
    ),
    Option("stall_timeout", "SECONDS", "A rank that writes no event for so long is stalled (default: 300)"),
    Option("monitor", "SECONDS", "Time between two looks at devices and host while a case runs, or off (default: 1)"),
    Option("budget", "SECONDS", "Time an operator's problem is measured for at most (default: 1, the smoke set 0.15)"),
    Option("cache", "STATE", "hot: operators are called back to back; flushed: caches are emptied before each call"),
    Option("published", "PROCESSOR", "Show DeepBench's published times of a processor beside ours, for example V100"),
    Option("baseline", "PATH", "Baseline FILE, DIR or SESSION to compare with, or none (default: the vendor's own)"),
    Option("on_inconclusive", "WHAT", "Where a comparison is not decided: rerun, fail or pass (default: pass)"),
    Option("max_rounds", "N", "Rounds that a case may have in all with --on-inconclusive=rerun (default: 10)"),
    Option("rerun_budget", "SECONDS", "Time that the added rounds of a case may take together (default: no limit)"),
    Option("require", "METRIC>=BOUND", "What a figure across cases has to hold, as scaling_efficiency>=0.9", many=True),
    Option("resume", "SESSION", "Take the valid results of a session, run only what it lacks"),
    Option("flagperf_html", "PATH", "Write a report of the session for reviewers: one HTML file"),
    Option("flagperf_dir", "DIR", "Directory for results (default: flagperf-results in the root directory)"),
    Option("replay", "DIR", "Judge the results in DIR, FlagPerf's or ours, with the same tests; launch nothing"),
)

NO_BASELINE = "none"
ON_INCONCLUSIVE = ("rerun", "fail", "pass")
# Rounds of a case in all, where the comparison with its baseline asks for more.
MAX_ROUNDS = 10

# What concerns a session as a whole: no command that runs one test again has them.
OF_SESSION = ("require", "resume", "flagperf_html")

# Below this the monitor would do nothing but look.
SHORTEST_INTERVAL = 0.05

JUNIT_PROPERTIES = "flagperf_junit_properties"

# Flags of other plugins, by the name they are registered under: ours then goes by its long spelling only.
_TAKEN = {"--timeout": ("timeout", "pytest_timeout")}


def add_options(parser: pytest.Parser, pluginmanager: pytest.PytestPluginManager) -> None:
    """Declare every option of the table."""
    group = parser.getgroup("flagperf", "FlagPerf AI-hardware benchmarks")
    for option in TABLE:
        flags = [flag for flag in option.flags if not _is_taken(flag, pluginmanager)]
        group.addoption(
            *flags,
            dest=option.key,
            metavar=option.metavar,
            default=None,
            action="append" if option.many else "store",
            help=option.help,
        )
        if option.many:
            parser.addini(option.key, option.help, type="linelist", default=[])
        else:
            parser.addini(option.key, option.help, type="string", default="")
    parser.addini(
        JUNIT_PROPERTIES,
        "Where JUnit gets the figures: testcase (default), testsuite (valid by Jenkins' strict schema), none",
        default="testcase",
    )


def _is_taken(flag: str, pluginmanager: pytest.PytestPluginManager) -> bool:
    if flag not in _TAKEN:
        return False
    plugin, module = _TAKEN[flag]
    return not pluginmanager.is_blocked(plugin) and find_spec(module) is not None


@dataclass(frozen=True)
class Options:
    """The options of a session, parsed. Empty means "the default", which depends on the machine."""

    vendor: str | None = None
    frameworks: tuple[str, ...] = ()
    precisions: tuple[str, ...] = ("fp32",)
    topologies: tuple[Topology, ...] = ()
    scales: tuple[str, ...] = ("lite",)
    engines: tuple[str, ...] = ()
    rounds: int = 1
    datasets: Mapping[str, str] = field(default_factory=dict)
    weights: Mapping[str, str] = field(default_factory=dict)
    data_root: Path | None = None
    pythons: Mapping[str, str] = field(default_factory=dict)
    container: str | None = None
    container_runtime: str | None = None
    targets: Mapping[str, float] = field(default_factory=dict)
    timeout: float | None = None
    stall_timeout: float = 300.0
    monitor: float | None = 1.0
    budget: float | None = None
    cache: str = "hot"
    published: str | None = None
    baseline: Path | None = None
    without_baseline: bool = False
    on_inconclusive: str = "pass"
    max_rounds: int = MAX_ROUNDS
    rerun_budget: float | None = None
    requirements: tuple[Requirement, ...] = ()
    resume: Path | None = None
    html: Path | None = None
    directory: Path = Path("flagperf-results")
    replay: Path | None = None
    explicit: Mapping[str, str] = field(default_factory=dict)


def given(config: pytest.Config, option: Option) -> tuple[Any, str]:
    """The raw value of ``option`` and its origin; the value is ``None`` or empty where nobody gave one."""
    value = config.getoption(option.key, None)
    if value:
        return value, "command line"
    value = config.getini(option.key)
    if value:
        return value, "ini file"
    value = os.environ.get(option.variable, "")
    if value and option.many:
        return [part for part in value.split(",") if part], f"environment {option.variable}"
    return value, f"environment {option.variable}"


def named(name: str) -> Option:
    """The row of an option."""
    return next(option for option in TABLE if option.name == name)


def is_any_given(config: pytest.Config) -> bool:
    """Whether the user set any of our options: only then are they checked before a case is collected."""
    return any(given(config, option)[0] for option in TABLE)


def parse(config: pytest.Config) -> Options:
    """Read and check all options. Raises ``pytest.UsageError`` that names the option and lists what exists."""
    from pytest_flagperf import case
    from pytest_flagperf import option_values
    from pytest_flagperf import words
    from pytest_flagperf.errors import ConfigurationError

    if config.getini(JUNIT_PROPERTIES) not in ("testcase", "testsuite", "none"):
        raise pytest.UsageError(
            f"{JUNIT_PROPERTIES}: {config.getini(JUNIT_PROPERTIES)!r} is not one of testcase, testsuite, none"
        )
    raw: dict[str, Any] = {}
    explicit: dict[str, str] = {}
    for option in TABLE:
        value, origin = given(config, option)
        if value:
            raw[option.name] = value
            explicit[option.name] = origin
    try:
        return Options(
            vendor=raw.get("vendor"),
            frameworks=option_values.listed(raw, "framework", words.FRAMEWORKS),
            precisions=option_values.listed(raw, "precision", words.PRECISIONS) or ("fp32",),
            topologies=tuple(map(case.Topology.parse, option_values.split(raw, "topology"))) or (case.Topology(1, 1),),
            scales=option_values.listed(raw, "scale", words.SCALES) or ("lite",),
            engines=option_values.engines(raw),
            rounds=int(option_values.number(raw, "rounds", 1, whole=True)),
            datasets=option_values.datasets(config, raw),
            weights=option_values.weights(config, raw),
            data_root=option_values.path_of(config, raw, "data_root"),
            pythons=option_values.interpreters(raw),
            **option_values.container(config, raw),
            targets=option_values.targets(raw),
            timeout=option_values.number(raw, "timeout", 0.0) or None,
            stall_timeout=option_values.number(raw, "stall_timeout", 300.0),
            monitor=option_values.monitor(raw),
            budget=option_values.number(raw, "budget", 0.0) or None,
            cache=option_values.cache(raw),
            published=option_values.published(raw),
            baseline=option_values.baseline(config, raw),
            without_baseline=raw.get("baseline") == NO_BASELINE,
            on_inconclusive=option_values.on_inconclusive(raw),
            max_rounds=int(option_values.number(raw, "max_rounds", MAX_ROUNDS, whole=True)),
            rerun_budget=option_values.number(raw, "rerun_budget", 0.0) or None,
            requirements=option_values.requirements(raw),
            resume=option_values.resume(config, raw),
            html=option_values.html(config, raw),
            directory=option_values.directory(config, raw),
            replay=option_values.path_of(config, raw, "replay"),
            explicit=explicit,
        )
    except ConfigurationError as error:
        raise pytest.UsageError(str(error)) from error
