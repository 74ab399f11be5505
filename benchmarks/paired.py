"""What the benchmarks share: paired runs, the median with its interval, one table, one JSON file.

Two sides are measured in turn, A B, B A, A B …, so that whatever else the machine does meets both; what is judged
is the median over the pairs.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import asdict
from dataclasses import dataclass
from dataclasses import field
from importlib.metadata import PackageNotFoundError
from importlib.metadata import entry_points
from importlib.metadata import version
from pathlib import Path
from typing import Any
from typing import TypeVar

from tabulate import tabulate


PACKAGES = ("pytest-flagperf", "pytest", "torch", "numpy")
CONFIDENCE = 0.95

T = TypeVar("T")


@dataclass(frozen=True)
class Cost:
    """What a piece of work cost in seconds: elapsed, queued (ready, but no processor was free), on the processor."""

    wall: float
    queued: float
    cpu: float

    @property
    def own(self) -> float:
        """Elapsed without the queue: what it takes where nothing else wants the processor. Sleep and disk count."""
        return self.wall - self.queued

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.wall + other.wall, self.queued + other.queued, self.cpu + other.cpu)

    def __sub__(self, other: Cost) -> Cost:
        return Cost(self.wall - other.wall, self.queued - other.queued, self.cpu - other.cpu)


@dataclass(frozen=True)
class Row:
    """A line of the table: the values of one quantity over the pairs, and the bound it has to hold, if any."""

    name: str
    unit: str
    values: Sequence[float]
    at_least: float | None = None
    at_most: float | None = None

    @property
    def median(self) -> float:
        """What is judged."""
        return statistics.median(self.values)

    @property
    def interval(self) -> tuple[float, float, float]:
        """Low, high and coverage of the median's interval between two order statistics; assumes no distribution.

        The k-th value from either end, with the largest k that covers 95 %; fewer than 6 values cannot, and their
        range stands in with the coverage it has (Conover 1999, Practical Nonparametric Statistics, section 3.2).
        """
        ordered, count = sorted(self.values), len(self.values)
        outside, depth, tail = 2 * 0.5**count, 1, 0.5**count
        while depth < (count + 1) // 2:
            tail += math.comb(count, depth) * 0.5**count
            if 2 * tail > 1 - CONFIDENCE:
                break
            outside, depth = 2 * tail, depth + 1
        return ordered[depth - 1], ordered[-depth], 1 - outside

    @property
    def bound(self) -> str:
        """The bound as a person writes it."""
        if self.at_least is not None:
            return f">= {self.at_least:g}" + (f", < {self.at_most:g}" if self.at_most is not None else "")
        return f"< {self.at_most:g}" if self.at_most is not None else ""

    @property
    def holds(self) -> bool:
        """Whether the median holds the bound; a row without one does."""
        return self._within(self.median)

    @property
    def decided(self) -> bool:
        """Whether an interval of 95 % lies on the median's side of the bound as a whole; a row without one is."""
        *ends, coverage = self.interval
        return not self.bound or (coverage >= CONFIDENCE and all(self._within(end) == self.holds for end in ends))

    def _within(self, value: float) -> bool:
        return (self.at_least is None or value >= self.at_least) and (self.at_most is None or value < self.at_most)

    @property
    def outcome(self) -> str:
        """What the table says about the bound."""
        if not self.bound:
            return ""
        return ("holds" if self.holds else "DOES NOT HOLD") + ("" if self.decided else ", undecided")


@dataclass
class Report:
    """One benchmark's rows: printed, written, and turned into the exit status."""

    benchmark: str
    setting: Mapping[str, Any]
    rows: list[Row] = field(default_factory=list)
    # What there is no row of → why.
    not_measured: dict[str, str] = field(default_factory=dict)

    def finish(self, path: Path | None) -> int:
        """Print the table, write the JSON file where one is asked for.

        Returns 1 where a bound does not hold, and where nothing was measured.
        """
        print(f"\n{self.benchmark}: {', '.join(f'{key} {value}' for key, value in self.setting.items())}")
        print(tabulate([self._line(row) for row in self.rows], headers="keys", disable_numparse=True))
        if not all(row.decided for row in self.rows):
            print(
                "undecided: the interval contains the bound, or rests on fewer than 6 pairs. More --pairs would decide."
            )
        for name, why in self.not_measured.items():
            print(f"not measured: {name}: {why}")
        if path is not None:
            path.write_text(json.dumps(self._document(), indent=1) + "\n", encoding="utf-8")
        return 0 if self.rows and all(row.holds for row in self.rows) else 1

    @staticmethod
    def _line(row: Row) -> dict[str, str]:
        low, high, coverage = row.interval
        return {
            "quantity": row.name,
            "unit": row.unit,
            "pairs": str(len(row.values)),
            "median": f"{row.median:.4g}",
            "interval of the median": f"{low:.4g} .. {high:.4g} ({coverage:.0%})",
            "min .. max": f"{min(row.values):.4g} .. {max(row.values):.4g}",
            "bound": row.bound,
            "": row.outcome,
        }

    def _document(self) -> dict[str, Any]:
        return {
            "schema_version": 1,
            "benchmark": self.benchmark,
            "setting": dict(self.setting),
            "machine": machine(),
            "not_measured": dict(self.not_measured),
            "rows": [
                {
                    **asdict(row),
                    "median": row.median,
                    "interval": list(row.interval[:2]),
                    "coverage": row.interval[2],
                    "holds": row.holds,
                    "decided": row.decided,
                }
                for row in self.rows
            ],
        }


