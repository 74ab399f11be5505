"""The table at the end: what was measured, blank where nothing was, and nothing that drives the terminal."""

from __future__ import annotations

from types import SimpleNamespace

import msgspec

from pytest_flagperf import result as results
from pytest_flagperf.errors import RankCrashed
from pytest_flagperf.judging.derived import Derived
from pytest_flagperf.judging.derived import RequirementResult
from pytest_flagperf.judging.derived import write
from pytest_flagperf.reports import terminal
from tests.reports.html_sessions import operator
from tests.reports.inference_sessions import RANDOM
from tests.reports.inference_sessions import inferred
from tests.reports.inference_sessions import shortened
from tests.test_result import make


def columns(line: str) -> list[str]:
    _, rule, row = line.splitlines()
    widths = [len(part) for part in rule.split("  ")]
    cells, start = [], 0
    for width in widths:
        cells.append(row[start : start + width].strip())
        start += width + 2
    return cells


def test_a_row_has_quality_rates_time_and_memory(tmp_path):
    figures = {"top1": 0.95, "p_whole": 1234.56, "p_train": 2000.0, "p_core": 3e4, "e2e_time": 90.06}
    figures |= {"memory_peak": 0.41, "memory_total": 23.52}
    result = msgspec.structs.replace(make(tmp_path), metrics=results.with_units(figures))
    assert columns(terminal.table([result])) == [
        "toy convergence [pytorch-fp32-1x1-lite] cpu",
        "top1 0.9500 >= 0.9",
        "1,234.6",
        "2,000.0",
        "30,000.0",
        "90.1 s",
        "0.41/23.5 GiB",
        "passed",
    ]


def test_what_was_not_measured_is_blank(tmp_path):
    result = msgspec.structs.replace(make(tmp_path), metrics={}, targets=[])
    assert columns(terminal.table([result]))[1:] == ["", "", "", "", "", "", "passed"]


def test_a_target_that_is_missed_or_not_measured_shows_it(tmp_path):
    result = make(tmp_path)
    (target,) = result.targets
    missed = msgspec.structs.replace(target, value=0.8765432, met=False)
    nothing = msgspec.structs.replace(target, value=None, met=False)
    assert terminal.quality(msgspec.structs.replace(result, targets=[missed])) == "top1 0.8765 < 0.9"
    assert terminal.quality(msgspec.structs.replace(result, targets=[nothing])) == "top1 - < 0.9"


def test_an_error_is_named_beside_the_verdict_and_the_vendor_beside_the_case(tmp_path):
    result = make(tmp_path, error=RankCrashed("boom"))
    case = msgspec.structs.replace(result.case, vendor="acme", chip="A1")
    cells = columns(terminal.table([msgspec.structs.replace(result, case=case)]))
    assert cells[0] == "toy convergence [pytorch-fp32-1x1-lite] acme A1"
    assert cells[-1] == "invalid: RankCrashed"


def test_a_synthetic_dataset_is_said_so(tmp_path):
    result = make(tmp_path)
    dataset = msgspec.structs.replace(result.dataset, synthetic=True)
    assert terminal.row(msgspec.structs.replace(result, dataset=dataset))[-1] == "passed (synthetic data)"


def test_hostile_text_neither_drives_the_terminal_nor_breaks_the_table(tmp_path):
    result = make(tmp_path)
    case = msgspec.structs.replace(result.case, vendor="\x1b[2J\x07\r\nevil\u202e\x9b", model="<b>|x")
    text = terminal.table([msgspec.structs.replace(result, case=case), result])
    assert len(text.splitlines()) == 4
    assert all(character.isprintable() for character in text.replace("\n", ""))
    assert "<b>|x" in text


def compared(result: results.Result, verdict: str, change: float, metric: str = "p_train") -> results.Result:
    one = results.ComparisonResult(metric, verdict, 90.0, 100.0, change, method="a test", source="/b/A1.toml")
    return msgspec.structs.replace(result, verdict=verdict, comparisons=[*result.comparisons, one])


