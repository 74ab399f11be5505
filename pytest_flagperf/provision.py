"""What a case needs before it runs: which devices it may use, and where its dataset is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pytest_flagperf import datasets
from pytest_flagperf.case import ResolvedCase
from pytest_flagperf.datasets import FoundDataset
from pytest_flagperf.devices import probe
from pytest_flagperf.devices.visible import visible
from pytest_flagperf.errors import ConfigurationError
from pytest_flagperf.errors import DeviceUnavailable
from pytest_flagperf.session import Session


SYNTHETIC = "synthetic"


@dataclass(frozen=True)
class Devices:
    """What the ``devices`` fixture gives: which devices a case may use. They are leased only while it runs."""

    vendor: str
    available: tuple[int, ...]
    wanted: int


@dataclass(frozen=True)
class Data:
    """What the ``dataset`` fixture gives: where the case's dataset is, or that it is synthetic."""

    name: str
    found: FoundDataset | None = None
    synthetic: bool = False


def find_devices(session: Session, case: ResolvedCase) -> Devices:
    """The devices ``case`` may use. Raises ``DeviceUnavailable`` where this host lacks what the topology asks for."""
    topology, vendor = case.selection.topology, session.vendor
    if case.recorded is not None:
        return Devices(vendor.name, (), 0)
    if topology.nodes > 1:
        raise DeviceUnavailable(f"topology {topology} needs {topology.nodes} hosts; this version launches on one")
    wanted = 1 if vendor.shared else topology.devices
    if not session.readings:
        raise DeviceUnavailable(f"no device of {vendor.name} is on this host. Looked for: {probe.looked_for(vendor)}")
    found = Devices(vendor.name, visible(vendor, session.readings), wanted)
    if wanted > len(found.available):
        left = f"{len(found.available)} of {len(session.readings)}"
        chosen = " and ".join(f"{name}={value!r}" for name, value in session.chosen_devices.items())
        hidden = f": {chosen} leaves {left}" if chosen else f", {len(found.available)} were found"
        plural = "device is" if wanted == 1 else "devices are"
        raise DeviceUnavailable(f"{wanted} {plural} needed of {vendor.name}{hidden}")
    return found


def find_dataset(session: Session, case: ResolvedCase, say: Callable[[str], None]) -> Data:
    """The case's dataset, or that it is synthetic. Raises ``DatasetError`` where it is missing or corrupt."""
    name, given = case.scale.dataset, session.options.datasets
    if case.recorded is not None:
        return Data(name, synthetic=case.recorded.synthetic)
    if given.get(name) == SYNTHETIC:
        if case.role == "convergence":
            raise ConfigurationError(f"{case.label}: nothing converges on synthetic data; give --dataset {name}=PATH")
        return Data(name, synthetic=True)
    return Data(name, datasets.locate(name, overrides=given, data_root=session.data_root, say=say))
