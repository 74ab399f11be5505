"""``CASES`` of FlagPerf's ``test_conf.py`` and ``host.yaml`` → the pytest commands that run the same with ours."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytest_flagperf.importing import operators
from pytest_flagperf.importing.findings import Item
from pytest_flagperf.importing.findings import NotTaken
from pytest_flagperf.importing.findings import Refused
from pytest_flagperf.importing.findings import Source
from pytest_flagperf.importing.findings import Value
from pytest_flagperf.importing.findings import shown
from pytest_flagperf.importing.layout import HostFile
from pytest_flagperf.importing.ours import Ours


_WHOLE = re.compile(r"[1-9][0-9]{0,4}")
_TRAINING_TERMS = 6
_OPERATION_TERMS = 4

# (FlagPerf's vendor, model, framework, (hardware, nodes, devices)) → our precision, "" where nothing says one.
Precision = Callable[[str, str, str, tuple[str, int, int]], str]


@dataclass(frozen=True)
class Command:
    """A case of FlagPerf's and the command that runs it with ours; ``dataset`` is name and path, where there is one."""

    key: str
    file: Path
    line: int
    vendor: str
    arguments: tuple[str, ...]
    dataset: tuple[str, str] | None = None

    @property
    def text(self) -> str:
        """The command as a person types it."""
        return shlex.join(self.arguments)


@dataclass
class Taker:
    """Takes the cases and settings of one file; what has no place in ours gathers in ``not_taken``."""

    file: HostFile
    source: Source
    ours: Ours
    vendor_given: str | None
    precision: Precision

    def __post_init__(self) -> None:
        self.commands: list[Command] = []
        self.not_taken: list[NotTaken] = list(self.source.not_taken)

    def take(self) -> None:
        """Take every case, then the settings beside them."""
        cases = self.source.values.get("CASES")
        if "CASES" not in self.source.tables:
            line = cases.line if cases else 0
            self.not_taken.append(NotTaken(self.file.path, line, "CASES", "is no dictionary of cases"))
        for item in self.source.tables.get("CASES", ()):
            try:
                self.commands.append(self._case(item))
            except Refused as refused:
                self.not_taken.append(item.value.refused(shown(item.key), str(refused)))
        self.not_taken += settings(self.source, self.ours)

    def _case(self, item: Item) -> Command:
        if not isinstance(item.key, str) or not item.key.isprintable():
            raise Refused("is no text: a case is written model:framework:hardware:nodes:devices:repeat")
        if self.file.section == "training":
            return self._training(item)
        if self.file.section == "inference":
            return self._inference(item)
        return self._operator(item)

    def _vendor(self) -> str:
        value = self.source.values.get("VENDOR")
        name = self.vendor_given or (value.value if value else None)
        if not isinstance(name, str) or not name.strip():
            raise Refused("no VENDOR is named; give --vendor NAME")
        return name.strip()

    def _training(self, item: Item) -> Command:
        terms = item.key.split(":")
        if len(terms) < _TRAINING_TERMS:
            raise Refused("has not the six terms model:framework:hardware:nodes:devices:repeat")
        model, framework_text, hardware, nodes, devices, repeat = (term.strip() for term in terms[:_TRAINING_TERMS])
        for what, text in (("nodes", nodes), ("devices", devices), ("repeat", repeat)):
            if not _WHOLE.fullmatch(text):
                raise Refused(f"{what} is {shown(text)!r}: not a whole number above zero")
        vendor = self.ours.vendor(self._vendor())
        framework = self.ours.framework(framework_text)
        case = self.ours.case("training", model, framework)
        if int(nodes) > 1:
            raise Refused(f"several nodes ({nodes}) are not launched by this version: one host is")
        size = (hardware, int(nodes), int(devices))
        precision = self.precision(self._vendor(), model, framework_text.partition("_")[0], size)
        dataset = self._dataset(item, model, case)
        if len(terms) > _TRAINING_TERMS:
            surplus = ":".join(terms[_TRAINING_TERMS:])
            self.not_taken.append(
                item.value.refused(shown(item.key), f"the surplus terms {shown(surplus)} say nothing")
            )
        marked = f"training and {case.model} and {framework}"
        arguments = [
            *("pytest", *self.ours.suites, "-m", marked, f"--vendor={vendor.name}"),
            f"--topology={nodes}x{devices}",
            f"--rounds={repeat}",
            "--scale=full",
            *([f"--precision={precision}"] if precision else []),
            *_dataset_arguments(dataset),
        ]
        return Command(item.key, item.value.file, item.value.line, vendor.name, tuple(arguments), dataset)

    def _inference(self, item: Item) -> Command:
        model, separator, framework_text = item.key.partition(":")
        if not separator:
            raise Refused("has not the two terms case:framework")
        vendor = self.ours.vendor(self._vendor())
        framework = self.ours.framework(framework_text)
        case = self.ours.case("inference", model, framework)
        dataset = self._dataset(item, model, case)
        # FlagPerf has but this one of the roles: a loop over the whole dataset.
        marked = f"inference and throughput and {case.model} and {framework}"
        arguments = [*("pytest", *self.ours.suites, "-m", marked, f"--vendor={vendor.name}"), "--scale=full"]
        arguments += _dataset_arguments(dataset)
        return Command(item.key, item.value.file, item.value.line, vendor.name, tuple(arguments), dataset)

    def _operator(self, item: Item) -> Command:
        vendor = self.ours.vendor(self._vendor())
        chosen = operators.arguments(item, self.file.section, vendor, self.ours)
        command = ("pytest", *self.ours.suites, *chosen, f"--vendor={vendor.name}")
        return Command(item.key, item.value.file, item.value.line, vendor.name, command)

    def _dataset(self, item: Item, model: str, case: Any) -> tuple[str, str] | None:
        path = item.value.value
        what = f"{shown(item.key)}: {shown(path)}"
        if not isinstance(path, str) or not path.strip() or not path.isprintable():
            self.not_taken.append(item.value.refused(what, "is no path of a dataset"))
            return None
        try:
            return self.ours.dataset(model, case), path
        except Refused as refused:
            self.not_taken.append(item.value.refused(what, str(refused)))
            return None


