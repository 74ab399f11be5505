"""The HTML report of 500 results: made in less than 5 s, smaller than 10 MB, open in less than 2 s.

The results are real ones, of a session given with ``--session`` or of the small suite in ``tests/``, copied with the
files of their rounds under other ids; every third one gets another verdict, so that there is something to filter.
*Made* is ``flagperf report`` as a person gives it, start of Python included. *Opened* is what the browser says: until
the page has loaded, and until its tables can be sorted. Needs the extra ``html``, playwright, and a Chromium.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import msgspec
import paired

from pytest_flagperf import result as results
from pytest_flagperf import sessions


RESULTS = 500
MADE, SIZE, OPENED = 5.0, 10.0, 2.0  # s, MB, s
SUITE = Path(__file__).parents[1] / "tests" / "suite"
VERDICTS = ("passed", "missed", "regressed")


def main() -> int:
    parser = paired.arguments(__doc__, pairs=6)
    parser.add_argument("--session", type=Path, help="a session with results of models (default: one of tests/suite)")
    options = parser.parse_args()
    report = paired.Report("report", {"results": RESULTS})
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        session = options.session or run_suite(directory)
        copies = copy(sessions.read_all([session])[0], directory / "session")
        output = directory / "report.html"
        made = [make(copies, output) for _ in range(options.pairs)]
        report.rows += [
            paired.Row("made", "s own", [cost.own for cost in made], at_most=MADE),
            paired.Row("size", "MB", [output.stat().st_size / 1e6], at_most=SIZE),
            *opened(output, options.pairs),
        ]
    return report.finish(options.json)


def run_suite(directory: Path) -> Path:
    """A session of the small suite, two rounds of each of its tests."""
    target = directory / "results"
    arguments = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "--rounds=2", f"--flagperf-dir={target}", str(SUITE)]
    environment = paired.pytest_environment(directory / "bytecode", autoload=True)
    paired.run_process([sys.executable, *arguments], directory, environment)
    return target


def copy(session: sessions.SessionFiles, target: Path) -> Path:
    """A session with as many results as wanted, the files of their rounds among them."""
    pairs = [
        (one, path) for one, path in zip(session.results, session.files, strict=True) if one.case.kind != "operator"
    ]
    for number in range(RESULTS):
        result, path = pairs[number % len(pairs)]
        name = f"{result.case.id}-copy{number:03d}"
        directory = target / name
        shutil.copytree(path.parent, directory)
        rounds = [
            msgspec.structs.replace(one, directory=str(directory / Path(one.directory).name)) for one in result.rounds
        ]
        case = msgspec.structs.replace(result.case, id=name, node_id=f"{result.case.node_id}-{number}")
        verdict = VERDICTS[number % 3] if result.error is None else result.verdict
        results.write_result(directory, msgspec.structs.replace(result, case=case, rounds=rounds, verdict=verdict))
    shutil.copy(session.directory / sessions.DESCRIPTION, target)
    return target


def make(session: Path, output: Path) -> paired.Cost:
    """What ``flagperf report`` costs."""
    program = [sys.executable, "-m", "pytest_flagperf.cli", "report", str(session), "--output", str(output)]
    environment = paired.pytest_environment(output.parent / "bytecode", autoload=True)
    return paired.run_process(program, output.parent, environment)[0]


def opened(output: Path, times: int) -> Sequence[paired.Row]:
    """Seconds until the page has loaded, and until its tables are ready, each time in a browser context of its own."""
    from playwright.sync_api import sync_playwright

    loaded, ready = [], []
    with sync_playwright() as playwright:
        program = shutil.which("chromium") or shutil.which("google-chrome")
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        for _ in range(times):
            page = browser.new_page()
            page.goto(output.as_uri(), wait_until="load")
            page.wait_for_selector("html[data-ready]")
            loaded.append(page.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd / 1000"))
            ready.append(page.evaluate("performance.getEntriesByName('flagperf-ready')[0].startTime / 1000"))
            page.close()
        browser.close()
    return [
        paired.Row("opened: loaded", "s", loaded, at_most=OPENED),
        paired.Row("opened: tables can be sorted", "s", ready, at_most=OPENED),
    ]


if __name__ == "__main__":
    sys.exit(main())
