"""MLPerf's log: the official compliance checker takes ours of a ResNet run, and refuses broken ones made from it.

Nobody here trains ImageNet: the events are made to the shape of such a run, by the writer that ranks use, and the
configuration is one whose learning-rate schedule is MLPerf's. One slow test takes the log of a real run of the lite
scale, in the open division.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from pytest_flagperf import cli
from pytest_flagperf import perflog
from pytest_flagperf import sessions
from pytest_flagperf.errors import ConfigurationError
from pytest_flagperf.errors import ReplayError
from pytest_flagperf.perflog import EventWriter
from pytest_flagperf.reports import formats
from pytest_flagperf.reports.formats import mllog
from pytest_flagperf.result import ErrorResult
from pytest_flagperf.result import RoundResult
from pytest_flagperf.result import SettingResult
from pytest_flagperf.sessions import SessionFiles
from tests.conftest import ROOT
from tests.reports.formats_sessions import session
from tests.reports.formats_sessions import training


needs_checker = pytest.mark.skipif(
    importlib.util.find_spec("mlperf_logging") is None, reason="mlperf-logging, the extra 'mlperf', is not installed"
)
GIVEN = {"submitter": "Example Laboratory", "platform": "1x8 R300", "division": "closed", "status": "onprem"}
CONFIGURATION = {
    "batch_size": 208,
    "gradient_accumulation_steps": 1,
    "optimizer": "sgd",
    "learning_rate": 0.1,
    "reference_batch_size": 256,
    "end_learning_rate": 0.0001,
    "learning_rate_decay_power": 2,
    "learning_rate_decay_steps": 18_000,
    "momentum": 0.9,
    "weight_decay": 0.0001,
    "warmup_epochs": 2,
    "epochs": 37,
}
ACCURACIES = {4: 0.31, 8: 0.58, 12: 0.72, 16: 0.7605}


def write_events(path: Path, accuracies: dict[int, float], converged: bool = True, ends: bool = True) -> None:
    """A rank's log of as many epochs as the last evaluation is after."""
    path.parent.mkdir(parents=True)
    writer = EventWriter(path, 0)
    writer.write(perflog.LAUNCH_TRAINING, other="Launch training")
    writer.write(perflog.INIT_START)
    writer.write(perflog.INIT_END, {"parameters": 25_557_032, "steps_per_epoch": 769})
    writer.write(perflog.TRAIN_START, {"total_steps": 28_453, "global_batch_size": 1664 * 2})
    for epoch in range(1, max(accuracies) + 1):
        writer.write(perflog.EPOCH_BEGIN, {"epoch": epoch})
        if epoch in accuracies:
            writer.write(perflog.EVALUATE_BEGIN, {"global_steps": epoch * 769})
            value = {"top1": accuracies[epoch], "top5": 0.9, "epoch": float(epoch), "global_steps": epoch * 769}
            writer.write(perflog.EVALUATE, value)
        writer.write(perflog.EPOCH_END, {"epoch": epoch})
    if ends:
        writer.write(perflog.TRAIN_END, {"global_steps": 16 * 769, "rank_samples": 1, "core_time": 1.0})
        writer.write(perflog.FINISHED, {"converged": converged})
    writer.close()


def a_session(tmp_path: Path, rounds: int = 1, configuration: dict | None = None, **events) -> SessionFiles:
    """A session with as many rounds of ResNet-50 as asked for, each with the same events."""
    settings = {
        name: SettingResult(value, "case resnet50, scale full")
        for name, value in (CONFIGURATION if configuration is None else configuration).items()
    }
    directory = tmp_path / "session"
    found = [
        # The path of the machine that made it, which is not this one.
        RoundResult(number, 40 + number, f"/elsewhere/resnet50-convergence-pytorch-fp32-1x8-full/round{number}", 1.0)
        for number in range(1, rounds + 1)
    ]
    one = training(configuration=settings, rounds=found)
    for number in range(1, rounds + 1):
        path = directory / one.case.id / f"round{number}" / "host" / "rank0.events.jsonl"
        write_events(path, **{"accuracies": ACCURACIES, **events})
    made = session_in_place(directory, one)
    return made


