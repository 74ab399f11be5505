"""What a result is beside its baseline: the verdict of every metric, and of them all."""

from __future__ import annotations

import random
import re

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_flagperf.judging import baselines
from pytest_flagperf.judging import compare
from pytest_flagperf.judging import gathering
from pytest_flagperf.judging import statistics
from pytest_flagperf.result import ComparisonResult
from pytest_flagperf.result import SpreadResult
from pytest_flagperf.result import WeightsInfo
from tests.conftest import ROOT
from tests.judging.conftest import make_result
from tests.judging.conftest import replaced


def noisy(count, level=100.0, seed=1, spread=0.01):
    chance = random.Random(seed)
    return [level * (1 + chance.gauss(0, spread)) for _ in range(count)]


TWENTY = noisy(20)


def in_sessions(values, count=5):
    """The samples dealt out to sessions."""
    return {f"session {k}": list(values[k::count]) for k in range(count)}


FIVE_SESSIONS = in_sessions(TWENTY)


def baseline(result, **changes):
    """A result as a baseline; twenty samples of it as those of five sessions."""
    case = gathering.of_result(result, "before")
    for name, metric in case.metric.items():
        if len(metric.values) == 20:
            case.metric[name] = msgspec.structs.replace(metric, samples=in_sessions(metric.values))
    kept = {"vendor": result.case.vendor, "chip": result.case.chip or "", "origin": "acme/baselines/A1.toml"}
    return baselines.Baseline(**{**kept, "case": [case], **changes})


def verdicts(comparisons):
    return {one.metric: one.verdict for one in comparisons}


def test_the_same_speed_passes_and_a_slowdown_beyond_noise_regresses():
    before = baseline(make_result({"p_train": TWENTY}))
    assert verdicts(compare.judge(make_result({"p_train": noisy(5, seed=2)}), before)) == {"p_train": "passed"}
    (one,) = compare.judge(make_result({"p_train": noisy(5, 94, seed=2)}), before)
    assert one.verdict == "regressed"
    assert one.change == pytest.approx(one.value / one.baseline - 1)
    assert one.interval[0] < one.change < one.interval[1] < 0
    assert (one.source, one.tolerance, len(one.samples)) == ("acme/baselines/A1.toml", 0.05, 20)
    assert "Student's t on the logarithms of 5 new and 20 stored samples of 5 sessions" in one.method


def test_the_examples_of_the_documentation_are_judged_as_it_says():
    stored = [99, 99.2, 99.4, 99.5, 99.6, 99.7, 99.8, 99.9, 99.9, 100, 100, 100.1, 100.1, 100.2, 100.3, 100.4, 100.5]
    stored += [100.6, 100.8, 101]
    found = {}
    for line in (ROOT / "docs" / "reference" / "verdicts.md").read_text().splitlines():
        example = re.fullmatch(r"\| ([\d. ]+) \| (\w+) \| (-[\d.]+) %, interval (-[\d.]+) .. ([+-][\d.]+) % \|", line)
        if example:
            new, verdict, *figures = example.groups()
            one = compare.decide([float(value) for value in new.split()], in_sessions(stored), "higher", 0.05)
            found[new] = one.verdict == verdict
            expected = [float(figure) for figure in figures]
            shown = [round(100 * figure, 1 if abs(figure) < 0.1 else 0) for figure in (one.change, *one.interval)]
            assert shown == pytest.approx(expected, abs=0.051)
    assert list(found.values()) == [True] * 3


def test_faster_is_better_of_a_rate_and_worse_of_a_duration():
    faster = noisy(5, 106, seed=2)
    rate, duration = ({name: TWENTY} for name in ("p_train", "time_to_target"))
    assert verdicts(compare.judge(make_result({"p_train": faster}), baseline(make_result(rate)))) == {
        "p_train": "improved"
    }
    found = compare.judge(make_result({"time_to_target": faster}), baseline(make_result(duration)))
    assert verdicts(found) == {"time_to_target": "regressed"}


