"""Asking a vendor's driver which devices are there and how they are, through a library or a management program."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterable
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from dataclasses import replace
from typing import Any
from typing import Protocol

from pytest_flagperf.devices import bounded
from pytest_flagperf.devices import outputs
from pytest_flagperf.devices.reading import Process
from pytest_flagperf.devices.reading import Reading
from pytest_flagperf.devices.reading import checked
from pytest_flagperf.devices.vendor import Probe
from pytest_flagperf.devices.vendor import Vendor
from pytest_flagperf.errors import ProbeError


# Who a device is, as against how it is.
IDENTITY = ("name", "uuid", "serial", "bus_id")


class Prober(Protocol):
    """One way to ask a driver, ready to be used again and again."""

    @property
    def source(self) -> str:
        """What is asked, for a person."""

    @property
    def lists_for_nothing(self) -> bool:
        """Whether processes come with the readings, and cost no call of their own."""

    def read(self) -> list[Reading]:
        """Every device now. Raises ``ProbeError``, also where there is none."""

    def processes(self) -> dict[int, tuple[Process, ...]] | None:
        """The processes on each device; ``None`` where the driver does not tell."""

    def hurry(self, seconds: float) -> None:
        """From now on a call is ended after so long, and by nothing else."""

    def close(self) -> None:
        """Give back what the library holds."""


@dataclass
class Program:
    """A management program, run anew for each look. ``cancel`` is a descriptor whose readiness ends a running call."""

    vendor: Vendor
    probe: Probe
    path: str
    cancel: int | None = None
    limit: float | None = None
    _identity: dict[int, Reading] | None = None
    _last: list[Reading] = field(default_factory=list)

    @property
    def source(self) -> str:
        """The program's name and where it is."""
        return f"{self.probe.command[0]} ({self.path})"

    @property
    def lists_for_nothing(self) -> bool:
        """Whether there is no second command."""
        return not self.probe.processes

    def read(self) -> list[Reading]:
        """Every device now."""
        self._last = [self._identified(one) for one in self._call(self.probe.command, self.probe.output)]
        return self._last

    def _identified(self, one: Reading) -> Reading:
        """The reading with who the device is, where the program tells that by another command, asked once."""
        if not self.probe.identity:
            return one
        if self._identity is None:
            try:
                told = self._call(self.probe.identity, self.probe.identity_output)
            except ProbeError:
                told = []  # an older program is usable without
            self._identity = {known.index: known for known in told}
        known = self._identity.get(one.index)
        missing = [name for name in IDENTITY if getattr(one, name) is None] if known else []
        return replace(one, **{name: getattr(known, name) for name in missing})

    def processes(self) -> dict[int, tuple[Process, ...]] | None:
        """The processes on each device, by the second command where there is one, else of the last look."""
        if self.probe.processes:
            output = self.probe.processes_output
            listed = self._call(self.probe.processes, output)
            told = processes_of(replace(one, processes=_joined(one, listed)) for one in self._last)
        else:
            output = self.probe.output
            told = processes_of(self._last)
        meant = self.probe.processes or any(layout.process for layout in self.vendor.output[output].layouts)
        if told is None and meant:
            raise ProbeError(
                f"{self.vendor.name}: the processes in the output {output} cannot be told: their table is not there, "
                "or no rule closes it"
            )
        return told

    def hurry(self, seconds: float) -> None:
        """End a call after so long; who closed the descriptor has been heard."""
        self.cancel, self.limit = None, seconds

    def close(self) -> None:
        """Nothing is held between calls."""

    def _call(self, command: Sequence[str], output: str) -> list[Reading]:
        program = self.path if command[0] == self.probe.command[0] else find_program(command[0], self.probe)
        if program is None:
            raise ProbeError(f"{self.vendor.name}: {command[0]} is not on PATH")
        env = {**os.environ, **self.probe.environment, "LC_ALL": "C"}
        timeout = min(self.probe.timeout, self.limit or self.probe.timeout)
        try:
            printed = bounded.run([program, *command[1:]], timeout=timeout, env=env, cancel=self.cancel)
        except ProbeError as error:
            raise ProbeError(f"{self.vendor.name}: {error}") from error
        return outputs.parse(self.vendor, output, printed)


