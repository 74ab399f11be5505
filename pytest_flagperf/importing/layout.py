"""What of FlagPerf's is at a path: a clone, its ``training``, one vendor's directory, one case or a single file."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from dataclasses import replace
from pathlib import Path

from pytest_flagperf.importing.findings import NotTaken


SECTIONS = {"training": "training", "inference": "inference", "base": "operator", "operation": "operator"}
_VENDORS = {"inference": "docker_images", "base": "vendors", "operation": "vendors"}

_NO_VENDORS = ("benchmarks", "run_benchmarks", "utils", "result")

CONFIG = re.compile(r"config_(?P<hardware>[A-Za-z0-9_.+-]+?)x(?P<nodes>[1-9]\d{0,4})x(?P<devices>[1-9]\d{0,4})\.py")
_NEARLY_CONFIG = re.compile(r"config_.*x\d+x\d+.*")
_CASE_DIRECTORY = re.compile(r"(?P<model>[A-Za-z0-9_.]+)-(?P<framework>[a-z][\w.-]*)")


@dataclass(frozen=True)
class VendorConfig:
    """``training/<vendor>/<model>-<framework>/config/config_<hardware>x<nodes>x<devices>.py``."""

    path: Path
    vendor: str
    model: str
    framework: str
    hardware: str
    nodes: int
    devices: int

    @property
    def topology(self) -> str:
        """As ours is written: ``1x8``."""
        return f"{self.nodes}x{self.devices}"


@dataclass(frozen=True)
class HostFile:
    """``test_conf.py`` or ``host.yaml``: the cases to run, of one section of FlagPerf's."""

    path: Path
    section: str

    @property
    def kind(self) -> str:
        """The kind of our cases that this section is."""
        return SECTIONS[self.section]


@dataclass(frozen=True)
class Layout:
    """The files found, in order.

    ``training`` is where vendors' directories are, if that is known; ``vendors`` are those that were looked into, in
    every section.
    """

    hosts: tuple[HostFile, ...] = ()
    clusters: tuple[Path, ...] = ()
    configs: tuple[VendorConfig, ...] = ()
    cases: tuple[Path, ...] = ()
    training: Path | None = None
    vendors: tuple[Path, ...] = ()
    not_taken: tuple[NotTaken, ...] = ()

    @property
    def empty(self) -> bool:
        """Whether nothing of FlagPerf's was found."""
        return not (self.hosts or self.clusters or self.configs or self.cases)


def find(path: Path, vendor: str | None = None) -> Layout:
    """What is at ``path``; of vendors' directories only FlagPerf's ``vendor``, where one is given."""
    if path.is_file():
        return _file(path)
    if (path / "run_benchmarks").is_dir():
        return _training(path, vendor)
    if (path / "training").is_dir() or _host_files(path):
        return _clone(path, vendor)
    if (path / "configs" / "host.yaml").is_file():
        section = _section(path)
        host = HostFile(path / "configs" / "host.yaml", section)
        return Layout(hosts=(host,), vendors=tuple(_vendors(path, section, vendor)))
    case = path.resolve().parent if path.resolve().name == "config" else path
    if (case / "config").is_dir():
        return _cases([case])
    return replace(_cases(sorted(path.glob("*-*/"))), vendors=(path,))


def config_of(training: Path, vendor: str, case: str, framework: str, size: tuple[str, int, int]) -> Path:
    """Where FlagPerf looks for the vendor's configuration of a case; ``size`` is hardware, nodes, devices."""
    hardware, nodes, devices = size
    return training / vendor / f"{case}-{framework}" / "config" / f"config_{hardware}x{nodes}x{devices}.py"


def _file(path: Path) -> Layout:
    if path.name == "cluster_conf.py":
        return Layout(clusters=(path,))
    if path.suffix in (".yaml", ".yml"):
        return Layout(hosts=(HostFile(path, _section(path.parent.parent)),))
    found = _config(path)
    if found is not None:
        return Layout(configs=(found,), training=path.parents[3] if len(path.parents) > 3 else None)
    if path.suffix != ".py" or CONFIG.fullmatch(path.name):
        # Without the directories above it, nothing says which vendor and model a configuration is of.
        return Layout()
    root = path.resolve().parent.parent.parent
    beside = path.with_name("cluster_conf.py")
    return Layout(
        hosts=(HostFile(path, "training"),),
        clusters=(beside,) if beside.is_file() else (),
        training=root if (root / "run_benchmarks").is_dir() else None,
    )


def _clone(path: Path, vendor: str | None) -> Layout:
    training = _training(path / "training", vendor) if (path / "training").is_dir() else Layout()
    others = [one for section in _VENDORS for one in _vendors(path / section, section, vendor)]
    return replace(training, hosts=(*training.hosts, *_host_files(path)), vendors=(*training.vendors, *others))


def _vendors(path: Path, section: str, vendor: str | None) -> list[Path]:
    """The vendors' directories of a section other than training."""
    folder = _VENDORS.get(section)
    return sorted(one for one in path.glob(f"{folder}/{vendor or '*'}") if one.is_dir()) if folder else []


def _host_files(path: Path) -> list[HostFile]:
    found = [HostFile(path / section / "configs" / "host.yaml", section) for section in SECTIONS]
    return [file for file in found if file.path.is_file()]


def _training(path: Path, vendor: str | None) -> Layout:
    settings = path / "run_benchmarks" / "config"
    tests, cluster = settings / "test_conf.py", settings / "cluster_conf.py"
    return replace(
        _cases(sorted(path.glob(f"{vendor or '*'}/*-*/"))),
        hosts=(HostFile(tests, "training"),) if tests.is_file() else (),
        clusters=(cluster,) if cluster.is_file() else (),
        training=path,
        vendors=tuple(sorted(one for one in path.glob(vendor or "*") if one.is_dir() and one.name not in _NO_VENDORS)),
    )


def _cases(directories: list[Path]) -> Layout:
    configs: list[VendorConfig] = []
    not_taken: list[NotTaken] = []
    cases = [directory for directory in directories if (directory / "config").is_dir()]
    for directory in cases:
        for path in _sorted(directory / "config"):
            found = _config(path)
            if found is not None:
                configs.append(found)
            elif _NEARLY_CONFIG.fullmatch(path.name):
                not_taken.append(
                    NotTaken(
                        path, 0, path.name, "is not called config_<hardware>x<nodes>x<devices>.py: FlagPerf skips it"
                    )
                )
    training = cases[0].resolve().parent.parent if cases else None
    return Layout(configs=tuple(configs), cases=tuple(cases), training=training, not_taken=tuple(not_taken))


def _sorted(directory: Path) -> Iterator[Path]:
    yield from sorted(path for path in directory.iterdir() if path.is_file())


def _config(path: Path) -> VendorConfig | None:
    name = CONFIG.fullmatch(path.name)
    folder = path.resolve().parent.parent
    case = _CASE_DIRECTORY.fullmatch(folder.name)
    if name is None or case is None:
        return None
    return VendorConfig(
        path,
        folder.parent.name,
        case["model"],
        case["framework"],
        name["hardware"],
        int(name["nodes"]),
        int(name["devices"]),
    )


def _section(path: Path) -> str:
    """The section a directory or its parents are named for; without one it is read as the inference's."""
    return next((part for part in reversed(path.resolve().parts) if part in SECTIONS), "inference")
