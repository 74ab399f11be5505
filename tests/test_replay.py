"""``--replay``: runs that exist, FlagPerf's and ours, judged by the tests of the suites that ship."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from pytest_flagperf import collection
from pytest_flagperf import launching
from pytest_flagperf import perflog
from pytest_flagperf import replay
from pytest_flagperf.errors import ReplayError
from pytest_flagperf.perflog import EventWriter
from pytest_flagperf.reports import terminal
from tests.conftest import ROOT


# Imported here once: pytester forgets what a session of its own imports, and msgspec then misses its modules.
PLUGIN = (collection, launching, terminal)

LOGS = ROOT / "tests" / "data" / "flagperf"
KEY = "resnet50:pytorch_1.8:A100:1:8:1"
ID = "pytorch-fp32-1x8-full-A100"


@pytest.fixture(autouse=True)
def suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """The suite that ships; a launch would fail the test."""
    monkeypatch.setenv("PYTEST_ADDOPTS", "-p no:hypothesispytest -p no:anyio")

    def launched(*arguments: object, **named: object) -> None:
        raise AssertionError("a replay launches nothing")

    monkeypatch.setattr("pytest_flagperf.rounds.run_job", launched)
    source = ROOT / "suites" / "training" / "resnet50" / "test_resnet50.py"
    pytester.makepyfile(test_resnet50=source.read_text())


def flagperf(directory: Path, *logs: str, key: str = KEY, rank: int = 0) -> Path:
    """A result directory as FlagPerf leaves it: a round for each log."""
    for number, log in enumerate(logs, 1):
        host = directory / "run20221121123611" / key / f"round{number}" / f"10.1.2.3_noderank{rank}"
        host.mkdir(parents=True)
        shutil.copy(LOGS / f"{log}.rank0.out.txt", host / "rank0.out.log")
        (host / "rank1.out.log").write_text("[PerfLog] {}\n")
        (host / "nvidia_monitor.log").write_text("2022-11-21-12:36:11\n")
    return directory


def run(pytester: pytest.Pytester, *arguments: str) -> tuple[pytest.RunResult, dict]:
    """Replay ``logs``; gives pytest's output and the only ``result.json``."""
    done = pytester.runpytest_inprocess("--replay=logs", "-rs", "--vendor=nvidia", "--flagperf-dir=results", *arguments)
    (path,) = pytester.path.glob("results/*/*/result.json")
    return done, json.loads(path.read_text())


def test_a_converged_run_of_flagperf_passes(pytester):
    flagperf(pytester.path / "logs", "resnet50_converged")
    done, result = run(pytester, "-v")
    done.assert_outcomes(passed=1, skipped=1)
    done.stdout.fnmatch_lines([f"*::test_converges[[]{ID}[]] PASSED*"])
    assert "holds no throughput run of resnet50" in done.stdout.str()
    assert result["verdict"] == "passed"
    assert result["metrics"]["top1"] == {"value": 0.7602, "unit": "ratio", "better": "higher"}
    figures = {name: metric["value"] for name, metric in result["metrics"].items()}
    assert (figures["e2e_time"], figures["train_time"]) == (8460.5, 8400.25)
    assert (figures["p_whole"], figures["p_train"], figures["p_core"]) == (13928.157, 14402.659, 14827.488)
    assert any(note.startswith("replayed from FlagPerf's log") for note in result["notes"])
    # Nobody knows what was set: the standard case is not asserted.
    assert result["configuration"] == {}
    assert "final_acc1 = 76.02 was logged in percent" in result["notes"]
    assert f"--replay={pytester.path}/logs" in result["rerun"] or "--replay=logs" in result["rerun"]


def test_the_evaluations_of_a_run_in_percent_are_ratios_from_the_first_on(pytester):
    flagperf(pytester.path / "logs", "resnet50_converged")
    _, result = run(pytester)
    (only,) = result["rounds"]
    assert [one["quality"]["top1"] for one in only["evaluations"]] == pytest.approx([0.0062, 0.415, 0.6825, 0.7602])
    assert [one["seconds"] for one in only["evaluations"]] == [2000, 4000, 6000, 8000]
    assert [one["step"] for one in only["evaluations"]] == [5004, 10008, 15012, 20016]


