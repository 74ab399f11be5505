"""What is wrong with a vendor's folder: each problem with file, line and code, and no problem where there is none."""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from pytest_flagperf import lint
from pytest_flagperf.cli import main
from pytest_flagperf.lint import cases
from pytest_flagperf.lint import positions
from tests.conftest import ROOT


VENDOR = """schema_version = 1
name = "acme"
title = "Acme"
precisions = ["fp32", "amp"]

[frameworks.pytorch]
device = "acme"

[[probe]]
command = ["acme-smi", "--json"]
output = "smi"

[output.smi]
parser = "smi.py:parse"

[chips.A1]
names = ["Acme A1 80GB"]
family = "A"
peak = { fp32 = 20, amp = 312 }
memory = 80
source = "https://acme.example/home/a1/datasheet.pdf"
"""

DATASHEET = 'source = "https://acme.example/home/a1/datasheet.pdf"'

PARSER = "from layouts import COLUMNS\n\n\ndef parse(text: str) -> list[object]:\n    return [COLUMNS]\n"

OVERLAY = """[[overlay]]
topology = "1x8"
config = { batch_size = 512 }

[[overlay]]
chip = "A"
config = { learning_rate = 0.2, epochs = 80 }
"""


@pytest.fixture
def acme(tmp_path: Path) -> Path:
    """A vendor's folder without a problem."""
    directory = tmp_path / "vendors" / "acme"
    (directory / "baselines").mkdir(parents=True)
    for name, text in {
        "vendor.toml": VENDOR,
        "smi.py": PARSER,
        "layouts.py": "COLUMNS = 5\n",
        "resnet50.toml": OVERLAY,
        "README.md": "# Acme\n\nNeeds no --privileged.\n",
        "baselines/A1.toml": "",
    }.items():
        (directory / name).write_text(text)
    return directory


def found(*paths: Path, suites: tuple[Path, ...] = ()) -> list[tuple[str, int, str]]:
    """The problems as file name, line and code."""
    return [(one.file.name, one.line, one.code) for one in lint.check(paths, suites).problems]


def test_the_bundled_vendors_and_suites_have_no_problem_but_warnings():
    assert [str(one) for one in lint.check().problems if not one.is_warning] == []


def test_a_folder_that_is_well_has_no_problem(acme):
    assert found(acme) == []
    assert found(acme.parent) == []


def test_a_vendors_own_repository_is_searched_for_its_folder(acme, tmp_path):
    (acme / "run.sh").write_text("ls\n")
    (tmp_path / "repository" / "src" / "package").mkdir(parents=True)
    acme.rename(tmp_path / "repository" / "src" / "package" / "acme")
    assert found(tmp_path / "repository") == [("run.sh", 1, "FP028")]


@pytest.mark.parametrize(
    ("old", "new", "line", "code"),
    [
        ('title = "Acme"', "title = 5", 3, "FP001"),
        ('title = "Acme"', "title = " + "[" * 5000, 1, "FP001"),
        ("[chips.A1]", "[chips.A1", 16, "FP001"),
        (DATASHEET, 'note = """', 21, "FP001"),
        ('parser = "smi.py:parse"', 'format = "csv"\ncolums = ["index"]', 15, "FP001"),
        ("[frameworks.pytorch]", "[frameworks.pytorhc]", 6, "FP001"),
        ('device = "acme"', "", 6, "FP001"),
        ('device = "acme"', 'device = "cpu"', 7, "FP001"),
        ('precisions = ["fp32", "amp"]', 'precisions = [\n  "fp32",  # the\n  "ampp",\n]', 6, "FP001"),
        ('output = "smi"', 'output = "smi"\n"timout" = 5', 12, "FP001"),
        ('output = "smi"', 'output = "smi"\n[[probe]]\nlibrary = "smi.py:parse"\ncommand = ["a"]', 13, "FP001"),
        ("amp = 312", 'amp = "312"', 19, "FP001"),
        (
            DATASHEET,
            f'{DATASHEET}\n[chips.A1.link]\nname = "x"\nbandwidth = 5\ndirection = "to"\nsource = "y z"',
            25,
            "FP001",
        ),
        ("peak = { fp32 = 20, amp = 312 }", "peak.amp = 312\npeak.fp33 = 20", 20, "FP001"),
        ("memory = 80", 'memory = 80\nunverified = [\n"memory",\n"tdp",\n]', 23, "FP001"),
        ("memory = 80", "memory = 80\ndies_per_card = 0", 21, "FP006"),
        ("smi.py:parse", "smi.py:pars", 14, "FP001"),
        ('name = "acme"', 'name = "acne"', 2, "FP001"),
        ("smi.py:parse", "gone.py:parse", 14, "FP001"),
        ("fp32 = 20", "fp32 = 0", 19, "FP006"),
        ("fp32 = 20", "fp32 = -1", 19, "FP006"),
        ("memory = 80", "memory = 0", 20, "FP006"),
        ("peak = { fp32 = 20, amp = 312 }\n", "", 16, "W001"),
        (DATASHEET, 'source = "TODO"', 21, "FP005"),
        (DATASHEET, "", 16, "FP005"),
    ],
)
def test_a_vendor_file_that_is_wrong_is_named_with_its_line(acme, old, new, line, code):
    assert old in VENDOR
    (acme / "vendor.toml").write_text(VENDOR.replace(old, new))
    assert found(acme) == [("vendor.toml", line, code)]


