"""Cases of inference as pytest sees them: ids, markers, engines, targets; nothing is run."""

from __future__ import annotations

import shutil

import pytest

# What a pytest within this process is the first to import it forgets, and msgspec looks for the module later.
import pytest_flagperf.overlay  # noqa: F401
from pytest_flagperf import words
from pytest_flagperf.case import InferenceCase
from pytest_flagperf.case import Scale
from pytest_flagperf.case import Selection
from pytest_flagperf.case import Topology
from pytest_flagperf.case import at_least
from pytest_flagperf.case import at_most
from pytest_flagperf.errors import ConfigurationError
from pytest_flagperf.session import Session
from pytest_flagperf.worker.inference import registry
from pytest_flagperf.worker.inference.main import ROLES
from tests.conftest import ROOT


SUITE = ROOT / "suites" / "inference" / "resnet50" / "test_resnet50.py"


@pytest.fixture
def resnet50(pytester: pytest.Pytester) -> None:
    shutil.copy(SUITE, pytester.path)


def case(**changes):
    scale = Scale(dataset="digits", targets=[at_least("top1", 0.9, source="test")])
    return InferenceCase(
        **{"model": "m", "title": "M", "workloads": {"pytorch": "pytorch:M"}, "scales": {"lite": scale}, **changes}
    )


def selection(precision="fp32"):
    return Selection("pytorch", precision, Topology(1, 1), "lite", "eager")


def test_the_id_names_the_engine_and_that_of_training_is_as_it_was():
    assert selection().id == "pytorch-eager-fp32-1x1-lite"
    assert Selection("pytorch", "amp", Topology(1, 8), "full").id == "pytorch-amp-1x8-full"


def test_the_outputs_are_bounded_by_the_precision_unless_the_case_bounds_them():
    assert [str(one) for one in case().targets(selection())] == ["top1 >= 0.9", "output_error <= 0.001"]
    assert [one.bound for one in case().targets(selection("bf16"))] == [0.9, 0.1]
    assert [one.metric for one in case().targets(selection("int8"))] == ["top1"]
    own = Scale(dataset="digits", targets=[at_most("output_error", 0.5, source="test")])
    assert [one.bound for one in case(scales={"lite": own}).targets(selection())] == [0.5]


@pytest.mark.parametrize("engines", [(), ("Eager",), ("on nx",)])
def test_a_case_names_its_engines_by_words_that_are_markers(engines):
    with pytest.raises(ConfigurationError, match="engine"):
        case(engines=engines)


def test_every_engine_that_ships_is_a_marker_and_every_role_has_somebody_who_measures_it():
    assert {engine for _, engine in (*registry.BUILT_IN, *registry.GENERATORS)} == set(words.ENGINES)
    assert set(ROLES) == set(words.ROLES) - {"convergence"}


def test_an_unknown_engine_names_the_nearest():
    with pytest.raises(ConfigurationError, match=r"unknown engine 'onxruntime'\. Did you mean 'onnxruntime'\?"):
        registry.load("pytorch", "onxruntime")
    with pytest.raises(
        ConfigurationError, match="inductor does not execute models of paddle; it does those of pytorch"
    ):
        registry.load("paddle", "inductor")


def test_every_engine_is_a_test_of_its_own(pytester, resnet50):
    every = ",".join(dict.fromkeys(name for _, name in registry.BUILT_IN))
    asked = ("--framework=pytorch,paddle,mindspore", f"--engine={every}")
    done = pytester.runpytest("--collect-only", "-q", "-m", "throughput", *asked)
    ids = {line.partition("[")[2] for line in done.outlines if "::" in line}
    assert ids == {f"{framework}-{name}-fp32-1x1-lite]" for framework, name in registry.BUILT_IN}
    done = pytester.runpytest("--collect-only", "-q", "-m", "throughput and onnxruntime", "--precision=fp32,int8")
    ids = [line.partition("[")[2] for line in done.outlines if "::" in line]
    assert ids == ["pytorch-onnxruntime-fp32-1x1-lite]", "pytorch-onnxruntime-int8-1x1-lite]"]
    asked = ("--framework=pytorch", "--engine=onnxruntime,eager")
    done = pytester.runpytest("--collect-only", "-q", "-m", "throughput", *asked)
    ids = [line.partition("[")[2] for line in done.outlines if "::" in line]
    assert ids == ["pytorch-onnxruntime-fp32-1x1-lite]", "pytorch-eager-fp32-1x1-lite]"]


