"""The texts that vendors' management programs print, rendered from values of our own.

A module a vendor: ``LAYOUTS`` by a name of ours, and ``COMMANDS``, what each command of the vendor's ``[[probe]]``
entries prints. Columns, headings and rules are those of the programs; no value is.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import dataclass

from pytest_flagperf.devices.reading import Reading


@dataclass(frozen=True)
class Layout:
    """One text: the ``[output.X]`` that reads it, what prints it, and the fields of a ``Reading`` that can be seen."""

    output: str
    render: Callable[[Sequence[Reading]], str]
    shows: frozenset[str]


def cell(value: float | None, written: str = "{:.0f}", absent: str = "N/A") -> str:
    """A figure as a program writes it, or what it prints where it has none."""
    return absent if value is None else written.format(value)


def mib(gib: float | None, written: str = "{:.0f}MiB", absent: str = "N/A") -> str:
    """GiB in MiB."""
    return cell(None if gib is None else gib * 1024, written, absent)


def percent(ratio: float | None, written: str = "{:.0f}%", absent: str = "N/A") -> str:
    """A ratio in percent."""
    return cell(None if ratio is None else ratio * 100, written, absent)