@pytest.mark.parametrize(
    ("layout", "line", "says"),
    [
        ("start = 'A'\ndevice = '('", 18, "layouts 1.device is not a regular expression"),
        ("start = 'A'\ndevice = '''\n(?P<vendor>x)'''", 18, "layouts 1.device: unknown 'vendor'; known: index"),
        ("device = '(?P<name>A)'", 16, "layouts 1.start is missing: what every device begins with"),
    ],
)
def test_a_layout_that_is_wrong_is_named_with_its_own_line(acme, layout, line, says):
    outer = 'format = "pattern"\n\n[[output.smi.layouts]]\n'
    (acme / "vendor.toml").write_text(VENDOR.replace('parser = "smi.py:parse"\n', f"{outer}{layout}\n"))
    # Nobody knows which modules are read where the vendor file does not load.
    (problem,) = lint.check([acme]).problems
    assert (problem.line, problem.code) == (line, "FP001")
    assert says in problem.message


def keys(value: object, above: positions.Key = ()) -> Iterator[positions.Key]:
    """Every key of a document, and every entry of its arrays."""
    inner = value.items() if isinstance(value, dict) else enumerate(value, 1) if isinstance(value, list) else ()
    for step, one in inner:
        yield (*above, step)
        yield from keys(one, (*above, step))


@pytest.mark.parametrize("path", sorted(ROOT.glob("vendors/*/vendor.toml")), ids=lambda path: path.parent.name)
def test_every_key_of_a_real_file_is_found_on_a_line_that_has_it(path):
    text = path.read_text()
    document = msgspec.toml.decode(text)
    found = positions.Positions(text, document)
    wanted = list(keys(document))
    assert set(found.lines) == {(), *wanted}
    lines = text.split("\n")
    assert [key for key in wanted if isinstance(key[-1], str) and key[-1] not in lines[found.line(key) - 1]] == []


