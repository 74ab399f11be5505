"""From a case to parametrized tests: ids, markers, skips, and what is left alone."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from pytest_flagperf import collection
from pytest_flagperf import launching
from pytest_flagperf import words
from pytest_flagperf.reports import terminal
from tests.conftest import ROOT


# Imported here once: pytester forgets what a session of its own imports, and msgspec then misses its modules.
PLUGIN = (collection, launching, terminal)

TOY = (ROOT / "tests" / "data" / "flagperf" / "toy_suite.py").read_text()
USAGE_ERROR = pytest.ExitCode.USAGE_ERROR
EVERYTHING = (
    "--framework=pytorch,paddle,mindspore",
    f"--precision={','.join(words.PRECISIONS)}",
    "--topology=1x1,1x2,1x8,2x8",
    "--scale=lite,full",
)


@pytest.fixture(autouse=True)
def toy(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The toy suite, where frameworks need not be installed."""
    # Hypothesis is imported anew by every session that runs a test.
    monkeypatch.setenv("PYTEST_ADDOPTS", "-p no:hypothesispytest -p no:anyio")
    monkeypatch.delenv("FLAGPERF_DATA_ROOT")
    monkeypatch.setenv("FLAGPERF_PYTHON", ",".join(f"{name}={sys.executable}" for name in words.FRAMEWORKS))
    return pytester.makepyfile(test_toy=TOY)


def collected(pytester: pytest.Pytester, *arguments: str) -> list[str]:
    _, record = pytester.inline_genitems(*arguments)
    assert record.ret == 0
    (finish,) = record.getcalls("pytest_collection_finish")
    return [item.name for item in finish.session.items]


def test_a_test_has_the_stable_id_that_the_documentation_shows(pytester):
    assert collected(pytester, "--framework=pytorch") == [
        "test_converges[pytorch-fp32-1x1-lite]",
        "test_throughput[pytorch-fp32-1x1-lite]",
    ]


def test_the_ids_of_the_whole_product_are_unique_plain_and_in_order(pytester):
    names = collected(pytester, *EVERYTHING, "-k", "converges")
    expected = [
        f"test_converges[{framework}-{precision}-{topology}-{scale}]"
        for framework in words.FRAMEWORKS
        for precision in words.PRECISIONS
        for topology in ("1x1", "1x2", "1x8", "2x8")
        for scale in ("lite", "full")
    ]
    assert names == expected
    assert len(set(names)) == len(names) == 3 * 8 * 4 * 2
    assert all(name.isascii() and not set(name) & set("/:\\ ") for name in names)


def test_a_thing_named_twice_is_one_test(pytester):
    twice = ("--framework=pytorch,pytorch", "--topology=1x1,1x1", "--scale=lite,lite", "--precision=fp32,fp32")
    assert len(collected(pytester, *twice)) == 2


def test_items_are_pytests_own_functions_and_carry_their_markers(pytester):
    items, _ = pytester.inline_genitems("--framework=paddle", "--precision=fp32", "--topology=1x8", "--scale=full")
    assert all(isinstance(item, pytest.Function) for item in items)
    marks = [{mark.name for mark in item.iter_markers()} for item in items]
    both = {"toy", "paddle", "fp32", "training", "full"}
    assert marks == [both | {"convergence"}, both | {"throughput"}]


@pytest.mark.parametrize(
    ("expression", "count"),
    [
        ("toy and pytorch", 4),
        ("convergence", 6),
        ("throughput and amp and not mindspore", 2),
        ("training and lite", 12),
        ("full or inference", 0),
    ],
)
def test_m_selects_by_model_framework_precision_kind_and_role(pytester, expression, count):
    done = pytester.runpytest_inprocess(
        "--collect-only", "-q", "--strict-markers", "-W", "error", "--precision=fp32,amp", "-m", expression
    )
    # Nothing selected is pytest's exit code 5.
    assert done.ret == (0 if count else 5)
    assert done.stdout.str().count("test_toy.py::") == count


