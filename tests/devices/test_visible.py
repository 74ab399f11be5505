"""Visible-devices variables: what the caller leaves us, and what the ranks are given."""

from __future__ import annotations

import pytest

from pytest_flagperf import DeviceUnavailable
from pytest_flagperf.devices import vendor as vendors
from pytest_flagperf.devices import visible
from pytest_flagperf.devices.reading import Reading


ACME = vendors.Vendor(
    schema_version=1,
    name="acme",
    title="Acme",
    precisions=["fp32"],
    frameworks={},
    visible_devices="ACME_VISIBLE_DEVICES",
    also_visible=["ACME_RUNTIME_DEVICES"],
)
UUIDS = ("GPU-8932f937-d72c", "GPU-8932f938-aaaa", "GPU-11111111-0000", "GPU-22222222-0000")
FOUR = [Reading(index, uuid=uuid) for index, uuid in enumerate(UUIDS)]
WITHOUT_UUIDS = [Reading(index) for index in range(4)]


def seen(value: str | None, readings: list[Reading] | None = FOUR, also: str | None = None) -> tuple[int, ...]:
    given = {"ACME_VISIBLE_DEVICES": value, "ACME_RUNTIME_DEVICES": also, "HOME": "/home"}
    return visible.visible(ACME, readings, {name: text for name, text in given.items() if text is not None})


@pytest.mark.parametrize(
    ("value", "devices"),
    [
        (None, (0, 1, 2, 3)),
        ("", ()),
        (" ", ()),
        ("2", (2,)),
        ("3,1", (3, 1)),
        (" 1 , 0 ,", (1, 0)),
        ("1,1,2", (1, 2)),
        ("0,-1,2", (0,)),
        ("-1", ()),
        ("0,9,2", (0,)),
        ("0,-1,what is this", (0,)),
        ("GPU-11111111-0000", (2,)),
        ("GPU-8932f937", (0,)),
        ("gpu-2,GPU-1,0", (3, 2, 0)),
        ("all", (0, 1, 2, 3)),
        ("none", ()),
        ("void", ()),
    ],
)
def test_the_callers_variable_is_read_as_cuda_reads_its_own(value, devices):
    assert seen(value) == devices


def test_a_uuid_that_begins_another_one_is_itself():
    devices = [Reading(0, uuid="U-12"), Reading(1, uuid="U-1")]
    assert seen("U-1", devices) == (1,)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("GPU-8932f93", r"GPU-8932f93 fits several devices: 0 GPU-8932f937-d72c, 1 GPU-8932f938-aaaa"),
        ("0,GPU-777", r"no device has a uuid that begins with GPU-777: 0 GPU-8932f937-d72c, .*3 GPU-22222222-0000"),
        ("first", r"no device has a uuid that begins with first"),
        ("MIG-8932f937/1/0", r"MIG-8932f937/1/0 is a part of a device; leases are of whole devices"),
    ],
)
def test_what_names_no_one_device_is_an_error_that_names_the_variable_and_what_there_is(value, says):
    with pytest.raises(DeviceUnavailable, match=rf"ACME_VISIBLE_DEVICES='{value}': {says}"):
        seen(value)


@pytest.mark.parametrize("readings", [WITHOUT_UUIDS, None])
def test_without_known_uuids_a_uuid_is_refused_with_an_example(readings):
    with pytest.raises(DeviceUnavailable, match="no uuid of a device is known; devices are chosen by number here"):
        seen("GPU-8932f937", readings)


def test_the_drivers_numbers_count_where_it_was_asked_and_else_what_shows_on_the_host(tmp_path):
    assert seen(None, [Reading(4), Reading(6)]) == (4, 6)
    assert seen("6,0", [Reading(4), Reading(6)]) == (6,)
    assert seen(None, []) == ()
    for number in range(2):
        (tmp_path / f"acme{number}").touch()
    shown = vendors.Vendor(
        schema_version=1,
        name="acme",
        title="Acme",
        precisions=[],
        frameworks={},
        detection=vendors.Detection(device_nodes=[f"{tmp_path}/acme*"]),
    )
    assert visible.visible(shown, environ={}) == (0, 1)


def test_two_variables_that_disagree_are_an_error_that_names_both():
    with pytest.raises(
        DeviceUnavailable,
        match=r"ACME_VISIBLE_DEVICES='0,1' and ACME_RUNTIME_DEVICES='2' choose different devices of acme",
    ):
        seen("0,1", also="2")


@pytest.mark.parametrize(("value", "also"), [("1,0", "1, 0"), ("0", "GPU-8932f937"), (None, "0"), ("0", "all")])
def test_two_variables_that_say_the_same_are_fine_and_one_is_enough(value, also):
    assert seen(value, also=also) in [(1, 0), (0,)]


def test_the_second_variable_alone_hides_devices_too():
    assert seen(None, also="3,2") == (3, 2)


def test_variables_of_the_process_count_where_none_are_given(monkeypatch):
    monkeypatch.setenv("ACME_VISIBLE_DEVICES", "2")
    assert visible.visible(ACME, FOUR) == (2,)


def test_a_rank_gets_the_leased_devices_and_no_second_list_to_count_them_by():
    assert visible.environment(ACME, (3, 1)) == {"ACME_VISIBLE_DEVICES": "3,1", "ACME_RUNTIME_DEVICES": None}


def test_a_vendor_without_a_variable_gives_its_ranks_none():
    cpu = vendors.load(vendors.bundled() / "cpu" / "vendor.toml")
    assert visible.environment(cpu, (0,)) == {}
    assert visible.visible(cpu, environ={"CUDA_VISIBLE_DEVICES": ""}) == (0,)


def test_what_a_rank_is_given_is_what_a_session_inside_it_would_see():
    given = {name: value for name, value in visible.environment(ACME, (3, 1)).items() if value is not None}
    assert visible.visible(ACME, FOUR, given) == (3, 1)