def test_a_key_with_dots_and_quotes_is_found():
    text = "a.\"b.c\" = [{ x = 1 },\n  { \"y z\" = '''\nq = 5\n''' }]\n# a = 5\n[[t]]\n[[t.u]]\n[[t]]\n[[t.u]]\nv = 2\n"
    found = positions.Positions(text, msgspec.toml.decode(text))
    assert found.line(("a", "b.c", 1, "x")) == 1
    assert found.line(("a", "b.c", 2, "y z")) == 2
    assert found.line(("t", 2, "u", 1, "v")) == 10
    assert found.line(("t", 2, "gone", "more")) == 8
    assert found.named("a.b.c 2: unknown 'y z'") == 2
    assert found.named("t 1.u is wrong") == 7
    assert found.named("Expected `int`, got `str` - at `$.a[...][1].more`") == 1
    assert found.named("Object missing required field `x`") == 1


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("batch_size = 512", "momentum = 0.8", [(3, "FP002")]),
        ("batch_size = 512", 'batch_size = "512"', [(3, "FP002")]),
        ("batch_size = 512", "batch_size = 512, top1 = 0.7", [(3, "FP003")]),
        ("batch_size = 512", "target_acc1 = 70", [(3, "FP003")]),
        ("epochs = 80", "momentum = 0.8, width = 5", [(7, "FP002"), (7, "FP002")]),
        ('chip = "A"', 'chip = "B"', [(6, "FP002")]),
        ('chip = "A"', 'chip = "A"\nscale = 5', [(7, "FP002")]),
        ('chip = "A"', 'division = "opn"', [(6, "FP002")]),
        ('topology = "1x8"', 'topology = "1x"', [(2, "FP002")]),
        ('topology = "1x8"', 'topologie = "1x8"', [(2, "FP002")]),
        ('topology = "1x8"', "targets = { top1 = 0.5 }", [(2, "FP003")]),
        ("[[overlay]]\ntopology", "[targets]\ntop1 = 0.5\n[[overlay]]\ntopology", [(1, "FP003")]),
        ("[[overlay]]\ntopology", "[[overlays]]\ntopology", [(1, "FP002")]),
        ("config = { batch_size = 512 }", "", [(1, "FP002")]),
        ("config = { batch_size = 512 }", "[overlay.config]\nepochs = 5\ntop1 = 0.5", [(5, "FP003")]),
        ("config = { batch_size = 512 }", "config = {", [(3, "FP002")]),
        ("config = { batch_size = 512 }", "config = { batch_size = " + "[" * 5000, [(1, "FP002")]),
        ("epochs = 80", "epochs = 0", [(7, "FP002")]),
        ("learning_rate = 0.2", "learning_rate = -0.1", [(7, "FP002")]),
    ],
)
def test_an_overlay_that_breaks_the_rules_names_each_key(acme, old, new, expected):
    assert old in OVERLAY
    (acme / "resnet50.toml").write_text(OVERLAY.replace(old, new, 1))
    problems = [(line, code) for name, line, code in found(acme) if name == "resnet50.toml"]
    assert problems == expected


def test_an_overlay_of_a_model_that_no_suite_has_is_named_and_a_suite_can_be_given(acme, tmp_path):
    (acme / "resnet50.toml").rename(acme / "mine.toml")
    assert found(acme) == [("mine.toml", 1, "FP004")]
    assert found(acme, suites=(suite(tmp_path),)) == []


INFERENCE = """[[overlay]]
engine = "onnxruntime"
scale = "lite"
config = { batch_size = 100 }
"""


@pytest.fixture
def answering(acme: Path) -> Path:
    """The same vendor's overlay of a case of inference."""
    (acme / "inference").mkdir()
    path = acme / "inference" / "resnet50.toml"
    path.write_text(INFERENCE)
    return path


def test_an_overlay_of_inference_is_checked_against_the_case_of_inference(acme, answering):
    assert found(acme) == []
    # What training may tune inference may not.
    answering.write_text(INFERENCE.replace("batch_size = 100", "learning_rate = 0.2, top1 = 0.5"))
    assert found(acme) == [("resnet50.toml", 4, "FP002"), ("resnet50.toml", 4, "FP003")]
    answering.rename(answering.with_name("wide_deep.toml"))
    assert found(acme) == [("wide_deep.toml", 1, "FP004")]


def test_an_engine_that_the_case_does_not_have_is_named_with_its_line(acme, answering):
    answering.write_text(INFERENCE.replace("onnxruntime", "onnxruntim"))
    (problem,) = lint.check([acme]).problems
    assert (problem.file, problem.line, problem.code) == (answering, 2, "FP002")
    assert "engine = 'onnxruntim' selects nothing; resnet50 has eager, inductor, " in problem.message
    # A training has no engine.
    answering.unlink()
    (acme / "resnet50.toml").write_text('[[overlay]]\nengine = "eager"\nconfig = { batch_size = 8 }\n')
    (problem,) = lint.check([acme]).problems
    assert problem.message == "engine = 'eager' selects nothing; resnet50 has none"


def test_the_folder_of_inference_alone_can_be_asked_about_and_its_modules_are_read(acme, answering):
    (acme / "run.sh").write_text("ls\n")
    (answering.parent / "fused.py").write_text("class ResNet50: ...\n")
    wanted = [("fused.py", 1, "FP029")]
    assert found(answering.parent) == wanted
    assert found(acme) == [*wanted, ("run.sh", 1, "FP028")]
    answering.write_text(INFERENCE + OPEN.format("fused:ResNet50"))
    assert found(answering.parent) == []
    assert found(answering) == []