@pytest.mark.parametrize("plugins", [[], ["-p", "no:xdist"], ["-p", "no:allure_pytest"], ["--strict-markers"]])
@pytest.mark.parametrize("expression", ["toyy", "toy and pytorhc", "not tooy"])
def test_a_misspelt_marker_is_a_usage_error_that_lists_what_exists(pytester, plugins, expression):
    done = pytester.runpytest_inprocess(*plugins, "-m", expression)
    assert done.ret == USAGE_ERROR
    wrong = expression.split()[-1]
    assert f"-m: unknown marker '{wrong}'. Models: toy. Frameworks: pytorch, paddle, mindspore." in done.stderr.str()


def test_a_marker_of_the_users_own_is_known(pytester):
    pytester.makeini("[pytest]\nmarkers =\n    nightly(reason): of my own\n")
    done = pytester.runpytest_inprocess("--collect-only", "-q", "-m", "toy and not nightly", "--framework=pytorch")
    assert done.ret == 0
    pytester.makepyfile(test_mine="import pytest\n@pytest.mark.unregistered\ndef test_it(): pass")
    done = pytester.runpytest_inprocess("--collect-only", "-q", "-m", "unregistered")
    assert done.stdout.str().count("test_mine.py::test_it") == 1


def test_a_malformed_expression_is_left_to_pytest(pytester):
    done = pytester.runpytest_inprocess("-m", "toy and (")
    assert done.ret == USAGE_ERROR
    assert "Wrong expression passed to '-m'" in done.stderr.str()


def test_under_xdist_the_same_tests_run(pytester):
    options = ("--framework=pytorch,paddle", "--topology=1x1,1x2", "-m", "convergence")
    serial = sorted(f"test_toy.py::{name}" for name in collected(pytester, *options))
    done = pytester.runpytest_subprocess("-n", "2", "-v", "--strict-markers", *options)
    done.assert_outcomes(passed=len(serial))
    ran = {line.split()[-1] for line in done.outlines if "PASSED" in line}
    assert sorted(ran) == serial


def test_under_xdist_a_misspelt_marker_is_the_same_usage_error(pytester):
    done = pytester.runpytest_subprocess("-n", "2", "-m", "toyy")
    assert done.ret == USAGE_ERROR
    assert "-m: unknown marker 'toyy'. Models: toy." in done.stderr.str()
    assert "INTERNALERROR" not in done.stdout.str() + done.stderr.str()


def test_under_xdist_an_unknown_option_value_is_the_same_usage_error(pytester):
    done = pytester.runpytest_subprocess("-n", "2", "--precision=fp31")
    assert done.ret == USAGE_ERROR
    assert "unknown precision 'fp31'. Known: fp64, fp32" in done.stderr.str()
    assert "INTERNALERROR" not in done.stdout.str() + done.stderr.str()


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--precision=int8"], "toy is not defined in int8; it is in fp32, tf32"),
        (["--precision=tf32", "--vendor=cpu"], "CPU has no tf32; it has fp64, fp32"),
    ],
)
def test_what_does_not_exist_is_skipped_and_says_why(pytester, arguments, reason):
    done = pytester.runpytest_inprocess("-rs", "--framework=pytorch", *arguments)
    done.assert_outcomes(skipped=2)
    assert reason in done.stdout.str()


def test_a_suite_without_the_framework_or_the_scale_asked_for_says_which_it_has(pytester):
    pytester.makepyfile(test_toy=TOY.replace('"mindspore": "toy:Toy"', "").replace('"full": Scale(', '"lite": Scale('))
    done = pytester.runpytest_inprocess("-rs", "--framework=mindspore")
    done.assert_outcomes(skipped=2)
    assert "toy has no workload for mindspore" in done.stdout.str()
    done = pytester.runpytest_inprocess("-rs", "--scale=full")
    done.assert_outcomes(skipped=2)
    assert "toy has no scale full; it has lite" in done.stdout.str()


@pytest.mark.parametrize("marks", ["", "@pytest.mark.convergence\n@pytest.mark.throughput\n"])
def test_a_test_of_a_case_needs_exactly_one_role(pytester, marks):
    pytester.makepyfile(test_toy=TOY.replace("@pytest.mark.convergence\n", marks))
    done = pytester.runpytest_inprocess()
    assert done.ret == pytest.ExitCode.INTERRUPTED
    assert "needs exactly one role, has " in done.stdout.str()
    assert "mark it with one of @pytest.mark.convergence, @pytest.mark.throughput" in done.stdout.str()


