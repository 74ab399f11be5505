"""A recorded round as a case that can be measured again, without the suite and the vendor folder it ran with."""

from __future__ import annotations

import json
from collections.abc import Iterable
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from pytest_flagperf import metrics
from pytest_flagperf import suites
from pytest_flagperf.case import InferenceCase
from pytest_flagperf.case import ResolvedCase
from pytest_flagperf.case import Scale
from pytest_flagperf.case import Selection
from pytest_flagperf.case import Setting
from pytest_flagperf.case import Target
from pytest_flagperf.case import Topology
from pytest_flagperf.case import TrainingCase
from pytest_flagperf.devices import files as vendor_files
from pytest_flagperf.devices import vendor as vendors
from pytest_flagperf.devices.vendor import Vendor
from pytest_flagperf.errors import ConfigurationError
from pytest_flagperf.errors import ReplayError
from pytest_flagperf.provision import Data
from pytest_flagperf.records import read_whole
from pytest_flagperf.result import MetricValue
from pytest_flagperf.run import asked_of
from pytest_flagperf.sessions import SessionFiles
from pytest_flagperf.weights import FoundWeights


def read(path: Path) -> dict[str, Any]:
    """A JSON object. Raises ``ReplayError``."""
    try:
        document = json.loads(read_whole(path))
    except (OSError, ValueError, RecursionError) as error:
        raise ReplayError(f"{path} cannot be read: {error}") from error
    if not isinstance(document, dict):
        raise ReplayError(f"{path} holds no object")
    return document


def case(document: Mapping[str, Any], kind: str) -> ResolvedCase:
    """The case of a ``case.json``. Raises ``ConfigurationError``, or ``KeyError`` for a file that lacks something."""
    selection = Selection(
        str(document["framework"]),
        str(document["precision"]),
        Topology.parse(str(document["topology"])),
        str(document["scale"]),
        str(document.get("engine", "")),
    )
    targets = tuple(Target(t["metric"], t["bound"], t["direction"], t["source"]) for t in document["targets"])
    scale = Scale(
        dataset=str(document["dataset"]["name"]),
        targets=targets,
        flops=flops(document, kind, selection.scale),
        parameters=document.get("parameters"),
        weights=str((document.get("weights") or {}).get("name", "")),
    )
    standard = InferenceCase if kind == "inference" else TrainingCase
    origins = document.get("origins", {})
    return ResolvedCase(
        standard(
            model=str(document["model"]),
            title=str(document["model"]),
            workloads={selection.framework: str(document["workload"])},
            scales={selection.scale: scale},
        ),
        selection,
        role=str(document["role"]),
        vendor=str(document["vendor"]),
        settings={key: Setting(value, str(origins.get(key, ""))) for key, value in document["config"].items()},
        targets=targets,
        directory=Path(str(document.get("directory", ""))),
        deviations=tuple(document.get("deviations", ())),
        division=str(document.get("division", "closed")),
        stand_in=str(document["device"].get("stand_in", "")),
    )


def targets(document: Mapping[str, Any], kind: str) -> tuple[Target, ...]:
    """Those that the rounds of a ``case.json`` are judged by. Raises as :func:`case` does."""
    data = Data(str(document["dataset"]["name"]), synthetic=bool(document["dataset"]["synthetic"]))
    if kind == "inference":
        path = document["weights"].get("path")
        data = replace(data, weights=FoundWeights(str(document["weights"]["name"]), Path(path) if path else None))
    return asked_of(case(document, kind), data)


def flops(document: Mapping[str, Any], kind: str, scale: str) -> float | None:
    """FLOPs a sample: of the file, for older files of the suites that are here; ``None`` where neither says."""
    if document.get("flops") is not None:
        return float(document["flops"])
    known = _cases().get((kind, str(document["model"])))
    return known.scales[scale].flops if known is not None and scale in known.scales else None


@cache
def _cases() -> dict[tuple[str, str], Any]:
    return suites.cases(suites.bundled())


def register(known: Mapping[str, MetricValue]) -> None:
    """Register the metrics that a suite of somebody's has beside ours, as its results describe them."""
    for name, metric in known.items():
        if name not in metrics.known():
            metrics.register(name, metric.unit, metric.better, "of a suite of one's own", quality=True)


# --- vendor files


def chip_of(session: SessionFiles, vendor: Vendor) -> str | None:
    """The chip that the devices of the session's host call themselves by; ``None`` where they differ or are unknown."""
    devices = session.description.get("device_list")
    names = {str(one.get("name")) for one in devices if isinstance(one, dict)} if isinstance(devices, list) else set()
    found = vendor.chip(names.pop()) if len(names) == 1 else None
    return found[0] if found else None


@dataclass(frozen=True)
class VendorFile:
    """The vendor that a result was judged by; ``told`` says what is to be known of where it is from."""

    vendor: Vendor | None
    told: str = ""


def vendor(name: str, recorded: Mapping[str, str], directories: Iterable[Path]) -> VendorFile:
    """The vendor ``name`` whose files have the recorded digest, of the first directory that has it.

    ``directories`` hold ``<vendor>/vendor.toml``. Where none has it there is no vendor, and ``told`` says why.
    """
    wanted, differing = recorded.get("sha256", ""), []
    for path in (one / name / "vendor.toml" for one in directories):
        if not path.is_file():
            continue
        try:
            found = vendors.load(path)
            if not wanted or vendor_files.digest(found) == wanted:
                told = "" if wanted else f"which vendor file was in force is not recorded: {path} is taken"
                return VendorFile(found, told)
        except (ConfigurationError, OSError) as error:
            differing.append(str(error))
            continue
        differing.append(f"{path} is another one")
    looked = "; ".join(differing) or "none is here"
    return VendorFile(None, f"the vendor file of {name} with the digest {wanted[:12]}… is not here ({looked})")
