"""What any text may do to the parser of a vendor's output: nothing but readings, or an error that shows the text."""

from __future__ import annotations

import time
from collections.abc import Container
from collections.abc import Iterable
from dataclasses import fields

from hypothesis import HealthCheck
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies

from pytest_flagperf.devices import outputs
from pytest_flagperf.devices.reading import Reading
from pytest_flagperf.devices.vendor import Vendor
from pytest_flagperf.errors import ProbeError


# 800 characters of the text, a few marks, and what is wrong with it.
_LONGEST_MESSAGE = 4000
_examples = settings(
    max_examples=60, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck)
)


def readings(vendor: Vendor, output: str, printed: bytes | str) -> list[Reading]:
    """What the text says; nothing for a ``ProbeError``, which has to be one that helps. Any other error fails."""
    try:
        return outputs.parse(vendor, output, printed)
    except ProbeError as error:
        message = str(error)
        assert message.startswith(f"{vendor.name}: ")
        assert len(message) < _LONGEST_MESSAGE
        if printed.strip():
            assert "it printed:\n" in message or not outputs.shown(str(printed))
        return []


def differences(before: Iterable[Reading], after: Iterable[Reading]) -> list[str]:
    """The fields, as ``0.power``, that a reading says otherwise than the one of the same device before."""
    known = {one.index: one for one in before}
    found = []
    for one in after:
        if one.index not in known:
            found.append(f"{one.index}")
            continue
        for field in fields(Reading):
            if getattr(one, field.name) != getattr(known[one.index], field.name):
                found.append(f"{one.index}.{field.name}")
    return found


def check_truncated(vendor: Vendor, output: str, text: str, *, may_lack: Container[str] = ("processes",)) -> None:
    """Cut off anywhere, a text says what the whole says of a device, or is refused.

    Of ``may_lack``, what stands at the end and not in every version, nothing or all is said: a cut list is no list.
    """
    whole = outputs.parse(vendor, output, text)
    for end in range(len(text)):
        cut = readings(vendor, output, text[:end])
        for one in differences(whole, cut):
            index, _, field = one.partition(".")
            value = getattr(next(two for two in cut if two.index == int(index)), field)
            assert field in may_lack and value is None, f"cut at {end}, {one} is {value}:\n{text[:end]}"


def check_lines_missing(vendor: Vendor, output: str, text: str) -> None:
    """With any one line missing, no figure goes to another device, and none is made up."""
    whole = {one.index: one for one in outputs.parse(vendor, output, text)}
    lines = text.splitlines(keepends=True)
    for number, missing in enumerate(lines):
        left = readings(vendor, output, "".join(lines[:number] + lines[number + 1 :]))
        for one in differences(whole.values(), left):
            index, _, field = one.partition(".")
            value = getattr(next(two for two in left if two.index == int(index)), field)
            assert value is None or field == "processes", f"without {missing!r}, {one} is {value}"


def check_corrupted(vendor: Vendor, output: str, text: str) -> None:
    """Random bytes, flipped bytes, bytes put in and taken out: readings, or an error that helps."""
    data = text.encode()
    places = strategies.integers(0, max(len(data) - 1, 0))
    change = strategies.tuples(places, strategies.sampled_from("rid"), strategies.binary(min_size=1, max_size=4))

    @_examples
    @given(strategies.lists(change, min_size=1, max_size=8), strategies.binary(max_size=300))
    def attempt(changes: list[tuple[int, str, bytes]], noise: bytes) -> None:
        changed = bytearray(data)
        for place, how, new in changes:
            changed[place : place + (0 if how == "i" else len(new))] = b"" if how == "d" else new
        for printed in (bytes(changed), noise, noise + data, data + noise):
            readings(vendor, output, printed)

    attempt()


def check_hostile(vendor: Vendor, output: str, text: str, *, within: float = 20.0) -> None:
    """As much text as is looked at, made to make regular expressions go back and forth, is done with in time."""
    most = outputs.MOST_BYTES - 1
    assert readings(vendor, output, text * (10_000_000 // len(text) + 1)) == []
    assert readings(vendor, output, "") == []
    assert readings(vendor, output, " \n\t\n") == []
    lines = [line for line in text.splitlines(keepends=True) if any(c.isdigit() for c in line)] or [text]
    for part in ("|", "| ", " ", "-", "0", "0 ", "\n", "|0 ", '"', "[", "{", longest(lines), text.rstrip()[:-1]):
        hostile = (part * (most // len(part)))[: most - 1] + "\n"
        start = time.perf_counter()
        readings(vendor, output, hostile)
        spent = time.perf_counter() - start
        assert spent < within, f"{spent:.1f} s for {part[:60]!r} again and again"


def longest(lines: Iterable[str]) -> str:
    """The line that a pattern has most to do with."""
    return max(lines, key=len)
