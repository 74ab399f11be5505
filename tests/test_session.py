"""What a session keeps of its surroundings, and what it must not."""

from __future__ import annotations

import json
import sys

import pytest

from pytest_flagperf import session


@pytest.fixture
def opened(pytester, monkeypatch):
    monkeypatch.delenv("FLAGPERF_DATA_ROOT")

    def opened(*arguments: str) -> session.Session:
        return session.Session(pytester.parseconfig(*arguments))

    return opened


def test_variables_that_change_a_workload_are_kept_and_secrets_are_masked():
    kept = session.masked_environment(
        {
            "CUDA_VISIBLE_DEVICES": "0,1",
            "NCCL_DEBUG": "INFO",
            "HOME": "/root",
            "AWS_SECRET_ACCESS_KEY": "abc",
            "FLAGPERF_API_KEY": "abc",
            "TORCH_AUTH_TOKEN": "abc",
            "PADDLE_PASSWORD": "abc",
            "PYTORCH_INDEX": "https://me:pass@word@host/simple and http://token@host",
            "LD_LIBRARY_PATH": "/usr/lib",
        }
    )
    assert kept == {
        "CUDA_VISIBLE_DEVICES": "0,1",
        "FLAGPERF_API_KEY": "***",
        "LD_LIBRARY_PATH": "/usr/lib",
        "NCCL_DEBUG": "INFO",
        "PADDLE_PASSWORD": "***",
        "PYTORCH_INDEX": "https://***@host/simple and http://***@host",
        "TORCH_AUTH_TOKEN": "***",
    }


@pytest.mark.parametrize(
    ("arguments", "kept"),
    [
        (["--api-token=s3cret"], ["--api-token=***"]),
        (["--api-token", "s3cret", "suites"], ["--api-token", "***", "suites"]),
        (["--password=a=b=="], ["--password=***"]),
        (["--override-ini=my_api_key=s3cret"], ["--override-ini=my_api_key=***"]),
        (["--index=https://me:s3cret@host/x"], ["--index=https://***@host/x"]),
        (["--index", "https://s3cret@host/x"], ["--index", "https://***@host/x"]),
        (["--data-root=/srv/private/data", "-m", "resnet50"], ["--data-root=/srv/private/data", "-m", "resnet50"]),
        (["--author-token", "-v"], ["--author-token", "-v"]),
    ],
)
def test_a_command_line_is_kept_without_its_secrets(arguments, kept):
    assert session.mask_arguments(arguments) == kept


def test_session_json_says_what_ran_where_and_holds_no_secret(opened, monkeypatch):
    monkeypatch.setenv("FLAGPERF_TOKEN", "s3cret-1")
    monkeypatch.setenv("NCCL_PROXY", "http://me:s3cret-2@proxy")
    made = opened("--vendor=cpu", "--flagperf-dir=results", "--override-ini=cache_dir=my_token=s3cret-3")
    text = (made.open() / "session.json").read_text()
    document = json.loads(text)
    assert "s3cret" not in text
    assert document["versions"]["pytest"] == pytest.__version__
    assert (document["vendor"], document["devices"]) == ("cpu", 1)
    assert document["host"]["cpus"] >= 1
    assert document["command"][0] == "pytest"


@pytest.mark.parametrize(("given", "kept"), [("A1.toml", True), ("none", False), (None, False)])
def test_session_json_says_how_many_rounds_were_asked_for_and_beside_which_baseline(opened, pytester, given, kept):
    path = pytester.makefile(".toml", A1='schema_version = 1\nvendor = "cpu"\n')
    made = opened("--vendor=cpu", "--rounds=3", *([f"--baseline={given}"] if given else []))
    document = json.loads((made.open() / "session.json").read_text())
    assert document["rounds"] == 3
    assert document.get("baseline") == (str(path) if kept else None)


def test_a_case_that_runs_twice_gets_a_second_directory(opened):
    made = opened("--vendor=cpu")
    first, second = made.case_directory("toy"), made.case_directory("toy")
    assert (first.name, second.name) == ("toy", "toy~2")


def test_the_ledger_has_a_line_for_each_event(opened):
    made = opened("--vendor=cpu")
    made.open()
    made.ledger("round_start", case="toy")
    made.ledger("round_end", case="toy", outcome="finished")
    lines = [json.loads(line) for line in (made.directory / "ledger.jsonl").read_text().splitlines()]
    assert [(line["event"], line["case"]) for line in lines] == [("round_start", "toy"), ("round_end", "toy")]


def test_a_framework_that_is_not_installed_says_how_to_get_it(opened, monkeypatch):
    made = opened("--vendor=cpu")
    monkeypatch.setattr(session, "find_spec", lambda name: None)
    with pytest.raises(session.ConfigurationError, match=r"pip install 'pytest-flagperf\[torch\]'.*--python pytorch=/"):
        made.python("pytorch")


def test_the_rerun_command_keeps_what_changes_the_test_and_leaves_the_ini_file_to_speak_for_itself(
    pytester, opened, monkeypatch
):
    monkeypatch.setenv("FLAGPERF_DATASET", "digits=/data/a,flights=/data/b")
    pytester.makeini("[pytest]\nflagperf_rounds = 2\n")
    path = pytester.makepyfile("def test_it(): pass")
    made = opened("--vendor=cpu", "--precision=fp32,amp", "--flagperf-timeout=60", str(path))
    (item,) = pytester.getitems(path.read_text())
    command = made.rerun(item)
    assert command[0] == "pytest"
    assert command[1].endswith("::test_it")
    assert set(command[2:]) == {
        "--vendor=cpu",
        "--precision=fp32,amp",
        "--dataset=digits=/data/a",
        "--dataset=flights=/data/b",
        "--flagperf-timeout=60",
    }


def test_the_rerun_command_has_the_targets_of_its_case_alone_for_another_would_be_an_error(
    pytester, opened, monkeypatch
):
    from tests.conftest import ROOT

    monkeypatch.setenv("FLAGPERF_PYTHON", f"pytorch={sys.executable}")
    text = (ROOT / "tests" / "data" / "flagperf" / "toy_suite.py").read_text()
    made = opened("--target=top1=0.5", "--target=auc=0.7")
    item = pytester.getitems(text)[0]
    command = made.rerun(item)
    assert "--target=top1=0.5" in command
    assert "--target=auc=0.7" not in command


def test_frameworks_are_those_installed_and_all_where_none_is(opened, monkeypatch):
    from tests.test_case import make

    made, case = opened("--vendor=cpu"), make(workloads={"pytorch": "toy:Toy", "mindspore": "toy:Toy"})
    monkeypatch.setattr(session, "find_spec", lambda name: name == "mindspore" or None)
    assert made.frameworks(case) == ["mindspore"]
    monkeypatch.setattr(session, "find_spec", lambda name: None)
    assert made.frameworks(case) == ["pytorch", "mindspore"]


def test_an_interpreter_of_ones_own_counts_as_installed(opened, monkeypatch):
    import sys

    monkeypatch.setattr(session, "find_spec", lambda name: None)
    made = opened(f"--python=mindspore={sys.executable}")
    assert made.python("mindspore") == sys.executable
