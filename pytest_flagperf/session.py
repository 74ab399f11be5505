"""What the cases of one pytest session share: options, the vendor, the results directory and its ledger."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING
from typing import Any

import pytest

from pytest_flagperf import datasets
from pytest_flagperf import engines
from pytest_flagperf import facts
from pytest_flagperf import options
from pytest_flagperf import overlay
from pytest_flagperf import records
from pytest_flagperf import replay
from pytest_flagperf import result
from pytest_flagperf import words
from pytest_flagperf.case import FRAMEWORK_MODULES
from pytest_flagperf.case import ModelCase
from pytest_flagperf.devices import probe
from pytest_flagperf.devices import vendor as vendors
from pytest_flagperf.devices import visible
from pytest_flagperf.devices.files import digest
from pytest_flagperf.devices.vendor import FrameworkSupport
from pytest_flagperf.engines import Seen
from pytest_flagperf.errors import ConfigurationError
from pytest_flagperf.errors import ProbeError
from pytest_flagperf.errors import ReplayError
from pytest_flagperf.judging import resume as resuming
from pytest_flagperf.judging.gate import Gate
from pytest_flagperf.judging.resume import Offer
from pytest_flagperf.judging.resume import Resume


if TYPE_CHECKING:
    from pytest_flagperf.devices.reading import Reading
    from pytest_flagperf.devices.vendor import Chip
    from pytest_flagperf.devices.vendor import Vendor
    from pytest_flagperf.replay import Recorded


# Variables that change what a workload does; everything else of the environment is nobody's business.
_RECORDED = re.compile(
    r"(FLAGPERF|CUDA|NVIDIA|NCCL|GLOO|HCCL|ASCEND|XPU|BKCL|MLU|CNCL|MUSA|MCCL|MACA|METAX|HIP|ROCR|RCCL|MIOPEN|HABANA|HCL|"
    r"TOPS|ECCL|IX|PADDLE|FLAGS|MS|OMP|MKL|ONEDNN|DNNL|TORCH|PYTORCH|KMP|GOMP|OPENBLAS)_.*|"
    r"LD_LIBRARY_PATH|LD_PRELOAD|PYTHONPATH|PYTHONHASHSEED"
)
_SECRET = re.compile(r"TOKEN|SECRET|PASSW|CREDENTIAL|API_?KEY|PRIVATE|(^|_)KEY($|_)|AUTH", re.IGNORECASE)
_SECRET_VALUE = re.compile(r"://[^/\s]*@")
MASK = "***"


class Session:
    """The plugin's state for one pytest process; xdist workers share its directory with their controller."""

    _unreadable: ProbeError | None = None

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.options = options.parse(config)
        self.models: dict[str, str] = {}
        self.engine_markers: set[str] = set()
        self.name = words.session_name(config)

        self._engines: dict[str, dict[str, Seen]] = {}
        self._overlays: dict[Path, overlay.Overlay | None] = {}
        # An explicit vendor is checked at once: a typo is not worth a collection.
        if self.options.vendor is not None:
            _ = self.vendor
        try:
            if self.options.replay is not None:
                _ = self.recorded
        except ReplayError as error:
            raise pytest.UsageError(str(error)) from error
        self._check_earlier()

    def _check_earlier(self) -> None:
        """What the session is to go by has to be readable: that is found out before anything is measured."""
        option = "--resume"
        try:
            _ = self.resume
            option = "--baseline"
            self.gate.check()
        except (ReplayError, ConfigurationError) as error:
            raise pytest.UsageError(f"{option}: {error}") from error

    @cached_property
    def vendor_directories(self) -> list[Path]:
        """Where vendors are looked for: those of conftest files and plugins, of installed packages, and our own."""
        found: list[Path] = []
        for paths in self.config.hook.pytest_flagperf_vendors(config=self.config):
            found += [Path(path) for path in paths]
        return [*found, *vendors.installed(), vendors.bundled()]

    @cached_property
    def vendor(self) -> Vendor:
        """The vendor asked for, or the one whose accelerator is here, or the processor."""
        try:
            if self.options.vendor is not None:
                return vendors.find(self.options.vendor, self.vendor_directories)
            return vendors.detect(self.vendor_directories)
        except ConfigurationError as error:
            raise pytest.UsageError(f"--vendor: {error}") from error

    @cached_property
    def readings(self) -> list[Reading]:
        """The vendor's devices on this host, by its driver or else its device nodes. Raises ``ProbeError``."""
        if self._unreadable is not None:
            raise self._unreadable
        try:
            return probe.devices(self.vendor)
        except ProbeError as error:
            # A driver that hangs would be waited for by every test.
            self._unreadable = error
            raise

    @cached_property
    def vendor_file(self) -> dict[str, str]:
        """Which vendor file is in force: its path, and a digest of it and of the modules that it names."""
        return {"path": str(self.vendor.directory / "vendor.toml"), "sha256": digest(self.vendor)}

    @cached_property
    def vendor_deviations(self) -> tuple[str, ...]:
        """What there is to say of the vendor file: that it stands in the place of the one that ships."""
        own = vendors.bundled() / self.vendor.name / "vendor.toml"
        if self.vendor.directory == own.parent or not own.is_file():
            return ()
        return (f"vendor file {self.vendor_file['path']} in the place of the one that ships",)

    def vendor_environment(self, framework: str) -> dict[str, str]:
        """What the vendor file adds to the environment of every rank."""
        return {**self.vendor.environment, **self.support(framework).environment}

    @property
    def seen(self) -> str:
        """How many devices this host has, in words, or why nobody knows."""
        try:
            count = len(self.readings)
        except ProbeError as error:
            return f"devices unknown ({str(error).splitlines()[0]})"
        text = f"{count} device{'s' if count != 1 else ''}" + (f" ({self.chip[0]})" if self.chip else "")
        return ", ".join([text, *(f"{name}={value}" for name, value in self.chosen_devices.items())])

    @property
    def chosen_devices(self) -> dict[str, str]:
        """The visible-devices variables that the caller set."""
        return visible.chosen(self.vendor)

    @cached_property
    def chip(self) -> tuple[str, Chip] | None:
        """The chip that all devices here call themselves by; ``None`` where there are none, several or unknown ones."""
        try:
            names = {one.name for one in self.readings}
        except ProbeError:
            return None
        name = names.pop() if len(names) == 1 else None
        return self.vendor.chip(name) if name else None

    def support(self, framework: str) -> FrameworkSupport:
        """What ``framework`` calls the devices that the workload runs on, and how its ranks talk to each other."""
        support = self.vendor.frameworks[framework]
        stand_in = self.stand_in(framework)
        if stand_in is None:
            return support
        return FrameworkSupport(device=stand_in["device"], backend=stand_in.get("backend", ""))

    def stand_in(self, framework: str) -> Mapping[str, str] | None:
        """The device that a test of a vendor's files runs the workload on; ``None`` for a measurement."""
        given: Mapping[str, str] | None = self.config.hook.pytest_flagperf_workload_device(
            config=self.config, framework=framework
        )
        return given

    def known_vendor(self, name: str) -> Vendor:
        """The vendor ``name``, or the session's own where that is not known here."""
        known = name in vendors.names(self.vendor_directories)
        return vendors.find(name, self.vendor_directories) if known else self.vendor

    def overlay(self, case: ModelCase) -> tuple[Path, overlay.Overlay] | None:
        """The vendor's overlay of this model, if it has one; those of inference are in a folder of that name."""
        for directory in self.vendor_directories:
            folder = directory / self.vendor.name
            path = (folder / "inference" if case.kind == "inference" else folder) / f"{case.model}.toml"
            if path not in self._overlays:
                self._overlays[path] = overlay.read(path, case, self.vendor) if path.is_file() else None
            found = self._overlays[path]
            if found is not None:
                return path, found
        return None

    @cached_property
    def recorded(self) -> list[Recorded]:
        """The runs in ``--replay``'s directory."""
        assert self.options.replay is not None
        return replay.find(self.options.replay, self.options.precisions[0])

    def installed(self, framework: str) -> bool:
        """Whether the framework can be used: importable here, in an interpreter that was named, or in an image's."""
        if self.options.container is not None or framework in self.options.pythons:
            return True
        return find_spec(FRAMEWORK_MODULES[framework]) is not None

    def frameworks(self, case: ModelCase) -> list[str]:
        """The frameworks to run ``case`` in. With none installed all of the case's: their tests say what to install."""
        wanted = [f for f in self.options.frameworks or case.workloads if f in case.workloads]
        return wanted if self.options.frameworks else [f for f in wanted if self.installed(f)] or wanted

    def python(self, framework: str) -> str:
        """The interpreter the framework's ranks run in. Raises ``ConfigurationError`` where it is not installed."""
        if not self.installed(framework):
            raise ConfigurationError(
                f"{framework} is not installed in {sys.executable}: pip install 'pytest-flagperf"
                f"[{ {'pytorch': 'torch'}.get(framework, framework) }]', or name an interpreter that has it: "
                f"--python {framework}=/path/to/python"
            )
        return self.options.pythons.get(framework, sys.executable)

    def engine(self, framework: str, name: str) -> Seen | None:
        """What an engine says of itself in the framework's interpreter; ``None`` where that is in a container."""
        if self.options.container is not None:
            return None
        if framework not in self._engines:
            self._engines[framework] = engines.look(self.python(framework), framework)
        return self._engines[framework].get(name, Seen(missing=f"engine {name} executes no models of {framework}"))

    @cached_property
    def gate(self) -> Gate:
        """What results are compared with."""
        return Gate(self)

    @cached_property
    def resume(self) -> Resume | None:
        """The session that results are taken from, where ``--resume`` names one. Raises ``ReplayError``."""
        return Resume(self.options.resume) if self.options.resume is not None else None

    @property
    def data_root(self) -> Path:
        """Where datasets are looked for and prepared."""
        return self.options.data_root or datasets.default_data_root()

    @property
    def directory(self) -> Path:
        """``<results>/<time>-<id>``; it is there once :meth:`open` was called."""
        return self.options.directory / self.name

    def open(self) -> Path:
        """Make the session's directory with its ``session.json``, by whichever process comes first."""
        self.directory.mkdir(parents=True, exist_ok=True)
        path = self.directory / "session.json"
        if not path.exists():
            records.write_json(path, self._description())
        return self.directory

    def ledger(self, event: str, **record: Any) -> None:
        """Append a line to ``ledger.jsonl``; on the disk before this returns."""
        self._append(event, record, sync=True)

    def note(self, event: str, **record: Any) -> None:
        """As :meth:`ledger`, but only handed to the kernel: for what happens many times a second."""
        self._append(event, record, sync=False)

    def _append(self, event: str, record: Mapping[str, Any], *, sync: bool) -> None:
        stamp = {"event": event, "time": time.time(), "pid": os.getpid()}
        records.append_line(self.directory / "ledger.jsonl", {**stamp, **record}, sync=sync)

    def tell_elsewhere(self, case: str, test: str, offer: Offer) -> None:
        """A line in the ledger with the rounds that earlier sessions have of a test which runs again."""
        if offer.rounds and self.resume is not None:
            rounds = list(offer.rounds)
            self.ledger(resuming.ELSEWHERE, case=case, test=test, session=self.resume.name, rounds=rounds)

    def case_directory(self, case_id: str) -> Path:
        """A directory of its own for this run of a case; a second run in one session gets another."""
        self.open()
        for number in range(1, 10_000):
            path = self.directory / (case_id if number == 1 else f"{case_id}~{number}")
            try:
                path.mkdir()
            except FileExistsError:
                continue
            return path
        raise ConfigurationError(f"{self.directory} holds 10,000 runs of {case_id}")

    def rerun(self, item: pytest.Item) -> list[str]:
        """The command that runs exactly this test again, with the options that change what it does."""
        where = os.path.relpath(item.path, self.config.invocation_params.dir)
        name = item.nodeid.partition("::")[2]
        command = ["pytest", f"{where}::{name}", *_needed(self.config.invocation_params.args)]
        for option in options.TABLE:
            value, origin = options.given(self.config, option)
            if not value or origin == "ini file" or option.name in options.OF_SESSION:
                continue
            for one in value if isinstance(value, list) else [value]:
                if option.name != "target" or _has_target(item, one):
                    command.append(f"{option.flag}={one}")
        return command

    @property
    def devices_and_host(self) -> dict[str, Any]:
        """What ``session.json`` says of them."""
        return {**self._devices(), "host": facts.host()}

    def _devices(self) -> dict[str, Any]:
        try:
            readings = self.readings
        except ProbeError as error:
            return {"devices": None, "devices_error": str(error)}
        told = ("index", "name", "uuid", "serial")
        listed = [{key: getattr(one, key) for key in told if getattr(one, key) is not None} for one in readings]
        return {"devices": len(readings), "device_list": listed}

    def _description(self) -> dict[str, Any]:
        resume = self.resume
        return {
            "schema_version": result.SCHEMA_VERSION,
            "session": self.name,
            "time_started": time.time(),
            "command": mask_arguments(("pytest", *map(str, self.config.invocation_params.args))),
            "options": dict(self.options.explicit),
            "rounds": self.options.rounds,
            **({"baseline": str(self.options.baseline)} if self.options.baseline is not None else {}),
            "versions": facts.versions(),
            "vendor": self.vendor.name,
            "vendor_file": self.vendor_file,
            **self.devices_and_host,
            "source": facts.commit(self.config.rootpath),
            **({"resumed": {"session": resume.name, "directory": str(resume.directory)}} if resume else {}),
            "environment": {**masked_environment(os.environ), **self.chosen_devices},
        }


