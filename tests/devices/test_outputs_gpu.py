"""The texts of NVIDIA's, AMD's and Hygon's programs: what is printed is read, and nothing else."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from collections.abc import Sequence
from dataclasses import replace

import pytest

from pytest_flagperf.devices import outputs
from pytest_flagperf.devices import probe
from pytest_flagperf.devices import vendor as vendors
from pytest_flagperf.devices.reading import Process
from pytest_flagperf.devices.reading import Reading
from pytest_flagperf.devices.vendor import Vendor
from pytest_flagperf.errors import ProbeError
from tests.devices import fuzz
from tests.devices.printers import amd
from tests.devices.printers import dcu
from tests.devices.printers import nvidia


PRINTERS = {"nvidia": nvidia, "amd": amd, "dcu": dcu}
VENDORS = {name: vendors.find(name, [vendors.bundled()]) for name in PRINTERS}
ALL = [(vendor, name) for vendor, printer in PRINTERS.items() for name in printer.LAYOUTS]
# Nothing in a list of processes alone tells that some are missing.
FUZZED = [(vendor, name) for vendor, name in ALL if name != "compute-apps"]

BUSY = Reading(
    0,
    name="Quick Device 80GB (x4)",
    uuid="GPU-87365e57-f8ce-5985-79e3-8d229070843c",
    serial="1324021000001",
    bus_id="00000000:0A:00.0",
    temperature=71.0,
    power=612.0,
    power_limit=700.0,
    energy=178319501.682,
    memory_used=30.5,
    memory_total=80.0,
    utilization=0.98,
    memory_utilization=0.37,
    fan=0.43,
    clock=1980.0,
    memory_clock=3201.0,
    ecc_errors=3.0,
    throttle=("sw_power_cap", "hw_slowdown"),
    processes=(Process(10291, 29.5),),
)
IDLE = replace(
    BUSY,
    index=1,
    uuid="GPU-00000000-f8ce-5985-79e3-8d229070843c",
    serial="1324021000002",
    bus_id="00000000:83:00.0",
    temperature=25.0,
    power=75.0,
    energy=12.0,
    memory_used=0.0,
    utilization=0.0,
    memory_utilization=0.0,
    fan=0.0,
    clock=0.0,
    memory_clock=96.0,
    ecc_errors=0.0,
    throttle=(),
    processes=(),
)
SILENT = Reading(2, processes=())
# Where a program prints a name in every case.
NAMED = replace(SILENT, name="Quiet Device", uuid="GPU-11111111-f8ce-5985-79e3-8d229070843c", bus_id="00000000:84:00.0")


def devices(vendor: str, layout: str) -> list[Reading]:
    """A busy device, an idle one, and one of which the driver tells nothing."""
    throttle = {"amd": ("ppt", "hbm_thermal")}.get(vendor, BUSY.throttle)
    if layout == "metric-list":
        # Before AMDSMI 25: whether, not why.
        throttle = ("throttled",)
    return [replace(BUSY, throttle=throttle), IDLE, NAMED if layout in ("listing", "compute-apps") else SILENT]


def printed(vendor: str, layout: str, shown: Sequence[Reading]) -> str:
    return PRINTERS[vendor].LAYOUTS[layout].render(shown)


def parse(vendor: str, layout: str, text: str | bytes) -> list[Reading]:
    return outputs.parse(VENDORS[vendor], PRINTERS[vendor].LAYOUTS[layout].output, text)


def only(one: Reading, shows: Iterable[str]) -> Reading:
    return Reading(one.index, **{name: getattr(one, name) for name in shows})  # type: ignore[arg-type]


def assert_same(told: Sequence[Reading], wanted: Sequence[Reading]) -> None:
    assert [one.index for one in told] == [one.index for one in wanted]
    for one, right in zip(told, wanted, strict=True):
        for name, value in vars(right).items():
            expected = pytest.approx(value, rel=1e-6) if isinstance(value, float) else value
            assert getattr(one, name) == expected, f"device {one.index}: {name}"


@pytest.mark.parametrize(("vendor", "layout"), ALL)
def test_what_a_program_prints_is_read_in_our_units(vendor, layout):
    """Figures that are 0 are 0, and figures that are not told are absent."""
    whole = devices(vendor, layout)
    shows = PRINTERS[vendor].LAYOUTS[layout].shows
    wanted = [only(one, shows) for one in whole]
    if layout == "compute-apps":
        wanted = [one for one in wanted if one.processes]
    assert_same(parse(vendor, layout, printed(vendor, layout, whole)), wanted)


@pytest.mark.parametrize(("vendor", "layout"), ALL)
def test_many_devices_keep_their_numbers(vendor, layout):
    many = [replace(BUSY, index=index, throttle=(), uuid=f"GPU-{index}", power=100.0 + index) for index in range(16)]
    told = parse(vendor, layout, printed(vendor, layout, many))
    assert [one.index for one in told] == list(range(16))
    if "power" in PRINTERS[vendor].LAYOUTS[layout].shows:
        assert [one.power for one in told] == [one.power for one in many]


@pytest.mark.parametrize("vendor", PRINTERS)
def test_every_command_of_a_vendor_has_a_text_that_its_output_reads(vendor):
    described, printer = VENDORS[vendor], PRINTERS[vendor]
    for one in described.probe:
        for command, output in ((one.command, one.output), (one.processes, one.processes_output)):
            if command:
                assert printer.LAYOUTS[printer.COMMANDS[tuple(command)]].output == output
    assert set(printer.COMMANDS.values()) <= set(printer.LAYOUTS)
    assert {layout.output for layout in printer.LAYOUTS.values()} == set(described.output)


@pytest.mark.parametrize(("vendor", "layout"), FUZZED)
def test_a_text_that_is_cut_off_never_tells_another_figure(vendor, layout):
    output = PRINTERS[vendor].LAYOUTS[layout].output
    fuzz.check_truncated(VENDORS[vendor], output, printed(vendor, layout, devices(vendor, layout)[:2]))


@pytest.mark.parametrize(("vendor", "layout"), FUZZED)
def test_a_line_that_is_missing_makes_up_no_figure(vendor, layout):
    output = PRINTERS[vendor].LAYOUTS[layout].output
    whole = devices(vendor, layout)
    if layout == "q":
        # A reason a line, and versions have different ones: who could miss one.
        whole = [replace(one, throttle=one.throttle and ()) for one in whole]
    fuzz.check_lines_missing(VENDORS[vendor], output, printed(vendor, layout, whole))


@pytest.mark.parametrize(("vendor", "layout"), ALL)
def test_a_corrupted_text_gives_readings_or_an_error_that_helps(vendor, layout):
    output = PRINTERS[vendor].LAYOUTS[layout].output
    fuzz.check_corrupted(VENDORS[vendor], output, printed(vendor, layout, devices(vendor, layout)))


@pytest.mark.slow
@pytest.mark.parametrize(("vendor", "layout"), FUZZED)
def test_a_hostile_text_is_done_with_in_time(vendor, layout):
    output = PRINTERS[vendor].LAYOUTS[layout].output
    fuzz.check_hostile(VENDORS[vendor], output, printed(vendor, layout, devices(vendor, layout)))


def test_a_cut_list_of_processes_holds_none_that_was_not_there():
    two = replace(BUSY, processes=(Process(10291, 29.5), Process(10293, 1.5)))
    text = printed("nvidia", "compute-apps", [two])
    for end in range(len(text)):
        for one in fuzz.readings(VENDORS["nvidia"], "compute-apps", text[:end]):
            assert set(one.processes) <= set(two.processes)


def test_rows_that_a_query_lacks_are_missed():
    text = printed("nvidia", "query-gpu", [BUSY, IDLE])
    with pytest.raises(ProbeError, match="it announces 2 devices, 1 are in it"):
        parse("nvidia", "query-gpu", "".join(text.splitlines(keepends=True)[:-1]))


@pytest.mark.parametrize("vendor", PRINTERS)
def test_a_program_that_is_there_is_asked_for_devices_and_processes(vendor, tmp_path, monkeypatch):
    """The whole way with programs that print what the vendor's do, where no library of the vendor's is there."""
    described, printer = VENDORS[vendor], PRINTERS[vendor]
    asked = next(one for one in described.probe if one.command)
    shown = [replace(one, throttle=None) for one in devices(vendor, "metric")]
    texts = {
        json.dumps(list(command[1:])): printer.LAYOUTS[layout].render(shown)
        for command, layout in printer.COMMANDS.items()
        if command[0] == asked.command[0]
    }
    program = tmp_path / asked.command[0]
    program.write_text(
        f"#!{sys.executable} -IS\nimport json, sys\nprint({texts!r}[json.dumps(sys.argv[1:])], end='')\n"
    )
    program.chmod(0o700)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "pynvml", None)
    found = probe.prober(described)
    try:
        shows = printer.LAYOUTS[printer.COMMANDS[tuple(asked.command)]].shows
        if asked.identity:
            shows |= printer.LAYOUTS[printer.COMMANDS[tuple(asked.identity)]].shows & set(probe.IDENTITY)
        assert_same(found.read(), [only(one, shows - {"throttle"}) for one in shown])
        running = found.processes()
    finally:
        found.close()
    assert running == ({0: (Process(10291, 29.5),), 1: (), 2: ()} if asked.processes else None)


def test_an_idle_host_has_a_list_of_no_processes():
    assert parse("nvidia", "compute-apps", printed("nvidia", "compute-apps", [IDLE])) == []
    with pytest.raises(ProbeError, match="it printed nothing"):
        parse("nvidia", "compute-apps", "")


@pytest.mark.parametrize("mode", ["Default", "E. Process", "Prohibited"])
def test_a_compute_mode_hides_no_device(mode):
    """FlagPerf looks for the word Default, and finds no device in another mode."""
    text = printed("nvidia", "table", [BUSY]).replace("E. Process", f"{mode:>10}")
    assert [one.power for one in parse("nvidia", "table", text)] == [612.0]


def test_a_device_divided_by_mig_has_no_utilization_and_its_instances_are_no_devices():
    text = printed("nvidia", "table", [BUSY, IDLE]).replace("98%", "N/A").replace("     3 |", "    On |")
    instances = """+-----------------------------------------------------------------------------------------+