def test_overlays_of_inference_alone_are_those_of_a_known_vendor(tmp_path):
    path = tmp_path / "cpu" / "inference" / "resnet50.toml"
    path.parent.mkdir(parents=True)
    path.write_text(INFERENCE)
    assert found(tmp_path) == []
    path.write_text(INFERENCE.replace("[[overlay]]", "[[overlay]]\nchip = 'A1'"))
    assert found(tmp_path) == [("resnet50.toml", 2, "FP002")]


def suite(directory: Path, targets: str = "[at_least('top1', 0.7, source='x')]") -> Path:
    (directory / "own").mkdir(exist_ok=True)
    config = "{'batch_size': 8, 'learning_rate': 0.1, 'epochs': 2}"
    (directory / "own" / "test_mine.py").write_text(
        "from pytest_flagperf import Scale, TrainingCase, at_least, at_most\n"
        "CASE = TrainingCase(model='mine', title='Mine', workloads={'pytorch': 'a:B'},\n"
        f"    tunable={{'batch_size', 'learning_rate', 'epochs'}},\n"
        f"    scales={{'full': Scale(dataset='digits', config={config},\n"
        f"        targets={targets})}})\n"
    )
    return directory / "own"


@pytest.mark.parametrize(
    ("targets", "code"),
    [
        ("[at_least('top1', 1.0, source='x')]", "FP011"),
        ("[at_least('top1', 0, source='x')]", "FP011"),
        ("[at_least('top1', 75.9, source='x')]", "FP011"),
        ("[at_most('perplexity', 0.6, source='x')]", "FP011"),
        ("[at_least('bleu', 100, source='x')]", "FP011"),
        ("[at_least('wer', 0.05, source='x')]", "FP011"),
        ("[at_most('e2e_time', -1, source='x')]", "FP011"),
        ("[at_least('top1', 0.7, source=' ')]", "FP012"),
        ("undefined", "FP010"),
    ],
)
def test_a_target_that_decides_nothing_is_a_problem_of_the_suite(acme, tmp_path, targets, code):
    problems = found(acme, suites=(suite(tmp_path, targets),))
    assert [(name, its) for name, _, its in problems] == [("test_mine.py", code)]


def test_a_negative_loss_and_a_perplexity_above_one_can_be_targets():
    assert cases.impossible("evaluation_loss", -5.72, "at most") == ""
    assert cases.impossible("perplexity", 55, "at most") == ""
    assert cases.impossible("wer", 0.058, "at most") == ""


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ('x = "/home/someone/data"', "FP020"),
        ("DATA = '/mnt/imagenet/train'", "FP020"),
        ('x = ["--volume", "/raid/dataset:/data1/dataset"]', "FP020"),
        ('x = "10.1.0.34"', "FP021"),
        ('x = "192.168.1.2:22"', "FP021"),
        ('x = "http://8.8.4.4/x"', "FP021"),
        ('x = "https://packages.acme.internal/simple"', "FP022"),
        ('image_of = "registry.acme-int.com/team/x"', "FP022"),
        ('x = "harbor.acme.example:30000/team/x"', "FP022"),
        ('https_proxy = "http://proxy.acme.example:7890"', "FP023"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----", "FP024"),
        ('password = "123456"', "FP024"),
        ('ROOT_PASSWORD: "hunter2"', "FP024"),
        ('api_key="abcd1234"', "FP024"),
        ("x = 'ghp_" + "a1" * 18 + "'", "FP024"),
        ("echo 'root:123456' | chpasswd", "FP024"),
        ('x = "https://me:hunter2@acme.example/x"', "FP024"),
        ('image = "acme/pytorch"', "FP025"),
        ('image = "acme/pytorch:latest"', "FP025"),
        ('image = "acme/pytorch:24.01"', "FP025"),
        ('options = ["--privileged"]', "FP026"),
        ('options = ["--privileged=true"]', "FP026"),
        ('options = ["--net=host"]', "FP027"),
        ('options = ["--network", "host"]', "FP027"),
        ('options = ["--ipc=host"]', "FP027"),
    ],
)
def test_what_belongs_to_one_site_is_found_wherever_it_stands(acme, line, code):
    (acme / "extra.yaml").write_text(f"a: 1\n{line}\n")
    problems = [(number, its) for name, number, its in found(acme) if name == "extra.yaml" and its != "FP029"]
    assert set(problems) == {(2, code)}


