"""The tables, the CSV and the JSON of operators: from Results, in DeepBench's order."""

from __future__ import annotations

import csv
import io

import pytest

from pytest_flagperf import cli
from pytest_flagperf import result
from pytest_flagperf.operators import table
from pytest_flagperf.operators.problems import Gemm
from pytest_flagperf.operators.problems import Recurrent
from pytest_flagperf.operators.problems import to_json


FIGURES = {"time": 1234.5, "tflops": 0.0123, "utilization": 0.25}


def made(problem, verdict: str = "passed", number: int = 0, **operator) -> result.Result:
    return result.Result(
        case=result.CaseInfo(
            id=f"{problem.family}-{problem.id}",
            node_id=f"test.py::test[{problem.id}-{number}]",
            model=problem.family,
            kind="operator",
            role="fwd",
            framework="pytorch",
            precision="fp32",
            topology="1x1",
            scale="train",
            vendor="cpu",
            devices=[0],
            unit="calls",
        ),
        verdict=verdict,
        metrics=result.with_units(
            {"time": 1234.5, "tflops": 0.0123, "utilization": 0.25} if verdict == "passed" else {}
        ),
        targets=[],
        rounds=[],
        configuration={},
        dataset=result.DatasetInfo("generated", False),
        rerun=[],
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
    assert row == ["1760", "128", "512", "T", "N", "fp32", "fwd", "1.23", "ms", "0.0123", "25.0", "%", "passed"]


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
