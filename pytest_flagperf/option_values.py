"""From the text of an option to its value. Each raises ``pytest.UsageError`` that names the option and what is right.

``raw`` has the texts of the options that were given, by name; see ``options.parse``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING
from typing import Any

import pytest

from pytest_flagperf import options


if TYPE_CHECKING:
    from pytest_flagperf.judging.requirements import Requirement


def split(raw: Mapping[str, Any], name: str) -> tuple[str, ...]:
    """The parts of a comma-separated list, each once; none where the option was not given."""
    if name not in raw:
        return ()
    parts = tuple(dict.fromkeys(part.strip() for part in raw[name].split(",") if part.strip()))
    if not parts:
        raise pytest.UsageError(f"{options.named(name).flag}: {raw[name]!r} lists nothing")
    return parts


def listed(raw: Mapping[str, Any], name: str, known: tuple[str, ...]) -> tuple[str, ...]:
    """A comma-separated list of what is ``known``."""
    values = split(raw, name)
    for value in values:
        if value not in known:
            raise pytest.UsageError(f"--{name}: unknown {name} {value!r}. Known: {', '.join(known)}")
    return values


def number(raw: Mapping[str, Any], name: str, default: float, *, whole: bool = False) -> float:
    """A number above zero; ``default`` where the option was not given."""
    if name not in raw:
        return default
    flag = options.named(name).flag
    try:
        value = int(raw[name]) if whole else float(raw[name])
    except ValueError:
        kind = "a whole number" if whole else "a number of seconds"
        raise pytest.UsageError(f"{flag}: {raw[name]!r} is not {kind}") from None
    if not 0 < value < float("inf"):
        raise pytest.UsageError(f"{flag}: {raw[name]} is not above zero")
    return value


def monitor(raw: Mapping[str, Any]) -> float | None:
    """Seconds between two samples; ``None`` where the monitor is off."""
    if str(raw.get("monitor", "")).casefold() == "off":
        return None
    interval = number(raw, "monitor", 1.0)
    if interval < options.SHORTEST_INTERVAL:
        raise pytest.UsageError(
            f"--monitor: {raw['monitor']} s is too short: {options.SHORTEST_INTERVAL:g} s at least, or off"
        )
    return interval


def key_values(raw: Mapping[str, Any], name: str, known: tuple[str, ...]) -> dict[str, str]:
    """``NAME=VALUE`` options, by their names, all of which are ``known``."""
    pairs = {}
    for text in raw.get(name, ()):
        key, separator, value = text.partition("=")
        # What is left of METRIC>=BOUND, as --require has it.
        if not separator or not key or not value or key[-1] in "<>":
            raise pytest.UsageError(f"--{name}: {text!r} is not written {options.named(name).metavar}")
        if key not in known:
            raise pytest.UsageError(f"--{name}: unknown name {key!r}. Known: {', '.join(known)}")
        pairs[key] = value
    return pairs


def datasets(config: pytest.Config, raw: Mapping[str, Any]) -> dict[str, str]:
    """Dataset → its directory, or ``synthetic``."""
    from pytest_flagperf import datasets
    from pytest_flagperf.provision import SYNTHETIC

    base = start_of_paths(config, "dataset")
    pairs = key_values(raw, "dataset", tuple(datasets.known()))
    return {n: value if value == SYNTHETIC else str(base / Path(value).expanduser()) for n, value in pairs.items()}


def weights(config: pytest.Config, raw: Mapping[str, Any]) -> dict[str, str]:
    """Set of weights → its file, or ``random``."""
    if "weights" not in raw:
        return {}
    from pytest_flagperf import weights

    base = start_of_paths(config, "weights")
    pairs = key_values(raw, "weights", tuple(weights.known()))
    return {n: value if value == weights.RANDOM else str(base / Path(value).expanduser()) for n, value in pairs.items()}


def engines(raw: Mapping[str, Any]) -> tuple[str, ...]:
    """Names that are engines, whether or not one is installed; what others bring is looked for only here."""
    wanted = split(raw, "engine")
    if wanted:
        from pytest_flagperf.errors import ConfigurationError
        from pytest_flagperf.worker.inference import registry

        for name in wanted:
            try:
                registry.check(name)
            except ConfigurationError as error:
                raise pytest.UsageError(f"--engine: {error}") from error
    return wanted


def start_of_paths(config: pytest.Config, name: str) -> Path:
    """Where relative paths start: an ini file's are relative to it, others to where pytest was called."""
    _, origin = options.given(config, options.named(name))
    return config.rootpath if origin == "ini file" else config.invocation_params.dir


def targets(raw: Mapping[str, Any]) -> dict[str, float]:
    """Metric → the bound in the place of the case's."""
    from pytest_flagperf import metrics

    found = {}
    for name, text in key_values(raw, "target", tuple(n for n, m in metrics.known().items())).items():
        try:
            found[name] = float(text)
        except ValueError:
            raise pytest.UsageError(f"--target: {name}={text!r} is not a number") from None
        if found[name] != found[name] or abs(found[name]) == float("inf"):
            raise pytest.UsageError(f"--target: {name}={text} is not a bound")
        if metrics.get(name).unit == "ratio" and not 0 <= found[name] <= 1:
            raise pytest.UsageError(f"--target: {name} is a ratio between 0 and 1, not {text}")
    return found


