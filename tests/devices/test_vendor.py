"""Vendor files: read against a schema, found by name, and the devices they tell of."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from pytest_flagperf import ConfigurationError
from pytest_flagperf import DeviceUnavailable
from pytest_flagperf import Topology
from pytest_flagperf import provision
from pytest_flagperf.devices import vendor as vendors


ACME = """
schema_version = 1
name = "acme"
title = "Acme"
aliases = ["roadrunner"]
visible_devices = "ACME_VISIBLE_DEVICES"
precisions = ["fp32", "bf16"]

[detection]
device_nodes = ["@/acme[0-9]*"]

[frameworks.pytorch]
device = "acme"

[chips.A1]
names = ["Acme A1 80GB"]
peak = { bf16 = 312 }
source = "datasheet"
"""


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Vendors of one's own: acme, with three devices on this host."""
    (tmp_path / "devices").mkdir()
    for number in range(3):
        (tmp_path / "devices" / f"acme{number}").touch()
    write(tmp_path, "acme", ACME.replace("@", str(tmp_path / "devices")))
    return tmp_path / "vendors"


def write(path: Path, name: str, text: str | bytes) -> Path:
    (path / "vendors" / name).mkdir(parents=True, exist_ok=True)
    file = path / "vendors" / name / "vendor.toml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return file


def test_every_vendor_that_ships_is_valid_and_names_its_sources():
    found = {name: vendors.load(path) for name, path in vendors.names([vendors.bundled()]).items()}
    assert {"cpu", "nvidia"} <= set(found)
    assert all(chip.source for vendor in found.values() for chip in vendor.chips.values())


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('title = "Acme"', "title = 5", "Expected `str`, got `int` - at `$.title`"),
        ('title = "Acme"', "", "missing required field `title`"),
        ("aliases", "alias", "unknown field `alias`"),
        ("[detection]", "[detect]", "unknown field `detect`"),
        ("device_nodes", "nodes", "unknown field `nodes` - at `$.detection`"),
        ('source = "datasheet"', "", "missing required field `source`"),
        ('source = "datasheet"', 'source = "x"\nmemory = "80 GB"', "got `str` - at `$.chips[...].memory`"),
        ("bf16 = 312", "bf16 = -1", "chips.A1.peak.bf16 is -1: it is above zero"),
        ("bf16 = 312", "bf16 = 0", "chips.A1.peak.bf16 is 0: it is above zero"),
        ("bf16 = 312", "bf16 = nan", "chips.A1.peak.bf16 is nan"),
        ("bf16 = 312", "bf61 = 312", "chips.A1.peak: unknown 'bf61'; known: fp64, fp32"),
        ('["fp32", "bf16"]', '["fp23"]', "precisions: unknown 'fp23'"),
        (
            "[frameworks.pytorch]",
            "[frameworks.torch]",
            "frameworks: unknown 'torch'; known: pytorch, paddle",
        ),
        ("schema_version = 1", "schema_version = 2", "schema_version 2 is not one this version reads (1)"),
        ('name = "acme"', 'name = "acne"', "name is 'acne', the directory 'acme'"),
        ("[chips.A1]", "[chips.A1", "vendor.toml: "),
        ('title = "Acme"', 'title = "\udcff"', "vendor.toml: "),
    ],
)
def test_a_vendor_file_that_is_wrong_names_itself_and_the_key(tmp_path, old, new, message):
    assert old in ACME
    path = write(tmp_path, "acme", ACME.replace(old, new).encode(errors="surrogateescape"))
    with pytest.raises(ConfigurationError) as caught:
        vendors.load(path)
    assert str(path) in str(caught.value)
    assert message in str(caught.value)


def test_a_vendor_is_found_by_name_and_by_alias(directory):
    for name in ("acme", "roadrunner"):
        assert vendors.find(name, [directory, vendors.bundled()]).name == "acme"


