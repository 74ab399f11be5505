"""Devices of the vendors whose programs ``test_outputs_npu`` and ``test_outputs_npu_pitfalls`` read."""

from __future__ import annotations

import functools

from pytest_flagperf.devices import vendor as vendors
from pytest_flagperf.devices.reading import Process
from pytest_flagperf.devices.reading import Reading
from pytest_flagperf.devices.vendor import Vendor


NAMES = {
    "kunlunxin": "P800 OAM",
    "ascend": "910B2C",
    "iluvatar": "Iluvatar BI-V150",
    "mthreads": "MTT S5000",
    "cambricon": "MLU370-X8",
    "metax": "MetaX C500",
    "habana": "HL-225",
    "enflame": "Enflame S60",
    "thead": "PPU-ZW810E",
}
MIB = 1 / 1024


@functools.cache
def described(name: str) -> Vendor:
    """The vendor file that ships."""
    return vendors.load(vendors.bundled() / name / "vendor.toml")


def devices(name: str, count: int = 3) -> list[Reading]:
    """Busy devices, no two alike, with figures that every layout can show."""
    return [
        Reading(
            number,
            name=NAMES[name],
            uuid=f"UID-{number}c39e-52b2",
            serial=f"02K{number}77",
            bus_id=f"0000:{5 * number + 18:02x}:00.0",
            health="OK",
            temperature=41.0 + number,
            power=207.0 + 30 * number,
            power_limit=400.0,
            memory_used=(20480 + 111 * number) * MIB,
            memory_total=98304 * MIB,
            utilization=0.86 - number / 100,
            memory_utilization=0.25,
            fan=0.35,
            clock=1450.0,
            memory_clock=1600.0,
            ecc_errors=3.0 + number,
            processes=(Process(4711 + number, 20000 * MIB), Process(815, 5 * MIB)) if number else (),
        )
        for number in range(count)
    ]
