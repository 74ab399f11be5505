"""The command line of ``flagperf bench``: an option for each size of each family, made from its class.

Made at every start of ``flagperf``: the standard library and the problems only.
"""

from __future__ import annotations

import argparse
import dataclasses
import typing
from pathlib import Path
from typing import Any

from pytest_flagperf import words
from pytest_flagperf.operators.problems import FAMILIES
from pytest_flagperf.operators.problems import Problem


# The operator list has its shapes in its data file; a link needs several devices.
BENCHED = ("gemm", "conv", "rnn", "sparse", "all_reduce", "memory", "computation")
_SHARED = {field.name for field in dataclasses.fields(Problem)}


def add(parser: argparse.ArgumentParser) -> None:
    """A subcommand for each family, with an option for each of its sizes."""
    families = parser.add_subparsers(dest="family", required=True, metavar="FAMILY")
    for family in BENCHED:
        kind = FAMILIES[family]
        summary = (kind.__doc__ or "").partition("\n")[0].replace("``", "").replace("**", "")
        one = families.add_parser(family, help=summary, description=summary)
        _add_sizes(one, kind)
        one.add_argument("--precision", default="fp32", choices=[p for p in words.PRECISIONS if p != "amp"])
        one.add_argument("--direction", help="fwd, bwd_data or bwd_weights (default: every one there is)")
        one.add_argument("--framework", default="pytorch", choices=words.FRAMEWORKS)
        one.add_argument("--topology", help="NODESxDEVICES (default: 1x2 for all_reduce, else 1x1)")
        one.add_argument("--vendor", help="as for pytest (default: the accelerator found, else cpu)")
        one.add_argument("--python", metavar="PATH", help="interpreter of the framework (default: this one)")
        one.add_argument("--budget", type=_seconds, help="seconds to measure for at most (default: 1)")
        one.add_argument("--timeout", type=_seconds, help="seconds it may take at most (default: 60 and more)")
        one.add_argument("--cache", default="hot", choices=("hot", "flushed"))
        one.add_argument("--published", metavar="PROCESSOR", help="DeepBench's published time beside ours")
        one.add_argument("--flagperf-dir", type=Path, default=Path("flagperf-results"), help="directory for results")
        one.add_argument("--json", action="store_true", help="print the results as JSON")


def _add_sizes(parser: argparse.ArgumentParser, kind: type[Problem]) -> None:
    types = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        if field.name in _SHARED or field.name in ("world_sizes", "network_input"):
            continue
        flag = "--" + field.name.replace("_", "-")
        wanted = types[field.name]
        required = field.default is dataclasses.MISSING
        if wanted is bool:
            parser.add_argument(flag, dest=f"size_{field.name}", action="store_true")
        elif typing.get_origin(wanted) is typing.Literal:
            parser.add_argument(flag, dest=f"size_{field.name}", choices=typing.get_args(wanted), required=required)
        else:
            default = None if required else field.default
            parser.add_argument(
                flag, dest=f"size_{field.name}", type=_size(wanted), required=required, default=default, metavar="N"
            )


def _size(wanted: type) -> Any:
    def parse(text: str) -> Any:
        value = wanted(text)
        if not 0 <= value < float("inf"):
            raise argparse.ArgumentTypeError(f"{text} is no size")
        return value

    parse.__name__ = wanted.__name__
    return parse


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not above zero")
    return value