def session_in_place(directory: Path, one) -> SessionFiles:
    """As ``session``, where the directory of the case is there already."""
    scratch = session(directory.parent / "scratch", [one])
    for name in ("session.json", f"{one.case.id}/result.json"):
        (scratch.directory / name).rename(directory / name)
    return sessions.read(directory)


def check(path: Path) -> tuple[int, str]:
    """The official checker's exit code and what it says, for the rules that have ResNet last."""
    command = [sys.executable, "-m", "mlperf_logging.compliance_checker", "--usage", "training"]
    command += ["--ruleset", mllog.RULES, "--log_output", str(path.with_suffix(".checked")), str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, cwd=path.parent)
    return done.returncode, done.stdout + done.stderr


def keys(text: str) -> dict[str, list]:
    """Key → values of every line."""
    found: dict[str, list] = {}
    for line in text.splitlines():
        record = json.loads(line.removeprefix(":::MLLOG "))
        found.setdefault(record["key"], []).append(record["value"])
    return found


@needs_checker
def test_the_official_checker_takes_the_log_of_a_resnet_run_in_the_closed_division(tmp_path: Path) -> None:
    path = tmp_path / "result_0.txt"
    mllog.render([a_session(tmp_path)], path, **GIVEN)
    code, said = check(path)
    assert code == 0, said
    assert "closed_resnet_sgd.yaml" in said
    assert "SUCCESS" in said


def without(key: str) -> Callable[[str], str]:
    """Leaves out the lines of a key."""
    return lambda text: "".join(f"{line}\n" for line in text.splitlines() if f'"key": "{key}"' not in line)


def below_target(text: str) -> str:
    assert '"value": 0.7605' in text
    assert '"status": "success"' in text
    return text.replace('"value": 0.7605', '"value": 0.7589')


def another_optimizer(text: str) -> str:
    return text.replace('"key": "opt_name", "value": "sgd"', '"key": "opt_name", "value": "lars"')


def another_end_of_the_schedule(text: str) -> str:
    assert '"value": 0.0001' in text
    return text.replace(
        '"key": "sgd_opt_end_learning_rate", "value": 0.0001', '"key": "sgd_opt_end_learning_rate", "value": 0.001'
    )


def started_twice(text: str) -> str:
    (line,) = [line for line in text.splitlines() if '"key": "run_start"' in line]
    again = line.replace('"value": null', '"value": 1')
    return text.replace(line, f"{line}\n{again}")


@needs_checker
@pytest.mark.parametrize(
    ("broken", "complaint"),
    [
        (without("run_stop"), "run_stop"),
        (below_target, "eval_accuracy"),
        (another_optimizer, "lars_opt_momentum"),
        (another_end_of_the_schedule, "sgd_opt_end_learning_rate"),
        (started_twice, "run_start"),
        (without("cache_clear"), "cache_clear"),
    ],
    ids=["no run_stop", "below the target", "optimizer", "end learning rate", "two run_start", "no cache_clear"],
)
def test_the_official_checker_refuses_a_broken_log(
    tmp_path: Path, broken: Callable[[str], str], complaint: str
) -> None:
    path = tmp_path / "result_0.txt"
    text = mllog.render([a_session(tmp_path)], None, **GIVEN)
    assert broken(text) != text
    path.write_text(broken(text))
    code, said = check(path)
    assert code != 0
    assert complaint in said
    assert "SUCCESS" not in said


def test_the_log_says_what_the_session_says(tmp_path: Path) -> None:
    found = keys(mllog.render([a_session(tmp_path)], None, **GIVEN))
    assert found["submission_org"] == ["Example Laboratory"]
    assert found["submission_benchmark"] == ["resnet"]
    assert found["seed"] == [41]
    assert found["train_samples"] == [1_281_167]
    assert found["eval_samples"] == [50_000]
    assert found["eval_accuracy"] == list(ACCURACIES.values())
    assert found["cache_clear"] == [False]
    assert found["model_bn_span"] == [416]
    # 0.1 for 256 samples, by the linear scaling rule.
    assert found["sgd_opt_base_learning_rate"] == [pytest.approx(1.3)]
    assert found["flagperf_dataset"] == ["imagenet2012"]
    assert len(found["epoch_start"]) == len(found["epoch_stop"]) == 16