| MIG devices:                                                                            |
+------------------+----------------------------------+-----------+-----------------------+
| GPU  GI  CI  MIG |              Shared Memory-Usage |        Vol|        Shared         |
|==================+==================================+===========+=======================|
|  0    2   0   0  |           10648MiB / 40448MiB    | 60      0 |  3   0    3    0    3 |
|                  |               0MiB / 24739MiB    |           |                       |
+------------------+----------------------------------+-----------+-----------------------+

"""
    head, _, processes = text.partition("\n\n")
    told = parse("nvidia", "table", f"{head}\n\n{instances}{processes}")
    assert [(one.index, one.utilization, one.ecc_errors) for one in told] == [(0, None, None), (1, 0.0, 0.0)]
    assert [one.memory_used for one in told] == [30.5, 0.0]


def test_windows_and_hami_change_nothing():
    text = printed("nvidia", "table", [BUSY])
    changed = text.replace("  On  |", "  WDDM  |") + "[HAMI-core Msg(28:1405:limit.c:434)]: Calling exit handler 28\n"
    assert parse("nvidia", "table", changed) == parse("nvidia", "table", text)


def test_one_device_asked_for_out_of_several_is_refused():
    """``nvidia-smi -q -x -i 1`` prints no number: taken for device 0 it would be another's figures."""
    for layout, old in (("q-x", "gpus>2<"), ("q", ": 2\n")):
        text = printed("nvidia", layout, [BUSY, IDLE])
        assert text.count(old) == 1
        with pytest.raises(ProbeError, match="it announces 4 devices, 2 are in it"):
            parse("nvidia", layout, text.replace(old, old.replace("2", "4")))