def requirements(raw: Mapping[str, Any]) -> tuple[Requirement, ...]:
    """What the figures across cases have to hold."""
    from pytest_flagperf.judging import requirements

    texts: Sequence[str] = raw.get("require", ())
    return tuple(map(requirements.parse, texts))


def path_of(config: pytest.Config, raw: Mapping[str, Any], name: str) -> Path | None:
    """A path, absolute; ``None`` where the option was not given."""
    if name not in raw:
        return None
    return start_of_paths(config, name) / Path(raw[name]).expanduser()


def directory(config: pytest.Config, raw: Mapping[str, Any]) -> Path:
    """Where sessions are written."""
    return path_of(config, raw, "flagperf_dir") or config.rootpath / "flagperf-results"


def baseline(config: pytest.Config, raw: Mapping[str, Any]) -> Path | None:
    """What ``--baseline`` names, which is there; ``None`` where it names nothing."""
    path = None if raw.get("baseline") == options.NO_BASELINE else path_of(config, raw, "baseline")
    if path is not None and not path.exists():
        raise pytest.UsageError(
            f"--baseline: {path} does not exist: name a file, a directory, or {options.NO_BASELINE}"
        )
    return path


def on_inconclusive(raw: Mapping[str, Any]) -> str:
    """What is done where a comparison is not decided."""
    value: str = raw.get("on_inconclusive", "pass")
    if value not in options.ON_INCONCLUSIVE:
        raise pytest.UsageError(f"--on-inconclusive: {value!r} is not one of {', '.join(options.ON_INCONCLUSIVE)}")
    return value


def resume(config: pytest.Config, raw: Mapping[str, Any]) -> Path | None:
    """The session's directory; its bare name means one of those in ``--flagperf-dir``."""
    path = path_of(config, raw, "resume")
    if path is None or path.is_dir():
        return path
    named = directory(config, raw) / raw["resume"]
    return named if named.is_dir() else path


def html(config: pytest.Config, raw: Mapping[str, Any]) -> Path | None:
    """Where the HTML report is written: its libraries are there, and a run of hours does not end without a file."""
    path = path_of(config, raw, "flagperf_html")
    missing = [name for name in ("jinja2", "bokeh", "itables") if path is not None and find_spec(name) is None]
    if missing:
        raise pytest.UsageError(
            f"--flagperf-html: the report needs {', '.join(missing)}: pip install 'pytest-flagperf[html]'"
        )
    reason = _unwritable(path) if path is not None else ""
    if reason:
        raise pytest.UsageError(f"--flagperf-html: {path} {reason}: name a file in a directory you may write to")
    return path


def _unwritable(path: Path) -> str:
    """Why no file can be written there, as far as can be told without trying; directories that lack are made."""
    if path.is_dir():
        return "is a directory"
    if path.exists() and not path.is_file():
        return "is no file"
    nearest = next(one for one in path.parents if one.exists())
    if not nearest.is_dir():
        return f"cannot be written, {nearest} is no directory"
    return "" if os.access(nearest, os.W_OK | os.X_OK) else f"cannot be written, {nearest} is not writable"


def cache(raw: Mapping[str, Any]) -> str:
    """The state of the caches that operators find."""
    value: str = raw.get("cache", "hot")
    if value not in ("hot", "flushed"):
        raise pytest.UsageError(f"--cache: {value!r} is neither hot nor flushed")
    return value


def published(raw: Mapping[str, Any]) -> str | None:
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


def container(config: pytest.Config, raw: Mapping[str, Any]) -> dict[str, str]:
    """The image and the runtime that is there for it. Without an image nobody needs the runtime."""
    from pytest_flagperf.launch import runtimes

    name = raw.get("container_runtime")
    if name not in (None, *runtimes.RUNTIMES):
        raise pytest.UsageError(f"--container-runtime: {name!r} is not one of {', '.join(runtimes.RUNTIMES)}")
    if "container" not in raw:
        return {"container_runtime": name} if name else {}
    runtime, image = runtimes.find(name), runtimes.check_name(raw["container"])
    return {
        "container": str(start_of_paths(config, "container") / image) if runtime == "apptainer" else image,
        "container_runtime": runtime,
    }


def interpreters(raw: Mapping[str, Any]) -> dict[str, str]:
    """Framework → interpreter; with a container one of its image, which cannot be looked at from here."""
    from pytest_flagperf import words

    pairs = key_values(raw, "python", words.FRAMEWORKS)
    return pairs if "container" in raw else {name: _interpreter(path) for name, path in pairs.items()}


def _interpreter(text: str) -> str:
    path = Path(text).expanduser()
    if not (path.is_file() and os.access(path, os.X_OK)):
        raise pytest.UsageError(f"--python: {text} is not an executable file")
    # Not resolved: a virtual environment's python is a link, and resolving it would leave the environment.
    return str(path.absolute())
