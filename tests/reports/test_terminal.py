"""The table at the end: what was measured, blank where nothing was, and nothing that drives the terminal."""

from __future__ import annotations

import msgspec

from pytest_flagperf import result as results
from pytest_flagperf.errors import RankCrashed
from pytest_flagperf.reports import terminal
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


def test_a_result_that_was_taken_from_another_session_is_said_so(tmp_path):
    taken = msgspec.structs.replace(make(tmp_path), notes=["resumed: taken from session x, not run again"])
    assert terminal.row(taken)[-1] == "passed (resumed)"