@pytest.mark.parametrize(
    "line",
    [
        'source = "https://acme.example/home/team/datasheet"',
        'source = "github:acme/drivers docs/10.1.0.34/notes"',
        'x = "/dev/acme0"',
        'x = "/usr/local/acme/lib"',
        'x = "/opt/acme/bin/smi"',
        'x = "/lib/modules"',
        'x = "127.0.0.1:29500"',
        'driver = "driver 10.1.0.34"',
        'x = "version 2.18.0.8"',
        "max_tokens = 512",
        "token = 512",
        'tokenizer = "llama"',
        'password = "${ACME_PASSWORD}"',
        'image = "acme/pytorch@sha256:' + "0a" * 32 + '"',
        'options = ["--privileged=false"]',
        'options = ["--net=none"]',
        "# /home/someone and --privileged in a comment",
        'x = "acme.example:443"',
        'x = "https://acme.example:8443/x"',
    ],
)
def test_what_is_no_problem_is_left_alone(acme, line):
    (acme / "resnet50.toml").write_text(OVERLAY + f"\n[notes]\n{line}\n")
    assert [problem for problem in found(acme) if problem[1] > 0 and problem[2] not in ("FP002",)] == []


@pytest.mark.parametrize("part", ["a_", "a.", 'token="', "/home/", "http://", "=a.b"])
def test_a_hostile_line_is_read_in_time(acme, part):
    (acme / "resnet50.toml").write_text("# " + part * 50_000)
    begin = time.monotonic()
    lint.check([acme])
    # A pattern that backtracks would take hours.
    assert time.monotonic() - begin < 60


def test_a_secret_is_not_repeated_in_the_message(acme):
    (acme / "smi.py").write_text(PARSER + 'PASSWORD = "hunter2"\nURL = "https://me:hunter2@acme.example"\n')
    problems = lint.check([acme]).problems
    assert [one.code for one in problems] == ["FP024", "FP024"]
    assert "hunter2" not in "".join(map(str, problems))


@pytest.mark.parametrize(
    ("name", "text", "code"),
    [
        ("run.sh", "ls\n", "FP028"),
        ("run", "#!/usr/bin/env bash\nls\n", "FP028"),
        ("smi.py", PARSER + "import os\nos.system('ls')\n", "FP028"),
        ("smi.py", PARSER + "import subprocess\nsubprocess.run('ls', shell=True)\n", "FP028"),
        ("forgotten.py", "A = 1\n", "FP029"),
        ("notes.yaml", "a: 1\n", "FP029"),
        ("data.bin", "\udcff\udcfe", "FP029"),
    ],
)
def test_scripts_and_files_that_nobody_reads_are_named(acme, name, text, code):
    (acme / name).write_bytes(text.encode(errors="surrogateescape"))
    assert [(file, its) for file, _, its in found(acme)] == [(name, code)]


def test_a_workload_of_the_open_division_is_read(acme):
    entry = '\n[[overlay]]\ndivision = "open"\nframework = "pytorch"\nworkload = "fused:ResNet50"\n'
    (acme / "fused.py").write_text("class ResNet50: ...\n")
    assert found(acme) == [("fused.py", 1, "FP029")]
    (acme / "resnet50.toml").write_text(OVERLAY + entry)
    assert found(acme) == []


OPEN = '[[overlay]]\ndivision = "open"\nframework = "pytorch"\nworkload = "{}"\n'


@pytest.mark.parametrize(
    ("workload", "says"),
    [
        ("fusd:ResNet50", "workload: there is no {}/fusd.py"),
        ("fused:ResNet18", "workload = 'fused:ResNet18': fused.py has no ResNet18; it has nn, ResNet50"),
    ],
)
def test_a_workload_that_is_not_there_is_named_with_the_real_path(acme, workload, says):
    (acme / "fused.py").write_text("import nn\n\nclass ResNet50: ...\n")
    (acme / "resnet50.toml").write_text(OPEN.format(workload))
    problems = [one for one in lint.check([acme]).problems if one.code != "FP029"]
    assert [(one.line, one.code, one.message) for one in problems] == [(4, "FP002", says.format(acme))]


