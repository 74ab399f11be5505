"""From a FlagPerf clone to commands, overlays and a report: what is taken, and what is named as not taken."""

from __future__ import annotations

import dataclasses
import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_flagperf import ConfigurationError
from pytest_flagperf import Topology
from pytest_flagperf import overlay
from pytest_flagperf.case import Selection
from pytest_flagperf.cli import main
from pytest_flagperf.importing import plan as plans
from pytest_flagperf.importing import report
from pytest_flagperf.importing.findings import Refused
from tests.conftest import ROOT
from tests.importing.conftest import CLUSTER_CONF
from tests.importing.conftest import CONFIG
from tests.importing.conftest import TEST_CONF


CONFIG_PATH = "training/acme/resnet50-pytorch/config/config_A1x1x8.py"
TESTS_PATH = "training/run_benchmarks/config/test_conf.py"


def lost(found, path: Path) -> set[tuple[str, int, str]]:
    """What was not taken, by file, line and the first words of what it is."""
    return {(str(one.file.relative_to(path)), one.line, one.what) for one in found.lost}


def reason(found, what: str) -> str:
    (one,) = [one for one in found.not_taken if one.what == what]
    return one.reason


def test_each_case_becomes_the_command_that_runs_it_with_ours(clone, build):
    assert [command.text for command in build(clone).commands] == [
        "pytest suites -m 'training and resnet50 and pytorch' --vendor=acme --topology=1x8 --rounds=3 --scale=full "
        "--precision=amp --dataset imagenet2012=/datasets/imagenet",
        "pytest suites -m 'training and wide_deep and paddle' --vendor=acme --topology=1x1 --rounds=1 --scale=full",
    ]


