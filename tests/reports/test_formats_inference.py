"""Inference in the formats: FlagPerf's table, the edge, LoadGen's scenarios; blank where nothing was measured."""

from __future__ import annotations

import csv as reader
import io
from pathlib import Path

import msgspec
import pytest

from pytest_flagperf import result as results
from pytest_flagperf.judging import derived
from pytest_flagperf.reports import inference as inferring
from pytest_flagperf.reports import junit
from pytest_flagperf.reports import terminal
from pytest_flagperf.reports.formats import csv
from pytest_flagperf.reports.formats import flagperf
from pytest_flagperf.reports.formats import inference
from pytest_flagperf.reports.formats import markdown
from pytest_flagperf.reports.formats import xlsx
from pytest_flagperf.result import DatasetInfo
from pytest_flagperf.result import ErrorResult
from pytest_flagperf.result import LoadGenResult
from tests.reports.formats_sessions import session
from tests.reports.formats_sessions import tables
from tests.reports.formats_sessions import training
from tests.reports.inference_sessions import RANDOM
from tests.reports.inference_sessions import inferred
from tests.reports.inference_sessions import scoring
from tests.reports.inference_sessions import shortened
from tests.reports.test_formats import sheet


# FlagPerf inference/benchmarks/resnet50/README.md, copied by hand; MFU is where swinTransformer/README.md has it.
NAMES = "| 指标名称           | 指标值索引       | 特殊说明                                     |"
VALUES = (
    r"| 推理工具  | precision | bs   | byte_per_batch | e2e_time | p_val_whole | \*p_val_core | p_infer_whole "
    r"| \*p_infer_core | \*MFU     | acc         | mem        |"
)
FOREIGN = "model or data set is none of MLPerf's"
OWN = DatasetInfo("text-of-mine", False, "abc", {"test": 1_000})
HOSTILE = "a|b\n| c <img src=x onerror=1> @all [x](http://x) `q`"


def columns(header: str) -> list[str]:
    """The cells of a header that was copied from an original."""
    return [cell.strip() for cell in header.strip("|").split("|")]


def rendered(module, tmp_path: Path, *found) -> str:
    return str(module.render([session(tmp_path / "a", found)], None))


def row_of(table: list[list[str]], number: int = 1) -> dict[str, str]:
    return dict(zip(table[0], table[number], strict=True))


def test_the_table_of_inference_has_flagperfs_columns_behind_the_device(tmp_path: Path) -> None:
    names, values = tables(rendered(flagperf, tmp_path, inferred()))
    assert names[0] == columns(NAMES)
    wanted = [name.replace("acc", "acc(推理/验证)") for name in columns(VALUES)]
    assert values[0] == ["配置", *wanted]
    assert values[1] == [
        *("A100单机单卡（1x1）", "onnxruntime 1.23.2 (torch 2.9.0)", "fp16", "256", "", "613", "1359", "4263"),
        *("1391", "12406", "16.8%", "76.10/76.20", "19.7/40.0"),
    ]


def test_a_model_has_one_table_with_a_row_for_each_engine_precision_and_device(tmp_path: Path) -> None:
    found = [
        inferred(engine="tensorrt"),
        inferred(engine="tensorrt", precision="fp32"),
        inferred(engine="xtcl", case={"vendor": "kunlunxin", "chip": "R300", "node_id": "kunlunxin"}),
    ]
    _, values = tables(rendered(flagperf, tmp_path, *found))
    assert [(row[0][:4], row[1].split()[0], row[2]) for row in values[1:]] == [
        ("R300", "xtcl", "fp16"),
        ("A100", "tensorrt", "fp16"),
        ("A100", "tensorrt", "fp32"),
    ]


