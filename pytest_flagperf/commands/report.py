"""``flagperf report``: sessions as one HTML file for reviewers, or as a table in another format."""

from __future__ import annotations

import argparse
from importlib import import_module
from pathlib import Path

from pytest_flagperf.reports import formats


HTML = "html"
LANGUAGES = ("en", "zh", "both")
DEFAULT_OUTPUT = Path("flagperf-report.html")


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The command's arguments."""
    listed = [f"  {HTML:<11}one file for reviewers, which needs no network", *_listed()]
    one = commands.add_parser(
        "report",
        help="write the report of sessions: one HTML file, or another format",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="formats:\n" + "\n".join(listed),
    )
    one.add_argument(
        "sessions", nargs="+", type=Path, metavar="SESSION", help="directories below flagperf-results/, or that of all"
    )
    one.add_argument(
        "--format", choices=(HTML, *formats.FORMATS), default=HTML, help="what to write, see below (default: html)"
    )
    one.add_argument(
        "--output", type=Path, metavar="FILE", help=f"where to write it (default: {DEFAULT_OUTPUT}; others are printed)"
    )
    one.add_argument(
        "--language", choices=LANGUAGES, default="both", help="of the HTML report; both has a switch (default: both)"
    )
    formats.add_options(one)
    one.set_defaults(run=run)


def run(chosen: argparse.Namespace) -> int:
    """Write or print the report. Always 0: that cases failed is what it tells."""
    if chosen.format == HTML:
        from pytest_flagperf.reports import html

        output = html.write(chosen.sessions, chosen.output or DEFAULT_OUTPUT, chosen.language)
        print(f"{output} ({output.stat().st_size / 1e6:.1f} MB)")
        return 0

    from pytest_flagperf import sessions

    found = sessions.read_all(chosen.sessions)
    render = import_module(f"pytest_flagperf.reports.formats.{chosen.format}").render
    text = render(found, chosen.output, **formats.given(chosen, chosen.format))
    if text is not None:
        print(text, end="" if text.endswith("\n") else "\n")
    return 0


def _listed() -> list[str]:
    return [f"  {name:<11}{text}" for name, text in formats.FORMATS.items()]
