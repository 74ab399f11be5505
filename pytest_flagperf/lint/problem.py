"""A problem that lint found, and what its codes mean."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from pytest_flagperf.errors import ConfigurationError
from pytest_flagperf.reports.progress import printable


CODES = {
    "FP001": "vendor.toml does not load, or names what its modules do not have",
    "FP002": "an overlay that does not load: a key that its case does not declare tunable, a value that cannot be",
    "FP003": "an overlay sets a target",
    "FP004": "an overlay of a model that no suite has",
    "FP005": "a figure without a source that a reader can follow",
    "FP006": "a peak or another figure that is not above zero",
    "FP007": "a name or alias that another vendor has",
    "FP010": "a test module that cannot be imported",
    "FP011": "a target that nothing can meet, or that everything meets",
    "FP012": "a target without a source",
    "FP020": "an absolute path of one user or host",
    "FP021": "an IP address",
    "FP022": "a host or registry that only its owner reaches",
    "FP023": "a proxy",
    "FP024": "a secret: a private key, a password, a token",
    "FP025": "an image without a digest",
    "FP026": "a container with every right of the host (--privileged)",
    "FP027": "a container in the host's namespaces (--net=host, --ipc=host, --pid=host)",
    "FP028": "a shell script, or code that runs a shell",
    "FP029": "a file that nobody reads",
    "FP030": "FlagPerf: a theoretical peak that cannot be",
    "FP031": "FlagPerf: a target that nothing can meet",
    "FP032": "FlagPerf: a target lower than the standard case's",
    "FP033": "FlagPerf: a name that its runner does not find",
    "FP034": "FlagPerf: a case without a benchmark",
    "FP035": "FlagPerf: a file that the launcher opens is not there",
    "FP036": "FlagPerf: a configuration that cannot be read",
    "W001": "a chip without any peak: no utilization can be told",
}


class NothingToLint(ConfigurationError):
    """A path given to lint holds nothing that it knows."""


@dataclass(frozen=True)
class Problem:
    """One problem; line 0 is the whole file."""

    file: Path
    line: int
    code: str
    message: str

    @property
    def is_warning(self) -> bool:
        """Whether it leaves the exit code alone."""
        return self.code.startswith("W")

    def __str__(self) -> str:
        return printable(f"{self.file}:{self.line}: {self.code} {self.message}")


def line_of(text: str, key: str, *, after: int = 0) -> int:
    """The number of the first line at or after line ``after`` that has ``key`` as a word, else ``after``."""
    word = re.compile(rf"(?<![\w.-]){re.escape(key)}(?![\w-])")
    for number, line in enumerate(text.split("\n"), 1):
        if number >= after and word.search(line):
            return number
    return after