def test_quality_that_is_no_ratio_is_written_as_it_is(tmp_path: Path) -> None:
    one = inferred(quality=(21.4, 21.6))
    renamed = msgspec.json.decode(msgspec.json.encode(one).replace(b'"top1"', b'"perplexity"'), type=type(one))
    measured = {**renamed.metrics, **results.with_units({"perplexity": 21.6})}
    _, values = tables(rendered(flagperf, tmp_path, msgspec.structs.replace(renamed, metrics=measured)))
    assert row_of(values)["acc(推理/验证)"] == "21.6/21.4"


def test_what_was_not_measured_is_blank_and_never_a_zero(tmp_path: Path) -> None:
    bare = inferred(metrics={"p_inference_whole": 12.5}, quality=(None, None), weights=RANDOM, configuration={})
    text = rendered(flagperf, tmp_path, bare)
    row = row_of(tables(text)[1])
    assert row.pop("p_infer_whole") == "12.5"
    assert {name for name, cell in row.items() if cell and name not in ("配置", "推理工具", "precision", "bs")} == set()
    assert "随机权重，仅测速度，无精度结果" in text


@pytest.mark.parametrize("role", ["throughput", "edge", "server", "generation"])
def test_the_figures_of_an_invalid_measurement_stand_in_no_table(tmp_path: Path, role: str) -> None:
    invalid = inferred(role, verdict="invalid", error=ErrorResult("InvalidMeasurement", "answers were cached"))
    (table,) = tables(rendered(inference, tmp_path, invalid))
    row = row_of(table)
    assert row.pop("verdict") == "invalid&#58; InvalidMeasurement"
    subject = ("model", "scale", "device", "engine (framework)", "precision", "batch size", "threads")
    said = {name: cell for name, cell in row.items() if cell and name not in (*subject, "scenario", "ranked by")}
    assert said == {}
    assert "12406" not in rendered(flagperf, tmp_path / "b", invalid)


def test_the_edge_is_told_in_milliseconds_and_mebibytes(tmp_path: Path) -> None:
    (table,) = tables(rendered(inference, tmp_path, inferred("edge", configuration={"edge_threads": 2})))
    row = row_of(table)
    assert {name: row[name] for name in ("threads", "batch size", "mean (ms)", "p50 (ms)", "p90 (ms)", "p99 (ms)")} == {
        **{"threads": "2", "batch size": "1", "mean (ms)": "11.1", "p50 (ms)": "10.5"},
        **{"p90 (ms)": "12.25", "p99 (ms)": "18.75"},
    }
    assert (row["memory peak (MiB)"], row["engine size (MiB)"], row["energy (J)"]) == ("51.2", "49.2", "812.5")
    chinese = tables(rendered(flagperf, tmp_path / "b", inferred("edge")))
    assert row_of(chinese[0])["内存峰值(MiB)"] == "51.2"
    # One thread is the case's own default.
    assert row_of(chinese[0])["线程数"] == "1"


@pytest.mark.parametrize(
    ("role", "scenario", "ranked", "figure"),
    [
        ("single_stream", "SingleStream", "latency_early_stopping", "2.4 ms"),
        ("server", "Server", "qps", "497.3 queries/s"),
        ("offline", "Offline", "p_inference_whole", "20,322 samples/s"),
    ],
)
def test_a_scenario_is_told_with_the_figure_that_mlperf_ranks_it_by(
    tmp_path: Path, role: str, scenario: str, ranked: str, figure: str
) -> None:
    (table,) = tables(rendered(inference, tmp_path, inferred(role)))
    row = row_of(table)
    assert (row["scenario"], row["ranked by"], row["figure"]) == (scenario, ranked, figure)
    assert (row["LoadGen"], row["rules"]) == ("VALID", "MLPerf")


def test_a_run_that_was_shortened_is_no_run_by_mlperfs_rules(tmp_path: Path) -> None:
    one = inferred("server", loadgen=shortened())
    (table,) = tables(rendered(inference, tmp_path, one))
    assert row_of(table)["rules"] == "shortened&#58; duration 2 of 600 (s, samples or queries)"
    assert "shortened" in terminal.table([one])