@pytest.mark.parametrize(
    "module",
    [
        "from standard import ResNet50\n",
        "import standard as ResNet50\n",
        "from standard import *\n",
        "def __getattr__(name): ...\n",
        "try:\n    import x\nexcept ImportError:\n    class ResNet50: ...\n",
        "if x:\n    pass\nelse:\n    ResNet50, other = make()\n",
        "match x:\n    case 1:\n        ResNet50: type = make()\n",
    ],
)
def test_a_name_that_a_module_may_have_is_no_problem(acme, module):
    # Nothing is imported: there is no module standard.
    (acme / "fused.py").write_text(module)
    (acme / "resnet50.toml").write_text(OPEN.format("fused:ResNet50"))
    assert found(acme) == []


def test_a_name_inside_a_function_is_not_the_modules(acme):
    (acme / "smi.py").write_text("def outer():\n    def parse(): ...\n\nclass Other:\n    parse = 5\n")
    (acme / "layouts.py").unlink()
    assert found(acme) == [("vendor.toml", 14, "FP001")]


def test_a_library_that_is_not_in_its_file_is_named(acme):
    library = VENDOR.replace('command = ["acme-smi", "--json"]\noutput = "smi"', 'library = "layouts.py:Driver"')
    (acme / "vendor.toml").write_text(library)
    (problem,) = lint.check([acme]).problems
    assert (problem.line, problem.message) == (
        10,
        "library = 'layouts.py:Driver': layouts.py has no Driver; it has COLUMNS",
    )


def test_an_alias_that_means_another_vendor_is_a_problem(acme):
    aliases = 'aliases = [\n  "acme-chips",\n  "cuda",\n  "nvidia",\n]\n'
    (acme / "vendor.toml").write_text(aliases + VENDOR)
    problems = lint.check([acme]).problems
    assert [(one.line, one.code) for one in problems] == [(3, "FP007"), (4, "FP007")]
    assert [one.message for one in problems] == [
        "the alias 'cuda' is an alias of nvidia too",
        "the alias 'nvidia' is the name of a vendor",
    ]


def test_two_vendors_of_one_set_must_not_share_an_alias_and_a_name_counts_too(acme):
    other = acme.parent / "roadrunner"
    other.mkdir()
    for name in ("smi.py", "layouts.py"):
        shutil.copy(acme / name, other)
    text = VENDOR.replace('name = "acme"', 'name = "roadrunner"\naliases = ["acme"]')
    (other / "vendor.toml").write_text(text)
    assert [(p.file.parent.name, p.line, p.code) for p in lint.check([acme, other]).problems] == [
        ("acme", 2, "FP007"),
        ("roadrunner", 3, "FP007"),
    ]
    assert found(other) == []


def test_ones_own_copy_of_a_bundled_vendor_keeps_its_aliases(tmp_path):
    shutil.copytree(ROOT / "vendors" / "nvidia", tmp_path / "nvidia", ignore=shutil.ignore_patterns("__pycache__"))
    assert [problem for problem in found(tmp_path / "nvidia") if problem[2] == "FP007"] == []


def test_overlays_alone_are_checked_as_those_of_a_known_vendor(tmp_path):
    directory = tmp_path / "nvidia"
    directory.mkdir()
    (directory / "resnet50.toml").write_text("[[overlay]]\nconfig = { top1 = 0.5 }\n")
    assert found(directory) == [("resnet50.toml", 2, "FP003")]


FLAGPERF = "training/acme/llama3_8B-megatron/config/config_A1x1x8.py"


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        (FLAGPERF, "theoryflops = -1\n", (1, "FP030")),
        (FLAGPERF, "theoryflops = 1.0\n", (1, "FP030")),
        (FLAGPERF, "seq = 8192\ntarget_ppl = 0.6\n", (2, "FP031")),
        (FLAGPERF, "data_dir = '/home/someone/data'\n", (1, "FP020")),
        (FLAGPERF, "x = (\n", (1, "FP036")),
        ("training/acme/llama3_8B-megatron/config/config_A1x1x8py", "", (0, "FP033")),
        ("training/acme/docker_image/pytorch_2.0/pytorch_install.sh", "", (0, "FP033")),
        ("training/acme/docker_image/pytorch_2.0/Dockerfile", "FROM acme/base:latest\n", (1, "FP025")),
        ("training/acme/docker_image/pytorch_2.0/Dockerfile", "FROM a@sha256:" + "0" * 64 + " AS b\nFROM b\n", None),
        ("training/acme/llama3_8B-megatron/README.md", "see https://acme.example/home/x\n", None),
        (FLAGPERF, "theoryflops = 312e12\ntarget_ppl = 12.5\n", None),
    ],
)
def test_flagperfs_vendor_directories_are_checked_where_it_makes_sense(tmp_path, name, text, expected):
    for path, content in ((FLAGPERF, "seq = 8192\n"), (name, text)):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(content)
    wanted = [(Path(name).name, *expected)] if expected else []
    assert found(tmp_path / "training" / "acme") == wanted


