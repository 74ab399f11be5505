"""What ``npu-smi info`` prints, in the layouts of versions 20, 21, 22 to 25, 25 for two chips a package, and 26."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
from functools import partial

from pytest_flagperf.devices.reading import Reading
from tests.devices.printers import Layout
from tests.devices.printers import cell
from tests.devices.printers import mib
from tests.devices.printers import percent


def _title(version: str, width: int) -> str:
    return f"+{'-' * width}+\n| {f'npu-smi {version}':<37}{f'Version: {version}':<{width - 38}}|\n"


def _rule(mark: str, widths: Sequence[int]) -> str:
    return "+" + "+".join(mark * width for width in widths) + "+\n"


def _row(widths: Sequence[int], *cells: str) -> str:
    return "|" + "|".join(f" {text:<{width - 1}}" for text, width in zip(cells, widths, strict=True)) + "|\n"


def _amounts(one: Reading) -> tuple[str, str]:
    if one.memory_total is None:
        return "0", "0"
    return mib(one.memory_used, "{:.0f}", "NA"), mib(one.memory_total, "{:.0f}")


def _number(value: float | None, written: str = "{:.0f}") -> str:
    return cell(value, written, "NA")


def _device_column(devices: Sequence[Reading], *, pages: bool, version: str, widths: Sequence[int], gap: int) -> str:
    """No HBM: a chip has a column Device, its logic number; four chips a card."""
    text = _title(version, sum(widths) + 2) + _rule("-", widths)
    heading = f"{'Power(W)':<{gap}}{'Temp(C)':<18}" + ("Hugepages-Usage(page)" if pages else "")
    text += _row(widths, "NPU     Name", "Health", heading)
    text += _row(widths, "Chip    Device", "Bus-Id", f"{'AICore(%)':<{gap}}Memory-Usage(MB)") + _rule("=", widths)
    for at, one in enumerate(devices):
        used, total = _amounts(one)
        state = f"{_number(one.power, '{:.1f}'):<{gap}}{_number(one.temperature):<18}" + "15    / 15" * pages
        text += _row(widths, f"{1 + at // 4:<8}{one.name or 'NA'}", one.health or "NA", state)
        use = f"{percent(one.utilization, '{:.0f}', 'NA'):<{gap}}{used:<4} / {total}"
        text += _row(widths, f"{at % 4:<8}{one.index}", one.bus_id or "NA", use)
        text += _rule("=" if one is devices[-1] else "-", widths)
    return text


def _hbm(devices: Sequence[Reading], *, chips: int, version: str, widths: Sequence[int]) -> str:
    """HBM beside the memory of the control processor; with two chips a package, Phy-ID and a shared power."""
    between = f"+{'-' * (sum(widths) + 2)}+\n"
    text = _title(version, sum(widths) + 2) + _rule("-", widths)
    text += _row(widths, "NPU   Name", "Health", "Power(W)    Temp(C)           Hugepages-Usage(page)")
    chip_column = "Chip  Phy-ID" if chips > 1 else "Chip"
    text += _row(widths, chip_column, "Bus-Id", "AICore(%)   Memory-Usage(MB)  HBM-Usage(MB)") + _rule("=", widths)
    for at, one in enumerate(devices):
        used, total = _amounts(one)
        power = cell(one.power, "{:.1f}", "-")
        text += _row(
            widths,
            f"{at // chips:<6}{one.name or 'NA'}",
            one.health or "NA",
            f"{power:<12}{_number(one.temperature):<18}0    / 0",
        )
        text += _row(
            widths,
            f"{at % chips:<6}{one.index}" if chips > 1 else "0",
            one.bus_id or "NA",
            f"{percent(one.utilization, '{:.0f}', 'NA'):<12}0    / 0          {used:<5}/ {total}",
        )
        text += between if chips > 1 and at % chips < chips - 1 else _rule("=", widths)
    return text + _process_table(devices, chips, widths)


def _process_table(devices: Sequence[Reading], chips: int, widths: Sequence[int]) -> str:
    columns = (widths[0], widths[1], 26, widths[2] - 27)
    text = _rule("-", widths) + _row(columns, "NPU     Chip", "Process id", "Process name", "Process memory(MB)")
    text += _rule("=", widths)
    for npu in range(0, len(devices), chips):
        group = devices[npu : npu + chips]
        rows = [(at, process) for at, one in enumerate(group) for process in one.processes or ()]
        for at, process in rows:
            memory = mib(process.memory, "{:.0f}", "NA")
            text += _row(columns, f"{npu // chips:<8}{at}", str(process.pid), "python", memory)
        if not rows:
            text += f"| {f'No running processes found in NPU {npu // chips}':<{sum(widths) + 1}}|\n"
        text += _rule("=", widths)
    return text


def _wide(devices: Sequence[Reading]) -> str:
    """Version 26: no huge pages, wider, and no HBM column where the device's memory is the only one."""
    widths = (27, 15, 70)
    text = _title("26.0.rc1", sum(widths) + 2) + _rule("-", widths)
    text += _row(widths, "NPU   Name", "Health", "Power(W)             Temp(C)")
    text += _row(widths, "Chip", "Bus-Id", "AICore(%)            Memory-Usage(MB)") + _rule("=", widths)
    for at, one in enumerate(devices):
        used, total = _amounts(one)
        text += _row(
            widths,
            f"{at:<6}{one.name or 'NA'}",
            one.health or "NA",
            f"{_number(one.power, '{:.1f}'):<21}{_number(one.temperature)}",
        )
        utilization = percent(one.utilization, "{:.0f}", "NA")
        text += _row(widths, "0", one.bus_id or "NA", f"{utilization:<21}{used:<4} / {total}")
        text += _rule("=", widths)
    return text


_SHOWS = frozenset(
    {
        "index",
        "name",
        "health",
        "bus_id",
        "power",
        "temperature",
        "utilization",
        "memory_used",
        "memory_total",
    }
)

_RENDER: dict[str, Callable[[Sequence[Reading]], str]] = {
    "20": partial(_device_column, pages=False, version="20.2.0", widths=(19, 17, 40), gap=18),
    "21": partial(_device_column, pages=True, version="21.0.4", widths=(19, 17, 62), gap=18),
    "25 without HBM": partial(_device_column, pages=True, version="25.5.1", widths=(31, 17, 54), gap=13),
    "23": partial(_hbm, chips=1, version="23.0.3", widths=(27, 15, 52)),
    "25": partial(_hbm, chips=2, version="25.2.0", widths=(27, 15, 52)),
    "26": _wide,
}
LAYOUTS = {
    name: Layout("info", render, _SHOWS | {"processes"} if name in ("23", "25") else _SHOWS)
    for name, render in _RENDER.items()
}
COMMANDS = {("npu-smi", "info"): "23"}