@pytest.mark.parametrize("role", ["single_stream", "multi_stream", "offline"])
def test_no_scenario_of_another_model_is_one_of_mlperfs(role: str) -> None:
    assert inferring.rules(inferred(role, metrics={})) == "MLPerf"
    assert inferring.rules(inferred(role, metrics={}, case={"model": "my_own"})) == f"not MLPerf's: {FOREIGN}"


def test_a_stream_of_too_few_queries_has_no_figure_to_be_ranked_by(tmp_path: Path) -> None:
    one = inferred("single_stream", metrics={"latency_p90": 2.2})
    (table,) = tables(rendered(inference, tmp_path, one))
    assert (row_of(table)["ranked by"], row_of(table)["figure"]) == ("latency_early_stopping", "")


@pytest.mark.parametrize(
    ("differs", "told"),
    [
        ({"configuration": {"latency_bound": 20.0}}, "bound 20.0 ms, MLPerf's is 15"),
        ({"configuration": {"latency_bound": 15}}, ""),
        ({"weights": RANDOM}, "random weights"),
        ({"dataset": DatasetInfo("imagenet2012", True)}, "synthetic data"),
        ({"deviations": ["batch_size = 8 (standard case: 256)"]}, "≠ 1 from the standard case"),
        ({"case": {"scale": "lite"}}, "scale lite"),
        ({"case": {"model": "other"}, "configuration": {"latency_bound": 15.0}}, FOREIGN),
        ({"case": {"model": "bert"}, "dataset": OWN, "configuration": {"latency_bound": 130.0}}, FOREIGN),
        ({"dataset": OWN}, FOREIGN),
    ],
)
def test_only_the_standard_bound_data_and_weights_are_by_mlperfs_rules(differs: dict, told: str) -> None:
    one = inferred("server", **differs)
    assert inferring.rules(one) == (f"not MLPerf's: {told}" if told else "MLPerf")
    short = inferred("server", loadgen=shortened(), **differs)
    assert inferring.rules(short).startswith("shortened: duration 2 of 600")
    assert inferring.rules(short).endswith(told)


def test_what_loadgen_said_is_read_from_the_result_and_not_from_texts() -> None:
    reworded = ErrorResult("InvalidMeasurement", "in other words")
    invalid = inferred("server", verdict="invalid", error=reworded, loadgen=LoadGenResult("Server", False, ["late"]))
    assert (inferring.validity(invalid), inferring.rules(invalid)) == ("INVALID", "")
    # Figures alone say nothing of LoadGen.
    unknown = inferred("server", loadgen=None, notes=["Server was shortened, no MLPerf result: duration 2 of 600"])
    assert (inferring.validity(unknown), inferring.rules(unknown)) == ("", "")


def test_a_run_that_loadgen_calls_invalid_says_so(tmp_path: Path) -> None:
    error = ErrorResult(
        "InvalidMeasurement", "rank 0 of 1 raised InvalidMeasurement: LoadGen calls its Server run INVALID"
    )
    told = LoadGenResult("Server", False, ["early stopping"])
    (table,) = tables(rendered(inference, tmp_path, inferred("server", verdict="invalid", error=error, loadgen=told)))
    row = row_of(table)
    assert (row["LoadGen"], row["rules"], row["figure"]) == ("INVALID", "", "")


def test_generation_is_told_by_its_tokens(tmp_path: Path) -> None:
    settings = {"batch_size": 32, "batch_sizes": [1, 8], "prompt_lengths": [512, 128], "new_tokens": [96, 16]}
    (table,) = tables(rendered(inference, tmp_path, scoring("generation", configuration=settings)))
    row = row_of(table)
    # Of the first setting, which the figures are of; 32 windows at once were scored, not continued.
    assert (row["batch size"], row["prompt (tokens)"], row["new tokens"]) == ("1", "512", "96")
    assert (row["TTFT (ms)"], row["TPOT (ms)"], row["tokens/s/device"]) == ("21.5", "7.25", "137.9")


