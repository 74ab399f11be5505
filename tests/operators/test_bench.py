"""``flagperf bench``: one problem by hand, by the engine of the tests."""

from __future__ import annotations

import dataclasses
import json
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from pytest_flagperf import cli
from pytest_flagperf.operators import arguments
from pytest_flagperf.operators import engine
from pytest_flagperf.operators import pool
from pytest_flagperf.operators.problems import FAMILIES


FAKE = f"{Path(__file__).parent / 'fake_entry.py'}:main"
SIZES = ("--m", "64", "--n", "32", "--k", "16")


@pytest.fixture(autouse=True)
def fake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(pool, "ENTRY", FAKE)
    monkeypatch.setenv("FLAGPERF_LEASE_DIR", str(tmp_path / "leases"))
    monkeypatch.chdir(tmp_path)


def bench(*words: str) -> int:
    return cli.main(["bench", *words, "--vendor=cpu", f"--python={sys.executable}"])


def misused(capsys, *words: str) -> str:
    """What is said of words that cannot be meant; nothing is measured."""
    with pytest.raises(SystemExit) as error:
        bench(*words)
    assert error.value.code == 2
    assert not Path("flagperf-results").exists()
    said = capsys.readouterr().err
    assert "Traceback" not in said
    return said.partition("error: ")[2]


def test_a_problem_is_measured_and_its_table_printed(capsys, tmp_path, marked):
    assert bench("gemm", *SIZES, "--a-transposed") == 0
    output = capsys.readouterr().out
    assert "gemm: 1 passed" in output
    assert "time_min 990 µs" in output
    assert "cv 2.0 %, 3 iterations" in output
    (session,) = (tmp_path / "flagperf-results").iterdir()
    assert (session / "operators.csv").read_text().splitlines()[1].startswith("gemm,m64-n32-k16-tn,64,32,16")
    assert not marked()


def test_a_layer_is_measured_in_every_direction_unless_one_is_named(capsys):
    layer = ("rnn", "--cell", "gru", "--hidden", "64", "--batch", "2", "--timesteps", "5")
    assert bench(*layer) == 0
    output = capsys.readouterr().out
    assert all(direction in output for direction in ("fwd", "bwd_data", "bwd_weights"))
    assert bench(*layer, "--direction", "bwd_data", "--json") == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert found["case"]["id"] == "rnn-bench-fp32-bwd_data-gru-h64-n2-t5"
    assert found["metrics"]["time"] == {"value": 1000.0, "unit": "µs", "better": "lower"}


def test_enough_samples_give_an_interval_of_the_median(capsys, monkeypatch):
    asked = pool.Pool.ask

    def ask(*arguments: Any) -> pool.Answer:
        answer = asked(*arguments)
        samples = [900.0, 950.0, 1000.0, 1000.0, 1100.0, 1350.0]
        return replace(answer, reply={**answer.reply, "samples": samples, "iterations": 6})

    monkeypatch.setattr(pool.Pool, "ask", ask)
    assert bench("gemm", *SIZES) == 0
    output = capsys.readouterr().out
    assert "95 % interval of the median 900 µs to 1.35 ms, cv 2.0 %" in output
    assert "±35 %" in output


def test_a_direction_that_there_is_not_is_bad_usage(capsys):
    assert "invalid choice: 'bwd_data' (choose from" in misused(capsys, "gemm", *SIZES, "--direction", "bwd_data")
    listed = ("operator", "--id", "add-128x128x128", "--direction", "bwd")
    assert "add-128x128x128 has no direction 'bwd'; it has fwd" in misused(capsys, *listed)


def test_a_size_that_is_missing_or_none_is_bad_usage(capsys):
    for wrong in (SIZES[:4], (*SIZES[:5], "-3"), (*SIZES, "--precision", "fp33")):
        misused(capsys, "gemm", *wrong)


def test_a_processor_that_nobody_published_is_said_before_anything_is_measured(capsys):
    assert "there are none of 'Abacus'" in misused(capsys, "gemm", *SIZES, "--published", "Abacus")


def test_a_vendor_that_there_is_not_is_bad_usage(capsys):
    with pytest.raises(SystemExit) as error:
        cli.main(["bench", "gemm", *SIZES, "--vendor=abacus"])
    assert error.value.code == 2
    assert "unknown vendor 'abacus'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("memory", "--kind", "bandwidth", "--size", "1001"), "no multiple of 8"),
        (("sparse", "--m", "2", "--n", "1", "--k", "2", "--sparsity", "0.95"), "nothing of 2x2 is left"),
        (("gemm", "--m", "0", "--n", "1", "--k", "2"), "m is 0, which is less than 1"),
    ],
)
def test_a_size_that_the_problem_refuses_is_told_once_and_without_a_traceback(capsys, words, said):
    found = misused(capsys, *words)
    assert said in found
    assert f"{words[0]}:" not in found