def test_an_unknown_vendor_lists_those_there_are(directory):
    with pytest.raises(ConfigurationError, match=r"unknown vendor 'coyote'\. Known: acme, cpu"):
        vendors.find("coyote", [directory, vendors.bundled()])


def test_an_earlier_directory_replaces_a_vendor(tmp_path):
    write(tmp_path, "cpu", ACME.replace('name = "acme"', 'name = "cpu"').replace('"Acme"', '"My CPU"'))
    assert vendors.find("cpu", [tmp_path / "vendors", vendors.bundled()]).title == "My CPU"


def test_the_accelerator_of_the_host_is_the_default_and_else_its_processor(directory):
    cpu = vendors.names([vendors.bundled()])["cpu"].parent.parent
    only_cpu = directory.parent / "only"
    only_cpu.mkdir()
    (only_cpu / "cpu").symlink_to(cpu / "cpu")
    assert vendors.detect([only_cpu]).name == "cpu"
    assert vendors.detect([directory, only_cpu]).name == "acme"


def test_accelerators_of_two_vendors_have_to_be_chosen_from(directory):
    text = (directory / "acme" / "vendor.toml").read_text()
    write(directory.parent, "other", text.replace('name = "acme"', 'name = "other"'))
    with pytest.raises(ConfigurationError, match=r"devices of several vendors .*acme, other.*choose with --vendor"):
        vendors.detect([directory])


def test_a_chip_is_known_by_its_name_and_by_what_drivers_call_it(directory):
    acme = vendors.find("acme", [directory])
    assert [acme.chip(name)[0] for name in ("A1", "Acme A1 80GB")] == ["A1", "A1"]
    assert acme.chip("Acme B2") is None


@pytest.mark.parametrize(
    ("chosen", "visible"),
    [(None, (0, 1, 2)), ("", ()), ("1", (1,)), ("2,0", (2, 0)), ("1, 1,7", (1,)), ("-1", ())],
)
def test_devices_that_the_callers_environment_hides_are_not_used(directory, monkeypatch, chosen, visible):
    if chosen is not None:
        monkeypatch.setenv("ACME_VISIBLE_DEVICES", chosen)
    assert provision.visible(vendors.find("acme", [directory])) == visible


def test_cuda_visible_devices_is_honoured(monkeypatch, tmp_path):
    for number in range(4):
        (tmp_path / f"nvidia{number}").touch()
    (tmp_path / "nvidiactl").touch()
    text = (vendors.bundled() / "nvidia" / "vendor.toml").read_text().replace("/dev/", f"{tmp_path}/")
    nvidia = vendors.load(write(tmp_path, "nvidia", text))
    assert nvidia.count() == 4
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,1")
    assert provision.visible(nvidia) == (3, 1)


def test_devices_chosen_by_identifier_are_refused_with_an_example(directory, monkeypatch):
    monkeypatch.setenv("ACME_VISIBLE_DEVICES", "GPU-8932f937")
    with pytest.raises(DeviceUnavailable, match="chosen by number here, for example 0,1"):
        provision.visible(vendors.find("acme", [directory]))


@pytest.mark.parametrize(
    ("topology", "message"),
    [("1x4", "4 devices of acme are needed, 3 were found"), ("2x1", "needs 2 hosts; this version launches on one")],
)
def test_a_topology_that_this_host_has_not_is_refused(directory, topology, message):
    case = SimpleNamespace(
        label="toy convergence", recorded=None, selection=SimpleNamespace(topology=Topology.parse(topology))
    )
    with pytest.raises(DeviceUnavailable, match=message):
        provision.find_devices(SimpleNamespace(vendor=vendors.find("acme", [directory])), case)


def test_a_processor_is_one_device_however_many_ranks_share_it():
    cpu = vendors.find("cpu", [vendors.bundled()])
    case = SimpleNamespace(label="toy", recorded=None, selection=SimpleNamespace(topology=Topology(1, 4)))
    found = provision.find_devices(SimpleNamespace(vendor=cpu), case)
    assert (found.available, found.wanted) == ((0,), 1)