def test_rates_are_told_in_what_the_case_counts(tmp_path: Path) -> None:
    found = [inferred(), scoring(), scoring("edge")]
    loops, edge = tables(rendered(inference, tmp_path, *found))
    assert {row["model"]: row["rates in"] for row in (row_of(loops, 1), row_of(loops, 2))} == {
        **{"resnet50": "images/s", "llama": "tokens/s"},
    }
    assert (row_of(edge)["rates in"], row_of(edge)["p_infer_whole"]) == ("tokens/s", "90")
    shown = terminal.table(found)
    assert (shown.count("images/s"), shown.count("tokens/s"), shown.count("samples/s")) == (1, 2, 0)
    chinese = rendered(flagperf, tmp_path / "b", *found)
    assert "实际推理样本数除以总推理时间，单位为tokens/s" in chinese
    rows = list(reader.DictReader(io.StringIO(rendered(csv, tmp_path / "c", *found))))
    units = {(row["model"], row["unit"]) for row in rows if row["metric"].startswith("p_")}
    assert units == {("resnet50", "images/s"), ("llama", "tokens/s")}
    told = dict(junit.properties(scoring(), tmp_path))
    assert told["flagperf.unit.p_inference_core"] == "tokens/s"


def test_what_loadgen_counts_are_samples_whatever_the_case_counts() -> None:
    offline = scoring("offline")
    assert inferring.ranking(offline) == "p_inference_whole 20,322 samples/s"
    assert results.unit_of(offline, "p_validation_core") == "tokens/s"


def test_training_and_inference_of_a_session_stand_in_tables_of_their_own(tmp_path: Path) -> None:
    found = [training(), inferred(), inferred("server")]
    one = session(tmp_path / "a", found)
    text = flagperf.render([one], None) or ""
    assert text.index("kunlunxin R300 resnet50-pytorch") < text.index("### resnet50 推理")
    assert [table[0][0] for table in tables(text)] == ["指标名称", "配置", "指标名称", "配置", "模型"]
    shown = terminal.table(found)
    first = [line.split()[0] for line in shown.splitlines() if line.startswith(("case", "inference", "MLPerf"))]
    assert first == ["case", "inference", "MLPerf"]
    assert shown.count("resnet50 convergence") == shown.count("resnet50 throughput") == 1
    assert "qps 497.3 queries/s" in shown
    comment = markdown.render([one], None) or ""
    assert "All results (1)" in comment
    assert "Inference (2)" in comment
    assert comment.count("12,406") == 1


def test_the_comment_keeps_within_its_limit_with_many_results_of_inference(tmp_path: Path) -> None:
    found = [inferred(engine=f"engine{number}") for number in range(400)] + [inferred("edge")]
    text = rendered(markdown, tmp_path, *found)
    assert len(text) <= markdown.LIMIT
    assert "more are in the session&#39;s files" in text or "more are in the session's files" in text
    assert text.rstrip().endswith("</details>")


def test_rows_for_spreadsheets_say_engine_and_weights(tmp_path: Path) -> None:
    found = [training(), inferred(), inferred(engine="eager", weights=RANDOM)]
    rows = list(reader.DictReader(io.StringIO(rendered(csv, tmp_path, *found))))
    assert {(row["kind"], row["engine"], row["weights"]) for row in rows} == {
        ("training", "", ""),
        ("inference", "onnxruntime", "resnet50-digits"),
        ("inference", "eager", "random"),
    }
    (core,) = [row for row in rows if row["engine"] == "onnxruntime" and row["metric"] == "p_inference_core"]
    assert (core["value"], core["unit"]) == ("12406.0", "images/s")


