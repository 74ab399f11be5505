"""The tables, the CSV and the JSON of operators: from Results, in DeepBench's order."""

from __future__ import annotations

import csv
import io

import pytest

from pytest_flagperf import cli
from pytest_flagperf import result
from pytest_flagperf.operators import table
from pytest_flagperf.operators.problems import Gemm
from pytest_flagperf.operators.problems import Operator
from pytest_flagperf.operators.problems import Recurrent
from pytest_flagperf.operators.problems import SparseGemm
from pytest_flagperf.operators.problems import to_json


PER_ELEMENT = {"flops_model": "per_element"}
FIGURES = {"time": 1234.5, "tflops": 0.0123, "utilization": 0.25}


def made(
    problem, verdict: str = "passed", number: int = 0, *, precision: str = "fp32", notes=(), cv=None, **operator
) -> result.Result:
    measured = {**FIGURES, **({} if cv is None else {"cv": cv}), **operator.pop("figures", {})}
    return result.Result(
        case=result.CaseInfo(
            id=f"{problem.family}-{problem.id}",
            node_id=f"test.py::test[{problem.id}-{number}]",
            model=problem.family,
            kind="operator",
            role="fwd",
            framework="pytorch",
            precision=precision,
            topology="1x1",
            scale="train",
            vendor="cpu",
            devices=[0],
            unit="calls",
        ),
        verdict=verdict,
        metrics=result.with_units(measured if verdict == "passed" else {}),
        targets=[],
        rounds=[],
        configuration={},
        dataset=result.DatasetInfo("generated", False),
        rerun=[],
        notes=list(notes),
        error=result.ErrorResult("RankCrashed", "gone") if verdict == "invalid" else None,
        operator={"problem": to_json(problem), "id": problem.id, "sets": ["train"], "samples": [1.0, 2.0], **operator},
    )


GEMM = Gemm(1760, 128, 512, True, False)


def cells(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines() if line.strip()]


def test_the_columns_are_in_deepbenchs_order():
    title, header, _, row = cells(table.text([made(GEMM)]))
    assert " ".join(title) == "gemm: 1 passed"
    assert header[:8] == ["m", "n", "k", "a_t", "b_t", "precision", "direction", "time"]
    assert " ".join(row) == "1760 128 512 T N fp32 fwd 1.23 ms 12.3 GFLOP/s 25.0 % passed"


def test_what_is_published_stands_beside_what_was_measured():
    published = {"processor": "NVIDIA V100", "time": 617.25, "ratio": 0.5}
    published |= {"arithmetic": "fp16 in, fp32 out", "source": "V100.xlsx, row 7", "notes": ["n is 7860 there"]}
    rows = [made(GEMM, published=published, number=number) for number in range(2)]
    text = table.text(rows)
    assert text.count("ratio: that mean / time_mean of this run") == 1
    assert text.count("arithmetic: fp16 in, fp32 out") == text.count("n is 7860 there") == 1
    row = next(csv.DictReader(io.StringIO(table.as_csv(rows))))
    assert row["published_arithmetic"] == "fp16 in, fp32 out"
    assert row["published_notes"] == "n is 7860 there"
    assert row["published_source"] == "V100.xlsx, row 7"
    assert "published" in text
    assert "617 µs" in text
    assert "0.5 " in text


def test_how_well_a_median_is_known_stands_beside_it_and_a_line_counts_those_that_are_not():
    rows = [
        made(GEMM, interval=[1210.0, 1240.0], ended="converged"),
        made(GEMM, number=1, interval=[1200.0, 1666.6], ended="budget"),
        made(GEMM, number=2, cv=0.41, ended="budget"),
        made(GEMM, "wrong", number=3),
    ]
    text = table.text(rows)
    assert [word in text for word in ("±2.0 %", "±35 %", "cv 41 %")] == [True] * 3
    assert "2 of 3 medians are not known to 2 %: the budget was spent before" in text
    assert "not known" not in table.text(rows[:1])
    assert "±" not in table.text([made(GEMM)])


def test_the_line_counts_rows_that_are_not_shown_too():
    rows = [made(GEMM, number=number, interval=[1.0, 2000.0], ended="budget") for number in range(184)]
    assert "184 of 184 medians are not known" in table.text(rows, most=10)


def test_operations_of_integers_are_no_flops_and_tiny_rates_have_a_unit_of_their_own():
    int8 = made(GEMM, precision="int8", figures={"tflops": 0.7})
    fp32 = made(GEMM, number=1, figures={"tflops": 15.0})
    assert " TOP/s " in table.text([int8])
    assert "FLOP/s" not in table.text([int8])
    assert "TFLOP/s (int8: TOP/s)" in table.text([int8, fp32])
    assert "TOP/s" not in table.text([fp32])
    assert "12.3 GOP/s" in table.text([made(GEMM, precision="int8")])


def test_a_speed_up_beyond_the_work_that_was_saved_has_a_footnote():
    problem = SparseGemm(512, 64, 512, 0.9)
    slow = made(problem, notes=["the dense call is slow, not the sparse one fast: ..."])
    assert "speed-up: above 1 / density in 1; there the dense call is slow" in table.text([slow])
    assert "density" not in table.text([made(problem)])