@pytest.mark.parametrize("end", [{"converged": False}, {"ends": False}])
def test_a_round_that_missed_its_target_or_broke_off_is_aborted(tmp_path: Path, end: dict) -> None:
    text = mllog.render([a_session(tmp_path, **end)], None, **GIVEN)
    (line,) = [line for line in text.splitlines() if '"key": "run_stop"' in line]
    assert '"status": "aborted"' in line


def test_a_round_that_cannot_be_trusted_is_aborted_though_it_met_its_target(tmp_path: Path) -> None:
    one = a_session(tmp_path)
    round_ = one.results[0].rounds[0]
    invalid = RoundResult(1, 1, round_.directory, 1.0, error=ErrorResult("ParametersDiverged", "x"))
    events = mllog.events_of(one, one.results[0], round_)
    text = mllog.log(one.results[0], invalid, events, mllog.submission_of(one.results[0], GIVEN))
    assert '"status": "aborted"' in text


def test_each_round_has_a_log_of_its_own(tmp_path: Path) -> None:
    several = a_session(tmp_path, rounds=3)
    said = mllog.render([several], tmp_path / "logs", **GIVEN)
    written = sorted((tmp_path / "logs").rglob("*.txt"))
    assert [path.name for path in written] == ["result_0.txt", "result_1.txt", "result_2.txt"]
    assert said.split() == [str(path) for path in written]
    assert [keys(path.read_text())["seed"] for path in written] == [[41], [42], [43]]
    with pytest.raises(ConfigurationError, match="3 rounds"):
        mllog.render([several], None, **GIVEN)


def test_rounds_of_two_sessions_have_numbers_that_go_on(tmp_path: Path) -> None:
    for place in ("x", "y"):
        (tmp_path / place).mkdir()
    both = [a_session(tmp_path / place, rounds=2) for place in ("x", "y")]
    mllog.render(both, tmp_path / "logs", **GIVEN)
    names = [path.name for path in sorted((tmp_path / "logs").rglob("*.txt"))]
    assert names == [f"result_{number}.txt" for number in range(4)]


def test_a_round_that_broke_off_before_it_trained_is_told_and_loses_no_other(tmp_path: Path) -> None:
    several = a_session(tmp_path, rounds=2)
    next(several.directory.rglob("round1/*/rank0.events.jsonl")).write_text("")
    said = mllog.render([several], tmp_path / "logs", **GIVEN)
    assert [path.name for path in (tmp_path / "logs").rglob("*.txt")] == ["result_0.txt"]
    assert "left out: scratch: resnet50-convergence-pytorch-fp32-1x8-full, round 1: " in said
    next(several.directory.rglob("round2/*/rank0.events.jsonl")).unlink()
    with pytest.raises(ReplayError, match="TRAIN_START"):
        mllog.render([several], tmp_path / "logs", **GIVEN)


@pytest.mark.parametrize("identity", ["../../outside", "a/b", "a\\b", "..", ""])
def test_the_id_of_a_case_leads_nowhere_else(tmp_path: Path, identity: str) -> None:
    several = a_session(tmp_path, rounds=2)
    (result,) = several.results
    moved = msgspec.structs.replace(result, case=msgspec.structs.replace(result.case, id=identity))
    changed = dataclasses.replace(several, results=(moved,))
    with pytest.raises(ConfigurationError, match="cannot be a directory's name"):
        mllog.render([changed], tmp_path / "logs", **GIVEN)
    assert not list(tmp_path.rglob("*.txt"))


def test_a_round_of_an_invalid_case_is_aborted(tmp_path: Path) -> None:
    one = a_session(tmp_path)
    (result,) = one.results
    changed = dataclasses.replace(one, results=(msgspec.structs.replace(result, verdict="invalid"),))
    assert '"status": "aborted"' in mllog.render([changed], None, **GIVEN)


def test_the_command_line_says_who_submits(tmp_path: Path, capsys) -> None:
    one = a_session(tmp_path)
    options = [f"--mlperf-{name}={value}" for name, value in GIVEN.items()]
    assert cli.main(["report", str(one.directory), "--format", "mllog", *options]) == 0
    found = keys(capsys.readouterr().out)
    assert found["submission_org"] == ["Example Laboratory"]
    assert found["submission_division"] == ["closed"]