def test_a_difference_that_is_certain_and_small_is_no_alarm():
    exact = in_sessions([100.0 + 0.001 * k for k in range(20)])
    found = compare.decide([98.5] * 5, exact, "higher", 0.05)
    assert found.verdict == "passed"
    assert found.interval[1] < 0, "the change itself is beyond doubt"
    assert compare.decide([97.9] * 5, exact, "higher", 0.05).verdict == "regressed"


def test_rounds_that_spread_too_much_to_tell_are_inconclusive():
    wild = [80.0, 125.0, 97.0, 110.0, 84.0]
    assert compare.decide(wild, TWENTY, "higher", 0.05).verdict == "inconclusive"
    assert compare.decide(wild, FIVE_SESSIONS, "higher", 0.05).verdict == "inconclusive"


def test_a_baseline_of_few_sessions_raises_no_alarm_within_its_tolerance():
    # 4 % with little noise: material beside five sessions, not beside one, however many rounds that has.
    new, stored = noisy(5, 96, seed=3, spread=0.002), noisy(20, seed=4, spread=0.002)
    assert compare.decide(new, stored, "higher", 0.05).verdict == "passed"
    assert compare.decide(new, in_sessions(stored), "higher", 0.05).verdict == "regressed"


def test_rounds_of_one_session_do_not_say_how_far_sessions_lie_apart():
    # 7 % beyond all noise of the rounds: two sessions of the same may be as far apart.
    new, stored = noisy(5, 93, seed=3, spread=0.001), noisy(20, seed=4, spread=0.001)
    found = compare.decide(new, stored, "higher", 0.05)
    assert found.verdict == "inconclusive"
    assert found.interval[0] < 0 < found.interval[1]
    assert "of 1 session, 99 % interval; sessions are few" in found.method
    assert compare.decide([0.9 * one for one in new], stored, "higher", 0.05).verdict == "regressed"


def test_sessions_that_lie_apart_are_no_alarm_though_their_rounds_agree():
    levels = [97.0, 103.0, 99.0, 101.0, 100.0]
    stored = {f"session {k}": noisy(4, level, seed=k, spread=0.001) for k, level in enumerate(levels)}
    new = noisy(5, 96.0, seed=9, spread=0.001)
    assert compare.decide(new, stored, "higher", 0.05).verdict == "inconclusive"
    together = [one for session in stored.values() for one in session]
    apart = statistics.compare_samples(new, [together], assumed=0.0)
    assert apart.high < 0, "as one session's rounds they would have been an alarm"


@pytest.mark.parametrize(
    ("value", "expected"),
    [(100, "passed"), (104.9, "passed"), (107, "inconclusive"), (200, "inconclusive"), (50, "passed")],
)
@pytest.mark.parametrize("stored", [[100.0], [100.0] * 4])
def test_fewer_than_six_samples_are_judged_by_the_tolerance_and_raise_no_alarm(value, expected, stored):
    for sessions in (stored, in_sessions(stored, len(stored))):
        found = compare.decide([value], sessions, "lower", 0.05)
        assert (found.verdict, found.interval) == (expected, None)
        assert f"1 new and {len(stored)} stored samples" in found.method
        assert "are too few" in found.method


def test_what_no_file_keeps_the_digits_of_does_not_differ():
    result = make_result({"memory_peak": [3.14159265358] * 5})
    metric = baselines.MetricBaseline("GiB", "lower", in_sessions([3.141593] * 20), tolerance=0.0)
    case = baselines.CaseBaseline(**_conditions(result), metric={"memory_peak": metric})
    (one,) = compare.judge(result, baseline(result, case=[case]))
    assert one.verdict == "passed"


