"""Options: command line over ini file over environment over default, and every malformed value refused."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from pytest_flagperf import collection
from pytest_flagperf import launching
from pytest_flagperf import option_values
from pytest_flagperf import options
from pytest_flagperf import plugin
from pytest_flagperf import records
from pytest_flagperf import result as results
from pytest_flagperf import targets
from pytest_flagperf import words
from pytest_flagperf.case import Topology
from pytest_flagperf.judging.requirements import Requirement
from pytest_flagperf.operators import published
from pytest_flagperf.reports import html
from pytest_flagperf.reports import terminal
from tests.conftest import ROOT
from tests.test_result import make as make_result


# Imported here once: pytester forgets what a session of its own imports, and msgspec then misses its modules.
PLUGIN = (collection, html, launching, published, targets, terminal)

TOY = ROOT / "tests" / "data" / "flagperf" / "toy_suite.py"
USAGE_ERROR = pytest.ExitCode.USAGE_ERROR


@pytest.fixture(autouse=True)
def without_slow_plugins(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hypothesis is imported anew by every session that runs a test."""
    monkeypatch.setenv("PYTEST_ADDOPTS", "-p no:hypothesispytest -p no:anyio")


@pytest.fixture(autouse=True)
def docker_on_the_path(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A container's runtime is looked for on PATH."""
    program = tmp_path_factory.mktemp("bin") / "docker"
    program.touch(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")


@pytest.fixture
def parsed(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("FLAGPERF_DATA_ROOT")

    def parsed(*arguments: str, ini: str = "", **environment: str) -> options.Options:
        pytester.makeini(f"[pytest]\n{ini}")
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        config = pytester.parseconfig(*arguments)
        return options.parse(config)

    return parsed


# Option, three different values of it, and what they are parsed to.
HERE = sys.executable
TRIPLES = [
    ("vendor", ("nvidia", "cpu", "cuda"), "vendor", ("nvidia", "cpu", "cuda")),
    ("framework", ("paddle", "pytorch", "mindspore"), "frameworks", (("paddle",), ("pytorch",), ("mindspore",))),
    ("precision", ("amp,bf16", "tf32", "fp16"), "precisions", (("amp", "bf16"), ("tf32",), ("fp16",))),
    ("topology", ("1x8", "2x8", "1x2"), "topologies", ((Topology(1, 8),), (Topology(2, 8),), (Topology(1, 2),))),
    ("scale", ("full,lite", "full", "lite"), "scales", (("full", "lite"), ("full",), ("lite",))),
    (
        "engine",
        ("onnxruntime,eager", "eager", "inductor"),
        "engines",
        (("onnxruntime", "eager"), ("eager",), ("inductor",)),
    ),
    ("monitor", ("0.5", "off", "2"), "monitor", (0.5, None, 2.0)),
    ("rounds", ("5", "3", "2"), "rounds", (5, 3, 2)),
    ("dataset", ("digits=/a", "digits=/b", "digits=/c"), "datasets", tuple({"digits": f"/{x}"} for x in "abc")),
    (
        "weights",
        ("resnet50-digits=/a", "resnet50-digits=/b", "resnet50-digits=random"),
        "weights",
        ({"resnet50-digits": "/a"}, {"resnet50-digits": "/b"}, {"resnet50-digits": "random"}),
    ),
    ("data-root", ("/a", "/b", "/c"), "data_root", (Path("/a"), Path("/b"), Path("/c"))),
    (
        "python",
        tuple(f"{x}={HERE}" for x in words.FRAMEWORKS),
        "pythons",
        tuple({x: HERE} for x in words.FRAMEWORKS),
    ),
    ("container", ("acme:1", "acme:2", "acme:3"), "container", ("acme:1", "acme:2", "acme:3")),
    (
        "container-runtime",
        ("docker", "podman", "apptainer"),
        "container_runtime",
        ("docker", "podman", "apptainer"),
    ),
    ("target", ("top1=0.5", "top1=0.6", "auc=0.7"), "targets", ({"top1": 0.5}, {"top1": 0.6}, {"auc": 0.7})),
    ("flagperf-timeout", ("60", "70.5", "1e3"), "timeout", (60, 70.5, 1000)),
    ("stall-timeout", ("60", "70.5", "1e3"), "stall_timeout", (60, 70.5, 1000)),
    ("budget", ("0.5", "2", "1e1"), "budget", (0.5, 2.0, 10.0)),
    ("cache", ("flushed", "hot", "flushed"), "cache", ("flushed", "hot", "flushed")),
    ("published", ("V100", "T4", "M40"), "published", ("V100", "T4", "M40")),
    ("baseline", ("/usr", "/bin", "/tmp"), "baseline", (Path("/usr"), Path("/bin"), Path("/tmp"))),
    ("on-inconclusive", ("rerun", "fail", "pass"), "on_inconclusive", ("rerun", "fail", "pass")),
    ("max-rounds", ("5", "20", "30"), "max_rounds", (5, 20, 30)),
    ("rerun-budget", ("60", "70.5", "1e3"), "rerun_budget", (60, 70.5, 1000)),
    (
        "require",
        ("amp_speedup>=1", "amp_speedup>=2", "amp_speedup>=3"),
        "requirements",
        tuple((Requirement("amp_speedup", ">=", bound),) for bound in (1, 2, 3)),
    ),
    ("resume", ("/a", "/b", "/c"), "resume", (Path("/a"), Path("/b"), Path("/c"))),
    (
        "flagperf-html",
        ("/tmp/a.html", "/tmp/b.html", "/tmp/c.html"),
        "html",
        tuple(Path(f"/tmp/{x}.html") for x in "abc"),
    ),
    ("flagperf-dir", ("/a", "/b", "/c"), "directory", (Path("/a"), Path("/b"), Path("/c"))),
    ("replay", ("/a", "/b", "/c"), "replay", (Path("/a"), Path("/b"), Path("/c"))),
]


@pytest.mark.parametrize(("flag", "given", "field", "expected"), TRIPLES, ids=[row[0] for row in TRIPLES])
def test_the_command_line_wins_over_the_ini_file_and_that_over_the_environment(parsed, flag, given, field, expected):
    key = "flagperf_" + flag.replace("-", "_").removeprefix("flagperf_")
    ini, environment = f"{key} = {given[1]}", {key.upper(): given[2]}
    assert getattr(parsed(**environment), field) == expected[2]
    assert getattr(parsed(ini=ini, **environment), field) == expected[1]
    found = parsed(f"--{flag}={given[0]}", ini=ini, **environment)
    assert getattr(found, field) == expected[0]
    assert "command line" in found.explicit.values()


def test_each_option_of_the_table_is_tested_above():
    assert {row[0].removeprefix("flagperf-") for row in TRIPLES} == {
        option.name.replace("_", "-").removeprefix("flagperf-") for option in options.TABLE
    }


def test_with_a_container_the_interpreter_is_in_the_image_and_the_first_runtime_is_taken(parsed):
    found = parsed("--container=acme:1", "--python=pytorch=/opt/none/bin/python")
    assert found.pythons == {"pytorch": "/opt/none/bin/python"}
    assert found.container_runtime == "docker"


def test_without_a_runtime_a_container_is_a_usage_error(parsed, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(pytest.UsageError, match="--container: none of docker, podman, apptainer is on PATH"):
        parsed("--container=acme:1")
    with pytest.raises(pytest.UsageError, match="--container-runtime: podman is not on PATH"):
        parsed("--container=acme:1", "--container-runtime=podman")
    assert parsed("--container-runtime=podman").container is None


def test_every_option_has_a_long_spelling_too(parsed):
    assert parsed("--flagperf-vendor=cpu", "--flagperf-rounds=2", "--flagperf-data-root=/x").rounds == 2


def test_the_defaults_are_lite_fp32_on_one_device(parsed, pytester):
    found = parsed()
    assert (found.vendor, found.frameworks) == (None, ())
    assert (found.precisions, found.topologies, found.scales) == (("fp32",), (Topology(1, 1),), ("lite",))
    assert (found.rounds, found.timeout, found.stall_timeout) == (1, None, 300)
    assert (found.data_root, found.replay) == (None, None)
    assert (found.baseline, found.without_baseline, found.on_inconclusive, found.max_rounds) == (
        None,
        False,
        "pass",
        10,
    )
    assert found.directory == pytester.path / "flagperf-results"


def test_a_baseline_of_none_is_none_and_a_relative_one_is_found_where_it_was_typed(parsed, pytester):
    assert parsed("--baseline=none").without_baseline
    assert parsed("--baseline=none").baseline is None
    (pytester.path / "base.toml").touch()
    found = parsed("--baseline=base.toml")
    assert (found.baseline, found.without_baseline) == (pytester.path / "base.toml", False)


def test_a_session_to_resume_may_be_named_by_its_bare_name(parsed, pytester):
    session = pytester.mkdir("results") / "20261122-101500-abcdef"
    session.mkdir()
    assert parsed("--flagperf-dir=results", f"--resume={session.name}").resume == session


def test_lists_are_comma_separated_and_name_each_thing_once(parsed):
    found = parsed("--framework= pytorch, paddle,pytorch,", "--topology=1x1,1x2,1x1", "--precision=fp32,fp32")
    assert found.frameworks == ("pytorch", "paddle")
    assert found.topologies == (Topology(1, 1), Topology(1, 2))
    assert found.precisions == ("fp32",)


def test_pairs_gather_on_the_command_line_by_line_in_the_ini_file_and_by_comma_in_the_environment(parsed):
    both = {"digits": "/a", "flights": "/b"}
    assert parsed(FLAGPERF_DATASET="digits=/a,flights=/b").datasets == both
    assert parsed(ini="flagperf_dataset =\n    digits=/a\n    flights=/b\n").datasets == both
    assert parsed("--dataset=digits=/a", "--dataset", "flights=/b").datasets == both


def test_a_path_on_the_command_line_is_relative_to_where_it_was_typed_and_in_the_ini_file_to_the_file(
    parsed, pytester, monkeypatch
):
    below = pytester.mkdir("below")
    monkeypatch.chdir(below)
    root = f"--rootdir={pytester.path}"
    assert parsed(root, "--data-root=data", "-c", "../tox.ini").data_root == below / "data"
    assert parsed(root, "-c", "../tox.ini", ini="flagperf_data_root = data").data_root == pytester.path / "data"


@pytest.mark.parametrize(
    ("argument", "messages"),
    [
        ("--vendor=acme", ["--vendor: unknown vendor 'acme'. Known: amd (rocm),", "nvidia"]),
        ("--framework=tensorflow", ["--framework: unknown framework 'tensorflow'. Known: pytorch, paddle, mindspore"]),
        ("--framework=pytorch,torch", ["unknown framework 'torch'"]),
        ("--framework=,", ["--framework: ',' lists nothing"]),
        (
            "--precision=fp31",
            ["--precision: unknown precision 'fp31'. Known: fp64, fp32, tf32, amp, bf16, fp16, fp8, int8"],
        ),
        ("--precision=FP32", ["unknown precision 'FP32'"]),
        ("--scale=huge", ["--scale: unknown scale 'huge'. Known: lite, full"]),
        ("--topology=8", ["malformed topology '8': write NODESxDEVICES, for example 1x1, 1x8 or 2x8"]),
        ("--topology=1x1,1x0", ["malformed topology '1x0'"]),
        ("--topology=, ,", ["lists nothing"]),
        ("--rounds=0", ["--rounds: 0 is not above zero"]),
        ("--rounds=-1", ["--rounds: -1 is not above zero"]),
        ("--rounds=1.5", ["--rounds: '1.5' is not a whole number"]),
        ("--rounds=many", ["--rounds: 'many' is not a whole number"]),
        ("--dataset=digits", ["--dataset: 'digits' is not written NAME=PATH"]),
        ("--dataset=digits=", ["--dataset: 'digits=' is not written NAME=PATH"]),
        ("--dataset==/data", ["--dataset: '=/data' is not written NAME=PATH"]),
        (
            "--dataset=mnist=/data",
            ["--dataset: unknown name 'mnist'. Known: ", "digits", "imagenet2012", "criteo_kaggle"],
        ),
        ("--python=torch=/usr/bin/python3", ["--python: unknown name 'torch'. Known: pytorch, paddle, mindspore"]),
        ("--python=pytorch=/no/such/python", ["--python: /no/such/python is not an executable file"]),
        (f"--python=pytorch={TOY}", [f"--python: {TOY} is not an executable file"]),
        ("--container-runtime=lxc", ["--container-runtime: 'lxc' is not one of docker, podman, apptainer"]),
        ("--container=--privileged", ["--container: '--privileged' is not the name of an image"]),
        ("--cache=warm", ["--cache: 'warm' is neither hot nor flushed"]),
        ("--budget=0", ["--budget: 0 is not above zero"]),
        ("--published=A1", ["--published: published results: there are none of 'A1'"]),
        (
            "--target=top9=0.5",
            ["--target: unknown name 'top9'. Known: accuracy, algbw, amp_speedup, auc", "top1, top5"],
        ),
        ("--target=top1", ["--target: 'top1' is not written METRIC=VALUE"]),
        ("--target=auc>=2", ["--target: 'auc>=2' is not written METRIC=VALUE"]),
        ("--target=top1=high", ["--target: top1='high' is not a number"]),
        ("--target=top1=nan", ["--target: top1=nan is not a bound"]),
        ("--target=final_loss=inf", ["--target: final_loss=inf is not a bound"]),
        ("--target=top1=75.9", ["--target: top1 is a ratio between 0 and 1, not 75.9"]),
        ("--flagperf-timeout=soon", ["timeout: 'soon' is not a number of seconds"]),
        ("--flagperf-timeout=-5", ["timeout: -5 is not above zero"]),
        ("--flagperf-timeout=inf", ["timeout: inf is not above zero"]),
        ("--stall-timeout=nan", ["--stall-timeout: nan is not above zero"]),
        ("--stall-timeout=0", ["--stall-timeout: 0 is not above zero"]),
        ("--baseline=/no/such.toml", ["--baseline: /no/such.toml does not exist: name a file, a directory, or none"]),
        ("--baseline=.", ["--baseline: ", "is no session"]),
        ("--on-inconclusive=retry", ["--on-inconclusive: 'retry' is not one of rerun, fail, pass"]),
        ("--max-rounds=0", ["--max-rounds: 0 is not above zero"]),
        ("--rerun-budget=soon", ["--rerun-budget: 'soon' is not a number of seconds"]),
        (
            "--require=p_train>=100",
            [
                "--require: 'p_train' is no figure across cases. Known: amp_speedup, scaling",
                "write bound = … under its p_train in a baseline file, and name that with --baseline",
            ],
        ),
        ("--require=tea>=100", ["--require: 'tea' is no figure across cases. Known: amp_speedup, scaling"]),
        ("--require=amp_speedup", ["--require: 'amp_speedup' is not written METRIC>=BOUND"]),
        ("--flagperf-html=/tmp", ["--flagperf-html: /tmp is a directory: name a file in a directory you may write"]),
        ("--flagperf-html=/dev/null", ["--flagperf-html: /dev/null is no file"]),
        (f"--flagperf-html={TOY}/new/a.html", [f"a.html cannot be written, {TOY} is no directory"]),
        ("--resume=/no/such/session", ["--resume: /no/such/session is no session"]),
        ("--replay=/no/such/directory", ["--replay: /no/such/directory is not a directory"]),
        ("--replay=.", ["holds no run: neither FlagPerf's <model>:<framework>:"]),
    ],
)
def test_what_is_unknown_or_malformed_is_a_usage_error_that_lists_what_exists(pytester, argument, messages):
    pytester.makepyfile("def test_it(): raise AssertionError('no test may run')")
    done = pytester.runpytest_inprocess(argument)
    assert done.ret == USAGE_ERROR
    for message in messages:
        assert message in done.stderr.str()
    assert "Traceback" not in done.stderr.str() + done.stdout.str()


def test_a_report_that_nobody_may_write_is_refused_before_anything_runs(parsed, monkeypatch, tmp_path):
    monkeypatch.setattr(option_values.os, "access", lambda path, mode: path != tmp_path)
    with pytest.raises(pytest.UsageError, match=f"new/a.html cannot be written, {tmp_path} is not writable"):
        parsed(f"--flagperf-html={tmp_path}/new/a.html")
    assert parsed(f"--flagperf-html={tmp_path.parent}/a.html").html == tmp_path.parent / "a.html"


def test_a_report_that_could_not_be_written_is_told_as_that_and_fails_the_session(pytester):
    session = pytester.mkdir("session")
    records.write_json(session / "session.json", {"session": "session"})
    (session / "toy").mkdir()
    results.write_result(session / "toy", make_result(session))
    # The way is barred while the test runs.
    pytester.makepyfile(
        f"""
        def test_it(record_property):
            record_property({plugin.DIRECTORY_PROPERTY!r}, {str(session / "toy")!r})
            open("reports", "w").close()
        """
    )
    done = pytester.runpytest_inprocess("--flagperf-html=reports/a.html")
    done.assert_outcomes(passed=1)
    assert done.ret == pytest.ExitCode.TESTS_FAILED
    done.stdout.fnmatch_lines(["flagperf: --flagperf-html: the report cannot be written to */reports/a.html: *"])
    done.stdout.no_fnmatch_line("*files are incomplete*")
    assert json.loads((session / "session.json").read_text())["exit_status"] == 1


@pytest.fixture
def two_models(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """Suites of ``toy``, whose target is top1, and ``wide``, whose target is auc. No framework is needed."""
    monkeypatch.delenv("FLAGPERF_DATA_ROOT")
    monkeypatch.setenv("FLAGPERF_PYTHON", f"pytorch={HERE}")
    text = TOY.read_text()
    wide = text.replace('"toy"', '"wide"').replace('"top1"', '"auc"')
    pytester.makepyfile(test_toy=text, test_wide=wide)


@pytest.mark.usefixtures("two_models")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--target=p_train=1e6"], "no selected case has p_train as a target; they have auc, top1"),
        (["--target=top1=0.5", "-m", "wide"], "no selected case has top1 as a target; they have auc"),
        (["--target=auc=0.5", "--target=top5=0.5", "test_wide.py"], "no selected case has top5 as a target"),
        (["--target=auc=0.5", "-k", "toy"], "no selected case has auc as a target; they have top1"),
        (["--target=auc=0.5", "-k", "toy", "--collect-only"], "no selected case has auc as a target; they have top1"),
    ],
)
def test_a_target_that_no_selected_case_has_is_a_usage_error_that_lists_what_they_have(pytester, arguments, message):
    done = pytester.runpytest_inprocess(*arguments)
    assert done.ret == USAGE_ERROR
    assert f"--target: {message}" in done.stderr.str()
    assert "passed" not in done.stdout.str()


@pytest.mark.usefixtures("two_models")
def test_a_target_that_some_of_the_cases_have_is_theirs_and_a_standing_one_may_fit_none(pytester):
    assert pytester.runpytest_inprocess("--target=auc=0.5", "--framework=pytorch").ret == 0
    pytester.makeini("[pytest]\nflagperf_target = top1=0.5\n")
    assert pytester.runpytest_inprocess("-m", "wide", "--framework=pytorch").ret == 0


@pytest.mark.usefixtures("two_models")
def test_where_a_module_cannot_be_collected_a_target_may_be_its(pytester):
    pytester.makepyfile(test_broken="import no_such_module")
    done = pytester.runpytest_inprocess("--target=top5=0.5")
    assert done.ret == pytest.ExitCode.INTERRUPTED
    done.stdout.fnmatch_lines(["*No module named 'no_such_module'"])


@pytest.mark.usefixtures("two_models")
def test_under_xdist_a_target_that_no_case_has_is_the_same_usage_error(pytester):
    done = pytester.runpytest_subprocess("-n", "2", "--target=top1=0.5", "-m", "wide")
    assert done.ret == USAGE_ERROR
    assert "--target: no selected case has top1 as a target; they have auc" in done.stderr.str()
    assert "INTERNALERROR" not in done.stdout.str() + done.stderr.str()


@pytest.mark.parametrize("source", ["ini", "environment"])
def test_the_ini_file_and_the_environment_are_checked_alike(pytester, monkeypatch, source):
    if source == "ini":
        pytester.makeini("[pytest]\nflagperf_precision = fp31\n")
    else:
        monkeypatch.setenv("FLAGPERF_PRECISION", "fp31")
    done = pytester.runpytest_inprocess()
    assert done.ret == USAGE_ERROR
    assert "unknown precision 'fp31'" in done.stderr.str()


# Stands for pytest-timeout: the option it registers, and its name.
PYTEST_TIMEOUT = """
    def pytest_addoption(parser):
        parser.addoption("--timeout", type=float)
"""


@pytest.fixture
def pytest_timeout(pytester: pytest.Pytester) -> None:
    if options.find_spec("pytest_timeout") is None:
        pytester.makepyfile(pytest_timeout=PYTEST_TIMEOUT)
        pytester.syspathinsert()


@pytest.mark.usefixtures("pytest_timeout")
def test_beside_pytest_timeout_the_short_spelling_is_its_and_the_long_one_ours(pytester):
    config = pytester.parseconfig("-p", "pytest_timeout", "--timeout=5", "--flagperf-timeout=60")
    assert config.getoption("timeout") == 5
    assert options.parse(config).timeout == 60


@pytest.mark.usefixtures("pytest_timeout")
def test_without_pytest_timeout_the_short_spelling_is_ours(pytester):
    assert options.parse(pytester.parseconfig("-p", "no:timeout", "--timeout=60")).timeout == 60


@pytest.mark.usefixtures("pytest_timeout")
def test_the_command_to_rerun_a_test_does_not_hand_our_timeout_to_pytest_timeout(pytester):
    config = pytester.parseconfig("-p", "no:timeout", "--timeout=60")
    timeout = next(option for option in options.TABLE if option.name == "timeout")
    assert options.given(config, timeout) == ("60", "command line")
    assert timeout.flag == "--flagperf-timeout"


def test_help_shows_every_option_with_its_default(pytester):
    done = pytester.runpytest_inprocess("--help")
    text = " ".join(done.stdout.str().split())
    assert "FlagPerf AI-hardware benchmarks:" in text
    for option in options.TABLE:
        assert option.flags[-1] in text
    assert "(default: the accelerator found, else cpu)" in text
    assert "flagperf_stall_timeout" in text


def test_the_header_says_vendor_devices_and_where_results_go(pytester):
    pytester.makepyfile("def test_it(): pass")
    done = pytester.runpytest_inprocess("--vendor=cpu", "--flagperf-dir=out")
    done.stdout.fnmatch_lines([f"flagperf: vendor cpu, 1 device, results in {pytester.path}/out/*"])


def test_an_option_is_serialisable_for_xdist(pytester):
    arguments = ["--vendor=cpu", "--dataset=digits=/a", "--target=top1=0.5", "--rounds=2"]
    plain = vars(pytester.parseconfig(*arguments).option)
    ours = {key: value for key, value in plain.items() if key.startswith("flagperf_")}
    assert len(ours) == len(options.TABLE)
    assert all(value is None or isinstance(value, (str, list)) for value in ours.values())
    assert SimpleNamespace(**ours).flagperf_target == ["top1=0.5"]
