"""Vendor files: read against a schema, found by name, and the devices they tell of."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from pytest_flagperf import ConfigurationError
from pytest_flagperf import DeviceUnavailable
from pytest_flagperf import Topology
from pytest_flagperf import provision
from pytest_flagperf.devices import schema
from pytest_flagperf.devices import vendor as vendors
from pytest_flagperf.devices.reading import Reading


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
    assert {"amd", "cpu", "dcu", "nvidia"} <= set(found)
    assert all(chip.source for vendor in found.values() for chip in vendor.chips.values())


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('title = "Acme"', "title = 5", "Expected `str`, got `int` - at `$.title`"),
        ('title = "Acme"', "", "missing required field `title`"),
        ("aliases", "alias", "unknown field `alias`"),
        ("[detection]", "[detect]", "unknown field `detect`"),
        ("device_nodes", "nodes", "detection: Object contains unknown field `nodes`; known: device_nodes, pci_vendors"),
        ('source = "datasheet"', "", "missing required field `source`"),
        (
            'source = "datasheet"',
            'source = "x"\nmemory = "80 GB"',
            "chips.A1: Expected `float | null`, got `str` - at `$.memory`",
        ),
        (
            'device = "acme"',
            'device = "cpu"',
            "frameworks.pytorch.device is 'cpu': the workload would run on the host's",
        ),
        (
            "[chips.A1]",
            "[chips.A1]\nmemroy = 80",
            "chips.A1: Object contains unknown field `memroy`; known: source, names",
        ),
        ("precisions", 'environment = { PYTHONPATH = "/x" }\nprecisions', "environment.PYTHONPATH: a vendor file sets"),
        ("precisions", 'environment = { LD_PRELOAD = "x" }\nprecisions', "environment.LD_PRELOAD: a vendor file sets"),
        ("precisions", 'environment = { A_TF32 = "1" }\nprecisions', "A_TF32 = '1' would make fp32 another precision"),
        ("bf16 = 312", "bf16 = -1", "chips.A1.peak.bf16 is -1: it is above zero"),
        ("bf16 = 312", "bf16 = 0", "chips.A1.peak.bf16 is 0: it is above zero"),
        ("bf16 = 312", "bf16 = nan", "chips.A1.peak.bf16 is nan"),
        ("bf16 = 312", "bf61 = 312", "chips.A1.peak: unknown 'bf61'; known: fp64, fp32"),
        ("bf16 = 312 }", "bf16 = 312 }\nmatrix = { fp64 = 0 }", "chips.A1.matrix.fp64 is 0: it is above zero"),
        ("bf16 = 312 }", "bf16 = 312 }\nmatrix = { fp46 = 1 }", "chips.A1.matrix: unknown 'fp46'; known: fp64, fp32"),
        (
            "bf16 = 312 }",
            'bf16 = 312 }\nunverified = ["matrix.fp64"]',
            "chips.A1.unverified: matrix.fp64 is no figure given for this chip",
        ),
        (
            "[frameworks.pytorch]",
            '[container]\noptions = { docker = ["--pid=host"] }\n[frameworks.pytorch]',
            "container.options.docker: --pid=host is refused: the container would see and end the host's processes",
        ),
        ("[frameworks.pytorch]", '[container]\nmounts = ["/"]\n[frameworks.pytorch]', "container.mounts: / is refused"),
        (
            "[frameworks.pytorch]",
            '[[probe]]\ncommand = ["a"]\noutput = "a"\nidentity = ["b"]\nidentity_output = "b"\n'
            '[output.a]\nformat = "csv"\n[frameworks.pytorch]',
            "probe 1.identity_output: there is no [output.b]; there is a",
        ),
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
    with pytest.raises(
        ConfigurationError, match=r"unknown vendor 'coyote'\. Known: acme \(roadrunner\), .*cpu \(host\), .*nvidia"
    ):
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


MATRIX = """
peak = { fp64 = 9.7, fp32 = 19.5, tf32 = 156 }
matrix = { fp64 = 19.5, fp32 = 39 }
unverified = ["matrix.fp32", "peak.tf32"]
"""


def test_a_figure_may_reach_the_peak_of_the_matrix_units_and_nothing_unverified_decides(tmp_path):
    chip = vendors.load(write(tmp_path, "acme", ACME.replace("peak = { bf16 = 312 }", MATRIX))).chips["A1"]
    assert chip.ceiling("fp64") == 19.5, "frameworks use the matrix units where there are some"
    assert chip.ceiling("fp32") == 19.5
    assert chip.ceiling("tf32") is None and chip.ceiling("bf16") is None


@pytest.mark.parametrize(
    ("vendor", "chip", "ceilings"),
    [
        ("amd", "MI250", {"fp64": 45.25, "fp32": 45.25}),
        ("amd", "MI300X", {"fp64": 163.4, "fp32": 163.4}),
        ("amd", "MI325X", {"fp64": None}),
        ("nvidia", "A100-80GB", {"fp64": 19.5, "fp32": 19.5}),
        ("nvidia", "H100", {"fp64": 66.9}),
        ("nvidia", "H200", {"fp64": 67, "fp32": None, "tf32": None, "int8": None, "bf16": 989}),
        ("cambricon", "MLU370-X8", {"fp16": None}),
        ("iluvatar", "BI-V150", {"fp16": None}),
    ],
)
def test_the_peak_that_decides_is_of_one_device_verified_and_of_its_fastest_units(vendor, chip, ceilings):
    found = vendors.find(vendor, [vendors.bundled()]).chips[chip]
    assert {precision: found.ceiling(precision) for precision in ceilings} == ceilings


@pytest.mark.parametrize(
    ("vendor", "chips"), [("iluvatar", ["BI-V100", "BI-V150"]), ("ascend", ["910A", "910B4", "910C"])]
)
def test_where_power_is_told_for_a_card_the_chips_say_how_many_devices_that_is(vendor, chips):
    found = vendors.find(vendor, [vendors.bundled()])
    assert found.power_scope == "card"
    expected = {"BI-V100": 1, "BI-V150": 2, "910A": 1, "910B4": 1, "910C": 2}
    assert {name: found.chips[name].dies_per_card for name in chips} == {name: expected[name] for name in chips}
    # One name for cards of one device and of two.
    assert "310P3" not in found.chips or found.chips["310P3"].dies_per_card is None


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
    file = tmp_path / "vendors" / "nvidia" / "vendor.toml"
    shutil.copytree(vendors.bundled() / "nvidia", file.parent)
    file.write_text(file.read_text().replace("/dev/", f"{tmp_path}/"))
    nvidia = vendors.load(file)
    assert nvidia.count() == 4
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,1")
    assert provision.visible(nvidia) == (3, 1)


def test_devices_chosen_by_identifier_are_refused_with_an_example(directory, monkeypatch):
    monkeypatch.setenv("ACME_VISIBLE_DEVICES", "GPU-8932f937")
    with pytest.raises(DeviceUnavailable, match="chosen by number here, for example 0,1"):
        provision.visible(vendors.find("acme", [directory]))


@pytest.mark.parametrize(
    ("topology", "message"),
    [("1x4", "4 devices are needed of acme, 3 were found"), ("2x1", "needs 2 hosts; this version launches on one")],
)
def test_a_topology_that_this_host_has_not_is_refused(directory, topology, message):
    case = SimpleNamespace(
        label="toy convergence", recorded=None, selection=SimpleNamespace(topology=Topology.parse(topology))
    )
    session = SimpleNamespace(vendor=vendors.find("acme", [directory]), readings=[Reading(index) for index in range(3)])
    with pytest.raises(DeviceUnavailable, match=message):
        provision.find_devices(session, case)


def test_a_host_without_a_device_says_what_was_looked_for(tmp_path):
    text = ACME.replace("@", str(tmp_path)) + '[[probe]]\ncommand = ["acme-smi"]\noutput = "csv"\n'
    write(tmp_path, "acme", text + '[output.csv]\nformat = "csv"\nfields = { index = "index" }\n')
    session = SimpleNamespace(vendor=vendors.find("acme", [tmp_path / "vendors"]), readings=[])
    case = SimpleNamespace(label="toy", recorded=None, selection=SimpleNamespace(topology=Topology(1, 1)))
    with pytest.raises(DeviceUnavailable, match=r"no device of acme .*acme-smi is not in PATH; no device node .*/acme"):
        provision.find_devices(session, case)


def test_a_processor_is_one_device_however_many_ranks_share_it():
    cpu = vendors.find("cpu", [vendors.bundled()])
    case = SimpleNamespace(label="toy", recorded=None, selection=SimpleNamespace(topology=Topology(1, 4)))
    found = provision.find_devices(SimpleNamespace(vendor=cpu, readings=[Reading(0)]), case)
    assert (found.available, found.wanted) == ((0,), 1)


@pytest.mark.parametrize(
    ("vendor", "kind", "found"),
    [
        ("0x1d94", "0x0b4000", True),
        ("0x1D94", "0x030000", True),
        ("0x1d94", "0x060400", False),
        ("0x15b3", "0x0b40", False),
    ],
)
def test_only_an_accelerator_of_the_vendor_is_proof_on_pci_and_no_bridge_of_its_processors(
    tmp_path, vendor, kind, found
):
    device = tmp_path / "0000:01:00.0"
    device.mkdir()
    (device / "vendor").write_text(f"{vendor}\n")
    (device / "class").write_text(f"{kind}\n")
    assert schema._on_pci(["0x1d94"], tmp_path) is found
    assert schema._on_pci(["0x1d94"], tmp_path / "absent"), "where nobody can say, it may be"


def test_an_alias_of_two_vendors_is_nobodys(tmp_path):
    write(tmp_path, "acme", ACME)
    write(tmp_path, "acne", ACME.replace('name = "acme"', 'name = "acne"'))
    with pytest.raises(ConfigurationError, match=r"'roadrunner' is an alias in .*acme.vendor.toml, .*acne.vendor.toml"):
        vendors.find("roadrunner", [tmp_path / "vendors"])


def test_a_vendor_that_somebody_installed_and_that_shares_the_processor_is_not_chosen_by_itself(tmp_path):
    shared = ACME.replace("[detection]", "shared = true\n[detection]")
    write(tmp_path, "acme", shared.replace('device_nodes = ["@/acme[0-9]*"]', ""))
    assert vendors.detect([tmp_path / "vendors", vendors.bundled()]).name == "cpu"