def test_the_tolerance_is_that_of_the_baseline_file_and_else_of_the_metric():
    result = make_result({"p_train": [100.0], "memory_peak": [10.0], "top1": [0.8]}, target=0.7)
    found = {one.metric: one.tolerance for one in compare.judge(result, baseline(result))}
    assert found == {"p_train": 0.05, "memory_peak": 0.05, "top1": 0.01}
    metric = baselines.MetricBaseline("samples/s", "higher", {"before": [100.0]}, tolerance=0.2)
    case = baselines.CaseBaseline(**_conditions(result), metric={"p_train": metric})
    (one, *_) = compare.judge(result, baseline(result, case=[case]))
    assert one.tolerance == 0.2


def _conditions(result):
    case = gathering.of_result(result, "before")
    return {name: getattr(case, name) for name in case.__struct_fields__ if name != "metric"}


def test_the_time_to_train_of_imaging_is_held_more_tightly():
    assert gathering.tolerance("time_to_target", ["top1"]) == 0.025
    assert gathering.tolerance("time_to_target", ["bleu"]) == 0.05


def test_a_bound_in_the_file_is_not_outweighed_by_any_sample():
    metric = baselines.MetricBaseline("samples/s", "higher", {"before": TWENTY}, bound=99.5)
    result = make_result({"p_train": noisy(5, 99, seed=2, spread=0.001)})
    case = baselines.CaseBaseline(**_conditions(result), metric={"p_train": metric})
    (one,) = compare.judge(result, baseline(result, case=[case]))
    assert (one.verdict, one.method) == ("regressed", "bound")
    assert one.reasons[0].endswith("misses the bound of 99.5")


def test_a_bound_alone_judges_too():
    metric = baselines.MetricBaseline("samples/s", "higher", {}, bound=99.5)
    result = make_result({"p_train": [100.0]})
    case = baselines.CaseBaseline(**_conditions(result), metric={"p_train": metric})
    assert verdicts(compare.judge(result, baseline(result, case=[case]))) == {"p_train": "passed"}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"chip": "B2"}, "chip was 'A1', is 'B2'"),
        ({"vendor": "acne"}, "vendor was 'acme', is 'acne'"),
        ({"division": "open"}, "division was 'closed', is 'open'"),
        ({"scale": "full"}, "scale was 'lite', is 'full'"),
        ({"stand_in": "cpu"}, "cpu stood in for the vendor's device"),
    ],
)
def test_what_was_measured_under_other_conditions_is_not_comparable_and_the_field_is_named(changes, reason):
    before = make_result({"p_train": TWENTY})
    (one,) = compare.judge(replaced(before, **changes), baseline(before))
    assert one.verdict == "not comparable"
    assert reason in one.reasons[0]
    assert one.baseline is not None
    assert one.change is None


def test_another_configuration_is_not_comparable_but_another_seed_is():
    before = make_result({"p_train": TWENTY}, configuration={"seed": 1, "batch_size": 64})
    seed = make_result({"p_train": TWENTY}, configuration={"seed": 7, "batch_size": 64})
    size = make_result({"p_train": TWENTY}, configuration={"seed": 1, "batch_size": 128})
    assert verdicts(compare.judge(seed, baseline(before))) == {"p_train": "passed"}
    (one,) = compare.judge(size, baseline(before))
    assert (one.verdict, one.reasons) == ("not comparable", ["batch_size was 64, is 128"])


FILE = WeightsInfo("w", "--weights w=/a.npz", "a" * 64)
MADE = WeightsInfo("w", "trained here: resnet50 lite, seed 1, on digits (top1 0.9670)", "c" * 64, {"top1": 0.967})


