"""``flagperf``: what a person asks outside a test run."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_flagperf import __version__
from pytest_flagperf.errors import FlagPerfError


if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]


# Modules of ``commands/``: each has ``add(commands)``, and imports what it needs when it runs.
COMMANDS: tuple[str, ...] = ("bundle", "compare", "history", "rebase", "report", "verify")
# What a shell says of a program that Ctrl-C ended.
INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. Returns 0, 1 where something asked about is not well, 2 for bad usage."""
    parser = argparse.ArgumentParser(prog="flagperf", description="AI-hardware benchmarks as pytest tests.")
    parser.add_argument("--version", action="version", version=f"pytest-flagperf {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    for add in (_about_results, _about_host, _about_flagperf, _about_operators):
        add(commands)
    for module in COMMANDS:
        import_module(f"pytest_flagperf.commands.{module}").add(commands)

    chosen = parser.parse_args(arguments)
    try:
        code = int(chosen.run(chosen))
        # What is still buffered meets a reader that went away here, and not at the end of the interpreter.
        sys.stdout.flush()
        return code
    except FlagPerfError as error:
        print(f"flagperf: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("flagperf: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader went away, as head does; nothing is wrong.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0


def _about_results(commands: Commands) -> None:
    show = commands.add_parser("show", help="print the table of a session's results again")
    show.add_argument("session", type=Path, help="a directory below flagperf-results/, or one case's directory")
    show.add_argument("--json", action="store_true", help="print the results as JSON")
    show.set_defaults(run=_show)

    metrics = commands.add_parser("metrics", help="list the metrics: unit, direction, formula")
    metrics.set_defaults(run=_metrics)

    schema = commands.add_parser("schema", help="print the JSON Schema of result.json")
    schema.set_defaults(run=_schema)


def _about_host(commands: Commands) -> None:
    data = commands.add_parser("datasets", help="list datasets and whether they are here, or prepare one")
    data.add_argument("name", nargs="?", help="find, verify and where possible prepare this dataset")
    data.add_argument("--path", help="where a dataset of one's own is")
    data.add_argument("--data-root", type=Path, help="as for pytest (default: FLAGPERF_DATA_ROOT, else the user cache)")
    data.set_defaults(run=_datasets)

    known = commands.add_parser(
        "vendors", help="list the vendors that are known, or the chips of one and their figures"
    )
    known.add_argument("name", nargs="?", help="list this vendor's chips: peaks, memory, TDP, with their sources")
    known.add_argument("--json", action="store_true", help="print every figure with unit and source, as JSON")
    known.set_defaults(run=_vendors)

    devices = commands.add_parser("devices", help="list the devices of this host and how they are now")
    devices.add_argument("--vendor", help="only this vendor's (default: every vendor known)")
    devices.add_argument("--json", action="store_true", help="print every figure, as JSON")
    devices.set_defaults(run=_devices)

    doctor = commands.add_parser("doctor", help="say what is installed, found and free here, and what is in the way")
    doctor.add_argument("--vendor", help="only this vendor (default: every vendor known)")
    doctor.add_argument(
        "--data-root", type=Path, help="as for pytest (default: FLAGPERF_DATA_ROOT, else the user cache)"
    )
    doctor.add_argument("--json", action="store_true", help="print the findings as JSON")
    doctor.set_defaults(run=_doctor)


def _about_flagperf(commands: Commands) -> None:
    take = commands.add_parser("import", help="FlagPerf's cases and vendor settings as commands and overlays of ours")
    take.add_argument("path", type=Path, metavar="PATH", help="a clone, training/, a vendor's directory, or one file")
    take.add_argument("--write", type=Path, metavar="DIR", help="write overlays, ini snippet and report there")
    take.add_argument("--force", action="store_true", help="with --write: replace files that have another content")
    take.add_argument("--json", action="store_true", help="print the plan as JSON")
    take.add_argument(
        "--vendor", metavar="NAME", help="FlagPerf's vendor (default: VENDOR, and every vendor's settings)"
    )
    take.set_defaults(run=_import, misused=take.error)

    lint = commands.add_parser("lint", help="say what is wrong with a vendor's folder")
    lint.add_argument("paths", nargs="*", type=Path, metavar="PATH", help="folders, or directories of them")
    lint.add_argument("--suites", action="append", default=[], type=Path, metavar="DIR", help="further suites")
    lint.add_argument("--json", action="store_true", help="print the problems as JSON")
    lint.set_defaults(run=_lint, misused=lint.error)

    reference = commands.add_parser("reference", help="print what others published: FlagPerf's figures for NVIDIA")
    reference.add_argument("model", nargs="?", metavar="MODEL", help="only this model's rows")
    reference.add_argument("--json", action="store_true", help="print the rows as JSON")
    reference.set_defaults(run=_reference)


def _about_operators(commands: Commands) -> None:
    from pytest_flagperf.operators import arguments

    bench = commands.add_parser("bench", help="measure one problem of an operator by hand, as the tests do")
    arguments.add(bench)
    bench.set_defaults(run=_bench)


def _bench(chosen: argparse.Namespace) -> int:
    from pytest_flagperf.operators import bench

    return bench.run(chosen)


def _show(chosen: argparse.Namespace) -> int:
    import msgspec

    from pytest_flagperf import sessions
    from pytest_flagperf import verdict
    from pytest_flagperf.operators import table
    from pytest_flagperf.reports import terminal
    from pytest_flagperf.reports.progress import printable
    from pytest_flagperf.result import read_result

    for one in sessions.unfinished(chosen.session):
        print(f"started and not ended: {printable(one)}", file=sys.stderr)
    paths = sorted([*chosen.session.glob("result.json"), *chosen.session.glob("*/result.json")])
    found = [read_result(path) for path in paths]
    measured = table.find(chosen.session)
    if not found and not measured:
        raise FlagPerfError(f"{chosen.session} holds no result.json")
    if chosen.json:
        print(msgspec.json.format(msgspec.json.encode([*found, *measured]), indent=2).decode())
    else:
        if found:
            print("\n".join(terminal.summary(found, chosen.session)))
        if measured:
            print("\n".join([table.text(measured, most=None), *terminal.beside_baseline(measured, chosen.session)]))
    well = all(result.verdict in verdict.WELL for result in [*found, *measured])
    return 0 if well and not terminal.unmet(chosen.session) else 1


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
    splits = ", ".join(f"{split} {count:,}" for split, count in found.splits.items()) or "samples not counted"
    print(f"{found.name}: {found.path}\n  {splits}\n  checksum {found.checksum}")
    for note in found.notes:
        print(f"  {note}")
    return 0


def _vendors(chosen: argparse.Namespace) -> int:
    import tabulate

    from pytest_flagperf import doctor
    from pytest_flagperf.devices import catalogue

    found = doctor.chosen(chosen.name)
    if chosen.json:
        print(json.dumps([catalogue.document(one) for one in found], indent=2))
        return 0
    if chosen.name and not any(one.chips for one in found):
        print(f"{found[0].name}: {found[0].directory / 'vendor.toml'} describes no chip")
        return 0
    rows = catalogue.chip_rows(found) if chosen.name else [catalogue.vendor_row(one) for one in found]
    headers = catalogue.CHIP_COLUMNS if chosen.name else catalogue.VENDOR_COLUMNS
    widths = [None, None, 30, None, None, None, 30, 50] if chosen.name else None
    print(tabulate.tabulate(rows, headers=headers, disable_numparse=True, maxcolwidths=widths))
    return 0


def _devices(chosen: argparse.Namespace) -> int:
    from pytest_flagperf import doctor

    return doctor.devices(chosen.vendor, as_json=chosen.json)


def _doctor(chosen: argparse.Namespace) -> int:
    from pytest_flagperf import doctor

    given = os.environ.get("FLAGPERF_DATA_ROOT")
    return doctor.doctor(
        chosen.vendor, as_json=chosen.json, data_root=chosen.data_root or (Path(given) if given else None)
    )


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


def _import(chosen: argparse.Namespace) -> int:
    from pytest_flagperf.importing import plan as plans
    from pytest_flagperf.importing import report

    if chosen.force and chosen.write is None:
        chosen.misused("--force does nothing without --write DIR")
    try:
        plan = plans.build(chosen.path, vendor=chosen.vendor)
    except plans.NothingToImport as error:
        chosen.misused(str(error))
    print(json.dumps(report.document(plan), indent=2) if chosen.json else report.text(plan))
    if chosen.write is not None:
        for path in report.write(plan, chosen.write, force=chosen.force):
            print(f"wrote {path}", file=sys.stderr)
    return 1 if plan.lost else 0


def _lint(chosen: argparse.Namespace) -> int:
    from pytest_flagperf import lint

    for directory in chosen.suites:
        if not directory.is_dir():
            chosen.misused(f"--suites: {directory} is not a directory")
    try:
        report = lint.check(chosen.paths, chosen.suites)
    except lint.NothingToLint as error:
        chosen.misused(str(error))
    if chosen.json:
        rows = [{"file": str(p.file), "line": p.line, "code": p.code, "message": p.message} for p in report.problems]
        print(json.dumps(rows, indent=2))
    else:
        for problem in report.problems:
            print(problem)
        print(report.summary, file=sys.stderr)
    return 1 if any(not problem.is_warning for problem in report.problems) else 0


def _reference(chosen: argparse.Namespace) -> int:
    import msgspec

    from pytest_flagperf import references

    found = references.rows(chosen.model)
    if chosen.json:
        print(msgspec.json.format(msgspec.json.encode(found), indent=2).decode())
    else:
        print(references.table(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
