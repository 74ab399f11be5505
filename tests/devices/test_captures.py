"""Every text of a folder of captures is read as ``captures/<vendor>.json`` says, where FLAGPERF_CAPTURES names one.

The texts stay outside the repository. A file of the folder is called ``<vendor>/<name>``; what is expected of it was
written down by a person who read it:

    {"directory": "...",                        where it is not the vendor's name
     "captures": {"<name>": {"output": "table",
                             "every": {"name": "P800 OAM"},            what all its devices share
                             "readings": [{"index": 0, "memory_used": "99 MiB", "processes": [[4711, "5 MiB"]]}]},
                  "<name>": {"output": "table", "error": "what the ProbeError says"}}}

Figures are in the units of ``Reading``; an amount of memory may be written in MiB or B, as programs print it, and a
ratio in percent. A field that is not given is ``None``.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from pytest_flagperf.devices import outputs
from pytest_flagperf.devices import vendor as vendors
from pytest_flagperf.devices.reading import Process
from pytest_flagperf.devices.reading import Reading
from pytest_flagperf.errors import ProbeError


# Read here: no variable of the caller's reaches a test.
FOLDER = os.environ.get("FLAGPERF_CAPTURES")
EXPECTED = Path(__file__).parent / "captures"

needs_captures = pytest.mark.skipif(not FOLDER, reason="FLAGPERF_CAPTURES does not name a folder of captures")


def cases() -> Iterator[Any]:
    """Vendor, directory and name of every text that something is expected of."""
    for path in sorted(EXPECTED.glob("*.json")):
        document = json.loads(path.read_text())
        directory = document.get("directory", path.stem)
        for name, expected in document["captures"].items():
            yield pytest.param(path.stem, directory, name, expected, id=f"{directory}/{name}")


def value(field: str, written: Any) -> Any:
    """A value as ``Reading`` has it."""
    if written is None:
        return None
    if field == "processes":
        return tuple(Process(pid, value("memory", memory)) for pid, memory in written)
    if field == "throttle":
        return tuple(written)
    if isinstance(written, str) and written.endswith(" MiB"):
        return float(written.removesuffix(" MiB")) / 1024
    if isinstance(written, str) and written.endswith(" B"):
        return float(written.removesuffix(" B")) / 2**30
    if isinstance(written, str) and written.endswith(" %"):
        return float(written.removesuffix(" %")) / 100
    return written


@needs_captures
@pytest.mark.parametrize(("vendor", "directory", "name", "expected"), list(cases()))
def test_a_capture_says_what_a_person_reads_in_it(vendor, directory, name, expected):
    described = vendors.find(vendor, [vendors.bundled()])
    printed = (Path(FOLDER) / directory / name).read_bytes()
    if "error" in expected:
        with pytest.raises(ProbeError) as caught:
            outputs.parse(described, expected["output"], printed)
        assert expected["error"] in str(caught.value).partition("\nit printed:")[0]
        return
    told = outputs.parse(described, expected["output"], printed)
    assert [one.index for one in told] == [one["index"] for one in expected["readings"]]
    for one, wanted in zip(told, expected["readings"], strict=True):
        wanted = {**expected.get("every", {}), **wanted}
        assert set(wanted) <= {field.name for field in fields(Reading)}
        for field in fields(Reading):
            right = value(field.name, wanted.get(field.name))
            right = pytest.approx(right, rel=1e-9) if isinstance(right, float) else right
            assert getattr(one, field.name) == right, f"device {one.index}: {field.name}"


@needs_captures
def test_every_capture_is_covered():
    covered = set()
    for path in EXPECTED.glob("*.json"):
        document = json.loads(path.read_text())
        directory = document.get("directory", path.stem)
        covered |= {f"{directory}/{name}" for name in document["captures"]}
    there = {f"{path.parent.name}/{path.name}" for path in Path(FOLDER).glob("*/*") if path.is_file()}
    assert sorted(there - covered) == []
    assert sorted(covered - there) == []


def test_what_is_expected_of_captures_names_outputs_that_there_are():
    for path in EXPECTED.glob("*.json"):
        described = vendors.find(path.stem, [vendors.bundled()])
        for name, expected in json.loads(path.read_text())["captures"].items():
            assert expected["output"] in described.output, f"{path.name}: {name}"
            assert ("readings" in expected) != ("error" in expected), f"{path.name}: {name}"