@pytest.mark.parametrize("family", [name for name in arguments.BENCHED if name not in arguments.COLLECTIVES])
def test_a_topology_is_refused_where_one_device_is_all_that_is_measured(capsys, family):
    sizes = {
        "gemm": SIZES,
        "computation": SIZES,
        "conv": [word for name in ("w", "h", "c", "n", "k", "filter-w", "filter-h") for word in (f"--{name}", "3")],
        "rnn": ("--cell", "gru", "--hidden", "64", "--batch", "2", "--timesteps", "5"),
        "sparse": (*SIZES, "--sparsity", "0.5"),
        "memory": ("--kind", "bandwidth", "--size", "1024"),
        "operator": ("--id", "add-128x128x128"),
    }[family]
    assert "is measured on one device" in misused(capsys, family, *sizes, "--topology", "1x4")


def test_host_to_device_has_no_topology_and_a_link_between_devices_has_one(capsys):
    size = ("--size", "1024")
    link = ("interconnect", "--kind", "host_to_device", "--scope", "host", *size, "--topology", "1x2")
    assert "is measured on one device" in misused(capsys, *link)
    assert bench("interconnect", "--kind", "host_to_device", "--scope", "host", *size) == 0
    assert "interconnect: 1 passed" in capsys.readouterr().out


def test_a_listed_operator_is_measured_by_its_id_and_by_its_name_in_another_shape(capsys):
    assert bench("operator", "--id", "mv-512x512-512", "--json") == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert found["operator"]["problem"]["inputs"] == [[512, 512], [512]]
    assert found["case"]["id"] == "operator-bench-fp32-fwd-mv-512x512-512"
    assert bench("operator", "--name", "add", "--inputs", "64x64", "64x64", "--precision", "bf16", "--json") == 0
    (found,) = json.loads(capsys.readouterr().out)
    problem = found["operator"]["problem"]
    assert (problem["inputs"], problem["outputs"]) == ([[64, 64]] * 2, [[64, 64]])
    assert found["case"]["precision"] == "bf16"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--id", "ad-128"), "no operator 'ad-128' is listed; near it: add-128x128x128"),
        (("--name", "ad"), "no operator 'ad' is listed; there are abs, add"),
        (("--name", "add"), "add wants --inputs: 2 of one shape"),
        (("--name", "add", "--inputs", "2x3", "3x2"), "add wants --inputs: 2 of one shape"),
        (("--name", "add", "--inputs", "2by3"), "2by3 is no shape"),
        (("--name", "softmax", "--inputs", "8"), "two dimensions at least"),
        (("--name", "addmm", "--inputs", "2x3"), "take a listed one, --id addmm-4096x4096, addmm-512x512"),
        (("--id", "add-128x128x128", "--inputs", "2x3"), "--inputs belongs to --name"),
        (("--name", "bitwise_and", "--inputs", "2x3"), "--precision fp32: bitwise_and-2x3 has int32, int16"),
    ],
)
def test_an_operator_that_cannot_be_meant_is_bad_usage(capsys, words, said):
    assert said in misused(capsys, "operator", *words)


def test_results_that_cannot_be_written_are_told_without_a_traceback(capsys, tmp_path):
    (tmp_path / "file").write_text("")
    assert bench("gemm", *SIZES, "--flagperf-dir", "file") == 1
    assert "flagperf: the results cannot be written to" in capsys.readouterr().err


def test_ctrl_c_ends_the_worker_and_leaves_no_traceback(capsys, monkeypatch, marked):
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(pool.WarmWorker, "_reply", interrupted)
    assert bench("gemm", *SIZES) == 130
    assert "interrupted" in capsys.readouterr().err
    assert not marked()


def said_by_help(capsys, *words: str) -> str:
    with pytest.raises(SystemExit) as error:
        cli.main(["bench", *words, "--help"])
    assert error.value.code == 0
    return " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("family", arguments.BENCHED)
def test_every_family_says_its_sizes_its_defaults_and_no_others_directions(capsys, family):
    text = said_by_help(capsys, family)
    assert "fp64,fp32" in text
    assert "default: fp32" in text
    assert "(default: hot)" in text
    assert "world_sizes" not in text
    assert ("bwd_data" in text) == (family in ("conv", "rnn"))
    assert ("--topology" in text) == (family in arguments.COLLECTIVES)
    for field in dataclasses.fields(FAMILIES[family]):
        if field.name in ("m", "sparsity", "pad_w", "timesteps"):
            assert f"--{field.name.replace('_', '-')}" in text


def test_help_tells_what_a_size_is_and_what_it_is_where_nobody_says(capsys):
    assert "at least 0 and below 1" in said_by_help(capsys, "sparse")
    conv = said_by_help(capsys, "conv")
    assert "--pad-w N default: 0" in conv
    assert "--stride-w N default: 1" in conv


def test_help_tells_the_engines_own_budget(capsys):
    said = f"(default: {engine.BUDGET:g}); at least {engine.LEAST} samples are taken"
    assert said in said_by_help(capsys, "gemm")


@pytest.mark.slow
@pytest.mark.pytorch
@pytest.mark.skipif(find_spec("torch") is None, reason="needs PyTorch")
def test_a_real_product_is_right_and_timed(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(pool, "ENTRY", "pytest_flagperf.worker.operators.serve:main")
    assert bench("gemm", *SIZES, "--budget", "0.1", "--json") == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert found["verdict"] == "passed"
    assert found["metrics"]["tflops"]["value"] == pytest.approx(
        2 * 64 * 32 * 16 / found["metrics"]["time"]["value"] / 1e6
    )
    assert found["operator"]["precision"]
