"""FlagPerf's and MindSpore's tables: the columns of the originals, blank where nothing was measured."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_flagperf.reports.formats import flagperf
from pytest_flagperf.reports.formats import mindspore
from pytest_flagperf.result import DatasetInfo
from pytest_flagperf.result import MetricValue
from pytest_flagperf.result import SettingResult
from tests.reports.formats_sessions import derived
from tests.reports.formats_sessions import operator
from tests.reports.formats_sessions import session
from tests.reports.formats_sessions import tables
from tests.reports.formats_sessions import training


# As the originals have them, copied by hand:
# FlagPerf training/kunlunxin/glm-pytorch/README.md,
GLM_GENERAL = "| 指标名称       | 指标值                         | 特殊说明                                    |"
GLM_NAMES = "任务类别 模型 数据集 数据精度 超参修改 硬件设备简称 硬件存储使用 端到端时间 总吞吐量 训练吞吐量 "
GLM_NAMES += "**计算吞吐量** 训练结果 额外修改项"
GLM_PERFORMANCE = (
    "| 配置                | precision | fix_hp           | e2e_time | p_whole | p_train | p_core | acc   | mem       |"
)
# training/nvidia/llama3_8B-megatron/README.md,
LLAMA_PERFORMANCE = (
    "| 配置             | precision | parallel  | fix_hp | token/p/s | 是否精度对齐     | mem   | MFU         |"
)
LLAMA_NAMES = "任务类别 模型 数据集 数据精度 超参修改 超参修改 硬件设备简称 硬件存储使用 计算使用率 **吞吐量**"
# base/benchmarks/computation-FP32/nvidia/A100 and main_memory-bandwidth/dcu/BW, for one card,
FP32 = "| 评测项  | FP32算力测试值 | FP32算力标定值 | 测试标定比例 |"
MEMORY = "| 评测项  | 主存储带宽测试值 | 主存储带宽标定值 | 测试标定比例 |"
H2D = "| 评测项  | CPU-芯片互联带宽测试值 | CPU-芯片互联带宽标定值 | 测试标定比例 |"
POWER = "| 监控项  | 系统平均功耗  | 系统最大功耗  | 系统功耗标准差 | 单机TDP "
POWER += "| 单卡平均功耗 | 单卡最大功耗 | 单卡功耗标准差 | 单卡TDP |"
BASE_OTHER = "| 监控项  | 系统平均CPU占用 | 系统平均内存占用 | 单卡平均温度 | 单卡平均显存占用 |"
# operation/benchmarks/addmm/nvidia/A100_40_SXM/FP16_README.md,
OPERATOR_CORE = (
    "| 评测项  | correctness | TFLOPS(cpu wall clock) | TFLOPS(kernel clock) | FU(FLOPS Utilization)-cputime "
    "| FU-kerneltime |"
)
OPERATOR_TIMES = "| 评测项  | cputime | kerneltime | cputime吞吐 | kerneltime吞吐 | 无预热时延 | 预热后时延 |"
OPERATOR_OTHER = "| 监控项  | 系统平均CPU占用 | 系统平均内存占用 | 单卡平均温度 | 单卡最大显存占用 |"
# MindSpore r1.7, benchmark.md,
SCALING = (
    "| Network | Network Type | Dataset | MindSpore Version | Resource &nbsp; &nbsp; | Precision | Batch Size "
    "| Throughput | Speedup |"
)
# and NVIDIA's DeepLearningExamples, with devices for GPUs and fp32 for TF32.
AMP = (
    "| Devices | Batch size / device | Throughput - FP32 | Throughput - mixed precision "
    "| Throughput speedup (FP32 to mixed precision) | Weak scaling - FP32 | Weak scaling - mixed precision |"
)


def columns(header: str) -> list[str]:
    """The cells of a header that was copied from an original."""
    return [cell.replace("&nbsp;", "").strip() for cell in header.strip("|").split("|")]


def test_the_training_tables_have_the_columns_of_the_glm_page(tmp_path: Path) -> None:
    found = [training(topology="1x1", precision="amp"), training(topology="2x8"), training()]
    general, performance = tables(flagperf.render([session(tmp_path / "a", found)], None))
    assert general[0] == columns(GLM_GENERAL)
    assert [row[0] for row in general[1:]] == GLM_NAMES.split()
    assert performance[0] == columns(GLM_PERFORMANCE)
    assert [row[0] for row in performance[1:]] == ["R300单机单卡（1x1）", "R300单机8卡（1x8）", "R300两机8卡（2x8）"]
    assert performance[2] == ["R300单机8卡（1x8）", "fp32", "/", "28661", "4475", "4586", "4659", "76.12%", "31.8/32.0"]


def test_what_was_not_measured_is_blank_and_a_footnote_says_so(tmp_path: Path) -> None:
    failed = training(verdict="invalid", metrics={}, quality=None, error="rank 3 was ended by SIGSEGV")
    text = flagperf.render([session(tmp_path / "a", [failed])], None)
    row = tables(text)[1][1]
    assert row == ["R300单机8卡（1x8）<sup>1</sup>", "fp32", "/", "", "", "", "", "", ""]
    assert "注：空白处未测量。" in text
    assert "1. 测量无效：RankCrashed" in text


def test_figures_of_an_invalid_measurement_are_blank(tmp_path: Path) -> None:
    invalid = training(verdict="invalid", error="two figures of one rank differ")
    row = tables(flagperf.render([session(tmp_path / "a", [invalid])], None))[1][1]
    assert row[3:] == [""] * 6


def test_a_quality_that_misses_its_target_is_not_rounded_to_it(tmp_path: Path) -> None:
    text = flagperf.render([session(tmp_path / "a", [training(quality=0.75896, verdict="missed")])], None)
    assert tables(text)[1][1][7] == "75.896%"


def test_the_tdp_of_a_card_is_the_catalogues(tmp_path: Path) -> None:
    one = operator("memory", {"kind": "bandwidth", "size": 1}, {"bandwidth": 1.0}, chip="A100-40GB")
    power = tables(flagperf.render([session(tmp_path / "a", [one])], None))[1]
    assert power[1][-1] == "400W"


def test_a_throughput_test_has_no_time_to_the_target_and_says_why(tmp_path: Path) -> None:
    text = flagperf.render([session(tmp_path / "a", [training(role="throughput")])], None)
    row = tables(text)[1][1]
    assert row[3] == ""
    assert row[5] == "4586"
    assert "定步数吞吐量测试" in text


def test_what_the_vendor_changed_stands_in_fix_hp(tmp_path: Path) -> None:
    origin = "vendors/kunlunxin/resnet50.toml"
    changed = {
        "batch_size": SettingResult(512, origin),
        "learning_rate": SettingResult(0.2, origin),
        "momentum": SettingResult(0.9, "case resnet50, scale full"),
    }
    text = flagperf.render([session(tmp_path / "a", [training(configuration=changed)])], None)
    assert tables(text)[1][1][2] == "bs=512,lr=0.2"


def test_mfu_is_a_column_where_it_was_measured(tmp_path: Path) -> None:
    found = [training(metrics={"p_train": 100.0, "mfu": 0.418}), training(topology="1x1")]
    performance = tables(flagperf.render([session(tmp_path / "a", found)], None))[1]
    assert performance[0] == [*columns(GLM_PERFORMANCE), "MFU"]
    assert [row[-1] for row in performance[1:]] == ["", "41.8%"]


def test_language_models_have_the_columns_of_llama(tmp_path: Path) -> None:
    one = training(model="llama3_8b", metrics={"mfu": 0.569, "memory_peak": 76.0, "memory_total": 80.0})
    tokens = {"tokens_per_second_per_device": MetricValue(3698.7, "tokens/s", "higher")}
    sizes = {"pipeline_parallel": 2, "data_parallel": 4, "tensor_parallel": 1}
    settings = {name: SettingResult(value, "case llama3_8b, scale full") for name, value in sizes.items()}
    changed = type(one)(
        **{**{name: getattr(one, name) for name in one.__struct_fields__}, "metrics": {**one.metrics, **tokens}}
        | {"configuration": settings}
    )
    general, performance = tables(flagperf.render([session(tmp_path / "a", [changed])], None))
    assert [row[0] for row in general[1:]] == LLAMA_NAMES.split()
    assert performance[0] == columns(LLAMA_PERFORMANCE)
    assert performance[1] == ["R300单机8卡（1x8）", "fp32", "PP2DP4TP1", "/", "3699", "True", "76.0/80.0", "56.9%"]


def test_what_cannot_be_compared_with_flagperf_is_marked(tmp_path: Path) -> None:
    found = [training(scale="lite", stand_in="cpu", dataset=DatasetInfo("digits", True), division="open")]
    text = flagperf.render([session(tmp_path / "a", found)], None)
    assert "<sup>1</sup><sup>2</sup><sup>3</sup><sup>4</sup>" in text
    for told in ("lite 规模", "合成数据", "开放赛道", "不是 kunlunxin 硬件的测量结果"):
        assert told in text


PEAK = {"value": 19.5, "unit": "TFLOP/s", "source": "datasheet", "estimated": False}


def test_hardware_has_the_tables_of_flagperfs_base(tmp_path: Path) -> None:
    found = [
        operator(
            "computation",
            {"m": 4096, "n": 4096, "k": 4096},
            {"time": 7200.0, "tflops": 19.05, "utilization": 0.977, "power": 317.2, "cpu_utilization": 0.03456},
            precision="fp32",
            peak=PEAK,
        ),
        operator("memory", {"kind": "bandwidth", "size": 1 << 32}, {"time": 1.0, "bandwidth": 1328.25}),
        operator("interconnect", {"kind": "host_to_device", "scope": "host", "size": 1}, {"bandwidth": 26.09}),
    ]
    text = flagperf.render([session(tmp_path / "a", found)], None)
    core, power, other, memory, _, _, h2d, *_ = tables(text)
    assert [core[0], power[0], other[0]] == [columns(FP32), columns(POWER), columns(BASE_OTHER)]
    assert core[1] == ["评测结果", "19.05TFLOPS", "19.5TFLOPS", "97.70%"]
    assert power[1] == ["监控结果", "", "", "", "", "317.2W", "", "", ""]
    assert other[1] == ["监控结果", "3.46%", "", "", ""]
    assert memory[0] == columns(MEMORY)
    assert memory[1] == ["评测结果", "1328GB/s", "", ""]
    assert h2d[0] == columns(H2D)
    assert "### nvidia A100 computation-FP32" in text


def test_operators_have_flagperfs_tables_and_figures_stand_under_their_clock(tmp_path: Path) -> None:
    figures = {"time": 610.3, "wall_time": 629.83, "first_call": 735235.98, "tflops": 225.28, "utilization": 0.7221}
    figures |= {"max_relative_error": 1e-3, "cpu_utilization": 0.00573}
    found = [
        operator("operator", {"name": "addmm"}, figures, clock="device events"),
        operator("operator", {"name": "mm"}, figures, clock="host", verdict="wrong"),
        operator("gemm", {"m": 1}, {"time": 1.0}),
    ]
    text = flagperf.render([session(tmp_path / "a", found)], None)
    core, times, power, other = tables(text)
    assert [core[0], times[0]] == [columns(OPERATOR_CORE), columns(OPERATOR_TIMES)]
    assert [power[0], other[0]] == [columns(POWER), columns(OPERATOR_OTHER)]
    assert core[1] == ["nativetorch addmm FP16", "True", "", "225.3TFLOPS", "", "72.21%"]
    assert core[2] == ["nativetorch mm FP16", "False", "225.3TFLOPS", "", "72.21%", ""]
    assert times[1][1:] == ["629.83us", "610.30us", "1587.73op/s", "1638.54op/s", "735235.98us", ""]
    assert "另有 1 项 DeepBench 算子结果" in text


def test_nothing_to_fill_in_is_said() -> None:
    assert "没有可填入" in flagperf.render([], None)
    assert "没有测得" in mindspore.render([], None)


# --- MindSpore


def scaled(topology: str, rate: float, precision: str = "amp", **more):
    return training(
        framework="mindspore",
        vendor="ascend",
        chip="Ascend 910",
        topology=topology,
        precision=precision,
        metrics={"p_train": rate},
        **more,
    )


def test_the_scaling_table_has_mindspores_columns_and_the_derived_efficiency(tmp_path: Path) -> None:
    one, eight, sixteen, more = scaled("1x1", 2115), scaled("1x8", 16600), scaled("2x8", 32768), scaled("4x8", 60000)
    figures = [derived("scaling_efficiency", 0.98, eight, one), derived("scaling_efficiency", 0.96, sixteen, one)]
    text = mindspore.render([session(tmp_path / "a", [sixteen, one, more, eight], figures)], None)
    (table,) = tables(text)
    assert table[0] == columns(SCALING)
    first = ["ResNet-50 v1.5", "CNN", "imagenet2012", "2.6.0", "ascend: 1 &#42; Ascend 910 </br> CPU：192 Cores"]
    assert table[1] == [*first, "Mixed", "256", "2115 images/sec", "-"]
    blank = ["", "", "", ""]
    eight_devices = "ascend: 8 &#42; Ascend 910 </br> CPU：192 Cores"
    assert table[2] == [*blank, eight_devices, "Mixed", "256&#42;8", "16600 images/sec", "0.98"]
    assert [row[7:] for row in table[3:]] == [["32768 images/sec", "0.96"], ["60000 images/sec", ""]]
    assert table[3][4] == "ascend: 16 &#42; Ascend 910"


def test_a_throughput_test_stands_for_its_convergence_test(tmp_path: Path) -> None:
    found = [scaled("1x1", 2000), scaled("1x1", 2115, role="throughput")]
    (table,) = tables(mindspore.render([session(tmp_path / "a", found)], None))
    assert [row[7] for row in table[1:]] == ["2115 images/sec"]


def test_an_invalid_result_replaces_no_valid_one_and_is_told(tmp_path: Path) -> None:
    valid = session(tmp_path / "a", [scaled("1x1", 2000), scaled("1x1", 2115, role="throughput")])
    later = [
        scaled("1x1", 9999, role="throughput", verdict="invalid", error="x"),
        scaled("1x8", 7777, verdict="invalid"),
    ]
    text = mindspore.render([valid, session(tmp_path / "b", later)], None)
    (table,) = tables(text)
    assert [row[7] for row in table[1:]] == ["2115 images/sec", ""]
    assert "测量无效" in text
    assert "9999" not in text


def test_a_throughput_test_goes_before_a_later_convergence_test(tmp_path: Path) -> None:
    first = session(tmp_path / "a", [scaled("1x1", 2115, role="throughput")])
    text = mindspore.render([first, session(tmp_path / "b", [scaled("1x1", 2000)])], None)
    assert [row[7] for row in tables(text)[0][1:]] == ["2115 images/sec"]


def test_the_amp_table_has_nvidias_columns(tmp_path: Path) -> None:
    plain, mixed = scaled("1x8", 2000, "fp32"), scaled("1x8", 5300)
    single = scaled("1x1", 700)
    figures = [derived("amp_speedup", 2.65, mixed, plain), derived("scaling_efficiency", 0.946, mixed, single)]
    text = mindspore.render([session(tmp_path / "a", [plain, mixed, single], figures)], None)
    assert tables(text)[1] == [
        columns(AMP),
        ["8", "256", "2,000 images/s", "5,300 images/s", "2.65 x", "", "7.57"],
    ]


def test_without_derived_figures_their_cells_are_blank(tmp_path: Path) -> None:
    found = [scaled("1x8", 2000, "fp32"), scaled("1x8", 5300)]
    scaling, amp = tables(mindspore.render([session(tmp_path / "a", found)], None))
    assert [row[-1] for row in scaling[1:]] == ["", ""]
    assert amp[1][4:] == ["", "", ""]


@pytest.mark.parametrize("name", ["flagperf", "mindspore"])
def test_a_name_cannot_break_a_table(tmp_path: Path, name: str) -> None:
    evil = "a | b <b>\n| c |"
    found = [training(vendor=evil, chip=evil, dataset=DatasetInfo(evil, False))]
    text = {"flagperf": flagperf, "mindspore": mindspore}[name].render([session(tmp_path / "a", found)], None)
    assert "<b>" not in text
    for table in tables(text):
        assert len({len(row) for row in table}) == 1