def test_a_processor_of_which_nothing_is_published_for_a_family_is_said():
    sparse = made(SparseGemm(512, 64, 512, 0.9))
    assert "V100: nothing is published for sparse" in table.text([sparse], published="V100")
    assert "V100: nothing is published for these problems of gemm" in table.text([made(GEMM)], published="V100")
    assert "nothing is published" not in table.text([sparse])
    theirs = {"processor": "NVIDIA V100", "time": 617.25, "ratio": 0.5}
    assert "nothing is published" not in table.text([made(GEMM, published=theirs)], published="V100")


def test_an_estimated_peak_is_called_so():
    assert "(estimated peak)" in table.text([made(GEMM, peak={"value": 1.0, "estimated": True})])
    assert "(estimated peak)" not in table.text([made(GEMM, peak={"value": 1.0, "estimated": False})])


def test_of_many_rows_each_family_shows_some_and_what_is_amiss_comes_first():
    rows = [made(GEMM, number=number) for number in range(200)]
    rows[150] = made(Gemm(7, 8, 9), "invalid")
    rows += [made(Recurrent("lstm", 64, 2, 5), number=number) for number in range(10)]
    text = table.text(rows, most=20)
    assert "gemm: 199 passed, 1 invalid" in text
    assert "invalid: RankCrashed" in text
    assert "… and 190 more of gemm in operators.csv" in text
    assert "lstm" in text
    assert "more of rnn" not in text


def test_csv_and_json_hold_every_figure_and_no_samples():
    rows = [made(GEMM), made(Recurrent("gru", 64, 2, 5), "wrong")]
    read = list(csv.DictReader(io.StringIO(table.as_csv(rows))))
    assert [one["verdict"] for one in read] == ["passed", "wrong"]
    assert (read[0]["m"], read[0]["a_transposed"], float(read[0]["time [µs]"])) == ("1760", "T", 1234.5)
    assert read[1]["cell"] == "gru"
    assert read[1]["time [µs]"] == ""
    document = table.as_json(rows)
    assert document["units"]["time"] == "µs"
    assert "time" not in document["results"][1]
    assert "samples" not in document["results"][0]


def test_json_has_numbers_booleans_and_lists_and_csv_their_words():
    peak = {"value": 0.94, "unit": "TFLOP/s", "estimated": True}
    published = {"processor": "V100", "time": 617.25, "ratio": 0.5, "notes": ["a", "b"]}
    rows = [
        made(GEMM, precision="int8", notes=["one", "two"], peak=peak, interval=[1200.0, 1300.0], published=published),
        made(Operator(name="add", inputs=((2, 3), (2, 3)), outputs=((2, 3),), dtypes=("fp32",), **PER_ELEMENT)),
    ]
    gemm, add = table.as_json(rows)["results"]
    assert (gemm["m"], gemm["a_transposed"], gemm["b_transposed"]) == (1760, True, False)
    assert (gemm["sets"], gemm["notes"], gemm["published_notes"]) == (["train"], ["one", "two"], ["a", "b"])
    assert (gemm["peak"], gemm["peak_unit"], gemm["peak_estimated"]) == (0.94, "TOP/s", True)
    assert (gemm["interval_low"], gemm["interval_high"]) == (1200.0, 1300.0)
    assert table.as_json(rows)["units"]["interval_low"] == "µs"
    assert add["inputs"] == [[2, 3], [2, 3]]
    assert "notes" not in add
    first, second = csv.DictReader(io.StringIO(table.as_csv(rows)))
    assert (first["m"], first["a_transposed"], first["sets"], first["notes"]) == ("1760", "T", "train", "one; two")
    assert (first["peak_unit"], first["interval_high [µs]"]) == ("TOP/s", "1300.0")
    assert second["inputs"] == "2x3 2x3"


@pytest.mark.parametrize(
    ("value", "said"),
    [(0.5, "0.5 µs"), (12.34, "12.3 µs"), (999.7, "1000 µs"), (45_600.0, "45.6 ms"), (7.89e6, "7.89 s")],
)
def test_a_time_is_in_the_unit_that_suits_it(value, said):
    assert table.microseconds(value) == said


def test_results_are_lines_of_which_the_last_of_a_test_counts_and_a_torn_one_none(tmp_path):
    kept = result.Results(tmp_path / "operators" / "main")
    for one in (made(GEMM, "invalid"), made(GEMM), made(GEMM, number=1)):
        kept.append(one)
    kept.close()
    with open(kept.path, "ab") as file:
        file.write(b'{"case": {"id"')
    assert [one.verdict for one in result.read_results(kept.path)] == ["passed", "passed"]
    assert len(table.find(tmp_path)) == 2


def test_show_prints_the_tables_of_a_session(tmp_path, capsys):
    kept = result.Results(tmp_path / "operators" / "main")
    kept.append(made(GEMM))
    kept.append(made(Gemm(1, 2, 3), "unsupported", number=1))
    assert cli.main(["show", str(tmp_path)]) == 0
    assert "gemm: 1 passed, 1 unsupported" in capsys.readouterr().out
    kept.append(made(Gemm(4, 5, 6), "wrong", number=2))
    kept.close()
    assert cli.main(["show", str(tmp_path)]) == 1
