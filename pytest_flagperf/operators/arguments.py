"""The command line of ``flagperf bench``: an option for each size of each family, made from its class.

Made at every start of ``flagperf``: the standard library and the problems only.
"""

from __future__ import annotations

import argparse
import dataclasses
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pytest_flagperf import words
from pytest_flagperf.operators.problems import FAMILIES
from pytest_flagperf.operators.problems import Problem


# What each family measures, in a line.
BENCHED = {
    "gemm": "dense matrix product: C = op(A) · op(B), column-major as in BLAS",
    "conv": "two-dimensional convolution of n images of c channels with k filters",
    "rnn": "recurrent layer: the recurrence over all steps, without the input's product",
    "sparse": "sparse matrix product: C = A · B, A in CSR, and the dense product beside it",
    "all_reduce": "sum over all ranks, on every rank",
    "memory": "the device's own memory: its bandwidth by a copy, or its capacity",
    "interconnect": "links: host to device, device to device, or all-reduce",
    "computation": "arithmetic peak: a large dense matrix product",
    "operator": "one of the framework's operators that the suite lists",
}
COLLECTIVES = ("all_reduce", "interconnect")
_DIRECTIONS = {
    "conv": ("fwd", "bwd_data", "bwd_weights"),
    "rnn": ("fwd", "bwd_data", "bwd_weights"),
    "operator": ("fwd", "bwd"),
}
_MEANINGS = {
    "m": "rows of A and of C",
    "n": "columns of B and of C",
    "k": "columns of A, rows of B",
    "sparsity": "fraction of zeros in A, at least 0 and below 1, as 0.95",
    "elements": "numbers that each rank has",
    "a_transposed": "A is stored transposed",
    "b_transposed": "B is stored transposed",
    "hidden": "size of the state, and of the input",
    "batch": "sequences at once",
    "timesteps": "steps of time",
    "scope": "what the link is within",
}
_MEANINGS_OF = {
    "conv": {"n": "images", "k": "filters", "c": "channels of an image", "w": "width", "h": "height"},
    "memory": {"size": "bytes that are copied; of capacity, the first block that is asked for"},
    "interconnect": {"size": "bytes of one message"},
}
# Of no use by hand: what a list says of its problems.
_OF_LISTS = {field.name for field in dataclasses.fields(Problem)} | {"world_sizes", "network_input"}


def add(parser: argparse.ArgumentParser) -> None:
    """A subcommand for each family, with an option for each of its sizes."""
    families = parser.add_subparsers(dest="family", required=True, metavar="FAMILY")
    for family, summary in BENCHED.items():
        one = families.add_parser(family, help=summary, description=summary[0].upper() + summary[1:] + ".")
        one.set_defaults(misused=one.error)
        if family == "operator":
            _add_operator(one)
        else:
            _add_sizes(one, FAMILIES[family])
        _add_common(one, family)


def _add_common(one: argparse.ArgumentParser, family: str) -> None:
    directions = _DIRECTIONS.get(family, ("fwd",))
    precisions = [*(p for p in words.PRECISIONS if p != "amp"), *(words.ELEMENT_TYPES if family == "operator" else ())]
    one.add_argument("--precision", default="fp32", choices=precisions, help="default: %(default)s")
    every = "every one there is" if len(directions) > 1 else directions[0]
    one.add_argument("--direction", choices=directions, help=f"default: {every}")
    one.add_argument("--framework", default="pytorch", choices=words.FRAMEWORKS, help="default: %(default)s")
    # Of the others it is known in order to be refused with a reason.
    topology = "NODESxDEVICES (default: 1x2)" if family in COLLECTIVES else argparse.SUPPRESS
    one.add_argument("--topology", help=topology)
    one.add_argument("--vendor", help="as for pytest (default: the accelerator found, else cpu)")
    one.add_argument("--python", metavar="PATH", help="interpreter of the framework (default: this one)")
    one.add_argument(
        "--budget",
        metavar="SECONDS",
        type=_seconds,
        help="seconds to measure for (default: 1); at least 5 samples are taken, however long that is",
    )
    one.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=_seconds,
        help="seconds it may take in all (default: no limit but 60 s of silence, more for large problems)",
    )
    one.add_argument(
        "--cache", default="hot", choices=("hot", "flushed"), help="before each call, flushed empties it (default: hot)"
    )
    one.add_argument("--published", metavar="PROCESSOR", help="DeepBench's published time beside ours")
    one.add_argument(
        "--flagperf-dir",
        type=Path,
        default=Path("flagperf-results"),
        help="directory for results (default: %(default)s)",
    )
    one.add_argument("--json", action="store_true", help="print the results as JSON")


def _add_operator(one: argparse.ArgumentParser) -> None:
    which = one.add_mutually_exclusive_group(required=True)
    which.add_argument("--id", help="a listed problem, as add-1024x1024x1024; an unknown one lists those there are")
    which.add_argument("--name", help="an operator, whose tensors are all of the shape in --inputs")
    one.add_argument(
        "--inputs", nargs="+", type=_shape, metavar="SHAPE", help="with --name: the inputs, as 128x128x128 for each"
    )


def _add_sizes(parser: argparse.ArgumentParser, kind: type[Problem]) -> None:
    types = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        if field.name in _OF_LISTS:
            continue
        flag, target = "--" + field.name.replace("_", "-"), f"size_{field.name}"
        wanted = types[field.name]
        required = field.default is dataclasses.MISSING
        said = _MEANINGS_OF.get(kind.family, {}).get(field.name) or _MEANINGS.get(field.name, "")
        if wanted is bool:
            parser.add_argument(flag, dest=target, action="store_true", help=f"{said} (default: it is not)")
        elif typing.get_origin(wanted) is typing.Literal:
            choices = typing.get_args(wanted)
            parser.add_argument(flag, dest=target, choices=choices, required=required, help=said or None)
        else:
            default = None if required else field.default
            said = said if required else f"default: {default}"
            parser.add_argument(
                flag,
                dest=target,
                type=_size(wanted),
                required=required,
                default=default,
                metavar="FRACTION" if wanted is float else "N",
                help=said or None,
            )


def _size(wanted: type) -> Callable[[str], Any]:
    def parse(text: str) -> Any:
        value = wanted(text)
        if not 0 <= value < float("inf"):
            raise argparse.ArgumentTypeError(f"{text} is no size")
        return value

    parse.__name__ = wanted.__name__
    return parse


def _shape(text: str) -> tuple[int, ...]:
    sizes = text.split("x")
    if not all(size.isascii() and size.isdecimal() and int(size) > 0 for size in sizes):
        raise argparse.ArgumentTypeError(f"{text} is no shape; write 128x128x128")
    return tuple(int(size) for size in sizes)


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not above zero")
    return value
