"""Visible-devices variables: which devices the caller leaves us, and which the ranks are given.

What holds for ``CUDA_VISIBLE_DEVICES`` holds for every vendor's variable: numbers or uuids, and nothing after the first
that is no device (CUDA C++ Programming Guide, "CUDA Environment Variables").
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from collections.abc import Sequence

from pytest_flagperf.devices.reading import Reading
from pytest_flagperf.devices.vendor import Vendor
from pytest_flagperf.errors import DeviceUnavailable


_NUMBER = re.compile(r"[+-]?[0-9]{1,9}\Z")
_INSTANCE = re.compile(r"mig-", re.IGNORECASE)
# Container runtimes write words into variables of the same kind; images carry "all" as their default.
_EVERY = "all"
_NONE = ("none", "void")


def visible(
    vendor: Vendor, readings: Sequence[Reading] | None = None, environ: Mapping[str, str] = os.environ
) -> tuple[int, ...]:
    """Indices of the devices on this host that the caller's environment does not hide, in the caller's order.

    ``readings`` are the devices that the driver tells of; uuids are known from there. Without them devices are counted
    by what can be seen without the driver. As CUDA does, ``-1`` or a number that no device has ends the list, and an
    empty list hides all; ``all`` is as if the variable were not set. Raises ``DeviceUnavailable`` for what names no
    device, for a part of one, and where two of the vendor's variables disagree.
    """
    known = tuple(range(vendor.count()) if readings is None else (one.index for one in readings))
    uuids = {one.index: one.uuid for one in readings or () if one.uuid}
    given = {name: environ[name] for name in _variables(vendor) if environ.get(name, _EVERY).strip().lower() != _EVERY}
    chosen = {name: _chosen(name, text, known, uuids) for name, text in given.items()}
    for name, devices in chosen.items():
        first = next(iter(chosen))
        if devices != chosen[first]:
            raise DeviceUnavailable(
                f"{first}={given[first]!r} and {name}={given[name]!r} choose different devices of {vendor.name}:"
                f" set one of them, or both to the same"
            )
    return next(iter(chosen.values()), known)


def environment(vendor: Vendor, devices: Sequence[int]) -> dict[str, str | None]:
    """The variables that give a rank exactly ``devices``: each with its value, ``None`` for one to be removed.

    Only the vendor's own variable is set. Where a runtime honours several it applies one after the other, and a list
    meant for the host would then be counted among the devices that are left.
    """
    found: dict[str, str | None] = dict.fromkeys(_variables(vendor))
    if vendor.visible_devices:
        found[vendor.visible_devices] = ",".join(map(str, devices))
    return found


def chosen(vendor: Vendor, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The variables by which the caller chose devices, with their values."""
    return {name: environ[name] for name in _variables(vendor) if name in environ}


def _variables(vendor: Vendor) -> list[str]:
    return [name for name in dict.fromkeys([vendor.visible_devices, *vendor.also_visible]) if name]


def _chosen(variable: str, text: str, known: Sequence[int], uuids: Mapping[int, str]) -> tuple[int, ...]:
    """The devices that one variable's value names, each once."""
    found: dict[int, None] = {}
    if text.strip().lower() in _NONE:
        return ()
    for part in filter(None, map(str.strip, text.split(","))):
        device = int(part) if _NUMBER.match(part) else _by_uuid(f"{variable}={text!r}", part, uuids)
        if device not in known:
            break
        found[device] = None
    return tuple(found)


def _by_uuid(where: str, part: str, uuids: Mapping[int, str]) -> int:
    """The device whose uuid is ``part`` or, alone of all, begins with it."""
    if _INSTANCE.match(part):
        raise DeviceUnavailable(f"{where}: {part} is a part of a device; leases are of whole devices: name those")
    if not uuids:
        raise DeviceUnavailable(
            f"{where}: {part} is no number, and no uuid of a device is known;"
            f" devices are chosen by number here, for example 0,1"
        )
    wanted = part.casefold()
    matching = [index for index, uuid in uuids.items() if uuid.casefold().startswith(wanted)]
    exact = [index for index in matching if uuids[index].casefold() == wanted]
    if len(exact or matching) != 1:
        listed = ", ".join(f"{index} {uuids[index]}" for index in matching or uuids)
        says = f"{part} fits several devices" if matching else f"no device has a uuid that begins with {part}"
        raise DeviceUnavailable(f"{where}: {says}: {listed}")
    return (exact or matching)[0]