def test_a_command_is_accepted_by_pytest_and_selects_the_case(write):
    path = write({TESTS_PATH: TEST_CONF.replace("acme", "nvidia")})
    (command, _) = plans.build(path).commands
    assert command.arguments[0] == "pytest"
    line = [sys.executable, "-m", *shlex.split(command.text), "--collect-only", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "suites/training/resnet50/test_resnet50.py::test_converges[pytorch-fp32-1x8-full]" in done.stdout
    assert "wide_deep" not in done.stdout


def test_a_vendors_configuration_becomes_an_overlay_that_loads(clone, build, ours, tmp_path):
    found = build(clone)
    assert list(found.overlays()) == ["vendors/acme/resnet50.toml"]
    report.write(found, tmp_path / "out")
    case, vendor = ours.cases["training", "resnet50"], ours.vendor("acme")
    path = tmp_path / "out" / "vendors" / "acme" / "resnet50.toml"
    content = overlay.read(path, case, vendor)
    (entry,) = content.overlay
    assert (entry.chip, entry.topology, entry.framework, entry.precision, entry.scale) == (
        *("A1", "1x8", "pytorch", "amp"),
        "full",
    )
    resolved = overlay.resolve(
        case,
        Selection("pytorch", "amp", Topology(1, 8), "full"),
        role="convergence",
        vendor="acme",
        overlay=(path, content),
        targets={},
        directory=ROOT / "suites" / "training" / "resnet50",
        chip=lambda: ("A1-80GB", vendor.chips["A1-80GB"]),
    )
    assert resolved.config["batch_size"] == 512
    assert "# learning_rate: FlagPerf's 0.8 is that of 4096 samples, ours that of 256" in path.read_text()
    assert resolved.config["learning_rate"] * (8 * 512 / 256) == pytest.approx(0.8)


def test_what_equals_the_standard_case_is_no_deviation(clone, build):
    content = build(clone).overlays()["vendors/acme/resnet50.toml"]
    assert "weight_decay" not in content
    (clone / CONFIG_PATH).write_text("train_batch_size = 256\nweight_decay = 0.0001\n")
    assert build(clone).overlays() == {}


def test_what_could_not_be_taken_is_named_with_file_and_line(clone, build):
    config = "training/acme/resnet50-pytorch"
    assert lost(build(clone), clone) == {
        (CONFIG_PATH, 8, "momentum = 0.8"),
        (CONFIG_PATH, 9, "target_acc1 = 70"),
        (CONFIG_PATH, 10, "max_steps = 1000"),
        (f"{config}/config/environment_variables.sh", 3, "ACME_RING"),
        (f"{config}/config/environment_variables.sh", 4, "source /opt/acme/env"),
        (f"{config}/config/requirements.txt", 0, "requirements.txt"),
        (f"{config}/extern", 0, "extern/"),
        ("training/acme/wide_deep-paddle/config/config_A1x1x1.py", 0, "the vendor's configuration"),
        ("training/run_benchmarks/config/cluster_conf.py", 2, "HOSTS"),
        (TESTS_PATH, 4, "ACCE_CONTAINER_OPT --privileged"),
        (TESTS_PATH, 4, "ACCE_CONTAINER_OPT --net=host"),
        (TESTS_PATH, 5, "PIP_SOURCE"),
        (TESTS_PATH, 8, "CLEAR_CACHES"),
        (TESTS_PATH, 9, "DATA"),
        (TESTS_PATH, 12, "wide_deep:paddle:A1:1:1:1: /datasets/clicks"),
        (TESTS_PATH, 13, "resnet50:pytorch_1.13:A1:2:8:1"),
        (TESTS_PATH, 14, "nosuch:pytorch:A1:1:8:1"),
        (TESTS_PATH, 15, "resnet50:jax:A1:1:8:1"),
    }


@pytest.mark.parametrize(
    ("what", "why"),
    [
        ("target_acc1 = 70", "is a lowered target; a vendor cannot change top1 >= 0.759"),
        ("momentum = 0.8", "momentum is not tunable in resnet50; tunable: batch_size"),
        ("resnet50:pytorch_1.13:A1:2:8:1", "several nodes (2) are not launched by this version"),
        ("nosuch:pytorch:A1:1:8:1", "our suites have no training case nosuch; they have resnet50, wide_deep"),
        ("resnet50:jax:A1:1:8:1", "jax is launched by no launcher of ours"),
        ("ACCE_CONTAINER_OPT --privileged", "is refused"),
        ("wide_deep:paddle:A1:1:1:1: /datasets/clicks", "give --dataset criteo_kaggle=PATH"),
    ],
)
def test_the_reason_says_what_to_do_or_why_not(clone, build, what, why):
    assert why in reason(build(clone), what)


@pytest.mark.parametrize("value", ["None", r"'\ud800'", "'64'", "[64, 128]", "{'a': 1}", "True", "-1e-300"])
def test_a_value_of_another_type_is_named_and_not_written(clone, build, value):
    (clone / CONFIG_PATH).write_text(f"train_batch_size = {value}\n")
    found = build(clone)
    assert found.overlays() == {}
    assert any("batch_size" in one.what for one in found.lost)


def test_a_target_is_never_written_not_even_a_raised_one(clone, build):
    (clone / CONFIG_PATH).write_text("train_batch_size = 64\ntarget_acc1 = 80\ntarget_anything = 1\ntop1 = 0.1\n")
    found = build(clone)
    assert "target" not in found.overlays()["vendors/acme/resnet50.toml"].replace("FlagPerf", "")
    assert "top1" not in found.overlays()["vendors/acme/resnet50.toml"]
    assert "lowered" not in reason(found, "target_acc1 = 80")
    assert {"target_acc1 = 80", "target_anything = 1", "top1 = 0.1"} <= {one.what for one in found.lost}


@pytest.mark.parametrize(
    ("key", "why"),
    [
        ('"resnet50:pytorch:A1:1:8"', "has not the six terms"),
        ('"resnet50:pytorch:A1:one:8:1"', "nodes is 'one'"),
        ('"resnet50:pytorch:A1:1:-8:1"', "devices is '-8'"),
        ('"resnet50:pytorch:A1:1:8:0"', "repeat is '0'"),
        ('"resnet50:pytorch:A1:1:99999999999999999999:1"', "devices is '9999"),
        ('""', "has not the six terms"),
        ("5", "is no text"),
        ("None", "is no text"),
        (r"'resnet50:pytorch:A1\ud800:1:8:1'", "is no text"),
    ],
)
def test_an_odd_key_is_named_and_the_other_cases_are_taken(clone, build, key, why):
    (clone / TESTS_PATH).write_text(TEST_CONF.replace("CASES = {", "CASES = {\n    " + key + ": '/x',"))
    found = build(clone)
    assert len(found.commands) == 2
    assert any(why in one.reason for one in found.lost if one.line == 11)


def test_a_path_that_is_none_is_named_and_not_put_into_a_command(clone, build):
    for odd in ("5", "''", "'/a\\n--dataset=b'"):
        (clone / TESTS_PATH).write_text(TEST_CONF.replace('f"{DATA}/imagenet"', odd))
        found = build(clone)
        assert "--dataset" not in found.commands[0].text
        assert any("is no path of a dataset" in one.reason for one in found.lost)


def test_cases_that_are_no_dictionary_are_named(clone, build):
    for odd in ("CASES = ['a']", "CASES = load()", ""):
        text = TEST_CONF.partition("CASES = {")[0] + odd
        (clone / TESTS_PATH).write_text(text)
        found = build(clone)
        assert found.commands == ()
        assert "is no dictionary of cases" in reason(found, "CASES")


def test_a_payload_in_a_clone_is_not_run(clone, build, tmp_path):
    marker = tmp_path / "ran"
    payload = f"__import__('os').system('touch {marker}')\nclass Side:\n    made = open({str(marker)!r}, 'w')\n"
    for path in clone.rglob("*.py"):
        path.write_text(payload + path.read_text())
    found = build(clone)
    assert not marker.exists()
    assert len(found.commands) == 2
    assert any(one.what.startswith("__import__('os')") for one in found.lost)


@pytest.mark.parametrize(
    ("path", "commands", "overlays"),
    [
        ("training", 2, 1),
        ("training/acme", 0, 1),
        ("training/acme/resnet50-pytorch", 0, 1),
        ("training/acme/resnet50-pytorch/config", 0, 1),
        (CONFIG_PATH, 0, 1),
        (TESTS_PATH, 2, 0),
        ("training/run_benchmarks/config/cluster_conf.py", 0, 0),
    ],
)
def test_a_part_of_a_clone_can_be_imported_alone(clone, build, path, commands, overlays):
    found = build(clone / path)
    assert (len(found.commands), len(found.overlays())) == (commands, overlays)
    assert found.lost
    # The precision is looked up beside the file.
    assert all("--precision=amp" in command.text for command in found.commands[:1])


def test_the_vendor_given_replaces_the_one_of_the_file(clone, build, ours):
    (clone / TESTS_PATH).write_text(TEST_CONF.replace('VENDOR = "acme"', 'VENDOR = "roadrunner"'))
    assert "there is no vendor roadrunner here; there are acme" in build(clone).lost[-1].reason
    assert build(clone, vendor="acme").commands[0].vendor == "acme"


def test_a_chip_that_the_vendor_file_does_not_know_gets_no_overlay(clone, build):
    (clone / CONFIG_PATH).rename(clone / CONFIG_PATH.replace("A1x", "TP2PP1A1x"))
    found = build(clone)
    assert found.overlays() == {}
    assert reason(found, "config_TP2PP1A1x1x8.py") == "acme has no chip or family TP2PP1A1; it has A1, A1-80GB"


def test_a_configuration_that_flagperf_would_not_find_is_named(clone, build):
    (clone / CONFIG_PATH).with_name("config_A1x2x8py").write_text("lr = 1\n")
    assert "FlagPerf skips it" in reason(build(clone), "config_A1x2x8py")


@pytest.mark.parametrize(
    ("line", "precision"),
    [
        ("amp = True", "amp"),
        ("bf16 = True", "bf16"),
        ("fp16 = False", ""),
        ("precision = 'bfloat16'", "bf16"),
        ("", ""),
    ],
)
def test_the_precision_is_the_one_that_the_configuration_says(clone, build, line, precision):
    (clone / CONFIG_PATH).write_text(f"train_batch_size = 64\n{line}\n")
    text = build(clone).commands[0].text
    assert (f"--precision={precision}" in text) if precision else ("--precision" not in text)


@pytest.mark.parametrize(
    ("text", "line", "what", "why"),
    [
        ("fp16 = True\n", 2, "fp16 = True", "is amp, which acme has not; it has fp32, bf16"),
        ("precision = 'fp16'\n", 2, "precision = fp16", "is amp, which acme has not; it has fp32, bf16"),
        ("bf16 = True\n", 2, "bf16 = True", "is bf16, which acme's pytorch has not; it has fp32, amp"),
    ],
)
def test_a_precision_that_the_vendor_has_not_is_named_and_nothing_is_written_for_it(
    clone, build, ours, text, line, what, why
):
    file = ours.vendor_directories[0] / "acme" / "vendor.toml"
    written = file.read_text()
    if "pytorch" in why:
        file.write_text(written.replace('device = "acme"', 'device = "acme"\nprecisions = ["fp32", "amp"]'))
    else:
        file.write_text(written.replace('["fp32", "amp", "bf16"]', '["fp32", "bf16"]'))
    (clone / CONFIG_PATH).write_text(f"train_batch_size = 512\n{text}")
    found = build(clone)
    assert found.overlays() == {}
    assert "--precision" not in found.commands[0].text
    assert (CONFIG_PATH, line, what) in lost(found, clone)
    assert reason(found, what) == f"{why}: the command has the default precision, and there is no overlay"


def test_a_precision_that_the_case_has_not_is_not_taken_either(ours):
    case, vendor = ours.cases["training", "resnet50"], ours.vendor("acme")
    ours.check_precision("amp", vendor, "pytorch", case)
    with pytest.raises(Refused, match="is amp, which resnet50 has not; it has fp32"):
        ours.check_precision("amp", vendor, "pytorch", dataclasses.replace(case, precisions=("fp32",)))


def test_base_and_operation_cases_become_tests_of_the_operator_suites(write, ours):
    def host(*keys: str) -> str:
        return "\n".join(["VENDOR: acme", "CASES:", *(f"  '{key}': x" for key in keys), ""])

    operation = host("mm:FP16:312:nativetorch:A1", "mm:BF16:312:nativetorch:A1", "bitwise_and:INT32:1:nativetorch:A1")
    base = host(
        "computation-FP32:A1", "computation-FP64", "main_memory-bandwidth", "interconnect-P2P_interserver", "odd"
    )
    found = plans.build(write({"operation/configs/host.yaml": operation, "base/configs/host.yaml": base}), ours=ours)
    commands = sorted((command.arguments for command in found.commands), key=lambda one: "operator_list" not in one[3])
    assert commands[0][2:7] == ("-m", "operator_list and flagperf", "-k", "fwd-mm- or bwd-mm-", "--precision=bf16")
    assert commands[1][2:-1] == ("-m", "operator_list and flagperf", "-k", "fwd-bitwise_and- or bwd-bitwise_and-")
    assert commands[2][2:5] == ("-m", "computation and flagperf", "--precision=fp32")
    assert commands[3][2:-1] == ("-m", "memory and flagperf", "-k", "bandwidth")
    assert {one.reason.partition(";")[0] for one in found.lost} == {
        "FP16 is a precision that acme has not",
        "FP64 is a precision that acme has not",
        "interconnect-P2P_interserver is between hosts, which this version does not launch",
        "our suites have no base case odd",
    }


def test_images_and_monitors_of_a_vendor_are_named_each_with_a_reason(clone, build, write):
    write(
        {
            "training/acme/docker_image/pytorch_2.0/Dockerfile": "FROM a\n",
            "training/acme/docker_image/pytorch_2.0/pytorch_2.0_install.sh": "ls\n",
            "training/acme/acme_monitor.py": "",
            "training/roadrunner/roadrunner_monitor.py": "",
            "inference/docker_images/acme/acme_monitor.py": "",
            "inference/docker_images/acme/acme_analysis.py": "",
            "inference/docker_images/acme/pytorch/Dockerfile": "FROM a\n",
            "base/vendors/acme/pytorch/Dockerfile": "FROM a\n",
            "base/vendors/acme/chip/deep/Dockerfile": "FROM a\n",
        }
    )
    found = build(clone)
    named = {(str(one.file.relative_to(clone)), one.needed) for one in found.not_taken}
    assert {
        ("training/acme/docker_image/pytorch_2.0/Dockerfile", True),
        ("training/acme/docker_image/pytorch_2.0/pytorch_2.0_install.sh", True),
        ("training/acme/acme_monitor.py", False),
        ("training/roadrunner/roadrunner_monitor.py", True),
        ("inference/docker_images/acme/acme_monitor.py", False),
        ("inference/docker_images/acme/acme_analysis.py", False),
        ("inference/docker_images/acme/pytorch/Dockerfile", True),
        ("base/vendors/acme/pytorch/Dockerfile", True),
    } <= named
    assert "base/vendors/acme/chip/deep/Dockerfile" not in {name for name, _ in named}
    reasons = {one.what: one.reason for one in found.not_taken}
    assert "give it with --container IMAGE" in reasons["Dockerfile"]
    assert "[[probe]] of vendor.toml" in reasons["acme_monitor.py"]
    assert "ours has no such vendor" in reasons["roadrunner_monitor.py"]
    # The same of a vendor's directory alone, and of one vendor of a clone.
    for one in (build(clone / "training" / "acme"), build(clone, vendor="acme")):
        assert {"Dockerfile", "acme_monitor.py"} <= {what.what for what in one.not_taken}
        assert "roadrunner_monitor.py" not in {what.what for what in one.not_taken}


def test_two_precisions_at_once_are_not_chosen_from(clone, build):
    (clone / CONFIG_PATH).write_text("amp = True\nbf16 = True\n")
    found = build(clone)
    assert "--precision" not in found.commands[0].text
    assert "is asked for as amp, bf16" in reason(found, "the precision")


def test_the_inference_and_operation_sections_are_read_from_yaml(write, build):
    path = write(
        {
            "inference/configs/host.yaml": "VENDOR: acme\nCASES:\n  'nosuch:pytorch_2.1': /d\n  odd: /d\n",
            "operation/configs/host.yaml": "VENDOR: acme\nCASES:\n  'nosuch:FP16:312:nativetorch:A1': image\n",
        }
    )
    found = build(path)
    assert found.commands == ()
    assert [(one.line, one.what) for one in found.lost] == [
        (3, "nosuch:pytorch_2.1"),
        (4, "odd"),
        (3, "nosuch:FP16:312:nativetorch:A1"),
    ]
    assert "our suites have no inference case nosuch" in found.lost[0].reason
    assert "our suites have no operator nosuch" in found.lost[2].reason


def test_a_case_of_inference_is_the_throughput_of_ours(write, build):
    path = write({"inference/configs/host.yaml": "VENDOR: acme\nCASES:\n  'resnet50:pytorch_1.13': /d\n"})
    (command,) = build(path).commands
    assert command.text == (
        "pytest suites -m 'inference and throughput and resnet50 and pytorch' --vendor=acme --scale=full "
        "--dataset imagenet2012=/d"
    )


def test_a_clone_is_imported_without_pyyaml_and_a_yaml_file_alone_is_not(clone, build, monkeypatch):
    host = clone / "inference" / "configs" / "host.yaml"
    host.parent.mkdir(parents=True)
    host.write_text("VENDOR: acme\n")
    monkeypatch.setitem(sys.modules, "yaml", None)
    found = build(clone)
    assert len(found.commands) == 2
    assert "pip install 'pytest-flagperf[import]'" in reason(found, "the file")
    with pytest.raises(ConfigurationError, match="needs PyYAML"):
        build(host)


def test_files_are_written_once_and_not_over_anothers(clone, build, tmp_path):
    found, out = build(clone), tmp_path / "out"
    names = {str(path.relative_to(out)) for path in report.write(found, out)}
    assert names == {"vendors/acme/resnet50.toml", "flagperf.ini", "import-report.md"}
    report.write(found, out)  # the same content is no conflict
    (out / "flagperf.ini").write_text("mine")
    (out / "vendors" / "acme" / "resnet50.toml").unlink()
    with pytest.raises(ConfigurationError, match=r"flagperf\.ini\. Choose another directory, or give --force"):
        report.write(found, out)
    assert not (out / "vendors" / "acme" / "resnet50.toml").exists()
    report.write(found, out, force=True)
    assert "flagperf_vendor = acme" in (out / "flagperf.ini").read_text()


def test_a_directory_that_cannot_be_written_is_an_error_with_its_name(clone, build, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="file"):
        report.write(build(clone), tmp_path / "file")


def test_the_ini_snippet_is_read_by_pytest(write, tmp_path):
    text = TEST_CONF.replace("acme", "nvidia")
    plan = plans.build(write({TESTS_PATH: text, "training/run_benchmarks/config/cluster_conf.py": CLUSTER_CONF}))
    (tmp_path / "pytest.ini").write_text(plan.ini())
    (tmp_path / "conftest.py").write_text(
        "def pytest_configure(config):\n"
        "    print('READ', config.getini('flagperf_vendor'), config.getini('flagperf_dataset'))\n"
    )
    line = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--collect-only", "-q", "-s"]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert "READ nvidia ['imagenet2012=/datasets/imagenet']" in done.stdout


def test_a_dataset_at_two_places_is_left_to_the_commands(clone, build):
    text = TEST_CONF.replace("CASES = {", 'CASES = {\n    "resnet50:pytorch:A1:1:4:1": "/other/imagenet",')
    (clone / TESTS_PATH).write_text(text)
    ini = build(clone).ini()
    assert "imagenet2012=" not in ini
    assert "# imagenet2012 is at several places" in ini


def test_the_command_prints_writes_nothing_and_says_that_something_was_left(write, capsys, tmp_path):
    path = write({TESTS_PATH: TEST_CONF.replace("acme", "nvidia")})
    before = sorted(tmp_path.rglob("*"))
    assert main(["import", str(path)]) == 1
    out = capsys.readouterr().out
    assert "pytest suites -m 'training and resnet50 and pytorch' --vendor=nvidia" in out
    assert f"{TESTS_PATH}:8: CLEAR_CACHES: " in out
    assert sorted(tmp_path.rglob("*")) == before


def test_the_exit_code_is_0_where_all_was_taken(write, capsys):
    text = 'VENDOR = "nvidia"\nCLEAR_CACHES = False\nCASES = {"resnet50:pytorch:A100:1:8:1": "/datasets/imagenet"}\n'
    path = write({"training/run_benchmarks/config/test_conf.py": text})
    case = write({"training/nvidia/resnet50-pytorch/config/config_A100x1x8.py": "train_batch_size = 512\n"})
    assert case == path
    assert main(["import", str(path / TESTS_PATH)]) == 0
    assert "1 command, 0 overlays, 0 not taken, 1 not needed" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["nowhere"], ["."], [".", "--force"], []])