def test_the_change_beside_the_baseline_has_a_column_where_anything_was_compared(tmp_path):
    result = make(tmp_path)
    worse = compared(compared(result, "passed", 0.3, "memory_peak"), "regressed", -0.1)
    assert terminal.CHANGE not in terminal.table([result])
    header, _, first, second = terminal.table([worse, result]).splitlines()
    assert terminal.CHANGE in header
    assert first.split("  ")[-2].strip() == "p_train -10.0 %"
    assert first.endswith("regressed")
    assert "%" not in second


def test_what_a_comparison_found_is_told_in_words_unless_all_is_as_before(tmp_path):
    result = make(tmp_path)
    assert terminal.compared([compared(result, "passed", 0.01)]) == []
    assert terminal.compared([compared(result, "regressed", -0.1)]) == [
        "toy convergence:",
        "  regressed: p_train: 90; baseline 100; -10.0 % (a test)",
    ]


def test_verdicts_are_counted(tmp_path):
    result = make(tmp_path)
    assert terminal.tally([result, compared(result, "regressed", -0.1), result]) == "verdicts: 2 passed, 1 regressed"
    assert terminal.tally([result], 1) == "verdicts: 1 passed, 1 requirement not met"
    assert terminal.tally([result], 2) == "verdicts: 1 passed, 2 requirements not met"


def test_a_result_that_was_taken_from_another_session_is_said_so(tmp_path):
    taken = msgspec.structs.replace(make(tmp_path), notes=["resumed: taken from session x, not run again"])
    assert terminal.row(taken)[-1] == "passed (resumed)"


def apart(result: results.Result, model: str, *reasons: str) -> results.Result:
    other = [results.ComparisonResult(name, terminal.APART, 1.0, reasons=list(reasons)) for name in ("p_train", "top1")]
    case = msgspec.structs.replace(result.case, model=model)
    return msgspec.structs.replace(result, case=case, verdict=terminal.APART, comparisons=other)


def test_what_keeps_results_from_being_compared_is_told_once_for_all_that_differ_alike(tmp_path):
    result = make(tmp_path)
    nvidia = "vendor was 'nvidia', is 'cpu'"
    found = [
        apart(result, "a", nvidia),
        compared(result, "passed", 0.01),
        apart(result, "b", nvidia, "batch_size was 8, is 16"),
        *(apart(result, model, nvidia) for model in "cdefgh"),
        apart(result, "\x1b[2J", "seed\x07"),
    ]
    several = "a convergence, c convergence, d convergence, e convergence, f convergence and 2 more"
    assert terminal.apart(found) == [
        f"not comparable: {nvidia} ({several})",
        f"not comparable: {nvidia}; batch_size was 8, is 16 (b convergence)",
        "not comparable: seed\ufffd (\ufffd[2J convergence)",
    ]
    every = terminal.apart([apart(result, "a", f"batch_size was 1, is {size}") for size in range(12)])
    assert every[terminal.MOST_NOTES :] == ["… 2 others are in the result.json files"]
    assert terminal.apart([result, compared(result, "regressed", -0.1)]) == []


def beside(result: results.Result, stored: int, model: str = "toy") -> results.Result:
    one = results.ComparisonResult(
        "p_train", "inconclusive", 90.0, 100.0, -0.1, tolerance=0.05, samples=[100.0] * stored, source="/b/A1.toml"
    )
    case = msgspec.structs.replace(result.case, model=model)
    figures = results.with_units({"p_train": 90.0})
    return msgspec.structs.replace(result, case=case, rounds=[], metrics=figures, comparisons=[one])