@pytest.mark.parametrize(
    ("then", "now", "reasons"),
    [
        (FILE, WeightsInfo("w", "--weights w=/b.npz", "a" * 64), []),
        (FILE, WeightsInfo("w", "--weights w=/a.npz", "b" * 64), [f"weights were {'a' * 64!r}, are {'b' * 64!r}"]),
        (FILE, WeightsInfo("w", "random"), [f"weights were {'a' * 64!r}, are 'random'"]),
        # The same training gives other bytes on another host.
        (MADE, WeightsInfo("w", MADE.origin.replace("0.9670", "0.9650"), "d" * 64, {"top1": 0.965}), []),
        (
            MADE,
            WeightsInfo("w", MADE.origin.replace("seed 1", "seed 2"), "c" * 64),
            [
                "weights were 'trained here: resnet50 lite, seed 1, on digits', "
                "are 'trained here: resnet50 lite, seed 2, on digits'"
            ],
        ),
        (MADE, FILE, [f"weights were 'trained here: resnet50 lite, seed 1, on digits', are {'a' * 64!r}"]),
    ],
)
def test_inference_with_other_weights_is_not_comparable(tmp_path, then, now, reasons):
    before = replaced(make_result({"p_train": TWENTY}), weights=then)
    baselines.write(tmp_path / "A1.toml", baseline(before))
    (one,) = compare.judge(replaced(before, weights=now), baselines.load(tmp_path / "A1.toml"))
    assert one.verdict == ("not comparable" if reasons else "passed")
    assert one.reasons == reasons


def test_a_file_that_does_not_say_which_weights_is_still_a_baseline_and_learns_it(tmp_path):
    before = make_result({"p_train": TWENTY})
    baselines.write(tmp_path / "A1.toml", baseline(before))
    assert "weights" not in (tmp_path / "A1.toml").read_text()
    stored = baselines.load(tmp_path / "A1.toml")
    now = replaced(before, weights=FILE)
    assert verdicts(compare.judge(now, stored)) == {"p_train": "passed"}
    joined = gathering.joined(stored.case[0], gathering.of_result(now, "now"))
    assert joined.weights == FILE.checksum
    assert gathering.joined(joined, gathering.of_result(before, "later")).weights == FILE.checksum


def test_a_configuration_that_went_through_a_file_is_the_same(tmp_path):
    settings = {"sizes": (128, 64), "unset": None, "nested": {"none": None, "pair": (1, None)}, "rate": 1}
    result = make_result({"p_train": TWENTY}, configuration=settings)
    baselines.write(tmp_path / "A1.toml", baseline(result))
    assert verdicts(compare.judge(result, baselines.load(tmp_path / "A1.toml"))) == {"p_train": "passed"}


def test_a_lowered_target_makes_training_shorter_and_not_comparable():
    before = make_result({"time_to_target": TWENTY}, target=0.9)
    (one,) = compare.judge(make_result({"time_to_target": TWENTY}, target=0.8), baseline(before))
    assert (one.verdict, one.reasons) == ("not comparable", ["target top1 was 0.9, is 0.8"])


def test_without_a_chip_the_names_of_the_devices_have_to_agree():
    before = make_result({"p_train": TWENTY}, chip=None)
    stored = baseline(before, hardware="EPYC, 2 processors")
    assert verdicts(compare.judge(before, stored, "EPYC, 2 processors")) == {"p_train": "passed"}
    (one,) = compare.judge(before, stored, "EPYC, 64 processors")
    assert one.reasons == ["the devices were EPYC, 2 processors, are EPYC, 64 processors"]


def test_another_software_stack_is_named_and_judged():
    before = make_result({"p_train": TWENTY}, stack={"torch": "2.12.0", "driver": "550"})
    now = make_result({"p_train": noisy(5, 90)}, stack={"torch": "2.13.0", "driver": "550"})
    (one,) = compare.judge(now, baseline(before))
    assert (one.verdict, one.reasons) == ("regressed", ["torch was 2.12.0, is 2.13.0"])


def test_a_case_and_a_metric_that_the_baseline_lacks_are_said_to_have_none():
    before = make_result({"p_train": TWENTY})
    (one,) = compare.judge(replaced(before, id="other"), baseline(before))
    assert (one.verdict, one.reasons) == ("no baseline", ["acme/baselines/A1.toml does not have this case"])
    found = verdicts(compare.judge(make_result({"p_train": TWENTY, "memory_peak": TWENTY}), baseline(before)))
    assert found == {"p_train": "passed", "memory_peak": "no baseline"}


