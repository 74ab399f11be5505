"""Roles of LoadGen's, run: its figures are ours, what it calls invalid is, and nothing hangs."""

from __future__ import annotations

import re
import sys
import threading
import traceback
from pathlib import Path

import pytest

from pytest_flagperf import loadgen_log
from pytest_flagperf import perflog
from pytest_flagperf.errors import ConfigurationError
from pytest_flagperf.errors import InvalidMeasurement


pytest.importorskip("mlperf_loadgen")
np = pytest.importorskip("numpy")

from pytest_flagperf.worker.inference import loadgen  # noqa: E402
from pytest_flagperf.worker.inference import loadgen_samples  # noqa: E402
from pytest_flagperf.worker.inference import loadgen_systems  # noqa: E402
from pytest_flagperf.worker.inference.scenarios import Scenario  # noqa: E402
from tests.inference.loadgen_bench import SAMPLES  # noqa: E402
from tests.inference.loadgen_bench import Product  # noqa: E402
from tests.inference.loadgen_bench import Texts  # noqa: E402
from tests.inference.loadgen_bench import event  # noqa: E402
from tests.inference.loadgen_bench import under_test  # noqa: E402


# Everything is answered within it, however busy the machine is.
WIDE = {"latency_bound": 20_000, "search_duration": 0.1, "search_precision": 0.4, "loadgen_queries": 700}
ROLES = {
    "single_stream": loadgen.single_stream,
    "multi_stream": loadgen.multi_stream,
    "offline": loadgen.offline,
}


@pytest.fixture(autouse=True)
def nothing_is_left_behind():
    before, interval = threading.active_count(), sys.getswitchinterval()
    yield
    assert threading.active_count() == before
    assert sys.getswitchinterval() == interval


@pytest.fixture
def steady(monkeypatch):
    """Server at one rate that is not searched for."""

    def search(passes, start, *, precision):
        assert passes(500.0)
        return loadgen.server_search.Found(500.0, 600.0)

    monkeypatch.setattr(loadgen.server_search, "search", search)


def summary(directory: Path) -> str:
    """What LoadGen left on disk of the run that counts."""
    told = event(directory, perflog.INFERENCE_END).value["loadgen"]
    return (directory / told["directory"] / "mlperf_log_summary.txt").read_text()


def printed(text: str, key: str) -> str:
    (found,) = re.findall(rf"^{re.escape(key)}\s*: (\S+)$", text, re.MULTILINE)
    return found


def agree(directory: Path, rate: tuple[str, str] | None, *, latencies: bool) -> None:
    """Our figures are the digits of LoadGen's file."""
    figures, text = loadgen_log.figures(event(directory, perflog.INFERENCE_END)), summary(directory)
    expected = {}
    if latencies:
        for name, key in (
            ("latency_mean", "Mean latency (ns)"),
            ("latency_p50", "50.00 percentile latency (ns)"),
            ("latency_p90", "90.00 percentile latency (ns)"),
            ("latency_p99", "99.00 percentile latency (ns)"),
            ("latency_p999", "99.90 percentile latency (ns)"),
        ):
            expected[name] = printed(text, key)
    found = {name: str(round(figures[name] * 1e6)) for name in expected}
    assert found == expected
    if rate is not None:
        name, key = rate
        assert figures[name] == float(printed(text, key))
        expected[name] = ""
    estimate = re.search(r"^ \* Early stopping (?:90|99)\.0th percentile estimate: (\d+)$", text, re.MULTILINE)
    if estimate and printed(text, "Scenario").endswith("Stream"):
        assert str(round(figures["latency_early_stopping"] * 1e6)) == estimate[1]
        expected["latency_early_stopping"] = ""
    assert set(figures) == set(expected)
    assert printed(text, "Result is") == "VALID"


def test_single_stream_asks_one_sample_after_the_other(tmp_path):
    test = under_test(tmp_path)
    loadgen.single_stream(test)
    agree(tmp_path, ("p_inference_whole", "QPS w/ loadgen overhead"), latencies=True)
    assert "Early stopping 90.0th percentile estimate" in summary(tmp_path)
    assert test.compiled.sizes == {1}
    assert test.seen.compare(test.accuracy, "fp32")["answers_compared"] > 0


