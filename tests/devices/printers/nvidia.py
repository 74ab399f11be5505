"""What ``nvidia-smi`` prints: drivers 440 to 595, Linux and Windows."""

from __future__ import annotations

from collections.abc import Sequence
from xml.sax.saxutils import escape

from pytest_flagperf.devices import vendor as vendors
from pytest_flagperf.devices.reading import Reading
from tests.devices.printers import Layout
from tests.devices.printers import cell
from tests.devices.printers import mib
from tests.devices.printers import percent


_IDENTITY = ("name", "uuid", "serial", "bus_id")
_FIGURES = ("temperature", "power", "power_limit", "memory_used", "memory_total", "utilization", "fan", "ecc_errors")
_QUERIED = frozenset({*_IDENTITY, *_FIGURES, "memory_utilization", "clock", "memory_clock", "throttle"})
_TABLE = frozenset({"name", "bus_id", *_FIGURES, "processes"})

_MASKS = {
    "applications_clocks_setting": 0x2,
    "sw_power_cap": 0x4,
    "hw_slowdown": 0x8,
    "sync_boost": 0x10,
    "sw_thermal_slowdown": 0x20,
    "hw_thermal_slowdown": 0x40,
    "hw_power_brake_slowdown": 0x80,
}
_NA = "[N/A]"


def query_gpu(devices: Sequence[Reading]) -> str:
    """The query of the second probe; drivers since 535 head the reasons otherwise than one asks for them."""
    columns = (
        ("count", lambda one: str(len(devices))),
        ("index", lambda one: str(one.index)),
        ("name", lambda one: one.name or _NA),
        ("uuid", lambda one: one.uuid or _NA),
        ("serial", lambda one: one.serial or _NA),
        ("pci.bus_id", lambda one: one.bus_id or _NA),
        ("temperature.gpu", lambda one: cell(one.temperature, absent=_NA)),
        ("power.draw [W]", lambda one: cell(one.power, "{:.2f} W", _NA)),
        ("enforced.power.limit [W]", lambda one: cell(one.power_limit, "{:.2f} W", _NA)),
        ("memory.used [MiB]", lambda one: mib(one.memory_used, "{:.0f} MiB", _NA)),
        ("memory.total [MiB]", lambda one: mib(one.memory_total, "{:.0f} MiB", _NA)),
        ("utilization.gpu [%]", lambda one: percent(one.utilization, "{:.0f} %", _NA)),
        ("utilization.memory [%]", lambda one: percent(one.memory_utilization, "{:.0f} %", _NA)),
        ("fan.speed [%]", lambda one: percent(one.fan, "{:.0f} %", _NA)),
        ("clocks.current.sm [MHz]", lambda one: cell(one.clock, "{:.0f} MHz", _NA)),
        ("clocks.current.memory [MHz]", lambda one: cell(one.memory_clock, "{:.0f} MHz", _NA)),
        ("ecc.errors.uncorrected.volatile.total", lambda one: cell(one.ecc_errors, absent=_NA)),
        ("clocks_event_reasons.active", lambda one: _mask(one.throttle)),
    )
    rows = [", ".join(name for name, _ in columns)]
    rows += [", ".join(written(one) for _, written in columns) for one in devices]
    return "\n".join(rows) + "\n"


def _mask(reasons: tuple[str, ...] | None) -> str:
    # A device that nothing throttles is idle here: that bit is no throttle.
    return _NA if reasons is None else f"0x{sum(_MASKS[one] for one in reasons) or 1:016X}"


def compute_apps(devices: Sequence[Reading]) -> str:
    """The processes of all devices in one table; nothing but its heading where there is none."""
    rows = ["gpu_uuid, gpu_bus_id, pid, used_gpu_memory [MiB]"]
    for one in devices:
        for running in one.processes or ():
            rows.append(f"{one.uuid}, {one.bus_id}, {running.pid}, {mib(running.memory, '{:.0f} MiB', _NA)}")
    return "\n".join(rows) + "\n"


