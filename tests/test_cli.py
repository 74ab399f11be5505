"""``flagperf``: what a person asks outside a test run."""

from __future__ import annotations

import json
import subprocess
import sys

import msgspec
import pytest

from pytest_flagperf import __version__
from pytest_flagperf import records
from pytest_flagperf import result as results
from pytest_flagperf.cli import main
from pytest_flagperf.judging.derived import Derived
from pytest_flagperf.judging.derived import RequirementResult
from pytest_flagperf.judging.derived import write
from pytest_flagperf.result import ComparisonResult
from tests.conftest import ROOT
from tests.reports.html_sessions import operator
from tests.test_result import make


def test_the_printed_schema_is_the_published_file(capsys):
    assert main(["schema"]) == 0
    published = (ROOT / "pytest_flagperf" / "schemas" / "result.schema.json").read_text()
    assert capsys.readouterr().out == published


def test_metrics_lists_each_with_unit_and_direction(capsys):
    assert main(["metrics"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["p_whole", "samples/s", "higher"] in [row[:3] for row in rows]
    assert ["time_to_target", "s", "lower"] in [row[:3] for row in rows]


@pytest.fixture
def session_directory(tmp_path):
    (tmp_path / "toy-convergence").mkdir()
    results.write_result(tmp_path / "toy-convergence", make(tmp_path))
    return tmp_path


def test_show_prints_the_table_of_a_session_again(session_directory, capsys):
    assert main(["show", str(session_directory)]) == 0
    out = capsys.readouterr().out
    assert "toy convergence [pytorch-fp32-1x1-lite]" in out
    assert "top1 0.9500 >= 0.9" in out
    assert main(["show", str(session_directory / "toy-convergence")]) == 0
    assert capsys.readouterr().out == out


def test_show_gives_json_for_programs(session_directory, capsys):
    assert main(["show", "--json", str(session_directory)]) == 0
    (document,) = json.loads(capsys.readouterr().out)
    assert document["case"]["model"] == "toy"


def test_show_says_so_where_something_is_not_well(session_directory, capsys):
    path = session_directory / "toy-convergence" / "result.json"
    path.write_text(path.read_text().replace('"passed"', '"missed"'))
    assert main(["show", str(session_directory)]) == 1
    path.write_text("{")
    assert main(["show", str(session_directory)]) == 1
    assert "result.json cannot be read as a result" in capsys.readouterr().err


def test_show_tells_a_requirement_that_is_not_met_and_is_not_well(session_directory, capsys):
    held = RequirementResult("amp_speedup>=1", met=True, found=1)
    missed = RequirementResult("scaling_efficiency>=0.9", met=False, found=2, missed=["toy 1x2: 0.8"])
    write(session_directory, Derived([], requirements=[held, missed]))
    assert main(["show", str(session_directory)]) == 1
    out = capsys.readouterr().out
    assert "verdicts: 1 passed, 1 requirement not met\n" in out
    assert "required, met: amp_speedup>=1\n" in out
    assert "required, not met: scaling_efficiency>=0.9 does not hold in 1 of 2 cases\n  toy 1x2: 0.8\n" in out
    assert main(["show", "--json", str(session_directory)]) == 1
    write(session_directory, Derived([], requirements=[held]))
    assert main(["show", str(session_directory)]) == 0


def test_show_says_why_results_of_models_and_operators_are_not_comparable(session_directory, capsys):
    other = ComparisonResult("p_train", "not comparable", 90.0, reasons=["vendor was 'nvidia', is 'cpu'"])
    toy = msgspec.structs.replace(make(session_directory), verdict="not comparable", comparisons=[other])
    results.write_result(session_directory / "toy-convergence", toy)
    worker = results.Results(session_directory / "operators" / "main")
    worker.append(operator(1, "not comparable", comparisons=[other]))
    worker.close()
    assert main(["show", str(session_directory)]) == 0
    out = capsys.readouterr().out
    assert "not comparable: vendor was 'nvidia', is 'cpu' (toy convergence)\n" in out
    assert "not comparable: vendor was 'nvidia', is 'cpu' (gemm-train-fp32-fwd-m128-n16-k64-nt)\n" in out


def test_show_names_the_rounds_that_never_ended(session_directory, capsys):
    ledger = session_directory / "ledger.jsonl"
    for number, event in ((1, "round_start"), (1, "round_end"), (2, "round_start")):
        record = {"event": event, "case": "linear", "round": number, "directory": f"linear/round{number}"}
        records.append_line(ledger, record)
    main(["show", str(session_directory)])
    assert capsys.readouterr().err == "started and not ended: linear round 2\n"


def test_show_of_a_directory_without_results_is_an_error(tmp_path, capsys):
    assert main(["show", str(tmp_path / "nowhere")]) == 1
    assert "nowhere holds no result.json" in capsys.readouterr().err


def test_datasets_lists_what_exists(capsys):
    assert main(["datasets"]) == 0
    out = capsys.readouterr().out
    assert "digits" in out
    assert "imagenet2012" in out


def test_an_unknown_dataset_lists_what_exists(capsys):
    assert main(["datasets", "cifar11"]) == 1
    err = capsys.readouterr().err
    assert "cifar11" in err
    assert "imagenet2012" in err


def test_vendors_are_listed_with_what_is_asked_for_devices(capsys):
    assert main(["vendors"]) == 0
    rows = {line.split("  ")[0]: line for line in capsys.readouterr().out.splitlines()}
    assert " nvml, else nvidia-smi " in rows["nvidia"]
    assert " host " in rows["cpu"]


def test_vendors_gives_programs_every_figure_with_unit_and_source(capsys):
    assert main(["vendors", "ascend", "--json"]) == 0
    (document,) = json.loads(capsys.readouterr().out)
    assert document["name"] == "ascend"
    assert document["frameworks"]["mindspore"] == {"device": "Ascend", "module": None, "backend": "hccl"}
    chips = {chip["name"]: {one["name"]: one for one in chip["figures"]} for chip in document["chips"]}
    assert set(chips["910A"]) == {"peak.fp16", "peak.int8", "memory", "tdp", "dies_per_card"}
    assert (chips["910A"]["peak.int8"]["value"], chips["910A"]["peak.int8"]["unit"]) == (512, "TOP/s")
    memory = chips["910C"]["memory"]
    assert (memory["value"], memory["unit"], memory["unverified"]) == (64, "GB", False)
    assert memory["source"] == "as printed by npu-smi 25.2.0: 65536 MB a chip"
    assert chips["910C"]["peak.fp16"]["unverified"]
    link = chips["910B1"]["link.bandwidth"]
    assert (link["link"], link["value"], link["unit"], link["direction"]) == ("HCCS", 392, "GB/s", "bidirectional")
    assert main(["vendors", "--json"]) == 0
    assert document in json.loads(capsys.readouterr().out)


def test_a_vendor_without_chips_says_so(capsys):
    assert main(["vendors", "cpu"]) == 0
    assert capsys.readouterr().out == f"cpu: {ROOT / 'vendors' / 'cpu' / 'vendor.toml'} describes no chip\n"
    assert main(["vendors", "cpu", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["chips"] == []


def test_bad_usage_is_exit_code_2():
    with pytest.raises(SystemExit, match="2"):
        main(["nothing-like-that"])


def test_the_version_is_the_packages(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert capsys.readouterr().out.strip() == f"pytest-flagperf {__version__}"


def test_a_reader_that_goes_away_is_no_error():
    command = f"{sys.executable} -m pytest_flagperf.cli schema | head -c 1"
    done = subprocess.run(["bash", "-c", f"set -o pipefail; {command}"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "{", "")
