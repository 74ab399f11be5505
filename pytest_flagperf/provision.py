"""What a case needs before it runs: which devices it may use, and where its dataset is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from dataclasses import replace
from typing import TYPE_CHECKING
from typing import Protocol

from pytest_flagperf import datasets
from pytest_flagperf.case import ResolvedCase
from pytest_flagperf.datasets import FoundDataset
from pytest_flagperf.devices import probe
from pytest_flagperf.devices import visible as visibility
from pytest_flagperf.devices.visible import visible
from pytest_flagperf.errors import ConfigurationError
from pytest_flagperf.errors import DeviceUnavailable
from pytest_flagperf.session import Session
from pytest_flagperf.weights import FoundWeights


if TYPE_CHECKING:
    from pytest_flagperf.devices.reading import Reading
    from pytest_flagperf.devices.vendor import Vendor
    from pytest_flagperf.operators.case import ResolvedOperator

SYNTHETIC = "synthetic"


@dataclass(frozen=True)
class Devices:
    """What the ``devices`` fixture gives: which devices a case may use. They are leased only while it runs."""

    vendor: str
    available: tuple[int, ...]
    wanted: int


@dataclass(frozen=True)
class Data:
    """What the ``dataset`` fixture gives: where the case's dataset is, or that it is synthetic; and the weights."""

    name: str
    found: FoundDataset | None = None
    synthetic: bool = False
    # Of inference only.
    weights: FoundWeights | None = None

    @property
    def has_quality(self) -> bool:
        """Whether a model can be right about it: it is real, and so are the weights."""
        return not (self.synthetic or (self.weights is not None and self.weights.random))


class Finder(Protocol):
    """What devices are found by: a session of pytest, or of ``flagperf bench``."""

    @property
    def vendor(self) -> Vendor:
        """Whose devices."""

    @property
    def readings(self) -> list[Reading]:
        """Those of this host."""


def find_devices(session: Finder, case: ResolvedCase | ResolvedOperator) -> Devices:
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
        chosen = " and ".join(f"{name}={value!r}" for name, value in visibility.chosen(vendor).items())
        hidden = f": {chosen} leaves {left}" if chosen else f", {len(found.available)} were found"
        plural = "device is" if wanted == 1 else "devices are"
        raise DeviceUnavailable(f"{wanted} {plural} needed of {vendor.name}{hidden}")
    return found


def too_few(session: Session, case: ResolvedOperator) -> str:
    """Why a problem of several ranks is left out on this host, or an empty text.

    Who asks for a topology gets it, or an error; the default one is for hosts that have it.
    """
    wanted = case.selection.topology.devices
    if wanted == 1 or session.vendor.shared or "topology" in session.options.explicit:
        return ""
    available = len(visible(session.vendor, session.readings))
    return f"{wanted} devices are needed, this host has {available}" if wanted > available else ""


def lacks_engine(session: Session, case: ResolvedCase) -> str:
    """Why a case of inference is left out here: its engine is not installed or lacks the precision; or an empty text.

    Raises ``ConfigurationError`` where the engine was asked for and is not installed.
    """
    chosen = case.selection
    if case.case.kind != "inference" or case.recorded is not None:
        return ""
    seen = session.engine(chosen.framework, chosen.engine)
    if seen is None:
        return ""
    if seen.missing and chosen.engine in session.options.engines:
        raise ConfigurationError(seen.missing)
    if not seen.missing and chosen.precision not in seen.precisions:
        return f"engine {chosen.engine} has no {chosen.precision}; it has {', '.join(seen.precisions)}"
    return seen.missing


def find_dataset(session: Session, case: ResolvedCase, say: Callable[[str], None]) -> Data:
    """The case's dataset, or that it is synthetic, and of inference the weights.

    Raises ``DatasetError`` where either is missing or corrupt.
    """
    found = _find_dataset(session, case, say)
    if case.case.kind != "inference" or case.recorded is not None:
        return found
    if not case.scale.weights:
        return replace(found, weights=FoundWeights(""))
    from pytest_flagperf import making_weights

    return replace(found, weights=making_weights.locate(session, case.scale.weights, say))


def _find_dataset(session: Session, case: ResolvedCase, say: Callable[[str], None]) -> Data:
    name, given = case.scale.dataset, session.options.datasets
    if case.recorded is not None:
        return Data(name, synthetic=case.recorded.synthetic)
    if given.get(name) == SYNTHETIC:
        if case.role == "convergence":
            raise ConfigurationError(f"{case.label}: nothing converges on synthetic data; give --dataset {name}=PATH")
        return Data(name, synthetic=True)
    return Data(name, datasets.locate(name, overrides=given, data_root=session.data_root, say=say))
