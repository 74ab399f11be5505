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
    Option("engine", "LIST", "Engines of inference to run, comma-separated (default: all that a case is defined for)"),
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


def is_any_given(config: pytest.Config) -> bool:
    """Whether the user set any of our options: only then are they checked before a case is collected."""
    return any(given(config, option)[0] for option in TABLE)


def parse(config: pytest.Config) -> Options:
    """Read and check all options. Raises ``pytest.UsageError`` that names the option and lists what exists."""
    from pytest_flagperf import case
    from pytest_flagperf import words
    from pytest_flagperf.errors import ConfigurationError
    from pytest_flagperf.judging import requirements

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
            frameworks=_listed(raw, "framework", words.FRAMEWORKS),
            precisions=_listed(raw, "precision", words.PRECISIONS) or ("fp32",),
            topologies=tuple(map(case.Topology.parse, _split(raw, "topology"))) or (case.Topology(1, 1),),
            scales=_listed(raw, "scale", words.SCALES) or ("lite",),
            engines=_engines(raw),
            rounds=int(_number(raw, "rounds", 1, whole=True)),
            datasets=_datasets(config, raw),
            weights=_weights(config, raw),
            data_root=_path(config, raw, "data_root"),
            pythons=_interpreters(raw),
            **_container(config, raw),
            targets=_targets(raw),
            timeout=_number(raw, "timeout", 0.0) or None,
            stall_timeout=_number(raw, "stall_timeout", 300.0),
            monitor=_monitor(raw),
            budget=_number(raw, "budget", 0.0) or None,
            cache=_cache(raw),
            published=_published(raw),
            baseline=_baseline(config, raw),
            without_baseline=raw.get("baseline") == NO_BASELINE,
            on_inconclusive=_on_inconclusive(raw),
            max_rounds=int(_number(raw, "max_rounds", MAX_ROUNDS, whole=True)),
            rerun_budget=_number(raw, "rerun_budget", 0.0) or None,
            requirements=tuple(map(requirements.parse, raw.get("require", ()))),
            resume=_resume(config, raw),
            html=_html(config, raw),
            directory=_directory(config, raw),
            replay=_path(config, raw, "replay"),
            explicit=explicit,
        )
    except ConfigurationError as error:
        raise pytest.UsageError(str(error)) from error


def _split(raw: Mapping[str, Any], name: str) -> tuple[str, ...]:
    """The parts of a comma-separated list, each once; none where the option was not given."""
    if name not in raw:
        return ()
    parts = tuple(dict.fromkeys(part.strip() for part in raw[name].split(",") if part.strip()))
    if not parts:
        raise pytest.UsageError(f"{_option(name).flag}: {raw[name]!r} lists nothing")
    return parts


def _listed(raw: Mapping[str, Any], name: str, known: tuple[str, ...]) -> tuple[str, ...]:
    values = _split(raw, name)
    for value in values:
        if value not in known:
            raise pytest.UsageError(f"--{name}: unknown {name} {value!r}. Known: {', '.join(known)}")
    return values


def _number(raw: Mapping[str, Any], name: str, default: float, *, whole: bool = False) -> float:
    if name not in raw:
        return default
    flag = _option(name).flag
    try:
        value = int(raw[name]) if whole else float(raw[name])
    except ValueError:
        kind = "a whole number" if whole else "a number of seconds"
        raise pytest.UsageError(f"{flag}: {raw[name]!r} is not {kind}") from None
    if not 0 < value < float("inf"):
        raise pytest.UsageError(f"{flag}: {raw[name]} is not above zero")
    return value


def _monitor(raw: Mapping[str, Any]) -> float | None:
    if str(raw.get("monitor", "")).casefold() == "off":
        return None
    interval = _number(raw, "monitor", 1.0)
    if interval < SHORTEST_INTERVAL:
        raise pytest.UsageError(f"--monitor: {raw['monitor']} s is too short: {SHORTEST_INTERVAL:g} s at least, or off")
    return interval


def _pairs(raw: Mapping[str, Any], name: str, known: tuple[str, ...]) -> dict[str, str]:
    pairs = {}
    for text in raw.get(name, ()):
        key, separator, value = text.partition("=")
        if not separator or not key or not value:
            raise pytest.UsageError(f"--{name}: {text!r} is not written NAME=VALUE")
        if key not in known:
            raise pytest.UsageError(f"--{name}: unknown name {key!r}. Known: {', '.join(known)}")
        pairs[key] = value
    return pairs


def _datasets(config: pytest.Config, raw: Mapping[str, Any]) -> dict[str, str]:
    from pytest_flagperf import datasets
    from pytest_flagperf.provision import SYNTHETIC

    base = _base(config, "dataset")
    pairs = _pairs(raw, "dataset", tuple(datasets.known()))
    return {n: value if value == SYNTHETIC else str(base / Path(value).expanduser()) for n, value in pairs.items()}


def _weights(config: pytest.Config, raw: Mapping[str, Any]) -> dict[str, str]:
    if "weights" not in raw:
        return {}
    from pytest_flagperf import weights

    base = _base(config, "weights")
    pairs = _pairs(raw, "weights", tuple(weights.known()))
    return {n: value if value == weights.RANDOM else str(base / Path(value).expanduser()) for n, value in pairs.items()}


