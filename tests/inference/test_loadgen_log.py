"""LoadGen's logs: read to the digit, refused where they are torn; and which rate a server is said to hold."""

from __future__ import annotations

import json
import random

import pytest

from pytest_flagperf import loadgen_log
from pytest_flagperf import perflog
from pytest_flagperf.errors import InvalidMeasurement
from pytest_flagperf.perflog import Event
from pytest_flagperf.result import LoadGenResult
from pytest_flagperf.worker.inference import loadgen_results
from pytest_flagperf.worker.inference import scenarios
from pytest_flagperf.worker.inference import server_search


VALID = """\
================================================
MLPerf Results Summary
================================================
SUT name : PyFastSUT
Scenario : Server
Mode     : PerformanceOnly
Completed samples per second    : 497.31
Result is : VALID
  Performance constraints satisfied : Yes
  Min duration satisfied : Yes
  Min queries satisfied : Yes
  Early stopping satisfied: Yes
Early Stopping Result:
 * Run successful.

================================================
Additional Stats
================================================
Scheduled samples per second : 500.12
Min latency (ns)                : 523290
Max latency (ns)                : 12121527
Mean latency (ns)               : 1234567
50.00 percentile latency (ns)   : 1100001
90.00 percentile latency (ns)   : 2200002
95.00 percentile latency (ns)   : 2300003
97.00 percentile latency (ns)   : 2400004
99.00 percentile latency (ns)   : 3300005
99.90 percentile latency (ns)   : 9900006

================================================
Test Parameters Used
================================================
samples_per_query : 1
target_qps : 500

No warnings encountered during test.

No errors encountered during test.
"""
INVALID = (
    VALID.replace("Result is : VALID", "Result is : INVALID")
    .replace("Performance constraints satisfied : Yes", "Performance constraints satisfied : NO")
    .replace("Early stopping satisfied: Yes", "Early stopping satisfied: NO\nRecommendations:\n * Reduce target QPS.")
    .replace(" * Run successful.", " * Run unsuccessful.\n * Would need to run at least 42 more queries,\n with luck.")
)
DISTURBED = "a higher one may hold, if the host was disturbed while the rate was searched for"
ERROR = "Ending early: Too many outstanding queries."


def ended(summary: object, **told: object) -> Event:
    return Event(perflog.INFERENCE_END, {"loadgen": {"summary": summary, "errors": [], **told}})


def line(key: str, value: object, *, error: bool = False) -> str:
    return ":::MLLOG " + json.dumps({"key": key, "value": value, "metadata": {"is_error": error}}) + "\n"


def test_the_figures_are_those_that_loadgen_printed():
    assert loadgen_log.figures(ended(VALID)) == {
        "qps": 497.31,
        "latency_mean": 1.234567,
        "latency_p50": 1.100001,
        "latency_p90": 2.200002,
        "latency_p99": 3.300005,
        "latency_p999": 9.900006,
    }


@pytest.mark.parametrize(
    ("scenario", "printed", "figure"),
    [
        ("SingleStream", "90.0th percentile estimate: 28435778", 28.435778),
        # Of so many queries LoadGen estimates the 99th percentile too.
        ("SingleStream", "90.0th percentile estimate: 5\n * Early stopping 99.0th percentile estimate: 7", 5e-6),
        ("MultiStream", "99.0th percentile estimate: 41716786", 41.716786),
        ("MultiStream", "90.0th percentile estimate: 41716786", None),
        ("Server", "99.0th percentile estimate: 41716786", None),
    ],
)
def test_a_stream_is_ranked_by_the_estimate_of_early_stopping(scenario, printed, figure):
    text = VALID.replace("Scenario : Server", f"Scenario : {scenario}").replace(
        " * Run successful.", f" * Early stopping {printed}"
    )
    text = text.replace("Completed", "QPS w/ loadgen overhead : 497.31\nCompleted")
    assert loadgen_log.figures(ended(text)).get("latency_early_stopping") == figure


def test_a_run_without_loadgen_has_none_of_its_figures():
    assert loadgen_log.figures(Event(perflog.INFERENCE_END, {"samples": 3})) == {}
    assert loadgen_log.notes([Event(perflog.INFERENCE_END, {"samples": 3})]) == []


def test_an_invalid_run_is_refused_with_all_of_loadgens_reasons():
    with pytest.raises(InvalidMeasurement) as refused:
        loadgen_log.figures(ended(INVALID, errors=[ERROR]))
    assert str(refused.value) == (
        "LoadGen calls its Server run INVALID: Performance constraints satisfied: NO; Early stopping satisfied: NO; "
        "Reduce target QPS.; Run unsuccessful.; Would need to run at least 42 more queries, with luck.; " + ERROR
    )


