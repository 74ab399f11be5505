"""Where programs of NPU and GPU vendors beside NVIDIA and AMD print something else than a reader would expect."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pytest_flagperf.devices import outputs
from pytest_flagperf.errors import ProbeError
from tests.devices.npu import NAMES
from tests.devices.npu import described
from tests.devices.npu import devices
from tests.devices.printers import ascend
from tests.devices.printers import cambricon
from tests.devices.printers import enflame
from tests.devices.printers import habana
from tests.devices.printers import iluvatar
from tests.devices.printers import kunlunxin
from tests.devices.printers import metax
from tests.devices.printers import mthreads
from tests.devices.printers import thead


@pytest.mark.parametrize("name", NAMES)
def test_the_vendor_file_knows_the_chip_by_what_the_program_calls_it(name):
    assert described(name).chip(NAMES[name]) is not None


def test_kunlunxin_names_with_a_blank_are_one_column():
    text = kunlunxin.machine(devices("kunlunxin", 1))
    assert len(text.split()) == 33
    (told,) = outputs.parse(described("kunlunxin"), "machine", text)
    assert told.name == "P800 OAM"
    assert told.memory_total == 96


def test_kunlunxins_l3_cache_is_not_its_memory():
    text = kunlunxin.table(devices("kunlunxin", 1))
    assert "0MiB /    92MiB" in text
    (told,) = outputs.parse(described("kunlunxin"), "table", text)
    assert told.memory_total == 96
    assert told.memory_used == 20


INTEL = [
    "The following argument was not expected: -m\nRun with --help for more information.\n",
    (
        "+-----------+--------------------------------------------------------------------------------------+\n"
        "| Device ID | Device Information                                                                   |\n"
        "+-----------+--------------------------------------------------------------------------------------+\n"
        "| 0         | Device Name: Intel(R) Data Center GPU Max 1550                                       |\n"
        "|           | PCI BDF Address: 0000:29:00.0                                                        |\n"
        "+-----------+--------------------------------------------------------------------------------------+\n"
    ),
    "Timestamp, DeviceId, GPU Utilization (%), GPU Power (W)\n06:14:46.000,    0, 0.00, 14.61\n",
]


@pytest.mark.parametrize("text", INTEL)
@pytest.mark.parametrize("output", sorted(described("kunlunxin").output))
def test_intels_tool_of_the_same_name_is_refused(output, text):
    with pytest.raises(ProbeError, match="kunlunxin: the output"):
        outputs.parse(described("kunlunxin"), output, text)


def test_intels_gpus_are_not_taken_for_kunlunxins_where_the_bus_can_be_seen():
    assert described("kunlunxin").detection.pci_vendors == ["0x1d22", "0x2057"]


@pytest.mark.parametrize("key", ascend.LAYOUTS)
def test_an_ascend_device_that_is_not_well_keeps_its_place(key):
    there = devices("ascend", 4)
    there[1] = replace(there[1], health="Warning")
    there[2] = replace(there[2], health="Alarm")
    layout = ascend.LAYOUTS[key]
    told = outputs.parse(described("ascend"), layout.output, layout.render(there))
    assert [(one.index, one.health) for one in told] == [(0, "OK"), (1, "Warning"), (2, "Alarm"), (3, "OK")]
    assert [one.power for one in told] == [207, 237, 267, 297]


def test_the_second_chip_of_an_ascend_package_has_no_power_of_its_own():
    there = devices("ascend", 4)
    there = [replace(one, power=None) if one.index % 2 else one for one in there]
    text = ascend.LAYOUTS["25"].render(there)
    assert "| OK            | -  " in text
    told = outputs.parse(described("ascend"), "info", text)
    assert [one.power for one in told] == [207, None, 267, None]
    assert described("ascend").power_scope == "card"


def test_ascend_chips_are_numbered_as_the_program_numbers_them():
    there = [replace(one, index=12 + one.index) for one in devices("ascend", 4)]
    for key in ("20", "21", "25"):
        told = outputs.parse(described("ascend"), "info", ascend.LAYOUTS[key].render(there))
        assert [one.index for one in told] == [12, 13, 14, 15]


def test_ascend_amounts_of_memory_need_no_blank_before_the_slash():
    text = ascend.LAYOUTS["23"].render(devices("ascend", 1))
    assert "20480/ 98304" in text
    assert outputs.parse(described("ascend"), "info", text)[0].memory_used == 20


def test_an_ascend_chip_without_a_power_sensor_has_no_power_of_zero():
    text = ascend.LAYOUTS["20"].render([replace(one, power=0.0) for one in devices("ascend", 2)])
    assert "| 0.0 " in text
    assert [one.power for one in outputs.parse(described("ascend"), "info", text)] == [None, None]


@pytest.mark.parametrize("power", [0.4, 0.05, 10.0, 100.0])
def test_little_power_is_not_none(power):
    text = ascend.LAYOUTS["20"].render([replace(devices("ascend", 1)[0], power=power)])
    assert outputs.parse(described("ascend"), "info", text)[0].power == float(f"{power:.1f}")


def test_ascends_processes_are_no_devices_and_a_cut_list_of_them_is_not_believed():
    text = ascend.LAYOUTS["23"].render(devices("ascend", 3))
    told = outputs.parse(described("ascend"), "info", text)
    assert [len(one.processes or ()) for one in told] == [0, 2, 2]
    cut = text[: text.index("| 2       0 ")]
    told = outputs.parse(described("ascend"), "info", cut)
    assert [one.processes and len(one.processes) for one in told] == [(), 2, None]


def test_what_the_ascend_driver_says_instead_of_a_table_is_shown():
    text = "dcmi model initialized failed, because the device is used. ret is -8020\n"
    with pytest.raises(ProbeError, match=r"there is no table of devices(.|\n)*the device is used\. ret is -8020"):
        outputs.parse(described("ascend"), "info", text)


def test_ascend_26_without_a_memory_of_its_own_does_not_say_zero():
    there = [replace(one, memory_total=None, memory_used=None) for one in devices("ascend", 2)]
    text = ascend.LAYOUTS["26"].render(there)
    assert "0    / 0" in text
    assert [one.memory_total for one in outputs.parse(described("ascend"), "info", text)] == [None, None]


def test_iluvatar_prints_the_power_of_a_card_for_one_of_its_two_devices():
    there = [
        replace(one, power=None, power_limit=None, fan=None) if one.index % 2 == 0 else one
        for one in devices("iluvatar", 4)
    ]
    told = outputs.parse(described("iluvatar"), "table", iluvatar.table(there))
    assert [one.power for one in told] == [None, 237, None, 297]
    assert described("iluvatar").power_scope == "card"


def test_mthreads_has_power_in_its_json_only_behind_a_key_that_ends_in_a_blank():
    there = devices("mthreads", 2)
    text = mthreads.query(there)
    assert '"Power Draw ": "207.00W"' in text
    assert [one.power for one in outputs.parse(described("mthreads"), "json", text)] == [207, 237]
    trimmed = text.replace('"Power Draw "', '"Power Draw"')
    assert [one.power for one in outputs.parse(described("mthreads"), "json", trimmed)] == [207, 237]
    assert [one.power for one in outputs.parse(described("mthreads"), "table", mthreads.table(there))] == [None, None]


def test_mthreads_joins_the_processes_of_its_table_by_the_bus():
    there = devices("mthreads", 2)
    figures = outputs.parse(described("mthreads"), "json", mthreads.query(there))
    processes = outputs.parse(described("mthreads"), "table", mthreads.table(there))
    assert [one.bus_id for one in figures] == [one.bus_id for one in processes]


def test_a_list_of_processes_without_an_end_is_not_believed():
    for name, text in (
        ("mthreads", mthreads.table(devices("mthreads", 2))),
        ("iluvatar", iluvatar.table(devices("iluvatar", 2))),
        ("metax", metax.version_2_2_9(devices("metax", 2))),
    ):
        lines = text.splitlines(keepends=True)
        told = outputs.parse(described(name), "table", "".join(lines[:-1]))
        assert [one.processes for one in told] == [None, None], name


def test_cambricon_4_has_no_compute_mode_to_look_for():
    text = cambricon.version_4(devices("cambricon", 2))
    assert "Default" not in text
    told = outputs.parse(described("cambricon"), "table", text)
    assert [one.power for one in told] == [207, 237]
    assert [one.bus_id for one in told] == [None, None]


def test_metax_before_2_1_12_prints_power_without_a_cap():
    text = metax.version_2_1(devices("metax", 2)).replace("/ 400W", "      ").replace("Pwr:Usage/Cap", "Power        ")
    told = outputs.parse(described("metax"), "table", text)
    assert [(one.temperature, one.power, one.power_limit) for one in told] == [(41, 207, None), (42, 237, None)]


@pytest.mark.parametrize("key", ["version 2.1", "version 2.2.8", "version 2.2.9"])
def test_metax_says_how_many_devices_there_are_and_fewer_are_refused(key):
    text = metax.LAYOUTS[key].render(devices("metax", 3))
    shorter = text.replace(": 3\n", ": 4\n")
    with pytest.raises(ProbeError, match="4 devices are attached, 3 are in it"):
        outputs.parse(described("metax"), "table", shorter)


def test_habana_spells_mebibytes_in_two_ways_and_adds_lines_to_its_heading():
    there = devices("habana", 2)
    text = habana.table(there, unit="Mib")
    heading = "| Fan  Temp  Perf  Pwr:Usage/Cap|         Memory-Usage | AIP-Util  Compute M. |\n"
    assert heading in text
    taller = text.replace(
        heading, heading + "|                               |                      |   Power-Cap  Span    |\n"
    )
    for printed in (text, taller):
        told = outputs.parse(described("habana"), "table", printed)
        assert [one.memory_total for one in told] == [96, 96]


def test_habana_is_numbered_by_module():
    there = [replace(one, index=index) for one, index in zip(devices("habana", 3), (5, 2, 7), strict=True)]
    told = outputs.parse(described("habana"), "query", habana.query(there))
    assert [(one.index, one.uuid) for one in told] == [
        (2, "UID-1c39e-52b2"),
        (5, "UID-0c39e-52b2"),
        (7, "UID-2c39e-52b2"),
    ]
    assert described("habana").visible_devices == "HABANA_VISIBLE_MODULES"


def test_enflame_renamed_its_memory_and_writes_degrees_in_several_ways():
    there = devices("enflame", 2)
    older, newer = enflame.query_1_2(there), enflame.query_1_4(there)
    assert "Mem Usage" in older
    assert "41 C\n" in older
    assert "Used Size" in newer
    assert "41 ℃\n" in newer
    assert outputs.parse(described("enflame"), "query", older) == outputs.parse(described("enflame"), "query", newer)


def test_an_enflame_device_asleep_has_neither_temperature_nor_power():
    there = [replace(one, temperature=None, power=None, power_limit=None) for one in devices("enflame", 2)]
    told = outputs.parse(described("enflame"), "table", enflame.table(there))
    assert [(one.temperature, one.power, one.power_limit) for one in told] == [(None, None, None)] * 2
    assert [one.memory_total for one in told] == [96, 96]


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("enflame", enflame.query_1_4(devices("enflame", 2)), "Cur Power"),
        ("enflame", enflame.query_1_4(devices("enflame", 2)), "Used Size"),
        ("kunlunxin", kunlunxin.query(devices("kunlunxin", 2)), "Power Draw"),
        ("kunlunxin", kunlunxin.query(devices("kunlunxin", 2)), "Processes"),
    ],
)
def test_a_section_that_lacks_what_every_one_has_is_cut_off(name, text, value):
    lines = text.splitlines(keepends=True)
    last = max(number for number, line in enumerate(lines) if line.strip().startswith(value))
    with pytest.raises(ProbeError, match=f"{value}.*is missing"):
        outputs.parse(described(name), "query", "".join(lines[:last]))


def test_instances_of_a_t_head_device_are_no_devices():
    text = thead.listing(devices("thead", 2))
    assert text.count("MIG") == 4
    assert [one.index for one in outputs.parse(described("thead"), "list", text)] == [0, 1]


def test_an_idle_t_head_host_has_an_empty_list_of_processes():
    assert outputs.parse(described("thead"), "processes", thead.processes([])) == []


def test_a_t_head_list_of_processes_in_other_columns_is_refused():
    text = thead.processes(devices("thead", 2)).replace("pid, used_ppu_memory", "used_ppu_memory, pid")
    with pytest.raises(ProbeError, match="its heading is not uuid, pid, used_ppu_memory"):
        outputs.parse(described("thead"), "processes", text)


def test_a_word_as_long_as_the_text_does_not_fill_the_message():
    header, row = habana.query(devices("habana", 1)).splitlines()
    text = f"{header}\n{row.replace('207 W', '2' * 100_000)}\n"
    with pytest.raises(ProbeError) as caught:
        outputs.parse(described("habana"), "query", text)
    assert len(str(caught.value)) < 3000
