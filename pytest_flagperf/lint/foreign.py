"""FlagPerf's vendor directories: what cannot be true in their configurations, and what its runner would not find."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from pytest_flagperf import metrics
from pytest_flagperf.devices import vendor as vendors
from pytest_flagperf.errors import ConfigurationError
from pytest_flagperf.importing import names as importing_names
from pytest_flagperf.importing import source
from pytest_flagperf.importing.findings import Source
from pytest_flagperf.importing.findings import Value
from pytest_flagperf.importing.layout import Layout
from pytest_flagperf.importing.layout import VendorConfig
from pytest_flagperf.lint import cases
from pytest_flagperf.lint import text as texts
from pytest_flagperf.lint.problem import Problem
from pytest_flagperf.metrics import Metric


# Below a GFLOP/s nothing trains: such a figure is a placeholder.
_LEAST_PEAK = 1e9
_READABLE = (".py", ".sh", ".json", ".yaml", ".yml", ".md", ".txt", ".toml", ".cfg", "")
_OPENED = {"deepspeed": ("config/ds_config.json", "config/net.sh"), "pytorch": ("extern",)}


def check(directory: Path, found: Layout) -> Iterator[Problem]:
    """The problems of FlagPerf's files below ``directory``."""
    for one in found.not_taken:
        yield Problem(one.file, one.line, "FP033", f"{one.what} {one.reason}")
    for config in found.configs:
        read = source.read(config.path)
        yield from _config(config, read, found.training)
    for case in found.cases:
        yield from _case(case, found.training)
    yield from _installers(directory)
    for path in sorted(_files(directory)):
        try:
            yield from texts.check(path, source.text_of(path))
        except ValueError:
            continue  # binaries and data


def _files(directory: Path) -> Iterator[Path]:
    for folder, inner, files in os.walk(directory):
        inner[:] = sorted(one for one in inner if one not in (".git", "__pycache__", "benchmarks"))
        for name in files:
            path = Path(folder) / name
            if path.suffix in _READABLE and not path.is_symlink():
                yield path


def _config(config: VendorConfig, read: Source, training: Path | None) -> Iterator[Problem]:
    for one in read.not_taken:
        if not one.line or one.what == "the file":
            yield Problem(one.file, one.line, "FP036", one.reason)
    peak = read.values.get("theoryflops")
    if peak is not None:
        reason = _peak(config, peak.value)
        if reason:
            yield Problem(peak.file, peak.line, "FP030", f"theoryflops = {peak.value!r}: {reason}")
    base = _base(config, training)
    for name, value in read.values.items():
        yield from _target(name, value, base)


def _peak(config: VendorConfig, value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return "is no number"
    if value <= 0:
        return "a peak is above zero; leave out what is not known"
    if value < _LEAST_PEAK:
        return "a peak in FLOP/s is larger by many orders"
    known = vendors.names([*vendors.installed(), vendors.bundled()]).get(importing_names.load().vendor(config.vendor))
    try:
        chips = vendors.load(known).chips.items() if known else ()
    except ConfigurationError:
        return ""  # said of the vendor's own file
    peaks = [p for name, chip in chips if config.hardware in (name, chip.family) for p in chip.peak.values()]
    if peaks and value > max(peaks) * 1e12 * 1.05:
        return f"the highest peak of {config.hardware} is {max(peaks):g} TFLOP/s"
    return ""


def _base(config: VendorConfig, training: Path | None) -> Source | None:
    if training is None:
        return None
    path = training / "benchmarks" / config.model / config.framework.partition("_")[0] / "config" / "_base.py"
    return source.read(path) if path.is_file() else None


def _target(name: str, value: Value, base: Source | None) -> Iterator[Problem]:
    target = importing_names.load().targets.get(name)
    if target is None or isinstance(value.value, bool) or not isinstance(value.value, (int, float)):
        return
    metric: Metric = metrics.get(target.metric)
    direction = "at least" if metric.better == "higher" else "at most"
    bound = value.value / 100 if target.percent else value.value
    # Its names do not always say the truth: target_mAP in percent is not impossible but percent.
    if metric.unit != "ratio" or bound <= 0:
        reason = cases.impossible(target.metric, bound, direction)
        if reason:
            yield Problem(value.file, value.line, "FP031", f"{name} = {value.value!r}: {reason}")
    standard = base.values.get(name) if base is not None else None
    if standard is None or isinstance(standard.value, bool) or not isinstance(standard.value, (int, float)):
        return
    if value.value < standard.value if metric.better == "higher" else value.value > standard.value:
        message = f"{name} = {value.value!r} is easier to meet than the standard case's {standard.value!r}"
        yield Problem(value.file, value.line, "FP032", message)


def _case(directory: Path, training: Path | None) -> Iterator[Problem]:
    model, _, framework = directory.name.partition("-")
    if training is not None and (training / "benchmarks").is_dir():
        known = sorted(path.name for path in (training / "benchmarks").iterdir() if path.is_dir())
        if model not in known:
            alike = [name for name in known if name.lower() == model.lower()]
            hint = f"; benchmarks/ has {alike[0]}" if alike else ""
            yield Problem(directory, 0, "FP034", f"there is no benchmark {model}{hint}")
        elif not (training / "benchmarks" / model / framework.partition("_")[0]).is_dir():
            yield Problem(directory, 0, "FP034", f"benchmark {model} has no {framework}")
    for name in _OPENED.get(framework, ()):
        if not (directory / name).exists():
            yield Problem(directory, 0, "FP035", f"there is no {name}, which the launcher of {framework} opens")


def _installers(directory: Path) -> Iterator[Problem]:
    for path in sorted(directory.rglob("docker_image/*/*_install.sh")):
        wanted = f"{path.parent.name}_install.sh"
        if path.name != wanted:
            yield Problem(path, 0, "FP033", f"is never run: for {path.parent.name} it is called {wanted}")