def test_an_unknown_throttle_reason_keeps_its_bit():
    text = printed("nvidia", "query-gpu", [BUSY]).replace("0x000000000000000C", "0x0000000000001004")
    assert parse("nvidia", "query-gpu", text)[0].throttle == ("sw_power_cap", "reason 0x1000")


def test_a_document_that_defines_entities_is_refused():
    bomb = '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b "c">]><nvidia_smi_log>&b;</nvidia_smi_log>\n'
    with pytest.raises(ProbeError, match="no XML document of nvidia-smi"):
        parse("nvidia", "q-x", bomb)


@pytest.mark.parametrize(
    ("vendor", "layout", "text"),
    [
        ("nvidia", "query-gpu", "No devices were found\n"),
        ("nvidia", "table", "No devices were found\n"),
        ("nvidia", "table", "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.\n"),
        ("nvidia", "query-gpu", "Failed to initialize NVML: Driver/library version mismatch\n"),
        ("nvidia", "query-gpu", 'Field "clocks.hyper" is not a valid field to query.\n'),
        ("amd", "rocm-json", "Driver not initialized (amdgpu not found in modules)\n"),
        ("amd", "metric", '{"gpu_data": []}\n'),
        ("amd", "metric", "[]\n"),
        ("dcu", "json", '{"system": {"Driver version": "6.8.5"}}\n'),
    ],
)
def test_a_tool_that_sees_no_device_is_quoted(vendor, layout, text):
    with pytest.raises(ProbeError) as caught:
        parse(vendor, layout, text)
    assert text.strip() in str(caught.value)
    assert str(caught.value).startswith(f"{vendor}: the output ")