def test_a_run_with_an_error_is_refused_though_its_summary_says_valid():
    with pytest.raises(InvalidMeasurement, match=ERROR):
        loadgen_log.figures(ended(VALID, errors=[ERROR]))


@pytest.mark.parametrize(("bound", "said"), [(30, False), (40, True), (None, False)])
def test_a_server_that_is_far_from_its_bound_may_have_been_searched_for_on_a_disturbed_host(bound, said):
    # p99 is 3.3 ms.
    begin = Event(perflog.INFERENCE_BEGIN, {"scenario": "Server", **({"latency_bound": bound} if bound else {})})
    notes = loadgen_log.notes([begin, ended(VALID)])
    assert notes == (["at the rate that was found p99 is 3.3 ms of 40: " + DISTURBED] if said else [])


def test_what_loadgen_said_is_kept_beside_the_figures():
    begin = Event(perflog.INFERENCE_BEGIN, {"shortened": {"duration": [2, 600]}})
    assert loadgen_log.said([begin, ended(VALID)]) == LoadGenResult(
        "Server", True, shortened={"duration": [2.0, 600.0]}
    )
    invalid = loadgen_log.said([ended(INVALID)])
    assert invalid is not None
    assert (invalid.valid, invalid.reasons[:2]) == (
        False,
        ["Performance constraints satisfied: NO", "Early stopping satisfied: NO"],
    )
    # Its other log says so.
    other = loadgen_log.said([ended(VALID, valid=False)])
    assert other is not None
    assert not other.valid
    for nothing in ([], [begin], [ended(None)], [ended("torn")], [Event(perflog.INFERENCE_END, {"samples": 3})]):
        assert loadgen_log.said(nothing) is None


# All that follow the last figure are the summary's end.
@pytest.mark.parametrize("kept", [0, 1, 5, 8, 20, 26, len(VALID.splitlines()) - 1])
def test_a_torn_summary_is_refused_wherever_it_was_torn(kept):
    with pytest.raises(InvalidMeasurement, match=r"mlperf_log_summary\.txt is torn"):
        loadgen_log.figures(ended("\n".join(VALID.splitlines()[:kept])))


@pytest.mark.parametrize("summary", [None, 7])
def test_a_missing_summary_is_refused(summary):
    with pytest.raises(InvalidMeasurement, match="no summary of LoadGen's"):
        loadgen_log.figures(ended(summary))


@pytest.mark.parametrize(
    "key", ["Completed samples per second ", "Mean latency (ns) ", "99.00 percentile latency (ns) "]
)
def test_a_figure_that_loadgen_did_not_print_is_never_zero(key):
    with pytest.raises(InvalidMeasurement, match="has no '"):
        loadgen_log.figures(ended("\n".join(one for one in VALID.splitlines() if not one.startswith(key))))


def test_logs_that_are_missing_or_say_nothing_of_validity_are_refused(tmp_path):
    with pytest.raises(InvalidMeasurement, match=r"left no mlperf_log_detail\.txt"):
        loadgen_results.read(tmp_path)
    (tmp_path / loadgen_results.DETAIL).write_text(line("result_query_count", 7))
    with pytest.raises(InvalidMeasurement, match=r"left no mlperf_log_summary\.txt"):
        loadgen_results.read(tmp_path)
    (tmp_path / loadgen_results.SUMMARY).write_text(VALID)
    with pytest.raises(InvalidMeasurement, match="says nothing of validity"):
        loadgen_results.read(tmp_path)


def test_what_either_of_the_logs_calls_invalid_is(tmp_path):
    (tmp_path / loadgen_results.SUMMARY).write_text(VALID)
    detail = tmp_path / loadgen_results.DETAIL
    # A commit message is in it, with quotation marks that nobody escaped.
    broken = ':::MLLOG {"key": "loadgen_git_log_message", "value": "say "no""}\n'
    detail.write_text(broken + line("result_validity", "VALID"))
    assert loadgen_results.read(tmp_path).valid
    detail.write_text(broken + line("result_validity", "INVALID"))
    assert not loadgen_results.read(tmp_path).valid
    detail.write_text(line("error_runtime", ERROR, error=True) + line("result_validity", "VALID"))
    assert loadgen_results.read(tmp_path).reasons == [ERROR]


