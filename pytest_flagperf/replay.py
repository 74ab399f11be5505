"""``--replay DIR``: results that exist are judged by the same tests, and nothing is launched.

Two layouts are read. FlagPerf's, ``<model>:<framework>:<hardware>:<nodes>:<devices>:<repeat>/round<k>/
<host>_noderank<r>/rank<n>.out.log``; and ours, ``<case id>/round<k>/<host>/rank<n>.events.jsonl`` beside a
``case.json``. ``DIR`` is such a run, or a directory that holds several.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field
from dataclasses import replace
from pathlib import Path
from typing import Any

from pytest_flagperf import flagperf_log
from pytest_flagperf import measured
from pytest_flagperf import metrics
from pytest_flagperf import perflog
from pytest_flagperf import samples
from pytest_flagperf.case import Replacement
from pytest_flagperf.case import ResolvedCase
from pytest_flagperf.case import Selection
from pytest_flagperf.case import Setting
from pytest_flagperf.case import Topology
from pytest_flagperf.devices.monitor import MONITOR
from pytest_flagperf.devices.vendor import Vendor
from pytest_flagperf.errors import ConfigurationError
from pytest_flagperf.errors import ReplayError
from pytest_flagperf.measured import TIMES
from pytest_flagperf.measured import Measured
from pytest_flagperf.perflog import Event
from pytest_flagperf.words import FRAMEWORKS
from pytest_flagperf.words import PRECISIONS


_FRAMEWORKS = {"pytorch": "pytorch", "torch": "pytorch", "paddle": "paddle", "mindspore": "mindspore"}
_KEY_TERMS = 6
NOT_LOGGED = "replayed from FlagPerf's log, which does not say what configuration was in force"


@dataclass(frozen=True)
class Recorded:
    """A run found on disk: which case it is of, and its rounds.

    A log of FlagPerf's does not say whether the vendor changed code: then the division is ``unknown``.
    """

    model: str
    role: str
    selection: Selection
    directory: Path
    rounds: tuple[Path, ...]
    hardware: str = ""
    vendor: str = ""
    synthetic: bool = False
    settings: Mapping[str, Setting] = field(default_factory=dict)
    deviations: tuple[str, ...] = ()
    division: str = "unknown"
    replaced: Replacement | None = None
    stand_in: str = ""
    container: Mapping[str, str] = field(default_factory=dict)
    vendor_file: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """The selection, and for FlagPerf's runs the hardware its key names."""
        return self.selection.id + (f"-{self.hardware}" if self.hardware else "")


def find(directory: Path, precision: str) -> list[Recorded]:
    """All runs below ``directory``, in order. FlagPerf's keys do not say the precision: ``precision`` is taken.

    Raises ``ReplayError`` where there is no such directory, or nothing of either layout in it.
    """
    if not directory.is_dir():
        raise ReplayError(f"--replay: {directory} is not a directory")
    found = []
    for path in sorted(p for p in (directory, *directory.rglob("*")) if p.is_dir()):
        rounds = tuple(sorted((r for r in path.glob("round*") if r.is_dir()), key=_number))
        if not rounds:
            continue
        recorded = (
            _of_ours(path, rounds) if (rounds[0] / "case.json").is_file() else _of_flagperf(path, rounds, precision)
        )
        if recorded is not None:
            found.append(recorded)
    if not found:
        raise ReplayError(
            f"--replay: {directory} holds no run: neither FlagPerf's <model>:<framework>:<hardware>:<nodes>:<devices>:"
            "<repeat>/round1/… nor ours, <case id>/round1/case.json"
        )
    return found


def _number(path: Path) -> int:
    digits = re.sub(r"\D", "", path.name)
    return int(digits) if digits else 0


def _of_flagperf(path: Path, rounds: tuple[Path, ...], precision: str) -> Recorded | None:
    terms = path.name.split(":")
    if len(terms) < _KEY_TERMS:
        return None
    model, framework, hardware, nodes, devices = terms[:5]
    known = _FRAMEWORKS.get(framework.partition("_")[0])
    if known is None:
        return None
    try:
        topology = Topology.parse(f"{nodes}x{devices}")
    except ConfigurationError:
        return None
    selection = Selection(known, precision, topology, "full")
    hardware = re.sub(r"[^A-Za-z0-9_.]", "_", hardware)
    return Recorded(model.lower(), "convergence", selection, path, rounds, hardware, _submitted_vendor(rounds[0]))