def test_multi_stream_asks_eight_samples_at_a_time(tmp_path):
    test = under_test(tmp_path, batch_size=32)
    loadgen.multi_stream(test)
    agree(tmp_path, None, latencies=True)
    # Those that are left over are of the accuracy run, and were warmed up.
    assert test.compiled.sizes == {8, SAMPLES % 8}
    assert printed(summary(tmp_path), "samples_per_query") == "8"
    assert test.seen.compare(test.accuracy, "fp32")["answers_compared"] > 0


def test_offline_asks_everything_at_once_and_is_answered_in_batches(tmp_path):
    test = under_test(tmp_path, batch_size=32)
    loadgen.offline(test)
    agree(tmp_path, ("p_inference_whole", "Samples per second"), latencies=False)
    assert test.compiled.sizes <= {32, SAMPLES % 32}
    assert event(tmp_path, perflog.INFERENCE_END).value["loadgen"]["samples"] >= 1000
    assert test.seen.compare(test.accuracy, "fp32")["answers_compared"] > 0


def test_server_shows_the_rate_it_found_in_a_run_of_its_own_with_another_schedule(tmp_path, steady):
    test = under_test(tmp_path, **WIDE)
    loadgen.server(test)
    agree(tmp_path, ("qps", "Completed samples per second"), latencies=True)
    begin = event(tmp_path, perflog.INFERENCE_BEGIN).value
    told = event(tmp_path, perflog.INFERENCE_END).value["loadgen"]
    (searched,) = begin["searched"]
    assert searched["rate"] == told["rate"] == 500.0
    assert searched["schedule_seed"] != told["schedule_seed"] == begin["seeds"]["schedule"]
    detail = (tmp_path / told["directory"] / "mlperf_log_detail.txt").read_text()
    assert f'"key": "requested_schedule_rng_seed", "value": {told["schedule_seed"]},' in detail
    assert printed(summary(tmp_path), "target_latency (ns)") == "20000000000"
    # Of any number that was waiting, in batches that the engine was compiled for.
    assert test.compiled.sizes <= {1, 2, 4, 8}
    assert test.seen.compare(test.accuracy, "fp32")["answers_compared"] > 0


@pytest.mark.slow
def test_server_finds_a_rate_by_itself(tmp_path):
    # A millisecond for each sample, whatever the machine: a thousand a second are the ceiling.
    def slow(outputs, call):
        threading.Event().wait(0.001 * len(outputs[0]))
        return outputs

    test = under_test(
        tmp_path, Product(slow), latency_bound=300, search_duration=0.5, search_precision=0.2, loadgen_queries=2000
    )
    loadgen.server(test)
    agree(tmp_path, ("qps", "Completed samples per second"), latencies=True)
    searched = event(tmp_path, perflog.INFERENCE_BEGIN).value["searched"]
    assert {one["valid"] for one in searched} == {True, False}
    assert len({one["schedule_seed"] for one in searched}) == len(searched)
    assert loadgen_log.figures(event(tmp_path, perflog.INFERENCE_END))["qps"] < 1000


def test_a_bound_below_the_time_of_one_sample_is_refused_before_a_run(tmp_path):
    with pytest.raises(InvalidMeasurement, match=r"no rate can hold latency_bound = 1e-05 ms: one sample alone takes"):
        loadgen.server(under_test(tmp_path, **{**WIDE, "latency_bound": 1e-5}))
    assert not (tmp_path / "loadgen").exists()


def test_a_shortened_run_says_so_and_a_whole_one_does_not(tmp_path):
    loadgen.single_stream(under_test(tmp_path))
    log = perflog.read_events(tmp_path / "rank0.events.jsonl")
    assert event(tmp_path, perflog.INFERENCE_BEGIN).value["shortened"] == {"duration": [0.2, 600.0]}
    (note,) = loadgen_log.notes(log)
    assert note == "SingleStream was shortened, no MLPerf result: duration 0.2 of 600 (s, samples or queries)"
    begin = event(tmp_path, perflog.INFERENCE_BEGIN)
    begin.value["shortened"] = {}
    assert loadgen_log.notes([begin, event(tmp_path, perflog.INFERENCE_END)]) == []