def test_a_run_that_missed_its_target_fails_and_says_by_how_much(pytester):
    flagperf(pytester.path / "logs", "resnet50_missed")
    done, result = run(pytester)
    done.assert_outcomes(failed=1, skipped=1)
    assert done.ret == pytest.ExitCode.TESTS_FAILED
    assert f"resnet50 convergence [{ID.removesuffix('-A100')}] missed its target" in done.stdout.str()
    assert "top1 >= 0.759: 0.727 (missed; MLPerf Training v0.7, ResNet-50 v1.5)" in done.stdout.str()
    assert "epoch   3.00  step  15012    6000.0 s  evaluation_loss 1.4000  top1 0.7270" in done.stdout.str()
    assert result["verdict"] == "missed"


@pytest.mark.parametrize("log", ["resnet50_unfinished", "resnet50_truncated"])
def test_a_run_without_its_finished_line_is_invalid_however_good_it_looked(pytester, log):
    flagperf(pytester.path / "logs", log)
    done, result = run(pytester)
    done.assert_outcomes(failed=1, skipped=1)
    assert "InvalidMeasurement: resnet50 convergence" in done.stdout.str()
    assert "the log has no FINISHED event" in done.stdout.str()
    assert (result["verdict"], result["metrics"]) == ("invalid", {})
    assert result["error"]["type"] == "InvalidMeasurement"


def test_hostile_bytes_in_a_log_change_neither_the_verdict_nor_the_terminal(pytester):
    flagperf(pytester.path / "logs", "resnet50_hostile")
    done, result = run(pytester)
    done.assert_outcomes(passed=1, skipped=1)
    assert result["metrics"]["top1"]["value"] == 0.765
    assert "\x1b[31m" not in done.stdout.str()


def test_the_worst_of_two_rounds_is_judged_and_the_figures_are_their_median(pytester):
    flagperf(pytester.path / "logs", "resnet50_converged", "resnet50_missed")
    done, result = run(pytester)
    done.assert_outcomes(failed=1, skipped=1)
    assert [one["round"] for one in result["rounds"]] == [1, 2]
    assert (result["targets"][0]["value"], result["targets"][0]["met"]) == (0.727, False)
    assert result["metrics"]["top1"]["value"] == pytest.approx((0.7602 + 0.727) / 2)
    assert "last evaluations of round 2:" in done.stdout.str()


def test_two_good_rounds_pass(pytester):
    flagperf(pytester.path / "logs", "resnet50_converged", "resnet50_hostile")
    done, result = run(pytester)
    done.assert_outcomes(passed=1, skipped=1)
    assert len(result["rounds"]) == 2


@pytest.mark.parametrize("lost", ["session.json", "*/result.json"])
def test_files_that_are_lost_before_the_end_cost_no_report(pytester, lost):
    flagperf(pytester.path / "logs", "resnet50_missed")
    pytester.makeconftest(f"""
        import pytest
        @pytest.hookimpl(tryfirst=True)
        def pytest_sessionfinish(session):
            for path in session.config.rootpath.glob("results/*/{lost}"):
                path.unlink()
    """)
    done = pytester.runpytest_inprocess("--replay=logs", "--flagperf-dir=results", "--junitxml=junit.xml")
    assert done.ret == pytest.ExitCode.TESTS_FAILED
    done.assert_outcomes(failed=1, skipped=1)
    assert "INTERNALERROR" not in done.stdout.str() + done.stderr.str()
    assert f"{lost.removeprefix('*/')} cannot be read" in done.stdout.str() + done.stderr.str()
    assert (pytester.path / "junit.xml").is_file()


def test_a_bound_of_the_command_line_holds_for_a_replay_too(pytester):
    flagperf(pytester.path / "logs", "resnet50_missed")
    done, result = run(pytester, "--target=top1=0.72")
    done.assert_outcomes(passed=1, skipped=1)
    assert result["deviations"] == ["target top1 = 0.72 (standard case: 0.759), from the command line"]


