"""What ``flagperf import`` found at a path and would write: commands, overlays, an ini snippet, and what is left."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pytest_flagperf.devices import vendor as vendors
from pytest_flagperf.errors import ConfigurationError
from pytest_flagperf.importing import companions
from pytest_flagperf.importing import hosts
from pytest_flagperf.importing import layout
from pytest_flagperf.importing import overlays
from pytest_flagperf.importing import source
from pytest_flagperf.importing.cases import Command
from pytest_flagperf.importing.cases import Taker
from pytest_flagperf.importing.cases import settings
from pytest_flagperf.importing.findings import NotTaken
from pytest_flagperf.importing.findings import Refused
from pytest_flagperf.importing.findings import Source
from pytest_flagperf.importing.layout import HostFile
from pytest_flagperf.importing.layout import Layout
from pytest_flagperf.importing.ours import Ours
from pytest_flagperf.importing.overlays import Entry


class NothingToImport(ConfigurationError):
    """The path given holds nothing of FlagPerf's."""


@dataclass(frozen=True)
class Plan:
    """The outcome for one path. Nothing was written."""

    path: Path
    commands: tuple[Command, ...]
    entries: tuple[Entry, ...]
    not_taken: tuple[NotTaken, ...]

    @property
    def lost(self) -> tuple[NotTaken, ...]:
        """What was not taken and ours gets from nowhere else."""
        return tuple(one for one in self.not_taken if one.needed)

    def overlays(self) -> dict[str, str]:
        """The overlay files by their path: ``vendors/<vendor>/<model>.toml`` → TOML."""
        files: dict[str, list[Entry]] = {}
        for entry in self.entries:
            files.setdefault(f"vendors/{entry.vendor}/{entry.model}.toml", []).append(entry)
        heading = (
            "# Taken from FlagPerf by flagperf import; keys that the case does not declare tunable are left out.\n"
        )
        return {name: "\n".join([heading, *(one.text for one in found)]) for name, found in sorted(files.items())}

    def ini(self) -> str:
        """A ``[pytest]`` section with the vendor and the datasets, where the cases agree on them."""
        lines = ["# Taken from FlagPerf by flagperf import: for pytest.ini.", "[pytest]"]
        vendors = sorted({command.vendor for command in self.commands})
        lines.append(f"flagperf_vendor = {vendors[0]}" if len(vendors) == 1 else f"# vendors: {', '.join(vendors)}")
        paths: dict[str, list[str]] = {}
        for command in self.commands:
            if command.dataset is not None and command.dataset[1] not in paths.setdefault(command.dataset[0], []):
                paths[command.dataset[0]].append(command.dataset[1])
        agreed = [f"    {name}={found[0]}" for name, found in sorted(paths.items()) if len(found) == 1]
        lines += ["flagperf_dataset =", *agreed] if agreed else []
        several = [name for name, found in sorted(paths.items()) if len(found) > 1]
        lines += [f"# {name} is at several places: give --dataset with each command" for name in several]
        return "\n".join([*lines, ""])


def build(path: Path, *, vendor: str | None = None, ours: Ours | None = None) -> Plan:
    """Read what is at ``path``.

    Raises ``NothingToImport`` where that is nothing of FlagPerf's, or ``vendor`` is none that is known.
    """
    if not path.exists():
        raise NothingToImport(f"{path}: there is no such file or directory")
    ours = ours or Ours.bundled()
    if vendor is not None:
        try:
            ours.vendor(vendor)
        except Refused as refused:
            raise NothingToImport(f"--vendor {vendor}: {refused}") from refused
    found = layout.find(path, vendor)
    if found.empty:
        raise NothingToImport(
            f"{path} holds nothing of FlagPerf's: give a clone, its training directory, a vendor's directory in it, "
            "test_conf.py, host.yaml or a config_<hardware>x<nodes>x<devices>.py"
        )
    return _Builder(found, vendor, ours, direct=path.is_file()).build(path)


class _Builder:
    """Gathers what the files of a layout give."""

    def __init__(self, found: Layout, vendor: str | None, ours: Ours, *, direct: bool) -> None:
        self.found = found
        self.vendor = vendor
        self.ours = ours
        self.direct = direct
        self.sources: dict[Path, Source] = {}
        self.commands: list[Command] = []
        self.not_taken: list[NotTaken] = list(found.not_taken)

    def build(self, path: Path) -> Plan:
        for file in self.found.hosts:
            self._host(file)
        for cluster in self.found.clusters:
            read = self._read(cluster)
            self.not_taken += [*read.not_taken, *settings(read, self.ours)]
        entries = self._overlays()
        self._companions()
        return Plan(path, tuple(self.commands), tuple(entries), tuple(_once(self.not_taken)))

    def _host(self, file: HostFile) -> None:
        if file.section == "training":
            read = self._read(file.path)
        else:
            try:
                read = hosts.read(file.path)
            except ConfigurationError as error:
                if self.direct:
                    raise
                # The rest of a clone is worth having without it.
                reason = str(error).removeprefix(f"{file.path}: ")
                read = Source({}, {}, (NotTaken(file.path, 0, "the file", reason),))
        if not read.values and read.not_taken:
            self.not_taken += read.not_taken
            return
        taker = Taker(file, read, self.ours, self.vendor, self._precision)
        taker.take()
        self.commands += taker.commands
        self.not_taken += taker.not_taken

    def _precision(self, vendor: str, model: str, framework: str, size: tuple[str, int, int]) -> str:
        if self.found.training is None:
            return ""
        path = layout.config_of(self.found.training, vendor, model, framework, size)
        if not path.is_file():
            reason = "is not there: the command has the default precision, and there is no overlay"
            self.not_taken.append(NotTaken(path, 0, "the vendor's configuration", reason))
            return ""
        own = self.ours.framework(framework)
        check = partial(
            self.ours.check_precision,
            vendor=self.ours.vendor(vendor),
            framework=own,
            case=self.ours.case("training", model, own),
        )
        precision, not_taken = overlays.precision_of(self._read(path), self.ours.names, check)
        self.not_taken += not_taken
        return precision or ""

    def _overlays(self) -> list[Entry]:
        entries: list[Entry] = []
        absent: set[Path] = set()
        for config in self.found.configs:
            directory = config.path.parent.parent
            if directory in absent:
                continue
            try:
                entry, not_taken = overlays.take(config, self._read(config.path), self.ours)
            except Refused as refused:
                # Said once of a case, not of each of its files and keys.
                absent.add(directory)
                self.not_taken.append(NotTaken(directory, 0, directory.name, str(refused)))
                continue
            self.not_taken += not_taken
            entries += [entry] if entry is not None else []
        for directory in self.found.cases:
            if directory not in absent:
                self.not_taken += companions.of_case(directory)
        return entries

    def _companions(self) -> None:
        known = vendors.names(self.ours.vendor_directories)
        for directory in self.found.vendors:
            own = self.ours.names.vendor(directory.resolve().name)
            self.not_taken += companions.of_vendor(directory, known=own in known)

    def _read(self, path: Path) -> Source:
        if path not in self.sources:
            self.sources[path] = source.read(path)
        return self.sources[path]


def _once(found: Iterable[NotTaken]) -> list[NotTaken]:
    """Each once: several configurations import the same file."""
    return sorted(dict.fromkeys(found), key=lambda one: (str(one.file), one.line))