def test_that_too_few_samples_cannot_regress_is_said_in_one_line_with_what_to_do(tmp_path):
    result = make(tmp_path)
    session = tmp_path / "my session"
    (line,) = terminal.too_few([beside(result, 1), result, beside(result, 4), beside(result, 5)], session)
    assert line == (
        "2 of 3 cases cannot regress beside this baseline, but by a bound: 2 to 5 samples, new and stored, 6 are "
        f"needed (flagperf rebase '{session}' --baseline /b/A1.toml --write adds this session's; --rounds adds samples "
        "too)"
    )
    assert terminal.too_few([result, beside(result, 5)], session) == []
    results.write_result(tmp_path, result)
    assert f"flagperf rebase {tmp_path.parent} --baseline" in terminal.too_few([beside(result, 1)], tmp_path)[0]


def test_an_operator_beside_one_session_is_told_that_it_cannot_regress_and_that_sessions_are_what_it_lacks(tmp_path):
    one = results.ComparisonResult("time", "passed", 120.0, 119.0, 0.01, tolerance=0.05, samples=[119.0], source="/b")
    found = [operator(1, comparisons=[one])]
    assert terminal.beside_baseline(found, tmp_path)[-1] == (
        "1 of 1 case cannot regress beside this baseline, but by a bound: 2 samples, new and stored, 6 are needed "
        "(a baseline of more sessions is needed, see flagperf rebase)"
    )
    many = msgspec.structs.replace(one, samples=[119.0] * 5)
    assert len(terminal.beside_baseline([operator(1, comparisons=[many])], tmp_path)) == 1


def test_a_quiet_session_is_told_of_where_a_requirement_is_not_met(tmp_path):
    (tmp_path / "toy").mkdir()
    results.write_result(tmp_path / "toy", make(tmp_path))
    said: list[str] = []
    reporter = SimpleNamespace(
        config=SimpleNamespace(get_verbosity=lambda: -1), section=said.append, write_line=said.append
    )
    terminal.summarize(reporter, {"test": tmp_path / "toy"})
    assert said == []
    missed = RequirementResult("amp_speedup>=1", met=False, found=0)
    write(tmp_path, Derived([], requirements=[missed]))
    terminal.summarize(reporter, {"test": tmp_path / "toy"})
    assert "verdicts: 1 passed, 1 requirement not met" in said
    assert "required, not met: amp_speedup>=1 cannot be checked: no two cases of this session give amp_speedup" in said


def test_a_row_of_the_edge_has_its_memory_in_mebibytes():
    assert columns(terminal.table([inferred("edge")])) == [
        *("resnet50 edge [pytorch-fp16-1x1-full] nvidia A100", "onnxruntime", "top1 0.7610 >= 0.757", "0.9987"),
        *("images/s", "4,263.3", "90.0", "95.0", "18.8 ms", "61.5 s", "51.2 MiB", "passed"),
    ]


def test_a_scenario_of_mlperf_has_a_table_that_says_what_it_is_ranked_by_and_whether_it_was_shortened():
    found = [inferred("server", loadgen=shortened()), inferred("offline")]
    rows = terminal.table(found).splitlines()
    assert rows[0].split("  ")[0] == "MLPerf scenario"
    assert columns("\n".join((*rows[:2], rows[2]))) == [
        *("resnet50 server [pytorch-fp16-1x1-full] nvidia A100", "onnxruntime", "shortened", "top1 0.7610 >= 0.757"),
        *("0.9987", "qps 497.3 queries/s", "1.1 ms", "3.3 ms", "61.5 s", "19.70/40.0 GiB", "passed"),
    ]
    cells = columns("\n".join((*rows[:2], rows[3])))
    assert cells[2] == "MLPerf"
    # All samples of Offline arrive at once: it has no latency.
    assert cells[5:8] == ["p_inference_whole 20,322 samples/s", "", ""]


def test_an_engine_that_kept_too_little_of_the_quality_shows_it():
    one = inferred(verdict="missed")
    top1, ratio = one.targets
    missed = msgspec.structs.replace(one, targets=[top1, msgspec.structs.replace(ratio, value=0.91, met=False)])
    assert "quality_ratio 0.9100 < 0.99" in terminal.table([missed])
    assert "passed (random weights)" in terminal.table([inferred(weights=RANDOM)])