def test_the_megabytes_of_amd_smi_are_1024_kibibytes():
    """An MI300X of 206,141,652,992 bytes is one of 196,592 MB: by powers of ten it would have 9 GiB less."""
    text = json.dumps([{"gpu": 0, "mem_usage": {"total_vram": {"value": 196592, "unit": "MB"}}}]) + "\n"
    assert parse("amd", "metric", text)[0].memory_total == 206141652992 / 2**30
    row = "GPU  VRAM_TOTAL\n  0   196592 MB\n"
    assert parse("amd", "monitor", row)[0].memory_total == 206141652992 / 2**30


@pytest.mark.parametrize("list_of", ["", "gpu_data"])
def test_amd_smi_static_names_the_chip_that_a_metric_does_not(list_of):
    there = [replace(BUSY, name="AMD Instinct MI300X"), replace(IDLE, name="AMD Instinct MI250")]
    document = json.loads(printed("amd", "static-json", there))
    told = parse("amd", "static-json", json.dumps({list_of: document} if list_of else document))
    chips = [VENDORS["amd"].chip(one.name or "") for one in told]
    assert [chip[0] for chip in chips if chip] == ["MI300X", "MI250"]
    assert [(one.serial, one.bus_id) for one in told] == [(one.serial, one.bus_id) for one in there]
    (asked, _) = VENDORS["amd"].probe
    assert PRINTERS["amd"].COMMANDS[tuple(asked.identity)] == "static-json"
    assert asked.identity_output == PRINTERS["amd"].LAYOUTS["static-json"].output
    assert not {"name", "serial", "bus_id"} & PRINTERS["amd"].LAYOUTS["metric"].shows


def test_the_temperature_of_an_amd_device_is_that_of_its_hottest_point_where_it_tells():
    both = [{"gpu": 0, "temperature": {"edge": {"value": 60, "unit": "C"}, "hotspot": {"value": 75, "unit": "C"}}}]
    assert parse("amd", "metric", json.dumps(both))[0].temperature == 75
    both[0]["temperature"]["hotspot"] = "N/A"
    assert parse("amd", "metric", json.dumps(both))[0].temperature == 60


@pytest.mark.parametrize(("state", "throttle"), [("THROTTLED", ("throttled",)), ("UNTHROTTLED", ()), ("N/A", None)])
def test_an_older_amd_smi_says_whether_the_clock_is_lowered_and_not_why(state, throttle):
    assert parse("amd", "metric", json.dumps([{"gpu": 0, "power": {"throttle_status": state}}]))[0].throttle == throttle


def test_the_processes_of_a_newer_amd_smi_have_one_amount_of_memory():
    listed = {"name": "python", "pid": 42, "mem_usage": {"value": 2**31, "unit": "B"}, "cu_occupancy": 304}
    text = json.dumps([{"gpu": 0, "process_list": [{"process_info": listed}]}])
    assert parse("amd", "process-json", text)[0].processes == (Process(42, 2.0),)


def test_a_device_of_amd_without_a_number_is_refused():
    with pytest.raises(ProbeError, match="a device has no number called gpu"):
        parse("amd", "metric", '[{"gpu": "all"}]')


def test_partitions_of_an_amd_card_are_devices_of_their_own():
    parts = [replace(BUSY, index=index, throttle=None) for index in range(64)]
    for layout in ("metric", "monitor", "concise", "rocm-json"):
        assert len(parse("amd", layout, printed("amd", layout, parts))) == 64


@pytest.mark.parametrize("layout", ["table", "older-table"])
def test_a_table_of_hygon_says_nothing_of_bytes(layout):
    """VRAM% is a share of 64 GiB on one chip and of 16 or 32 on others; FlagPerf takes 64 for all."""
    told = parse("dcu", layout, printed("dcu", layout, [replace(BUSY, throttle=None)]))
    assert (told[0].memory_used, told[0].memory_total) == (None, None)


def test_columns_that_a_new_version_adds_are_passed_over():
    text = printed("dcu", "table", [BUSY]).replace("Enc%", "New%  Enc%").replace("0.0%      Normal", "7%  0%  Normal")
    assert_same(parse("dcu", "table", text), [only(BUSY, dcu.LAYOUTS["table"].shows)])


def test_the_vendors_say_which_devices_are_theirs():
    """AMD's and Hygon's drivers make the same device nodes."""
    described: dict[str, Vendor] = VENDORS
    assert described["amd"].detection.pci_vendors == ["0x1002"]
    assert described["dcu"].detection.pci_vendors == ["0x1d94"]
    assert described["nvidia"].environment == {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