def test_a_case_of_flagperfs_is_compared_with_its_benchmark(tmp_path):
    for name, text in {
        "benchmarks/resnet50/pytorch/config/_base.py": "target_acc1: float = 75.5\n",
        "benchmarks/WaveGlow/pytorch/config/_base.py": "",
        "run_benchmarks/config/test_conf.py": "VENDOR = 'acme'\nCASES = {}\n",
        "acme/resnet50-pytorch/config/config_A1x1x8.py": "target_acc1 = 70\n",
        "acme/Waveglow-pytorch/config/config_A1x1x8.py": "",
        "acme/Waveglow-pytorch/extern/a.py": "",
        "acme/llama2_7b-deepspeed/config/config_A1x1x8.py": "",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    problems = {(one.file.name, one.code, one.message) for one in lint.check([tmp_path]).problems}
    assert ("config_A1x1x8.py", "FP032", "target_acc1 = 70 is easier to meet than the standard case's 75.5") in problems
    assert ("Waveglow-pytorch", "FP034", "there is no benchmark Waveglow; benchmarks/ has WaveGlow") in problems
    assert ("llama2_7b-deepspeed", "FP034", "there is no benchmark llama2_7b") in problems
    missing = {(file, code) for file, code, _ in problems if code == "FP035"}
    assert missing == {("resnet50-pytorch", "FP035"), ("llama2_7b-deepspeed", "FP035")}


def test_the_command_prints_a_line_for_each_problem_and_exits_1(acme, capsys):
    assert main(["lint", str(acme)]) == 0
    assert capsys.readouterr() == ("", "1 vendor, 0 problems\n")
    (acme / "run.sh").write_text("ls\n")
    assert main(["lint", str(acme)]) == 1
    printed = capsys.readouterr()
    assert re.fullmatch(rf"{re.escape(str(acme))}/run\.sh:1: FP028 is a shell script.*\n", printed.out)
    assert printed.err == "1 vendor, 1 problem\n"
    assert main(["lint", "--json", str(acme)]) == 1
    printed = capsys.readouterr()
    assert printed.err == ""
    (row,) = json.loads(printed.out)
    assert (row["line"], row["code"]) == (1, "FP028")


def test_a_warning_leaves_the_exit_code_alone(acme, capsys):
    (acme / "vendor.toml").write_text(VENDOR.replace("peak = { fp32 = 20, amp = 312 }\n", ""))
    assert main(["lint", str(acme)]) == 0
    printed = capsys.readouterr()
    assert ": W001 A1 has no peak" in printed.out
    assert printed.err == "1 vendor, 0 problems, 1 warning\n"


def test_one_file_of_a_folder_can_be_asked_about(acme):
    (acme / "run.sh").write_text("ls\n")
    assert found(acme / "vendor.toml") == []
    assert found(acme / "run.sh") == [("run.sh", 1, "FP028")]


@pytest.mark.parametrize("arguments", [["nowhere"], ["."], ["--suites", "nowhere"]])
def test_bad_usage_is_exit_code_2(arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="2"):
        main(["lint", *arguments])


def test_every_code_that_is_used_is_explained():
    package = Path(lint.__file__).parent
    used = {code for path in package.glob("*.py") for code in re.findall(r'"((?:FP|W)\d{3})"', path.read_text())}
    assert used == set(lint.CODES)
    page = (ROOT / "docs" / "how-to" / "check-a-vendor-folder.md").read_text()
    assert re.findall(r"^\| ((?:FP|W)\d{3}) \|", page, re.MULTILINE) == sorted(
        lint.CODES, key=lambda code: (code >= "FP030" and code[0] == "F", code)
    )