def arguments(description: str | None, *, pairs: int) -> argparse.ArgumentParser:
    """A parser with the options that every benchmark has."""
    parser = argparse.ArgumentParser(description=(description or "").partition("\n")[0])
    parser.add_argument("--pairs", type=_positive, default=pairs, metavar="N", help=f"pairs to run (default: {pairs})")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure to FILE as well")
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not above zero")
    return number


def take_turns(sides: Mapping[str, Callable[[], T]], pairs: int) -> dict[str, list[T]]:
    """Each side's ``pairs`` results, after one turn that does not count. The order rotates: no side is always first."""
    names = list(sides)
    results: dict[str, list[T]] = {name: [] for name in names}
    for side in sides.values():
        side()
    for turn in range(pairs):
        shift = turn % len(names)
        for name in names[shift:] + names[:shift]:
            results[name].append(sides[name]())
        show_progress(turn + 1, pairs)
    return results


def show_progress(done: int, total: int) -> None:
    """Where a person watches, one line that counts up."""
    if sys.stderr.isatty():
        print(f"\r{done}/{total}", end="\n" if done == total else "", file=sys.stderr, flush=True)


def run_process(argv: Sequence[str], cwd: Path, environment: Mapping[str, str]) -> tuple[Cost, str]:
    """Run a process to its end. Returns its cost, children that it waited for included, and what it printed."""
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as output:
        start = time.perf_counter()
        process = subprocess.Popen(argv, cwd=cwd, env=dict(environment), stdout=output, stderr=subprocess.STDOUT)
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        wall = time.perf_counter() - start
        queued = queue_time(f"/proc/{process.pid}")
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        text = output.read()
    if process.returncode != 0:
        raise SystemExit(f"exit status {process.returncode} from {' '.join(argv)}\n{text}")
    return Cost(wall, queued, usage.ru_utime + usage.ru_stime), text


def so_far() -> Cost:
    """What this thread has cost until now; the difference of two is what is between them."""
    return Cost(time.perf_counter(), queue_time("/proc/thread-self"), time.thread_time())


def queue_time(process: str) -> float:
    """Seconds that a process' main thread was ready and waited for a processor; 0 where the kernel does not count them.

    The second figure of ``schedstat`` (Linux, Documentation/scheduler/sched-stats.rst).
    """
    try:
        return int(Path(process, "schedstat").read_text(encoding="ascii").split()[1]) / 1e9
    except FileNotFoundError:
        return 0.0


def pytest_environment(bytecode: Path, *, autoload: bool) -> dict[str, str]:
    """The environment without the caller's pytest and plugin options, with or without ``autoload`` of plugins.

    Modules are compiled once, into ``bytecode``: what is measured is an installed plugin, not a compiler.
    """
    dropped = ("PYTEST_", "FLAGPERF_", "PYTHONDONTWRITEBYTECODE")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
    kept["PYTHONPYCACHEPREFIX"] = str(bytecode)
    return kept if autoload else {**kept, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}


def installed_plugins() -> str:
    """The packages whose pytest plugins are loaded by themselves."""
    return ", ".join(sorted({point.dist.name for point in entry_points(group="pytest11") if point.dist is not None}))


def machine() -> dict[str, Any]:
    """What figures depend on: processors, load and versions."""
    found: dict[str, Any] = {
        "processors": len(os.sched_getaffinity(0)),
        "load_average": [round(load, 2) for load in os.getloadavg()],
        "python": platform.python_version(),
    }
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return {**found, "plugins": installed_plugins()}
