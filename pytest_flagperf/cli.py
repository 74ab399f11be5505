"""``flagperf``: what a person asks outside a test run."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from pytest_flagperf import __version__
from pytest_flagperf.errors import FlagPerfError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. Returns 0, 1 where something asked about is not well, 2 for bad usage."""
    parser = argparse.ArgumentParser(prog="flagperf", description="AI-hardware benchmarks as pytest tests.")
    parser.add_argument("--version", action="version", version=f"pytest-flagperf {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)

    show = commands.add_parser("show", help="print the table of a session's results again")
    show.add_argument("session", type=Path, help="a directory below flagperf-results/, or one case's directory")
    show.add_argument("--json", action="store_true", help="print the results as JSON")
    show.set_defaults(run=_show)

    data = commands.add_parser("datasets", help="list datasets and whether they are here, or prepare one")
    data.add_argument("name", nargs="?", help="find, verify and where possible prepare this dataset")
    data.add_argument("--path", help="where a dataset of one's own is")
    data.add_argument("--data-root", type=Path, help="as for pytest (default: FLAGPERF_DATA_ROOT, else the user cache)")
    data.set_defaults(run=_datasets)

    metrics = commands.add_parser("metrics", help="list the metrics: unit, direction, formula")
    metrics.set_defaults(run=_metrics)

    schema = commands.add_parser("schema", help="print the JSON Schema of result.json")
    schema.set_defaults(run=_schema)

    chosen = parser.parse_args(arguments)
    try:
        return int(chosen.run(chosen))
    except FlagPerfError as error:
        print(f"flagperf: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        # The reader went away, as head does; nothing is wrong.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0


def _show(chosen: argparse.Namespace) -> int:
    import msgspec

    from pytest_flagperf.reports import terminal
    from pytest_flagperf.reports.progress import printable
    from pytest_flagperf.result import read_result
    from pytest_flagperf.result import unfinished

    ledger = chosen.session / "ledger.jsonl"
    for one in unfinished(ledger) if ledger.is_file() else ():
        print(f"started and not ended: {printable(one)}", file=sys.stderr)
    paths = sorted([*chosen.session.glob("result.json"), *chosen.session.glob("*/result.json")])
    if not paths:
        raise FlagPerfError(f"{chosen.session} holds no result.json")
    found = [read_result(path) for path in paths]
    if chosen.json:
        print(msgspec.json.format(msgspec.json.encode(found), indent=2).decode())
    else:
        print(terminal.table(found))
    return 0 if all(result.verdict == "passed" for result in found) else 1


def _datasets(chosen: argparse.Namespace) -> int:
    from pytest_flagperf import datasets

    root = chosen.data_root or Path(os.environ.get("FLAGPERF_DATA_ROOT") or datasets.default_data_root())
    if chosen.name is None:
        for dataset in datasets.known().values():
            print(dataset.describe())
            here = root / dataset.name
            print(f"  here     {here if here.exists() else 'no'}\n")
        return 0
    datasets.get(chosen.name)
    overrides = {chosen.name: chosen.path} if chosen.path else {}
    found = datasets.locate(chosen.name, overrides=overrides, data_root=root, say=print)
    splits = ", ".join(f"{split} {count:,}" for split, count in found.splits.items())
    print(f"{found.name}: {found.path}\n  {splits}\n  checksum {found.checksum}")
    for note in found.notes:
        print(f"  {note}")
    return 0


def _metrics(chosen: argparse.Namespace) -> int:
    import tabulate

    from pytest_flagperf import metrics

    rows = [(m.name, m.unit, m.better, m.description) for m in metrics.known().values()]
    print(tabulate.tabulate(rows, headers=("metric", "unit", "better", "what it is")))
    return 0


def _schema(chosen: argparse.Namespace) -> int:
    from pytest_flagperf.result import schema

    print(json.dumps(schema(), indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
