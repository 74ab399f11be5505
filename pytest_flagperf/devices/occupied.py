"""Who is on devices that are about to be measured."""

from __future__ import annotations

from collections.abc import Sequence

from pytest_flagperf.devices import monitor
from pytest_flagperf.devices import probe
from pytest_flagperf.devices.vendor import Vendor
from pytest_flagperf.errors import DeviceUnavailable
from pytest_flagperf.errors import ProbeError


def refuse(vendor: Vendor, devices: Sequence[int], round_name: str, owner: int) -> None:
    """Raise ``DeviceUnavailable`` where a process of somebody else is on one of ``devices``, as the driver tells it.

    It would make the measurement invalid: better told before the job than after hours. A driver that cannot say is no
    reason to refuse; the monitor notes it.
    """
    if vendor.shared:
        return
    try:
        prober = probe.prober(vendor)
    except ProbeError:
        return
    try:
        prober.read()
        told = prober.processes() or {}
    except ProbeError:
        return
    finally:
        prober.close()
    found = [
        f"device {device}: pid {process.pid} {monitor.command(process.pid)}".rstrip()
        for device in devices
        for process in told.get(device, ())
        if monitor.belongs(process.pid, round_name, owner) is False
    ]
    if found:
        variable = f", or leave the device out by {vendor.visible_devices}" if vendor.visible_devices else ""
        raise DeviceUnavailable(f"somebody else uses a leased device: {'; '.join(found)}\nEnd it{variable}")