def table(devices: Sequence[Reading]) -> str:
    """Drivers since 550: 91 columns, a third line for MIG."""
    rule = "+-----------------------------------------+------------------------+----------------------+"
    lines = [
        "Fri Jul  3 22:11:09 2026       ",
        f"+{'-' * 89}+",
        "| NVIDIA-SMI 590.48.01              Driver Version: 590.48.01      CUDA Version: 13.1     |",
        rule,
        "| GPU  Name                 Persistence-M | Bus-Id          Disp.A | Volatile Uncorr. ECC |",
        "| Fan  Temp   Perf          Pwr:Usage/Cap |           Memory-Usage | GPU-Util  Compute M. |",
        "|                                         |                        |               MIG M. |",
        rule.replace("-", "=").replace("+", "|", 1)[:-1] + "|",
    ]
    for one in devices:
        memory = f"{mib(one.memory_used):>11} / {mib(one.memory_total):>10}"
        power = f"{cell(one.power, '{:.0f}W'):>7} / {cell(one.power_limit, '{:.0f}W'):>6}"
        lines += [
            f"| {one.index:3}  {one.name or 'N/A':<30}  On  |   {one.bus_id or 'N/A':>16} Off |"
            f" {cell(one.ecc_errors):>20} |",
            f"| {percent(one.fan):>3}  {cell(one.temperature, '{:.0f}C'):>4}    P0        {power:>17} |"
            f" {memory:>22} | {percent(one.utilization):>7}    E. Process |",
            "|                                         |                        |             Disabled |",
            rule,
        ]
    return "\n".join([*lines, "", *_processes(devices)]) + "\n"


def _processes(devices: Sequence[Reading]) -> list[str]:
    lines = [
        f"+{'-' * 89}+",
        "| Processes:                                                                              |",
        "|  GPU   GI   CI              PID   Type   Process name                        GPU Memory |",
        "|        ID   ID                                                               Usage      |",
        f"|{'=' * 89}|",
    ]
    for one in devices:
        for running in one.processes or ():
            name = "/opt/my programs/train"
            lines.append(
                f"|  {one.index:3}   N/A  N/A {running.pid:>15}      C   {name:<34} {mib(running.memory):>9} |"
            )
        # A desktop on the device computes nothing.
        name = "/usr/bin/Xwayland"
        lines.append(f"|  {one.index:3}   N/A  N/A {900 + one.index:>15}      G   {name:<34}      4MiB |")
    if not devices:
        lines.append("|  No running processes found                                                             |")
    return [*lines, f"+{'-' * 89}+"]


def narrow_table(devices: Sequence[Reading]) -> str:
    """Drivers before 450: 79 columns, names cut short, no MIG."""
    rule = "+-------------------------------+----------------------+----------------------+"
    lines = [
        "Sat Apr  4 00:55:05 2020       ",
        f"+{'-' * 77}+",
        "| NVIDIA-SMI 440.33.01    Driver Version: 440.33.01    CUDA Version: 10.2     |",
        f"|{rule[1:-1]}|",
        "| GPU  Name        Persistence-M| Bus-Id        Disp.A | Volatile Uncorr. ECC |",
        "| Fan  Temp  Perf  Pwr:Usage/Cap|         Memory-Usage | GPU-Util  Compute M. |",
        f"|{rule[1:-1].replace('-', '=')}|",
    ]
    for one in devices:
        memory = f"{mib(one.memory_used):>8} / {mib(one.memory_total):>8}"
        power = f"{cell(one.power, '{:.0f}W'):>6} / {cell(one.power_limit, '{:.0f}W'):>4}"
        lines += [
            f"| {one.index:3}  {one.name or 'N/A':<18} Off  | {one.bus_id or 'N/A':>16} Off |"
            f" {cell(one.ecc_errors):>20} |",
            f"| {percent(one.fan):>3}  {cell(one.temperature, '{:.0f}C'):>4}    P0 {power:>13} |"
            f" {memory:>20} | {percent(one.utilization):>7}      Default |",
            rule,
        ]
    lines += [
        " " * 79,
        f"+{'-' * 77}+",
        "| Processes:                                                       GPU Memory |",
        "|  GPU       PID   Type   Process name                             Usage      |",
        f"|{'=' * 77}|",
    ]
    for one in devices:
        for running in one.processes or ():
            lines.append(f"|  {one.index:3} {running.pid:>9}      C   {'python':<38} {mib(running.memory):>9}  |")
    return "\n".join([*lines, f"+{'-' * 77}+"]) + "\n"


def listing(devices: Sequence[Reading]) -> str:
    """``-L``, with an instance on the first device."""
    lines = [f"GPU {one.index}: {one.name} (UUID: {one.uuid})" for one in devices]
    lines.insert(1, "  MIG 1g.10gb     Device  0: (UUID: MIG-00000000-0000-0000-0000-000000000001)")
    return "\n".join(lines) + "\n"


def dmon(devices: Sequence[Reading]) -> str:
    """``dmon``: two headings, a row a device, ``-`` for what is not known."""
    lines = [
        "# gpu    pwr  gtemp  mtemp     sm    mem    enc    dec    jpg    ofa   mclk   pclk ",
        "# Idx      W      C      C      %      %      %      %      %      %    MHz    MHz ",
    ]
    for one in devices:
        cells = [
            cell(one.power, absent="-"),
            cell(one.temperature, absent="-"),
            "-",
            percent(one.utilization, "{:.0f}", "-"),
            percent(one.memory_utilization, "{:.0f}", "-"),
            *("0" for _ in range(4)),
            cell(one.memory_clock, absent="-"),
            cell(one.clock, absent="-"),
        ]
        lines.append(f"{one.index:>5} " + " ".join(f"{text:>6}" for text in cells) + " ")
    return "\n".join(lines) + "\n"


