"""What is wrong with a vendor's folder: each problem with file, line and code, and no problem where there is none."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pytest

from pytest_flagperf import lint
from pytest_flagperf.cli import main
from pytest_flagperf.lint import cases
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
    return [(one.file.name, one.line, one.code) for one in lint.check(paths, suites)]


def test_the_bundled_vendors_and_suites_have_no_problem_but_warnings():
    assert [str(one) for one in lint.check() if not one.is_warning] == []


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
        ('name = "acme"', 'name = "acne"', 2, "FP001"),
        ("smi.py:parse", "gone.py:parse", 14, "FP001"),
        ("fp32 = 20", "fp32 = 0", 19, "FP006"),
        ("fp32 = 20", "fp32 = -1", 19, "FP006"),
        ("memory = 80", "memory = 0", 20, "FP006"),
        ("peak = { fp32 = 20, amp = 312 }\n", "", 16, "W001"),
        ('source = "https://acme.example/home/a1/datasheet.pdf"', 'source = "TODO"', 21, "FP005"),
        ('source = "https://acme.example/home/a1/datasheet.pdf"', "", 16, "FP005"),
    ],
)
def test_a_vendor_file_that_is_wrong_is_named_with_its_line(acme, old, new, line, code):
    assert old in VENDOR
    (acme / "vendor.toml").write_text(VENDOR.replace(old, new))
    assert found(acme) == [("vendor.toml", line, code)]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("batch_size = 512", "momentum = 0.8", [(3, "FP002")]),
        ("batch_size = 512", 'batch_size = "512"', [(3, "FP002")]),
        ("batch_size = 512", "batch_size = 512, top1 = 0.7", [(3, "FP003")]),
        ("batch_size = 512", "target_acc1 = 70", [(3, "FP003")]),
        ("epochs = 80", "momentum = 0.8, width = 5", [(7, "FP002"), (7, "FP002")]),
        ('chip = "A"', 'chip = "B"', [(5, "FP002")]),
        ('topology = "1x8"', 'topologie = "1x8"', [(1, "FP002")]),
        ("[[overlay]]\ntopology", "[[overlays]]\ntopology", [(1, "FP002")]),
        ("config = { batch_size = 512 }", "config = {", [(1, "FP002")]),
        ("config = { batch_size = 512 }", "config = { batch_size = " + "[" * 5000, [(1, "FP002")]),
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
    problems = lint.check([acme])
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
    problems = {(one.file.name, one.code, one.message) for one in lint.check([tmp_path])}
    assert ("config_A1x1x8.py", "FP032", "target_acc1 = 70 is easier to meet than the standard case's 75.5") in problems
    assert ("Waveglow-pytorch", "FP034", "there is no benchmark Waveglow; benchmarks/ has WaveGlow") in problems
    assert ("llama2_7b-deepspeed", "FP034", "there is no benchmark llama2_7b") in problems
    missing = {(file, code) for file, code, _ in problems if code == "FP035"}
    assert missing == {("resnet50-pytorch", "FP035"), ("llama2_7b-deepspeed", "FP035")}


def test_the_command_prints_a_line_for_each_problem_and_exits_1(acme, capsys):
    assert main(["lint", str(acme)]) == 0
    assert capsys.readouterr().out == ""
    (acme / "run.sh").write_text("ls\n")
    assert main(["lint", str(acme)]) == 1
    assert re.fullmatch(rf"{re.escape(str(acme))}/run\.sh:1: FP028 is a shell script.*\n", capsys.readouterr().out)
    assert main(["lint", "--json", str(acme)]) == 1
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["line"], row["code"]) == (1, "FP028")


def test_a_warning_leaves_the_exit_code_alone(acme, capsys):
    (acme / "vendor.toml").write_text(VENDOR.replace("peak = { fp32 = 20, amp = 312 }\n", ""))
    assert main(["lint", str(acme)]) == 0
    assert ": W001 A1 has no peak" in capsys.readouterr().out


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
