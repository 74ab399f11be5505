"""Collection of 1,000 cases: less than 2 seconds, for the whole of ``pytest --collect-only``.

Test modules like those in ``suites/`` are made in a temporary directory, each with a ``CASE`` of its own, and collected
for three frameworks, three precisions and two topologies. *Cold* is a fresh checkout: pytest has rewritten no test
module yet. The reference is as many tests with the same ids and marks from ``pytest.mark.parametrize``, without the
plugin. All of it once with every installed plugin, whose start counts too, and once with no plugin but ours.
"""

from __future__ import annotations

import itertools
import math
import re
import shutil
import sys
import tempfile
from collections.abc import Callable
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import paired


BOUND = 2.0  # seconds
FRAMEWORKS = ("pytorch", "paddle", "mindspore")
PRECISIONS = ("fp32", "bf16", "amp")
TOPOLOGIES = ("1x1", "1x2")
ROLES = ("convergence", "throughput")
SELECTIONS = [
    (framework, precision, topology, "lite")
    for framework, precision, topology in itertools.product(FRAMEWORKS, PRECISIONS, TOPOLOGIES)
]

CASE = '''\
"""A made-up model."""

from __future__ import annotations

import pytest

from pytest_flagperf import Scale
from pytest_flagperf import TrainingCase
from pytest_flagperf import at_least


CASE = TrainingCase(
    model="{model}",
    title="A made-up model",
    workloads={{"pytorch": "pytorch:Model", "paddle": "paddle:Model", "mindspore": "mindspore:Model"}},
    scales={{
        "full": Scale(
            dataset="imagenet2012",
            targets=[at_least("top1", 0.759, source="made up")],
            config={{"width": 64, "batch_size": 256, "epochs": 90, "learning_rate": 0.1, "momentum": 0.9}},
        ),
        "lite": Scale(
            dataset="digits",
            targets=[at_least("top1", 0.96, source="made up")],
            config={{"width": 16, "global_batch_size": 64, "epochs": 8, "learning_rate": 0.004, "momentum": 0.9}},
            frameworks={{"paddle": {{"learning_rate": 0.003}}}},
        ),
    }},
    tunable={{"batch_size", "learning_rate", "epochs"}},
    config={{"seed": 1, "gradient_accumulation_steps": 1}},
)
'''

PLAIN = '''\
"""The same tests without the plugin."""

from __future__ import annotations

import pytest


SELECTIONS = {selections!r}
CASES = [
    pytest.param(
        selection,
        id="-".join(selection),
        marks=[getattr(pytest.mark, name) for name in ("{model}", *selection[:2], "training", selection[3])],
    )
    for selection in SELECTIONS
]
'''

TEST = '''

{parametrize}@pytest.mark.{role}
def test_{role}(case{fixtures}):
    """Would run the case."""
    assert case
'''


def main() -> int:
    parser = paired.arguments(__doc__, pairs=12)
    parser.add_argument("--cases", type=int, default=1000, help="cases to collect, at least (default: 1000)")
    options = parser.parse_args()
    modules = math.ceil(options.cases / (len(ROLES) * len(SELECTIONS)))
    cases = modules * len(ROLES) * len(SELECTIONS)
    setting = {"cases": cases, "test modules": modules, "plugins": paired.installed_plugins()}
    report = paired.Report("collection", setting)
    with tempfile.TemporaryDirectory() as name:
        ours, plain = Path(name) / "ours", Path(name) / "plain"
        write_suite(ours, modules, plugin=True)
        write_suite(plain, modules, plugin=False)
        for autoload, cold in itertools.product((True, False), (True, False)):
            report.rows += measure(ours, plain, cases, options.pairs, autoload=autoload, cold=cold)
    return report.finish(options.json)


def write_suite(directory: Path, modules: int, *, plugin: bool) -> None:
    """A directory for each model with its test module, as in ``suites/training``."""
    directory.mkdir()
    (directory / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    head = CASE if plugin else PLAIN
    for number in range(modules):
        model = f"model_{number:03}"
        tests = [
            TEST.format(
                role=role,
                fixtures=", devices, dataset, launcher" if plugin else "",
                parametrize="" if plugin else '@pytest.mark.parametrize("case", CASES)\n',
            )
            for role in ROLES
        ]
        text = head.format(model=model, selections=SELECTIONS) + "".join(tests)
        (directory / model).mkdir()
        (directory / model / f"test_{model}.py").write_text(text, encoding="utf-8")


def measure(ours: Path, plain: Path, cases: int, pairs: int, *, autoload: bool, cold: bool) -> list[paired.Row]:
    """Seconds of both sides, and what the plugin adds; ``autoload`` of every installed plugin, or of none."""
    lists = {"framework": FRAMEWORKS, "precision": PRECISIONS, "topology": TOPOLOGIES, "scale": ["lite"]}
    chosen = [argument for option, values in lists.items() for argument in (f"--{option}", ",".join(values))]
    # The plain tests' marks are registered by nobody.
    without = ["-W", "ignore", *(["-p", "no:flagperf"] if autoload else [])]
    with_plugin = [*chosen, *([] if autoload else ["-p", "pytest_flagperf.plugin"])]
    run = partial(collect, cases=cases, cold=cold, bytecode=ours.parent / "bytecode", autoload=autoload)
    sides: dict[str, Callable[[], paired.Cost]] = {
        "plain": partial(run, plain, without),
        "ours": partial(run, ours, with_plugin),
    }
    costs = paired.take_turns(sides, pairs)
    ours_costs, plain_costs = costs["ours"], costs["plain"]
    added = [one.cpu - other.cpu for one, other in zip(ours_costs, plain_costs, strict=True)]
    name = f"{'cold' if cold else 'warm'}, {'every installed plugin' if autoload else 'no other plugin'}"
    return [
        paired.Row(f"{name}: cases", "s own", [cost.own for cost in ours_costs], at_most=BOUND),
        paired.Row(f"{name}: cases", "s wall", [cost.wall for cost in ours_costs]),
        paired.Row(f"{name}: plain tests", "s own", [cost.own for cost in plain_costs]),
        paired.Row(f"{name}: plain tests", "s wall", [cost.wall for cost in plain_costs]),
        paired.Row(f"{name}: cases - plain tests", "s cpu", added),
    ]


def collect(
    directory: Path, arguments: Sequence[str], *, cases: int, bytecode: Path, autoload: bool, cold: bool
) -> paired.Cost:
    """Collect the suite once. Ends the benchmark where not all of its cases were found."""
    if cold:
        shutil.rmtree(bytecode / directory.relative_to("/"), ignore_errors=True)
    argv = [sys.executable, "-m", "pytest", "--collect-only", "-q", *arguments]
    cost, text = paired.run_process(argv, directory, paired.pytest_environment(bytecode, autoload=autoload))
    found = re.search(r"^(\d+) tests? collected", text, re.MULTILINE)
    if found is None or int(found[1]) != cases:
        raise SystemExit(f"{cases} cases were to be collected\n{text}")
    return cost


if __name__ == "__main__":
    sys.exit(main())