def test_a_metric_that_is_not_measured_any_more_is_told():
    before = make_result({"p_train": TWENTY, "memory_peak": TWENTY})
    found = {one.metric: one for one in compare.judge(make_result({"p_train": TWENTY}), baseline(before))}
    assert found["memory_peak"].verdict == "inconclusive"
    assert found["memory_peak"].reasons == ["it was not measured this time"]
    assert found["memory_peak"].value is None
    assert compare.overall("passed", list(found.values())) == "inconclusive", "what else passed does not hide it"


def test_nothing_is_compared_without_a_baseline_or_without_a_measurement():
    result = make_result({"p_train": TWENTY})
    assert compare.judge(result, None) == []
    assert compare.judge(replaced(result, verdict="invalid"), baseline(result)) == []


def test_rounds_that_the_mean_drops_count_in_the_comparison():
    result = make_result({"p_train": [100.0, 101.0, 99.0]})
    spread = SpreadResult([100.0, 101.0, 99.0, 100.5, 99.5], "olympic mean")
    found = replaced(result, spreads={"p_train": spread})
    (one,) = compare.judge(found, baseline(make_result({"p_train": TWENTY})))
    assert "5 new and 20 stored" in one.method


def test_an_operator_is_one_sample_a_session_whatever_its_iterations():
    problem = {"family": "gemm", "m": 64, "note": "a note", "sets": ["smoke"]}
    facts = {"problem": problem, "request": {"cache": "hot", "budget": 1.0}, "threads": 2, "samples": [1.0, 2.0] * 50}
    before = make_result({"time": [50.0]}, kind="operator", operator=facts)
    stored = baseline(before)
    assert stored.case[0].metric["time"].values == [50.0]
    assert verdicts(compare.judge(before, stored)) == {"time": "passed"}
    flushed = replaced(before, operator={**facts, "request": {"cache": "flushed"}})
    assert compare.judge(flushed, stored)[0].reasons == ["cache was 'hot', is 'flushed'"]
    longer = replaced(before, operator={**facts, "request": {"cache": "hot", "budget": 9.0}})
    assert verdicts(compare.judge(longer, stored)) == {"time": "passed"}


def comparisons(*found):
    return [ComparisonResult("p_train", one, None) for one in found]


@pytest.mark.parametrize(
    ("own", "compared", "expected"),
    [
        ("passed", [], "passed"),
        ("invalid", ["regressed"], "invalid"),
        ("missed", ["regressed"], "missed"),
        ("passed", ["improved", "regressed", "inconclusive"], "regressed"),
        ("passed", ["improved", "inconclusive"], "inconclusive"),
        ("passed", ["improved", "passed"], "improved"),
        ("passed", ["passed", "no baseline", "not comparable"], "passed"),
        ("passed", ["no baseline", "no baseline"], "no baseline"),
        ("passed", ["no baseline", "not comparable"], "not comparable"),
        ("unsupported", ["no baseline"], "unsupported"),
    ],
)
def test_the_verdict_of_a_result_is_the_worst_of_its_targets_and_comparisons(own, compared, expected):
    assert compare.overall(own, comparisons(*compared)) == expected


@pytest.mark.parametrize("between", [0.0, 0.02])
@pytest.mark.parametrize("count", [1, 4, 10])
def test_false_alarms_are_rare_however_far_sessions_lie_apart(between, count):
    """What ``benchmarks/gate.py`` measures, in small: five rounds beside sessions of five, a spread of 2 %."""
    same, slower = [], []
    for seed in range(600):
        chance = random.Random(seed)
        level = [100 * (1 + chance.gauss(0, between)) for _ in range(count + 1)]
        stored = {str(k): noisy(5, level[k], seed=seed * 99 + k, spread=0.02) for k in range(count)}
        new = noisy(5, level[-1], seed=seed + 10**6, spread=0.02)
        same.append(compare.decide(new, stored, "lower", 0.05).verdict)
        slower.append(compare.decide([1.05 * one for one in new], stored, "lower", 0.05).verdict)
    assert same.count("regressed") <= 12
    assert same.count("improved") <= 12
    assert slower.count("improved") <= 2
    if between == 0.0 and count == 10:
        assert slower.count("regressed") >= 570


