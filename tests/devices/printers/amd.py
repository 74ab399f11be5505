"""What ``amd-smi`` and ``rocm-smi`` print."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from pytest_flagperf.devices import vendor as vendors
from pytest_flagperf.devices.reading import Reading
from tests.devices.printers import Layout
from tests.devices.printers import cell
from tests.devices.printers import mib
from tests.devices.printers import percent


def _leaf(value: float | None, unit: str) -> Any:
    return "N/A" if value is None else {"value": round(value, 3), "unit": unit}


_VIOLATIONS = ("prochot", "ppt", "socket_thermal", "vr_thermal", "hbm_thermal")


def _violations(reasons: tuple[str, ...] | None) -> dict[str, Any]:
    """What limits the clock, where it is told by reason; the accumulated counts and shares are of another time."""
    states: dict[str, Any] = {"accumulation_counter": 11240028, "ppt_violation_activity": {"value": 0, "unit": "%"}}
    for name in _VIOLATIONS:
        known = reasons is not None and "throttled" not in reasons
        state = "ACTIVE" if name in (reasons or ()) else "NOT ACTIVE"
        states[f"{name}_violation_status"] = state if known else "N/A"
    return states


def _device(one: Reading) -> dict[str, Any]:
    used, total = (None if gib is None else gib * 1024 for gib in (one.memory_used, one.memory_total))
    return {
        "gpu": one.index,
        "usage": {
            "gfx_activity": _leaf(None if one.utilization is None else one.utilization * 100, "%"),
            "umc_activity": _leaf(None if one.memory_utilization is None else one.memory_utilization * 100, "%"),
            "mm_activity": "N/A",
        },
        "power": {
            "socket_power": _leaf(one.power, "W"),
            "throttle_status": "THROTTLED" if "throttled" in (one.throttle or ()) else "N/A",
        },
        "clock": {
            "gfx_0": {"clk": _leaf(one.clock, "MHz"), "max_clk": {"value": 9999, "unit": "MHz"}},
            "mem_0": {"clk": _leaf(one.memory_clock, "MHz"), "max_clk": {"value": 9999, "unit": "MHz"}},
        },
        "temperature": {"edge": "N/A", "hotspot": _leaf(one.temperature, "C"), "mem": {"value": 99, "unit": "C"}},
        "ecc": {
            "total_correctable_count": 17,
            "total_uncorrectable_count": "N/A" if one.ecc_errors is None else int(one.ecc_errors),
        },
        "fan": {"speed": "N/A", "usage": _leaf(None if one.fan is None else one.fan * 100, "%")},
        "throttle": _violations(one.throttle),
        "energy": {"total_energy_consumption": _leaf(one.energy, "J")},
        "mem_usage": {"total_vram": _leaf(total, "MB"), "used_vram": _leaf(used, "MB")},
    }


def metric(devices: Sequence[Reading]) -> str:
    """``metric --json`` since AMDSMI 25, after a warning."""
    warning = "[WARNING] User is missing the following required groups: render, video.\n"
    return warning + json.dumps({"gpu_data": [_device(one) for one in devices]}, indent=4) + "\n"


def metric_list(devices: Sequence[Reading]) -> str:
    """``metric --json`` before: the list alone."""
    return json.dumps([_device(one) for one in devices], indent=4) + "\n"


def processes(devices: Sequence[Reading]) -> str:
    """``process --json``: an entry for a device without processes too."""
    document = [
        {
            "gpu": one.index,
            "process_list": [
                {
                    "process_info": {
                        "name": "python",
                        "pid": running.pid,
                        "memory_usage": {
                            "gtt_mem": {"value": 0, "unit": "B"},
                            "vram_mem": _leaf(None if running.memory is None else running.memory * 2**30, "B"),
                        },
                    }
                }
                for running in one.processes or ()
            ]
            or [{"process_info": "No running processes detected"}],
        }
        for one in devices
    ]
    return json.dumps(document, indent=4) + "\n"


_MONITOR = ("GPU", "POWER", "GPU_TEMP", "MEM_TEMP", "GFX_UTIL", "GFX_CLOCK", "MEM_UTIL", "MEM_CLOCK", "DOUBLE_ECC")


def monitor(devices: Sequence[Reading]) -> str:
    """``monitor -q``: right-aligned columns, then a row for each process."""
    lines = ["  ".join((*_MONITOR, "VRAM_USED", "VRAM_TOTAL", "  PCIE_BW"))]
    for one in devices:
        cells = (
            f"{one.index:>3}",
            f"{cell(one.power, '{:.0f} W'):>5}",
            f"{cell(one.temperature, '{:.0f} °C'):>8}",
            f"{'84 °C':>8}",
            f"{percent(one.utilization, '{:.0f} %'):>8}",
            f"{cell(one.clock, '{:.0f} MHz'):>9}",
            f"{percent(one.memory_utilization, '{:.0f} %'):>8}",
            f"{cell(one.memory_clock, '{:.0f} MHz'):>9}",
            f"{cell(one.ecc_errors):>10}",
            f"{mib(one.memory_used, '{:.0f} MB'):>9}",
            f"{mib(one.memory_total, '{:.0f} MB'):>10}",
            "N/A Mb/s",
        )
        lines.append("  ".join(cells))
    lines += ["", "PROCESS INFO:", "GPU                  NAME      PID  GTT_MEM  CPU_MEM  VRAM_MEM  MEM_USAGE"]
    for one in devices:
        rows = [(str(running.pid), cell(running.memory, "{:.1f} GB")) for running in one.processes or ()]
        for pid, memory in rows or [("N/A", "N/A")]:
            lines.append(f"{one.index:>3}  {'rvs':>20}  {pid:>7}    0.0 B    0.0 B  {memory:>8}      0.0 B")
    return "\n".join(lines) + "\n"


def process(devices: Sequence[Reading]) -> str:
    """``process``: indented sections."""
    lines = []
    for one in devices:
        lines.append(f"GPU: {one.index}")
        if not one.processes:
            lines.append("    PROCESS_INFO: No running processes detected")
        for running in one.processes or ():
            lines += [
                "    PROCESS_INFO:",
                "        NAME: N/A",
                f"        PID: {running.pid}",
                "        MEMORY_USAGE:",
                "            GTT_MEM: 0.0 B",
                f"            VRAM_MEM: {cell(running.memory, '{:.1f} GB')}",
                "        MEM_USAGE: 0.0 B",
            ]
    return "\n".join(lines) + "\n"


def static(devices: Sequence[Reading]) -> str:
    """``static``: the sections of a reading, and some beside them."""
    lines = []
    for one in devices:
        lines += [
            f"GPU: {one.index}",
            "    ASIC:",
            f"        MARKET_NAME: {one.name or 'N/A'}",
            f"        ASIC_SERIAL: {one.serial or 'N/A'}",
            "    BUS:",
            f"        BDF: {one.bus_id or 'N/A'}",
            "    LIMIT:",
            "        MAX_POWER: 999 W",
            f"        SOCKET_POWER: {cell(one.power_limit, '{:.0f} W')}",
            "    VRAM:",
            "        TYPE: HBM",
            f"        SIZE: {mib(one.memory_total, '{:.0f} MB')}",
            "    CACHE_INFO:",
            "        CACHE_0:",
            "            CACHE_SIZE: 32 KB",
        ]
    return "\n".join(lines) + "\n"


def static_json(devices: Sequence[Reading]) -> str:
    """``static --json`` before AMDSMI 26: the list alone; some of the sections, and some of their values."""
    document = [
        {
            "gpu": one.index,
            "asic": {
                "market_name": one.name or "N/A",
                "vendor_id": "0x1002",
                "vendor_name": "Advanced Micro Devices Inc. [AMD/ATI]",
                "asic_serial": one.serial or "N/A",
                "oam_id": one.index,
            },
            "bus": {"bdf": one.bus_id or "N/A", "max_pcie_width": 16, "slot_type": "OAM"},
            "limit": {"max_power": {"value": 999, "unit": "W"}, "socket_power": _leaf(one.power_limit, "W")},
            "driver": {"name": "amdgpu", "version": "6.8.5"},
            "vram": {
                "type": "HBM3",
                "vendor": "N/A",
                "size": _leaf(None if one.memory_total is None else one.memory_total * 1024, "MB"),
            },
            "cache_info": [{"cache": 0, "cache_size": {"value": 32, "unit": "KB"}}],
        }
        for one in devices
    ]
    return json.dumps(document, indent=4) + "\n"


def metric_csv(devices: Sequence[Reading]) -> str:
    """``metric -E --csv``."""
    rows = ["gpu,socket_power,gfx_voltage,throttle_status,power_management,total_energy_consumption"]
    rows += [f"{one.index},{cell(one.power)},N/A,N/A,ENABLED,{cell(one.energy, '{:.3f}')}" for one in devices]
    return "\n".join(rows) + "\n"


def rocm_json(devices: Sequence[Reading]) -> str:
    """``rocm-smi ... --json`` of ROCm 6: units in the keys, clocks in parentheses, and the host beside the cards."""
    document: dict[str, dict[str, str]] = {}
    for one in devices:
        document[f"card{one.index}"] = {
            "Device Name": one.name or "N/A",
            "Unique ID": one.uuid or "N/A",
            "Temperature (Sensor edge) (C)": "N/A",
            "Temperature (Sensor junction) (C)": cell(one.temperature, "{:.1f}"),
            "mclk clock speed:": cell(one.memory_clock, "({:.0f}Mhz)"),
            "sclk clock speed:": cell(one.clock, "({:.0f}Mhz)"),
            "sclk clock level": "0 (300Mhz)",
            "Fan speed (%)": percent(one.fan, "{:.0f}"),
            "Max Graphics Package Power (W)": cell(one.power_limit, "{:.1f}"),
            "Average Graphics Package Power (W)": cell(one.power, "{:.1f}"),
            "GPU use (%)": percent(one.utilization, "{:.0f}"),
            "GPU Memory Allocated (VRAM%)": "12",
            "GPU Memory Read/Write Activity (%)": percent(one.memory_utilization, "{:.0f}"),
            "Serial Number": one.serial or "N/A",
            "PCI Bus": one.bus_id or "N/A",
            "VRAM Total Memory (B)": cell(None if one.memory_total is None else one.memory_total * 2**30),
            "VRAM Total Used Memory (B)": cell(None if one.memory_used is None else one.memory_used * 2**30),
            "Card Series": one.name or "N/A",
            "Card Vendor": "Advanced Micro Devices, Inc. [AMD/ATI]",
        }
    document["system"] = {"Driver version": "6.8.5", "PID104225": "python, 1, 0, 0, 0"}
    return json.dumps(document) + "\n"


_LAST_COLUMNS = ("SCLK", "MCLK", "Fan", "Perf", "PwrCap", "VRAM%", "GPU%")


def concise(devices: Sequence[Reading]) -> str:
    """``rocm-smi`` alone, of ROCm 6 and 7: columns as wide as their widest cell and two blanks."""
    rows = [
        ("Device", "Node", "IDs", "Temp", "Power", "Partitions", *_LAST_COLUMNS),
        ("", "", "(DID,     GUID)", "(Junction)", "(Socket)", "(Mem, Compute, ID)", *[""] * len(_LAST_COLUMNS)),
    ]
    for one in devices:
        rows.append(
            (
                str(one.index),
                str(one.index + 2),
                f"0x74a2,   {1017 + one.index}",
                cell(one.temperature, "{:.1f}°C"),
                cell(one.power, "{:.1f}W"),
                "NPS1, SPX, 0",
                cell(one.clock, "{:.0f}Mhz"),
                cell(one.memory_clock, "{:.0f}Mhz"),
                percent(one.fan),
                "auto",
                cell(one.power_limit, "{:.1f}W"),
                "12%",
                percent(one.utilization),
            )
        )
    widths = [max(len(row[place]) for row in rows) + 2 for place in range(len(rows[0]))]
    lines = ["".join(f"{text:<{width}}" for text, width in zip(row, widths, strict=True)) for row in rows]
    rule = "=" * sum(widths)
    title, heading = (f"{f' {text} ':=^{len(rule)}}" for text in ("ROCm System Management Interface", "Concise Info"))
    end = f"{' End of ROCm SMI Log ':=^{len(rule)}}\n"
    return "\n".join([title, heading, *lines[:2], rule, *lines[2:], rule, end])


def listing(devices: Sequence[Reading]) -> str:
    """``rocm-smi -u --showmeminfo vram``."""
    lines = [f"{' ROCm System Management Interface ':=^90}", f"{' % time GPU is busy ':=^90}"]
    for one in devices:
        lines.append(f"GPU[{one.index}]\t\t: GPU use (%): {percent(one.utilization, '{:.0f}')}")
        lines.append(f"GPU[{one.index}]\t\t: GFX Activity: 3862538534")
    lines += ["=" * 90, f"{' Memory Usage (Bytes) ':=^90}"]
    for one in devices:
        total, used = (None if gib is None else gib * 2**30 for gib in (one.memory_total, one.memory_used))
        lines.append(f"GPU[{one.index}]\t\t: VRAM Total Memory (B): {cell(total)}")
        lines.append(f"GPU[{one.index}]\t\t: VRAM Total Used Memory (B): {cell(used)}")
    return "\n".join([*lines, "=" * 90, f"{' End of ROCm SMI Log ':=^90}"]) + "\n"


_LIVE = frozenset({"temperature", "power", "utilization", "memory_utilization", "clock", "memory_clock"})
_MEMORY = frozenset({"memory_used", "memory_total"})
_METRIC = _LIVE | _MEMORY | {"energy", "fan", "ecc_errors", "throttle"}
LAYOUTS = {
    "metric": Layout("amd-smi-metric", metric, _METRIC),
    "metric-list": Layout("amd-smi-metric", metric_list, _METRIC),
    "process-json": Layout("amd-smi-process-json", processes, frozenset({"processes"})),
    "monitor": Layout("amd-smi-monitor", monitor, _LIVE | _MEMORY | {"ecc_errors", "processes"}),
    "process": Layout("amd-smi-process", process, frozenset({"processes"})),
    "static": Layout("amd-smi-static", static, frozenset({"name", "serial", "bus_id", "power_limit", "memory_total"})),
    "static-json": Layout(
        "amd-smi-static-json", static_json, frozenset({"name", "serial", "bus_id", "power_limit", "memory_total"})
    ),
    "metric-csv": Layout("amd-smi-metric-csv", metric_csv, frozenset({"power", "energy"})),
    "rocm-json": Layout(
        "rocm-smi-json", rocm_json, _LIVE | _MEMORY | {"name", "uuid", "serial", "bus_id", "power_limit", "fan"}
    ),
    "concise": Layout("rocm-smi", concise, (_LIVE | {"fan", "power_limit"}) - {"memory_utilization"}),
    "list": Layout("rocm-smi-list", listing, _MEMORY | {"utilization"}),
}

_AMD_SMI, _ROCM_SMI = vendors.find("amd", [vendors.bundled()]).probe
COMMANDS = {
    tuple(_AMD_SMI.command): "metric",
    tuple(_AMD_SMI.processes): "process-json",
    tuple(_AMD_SMI.identity): "static-json",
    tuple(_ROCM_SMI.command): "rocm-json",
    ("rocm-smi",): "concise",
}
