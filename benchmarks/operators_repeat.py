"""Operators: do two runs of the smoke set agree, and how steady is the machine they ran on?

*Agreement*: the smoke set is run again and again by pytest, each run a session of its own; of two runs in a row the
share of problems whose medians are within 10 % of each other.

*The machine*: one call of PyTorch, without the plugin, timed back to back; of its windows as long as a problem of the
smoke set is measured for, the share whose median is within 10 % of that of the window before. A run of problems cannot
agree better with another than a bare loop does with itself.
"""

from __future__ import annotations

import itertools
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import paired

from pytest_flagperf.operators import table
from pytest_flagperf.operators.engine import SMOKE_BUDGET


WITHIN = 0.10
SHARE = 0.9
LOOP_SECONDS = 30.0


def main() -> int:
    parser = paired.arguments(__doc__, pairs=1)
    options = parser.parse_args()
    runs, seconds = [], []
    for number in range(options.pairs + 1):
        begin = time.perf_counter()
        runs.append(medians())
        seconds.append(time.perf_counter() - begin)
        paired.show_progress(number + 1, options.pairs + 1)
    agreeing = [share(list(one.values()), [other[name] for name in one]) for one, other in itertools.pairwise(runs)]
    windows = bare_loop()
    report = paired.Report("operators_repeat", {"problems": len(runs[0]), "window": f"{SMOKE_BUDGET} s"})
    report.rows = [
        paired.Row("the smoke set", "s", seconds, at_most=60.0),
        paired.Row("medians within 10 % of the run before", "ratio", agreeing, at_least=SHARE),
        paired.Row("windows of a bare loop, likewise", "ratio", [share(windows[:-1], windows[1:])]),
    ]
    return report.finish(options.json)


def medians() -> dict[str, float]:
    """Test → median in µs, of one run of the smoke set."""
    root = Path(__file__).resolve().parents[1]
    with tempfile.TemporaryDirectory() as name:
        environment = paired.pytest_environment(Path(name) / "bytecode", autoload=True)
        environment["FLAGPERF_LEASE_DIR"] = str(Path(name) / "leases")
        command = [sys.executable, "-m", "pytest", "suites/operators", "-m", "smoke", "-q", "-p", "no:cacheprovider"]
        command += ["--vendor=cpu", "--framework=pytorch", f"--flagperf-dir={name}"]
        paired.run_process(command, root, environment)
        (session,) = (path.parent for path in Path(name).glob("*/session.json"))
        return {one.case.node_id: one.metrics["time"].value for one in table.find(session) if "time" in one.metrics}


def bare_loop() -> list[float]:
    """Medians in µs of windows of one product, timed back to back in this process."""
    import torch

    a, b = torch.rand(1024, 512), torch.rand(512, 700)
    found, end = [], time.perf_counter() + LOOP_SECONDS
    while time.perf_counter() < end:
        samples, over = [], time.perf_counter() + SMOKE_BUDGET
        while time.perf_counter() < over:
            begin = time.perf_counter()
            torch.mm(a, b)
            samples.append((time.perf_counter() - begin) * 1e6)
        found.append(statistics.median(samples))
    return found


def share(ones: Sequence[float], others: Sequence[float]) -> float:
    """The share of pairs that are within 10 % of each other."""
    pairs = list(zip(ones, others, strict=True))
    return sum(abs(other / one - 1) <= WITHIN for one, other in pairs) / len(pairs)


if __name__ == "__main__":
    sys.exit(main())