def full(devices: Sequence[Reading]) -> str:
    """``-q``: the sections of a reading, and those that could be taken for them."""
    lines = ["", "==============NVSMI LOG==============", "", f"{'Attached GPUs':<55}: {len(devices)}"]
    for one in devices:
        lines.append(f"GPU {one.bus_id or '00000000:00:00.0'}")
        for indent, label, text in _sections(one):
            lines.append(f"{' ' * indent}{label}" if text is None else f"{' ' * indent}{label:<{55 - indent}}: {text}")
    return "\n".join(lines) + "\n\n"


def _sections(one: Reading) -> list[tuple[int, str, str | None]]:
    lines: list[tuple[int, str, str | None]] = [
        (4, "Product Name", one.name or "N/A"),
        (4, "Serial Number", one.serial or "N/A"),
        (4, "GPU UUID", one.uuid or "N/A"),
        (4, "PCI", None),
        (8, "Bus Id", one.bus_id or "N/A"),
        (4, "Fan Speed", percent(one.fan, "{:.0f} %")),
        (4, "Clocks Event Reasons", None),
    ]
    lines += [
        (8, "Idle", "N/A" if one.throttle is None else "Active"),
        (8, "SW Power Cap", _active(one.throttle, "sw_power_cap")),
        (8, "HW Slowdown", _active(one.throttle, "hw_slowdown")),
        (12, "HW Thermal Slowdown", _active(one.throttle, "hw_thermal_slowdown")),
        (8, "SW Thermal Slowdown", _active(one.throttle, "sw_thermal_slowdown")),
        (4, "FB Memory Usage", None),
        (8, "Total", mib(one.memory_total, "{:.0f} MiB")),
        (8, "Reserved", "584 MiB"),
        (8, "Used", mib(one.memory_used, "{:.0f} MiB")),
        (4, "BAR1 Memory Usage", None),
        (8, "Total", "251659 MiB"),
        (8, "Used", "31393 MiB"),
        (4, "Utilization", None),
        (8, "GPU", percent(one.utilization, "{:3.0f} %")),
        (8, "Memory", percent(one.memory_utilization, "{:.0f} %")),
        (4, "ECC Errors", None),
        (8, "Volatile", None),
        (12, "SRAM Uncorrectable Parity", cell(one.ecc_errors)),
        (12, "DRAM Correctable", "17"),
        (8, "Aggregate", None),
        (12, "SRAM Uncorrectable Parity", "17"),
        (4, "Temperature", None),
        (8, "GPU Current Temp", cell(one.temperature, "{:.0f} C")),
        (8, "GPU Slowdown T.Limit Temp", "-2 C"),
        (4, "GPU Power Readings", None),
        (8, "Average Power Draw", cell(one.power, "{:.2f} W")),
        (8, "Current Power Limit", cell(one.power_limit, "{:.2f} W")),
        (8, "Max Power Limit", "1100.00 W"),
        (4, "GPU Memory Power Readings", None),
        (8, "Average Power Draw", "96.69 W"),
        (4, "Clocks", None),
        (8, "SM", cell(one.clock, "{:.0f} MHz")),
        (8, "Memory", cell(one.memory_clock, "{:.0f} MHz")),
        (4, "Max Clocks", None),
        (8, "SM", "9999 MHz"),
        (8, "Memory", "9999 MHz"),
        (4, "Processes", "None" if not one.processes else None),
    ]
    for running in one.processes or ():
        lines += [
            (8, "GPU instance ID", "N/A"),
            (8, "Process ID", str(running.pid)),
            (12, "Type", "C"),
            (12, "Name", "/opt/train : all"),
            (12, "Used GPU Memory", mib(running.memory, "{:.0f} MiB")),
        ]
    return [*lines, (4, "Capabilities", None), (8, "EGM", "disabled")]


def _active(reasons: tuple[str, ...] | None, reason: str) -> str:
    return "N/A" if reasons is None else "Active" if reason in reasons else "Not Active"


def xml(devices: Sequence[Reading]) -> str:
    """``-q -x`` in the schema of drivers since 535."""
    return _xml(devices, "v12", "gpu_power_readings", "current_power_limit", "clocks_event_reason")


def older_xml(devices: Sequence[Reading]) -> str:
    """``-q -x`` before: other names for power, its limit and the reasons."""
    return _xml(devices, "v11", "power_readings", "enforced_power_limit", "clocks_throttle_reason")