@dataclass
class Library:
    """A vendor's own module over a library. Whatever it raises becomes a ``ProbeError``.

    A call of it cannot be ended, and a crash takes the process along: outside the monitor use :class:`Contained`.
    """

    vendor: Vendor
    source: str
    object: Any
    lists_for_nothing: bool = True
    _last: list[Reading] = field(default_factory=list)

    def read(self) -> list[Reading]:
        """Every device now."""
        try:
            self._last = checked(self.object.read())
        except ProbeError as error:
            raise ProbeError(f"{self.vendor.name}: {error}") from error
        except Exception as error:  # a library has errors of its own, and none may end the monitor
            raise ProbeError(f"{self.vendor.name}: {self.source} failed: {type(error).__name__}: {error}") from error
        if not self._last:
            raise ProbeError(f"{self.vendor.name}: {self.source} sees no device")
        return self._last

    def processes(self) -> dict[int, tuple[Process, ...]] | None:
        """The processes on each device, of the last look."""
        return processes_of(self._last)

    def hurry(self, seconds: float) -> None:
        """Nothing: a call of a library cannot be ended."""

    def close(self) -> None:
        """Close the library."""
        with contextlib.suppress(Exception):  # of a device that is gone, say: it has nothing more to tell
            self.object.close()


def processes_of(readings: Iterable[Reading]) -> dict[int, tuple[Process, ...]] | None:
    """The processes by device; ``None`` where no reading tells of any, or that there are none."""
    return {one.index: one.processes for one in readings if one.processes is not None} or None


def _joined(device: Reading, listed: Sequence[Reading]) -> tuple[Process, ...] | None:
    """The processes on a device; ``None`` where the list was cut off, or is not there."""
    if listed and all(one.processes is None for one in listed):
        return None
    for key in ("uuid", "bus_id"):
        wanted = getattr(device, key)
        if wanted and any(getattr(one, key) for one in listed):
            return tuple(p for one in listed if getattr(one, key) == wanted for p in one.processes or ())
    return tuple(p for one in listed if one.index == device.index for p in one.processes or ())


def find_program(name: str, probe: Probe) -> str | None:
    """Where a program is: on PATH, else in one of the directories that the vendor file names."""
    found = shutil.which(name)
    if found is None and probe.directories:
        found = shutil.which(name, path=os.pathsep.join(probe.directories))
    return found


def prober(vendor: Vendor, *, cancel: int | None = None, contained: bool = True) -> Prober:
    """The first of the vendor's ways to ask that is there. Raises ``ProbeError`` that says what was looked for.

    A library of a vendor whose device is not the host's own processor is asked in a process of its own, unless
    ``contained`` says not to.
    """
    tried = []
    for probe in vendor.probe:
        if probe.library:
            source = probe.library.partition(":")[2]
            try:
                if contained and not vendor.shared:
                    from pytest_flagperf.devices import contained as containment

                    return containment.started(vendor, probe)
                return Library(vendor, source, outputs.module_attribute(vendor.directory, probe.library)())
            except ProbeError as error:
                tried.append(str(error))
            except Exception as error:  # of the vendor's module, whatever it is
                tried.append(f"{source} cannot be used: {type(error).__name__}: {error}")
            continue
        path = find_program(probe.command[0], probe)
        if path is not None:
            return Program(vendor, probe, path, cancel)
        places = ["PATH", *probe.directories]
        tried.append(f"{probe.command[0]} is not in {', '.join(places)}")
    if not vendor.probe:
        tried.append("the vendor file has no [[probe]]")
    raise ProbeError(f"{vendor.name}: no way to ask for its devices: {'; '.join(dict.fromkeys(tried))}")


def devices(vendor: Vendor) -> list[Reading]:
    """The devices of this vendor on this host, by their driver, else by their device nodes.

    Empty where neither shows one. Raises ``ProbeError`` where the driver is there and fails.
    """
    try:
        found = prober(vendor)
    except ProbeError:
        return [Reading(index) for index in range(vendor.count())]
    try:
        return found.read()
    finally:
        found.close()


def looked_for(vendor: Vendor) -> str:
    """What :func:`devices` looked for, for a message that has to say why there is none."""
    try:
        prober(vendor).close()
        asked = ""
    except ProbeError as error:
        asked = str(error).partition(": no way to ask for its devices: ")[2]
    nodes = vendor.detection.device_nodes
    parts = [asked] if asked else []
    if nodes:
        parts.append(f"no device node {' or '.join(nodes)}")
    if vendor.detection.pci_vendors and nodes:
        parts[-1] += f" with a PCI device of vendor {' or '.join(vendor.detection.pci_vendors)}"
    return "; ".join(parts) or "the vendor file says neither how to ask for devices nor which nodes they have"


def without_processes(one: Reading) -> Reading:
    """The reading without its processes, which are told apart from the figures."""
    return replace(one, processes=None)
