"""Operators: our medians against torch.utils.benchmark's of the same call, and what an item costs beside its calls.

*Ratio*: GEMMs and convolutions are prepared once by the worker's own code, and their very call is timed in turn by the
plugin's clock and by ``torch.utils.benchmark`` (``blocked_autorange``), in one process with one thread.

*Overhead*: of an item, all but the calls of its kernel. The pytest's side is the wall time of an item in a real run
less what its worker took between its two events; the worker's side is an answer less the time within the kernel.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import paired

from pytest_flagperf.launch.context import RankContext
from pytest_flagperf.operators.problems import Convolution
from pytest_flagperf.operators.problems import Gemm
from pytest_flagperf.operators.problems import Problem
from pytest_flagperf.worker.operators import engine
from pytest_flagperf.worker.operators.measure import Plan
from pytest_flagperf.worker.operators.measure import measure
from pytest_flagperf.worker.operators.request import Request


WITHIN = 0.03
OVERHEAD = 15.0  # ms
# Seconds of either side's turn: short, so that a neighbour's bursts meet both.
BUDGET = 0.05

# Of DeepBench's lists those that take one thread less than some ten milliseconds.
GEMMS = [
    Gemm(m, n, k, *transposed)
    for m, n, k, transposed in (
        (1760, 16, 1760, ()),
        (1760, 32, 1760, ()),
        (2048, 16, 2048, ()),
        (2560, 16, 2560, ()),
        (512, 16, 512, (False, True)),
        (1024, 16, 512, (False, True)),
        (1760, 16, 1760, (True, False)),
        (512, 8, 1500, (True, False)),
        (35, 700, 2048, ()),
        (3072, 4, 1024, ()),
    )
]
CONVOLUTIONS = [
    Convolution(*sizes)
    for sizes in (
        (108, 108, 3, 1, 64, 3, 3, 1, 1, 2, 2),
        (54, 54, 64, 1, 64, 3, 3, 1, 1, 1, 1),
        (27, 27, 128, 1, 128, 3, 3, 1, 1, 1, 1),
        (14, 14, 128, 1, 256, 3, 3, 1, 1, 1, 1),
        (7, 7, 256, 1, 512, 3, 3, 1, 1, 1, 1),
        (28, 28, 192, 1, 32, 5, 5, 2, 2, 1, 1),
        (28, 28, 192, 1, 64, 1, 1, 0, 0, 1, 1),
        (14, 14, 512, 1, 48, 5, 5, 2, 2, 1, 1),
        (14, 14, 512, 1, 192, 1, 1, 0, 0, 1, 1),
        (7, 7, 832, 1, 256, 1, 1, 0, 0, 1, 1),
    )
]
TINY = Gemm(128, 64, 128)

TEST = """\
from pytest_flagperf.operators.case import OperatorCase
from pytest_flagperf.operators.problems import Gemm

CASE = OperatorCase(
    family="gemm",
    title="tiny ones",
    problems=[Gemm({m}, {n}, {k} + number, sets=("smoke",)) for number in range({count})],
)


def test_gemm(case, devices, operators):
    assert operators.measure(case, devices).correct()
"""
CONFTEST = """\
import json, time

TIMES = []


def pytest_runtest_logstart(nodeid, location):
    TIMES.append([time.monotonic(), 0.0])


def pytest_runtest_logfinish(nodeid, location):
    TIMES[-1][1] = time.monotonic()


def pytest_unconfigure(config):
    (config.rootpath / "times.json").write_text(json.dumps(TIMES))
"""


def main() -> int:
    parser = paired.arguments(__doc__, pairs=21)
    parser.add_argument("--items", type=int, default=50, help="items to take the overhead of (default: 50)")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    framework = make_framework()
    setting = {"problems": len(GEMMS + CONVOLUTIONS), "items": options.items, "threads": framework.threads}
    report = paired.Report("operators", setting)
    for problem in [*GEMMS, *CONVOLUTIONS]:
        report.rows.append(ratio(framework, problem, options.pairs))
    ours, theirs = on_pytests_side(options.items), on_the_workers_side(framework, options.items)
    report.rows += [
        paired.Row("an item, on pytest's side", "ms", ours),
        paired.Row("an item, in the worker beside its calls", "ms", theirs),
        paired.Row(
            "an item but its calls", "ms", [sum(both) for both in zip(ours, theirs, strict=True)], at_most=OVERHEAD
        ),
    ]
    return report.finish(options.json)


def make_framework() -> Any:
    """The worker's PyTorch on the processor, in this process."""
    import torch

    from pytest_flagperf.worker.operators import pytorch

    torch.set_num_threads(1)
    device = {"device": "cpu", "backend": "gloo", "module": "", "tf32_switches": [], "indices": [0]}
    context = RankContext(Path("case.json"), Path(), 0, 0, 1)
    return pytorch.Framework(context, {"framework": "pytorch", "seed": 1, "device": device})