def test_a_run_that_loadgen_calls_invalid_is_none_and_the_reason_is_loadgens(tmp_path):
    # Early stopping at the 99th percentile needs 662 queries; a short run of a slow engine has no more than it has to.
    def slow(outputs, call):
        threading.Event().wait(0.002)
        return outputs

    test = under_test(tmp_path, Product(slow), loadgen_queries=50, loadgen_duration=0.05)
    with pytest.raises(InvalidMeasurement) as failed:
        loadgen.multi_stream(test)
    assert str(failed.value).startswith("LoadGen calls its MultiStream run INVALID: Early stopping satisfied: NO; Only")
    assert "Need to process at least 662 queries for early stopping." in str(failed.value)
    # What LoadGen said is kept, and gives no figure.
    with pytest.raises(InvalidMeasurement, match="LoadGen calls its MultiStream run INVALID"):
        loadgen_log.figures(event(tmp_path, perflog.INFERENCE_END))
    said = loadgen_log.said(perflog.read_events(tmp_path / "rank0.events.jsonl"))
    assert said is not None
    assert (said.scenario, said.valid, said.reasons[0]) == ("MultiStream", False, "Early stopping satisfied: NO")
    assert said.shortened == {"duration": [0.05, 600.0], "queries": [50.0, 662.0]}


def test_a_server_of_too_few_queries_for_early_stopping_is_refused_before_any_rate_is_tried(tmp_path):
    few = {"latency_bound": 100.0, "loadgen_duration": 0.05}
    with pytest.raises(ConfigurationError, match="of fewer than 459 queries"):
        loadgen.server(under_test(tmp_path, loadgen_queries=458, **few))
    with pytest.raises(ConfigurationError, match="of fewer than 44 queries"):
        loadgen.server(under_test(tmp_path, loadgen_queries=43, latency_percentile=0.9, **few))


def test_a_percentile_below_the_rules_is_told_as_shortened():
    config = {"latency_bound": 100.0, "latency_percentile": 0.9}
    assert Scenario.of("server", config, 1000).shortened() == {"percentile": [0.9, 0.99]}


def test_a_run_that_was_too_short_is_made_again_with_more_queries(tmp_path, monkeypatch):
    # A guess of a tenth of the speed: LoadGen runs out of samples.
    monkeypatch.setattr(loadgen.Bench, "guess", lambda bench: bench.capacity / 100)
    test = under_test(tmp_path, offline_samples=1, loadgen_duration=0.5)
    loadgen.offline(test)
    begin = event(tmp_path, perflog.INFERENCE_BEGIN).value
    assert begin["attempt"] > 1
    assert (tmp_path / "loadgen" / "run1" / "mlperf_log_summary.txt").read_text().count("INVALID") == 1


@pytest.mark.parametrize("role", sorted(ROLES))
def test_what_the_engine_raises_fails_the_run_with_its_traceback(tmp_path, role):
    measured = []

    def broken(outputs, call):
        if (tmp_path / "loadgen").exists():
            measured.append(call)
        if len(measured) > 50:
            raise RuntimeError("the device fell off the bus")
        return outputs

    with pytest.raises(RuntimeError, match="fell off the bus") as failed:
        ROLES[role](under_test(tmp_path, Product(broken), offline_samples=50_000))
    assert "in broken" in "".join(traceback.format_exception(failed.value))


def test_what_the_engine_raises_ends_a_server_run_long_before_its_time(tmp_path, steady, monkeypatch):
    test = under_test(tmp_path, **{**WIDE, "latency_bound": 100, "search_duration": 3600})

    def broken(outputs, call):
        assert threading.current_thread() is threading.main_thread()
        if (tmp_path / "loadgen").exists():
            raise RuntimeError("the device fell off the bus")
        return outputs

    # Of 500 queries/s for an hour LoadGen asks no more than 200 that nobody answers.
    test.compiled.change = broken
    monkeypatch.setattr(loadgen_systems, "GRACE", 60.0)
    with pytest.raises(RuntimeError, match="fell off the bus") as failed:
        loadgen.server(test)
    assert "in broken" in "".join(traceback.format_exception(failed.value))