def test_a_run_of_another_model_is_skipped_and_says_so(pytester):
    flagperf(pytester.path / "logs", "readme", key="cpm:pytorch_1.8:A100:1:8:1")
    done = pytester.runpytest_inprocess("--replay=logs", "-rs")
    done.assert_outcomes(skipped=2)
    assert "logs holds no convergence run of resnet50" in done.stdout.str()


def test_a_round_without_the_log_of_the_first_rank_is_invalid(pytester):
    flagperf(pytester.path / "logs", "resnet50_converged")
    for path in (pytester.path / "logs").rglob("rank0.out.log"):
        path.unlink()
    done, _ = run(pytester)
    done.assert_outcomes(failed=1, skipped=1)
    assert "has no <host>_noderank0/rank0.out.log" in done.stdout.str()


def test_runs_are_found_wherever_they_are_and_their_keys_are_read(tmp_path):
    flagperf(tmp_path, "resnet50_converged")
    flagperf(tmp_path / "second", "resnet50_missed", key="resnet50:paddle_2.3:TP1PP1-x:2:8:1:more")
    for name in ("result:of:something", "resnet50:tensorflow2:A100:1:8:1", "resnet50:pytorch:A100:one:8:1", "notes"):
        (tmp_path / name / "round1").mkdir(parents=True)
    first, second = replay.find(tmp_path, "amp")
    assert (first.model, first.role, first.id) == ("resnet50", "convergence", "pytorch-amp-1x8-full-A100")
    assert second.id == "paddle-amp-2x8-full-TP1PP1_x"
    (only,) = replay.find(tmp_path / "run20221121123611" / KEY, "fp32")
    assert only.id == ID


def test_ids_are_ascii_whatever_the_hardware_is_called(tmp_path):
    flagperf(tmp_path, "resnet50_converged", key="resnet50:pytorch_1.8:昆仑[x]:1:8:1")
    (only,) = replay.find(tmp_path, "fp32")
    assert only.id == "pytorch-fp32-1x8-full-___x_"


def test_the_vendor_is_the_one_that_ran_and_not_the_one_that_is_here(pytester):
    flagperf(pytester.path / "logs" / "flagperf", "resnet50_converged")
    ours(pytester.path / "logs" / "ours", vendor="acme")
    ours(pytester.path / "logs" / "hostile", vendor="\x1b[2J")
    found = sorted((run.vendor, run.id) for run in replay.find(pytester.path / "logs", "fp32"))
    assert found == [("", "pytorch-fp32-1x1-lite"), ("acme", "pytorch-fp32-1x1-lite"), ("nvidia", ID)]
    done = pytester.runpytest_inprocess("--replay=logs/flagperf", "--flagperf-dir=results")
    done.assert_outcomes(passed=1, skipped=1)
    (path,) = pytester.path.glob("results/*/*/result.json")
    assert json.loads(path.read_text())["case"]["vendor"] == "nvidia"


def test_runs_on_two_kinds_of_hardware_are_told_apart_in_the_table_and_in_allure(pytester):
    flagperf(pytester.path / "logs", "resnet50_converged")
    flagperf(pytester.path / "logs", "resnet50_missed", key=KEY.replace("A100", "V100"))
    # Allure keeps its listener in a global: a process of its own.
    done = pytester.runpytest_subprocess("--replay=logs", "--alluredir=allure")
    done.assert_outcomes(passed=1, failed=1, skipped=1)
    done.stdout.fnmatch_lines(["resnet50 convergence [[]*] nvidia A100 * passed", "resnet50 * nvidia V100 * missed"])
    reports = [json.loads(path.read_text()) for path in pytester.path.glob("allure/*-result.json")]
    devices = {
        (parameter["value"].strip("'"), report["status"])
        for report in reports
        for parameter in report.get("parameters", ())
        if parameter["name"] == "device"
    }
    assert devices == {("A100", "passed"), ("V100", "failed")}
    ids = [report["historyId"] for report in reports]
    assert len(set(ids)) == len(ids) == 3