def ratio(framework: Any, problem: Problem, pairs: int) -> paired.Row:
    """Our median over that of ``torch.utils.benchmark``, pair by pair, of one prepared call."""
    from torch.utils.benchmark import Timer

    kernel, clock = framework.prepare(Request(1, problem)), framework.clock()
    plan = Plan(BUDGET, 0.0, 5, 10_000)
    timer = Timer("run()", globals={"run": kernel.run}, num_threads=1)
    sides: dict[str, Callable[[], float]] = {
        "ours": lambda: float(measure(kernel.run, clock, plan).figures()["time"]),
        "theirs": lambda: float(timer.blocked_autorange(min_run_time=BUDGET).median * 1e6),
    }
    found = paired.take_turns(sides, pairs)
    kernel.close()
    values = [a / b for a, b in zip(found["ours"], found["theirs"], strict=True)]
    name = f"ours / theirs: {problem.family} {problem.id}"
    return paired.Row(name, "ratio", values, at_least=1 - WITHIN, at_most=1 + WITHIN)


def on_pytests_side(count: int) -> list[float]:
    """Milliseconds of each item of a real run that were not its worker's."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        (directory / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
        (directory / "conftest.py").write_text(CONFTEST, encoding="utf-8")
        # The first one waits for the worker's import of the framework, and does not count.
        text = TEST.format(m=TINY.m, n=TINY.n, k=TINY.k, count=count + 1)
        (directory / "test_tiny.py").write_text(text, encoding="utf-8")
        environment = paired.pytest_environment(directory / "bytecode", autoload=True)
        environment["FLAGPERF_LEASE_DIR"] = str(directory / "leases")
        options = ["-q", "-p", "no:cacheprovider", "--vendor=cpu", "--framework=pytorch", "--budget=0.01"]
        paired.run_process([sys.executable, "-m", "pytest", *options], directory, environment)
        items = json.loads((directory / "times.json").read_text(encoding="utf-8"))
        (events,) = directory.rglob("rank0.events.jsonl")
        inside = worked(events)
    return [((end - start) - seconds) * 1e3 for (start, end), seconds in zip(items[1:], inside[1:], strict=True)]


def worked(events: Path) -> list[float]:
    """Seconds between the worker's two events of each problem."""
    found: list[float] = []
    begin = None
    for line in events.read_text(encoding="utf-8").splitlines():
        event = json.loads(line)
        value, moment = event.get("value", {}), event["metadata"]["monotonic_ns"] / 1e9
        if event["event"] != "PROGRESS" or value.get("what") == "idle":
            continue
        if value["done"] == 0:
            begin = moment if begin is None else begin
        elif begin is not None:
            found.append(moment - begin)
            begin = None
    return found


def on_the_workers_side(framework: Any, count: int) -> list[float]:
    """Milliseconds of each answer that were not spent in the kernel's call."""
    within = 0.0
    prepare = framework.prepare

    def prepared(request: Request) -> Any:
        kernel = prepare(request)
        call = kernel.run

        def run() -> None:
            nonlocal within
            begin = time.perf_counter()
            call()
            within += time.perf_counter() - begin

        kernel.run = run
        return kernel

    framework.prepare = prepared
    found = []
    for number in range(count + 1):
        request = Request(number, Gemm(TINY.m, TINY.n, TINY.k + number), budget=0.01, warmup=0.05, most=10_000)
        within, begin = 0.0, time.perf_counter()
        reply = engine.answer(framework, request)
        found.append((time.perf_counter() - begin - within) * 1e3)
        if reply["status"] != "measured":
            raise SystemExit(f"not measured: {reply}")
    framework.prepare = prepare
    return found[1:]


if __name__ == "__main__":
    sys.exit(main())