def _engines(raw: Mapping[str, Any]) -> tuple[str, ...]:
    """Names that are engines, whether or not one is installed; what others bring is looked for only here."""
    wanted = _split(raw, "engine")
    if wanted:
        from pytest_flagperf.errors import ConfigurationError
        from pytest_flagperf.worker.inference import registry

        for name in wanted:
            try:
                registry.check(name)
            except ConfigurationError as error:
                raise pytest.UsageError(f"--engine: {error}") from error
    return wanted


def _base(config: pytest.Config, name: str) -> Path:
    """Where relative paths start: an ini file's are relative to it, others to where pytest was called."""
    return config.invocation_params.dir if given(config, _option(name))[1] != "ini file" else config.rootpath


def _targets(raw: Mapping[str, Any]) -> dict[str, float]:
    from pytest_flagperf import metrics

    found = {}
    for name, text in _pairs(raw, "target", tuple(n for n, m in metrics.known().items())).items():
        try:
            found[name] = float(text)
        except ValueError:
            raise pytest.UsageError(f"--target: {name}={text!r} is not a number") from None
        if found[name] != found[name] or abs(found[name]) == float("inf"):
            raise pytest.UsageError(f"--target: {name}={text} is not a bound")
        if metrics.get(name).unit == "ratio" and not 0 <= found[name] <= 1:
            raise pytest.UsageError(f"--target: {name} is a ratio between 0 and 1, not {text}")
    return found


def _path(config: pytest.Config, raw: Mapping[str, Any], name: str) -> Path | None:
    if name not in raw:
        return None
    return _base(config, name) / Path(raw[name]).expanduser()


def _directory(config: pytest.Config, raw: Mapping[str, Any]) -> Path:
    return _path(config, raw, "flagperf_dir") or config.rootpath / "flagperf-results"


def _baseline(config: pytest.Config, raw: Mapping[str, Any]) -> Path | None:
    path = None if raw.get("baseline") == NO_BASELINE else _path(config, raw, "baseline")
    if path is not None and not path.exists():
        raise pytest.UsageError(f"--baseline: {path} does not exist: name a file, a directory, or {NO_BASELINE}")
    return path


def _on_inconclusive(raw: Mapping[str, Any]) -> str:
    value: str = raw.get("on_inconclusive", "pass")
    if value not in ON_INCONCLUSIVE:
        raise pytest.UsageError(f"--on-inconclusive: {value!r} is not one of {', '.join(ON_INCONCLUSIVE)}")
    return value


def _resume(config: pytest.Config, raw: Mapping[str, Any]) -> Path | None:
    """The session's directory; its bare name means one of those in ``--flagperf-dir``."""
    path = _path(config, raw, "resume")
    if path is None or path.is_dir():
        return path
    named = _directory(config, raw) / raw["resume"]
    return named if named.is_dir() else path


def _html(config: pytest.Config, raw: Mapping[str, Any]) -> Path | None:
    path = _path(config, raw, "flagperf_html")
    missing = [name for name in ("jinja2", "bokeh", "itables") if path is not None and find_spec(name) is None]
    if missing:
        raise pytest.UsageError(
            f"--flagperf-html: the report needs {', '.join(missing)}: pip install 'pytest-flagperf[html]'"
        )
    return path


def _cache(raw: Mapping[str, Any]) -> str:
    value: str = raw.get("cache", "hot")
    if value not in ("hot", "flushed"):
        raise pytest.UsageError(f"--cache: {value!r} is neither hot nor flushed")
    return value


def _published(raw: Mapping[str, Any]) -> str | None:
    """The processor's name, known to be one: a typo is not worth an hour of measuring."""
    if "published" not in raw:
        return None
    from pytest_flagperf.errors import ConfigurationError
    from pytest_flagperf.operators import published

    try:
        published.times(raw["published"])
    except ConfigurationError as error:
        raise pytest.UsageError(f"--published: {error}") from error
    return str(raw["published"])


def _option(name: str) -> Option:
    return next(option for option in TABLE if option.name == name)


def _container(config: pytest.Config, raw: Mapping[str, Any]) -> dict[str, str]:
    """The image and the runtime that is there for it. Without an image nobody needs the runtime."""
    from pytest_flagperf.launch import runtimes

    name = raw.get("container_runtime")
    if name not in (None, *runtimes.RUNTIMES):
        raise pytest.UsageError(f"--container-runtime: {name!r} is not one of {', '.join(runtimes.RUNTIMES)}")
    if "container" not in raw:
        return {"container_runtime": name} if name else {}
    runtime, image = runtimes.find(name), runtimes.check_name(raw["container"])
    return {
        "container": str(_base(config, "container") / image) if runtime == "apptainer" else image,
        "container_runtime": runtime,
    }


def _interpreters(raw: Mapping[str, Any]) -> dict[str, str]:
    """Framework → interpreter; with a container one of its image, which cannot be looked at from here."""
    from pytest_flagperf import words

    pairs = _pairs(raw, "python", words.FRAMEWORKS)
    return pairs if "container" in raw else {name: _interpreter(path) for name, path in pairs.items()}


def _interpreter(text: str) -> str:
    path = Path(text).expanduser()
    if not (path.is_file() and os.access(path, os.X_OK)):
        raise pytest.UsageError(f"--python: {text} is not an executable file")
    # Not resolved: a virtual environment's python is a link, and resolving it would leave the environment.
    return str(path.absolute())