def _xml(devices: Sequence[Reading], schema: str, power: str, limit: str, reason: str) -> str:
    lines = [
        '<?xml version="1.0" ?>',
        f'<!DOCTYPE nvidia_smi_log SYSTEM "nvsmi_device_{schema}.dtd">',
        "<nvidia_smi_log>",
        f"    <attached_gpus>{len(devices)}</attached_gpus>",
    ]
    for one in devices:
        running = "".join(
            f"<process_info><pid>{p.pid}</pid><type>C</type><process_name>a &amp; b</process_name>"
            f"<used_memory>{mib(p.memory, '{:.0f} MiB')}</used_memory></process_info>"
            for p in one.processes or ()
        )
        reasons = "".join(
            f"<{reason}_{name}>{_active(one.throttle, name)}</{reason}_{name}>"
            for name in ("sw_power_cap", "hw_slowdown", "hw_thermal_slowdown", "sw_thermal_slowdown")
        )
        idle = "N/A" if one.throttle is None else "Active"
        lines += [
            f'    <gpu id="{one.bus_id}">',
            f"        <product_name>{escape(one.name or 'N/A')}</product_name>",
            "        <mig_devices><mig_device><fb_memory_usage><used>99 MiB</used></fb_memory_usage></mig_device>",
            "        </mig_devices>",
            f"        <serial>{one.serial or 'N/A'}</serial>",
            f"        <uuid>{one.uuid or 'N/A'}</uuid>",
            f"        <pci><pci_bus_id>{one.bus_id or 'N/A'}</pci_bus_id></pci>",
            f"        <fan_speed>{percent(one.fan, '{:.0f} %')}</fan_speed>",
            f"        <{reason}s><{reason}_gpu_idle>{idle}</{reason}_gpu_idle>{reasons}</{reason}s>",
            "        <fb_memory_usage>",
            f"            <total>{mib(one.memory_total, '{:.0f} MiB')}</total>",
            f"            <used>{mib(one.memory_used, '{:.0f} MiB')}</used>",
            "        </fb_memory_usage>",
            f"        <utilization><gpu_util>{percent(one.utilization, '{:.0f} %')}</gpu_util>",
            f"            <memory_util>{percent(one.memory_utilization, '{:.0f} %')}</memory_util></utilization>",
            f"        <ecc_errors><volatile><dram_uncorrectable>{cell(one.ecc_errors)}</dram_uncorrectable>",
            "            <sram_uncorrectable>N/A</sram_uncorrectable></volatile>",
            "            <aggregate><dram_uncorrectable>17</dram_uncorrectable></aggregate></ecc_errors>",
            f"        <temperature><gpu_temp>{cell(one.temperature, '{:.0f} C')}</gpu_temp></temperature>",
            f"        <{power}><power_draw>{cell(one.power, '{:.2f} W')}</power_draw>",
            f"            <{limit}>{cell(one.power_limit, '{:.2f} W')}</{limit}></{power}>",
            f"        <clocks><sm_clock>{cell(one.clock, '{:.0f} MHz')}</sm_clock>",
            f"            <mem_clock>{cell(one.memory_clock, '{:.0f} MHz')}</mem_clock></clocks>",
            f"        <processes>{running}</processes>",
            "    </gpu>",
        ]
    return "\n".join([*lines, "</nvidia_smi_log>"]) + "\n"


LAYOUTS = {
    "query-gpu": Layout("query-gpu", query_gpu, _QUERIED),
    "compute-apps": Layout("compute-apps", compute_apps, frozenset({"uuid", "bus_id", "processes"})),
    "table": Layout("table", table, _TABLE),
    "narrow-table": Layout("table", narrow_table, _TABLE),
    "listing": Layout("listing", listing, frozenset({"name", "uuid"})),
    "dmon": Layout(
        "dmon",
        dmon,
        frozenset({"power", "temperature", "utilization", "memory_utilization", "memory_clock", "clock"}),
    ),
    "q": Layout("q", full, _QUERIED | {"processes"}),
    "q-x": Layout("q-x", xml, _QUERIED | {"processes"}),
    "older-q-x": Layout("q-x", older_xml, _QUERIED | {"processes"}),
}

_PROBE = vendors.find("nvidia", [vendors.bundled()]).probe[1]
COMMANDS = {
    tuple(_PROBE.command): "query-gpu",
    tuple(_PROBE.processes): "compute-apps",
    ("nvidia-smi",): "table",
    ("nvidia-smi", "-L"): "listing",
    ("nvidia-smi", "-q"): "q",
    ("nvidia-smi", "-q", "-x"): "q-x",
}
