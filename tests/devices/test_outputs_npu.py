"""What the management programs of NPU and GPU vendors beside NVIDIA and AMD print, read back into what was shown.

The texts are rendered by ``printers``, from values of these tests.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from collections.abc import Sequence
from dataclasses import fields
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies
from hypothesis.strategies import DrawFn
from hypothesis.strategies import SearchStrategy

from pytest_flagperf.devices import outputs
from pytest_flagperf.devices.reading import FIGURES
from pytest_flagperf.devices.reading import Process
from pytest_flagperf.devices.reading import Reading
from pytest_flagperf.errors import ProbeError
from tests.devices import fuzz
from tests.devices.npu import MIB
from tests.devices.npu import NAMES
from tests.devices.npu import described
from tests.devices.npu import devices
from tests.devices.printers import Layout


PRINTERS = {name: importlib.import_module(f"tests.devices.printers.{name}") for name in NAMES}
# What is seen in a list of processes and nothing else.
PROCESSES = {"uuid", "processes"}


def layouts() -> Iterator[Any]:
    """Every vendor and layout."""
    for name, printers in PRINTERS.items():
        for key, layout in printers.LAYOUTS.items():
            yield pytest.param(name, layout, id=f"{name} {key}")


every_layout = pytest.mark.parametrize(("name", "layout"), list(layouts()))


def rounded(readings: Sequence[Reading]) -> list[Reading]:
    """Figures to nine places: 86 % is 0.86 whichever way it is computed."""
    found = []
    for one in readings:
        figures = {name: round(value, 9) for name in FIGURES if (value := getattr(one, name)) is not None}
        found.append(replace(one, **figures))
    return found


def read(name: str, layout: Layout, text: str) -> list[Reading]:
    """What the vendor's output makes of the text."""
    return rounded(outputs.parse(described(name), layout.output, text))


def shown(readings: Sequence[Reading], layout: Layout) -> list[Reading]:
    """What can be seen of the readings: whatever the layout does not show is unknown."""
    hidden = {field.name: None for field in fields(Reading) if field.name not in {*layout.shows, "index"}}
    kept = [replace(one, **hidden) for one in readings]
    if layout.shows == PROCESSES:
        # A list of processes has no row for a device without one, and numbers those it has.
        kept = [replace(one, index=place) for place, one in enumerate(one for one in kept if one.processes)]
    return rounded(kept)


@every_layout
def test_what_a_program_shows_is_what_is_read(name, layout):
    there = devices(name)
    assert read(name, layout, layout.render(there)) == shown(there, layout)


@every_layout
def test_a_cell_without_a_value_is_unknown_and_never_zero(name, layout):
    if layout.shows == PROCESSES:
        pytest.skip("a list of processes has no other cells")
    there = [Reading(number, processes=()) for number in range(3)]
    identified = [replace(one, name="X", uuid=f"U-{one.index}", bus_id=f"0000:1{one.index}:00.0") for one in there]
    assert read(name, layout, layout.render(identified)) == shown(identified, layout)


@every_layout
def test_sixteen_devices_are_read_in_the_order_of_their_numbers(name, layout):
    there = devices(name, 16)
    assert read(name, layout, layout.render(there)) == shown(there, layout)


def some(low: int, high: int, part: float = 1) -> SearchStrategy[float | None]:
    """A figure that every layout can write, or none."""
    return strategies.none() | strategies.integers(low, high).map(lambda whole: whole * part)


@strategies.composite
def figures(draw: DrawFn, name: str, index: int) -> Reading:
    """A device of any state."""
    used, total = sorted(draw(strategies.tuples(*(strategies.integers(1, 200_000),) * 2)))
    known = draw(strategies.booleans())
    # A program that has no power at hand has no cap either.
    power = draw(some(1, 2000))
    processes = strategies.builds(Process, strategies.integers(1, 4_000_000), some(0, 99_999, MIB))
    return Reading(
        index,
        name=NAMES[name],
        uuid=f"U-{index}",
        serial=f"S{index}",
        bus_id=f"0000:{index:02x}:00.0",
        health=draw(strategies.sampled_from(["OK", "Warning", "Alarm"])),
        temperature=draw(some(1, 120)),
        power=power,
        power_limit=None if power is None else draw(some(1, 2000)),
        memory_used=used * MIB if known else None,
        memory_total=total * MIB if known else None,
        utilization=draw(some(0, 100, 0.01)),
        memory_utilization=draw(some(0, 100, 0.01)),
        fan=draw(some(0, 99, 0.01)),
        clock=draw(some(1, 9999)),
        memory_clock=draw(some(1, 9999)),
        ecc_errors=draw(some(0, 999)),
        processes=tuple(draw(strategies.lists(processes, max_size=3))),
    )


@every_layout
def test_whatever_state_devices_are_in_is_what_is_read(name, layout):
    @settings(max_examples=40, deadline=None, derandomize=True, database=None)
    @given(strategies.tuples(*(figures(name, index) for index in range(2))))
    def attempt(there: tuple[Reading, ...]) -> None:
        assert read(name, layout, layout.render(there)) == shown(there, layout)

    attempt()


@every_layout
def test_a_text_that_is_cut_off_says_nothing_else_than_the_whole(name, layout):
    if layout.shows == PROCESSES:
        pytest.skip("a list of processes alone has no end that could be missing")
    # efsmi -q counts errors behind the last section that every version has.
    may_lack = ("ecc_errors",) if name == "enflame" else ("processes",)
    fuzz.check_truncated(described(name), layout.output, layout.render(devices(name, 2)), may_lack=may_lack)


@every_layout
def test_a_missing_line_gives_no_device_a_figure_of_another(name, layout):
    if layout.shows == PROCESSES or "index" not in layout.shows:
        pytest.skip("numbers are places there, and a missing row moves them")
    fuzz.check_lines_missing(described(name), layout.output, layout.render(devices(name)))


@every_layout
def test_a_corrupted_text_is_readings_or_an_error_that_shows_it(name, layout):
    fuzz.check_corrupted(described(name), layout.output, layout.render(devices(name, 2)))


@pytest.mark.slow
@every_layout
def test_a_hostile_text_is_done_with_in_time(name, layout):
    fuzz.check_hostile(described(name), layout.output, layout.render(devices(name, 2)))


@pytest.mark.parametrize("name", NAMES)
def test_the_printers_know_every_command_that_a_vendor_is_asked_by(name):
    vendor, printers = described(name), PRINTERS[name]
    asked = {(tuple(probe.command), probe.output) for probe in vendor.probe}
    asked |= {(tuple(probe.processes), probe.processes_output) for probe in vendor.probe if probe.processes}
    assert asked == {(command, printers.LAYOUTS[key].output) for command, key in printers.COMMANDS.items()}


@pytest.mark.parametrize("name", NAMES)
def test_every_output_of_a_vendor_is_printed_by_some_layout(name):
    assert set(described(name).output) == {layout.output for layout in PRINTERS[name].LAYOUTS.values()}


@pytest.mark.parametrize("name", NAMES)
def test_a_table_of_another_vendor_is_refused(name):
    tables = [key for key, output in described(name).output.items() if output.format in ("", "pattern")]
    for other, printers in PRINTERS.items():
        for layout in printers.LAYOUTS.values() if other != name else ():
            for output in tables:
                with pytest.raises(ProbeError):
                    outputs.parse(described(name), output, layout.render(devices(other)))
