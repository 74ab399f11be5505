"""The vendors that are known, as tables: whom we ask for devices, what frameworks call them, the chips' figures."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pytest_flagperf.devices.vendor import Chip
from pytest_flagperf.devices.vendor import Vendor
from pytest_flagperf.words import PRECISIONS


VENDOR_COLUMNS = ("vendor", "also called", "asked for devices", "visible devices", "frameworks: device, backend")
CHIP_COLUMNS = ("chip", "family", "peak", "memory", "bandwidth", "TDP", "link", "source")


def vendor_row(vendor: Vendor) -> tuple[str, ...]:
    """One vendor's cells, in the order of ``VENDOR_COLUMNS``."""
    frameworks = []
    for name, support in vendor.frameworks.items():
        text = f"{name}: {support.device}" + (f" ({support.module})" if support.module else "")
        frameworks.append(text + (f", {support.backend}" if support.backend else ""))
    return (
        vendor.name,
        ", ".join(vendor.aliases),
        ", else ".join(_asked(vendor)),
        ", ".join(_visible(vendor)),
        "; ".join(frameworks),
    )


def _asked(vendor: Vendor) -> list[str]:
    """Programs by their name, libraries by that of the module that asks them, each once, first the one tried first."""
    found = (
        probe.library.partition(":")[0].removesuffix(".py") if probe.library else probe.command[0]
        for probe in vendor.probe
    )
    return list(dict.fromkeys(found))


def _visible(vendor: Vendor) -> list[str]:
    return [name for name in (vendor.visible_devices, *vendor.also_visible) if name]


def document(vendor: Vendor) -> dict[str, Any]:
    """One vendor for programs: the row's content, and every chip with all of its figures."""
    frameworks = {
        name: {"device": one.device, "module": one.module or None, "backend": one.backend or None}
        for name, one in vendor.frameworks.items()
    }
    return {
        "name": vendor.name,
        "title": vendor.title,
        "aliases": vendor.aliases,
        "asked": _asked(vendor),
        "visible_devices": _visible(vendor),
        "precisions": vendor.precisions,
        "frameworks": frameworks,
        "file": str(vendor.directory / "vendor.toml"),
        "chips": [
            {
                "name": name,
                "names": chip.names,
                "family": chip.family or None,
                "figures": figures(chip),
                "note": chip.note or None,
            }
            for name, chip in vendor.chips.items()
        ],
    }


def figures(chip: Chip) -> list[dict[str, Any]]:
    """Every figure of a chip with its unit, where it was read, and whether that was not checked."""
    given: list[tuple[str, float | None, str]] = [
        (f"peak.{precision}", chip.peak[precision], "TOP/s" if precision == "int8" else "TFLOP/s")
        for precision in PRECISIONS
        if precision in chip.peak
    ]
    given += [
        (f"matrix.{precision}", chip.matrix[precision], "TOP/s" if precision == "int8" else "TFLOP/s")
        for precision in PRECISIONS
        if precision in chip.matrix
    ]
    given += [
        ("memory", chip.memory, "GB"),
        ("memory_bandwidth", chip.memory_bandwidth, "GB/s"),
        ("tdp", chip.tdp, "W"),
        ("dies_per_card", chip.dies_per_card, "devices"),
    ]
    rows = [_row(chip, name, value, unit, chip.source) for name, value, unit in given if value is not None]
    if chip.link:
        row = _row(chip, "link.bandwidth", chip.link.bandwidth, "GB/s", chip.link.source)
        rows.append({**row, "link": chip.link.name, "direction": chip.link.direction})
    return rows


def _row(chip: Chip, name: str, value: float, unit: str, source: str) -> dict[str, Any]:
    return {
        "name": name,
        "value": value,
        "unit": unit,
        "source": chip.sources.get(name, source),
        "unverified": name in chip.unverified,
    }


def chip_rows(vendors: Iterable[Vendor]) -> list[tuple[str, ...]]:
    """Every chip's cells, in the order of ``CHIP_COLUMNS``. A figure without a public source is blank."""
    return [_chip_row(vendor, name, chip) for vendor in vendors for name, chip in vendor.chips.items()]


def _chip_row(vendor: Vendor, name: str, chip: Chip) -> tuple[str, ...]:
    peaks = ", ".join(
        f"{precision} {chip.peak[precision]:g}" + _doubt(chip, f"peak.{precision}")
        for precision in PRECISIONS
        if precision in chip.peak
    )
    peaks += "".join(
        f", {precision} {chip.matrix[precision]:g} (matrix units)" + _doubt(chip, f"matrix.{precision}")
        for precision in PRECISIONS
        if precision in chip.matrix
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