def _needed(arguments: Iterable[Any]) -> list[str]:
    """Those of pytest's own arguments without which a test may not be found: plugins, the ini file, the root."""
    found: list[str] = []
    given = [str(argument) for argument in arguments]
    for index, argument in enumerate(given):
        if argument in ("-p", "-c", "--rootdir", "--config-file", "-o") and index + 1 < len(given):
            found += [argument, given[index + 1]]
        elif argument.startswith(("--rootdir=", "--config-file=", "-pno:")) or re.match(r"-[pc]\S", argument):
            found.append(argument)
    return found


def _has_target(item: pytest.Item, given: str) -> bool:
    """Whether a ``METRIC=VALUE`` changes the test's case: for a case that lacks the target it is an error."""
    case = item.callspec.params.get("case") if hasattr(item, "callspec") else None
    return given.partition("=")[0] in {target.metric for target in getattr(case, "targets", ())}


def masked_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that change what a workload does, without secrets."""
    return masked({name: value for name, value in environment.items() if _RECORDED.fullmatch(name)})


def masked(environment: Mapping[str, str]) -> dict[str, str]:
    """Variables by name, with secrets masked, by name and in URLs."""
    return {
        name: MASK if _SECRET.search(name) else _SECRET_VALUE.sub(f"://{MASK}@", value)
        for name, value in sorted(environment.items())
    }


def mask_arguments(arguments: Sequence[str]) -> list[str]:
    """A command line without secrets: ``--token=x``, ``--token x`` and ``https://user:password@host`` are masked."""
    found: list[str] = []
    previous = ""
    for argument in arguments:
        named = previous.startswith("--") and "=" not in previous and _SECRET.search(previous)
        found.append(MASK if named and not argument.startswith("-") else mask_argument(argument))
        previous = argument
    return found


def mask_argument(argument: str) -> str:
    """One argument without its secret: what follows the equals sign after a secret's name, and in URLs."""
    secret = _SECRET.search(argument)
    equals = argument.find("=", secret.end()) if secret else -1
    if equals >= 0:
        return f"{argument[:equals]}={MASK}"
    return _SECRET_VALUE.sub(f"://{MASK}@", argument)
