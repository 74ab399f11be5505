"""Reports in the forms that others read: each module has ``render(sessions, output)`` and reads Results, no more.

``render`` returns what is for standard output: the report where no ``output`` was given, else ``None`` or what there is
to say beside the file. A module is imported when its format is asked for: some need an extra.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping


# Name of the module → what it is for, as ``flagperf report --format`` lists them.
FORMATS: Mapping[str, str] = {
    "flagperf": "FlagPerf's README tables, in Chinese, filled in",
    "inference": "tables of inference in Markdown: by engine, at the edge, LoadGen's scenarios, generation",
    "csv": "one row a case and metric, for spreadsheets and data frames",
    "xlsx": "a workbook: summary, cases, metrics, comparisons, rounds, environment (needs --output)",
    "markdown": "a comment for a pull request: what is not passed in full, the rest folded up",
    "github": "the step summary of GitHub Actions, and annotations on standard output",
    "mllog": "MLPerf Training's :::MLLOG lines, one log a round (ResNet)",
    "mindspore": "throughput, scaling and AMP speed-up, as MindSpore and NVIDIA publish them",
}

# What a format wants to know that no session says: keyword of its ``render`` → help.
OPTIONS: Mapping[str, Mapping[str, str]] = {
    "csv": {"encoding": "utf-8 (default), or utf-8-sig with the mark by which Excel knows UTF-8"},
    "mllog": {
        "submitter": "the organization that submits",
        "platform": "name of the system (default: topology, vendor and chip)",
        "division": "closed or open (default: open)",
        "status": "cloud, onprem, preview or research (default: research)",
        "poc_name": "name of the person to ask",
        "poc_email": "address of the person to ask",
        "cache_cleared": "yes where the system's caches were cleared before each round (default: no)",
    },
}

# ``submitter`` is ``--mlperf-submitter`` on the command line, and ``FLAGPERF_MLPERF_SUBMITTER`` in the environment.
_PREFIXES: Mapping[str, str] = {"csv": "csv", "mllog": "mlperf"}


def add_options(parser: argparse.ArgumentParser) -> None:
    """An option for each of ``OPTIONS``."""
    for name, options in OPTIONS.items():
        group = parser.add_argument_group(f"of --format {name}")
        for keyword, text in options.items():
            flag = f"--{_PREFIXES[name]}-{keyword.replace('_', '-')}"
            group.add_argument(flag, dest=_destination(name, keyword), metavar="TEXT", help=text)


def given(chosen: argparse.Namespace, name: str) -> dict[str, str]:
    """What was given for the format ``name``: keywords for its ``render``."""
    found = {keyword: getattr(chosen, _destination(name, keyword), None) for keyword in OPTIONS.get(name, ())}
    return {keyword: value for keyword, value in found.items() if value is not None}


def _destination(name: str, keyword: str) -> str:
    return f"{_PREFIXES[name]}_{keyword}"