def test_bad_usage_is_exit_code_2(arguments, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="2"):
        main(["import", *arguments])
    assert "usage: flagperf import" in capsys.readouterr().err


def test_a_vendor_that_is_not_known_is_said_once_with_those_that_are(write, capsys):
    path = write({TESTS_PATH: TEST_CONF})
    with pytest.raises(SystemExit, match="2"):
        main(["import", str(path), "--vendor", "nope"])
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("there is no vendor nope here; there are amd, ascend") == 1


def test_json_is_for_programs_and_writing_tells_the_files(write, capsys, tmp_path):
    path = write({TESTS_PATH: TEST_CONF.replace("acme", "nvidia"), CONFIG_PATH: CONFIG})
    assert main(["import", str(path), "--json", "--write", str(tmp_path / "out")]) == 1
    printed = capsys.readouterr()
    document = json.loads(printed.out)
    assert document["schema_version"] == 1
    assert document["commands"][0]["arguments"][:4] == ["pytest", "suites", "-m", "training and resnet50 and pytorch"]
    assert {"file", "line", "what", "reason", "needed"} == set(document["not_taken"][0])
    assert f"wrote {tmp_path / 'out' / 'import-report.md'}" in printed.err
    assert "| `resnet50:pytorch_1.13:A1:1:8:3` |" in (tmp_path / "out" / "import-report.md").read_text()
