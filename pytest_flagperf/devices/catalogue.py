"""The vendors that are known, as tables: whom we ask for devices, what frameworks call them, the chips' figures."""

from __future__ import annotations

from collections.abc import Iterable

from pytest_flagperf.devices.vendor import Chip
from pytest_flagperf.devices.vendor import Vendor
from pytest_flagperf.words import PRECISIONS


VENDOR_COLUMNS = ("vendor", "also called", "asked for devices", "visible devices", "frameworks: device, backend")
CHIP_COLUMNS = ("chip", "family", "peak", "memory", "bandwidth", "TDP", "link", "source")


def vendor_row(vendor: Vendor) -> tuple[str, ...]:
    """One vendor's cells, in the order of ``VENDOR_COLUMNS``."""
    asked = [probe.library.partition(":")[2] if probe.library else probe.command[0] for probe in vendor.probe]
    frameworks = []
    for name, support in vendor.frameworks.items():
        text = f"{name}: {support.device}" + (f" ({support.module})" if support.module else "")
        frameworks.append(text + (f", {support.backend}" if support.backend else ""))
    return (
        vendor.name,
        ", ".join(vendor.aliases),
        ", else ".join(dict.fromkeys(asked)),
        ", ".join(filter(None, (vendor.visible_devices, *vendor.also_visible))),
        "; ".join(frameworks),
    )


def chip_rows(vendors: Iterable[Vendor]) -> list[tuple[str, ...]]:
    """Every chip's cells, in the order of ``CHIP_COLUMNS``. A figure without a public source is blank."""
    return [_chip_row(vendor, name, chip) for vendor in vendors for name, chip in vendor.chips.items()]


def _chip_row(vendor: Vendor, name: str, chip: Chip) -> tuple[str, ...]:
    peaks = ", ".join(
        f"{precision} {chip.peak[precision]:g}" + _doubt(chip, f"peak.{precision}")
        for precision in PRECISIONS
        if precision in chip.peak
    )
    link = chip.link
    return (
        f"{vendor.name} {name}",
        chip.family,
        peaks,
        _figure(chip, "memory", "GB"),
        _figure(chip, "memory_bandwidth", "GB/s"),
        _figure(chip, "tdp", "W"),
        f"{link.name}: {link.bandwidth:g} GB/s {link.direction}" + _doubt(chip, "link.bandwidth") if link else "",
        chip.source,
    )


def _figure(chip: Chip, name: str, unit: str) -> str:
    value = getattr(chip, name)
    return "" if value is None else f"{value:g} {unit}" + _doubt(chip, name)


def _doubt(chip: Chip, figure: str) -> str:
    return "?" if figure in chip.unverified else ""