figures = st.lists(st.floats(allow_nan=False, allow_infinity=False, min_value=-1e300, max_value=1e300), min_size=1)


@given(figures, figures, st.sampled_from(["higher", "lower"]), st.floats(0, 0.99))
def test_no_figures_are_so_odd_that_they_cannot_be_judged(new, stored, better, tolerance):
    found = compare.decide(new, stored, better, tolerance)
    assert found.verdict in ("passed", "regressed", "improved", "inconclusive", "not comparable")
    assert found.verdict != "not comparable" or found.reasons


@given(st.lists(st.floats(1, 1000), min_size=1, max_size=8), st.lists(st.floats(1, 1000), min_size=1, max_size=12))
def test_the_same_samples_never_regress(new, stored):
    assert compare.decide(stored, stored, "lower", 0.05).verdict in ("passed", "inconclusive")
    worse, better = compare.decide(new, stored, "lower", 0.0), compare.decide(new, stored, "higher", 0.0)
    opposite = {"regressed": "improved", "improved": "regressed"}
    if worse.verdict in opposite:
        assert better.verdict == opposite[worse.verdict]


def test_equal_zeros_pass_and_other_figures_without_a_ratio_are_told():
    assert compare.decide([0.0, 0.0], [0.0] * 8, "lower", 0.05).verdict == "passed"
    found = compare.decide([-1.0], [1.0], "lower", 0.05)
    assert found.verdict == "inconclusive"
    assert "not above zero" in found.reasons[0]
    assert compare.decide([0.0, 1.0], [1.0] * 8, "higher", 0.05).verdict == "inconclusive"


def test_a_rate_that_fell_to_zero_and_a_duration_that_rose_from_it_regressed():
    fell = compare.decide([0.0] * 5, [100.0] * 5, "higher", 0.05)
    assert (fell.verdict, fell.change, fell.reasons) == ("regressed", -1.0, ("it fell to zero",))
    rose = compare.decide([1.0], [0.0], "lower", 0.05)
    assert (rose.verdict, rose.change, rose.reasons) == ("regressed", None, ("it was zero",))
    assert compare.decide([1.0], [0.0], "higher", 0.05).verdict == "improved"
    # Nothing takes no time at all.
    assert compare.decide([0.0], [1.0], "lower", 0.05).verdict == "inconclusive"


def twice(first, second):
    """What comes of an operator that was measured twice, at these times beside 20 sessions at 100."""
    facts = {"problem": {"family": "gemm"}}
    stored = baseline(make_result({"time": [100.0]}, kind="operator", operator=facts))
    stored.case[0].metric["time"] = baselines.MetricBaseline("µs", "lower", in_sessions(TWENTY, 20))
    found = []
    for value in (first, second):
        result = make_result({"time": [value]}, kind="operator", operator=facts)
        one = compare.judge(result, stored)
        found.append(replaced(result, comparisons=one, verdict=compare.overall("passed", one)))
    return found


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [(110, 111, "regressed"), (110, 100, "inconclusive"), (90, 91, "improved"), (90, 110, "inconclusive")],
)
def test_an_operator_is_called_worse_where_two_measurements_say_so(first, second, expected):
    before, again = twice(first, second)
    assert compare.alarming(before)
    found = compare.settled(before, again)
    assert (found.verdict, found.metrics["time"].value) == (expected, second)
    assert found.comparisons[0].reasons[-1].startswith(f"measured twice: {before.verdict} (")


def test_an_operator_that_looks_as_before_is_not_measured_again():
    assert not compare.alarming(twice(100, 100)[0])
    assert not compare.alarming(make_result({"p_train": [1.0]}, verdict="regressed")), "a model's case has rounds"
