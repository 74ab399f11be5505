"""FlagPerf's base and operation cases as tests of our operator suites."""

from __future__ import annotations

from collections.abc import Mapping

from pytest_flagperf.devices.vendor import Vendor
from pytest_flagperf.importing.findings import Item
from pytest_flagperf.importing.findings import Refused
from pytest_flagperf.importing.findings import shown
from pytest_flagperf.importing.ours import Ours
from pytest_flagperf.words import PRECISIONS


# FlagPerf's base case → our family and what its test ids contain. computation-FP32 and its like are told by their name.
_BASE: Mapping[str, tuple[str, str]] = {
    "interconnect-h2d": ("interconnect", "host_to_device"),
    "interconnect-P2P_intraserver": ("interconnect", "device_to_device-server"),
    "interconnect-MPI_intraserver": ("interconnect", "all_reduce-server"),
    "main_memory-bandwidth": ("memory", "bandwidth"),
    "main_memory-capacity": ("memory", "capacity"),
}
_SEVERAL_HOSTS = ("interconnect-P2P_interserver", "interconnect-MPI_interserver")
# Our problems have an int16 and int32 that are no precisions of a model.
_ELEMENTS = {"int16": "int16", "int32": "int32"}
# operator:dtype[:peak]:library:chip
_OPERATION_TERMS = 4


def arguments(item: Item, section: str, vendor: Vendor, ours: Ours) -> list[str]:
    """pytest's arguments beside the suites. Raises ``Refused`` for what our suites do not have."""
    terms = [term.strip() for term in str(item.key).split(":")]
    return _base(terms[0], vendor, ours) if section == "base" else _operation(terms, vendor, ours)


def _base(name: str, vendor: Vendor, ours: Ours) -> list[str]:
    if name in _SEVERAL_HOSTS:
        raise Refused(f"{shown(name)} is between hosts, which this version does not launch")
    kind, _, what = name.partition("-")
    if kind == "computation":
        ours.family("computation")
        return ["-m", "computation and flagperf", f"--precision={_precision(what, vendor)}"]
    if name not in _BASE:
        known = ", ".join(["computation-<precision>", *_BASE])
        raise Refused(f"our suites have no base case {shown(name)}; they have {known}")
    family, text = _BASE[name]
    ours.family(family)
    return ["-m", f"{family} and flagperf", "-k", text]


def _operation(terms: list[str], vendor: Vendor, ours: Ours) -> list[str]:
    name = terms[0]
    if name not in ours.operators():
        raise Refused(f"our suites have no operator {shown(name)}; docs/reference/operators.md lists FlagPerf's 52")
    found = ["-m", "operator_list and flagperf", "-k", f"fwd-{name}- or bwd-{name}-"]
    if len(terms) >= _OPERATION_TERMS and terms[1].lower() not in _ELEMENTS:
        found.append(f"--precision={_precision(terms[1], vendor)}")
    return found


def _precision(text: str, vendor: Vendor) -> str:
    precision = text.lower()
    if precision not in PRECISIONS:
        raise Refused(f"{shown(text)} is no precision of ours; they are {', '.join(PRECISIONS)}")
    if precision not in vendor.precisions:
        has = ", ".join(vendor.precisions)
        raise Refused(f"{shown(text)} is a precision that {vendor.name} has not; it has {has}")
    return precision
