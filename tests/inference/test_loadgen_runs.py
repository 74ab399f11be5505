"""Cases in LoadGen's roles, run as jobs: from the test of a suite to the figures of its result."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from pytest_flagperf.commands import verify


pytest.importorskip("mlperf_loadgen")
pytestmark = pytest.mark.slow

ROLES = """

@pytest.mark.{role}
def test_{role}(case, devices, dataset, launcher):
    run = launcher.run(case, devices, dataset)
    assert run.keeps_quality()
"""
# Short, and with a bound that holds on a busy machine.
CONFIG = """
                "loadgen_duration": {duration},
                "search_duration": 0.2,
                "search_precision": 0.4,
                "latency_bound": 1000,
                "hidden": 32,
"""
RATES = {
    "single_stream": ("p_inference_whole", "QPS w/ loadgen overhead"),
    "server": ("qps", "Completed samples per second"),
    "offline": ("p_inference_whole", "Samples per second"),
}


@pytest.fixture
def in_role(perceptron, run):
    """Runs the perceptron's suite in a role; gives what pytest said and the result."""

    def in_role(role, *arguments, engine="eager", duration=0.5):
        module = perceptron / "test_perceptron.py"
        text = module.read_text().replace(
            '                "hidden": 32,\n', CONFIG.format(duration=duration).lstrip("\n")
        )
        module.write_text(text + ROLES.format(role=role))
        done, results = run("-m", role, f"--engine={engine}", *arguments)
        return done, results[engine]

    return in_role


def directory(pytester) -> Path:
    (found,) = (pytester.path / "results").glob("*/*/round1/*/rank0.events.jsonl")
    return found.parent


def told(pytester) -> dict:
    log = [json.loads(line) for line in (directory(pytester) / "rank0.events.jsonl").read_text().splitlines()]
    return [one for one in log if one["event"] == "INFERENCE_END"][-1]["value"]["loadgen"]


@pytest.mark.parametrize("role", ["single_stream", "multi_stream", "server", "offline"])
def test_the_figures_of_a_result_are_those_that_loadgen_printed(pytester, in_role, role):
    done, result = in_role(role)
    done.assert_outcomes(passed=1)
    assert result["verdict"] == "passed"
    metrics = {name: one["value"] for name, one in result["metrics"].items()}
    text = (directory(pytester) / told(pytester)["directory"] / "mlperf_log_summary.txt").read_text()
    if role in RATES:
        name, key = RATES[role]
        assert metrics[name] == float(re.search(rf"^{key}\s*: (\S+)$", text, re.MULTILINE)[1])
    if role != "offline":
        nanoseconds = {name: round(metrics[f"latency_{name}"] * 1e6) for name in ("mean", "p99")}
        assert f"Mean latency (ns)               : {nanoseconds['mean']}\n" in text
        assert f"99.00 percentile latency (ns)   : {nanoseconds['p99']}\n" in text
    assert any("was shortened, no MLPerf result: duration 0.5 of 600" in note for note in result["notes"])
    said = result["rounds"][0]["loadgen"]
    assert (said["valid"], said["shortened"]["duration"]) == (True, [0.5, 600.0])
    log = (directory(pytester) / "rank0.events.jsonl").read_text()
    assert '"answers_compared": 0' not in log and '"answers_compared": ' in log


def test_a_run_that_loadgen_calls_invalid_is_invalid_and_says_why(in_role, perceptron):
    module = perceptron / "test_perceptron.py"
    # A bound of a nanosecond: no rate can hold it.
    module.write_text(module.read_text() + '\nCASE.scales["lite"].config["latency_bound"] = 1e-6\n')
    done, result = in_role("server")
    done.assert_outcomes(failed=1)
    assert result["verdict"] == "invalid"
    assert result["error"]["type"] == "InvalidMeasurement"
    done.stdout.fnmatch_lines(["*no rate can hold latency_bound = 1e-06 ms: one sample alone takes*"])


def test_the_result_of_an_invalid_run_has_loadgens_word_and_reasons(pytester, in_role, perceptron):
    module = perceptron / "test_perceptron.py"
    # Early stopping at the 99th percentile needs more.
    module.write_text(module.read_text() + '\nCASE.scales["lite"].config["loadgen_queries"] = 20\n')
    _, result = in_role("multi_stream", duration=0.001)
    assert result["verdict"] == "invalid"
    said = result["rounds"][0]["loadgen"]
    assert (said["scenario"], said["valid"]) == ("MultiStream", False)
    assert "Early stopping satisfied: NO" in said["reasons"]
    assert told(pytester)["valid"] is False


def test_what_a_result_says_of_loadgen_has_to_follow_from_its_events(pytester, in_role):
    in_role("offline", duration=0.2)
    (path,) = (pytester.path / "results").glob("*/*/result.json")
    session = path.parent.parent
    before = [text for text in map(str, verify.of_session(session).findings.problems) if "loadgen" in text]
    document = json.loads(path.read_bytes())
    document["rounds"][0]["loadgen"]["shortened"] = {}
    path.write_text(json.dumps(document))
    after = [text for text in map(str, verify.of_session(session).findings.problems) if "loadgen" in text]
    assert (len(before), len(after)) == (0, 1)


@pytest.mark.parametrize("role", ["single_stream", "server"])
def test_an_engine_that_raises_while_loadgen_asks_fails_with_its_traceback(in_role, role, marked, breaking):
    breaking("raise RuntimeError('the device fell off the bus')")
    done, result = in_role(role, duration=5)
    done.assert_outcomes(failed=1)
    assert "the device fell off the bus" in result["error"]["message"]
    done.stdout.fnmatch_lines(["*in execute*"])
    assert not marked()


@pytest.mark.parametrize("role", ["single_stream", "server"])
def test_an_engine_that_hangs_while_loadgen_asks_is_a_stall(in_role, role, marked, breaking):
    breaking("import time; time.sleep(3600)")
    done, result = in_role(role, "--stall-timeout=10", duration=5)
    done.assert_outcomes(failed=1)
    assert result["error"]["type"] == "RankStalled"
    assert not marked()


@pytest.fixture
def breaking(perceptron):
    """Has eager execution do something else once LoadGen has asked for a hundred batches."""

    def breaking(what: str) -> None:
        module = perceptron / "pytorch.py"
        module.write_text(module.read_text() + BREAKING.format(what=what))

    return breaking


BREAKING = """

from pathlib import Path
from pytest_flagperf.worker.inference.engines.eager import Eagerly

right, asked = Eagerly.execute, []

def execute(self):
    if Path("loadgen").exists():
        asked.append(1)
    if len(asked) > 100:
        {what}
    right(self)

Eagerly.execute = execute
"""
