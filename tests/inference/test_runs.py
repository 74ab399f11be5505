"""Cases of inference, run: what comes of right engines, and why wrong ones fail."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pytest_flagperf import cli


pytestmark = pytest.mark.slow


def events(pytester: pytest.Pytester, engine: str) -> list[dict]:
    (path,) = (pytester.path / "results").glob(f"*/*-{engine}-*/round1/*/rank0.events.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()]


def value(log: list[dict], name: str) -> dict:
    (found,) = [event["value"] for event in log if event["event"] == name]
    return found


def test_an_engine_is_measured_and_its_answers_are_as_right_as_eager_ones(pytester, run):
    done, results = run("-m", "throughput", "--engine=eager,onnxruntime")
    done.assert_outcomes(passed=2)
    for engine in ("eager", "onnxruntime"):
        result = results[engine]
        metrics = {name: one["value"] for name, one in result["metrics"].items()}
        assert result["verdict"] == "passed"
        assert metrics["top1"] >= 0.84
        assert metrics["quality_ratio"] == pytest.approx(1, abs=0.01)
        assert metrics["output_error"] < 1e-3
        assert 0 < metrics["p_inference_whole"] <= metrics["p_inference_core"]
        assert metrics["engine_size"] > 0.09  # 25,450 numbers of four bytes
        assert result["weights"]["name"] == "perceptron-digits"
        assert result["weights"]["origin"].startswith("trained here: perceptron lite, seed 1, on digits")
        assert [one["step"] for one in result["rounds"][0]["evaluations"]] == [0, 1]
    log = events(pytester, "onnxruntime")
    # 1,000 digits twice: the last batches of 40 count as what they hold.
    assert value(log, "INFERENCE_END")["samples"] == 2000
    assert value(log, "PRECISION")["provider"] == "CPUExecutionProvider"
    assert value(log, "FINISHED")["answers_compared"] == 32
    assert results["onnxruntime"]["stack"]["onnxruntime"]
    names = [event["event"] for event in log if event["event"] not in ("PROGRESS", "QUERIES")]
    assert names == [
        *("LAUNCH_TRAINING", "SUBMIT_INFO", "INIT_START", "LOAD_BEGIN", "LOAD_END", "INIT_END"),
        *("VALIDATION_BEGIN", "VALIDATION_END", "EXPORT_BEGIN", "EXPORT_END", "COMPILE_BEGIN", "COMPILE_END"),
        *("PRECISION", "WARMUP_END", "ACCURACY_BEGIN", "ACCURACY_END", "INFERENCE_BEGIN", "INFERENCE_END", "FINISHED"),
    ]
    done.stdout.fnmatch_lines(["inference*engine*kept*p_infer_core*", "perceptron throughput*onnxruntime*passed"])


def test_the_edge_takes_one_sample_at_a_time_and_tells_latencies(pytester, run):
    done, results = run("-m", "edge", "--engine=onnxruntime")
    done.assert_outcomes(passed=1)
    metrics = {name: one["value"] for name, one in results["onnxruntime"]["metrics"].items()}
    assert metrics["latency_p50"] <= metrics["latency_p90"] <= metrics["latency_p99"] <= metrics["latency_p999"]
    log = events(pytester, "onnxruntime")
    assert value(log, "INFERENCE_BEGIN")["batch_size"] == 1
    assert sum(len(one["value"]["latencies_ns"]) for one in log if one["event"] == "QUERIES") == 2000
    done.stdout.fnmatch_lines(["perceptron edge* MiB *passed"])


def test_precisions_that_an_engine_lacks_are_skipped_and_the_others_are_in_force(pytester, run):
    done, results = run("-m", "throughput", "--engine=eager,onnxruntime", "--precision=bf16,int8", "-rs")
    done.assert_outcomes(passed=2, skipped=2)
    done.stdout.fnmatch_lines(["*engine eager has no int8; it has fp32, bf16, fp16*"])
    assert results["eager"]["rounds"][0]["precision"]["parameters"] == "torch.bfloat16"
    assert 1e-5 < results["eager"]["metrics"]["output_error"]["value"] < 0.1
    int8 = results["onnxruntime"]
    assert int8["rounds"][0]["precision"]["weights"] == "int8"
    assert int8["metrics"]["quality_ratio"]["value"] >= 0.99
    # Quantised, its outputs differ visibly, and a quarter of the bytes is left.
    assert int8["metrics"]["output_error"]["value"] > 1e-3
    assert int8["metrics"]["engine_size"]["value"] < 0.06
    assert "output_error" not in [one["metric"] for one in int8["targets"]]


def test_wrong_engines_fail_each_for_its_reason(pytester, run):
    done, results = run("-m", "throughput", "--engine=perturbed,shifted,cached,truncated,notanumber")
    done.assert_outcomes(failed=5)
    said = done.stdout.str()
    assert results["perturbed"]["verdict"] == "missed"
    assert "output_error <= 0.001: " in said
    assert results["shifted"]["verdict"] == "missed"
    missed = {one["metric"] for one in results["shifted"]["targets"] if not one["met"]}
    assert missed == {"top1", "quality_ratio", "output_error"}
    assert {one["metric"] for one in results["perturbed"]["targets"] if not one["met"]} >= {"output_error"}
    for engine, reason in (
        ("cached", "while it was measured the engine answered otherwise to sample"),
        ("truncated", "engine truncated answered 39 of the 40 samples of a batch"),
        ("notanumber", "engine notanumber answered with NaN or infinity"),
    ):
        assert results[engine]["verdict"] == "invalid"
        assert results[engine]["error"]["type"] == "InvalidMeasurement"
        assert reason in results[engine]["error"]["message"]
        assert reason in said
        assert results[engine]["metrics"] == {}


def test_quantisation_with_bad_calibration_data_misses_the_quality(run, monkeypatch):
    monkeypatch.setenv("PERCEPTRON_FAULT", "calibration")
    done, results = run("-m", "throughput", "--engine=onnxruntime", "--precision=int8")
    done.assert_outcomes(failed=1)
    assert results["onnxruntime"]["verdict"] == "missed"
    done.stdout.fnmatch_lines(["*quality_ratio >= 0.99: * (missed; MLPerf Inference)*", "*eager fp32 * top1 0.*"])


def test_a_crash_a_hang_and_a_lack_of_memory_are_told_and_the_next_case_runs(run, marked, monkeypatch):
    monkeypatch.setenv("PERCEPTRON_COMPILE_TIMEOUT", "10")
    done, results = run("-m", "throughput", "--engine=crashing,hanging,outofmemory,eager")
    done.assert_outcomes(failed=3, passed=1)
    assert results["crashing"]["error"]["type"] == "RankCrashed"
    assert "SIGABRT" in results["crashing"]["error"]["message"]
    assert results["hanging"]["error"]["type"] == "RankStalled"
    assert "in compile" in results["hanging"]["error"]["message"]
    assert "Unable to allocate" in results["outofmemory"]["error"]["message"]
    assert results["eager"]["verdict"] == "passed"
    assert not marked()


def test_an_engine_that_is_not_installed_is_an_error_where_it_was_asked_for_and_else_a_skip(perceptron, run):
    done, results = run("-m", "throughput", "--engine=absent")
    done.assert_outcomes(errors=1)
    done.stdout.fnmatch_lines(["*engine absent needs no_such_package_at_all*pip install no-such-package-at-all*"])
    assert results["absent"]["error"]["type"] == "ConfigurationError"
    module = perceptron / "test_perceptron.py"
    module.write_text(module.read_text().replace('"inductor", "onnxruntime"', '"absent"'))
    done, _ = run("-m", "throughput", "-rs")
    done.assert_outcomes(passed=1, skipped=1)
    done.stdout.fnmatch_lines(["*SKIPPED*engine absent needs no_such_package_at_all*"])


def test_random_weights_and_synthetic_data_are_measured_for_speed_only_and_say_so(run):
    done, results = run("-m", "throughput", "--engine=eager", "--weights=perceptron-digits=random")
    done.assert_outcomes(passed=1)
    result = results["eager"]
    assert [one["metric"] for one in result["targets"]] == ["output_error"]
    assert "top1" not in result["metrics"]
    assert result["weights"]["origin"] == "random"
    done.stdout.fnmatch_lines(["*passed (random weights)", "note: the weights are random: only the speed*"])


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "there is no file"),
        (b"no weights at all", "cannot be read"),
    ],
    ids=["missing", "corrupt"],
)
def test_weights_of_the_user_that_cannot_be_read_say_what_to_do(pytester: pytest.Pytester, run, content, reason):
    path = Path(pytester.path / "own.npz")
    if content is not None:
        path.write_bytes(content)
    done, results = run("-m", "throughput", "--engine=eager", f"--weights=perceptron-digits={path}")
    assert done.ret == 1
    assert results["eager"]["error"]["type"] == "DatasetError"
    assert reason in results["eager"]["error"]["message"]
    assert str(path) in results["eager"]["error"]["message"]


def test_a_recorded_run_is_judged_and_verified_again_without_being_run(pytester, run):
    run("-m", "throughput", "--engine=eager")
    (session,) = (pytester.path / "results").iterdir()
    # Every figure follows from the files of the session, and a faster one does not.
    assert cli.main(["verify", str(session)]) == 0
    (path,) = session.glob("*/result.json")
    text = path.read_text()
    told = json.loads(text)
    told["metrics"]["p_inference_core"]["value"] *= 2
    path.write_text(json.dumps(told))
    assert cli.main(["verify", str(session)]) != 0
    path.write_text(text)
    session.rename(pytester.path / "kept")
    done, results = run("-m", "throughput", "--replay=kept")
    done.assert_outcomes(passed=1)
    assert results["eager"]["metrics"]["p_inference_core"]["value"] > 0
    assert "replayed" in results["eager"]["notes"]