def test_a_module_without_a_case_is_left_alone(pytester):
    pytester.makepyfile(
        test_toy="def test_plain(): pass",
        test_other="""
            import pytest
            CASE = {"not": "ours"}
            @pytest.fixture
            def case(): return CASE
            def test_theirs(case): assert case == {"not": "ours"}
        """,
    )
    done = pytester.runpytest_inprocess("-v", "--strict-markers")
    done.assert_outcomes(passed=2)
    done.stdout.fnmatch_lines(["*test_theirs PASSED*", "*test_plain PASSED*"])


def test_a_test_beside_a_case_that_does_not_ask_for_it_is_left_alone(pytester):
    pytester.makepyfile(test_toy=TOY + "\n\ndef test_plain(): pass\n")
    assert "test_plain" in collected(pytester, "--framework=pytorch")


def test_without_an_option_a_suite_is_collected_for_this_machine(pytester, monkeypatch):
    monkeypatch.delenv("FLAGPERF_PYTHON")
    monkeypatch.setattr("pytest_flagperf.session.find_spec", lambda name: None)
    assert len(collected(pytester)) == 6, "with no framework installed each of the case's says what to install"


def test_vendors_of_ones_own_come_from_a_conftest(pytester):
    directory = pytester.mkdir("vendors") / "acme"
    directory.mkdir()
    (directory / "vendor.toml").write_text(
        'schema_version = 1\nname = "acme"\ntitle = "Acme"\nprecisions = ["fp32"]\nshared = true\n'
        '[frameworks.pytorch]\ndevice = "acme"\n'
    )
    pytester.makeconftest("def pytest_flagperf_vendors(config): return [config.rootpath / 'vendors']")
    done = pytester.runpytest_inprocess("--vendor=acme", "-rs", "--framework=pytorch,paddle")
    done.assert_outcomes(passed=2, skipped=2)
    assert "Acme has no paddle; it has pytorch" in done.stdout.str()
    done = pytester.runpytest_inprocess("--vendor=acne")
    assert done.ret == USAGE_ERROR
    assert "Known: acme, amd (rocm), " in done.stderr.str()


def test_a_vendors_overlay_that_breaks_the_rules_stops_the_collection(pytester):
    (pytester.mkdir("vendors") / "cpu").mkdir()
    for path in (ROOT / "vendors" / "cpu").glob("*.*"):
        (pytester.path / "vendors" / "cpu" / path.name).write_text(path.read_text())
    pytester.makeconftest("def pytest_flagperf_vendors(config): return [config.rootpath / 'vendors']")
    overlay = pytester.path / "vendors" / "cpu" / "toy.toml"
    overlay.write_text("[[overlay]]\nconfig = { top1 = 0.1 }\n")
    done = pytester.runpytest_inprocess()
    assert done.ret == pytest.ExitCode.INTERRUPTED
    assert "toy.toml: overlay 1: top1 is a target of toy; a vendor cannot change a target" in done.stdout.str()
    overlay.write_text('[[overlay]]\nscale = "lite"\nconfig = { batch_size = 16 }\n')
    pytester.makepyfile(
        test_toy=TOY + "\n\n@pytest.mark.convergence\ndef test_size(case): assert case.config['batch_size'] == 16"
    )
    pytester.runpytest_inprocess("-k", "test_size", "--framework=pytorch").assert_outcomes(passed=1, deselected=2)


def test_the_suites_that_ship_are_collected_under_strict_markers(pytester):
    for name in ("resnet50", "wide_deep"):
        source = ROOT / "suites" / "training" / name / f"test_{name}.py"
        pytester.makepyfile(**{f"test_{name}": source.read_text()})
    done = pytester.runpytest_inprocess("--collect-only", "-q", "--strict-markers", "-m", "resnet50 and paddle")
    assert done.ret == 0
    assert done.stdout.str().count("test_resnet50.py::") == 2
    assert "wide_deep" not in done.stdout.str()