def test_two_runs_of_one_key_are_both_judged(pytester):
    flagperf(pytester.path / "logs" / "monday", "resnet50_converged")
    flagperf(pytester.path / "logs" / "tuesday", "resnet50_missed")
    done = pytester.runpytest_inprocess("--replay=logs", "--flagperf-dir=results")
    done.assert_outcomes(passed=1, failed=1, skipped=1)
    verdicts = [
        json.loads(path.read_text())["verdict"] for path in sorted(pytester.path.glob("results/*/*/result.json"))
    ]
    assert sorted(verdicts) == ["missed", "passed"]


def test_rounds_are_taken_in_the_order_of_their_numbers(tmp_path):
    flagperf(tmp_path, *["resnet50_converged"] * 11)
    (only,) = replay.find(tmp_path, "fp32")
    assert [path.name for path in only.rounds] == [f"round{number}" for number in range(1, 12)]


def ours(directory: Path, *, top1: float = 0.97, **changes: object) -> Path:
    """A round as this plugin leaves it."""
    round_directory = directory / "resnet50-convergence-pytorch-fp32-1x1-lite" / "round1"
    (round_directory / "host").mkdir(parents=True)
    case = {"model": "resnet50", "role": "convergence", "framework": "pytorch", "precision": "fp32"}
    (round_directory / "case.json").write_text(json.dumps({**case, "topology": "1x1", "scale": "lite", **changes}))
    writer = EventWriter(round_directory / "host" / "rank0.events.jsonl", 0)
    writer.write(perflog.TRAIN_START)
    writer.write(perflog.EVALUATE_BEGIN)
    writer.write(perflog.EVALUATE, {"epoch": 1, "global_steps": 10, "top1": top1})
    writer.write(perflog.TRAIN_END, {"rank_samples": 640, "core_time": 1.0})
    writer.write(perflog.FINISHED, {"memory_peak": 0.5})
    events = perflog.read_events(writer.path)
    times = {"started": events[0].monotonic - 5, "ended": events[-1].monotonic + 1, "time_started": 1, "time_ended": 2}
    (round_directory / "times.json").write_text(json.dumps(times))
    return round_directory


def test_our_own_runs_are_judged_again(pytester):
    ours(pytester.path / "logs")
    done, result = run(pytester)
    done.assert_outcomes(passed=1, skipped=1)
    assert result["metrics"]["init_time"]["value"] == pytest.approx(5, abs=1e-6)
    assert result["case"]["scale"] == "lite"


def test_our_own_run_that_missed_fails_again(pytester):
    ours(pytester.path / "logs", top1=0.5)
    done, result = run(pytester)
    done.assert_outcomes(failed=1, skipped=1)
    assert result["verdict"] == "missed"


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda path: (path / "times.json").unlink(), "times.json cannot be read, the round did not end"),
        (lambda path: (path / "times.json").write_text('{"started": 1}'), "times.json cannot be read"),
        (lambda path: (path / "host" / "rank0.events.jsonl").unlink(), "lacks the events of rank 0"),
        (lambda path: (path / "host" / "rank0.events.jsonl").write_bytes(b"\xff{\n"), "not every rank wrote FINISHED"),
    ],
)
def test_our_own_run_that_is_incomplete_is_invalid(pytester, break_it, message):
    break_it(ours(pytester.path / "logs"))
    done, result = run(pytester)
    done.assert_outcomes(failed=1, skipped=1)
    assert message in result["error"]["message"]


@pytest.mark.parametrize(
    "changes",
    [{"topology": "many"}, {"precision": "../../x"}, {"framework": "tensorflow"}, {"precision": None}],
)
def test_a_case_file_that_says_something_unknown_is_a_usage_error(pytester, changes):
    path = ours(pytester.path / "logs", **changes)
    with pytest.raises(ReplayError, match=r"case\.json is not a case"):
        replay.find(path.parent, "fp32")
    done = pytester.runpytest_inprocess("--replay=logs")
    assert done.ret == pytest.ExitCode.USAGE_ERROR


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff", b"{}", b'{"model": "resnet50"}'])
def test_a_case_file_that_is_none_is_named(tmp_path, content):
    path = ours(tmp_path)
    (path / "case.json").write_bytes(content)
    with pytest.raises(ReplayError, match=r"case\.json"):
        replay.find(tmp_path, "fp32")
