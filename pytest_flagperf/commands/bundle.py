"""``flagperf bundle``: a session as one archive with checksums."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The command's arguments."""
    one = commands.add_parser("bundle", help="pack a session into one archive with checksums, to hand it in")
    one.add_argument("session", type=Path, help="a directory below flagperf-results/")
    one.add_argument(
        "--output", type=Path, metavar="FILE", help="default: <session>.tar.gz in the directory you are in"
    )
    one.set_defaults(run=run, misused=one.error)


def run(chosen: argparse.Namespace) -> int:
    """Judge the session again as a reviewer would, and write the archive. 1 where a reviewer would object."""
    from pytest_flagperf import bundles
    from pytest_flagperf.commands import verify
    from pytest_flagperf.reports.progress import printable

    if chosen.output is not None:
        _make_room(chosen)
    bundle = bundles.make(chosen.session, chosen.output)
    # What was packed is judged, as it will be: with the vendor files that it brings and no others' paths.
    outcome = verify.of_bundle(bundle.path)
    for note in bundle.notes:
        print(f"note: {printable(note)}", file=sys.stderr)
    for problem in outcome.findings.problems:
        print(f"problem: {printable(str(problem))}", file=sys.stderr)
    size = bundle.path.stat().st_size
    print(f"{bundle.path}: {len(bundle.manifest.files)} files, {size / 1e3:,.0f} kB")
    print(f"sha256 {bundle.sha256}")
    if outcome.findings.problems:
        print("flagperf verify will object to this bundle: see above", file=sys.stderr)
        return 1
    return 0


def _make_room(chosen: argparse.Namespace) -> None:
    """The directory of the archive, but for one within the session, which is to be refused with nothing left in it.

    Raises ``ReplayError`` where it cannot be made.
    """
    from pytest_flagperf import sessions
    from pytest_flagperf.errors import ReplayError

    output = chosen.output.resolve()
    if output.is_dir():
        chosen.misused(f"--output: {chosen.output} is a directory: name the file, which need not exist yet")
    if output.is_relative_to(chosen.session.resolve()) or not sessions.is_session(chosen.session):
        return
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ReplayError(f"the bundle {chosen.output} cannot be written: {error}") from error