def test_the_workbook_has_engines_and_their_figures(tmp_path: Path) -> None:
    pytest.importorskip("xlsxwriter")
    one = session(tmp_path / "a", [training(), inferred()])
    xlsx.render([one], tmp_path / "report.xlsx")
    header, *lines = sheet(tmp_path / "report.xlsx", "cases")
    assert {"engine", "weights", "p_inference_core (images/s)"} <= {text for _, text in header}
    (ours,) = [line for line in lines if ("s", "inference") in line]
    (others,) = [line for line in lines if ("s", "training") in line]
    told = [("s", "onnxruntime"), ("s", "resnet50-digits"), ("n", "12406")]
    assert all(cell in ours and cell not in others for cell in told)


def test_random_weights_are_told_beside_every_figure(tmp_path: Path) -> None:
    one = inferred(weights=RANDOM, quality=(None, None), dataset=DatasetInfo("imagenet2012", True))
    assert "random weights" in terminal.table([one])
    for module, text in ((inference, "random weights"), (markdown, "random weights"), (flagperf, "随机权重")):
        assert text in rendered(module, tmp_path / module.__name__, one)


@pytest.mark.parametrize("module", [flagperf, inference, markdown])
def test_hostile_text_stays_text_in_the_tables(tmp_path: Path, module) -> None:
    one = inferred(
        case={"model": HOSTILE, "engine": HOSTILE, "chip": HOSTILE, "framework": HOSTILE, "precision": HOSTILE},
        weights=msgspec.structs.replace(inferred().weights, name=HOSTILE, origin=HOSTILE),
        dataset=DatasetInfo(HOSTILE, False),
    )
    hostile, plain = (rendered(module, tmp_path / name, each) for name, each in (("a", one), ("b", inferred())))
    assert [len(table) for table in tables(hostile)] == [len(table) for table in tables(plain)]
    assert all(len({len(row) for row in table}) == 1 for table in tables(hostile))
    assert not any(sign in hostile for sign in ("<img", "[x](", "`q`", "@all"))


def test_figures_across_cases_are_of_training_alone() -> None:
    trained = training(metrics={"p_train": 100.0, "memory_peak": 1.0}, topology="1x1")
    faster = training(metrics={"p_train": 200.0}, topology="1x1", precision="amp")
    # A throughput test stands in the place of the convergence test of the same case.
    beside = inferred(precision="fp32", case={"vendor": "kunlunxin", "chip": "R300"})
    assert "amp_speedup" in [one.name for one in derived.compute([trained, faster, beside]).metrics]
    # What was published for ResNet-50 on eight devices is of training.
    published = inferred(precision="fp32", case={"topology": "1x8"})
    assert derived.compute([training()]).metrics
    assert derived.compute([published]).metrics == []


def test_a_round_that_does_not_count_gives_no_quality() -> None:
    one = inferred()
    counting = one.rounds[0]
    worse = msgspec.structs.replace(counting, round=2, dropped="the slowest", evaluations=[])
    (found,) = inferring.qualities(msgspec.structs.replace(one, rounds=[counting, worse]))
    assert (found.name, found.reference, found.engine) == ("top1", 0.762, 0.761)


def test_junit_says_by_which_engine_and_with_which_weights(tmp_path: Path) -> None:
    told = dict(junit.properties(inferred(), tmp_path))
    assert (told["flagperf.engine"], told["flagperf.weights"]) == ("onnxruntime", "resnet50-digits")
    assert (
        dict(junit.properties(inferred(weights=RANDOM), tmp_path))["flagperf.weights"] == "resnet50-imagenet (random)"
    )
    assert not {"flagperf.engine", "flagperf.weights"} & set(dict(junit.properties(training(), tmp_path)))


@pytest.mark.parametrize("module", [flagperf, inference, markdown])
def test_what_differs_from_the_standard_case_is_told_of_inference_too(tmp_path: Path, module) -> None:
    text = rendered(module, tmp_path, inferred("edge", deviations=["batch_size = 8 (standard case: 1)", "repeat = 1"]))
    assert "与标准用例有 2 处不同" in text if module is flagperf else "≠ 2 from the standard case" in text
