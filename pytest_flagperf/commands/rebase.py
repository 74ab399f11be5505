"""``flagperf rebase``: make sessions the baseline; what would change is printed, and written only with ``--write``."""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from pytest_flagperf.judging.baselines import Baseline
    from pytest_flagperf.judging.baselines import MetricBaseline
    from pytest_flagperf.judging.merging import Change
    from pytest_flagperf.judging.merging import Merge
    from pytest_flagperf.sessions import SessionFiles

    Commands = argparse._SubParsersAction[argparse.ArgumentParser]


COLUMNS = ("case", "metric", "unit", "baseline", "samples", "becomes", "samples", "change", "")


def add(commands: Commands) -> None:
    """Declare the command."""
    rebase = commands.add_parser("rebase", help="make the figures of sessions the baseline, and show what that changes")
    rebase.add_argument("sessions", nargs="+", type=Path, metavar="SESSION", help="sessions, or directories of them")
    rebase.add_argument("--baseline", type=Path, metavar="FILE", help="the file (default: the vendor's, for the chip)")
    rebase.add_argument("--case", default="*", metavar="PATTERN", help="only cases with an id like this, as gemm-*")
    rebase.add_argument(
        "--metric", action="append", default=[], metavar="NAME", help="only this metric; may be repeated"
    )
    rebase.add_argument(
        "--without", action="append", default=[], metavar="NAME", help="not the session of this name; may be repeated"
    )
    rebase.add_argument("--reason", default="", metavar="TEXT", help="why a figure may get worse; kept with its date")
    rebase.add_argument("--write", action="store_true", help="write the file (default: only show)")
    rebase.set_defaults(run=run, misused=rebase.error)


def run(chosen: argparse.Namespace) -> int:
    """Show the change, and write it where asked to. Returns 1 where it is refused."""
    from pytest_flagperf import metrics
    from pytest_flagperf import sessions
    from pytest_flagperf.judging import baselines
    from pytest_flagperf.judging import merging

    if chosen.baseline is not None and chosen.baseline.is_dir():
        chosen.misused(f"--baseline: {chosen.baseline} is a directory: name the file, which need not exist yet")
    for name in chosen.metric:
        if name not in metrics.known():
            chosen.misused(f"--metric: there is no metric {name!r}; flagperf metrics lists those there are")
    found = _but(sessions.read_all(chosen.sessions), chosen)
    path = chosen.baseline or _own(found)
    old = baselines.load(path) if path.exists() else None
    wanted = merging.Wanted(chosen.case, chosen.metric, chosen.reason.strip(), time.strftime("%Y-%m-%d", time.gmtime()))
    outcome = merging.merge(old, found, wanted)
    print(report(outcome, path))
    for line in outcome.warnings:
        print(f"warning: {line}", file=sys.stderr)
    for line in outcome.refused:
        print(f"refused: {line}", file=sys.stderr)
    if outcome.refused:
        rest = [one for one in found if one.name not in outcome.blamed]
        if outcome.blamed and rest and not merging.merge(old, rest, wanted).refused:
            print(_instead(chosen, outcome.blamed, len(rest)), file=sys.stderr)
        return 1
    if not changed(old, outcome):
        return 0
    if chosen.write:
        baselines.write(path, outcome.baseline)
        print(f"wrote {path}", file=sys.stderr)
    else:
        print("nothing was written: --write does it", file=sys.stderr)
    return 0


def _but(found: Sequence[SessionFiles], chosen: argparse.Namespace) -> list[SessionFiles]:
    """The sessions but for those of ``--without``."""
    names = {one.name for one in found}
    for name in chosen.without:
        if name not in names:
            chosen.misused(f"--without: there is no session {name!r} among those given")
    kept = [one for one in found if one.name not in chosen.without]
    if not kept:
        chosen.misused("--without: no session is left")
    return kept


def _instead(chosen: argparse.Namespace, blamed: Sequence[str], left: int) -> str:
    """What to type where the other sessions would do, so that whoever types it names what is left out."""
    words = ["flagperf", "rebase", *map(str, chosen.sessions)]
    for name in [*chosen.without, *blamed]:
        words += ["--without", name]
    words += ["--baseline", str(chosen.baseline)] if chosen.baseline is not None else []
    words += ["--case", chosen.case] if chosen.case != "*" else []
    for name in chosen.metric:
        words += ["--metric", name]
    words += ["--reason", chosen.reason] if chosen.reason else []
    sessions = f"the other {left} sessions" if left > 1 else "the other session"
    return f"{sessions} could be written: {shlex.join([*words, '--write'])}"


def _own(found: Sequence[SessionFiles]) -> Path:
    """The vendor's own file for the chip of the sessions."""
    from pytest_flagperf.devices import vendor as vendors
    from pytest_flagperf.judging import baselines
    from pytest_flagperf.judging import gathering

    kind = gathering.from_sessions(found, accepted=gathering.CHANGED)
    known = vendors.names([*vendors.installed(), vendors.bundled()])
    directory = known[kind.vendor].parent if kind.vendor in known else Path("vendors") / (kind.vendor or "unknown")
    return directory / "baselines" / baselines.file_name(kind.chip, kind.hardware)


def changed(old: Baseline | None, outcome: Merge) -> bool:
    """Whether the file would have another content."""
    from pytest_flagperf.judging import baselines

    return old is None or baselines.text(old) != baselines.text(outcome.baseline)


def report(outcome: Merge, path: Path) -> str:
    """The change for a reviewer: each metric of each case, as it is and as it would be."""
    import tabulate

    rows = [_row(one) for one in outcome.changes if one.changed]
    same = len(outcome.changes) - len(rows)
    lines = [str(path)]
    if rows:
        lines.append(tabulate.tabulate(rows, headers=COLUMNS, disable_numparse=True))
    # Where no metric came through there is nothing to count: what is refused says why.
    lines += [f"{len(rows)} changed, {same} as before"] if outcome.changes else []
    return "\n".join(lines)


def _row(change: Change) -> tuple[str, ...]:
    from pytest_flagperf.judging import statistics

    was, now = change.figures
    by = statistics.change(now, was) if was is not None and now is not None else None
    percent = f"{100 * by:+.2f} %" if by is not None else "new"
    note = f"samples begin anew: {change.note}" if change.note else ""
    return (
        *(change.case, change.metric, change.unit),
        *(_shown(was), _count(change.old), _shown(now), _count(change.new), percent, note),
    )


def _shown(figure: float | None) -> str:
    return "-" if figure is None else f"{figure:.6g}"


def _count(metric: MetricBaseline | None) -> str:
    return "-" if metric is None else str(len(metric.values))