def _dataset_arguments(dataset: tuple[str, str] | None) -> list[str]:
    return ["--dataset", f"{dataset[0]}={dataset[1]}"] if dataset else []


def settings(source: Source, ours: Ours) -> list[NotTaken]:
    """The settings of a host file or of ``cluster_conf.py``: none has a place in ours, and why."""
    found: list[NotTaken] = []
    for name, value in source.values.items():
        if name in ("CASES", "VENDOR"):
            continue
        if name == "HOSTS":
            found.append(_hosts(value))
        elif name == "ACCE_CONTAINER_OPT":
            found += _container(value, ours)
        elif name in ours.names.settings:
            setting = ours.names.settings[name]
            found.append(value.refused(name, setting.reason, needed=setting.needed and value.value not in (False, "")))
        else:
            found.append(value.refused(shown(name), "is no setting of FlagPerf's that this version knows"))
    return found


def _hosts(value: Value) -> NotTaken:
    count = len(value.value) if isinstance(value.value, (list, tuple)) else 1
    if count > 1:
        return value.refused("HOSTS", f"{count} hosts: this version launches on the host that pytest runs on")
    return value.refused("HOSTS", "pytest runs on the host itself, without ssh", needed=False)


def _container(value: Value, ours: Ours) -> list[NotTaken]:
    try:
        words = shlex.split(value.value) if isinstance(value.value, str) else None
    except ValueError:
        words = None
    if words is None:
        return [value.refused("ACCE_CONTAINER_OPT", "is no list of container options")]
    found = []
    for word in words:
        reason = ours.names.container.get(word.partition("=")[0])
        if reason:
            found.append(value.refused(f"ACCE_CONTAINER_OPT {shown(word)}", f"is refused: it {reason}"))
    if len(found) < len(words):
        reason = "vendor.toml names device nodes, mounts and groups: compare its [container]"
        found.append(value.refused("ACCE_CONTAINER_OPT", reason, needed=False))
    return found