def test_what_loading_the_samples_raises_fails_the_run(tmp_path, monkeypatch, steady):
    def unreadable(self, indices):
        raise OSError("image 17 cannot be read")

    monkeypatch.setattr(loadgen_samples.Library, "load", unreadable)
    with pytest.raises(OSError, match="image 17"):
        loadgen.offline(under_test(tmp_path))
    (tmp_path / "server").mkdir()
    with pytest.raises(OSError, match="image 17"):
        loadgen.server(under_test(tmp_path / "server", **WIDE))


def test_answers_that_were_cached_are_found_by_the_log_of_loadgen(tmp_path):
    kept = []

    def cached(outputs, call):
        kept.append(outputs)
        return kept[0]

    test = under_test(tmp_path, Product(cached))
    loadgen.single_stream(test)
    with pytest.raises(InvalidMeasurement, match="answered otherwise to sample"):
        test.seen.compare(test.accuracy, "fp32")


@pytest.mark.parametrize("role", sorted(ROLES))
def test_answers_that_are_cut_short_are_refused(tmp_path, role):
    def narrow(outputs, call):
        return (outputs[0][:, :-1],)

    with pytest.raises(InvalidMeasurement, match="with 12 bytes, in its accuracy run with 16"):
        ROLES[role](under_test(tmp_path, Product(narrow)))


def test_a_batch_with_a_sample_too_few_is_refused(tmp_path):
    def truncated(outputs, call):
        return (outputs[0][:-1],) if call > 1000 else outputs

    with pytest.raises(InvalidMeasurement, match="answered 7 of the 8 samples of a batch"):
        loadgen.multi_stream(under_test(tmp_path, Product(truncated)))


def test_answers_of_different_lengths_reach_loadgen_without_their_padding(tmp_path):
    test = under_test(tmp_path, workload=Texts)
    loadgen.multi_stream(test)
    assert {len(answer[0]) for _, answer in test.seen.taken} == {1, 2, 3, 4, 5}
    assert test.seen.compare(test.accuracy, "fp32")["answers_apart"] == 0
    assert "the data pipeline counts" in loadgen_log.notes(perflog.read_events(tmp_path / "rank0.events.jsonl"))[1]


def test_equal_samples_of_a_batch_are_not_the_same_memory(tmp_path):
    test = under_test(tmp_path)
    library = loadgen_samples.Library(test.workload, 8, lambda done, of: None)
    library.load([3, 4, 5])
    (first,), (second,) = library.inputs([4, 4]), library.inputs([4, 4])
    assert library.in_memory
    assert not np.shares_memory(first[0], first[1]) and not np.shares_memory(first, second)
    assert (first == test.workload.rows[4]).all()


def test_what_a_model_raises_when_it_cuts_off_padding_fails_the_run(tmp_path):
    class Broken(Texts):
        def answer(self, outputs, row, index):
            if (tmp_path / "loadgen").exists():
                raise ValueError("no length is known")
            return super().answer(outputs, row, index)

    with pytest.raises(ValueError, match="no length is known"):
        loadgen.multi_stream(under_test(tmp_path, workload=Broken))


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"loadgen_duration": 0}, "loadgen_duration is 0"),
        ({"loadgen_queries": "many"}, "loadgen_queries is 'many'"),
        ({"loadgen_samples": 5}, "needs 8 samples to draw from, there are 5"),
    ],
)
def test_settings_that_cannot_be_are_named(tmp_path, config, reason):
    with pytest.raises(ConfigurationError, match=reason):
        loadgen.multi_stream(under_test(tmp_path, **config))


def test_queries_that_do_not_fit_into_memory_are_refused_before_loadgen_makes_them(tmp_path, monkeypatch):
    memory = tmp_path / "meminfo"
    memory.write_text("MemTotal:       8 kB\nMemAvailable:       2048 kB\n")
    monkeypatch.setattr(loadgen, "_MEMORY", memory)
    with pytest.raises(ConfigurationError, match="set a shorter loadgen_duration"):
        loadgen.single_stream(under_test(tmp_path, loadgen_duration=600))
    assert not (tmp_path / "loadgen").exists()


def test_the_server_needs_a_bound(tmp_path):
    with pytest.raises(ConfigurationError, match="needs latency_bound"):
        loadgen.server(under_test(tmp_path))