def test_an_engine_whose_framework_is_not_installed_is_no_skip_where_it_was_asked_for(pytester, resnet50, monkeypatch):
    monkeypatch.setattr(Session, "installed", lambda self, framework: framework == "pytorch")
    done = pytester.runpytest("-m", "throughput", "--engine=paddle_inference")
    done.assert_outcomes(errors=1)
    done.stdout.fnmatch_lines(["*paddle is not installed*"])


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--engine=paddle_inference", "--framework=pytorch"), "engine paddle_inference executes models of paddle"),
        (("--engine=vllm",), "engine vllm does nothing but generate text"),
    ],
)
def test_why_an_engine_has_nothing_to_do_is_told_as_it_is(pytester, resnet50, arguments, reason):
    done = pytester.runpytest("-m", "throughput", "-rs", *arguments)
    done.assert_outcomes(skipped=1)
    done.stdout.fnmatch_lines([f"*{reason}*"])


@pytest.mark.parametrize("where", ["option", "ini", "environment"])
def test_an_engine_that_is_none_is_a_usage_error(pytester, resnet50, monkeypatch, where):
    if where == "ini":
        pytester.makeini("[pytest]\nflagperf_engine = inducter\n")
    if where == "environment":
        monkeypatch.setenv("FLAGPERF_ENGINE", "inducter")
    done = pytester.runpytest(*(["--engine=inducter"] if where == "option" else []))
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    done.stderr.fnmatch_lines(["*--engine: unknown engine 'inducter'. Did you mean 'inductor'? Known: eager,*"])


def test_several_devices_are_skipped_and_say_why(pytester, resnet50):
    asked = ("--framework=pytorch", "--engine=eager")
    done = pytester.runpytest("-rs", "--topology=1x2", *asked, "-m", "throughput")
    assert done.parseoutcomes()["skipped"] == 1
    done.stdout.fnmatch_lines(["*inference is measured on one device, not on 1x2*"])


def test_a_precision_that_the_case_lacks_is_skipped(pytester, resnet50):
    done = pytester.runpytest("-rs", "--precision=amp", "--engine=eager", "-m", "throughput")
    done.stdout.fnmatch_lines(["*resnet50 is not defined in amp; it is in fp32, bf16, fp16, int8*"])


def test_a_role_of_training_is_none_of_inference(pytester, resnet50):
    module = pytester.path / "test_resnet50.py"
    module.write_text(module.read_text().replace("@pytest.mark.edge", "@pytest.mark.convergence"))
    pytester.runpytest().stdout.fnmatch_lines(["*test_edge: convergence is no role of inference*"])


def test_an_overlay_of_training_is_none_of_inference(pytester, resnet50):
    """Both cases are called resnet50, and their keys are not the same."""
    vendor = pytester.mkdir("vendors") / "cpu"
    shutil.copytree(ROOT / "vendors" / "cpu", vendor, ignore=shutil.ignore_patterns("__pycache__"))
    (vendor / "resnet50.toml").write_text('[[overlay]]\nscale = "lite"\nconfig = { learning_rate = 0.1 }\n')
    pytester.makeconftest(
        "from pathlib import Path\ndef pytest_flagperf_vendors(config): return [Path(__file__).parent / 'vendors']\n"
    )
    assert pytester.runpytest("--collect-only", "--engine=eager").ret == 0
    (vendor / "inference").mkdir()
    (vendor / "inference" / "resnet50.toml").write_text("[[overlay]]\nconfig = { learning_rate = 0.1 }\n")
    done = pytester.runpytest("--collect-only", "--engine=eager")
    done.stdout.fnmatch_lines(["*inference/resnet50.toml: overlay 1: learning_rate is not tunable in resnet50*"])


def test_a_test_may_say_which_engines_it_runs_by_where_none_is_asked_for(pytester, resnet50):
    module = pytester.path / "test_resnet50.py"
    text = module.read_text()
    assert text.count('@pytest.mark.throughput\n@pytest.mark.default_engines("eager", "inductor",') == 1
    text = text.replace('"eager", "inductor", "onnxruntime", "openvino",', '"eager", "onnxruntime",', 1)
    module.write_text(text)
    usual = pytester.runpytest("--collect-only", "-q", "--framework=pytorch", "-m", "throughput and lite")
    usual.stdout.fnmatch_lines(["*[[]pytorch-eager-fp32-1x1-lite]", "*[[]pytorch-onnxruntime-fp32-1x1-lite]"])
    usual.stdout.no_fnmatch_line("*inductor*")
    asked = pytester.runpytest("--collect-only", "-q", "-m", "throughput and lite", "--engine=inductor")
    asked.stdout.fnmatch_lines(["*[[]pytorch-inductor-fp32-1x1-lite]"])
