"""``flagperf bench``: one problem by hand, by the engine of the tests."""

from __future__ import annotations

import json
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from pytest_flagperf import cli
from pytest_flagperf.operators import arguments
from pytest_flagperf.operators import pool


FAKE = f"{Path(__file__).parent / 'fake_entry.py'}:main"
SIZES = ("--m", "64", "--n", "32", "--k", "16")


@pytest.fixture(autouse=True)
def fake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(pool, "ENTRY", FAKE)
    monkeypatch.setenv("FLAGPERF_LEASE_DIR", str(tmp_path / "leases"))
    monkeypatch.chdir(tmp_path)


def bench(*words: str) -> int:
    return cli.main(["bench", *words, "--vendor=cpu", f"--python={sys.executable}"])


def test_a_problem_is_measured_and_its_table_printed(capsys, tmp_path, marked):
    assert bench("gemm", *SIZES, "--a-transposed") == 0
    output = capsys.readouterr().out
    assert "gemm: 1 passed" in output
    assert "time_min 990 µs" in output
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


def test_a_direction_that_there_is_not_is_an_error(capsys):
    assert bench("gemm", *SIZES, "--direction", "bwd_data") == 1
    assert "gemm has no direction 'bwd_data'; it has fwd" in capsys.readouterr().err


def test_a_size_that_is_missing_or_none_is_bad_usage():
    for wrong in (SIZES[:4], (*SIZES[:5], "-3"), (*SIZES, "--precision", "fp33")):
        with pytest.raises(SystemExit) as error:
            bench("gemm", *wrong)
        assert error.value.code == 2


def test_a_processor_that_nobody_published_is_said_before_anything_is_measured(capsys, tmp_path):
    assert bench("gemm", *SIZES, "--published", "Abacus") == 1
    assert "there are none of 'Abacus'" in capsys.readouterr().err
    assert not (tmp_path / "flagperf-results").exists()


def test_a_size_that_the_problem_refuses_is_told_without_a_traceback(capsys):
    assert bench("memory", "--kind", "bandwidth", "--size", "1001") == 1
    assert "no multiple of 8" in capsys.readouterr().err
    assert bench("sparse", "--m", "2", "--n", "1", "--k", "2", "--sparsity", "0.95") == 1
    assert "nothing of 2x2 is left" in capsys.readouterr().err


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


@pytest.mark.parametrize("family", arguments.BENCHED)
def test_every_family_says_its_sizes(capsys, family):
    with pytest.raises(SystemExit) as error:
        cli.main(["bench", family, "--help"])
    assert error.value.code == 0
    assert "--precision" in capsys.readouterr().out


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
