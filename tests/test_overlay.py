"""What a vendor may change of a standard case, and what it may not."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_flagperf import ConfigurationError
from pytest_flagperf import InferenceCase
from pytest_flagperf import Scale
from pytest_flagperf import Topology
from pytest_flagperf import TrainingCase
from pytest_flagperf import at_least
from pytest_flagperf import overlay
from pytest_flagperf.case import Selection
from pytest_flagperf.devices.vendor import Chip
from pytest_flagperf.devices.vendor import Vendor


CASE = TrainingCase(
    model="toy",
    title="Toy",
    workloads={"pytorch": "toy:Toy", "paddle": "toy:Toy"},
    scales={
        "full": Scale(
            dataset="digits",
            targets=[at_least("top1", 0.9, source="a paper")],
            config={"batch_size": 256, "learning_rate": 0.1, "optimizer": "sgd", "nesterov": False},
            frameworks={"paddle": {"batch_size": 128}},
        ),
        "lite": Scale(dataset="digits", targets=[at_least("top1", 0.8, source="measured")], config={"batch_size": 8}),
    },
    tunable={"batch_size", "learning_rate", "nesterov"},
    config={"seed": 1},
)


ACME = Vendor(
    schema_version=1,
    name="acme",
    title="Acme",
    precisions=["fp32"],
    frameworks={},
    chips={"A1": Chip(source="datasheet", family="A")},
)
OPEN = "[[overlay]]\ndivision = 'open'\nframework = 'pytorch'\nworkload = 'own:Toy'"


@pytest.fixture
def read(tmp_path: Path):
    def read(text: str | bytes) -> overlay.Overlay:
        path = tmp_path / "toy.toml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        (tmp_path / "own.py").write_text("class Toy:\n    fast = True\n")
        return overlay.read(path, CASE, ACME)

    return read


def resolve(content=None, *, selection="pytorch-fp32-1x8-full", targets=None, chip=None, **places):
    vendor = places.get("vendor", Path("vendors/acme"))
    directory = places.get("directory", Path("suite"))
    framework, precision, topology, scale = selection.split("-")
    return overlay.resolve(
        CASE,
        Selection(framework, precision, Topology.parse(topology), scale),
        role="convergence",
        vendor="acme",
        overlay=None if content is None else (vendor / "toy.toml", content),
        targets=targets or {},
        directory=directory,
        chip=lambda: chip,
    )


def test_a_tunable_key_is_set_and_its_origin_and_the_standard_value_are_recorded(read):
    case = resolve(read("[[overlay]]\nconfig = { batch_size = 512 }"))
    assert case.config["batch_size"] == 512
    assert case.settings["batch_size"].origin == "vendors/acme/toy.toml"
    assert case.settings["learning_rate"].origin == "case toy, scale full"
    assert case.settings["seed"].origin == "case toy"
    assert case.deviations == ("batch_size = 512 (standard case: 256), from vendors/acme/toy.toml",)


def test_what_differs_for_a_framework_is_part_of_the_standard_case():
    case = resolve(selection="paddle-fp32-1x8-full")
    assert (case.config["batch_size"], case.settings["batch_size"].origin) == (128, "case toy, scale full, paddle")
    assert not case.deviations


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[[overlay]]\nconfig = { optimizer = 'adam' }", "overlay 1: optimizer is not tunable in toy; tunable: batch_"),
        ("[[overlay]]\nconfig = { top1 = 0.5 }", "overlay 1: top1 is a target of toy; a vendor cannot change a target"),
        (
            "[[overlay]]\nconfig = { batch_size = 1 }\n[[overlay]]\nconfig = { batch_size = '512' }",
            "overlay 2: batch_size = '512'",
        ),
        ("[[overlay]]\nconfig = { batch_size = 5.5 }", "batch_size = 5.5 is a float, the case has int"),
        ("[[overlay]]\nconfig = { batch_size = 0 }", "overlay 1: batch_size = 0 is not above zero, the case has 256"),
        ("[[overlay]]\nconfig = { learning_rate = -0.1 }", "learning_rate = -0.1 is not above zero"),
        ("[[overlay]]\nconfig = { batch_size = true }", "batch_size = True is a bool, the case has int"),
        ("[[overlay]]\nconfig = { nesterov = 1 }", "nesterov = 1 is a int, the case has bool"),
        ("[[overlay]]\nconfig = { learning_rate = [0.1] }", "learning_rate = "),
        ("[[overlays]]\nconfig = {}", "`overlays`"),
        ("targets = { top1 = 0.5 }", "`targets`"),
        ("[[overlay]]\nconfig = { batch_size = 1 }\nhardware = 'X'", "`hardware`"),
        ("[[overlay]]", "overlay 1 changes nothing: it has neither config nor workload"),
        ("[[overlay]\n", "toy.toml: "),
        (b"[[overlay]]\nconfig = { batch_size = 1 } # \xff", "toy.toml: "),
        (
            "[[overlay]]\nconfig = { batch_size = 1 }\nprecision = 'fp61'",
            "overlay 1: precision = 'fp61' selects nothing",
        ),
        (
            "[[overlay]]\nconfig = { batch_size = 1 }\nframework = 'tensorflow'",
            "overlay 1: framework = 'tensorflow' selects nothing",
        ),
        (
            "[[overlay]]\nconfig = { batch_size = 1 }\nscale = 'lit'",
            "overlay 1: scale = 'lit' selects nothing; toy has lite, full",
        ),
        (
            "[[overlay]]\nconfig = { batch_size = 1 }\nchip = 'B2'",
            "overlay 1: chip = 'B2' selects nothing; acme has A, A1",
        ),
        ("[[overlay]]\ndivision = 'open'", "overlay 1 changes nothing"),
        (
            "[[overlay]]\nworkload = 'own:Toy'\nframework = 'pytorch'",
            "overlay 1: code of one's own is the open division",
        ),
        (OPEN.replace("'pytorch'", "'tensorflow'"), "overlay 1: framework = 'tensorflow' selects nothing"),
        (OPEN.replace("framework = 'pytorch'", ""), "overlay 1: a workload is of one framework: set framework too"),
        (OPEN.replace("own:Toy", "own.py"), "overlay 1: workload = 'own.py' is not written module:Class"),
        (OPEN.replace("own:Toy", "../own:Toy"), "overlay 1: workload = '../own:Toy' is not written module:Class"),
        (OPEN.replace("own:Toy", "mine:Toy"), "overlay 1: workload: there is no "),
        ("[[overlay]]\nconfig = { batch_size = 1 }\ntopology = '8'", "overlay 1: malformed topology '8'"),
    ],
)
def test_an_overlay_that_breaks_the_rules_names_file_and_key(read, content, message):
    with pytest.raises(ConfigurationError) as caught:
        read(content)
    assert "toy.toml" in str(caught.value)
    assert message in str(caught.value)


def test_a_whole_number_is_taken_for_a_fraction(read):
    assert resolve(read("[[overlay]]\nconfig = { learning_rate = 1 }")).config["learning_rate"] == 1


def test_selectors_choose_what_an_overlay_is_for_and_a_later_one_wins(read):
    content = read(
        """
        [[overlay]]
        config = { batch_size = 1 }
        [[overlay]]
        precision = "amp"
        config = { batch_size = 2 }
        [[overlay]]
        topology = "2x8"
        config = { batch_size = 3 }
        [[overlay]]
        framework = "paddle"
        config = { batch_size = 4 }
        [[overlay]]
        scale = "lite"
        config = { batch_size = 5 }
        """
    )
    found = {
        selection: resolve(content, selection=selection).config["batch_size"]
        for selection in (
            "pytorch-fp32-1x8-full",
            "pytorch-amp-1x8-full",
            "pytorch-amp-2x8-full",
            "paddle-amp-2x8-full",
            "pytorch-fp32-1x1-lite",
        )
    }
    assert list(found.values()) == [1, 2, 3, 4, 5]


def test_an_overlay_of_inference_can_be_for_one_engine(tmp_path):
    case = InferenceCase(
        model="toy",
        title="Toy",
        workloads=CASE.workloads,
        scales=CASE.scales,
        engines=("eager", "onnxruntime"),
        tunable={"batch_size"},
    )
    path = tmp_path / "toy.toml"
    path.write_text("[[overlay]]\nengine = 'onnxruntime'\nconfig = { batch_size = 64 }")
    content = overlay.read(path, case)

    def batch_size(engine: str) -> int:
        return overlay.resolve(
            case,
            Selection("pytorch", "fp32", Topology(1, 1), "full", engine),
            role="throughput",
            vendor="acme",
            overlay=(path, content),
            targets={},
            directory=tmp_path,
        ).config["batch_size"]

    assert (batch_size("eager"), batch_size("onnxruntime")) == (256, 64)


def test_the_command_line_replaces_a_bound_and_says_so():
    case = resolve(targets={"top1": 0.5, "auc": 0.7})
    assert [(t.metric, t.bound, t.source) for t in case.targets] == [("top1", 0.5, "command line")]
    assert case.deviations == ("target top1 = 0.5 (standard case: 0.9), from the command line",)


def test_the_standard_bound_on_the_command_line_is_no_deviation():
    case = resolve(targets={"top1": 0.9})
    assert case.targets[0].source == "a paper"
    assert not case.deviations


def test_a_resolved_case_is_printed_by_its_id():
    assert repr(resolve()) == "toy-convergence-pytorch-fp32-1x8-full"
    assert resolve().label == "toy convergence [pytorch-fp32-1x8-full]"


@pytest.mark.parametrize("selector", ["A1", "A"])
def test_an_overlay_is_chosen_by_chip_or_family_and_not_where_the_chip_is_another_or_unknown(read, selector):
    content = read(f"[[overlay]]\nchip = '{selector}'\nconfig = {{ batch_size = 512 }}")
    mine = ("A1", ACME.chips["A1"])
    assert resolve(content, chip=mine).config["batch_size"] == 512
    assert resolve(content, chip=("B2", Chip(source="datasheet", family="B"))).config["batch_size"] == 256
    assert resolve(content, chip=None).config["batch_size"] == 256


def test_the_chip_is_asked_for_only_where_an_overlay_selects_by_it(read):
    def chip():
        raise AssertionError("nobody needs to know")

    content = read("[[overlay]]\nchip = 'A1'\ntopology = '2x8'\nconfig = { batch_size = 512 }")
    selection = Selection("pytorch", "fp32", Topology(1, 8), "full")
    overlay.resolve(
        CASE,
        selection,
        role="convergence",
        vendor="acme",
        overlay=(Path("toy.toml"), content),
        targets={},
        directory=Path("suite"),
        chip=chip,
    )


def test_code_of_the_vendors_own_is_the_open_division_and_its_diff_goes_with_it(read, tmp_path: Path):
    suite = tmp_path / "suite"
    suite.mkdir()
    (suite / "toy.py").write_text("class Toy:\n    fast = False\n")
    case = resolve(read(OPEN), directory=suite, vendor=tmp_path)
    assert (case.division, case.workload, case.workload_directory) == ("open", "own:Toy", tmp_path.resolve())
    assert "-    fast = False\n+    fast = True\n" in case.replaced.diff
    assert case.replaced.diff.startswith("--- toy/toy.py\n")
    assert case.deviations == (
        f"workload = 'own:Toy' (standard case: 'toy:Toy'), open division, from {tmp_path}/toy.toml",
    )


def test_the_diff_holds_what_the_vendors_code_imports_and_names_what_it_imports_from_elsewhere(read, tmp_path: Path):
    suite = tmp_path / "suite"
    suite.mkdir()
    (suite / "toy.py").write_text("class Toy:\n    pass\n")
    content = read(OPEN)
    (tmp_path / "own.py").write_text(
        "import json\nimport fast_kernels.v2\nfrom .helper import cheat\nfrom .toy import Toy\n"
    )
    (tmp_path / "helper.py").write_text("from . import deeper\n\ndef cheat():\n    return 0.99")
    (tmp_path / "deeper.py").write_text("from .own import Toy\nfrom .lost import x\n")
    (tmp_path / "unrelated.py").write_text("SECRET = 1\n")
    diff = resolve(content, directory=suite, vendor=tmp_path).replaced.diff
    assert "+    return 0.99\n" in diff
    assert "+from .lost import x\n" in diff
    assert "SECRET" not in diff
    assert diff.endswith("# It imports from outside this folder and the suite: .lost, fast_kernels\n")


def test_a_vendors_module_that_takes_the_place_of_one_of_the_suites_is_in_the_diff(read, tmp_path: Path):
    suite = tmp_path / "suite"
    suite.mkdir()
    (suite / "toy.py").write_text("from .scores import auc\n\nclass Toy:\n    pass\n")
    (suite / "scores.py").write_text("def auc():\n    return 0.7\n")
    content = read(OPEN)
    (tmp_path / "own.py").write_text("from .toy import Toy\n")
    (tmp_path / "scores.py").write_text("def auc():\n    return 0.99\n")
    diff = resolve(content, directory=suite, vendor=tmp_path).replaced.diff
    assert "--- toy/scores.py\n" in diff
    assert "-    return 0.7\n+    return 0.99\n" in diff


def test_an_overlay_for_a_chip_is_told_where_the_chip_is_not_known(read):
    content = read("[[overlay]]\nchip = 'A1'\nconfig = { batch_size = 512 }")
    assert "overlay 1 is for chip A1 and was not applied" in resolve(content, chip=None).notes[0]
    assert not resolve(content, chip=("A1", ACME.chips["A1"])).notes
    assert not resolve(content, chip=None, selection="pytorch-fp32-1x8-lite").notes


def test_another_framework_stays_in_the_closed_division(read, tmp_path: Path):
    case = resolve(read(OPEN), selection="paddle-fp32-1x8-full", vendor=tmp_path)
    assert (case.division, case.workload, case.replaced) == ("closed", "toy:Toy", None)