def _submitted_vendor(directory: Path) -> str:
    """The vendor that the log's first lines name; empty where they do not."""
    for path in sorted(directory.glob("*_noderank0/rank0.out.log")):
        with open(path, encoding="utf-8", errors="replace") as lines:
            for event in perflog.parse_lines(itertools.islice(lines, 1000)):
                if event.name == perflog.SUBMIT_INFO:
                    return _vendor_name(event.value.get("vendor"))
    return ""


def _vendor_name(found: Any) -> str:
    return found if isinstance(found, str) and re.fullmatch(r"[a-z0-9_]+", found) else ""


def _of_ours(path: Path, rounds: tuple[Path, ...]) -> Recorded | None:
    case = _read_case(rounds[0])
    try:
        selection = Selection(
            str(case["framework"]),
            str(case["precision"]),
            Topology.parse(str(case["topology"])),
            str(case["scale"]),
            str(case.get("engine", "")),
        )
        if selection.framework not in FRAMEWORKS or selection.precision not in PRECISIONS:
            raise ConfigurationError(f"unknown framework or precision in {selection.id!r}")
        vendor = _vendor_name(case.get("vendor"))
        synthetic = bool(case.get("dataset", {}).get("synthetic"))
        origins = case.get("origins", {})
        return Recorded(
            str(case["model"]),
            str(case["role"]),
            selection,
            path,
            rounds,
            vendor=vendor,
            synthetic=synthetic,
            settings={k: Setting(v, str(origins.get(k, path))) for k, v in case.get("config", {}).items()},
            deviations=tuple(map(str, case.get("deviations", ()))),
            division=str(case.get("division", "closed")),
            replaced=_replaced(case),
            stand_in=str(case.get("device", {}).get("stand_in", "")),
            container=_texts(case, "container"),
            vendor_file=_texts(case, "vendor_file"),
            environment=_texts(case, "environment"),
        )
    except (KeyError, ConfigurationError) as error:
        raise ReplayError(f"{rounds[0] / 'case.json'} is not a case: {error}") from error


def _texts(case: Mapping[str, Any], key: str) -> dict[str, str]:
    found = case.get(key)
    return {str(name): str(value) for name, value in found.items()} if isinstance(found, dict) else {}


def _replaced(case: Mapping[str, Any]) -> Replacement | None:
    if not case.get("diff"):
        return None
    return Replacement(str(case["workload"]), Path(str(case["workload_directory"])), str(case["diff"]))


def _read_case(round_directory: Path) -> dict[str, Any]:
    path = round_directory / "case.json"
    try:
        case = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ReplayError(f"{path} cannot be read: {error}") from error
    if not isinstance(case, dict):
        raise ReplayError(f"{path} is not a case")
    return case


def measure(vendor: Vendor, case: ResolvedCase, directory: Path) -> Measured:
    """What one recorded round measured. Raises a ``FlagPerfError`` where it is incomplete or impossible."""
    if (directory / "case.json").is_file():
        return _measure_ours(vendor, case, directory)
    wanted = [target.metric for target in case.targets]
    events = _first_rank(directory)
    figures, notes = flagperf_log.figures(events, wanted)
    history = flagperf_log.evaluations(events, wanted)
    reached = metrics.time_to_target(history, case.targets)
    if reached is not None:
        figures["time_to_target"] = reached
    return Measured(figures, history, notes=(NOT_LOGGED, *notes))


def _first_rank(directory: Path) -> list[Event]:
    """The log of rank 0 on node 0."""
    for pattern in ("*_noderank0/rank0.out.log", "*/rank0.out.log"):
        for path in sorted(directory.glob(pattern)):
            return perflog.read_events(path)
    raise ReplayError(f"{directory} has no <host>_noderank0/rank0.out.log")


def _measure_ours(vendor: Vendor, case: ResolvedCase, directory: Path) -> Measured:
    world_size = case.selection.topology.world_size
    logs = [sorted(directory.glob(f"*/rank{rank}.events.jsonl")) for rank in range(world_size)]
    missing = [rank for rank, paths in enumerate(logs) if not paths]
    if missing:
        raise ReplayError(f"{directory} lacks the events of rank {', '.join(map(str, missing))}")
    ranks = [perflog.read_events(paths[0]) for paths in logs]
    seen = samples.read(next(iter(sorted(directory.glob(f"*/{MONITOR}"))), directory / MONITOR))
    found = measured.measure(vendor, case, ranks, _times(directory), seen if seen.devices else None)
    return replace(found, notes=("replayed", *found.notes))


def _times(directory: Path) -> metrics.JobTimes:
    """Start and end of the job, as they were recorded when it ended."""
    path = directory / TIMES
    try:
        return metrics.JobTimes(**json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError) as error:
        raise ReplayError(f"{path} cannot be read, the round did not end: {error}") from error
