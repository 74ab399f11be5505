"""A vendor's library in a process of its own: one that hangs or crashes takes nobody along.

``python -P -m pytest_flagperf.devices.contained VENDOR_FILE FILE.py:CLASS`` prints what it tells, or why not, as JSON.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from pathlib import Path

import msgspec

from pytest_flagperf import children
from pytest_flagperf.devices import bounded
from pytest_flagperf.devices import outputs
from pytest_flagperf.devices import vendor as vendors
from pytest_flagperf.devices.probe import Library
from pytest_flagperf.devices.probe import processes_of
from pytest_flagperf.devices.reading import Process
from pytest_flagperf.devices.reading import Reading
from pytest_flagperf.devices.vendor import Probe
from pytest_flagperf.devices.vendor import Vendor
from pytest_flagperf.errors import FlagPerfError
from pytest_flagperf.errors import ProbeError


class _Answer(msgspec.Struct):
    readings: list[Reading] = []
    error: str = ""


@dataclass
class Contained:
    """A library that is asked in a new process for each look."""

    vendor: Vendor
    probe: Probe
    timeout: float
    lists_for_nothing: bool = True
    _last: list[Reading] = field(default_factory=list)
    _fresh: bool = False

    @property
    def source(self) -> str:
        """The library's class."""
        return self.probe.library.partition(":")[2]

    def read(self) -> list[Reading]:
        """Every device now; the first time, as of when this was started."""
        if self._fresh:
            self._fresh = False
            return self._last
        file = str(self.vendor.directory / "vendor.toml")
        argv = children.command("pytest_flagperf.devices.contained", file, self.probe.library)
        try:
            printed = bounded.run(argv, timeout=self.timeout, env=children.environment())
            answer = msgspec.json.decode(printed, type=_Answer)
        except (ProbeError, msgspec.DecodeError) as error:
            raise ProbeError(f"{self.vendor.name}: {self.source} failed: {error}") from error
        if answer.error:
            raise ProbeError(answer.error)
        self._last = answer.readings
        return self._last

    def processes(self) -> dict[int, tuple[Process, ...]] | None:
        """The processes on each device, of the last look."""
        return processes_of(self._last)

    def hurry(self, seconds: float) -> None:
        """End a call after so long."""
        self.timeout = min(self.timeout, seconds)

    def close(self) -> None:
        """Nothing is held between calls."""


def started(vendor: Vendor, probe: Probe) -> Contained:
    """The library, asked once. Raises ``ProbeError`` where it cannot be used here."""
    found = Contained(vendor, probe, probe.timeout)
    found.read()
    found._fresh = True
    return found


def main(arguments: Sequence[str]) -> None:
    """Print what the library tells."""
    vendor, library = vendors.load(Path(arguments[0])), arguments[1]
    try:
        found = Library(vendor, library.partition(":")[2], outputs.module_attribute(vendor.directory, library)())
        try:
            answer = _Answer(found.read())
        finally:
            found.close()
    except FlagPerfError as error:
        answer = _Answer(error=str(error))
    sys.stdout.buffer.write(msgspec.json.encode(answer))


if __name__ == "__main__":
    main(sys.argv[1:])