def test_what_nobody_said_is_asked_for_by_name(tmp_path: Path, monkeypatch) -> None:
    one = a_session(tmp_path)
    monkeypatch.delenv("FLAGPERF_MLPERF_SUBMITTER", raising=False)
    with pytest.raises(ConfigurationError, match=r"--mlperf-submitter \(or FLAGPERF_MLPERF_SUBMITTER\)"):
        mllog.render([one], None)
    monkeypatch.setenv("FLAGPERF_MLPERF_SUBMITTER", "From the environment")
    found = keys(mllog.render([one], None))
    assert found["submission_org"] == ["From the environment"]
    assert found["submission_division"] == ["open"]
    assert found["submission_platform"] == ["1x8 kunlunxin R300"]


def test_the_options_of_the_command_line_become_keywords() -> None:
    parser = argparse.ArgumentParser()
    formats.add_options(parser)
    chosen = parser.parse_args(["--mlperf-submitter", "Example Laboratory", "--mlperf-poc-name", "Somebody"])
    assert formats.given(chosen, "mllog") == {"submitter": "Example Laboratory", "poc_name": "Somebody"}
    assert formats.given(chosen, "csv") == {}


def test_the_command_writes_the_log_for_a_submitter_of_the_environment(tmp_path: Path, monkeypatch) -> None:
    one, path = a_session(tmp_path), tmp_path / "result_0.txt"
    monkeypatch.setenv("FLAGPERF_MLPERF_SUBMITTER", "From the environment")
    assert cli.main(["report", str(one.directory), "--format", "mllog", "--output", str(path)]) == 0
    assert keys(path.read_text())["submission_org"] == ["From the environment"]
    monkeypatch.delenv("FLAGPERF_MLPERF_SUBMITTER")
    assert cli.main(["report", str(one.directory), "--format", "mllog", "--output", str(path)]) == 1


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        ({"division": "half"}, "MLPerf knows closed, open"),
        ({"status": "done"}, "cloud, onprem, preview, research"),
        ({"cache_cleared": "maybe"}, "cache-cleared"),
        ({"submiter": "x"}, "no option 'submiter'"),
    ],
)
def test_a_wrong_value_names_the_option(tmp_path: Path, wrong: dict, complaint: str) -> None:
    with pytest.raises(ConfigurationError, match=complaint):
        mllog.render([a_session(tmp_path)], None, **{**GIVEN, **wrong})


def test_the_closed_division_wants_mlperfs_optimizer_and_schedule(tmp_path: Path) -> None:
    adamw = a_session(tmp_path / "a", configuration={**CONFIGURATION, "optimizer": "adamw"})
    with pytest.raises(ConfigurationError, match="sgd or lars, not adamw"):
        mllog.render([adamw], None, **GIVEN)
    cosine = {name: value for name, value in CONFIGURATION.items() if "decay_" not in name or name == "weight_decay"}
    with pytest.raises(ConfigurationError, match="sgd_opt_learning_rate_decay_poly_power"):
        mllog.render([a_session(tmp_path / "b", configuration=cosine)], None, **GIVEN)


def test_another_model_and_a_round_without_events_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="it knows resnet50"):
        mllog.render([session(tmp_path / "other", [training(model="wide_deep")])], None, **GIVEN)
    one = a_session(tmp_path)
    for path in one.directory.rglob("rank0.events.jsonl"):
        path.unlink()
    with pytest.raises(ReplayError, match="without events there is no log"):
        mllog.render([one], None, **GIVEN)


@needs_checker
@pytest.mark.slow
@pytest.mark.pytorch
def test_the_official_checker_takes_the_log_of_a_real_run_in_the_open_division(tmp_path: Path, data_root: Path) -> None:
    suite = ROOT / "suites" / "training" / "resnet50"
    command = [sys.executable, "-m", "pytest", str(suite), "-m", "resnet50 and pytorch and convergence", "-q"]
    command += ["-p", "no:cacheprovider", f"--flagperf-dir={tmp_path / 'results'}"]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "FLAGPERF_DATA_ROOT": str(data_root)},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    path = tmp_path / "result_0.txt"
    mllog.render(sessions.read_all([tmp_path / "results"]), path, submitter="Example Laboratory")
    code, said = check(path)
    assert code == 0, said
    assert "SUCCESS" in said
    assert '"flagperf_dataset", "value": "digits"' in path.read_text()
