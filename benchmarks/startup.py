"""What the plugin adds to the start of pytest where there is no case: less than 30 ms.

A directory with one trivial test, with the plugin and with ``-p no:flagperf``; every other plugin is the same on both
sides. One more situation has no other plugin at all, so that nobody else has imported what ours needs.
"""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import paired
from tabulate import tabulate


BOUND = 30.0  # ms
IMPORT_RUNS = 5
SHOWN_MODULES = 10
_IMPORT = re.compile(r"import time: +(\d+) \| +(\d+) \| +(\S+)")


@dataclass(frozen=True)
class Situation:
    """One way pytest is started: its arguments with the plugin and without it."""

    name: str
    plugin: Sequence[str]
    without: Sequence[str]
    alone: bool = False


SITUATIONS = (
    Situation("collect one test", ["--collect-only", "-q"], ["--collect-only", "-q", "-p", "no:flagperf"]),
    Situation("print versions", ["-VV"], ["-VV", "-p", "no:flagperf"]),
    Situation(
        "collect one test, no other plugin",
        ["--collect-only", "-q", "-p", "pytest_flagperf.plugin"],
        ["--collect-only", "-q"],
        alone=True,
    ),
)


def main() -> int:
    parser = paired.arguments(__doc__, pairs=40)
    options = parser.parse_args()
    report = paired.Report("startup", {"plugins": paired.installed_plugins()})
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name) / "tests"
        directory.mkdir()
        (directory / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
        (directory / "test_trivial.py").write_text("def test_trivial():\n    assert True\n", encoding="utf-8")
        for situation in SITUATIONS:
            report.rows += measure(situation, directory, options.pairs)
        for situation in (SITUATIONS[0], SITUATIONS[2]):
            show_imports(situation, directory)
    return report.finish(options.json)


def measure(situation: Situation, directory: Path, pairs: int) -> list[paired.Row]:
    """Milliseconds added by each clock, and what pytest takes without the plugin."""

    def side(arguments: Sequence[str]) -> Callable[[], paired.Cost]:
        return lambda: start(["-m", "pytest", *arguments], directory, alone=situation.alone)[0]

    costs = paired.take_turns({"without": side(situation.without), "with": side(situation.plugin)}, pairs)

    def added(clock: str) -> list[float]:
        both = zip(costs["with"], costs["without"], strict=True)
        return [(getattr(one, clock) - getattr(other, clock)) * 1e3 for one, other in both]

    without = costs["without"]
    return [
        paired.Row(f"{situation.name}: added", "ms own", added("own"), at_most=BOUND),
        paired.Row(f"{situation.name}: added", "ms wall", added("wall")),
        paired.Row(f"{situation.name}: added", "ms cpu", added("cpu")),
        paired.Row(f"{situation.name}: without", "ms own", [cost.own * 1e3 for cost in without]),
        paired.Row(f"{situation.name}: without", "ms wall", [cost.wall * 1e3 for cost in without]),
    ]


def start(arguments: Sequence[str], directory: Path, *, alone: bool) -> tuple[paired.Cost, str]:
    """Start this interpreter with ``arguments``; ``alone`` keeps installed plugins from being loaded by themselves."""
    environment = paired.pytest_environment(directory.parent / "bytecode", autoload=not alone)
    return paired.run_process([sys.executable, *arguments], directory, environment)


def show_imports(situation: Situation, directory: Path) -> None:
    """Print the modules that are loaded only with the plugin, by what each one's own body takes."""
    ours = imports(situation.plugin, directory, alone=situation.alone)
    others = imports(situation.without, directory, alone=situation.alone)
    added = sorted(((ours[name], name) for name in ours.keys() - others.keys()), reverse=True)
    total = sum(time for time, _ in added)
    print(
        f"\n{situation.name}: {len(added)} modules are loaded only with the plugin, {total / 1e3:.1f} ms of their own"
    )
    print(tabulate([(name, f"{time / 1e3:.2f}") for time, name in added[:SHOWN_MODULES]], headers=("module", "ms")))


def imports(arguments: Sequence[str], directory: Path, *, alone: bool) -> dict[str, int]:
    """Module → microseconds of its own import, the least of several runs."""
    found: dict[str, int] = {}
    for _ in range(IMPORT_RUNS):
        _, text = start(["-X", "importtime", "-m", "pytest", *arguments], directory, alone=alone)
        for own, _, name in _IMPORT.findall(text):
            found[name] = min(int(own), found.get(name, int(own)))
    return found


if __name__ == "__main__":
    sys.exit(main())
