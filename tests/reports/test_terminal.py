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