def test_clocks_that_differ_by_a_rounded_millisecond_are_an_error_of_long_runs_only(tmp_path):
    (tmp_path / loadgen_results.SUMMARY).write_text(VALID)
    detail = tmp_path / loadgen_results.DETAIL
    clocks = line("error_runtime", "PerfClock and system_clock differ by more than 1%! ", error=True)
    end = clocks + line("result_validity", "VALID")
    detail.write_text(line("effective_min_duration_ms", 100) + end)
    assert loadgen_results.read(tmp_path).valid
    detail.write_text(line("effective_min_duration_ms", 600_000) + end)
    assert not loadgen_results.read(tmp_path).valid


def test_notes_tell_that_a_rate_gave_way():
    begin = Event(perflog.INFERENCE_BEGIN, {"scenario": "Server", "shortened": {"duration": [2.0, 600.0]}})
    end = ended(VALID, found=512.0, rate=500.0, steps_down=2, samples_in_memory=True)
    assert loadgen_log.notes([begin, end]) == [
        "Server was shortened, no MLPerf result: duration 2 of 600 (s, samples or queries)",
        "512 queries/s did not hold the bound again; 500 did, 2 steps below",
    ]


@pytest.mark.parametrize("start", [1.0, 90.0, 100.0, 5000.0])
def test_the_search_finds_the_ceiling_from_below_and_above(start):
    tried = []

    def passes(rate):
        tried.append(rate)
        return rate <= 100

    found = server_search.search(passes, start, precision=0.02)
    assert found.rate <= 100 < found.fails <= found.rate * 1.02
    assert len(tried) == len(set(tried)) < 30


def test_a_rate_that_does_not_hold_again_is_stepped_down():
    found = server_search.Found(100.0, 102.0)
    verified = server_search.verify(lambda rate: rate < 97, found, precision=0.02)
    assert verified == server_search.Verified(pytest.approx(100 / 1.02**2), 2)
    assert server_search.verify(lambda rate: True, found, precision=0.02).steps == 0


def test_luck_in_the_search_is_not_believed():
    lucky = random.Random(1)
    found = server_search.search(lambda rate: rate <= 100 or lucky.random() < 0.5, 10, precision=0.02)
    assert found.rate > 100
    assert server_search.verify(lambda rate: rate <= 100, found, precision=0.1).rate <= 100


@pytest.mark.parametrize(("answer", "reason"), [(True, "is it too wide"), (False, "no rate from")])
def test_a_bound_that_always_or_never_holds_is_refused(answer, reason):
    with pytest.raises(InvalidMeasurement, match=reason):
        server_search.search(lambda rate: answer, 10, precision=0.1)


def test_a_rate_that_never_holds_again_is_refused():
    with pytest.raises(InvalidMeasurement, match="the machine is not steady"):
        server_search.verify(lambda rate: False, server_search.Found(10, 11), precision=0.1)


def test_without_settings_a_scenario_is_that_of_the_rules():
    for role, rules in scenarios.RULES.items():
        scenario = scenarios.Scenario.of(role, {"latency_bound": 15}, 50_000)
        assert (scenario.duration, scenario.queries) == (600.0, rules.queries)
        assert scenario.shortened() == {}
    assert scenarios.Scenario.of("server", {"latency_bound": 15}, 50_000).latency_bound == 15
    assert scenarios.Scenario.of("offline", {"offline_samples": 9_000}, 50_000).shortened() == {
        "queries": [9_000, 24_576]
    }
    # The whole evaluation set is enough.
    assert scenarios.Scenario.of("offline", {}, 10_000).queries == 10_000
    assert scenarios.Scenario.of("offline", {}, 10_000).shortened() == {}


def test_every_run_has_another_schedule_and_the_same_samples():
    first, second = scenarios.Seeds.of(1, 1), scenarios.Seeds.of(1, 2)
    assert first == scenarios.Seeds.of(1, 1)
    assert first.schedule != second.schedule
    assert (first.library, first.samples) == (second.library, second.samples)
    assert scenarios.Seeds.of(2, 1).samples != first.samples


@pytest.mark.parametrize(
    ("role", "sizes"),
    [
        ("throughput", (64, 40)),
        ("edge", (1,)),
        ("single_stream", (1,)),
        ("multi_stream", (8,)),
        ("server", (64, 40, 1, 2, 4, 8, 16, 32)),
        ("offline", (64, 40)),
    ],
)
def test_an_engine_is_compiled_for_all_sizes_that_come(role, sizes):
    assert scenarios.batch_sizes(role, scenarios.batch_size(role, 64), 1000) == sizes
