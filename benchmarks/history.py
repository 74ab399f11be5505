"""A question about 10,000 rounds: ``flagperf history CASE`` answers in less than a second.

2,000 sessions of one case with five rounds each are written to a temporary directory, with the noise of a real run and
three changes among them, and taken in once. Timed is the command as a person gives it: start of Python, the look for
new sessions, the query, the search for change points, table and plot. Once more with every round a session of its own:
10,000 points in one series, which is as many as any question can be about.
"""

from __future__ import annotations

import hashlib
import json
import random
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import paired

from pytest_flagperf import result as results


BOUND = 1.0  # seconds
ROUNDS = 10_000
CASE = "made_up-throughput-pytorch-bf16-1x8-full"
# samples/s, from which share of the sessions on.
LEVELS = ((0.0, 2600.0), (0.4, 2750.0), (0.7, 2590.0), (0.9, 2610.0))
CV = 0.008


def main() -> int:
    parser = paired.arguments(__doc__, pairs=10)
    options = parser.parse_args()
    report = paired.Report("history", {"rounds": ROUNDS})
    for rounds in (5, 1):
        with tempfile.TemporaryDirectory() as name:
            directory = Path(name) / "flagperf-results"
            write_sessions(directory, ROUNDS // rounds, rounds)
            report.rows += measure(directory, ROUNDS // rounds, rounds, options.pairs)
    return report.finish(options.json)


def measure(directory: Path, count: int, rounds: int, pairs: int) -> list[paired.Row]:
    """Seconds of the question, of the same without the look for new sessions, and of taking all of it in."""
    name = f"{count:,} sessions of {rounds} round{'s' if rounds > 1 else ''}"
    taken, _ = command(["--update"], directory)

    costs = paired.take_turns(
        {
            "asked": lambda: command([CASE], directory)[0],
            "not updated": lambda: command([CASE, "--no-update"], directory)[0],
        },
        pairs,
    )
    _, text = command([CASE, "--json"], directory)
    (series,) = json.loads(text)
    assert len(series["points"]) == count, len(series["points"])
    assert len(series["changes"]) >= 2, series["changes"]
    return [
        # What is asked of the first form is the bound; the second one looks through five times as many directories.
        paired.Row(f"{name}: asked", "s own", [c.own for c in costs["asked"]], at_most=BOUND if rounds > 1 else None),
        paired.Row(f"{name}: asked, --no-update", "s own", [c.own for c in costs["not updated"]], at_most=BOUND),
        paired.Row(f"{name}: taken in, once", "s own", [taken.own]),
    ]


def command(arguments: Sequence[str], directory: Path) -> tuple[paired.Cost, str]:
    """Run ``flagperf history`` on the directory."""
    program = [sys.executable, "-m", "pytest_flagperf.cli", "history", *arguments, "--dir", str(directory)]
    environment = paired.pytest_environment(directory.parent / "bytecode", autoload=True)
    return paired.run_process(program, directory.parent, environment)


def write_sessions(directory: Path, count: int, rounds: int) -> None:
    """Sessions as pytest leaves them, without the raw files of their rounds."""
    noise = random.Random(1)
    for number in range(count):
        level = [value for share, value in LEVELS if number >= share * count][-1]
        name = f"session-{number:05d}"
        case = directory / name / CASE
        case.mkdir(parents=True)
        started = 1.7e9 + 3600 * number
        description = {
            "session": name,
            "time_started": started,
            "host": {"name": "host-1", "cpu": "made up"},
            "source": {"commit": f"{int(level):040x}", "changed": False},
        }
        (directory / name / "session.json").write_text(json.dumps(description), encoding="utf-8")
        samples = [noise.gauss(level, CV * level) for _ in range(rounds)]
        results.write_result(case, made_up(name, started, samples, torch=f"2.{int(level) % 7}.0"))
        if number % 500 == 499:
            paired.show_progress(number + 1, count)


def made_up(session: str, started: float, samples: Sequence[float], torch: str) -> results.Result:
    """A result with a dozen metrics, each of so many rounds."""
    figures = [
        {"p_train": x, "p_whole": 0.97 * x, "p_core": 1.02 * x, "train_time": 1e5 / x, "e2e_time": 1e5 / x + 30}
        for x in samples
    ]
    middle = {name: sorted(one[name] for one in figures)[len(figures) // 2] for name in figures[0]}
    return results.Result(
        case=results.CaseInfo(
            id=CASE,
            node_id="suites/training/made_up/test_made_up.py::test_throughput[pytorch-bf16-1x8-full]",
            model="made_up",
            kind="training",
            role="throughput",
            framework="pytorch",
            precision="bf16",
            topology="1x8",
            scale="full",
            vendor="acme",
            devices=list(range(8)),
            unit="samples",
            chip="A1",
        ),
        verdict="passed",
        metrics=results.with_units(middle),
        targets=[],
        rounds=[
            results.RoundResult(
                round=number,
                seed=number,
                directory=f"/elsewhere/{session}/{CASE}/round{number}",
                time_started=started + 300 * number,
                metrics=results.with_units(one),
            )
            for number, one in enumerate(figures, 1)
        ],
        configuration={},
        dataset=results.DatasetInfo(name="made_up", synthetic=False),
        rerun=[],
        spreads={
            name: results.SpreadResult([one[name] for one in figures], "olympic mean", value * 0.99, value * 1.01, CV)
            for name, value in middle.items()
        },
        stack={"torch": torch, "driver": "550.54", "python": "3.11.7", "pytest-flagperf": "0.1.0"},
        code=hashlib.sha256(torch.encode()).hexdigest(),
    )


if __name__ == "__main__":
    sys.exit(main())
