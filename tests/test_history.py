"""The history: every session once, whatever happens to them or to the database, and where figures changed."""

from __future__ import annotations

import json
import multiprocessing
import random
import shutil
import sqlite3
from pathlib import Path

import msgspec
import pytest

from pytest_flagperf import history
from pytest_flagperf import result as results
from pytest_flagperf.cli import main
from pytest_flagperf.errors import ConfigurationError
from pytest_flagperf.errors import ReplayError
from pytest_flagperf.history import History
from pytest_flagperf.series import Key
from tests import made_session
from tests.made_session import BEGIN
from tests.made_session import CASE


DAY = 86_400.0
# The code with which a result is replaced in these tests, which is no measurement.
TOY = Key(CASE, "acme", "A1", "", "training", "convergence")


def sessions_of(root: Path, speeds: list[float], **more: object) -> list[Path]:
    """A session a day, each of one round."""
    return [
        made_session.make(root, name=f"s{day:02d}", speeds=(speed,), started=BEGIN + day * DAY, operators=False, **more)
        for day, speed in enumerate(speeds)
    ]


def database(root: Path) -> Path:
    return root / "results" / history.DATABASE


def values(root: Path, metric: str = "p_train") -> list[float]:
    with History(database(root)) as known:
        series = known.series(TOY, metric)
        return [point.value for point in series.points] if series else []


def update(root: Path) -> history.Update:
    with History(database(root)) as known:
        return known.update()


# --- taking sessions in


def test_a_session_is_taken_in_once_and_again_where_it_changed(tmp_path):
    sessions_of(tmp_path, [1.0, 1.1])
    assert update(tmp_path).read == 2
    before = values(tmp_path)
    again = update(tmp_path)
    assert (again.read, again.unchanged) == (0, 2)
    path = tmp_path / "results" / "s01" / CASE / "result.json"
    result = results.read_result(path)
    faster = results.MetricValue(1.0, "samples/s", "higher")
    results.write_result(path.parent, msgspec.structs.replace(result, metrics={**result.metrics, "p_train": faster}))
    assert update(tmp_path).read == 1
    assert values(tmp_path) == [before[0], 1.0]


def test_a_point_has_its_rounds_interval_stack_commit_and_verdict(tmp_path):
    session = made_session.make(tmp_path, speeds=(1.0, 1.01, 0.99, 1.02, 0.98), stack={"torch": "2.8.0"})
    assert history.import_session(session) == []
    with History(database(tmp_path)) as known:
        (point,) = known.series(TOY, "p_train").points
        assert {"p_train", "top1", "mfu", "power"} <= set(known.metrics(TOY))
        assert [key.case for key in known.known()][:1] == ["gemm-train-fp32-fwd-m1024-n128-k1024-nn"]
    result = results.read_result(session / CASE / "result.json")
    spread = result.spreads["p_train"]
    assert (point.value, list(point.samples)) == (result.metrics["p_train"].value, spread.samples)
    assert (point.low, point.high) == (spread.low, spread.high)
    assert (point.stack, point.commit, point.host) == ({"torch": "2.8.0"}, "0123456789abcdef", "host-1")
    assert (point.verdict, point.time) == ("passed", BEGIN + 60)


@pytest.mark.parametrize(
    "change",
    [
        {"verdict": "invalid"},
        {"verdict": "invalid", "error": results.ErrorResult("RankCrashed", "it did")},
        {"verdict": "wrong"},
        {"verdict": "unsupported"},
        {"metrics": {}},
    ],
)
def test_what_is_no_measurement_never_enters(tmp_path, change):
    made_session.make(tmp_path, operators=False, change=lambda result: msgspec.structs.replace(result, **change))
    assert update(tmp_path).read == 1
    assert values(tmp_path) == []


def test_what_a_stand_in_ran_or_was_replayed_never_enters(tmp_path):
    def stand_in(result: results.Result) -> results.Result:
        return msgspec.structs.replace(result, case=msgspec.structs.replace(result.case, stand_in="cpu"))

    def replayed(result: results.Result) -> results.Result:
        rounds = [msgspec.structs.replace(one, time_started=None) for one in result.rounds]
        return msgspec.structs.replace(result, rounds=rounds)

    for number, change in enumerate((stand_in, replayed)):
        made_session.make(tmp_path, name=f"s{number}", operators=False, change=change)
    update(tmp_path)
    assert values(tmp_path) == []


def test_a_result_that_missed_its_target_or_regressed_is_a_measurement(tmp_path):
    for number, verdict in enumerate(("missed", "regressed", "improved")):
        made_session.make(
            tmp_path,
            name=f"s{number}",
            started=BEGIN + number * DAY,
            operators=False,
            change=lambda result, verdict=verdict: msgspec.structs.replace(result, verdict=verdict),
        )
    update(tmp_path)
    assert len(values(tmp_path)) == 3


def test_synthetic_data_changed_code_and_other_hardware_are_series_of_their_own(tmp_path):
    def synthetic(result: results.Result) -> results.Result:
        return msgspec.structs.replace(result, dataset=msgspec.structs.replace(result.dataset, synthetic=True))

    def opened(result: results.Result) -> results.Result:
        return msgspec.structs.replace(result, case=msgspec.structs.replace(result.case, division="open"))

    def untrained(result: results.Result) -> results.Result:
        return msgspec.structs.replace(result, weights=results.WeightsInfo(name="some", origin="random"))

    made_session.make(tmp_path, name="a", operators=False)
    made_session.make(tmp_path, name="b", operators=False, change=synthetic)
    made_session.make(tmp_path, name="e", operators=False, change=untrained)
    made_session.make(tmp_path, name="c", operators=False, change=opened)
    made_session.make(tmp_path, name="d", operators=False, chip="A2")
    update(tmp_path)
    with History(database(tmp_path)) as known:
        assert [(key.hardware, key.variant) for key in known.known()] == [
            ("A1", ""),
            ("A1", "open division"),
            ("A1", "random weights"),
            ("A1", "synthetic data"),
            ("A2", ""),
        ]


def test_a_result_that_was_resumed_counts_once(tmp_path):
    def resumed(result: results.Result) -> results.Result:
        return msgspec.structs.replace(result, notes=["resumed: taken from session a, not run again"])

    made_session.make(tmp_path, name="a", operators=False)
    made_session.make(tmp_path, name="b", operators=False, change=resumed)
    update(tmp_path)
    assert len(values(tmp_path)) == 1


def test_a_copy_of_a_session_counts_once_and_is_told(tmp_path):
    (session,) = sessions_of(tmp_path, [1.0])
    shutil.copytree(session, session.with_name("s00-copy"))
    found = update(tmp_path)
    assert len(values(tmp_path)) == 1
    assert "it is a copy of" in found.problems[0]


def test_a_session_that_was_deleted_stays_until_it_is_pruned(tmp_path, capsys):
    first, _ = sessions_of(tmp_path, [1.0, 1.1])
    update(tmp_path)
    shutil.rmtree(first)
    assert update(tmp_path).gone == 1
    assert len(values(tmp_path)) == 2
    where = ["--dir", str(tmp_path / "results")]
    assert main(["history", CASE, *where]) == 0
    assert "(deleted)" in capsys.readouterr().out
    assert main(["history", "--prune", *where]) == 0
    assert "1 sessions that are no longer on disk are forgotten" in capsys.readouterr().err
    assert len(values(tmp_path)) == 1


def test_a_session_that_comes_back_is_no_longer_deleted(tmp_path):
    (session,) = sessions_of(tmp_path, [1.0])
    update(tmp_path)
    away = session.rename(tmp_path / "away")
    update(tmp_path)
    away.rename(session)
    update(tmp_path)
    with History(database(tmp_path)) as known:
        assert [point.gone for point in known.series(TOY, "p_train").points] == [False]


def test_a_torn_session_gives_what_it_has_and_is_told(tmp_path):
    (session,) = sessions_of(tmp_path, [1.0])
    (session / "other").mkdir()
    (session / "other" / "result.json").write_text("{")
    found = update(tmp_path)
    assert len(values(tmp_path)) == 1
    assert "other/result.json cannot be read as a result" in found.problems[0]
    with pytest.raises(ReplayError, match="is no session"):
        history.import_session(tmp_path)


# --- the database


@pytest.mark.parametrize("content", [b"this is no database" * 100, b"SQLite format 3\0" + bytes(1000), b"\0" * 4096])
def test_a_corrupt_database_is_set_aside_and_made_again(tmp_path, content):
    sessions_of(tmp_path, [1.0, 1.1])
    update(tmp_path)
    before = values(tmp_path)
    database(tmp_path).write_bytes(content)
    with History(database(tmp_path)) as known:
        known.update()
        (message,) = known.messages
    assert "is corrupt" in message
    assert values(tmp_path) == before
    (kept,) = database(tmp_path).parent.glob("history.sqlite.corrupt-*")
    assert kept.name in message
    assert kept.read_bytes() == content


def test_a_database_that_is_whole_is_not_set_aside_for_a_session_that_does_not_fit(tmp_path):
    (session,) = sessions_of(tmp_path, [1.0])
    with History(database(tmp_path)) as known:
        known.update()

        def ask() -> None:
            known._connection.execute("INSERT INTO session (name) VALUES (NULL)")

        with pytest.raises(ReplayError, match="NOT NULL constraint failed"):
            known.asked(ask)
        assert known.messages == []
    for content in (b'{"time_started": NaN}', b'{"time_started": 1e999}', b'{"session": "\\ud800"}', b"[" * 100_000):
        (session / "session.json").write_bytes(content)
        update(tmp_path)
    assert not list(database(tmp_path).parent.glob("*.corrupt-*"))


def test_two_databases_that_are_set_aside_in_a_second_are_both_kept(tmp_path):
    sessions_of(tmp_path, [1.0])
    for content in (b"no database" * 100, b"none either" * 100):
        database(tmp_path).write_bytes(content)
        update(tmp_path)
    kept = {path.read_bytes()[:4] for path in database(tmp_path).parent.glob("history.sqlite.corrupt-*")}
    assert kept == {b"no d", b"none"}


def test_hosts_with_other_devices_are_other_series(tmp_path):
    for day, name in enumerate(("Thing 1", "Thing 2")):
        (session,) = [made_session.make(tmp_path, name=f"s{day}", started=BEGIN + day * DAY, operators=False)]
        path = session / "session.json"
        document = json.loads(path.read_bytes())
        path.write_text(json.dumps({**document, "device_list": [{"name": name}]}))
        result = json.loads((session / CASE / "result.json").read_bytes())
        result["case"]["chip"] = None
        (session / CASE / "result.json").write_text(json.dumps(result))
    with History(database(tmp_path)) as known:
        known.update()
        assert [key.hardware for key in known.known()] == ["Thing 1", "Thing 2"]


def test_a_page_that_was_damaged_deep_inside_is_repaired_where_it_is_found(tmp_path):
    sessions_of(tmp_path, [1.0, 1.1, 1.2])
    update(tmp_path)
    before = values(tmp_path)
    content = bytearray(database(tmp_path).read_bytes())
    page = 4096
    assert len(content) > 2 * page
    # The first page, with the schema, stays.
    content[page:] = random.Random(1).randbytes(len(content) - page)
    database(tmp_path).write_bytes(content)
    with History(database(tmp_path)) as known:
        known.update()
        assert "is corrupt" in known.messages[0]
    assert values(tmp_path) == before


def test_a_page_that_only_a_question_reads_is_repaired_too(tmp_path, capsys):
    sessions_of(tmp_path, [1.0 + day / 100 for day in range(12)])
    update(tmp_path)
    where = ["--dir", str(tmp_path / "results"), "--metric", "p_train", "--json"]
    assert main(["history", "toy", *where]) == 0
    before = capsys.readouterr().out
    with sqlite3.connect(database(tmp_path)) as connection:
        (page,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'figure'").fetchone()
    content = bytearray(database(tmp_path).read_bytes())
    content[(page - 1) * 4096 : page * 4096] = b"\xff" * 4096
    database(tmp_path).write_bytes(content)
    assert main(["history", "toy", *where, "--no-update"]) == 0
    captured = capsys.readouterr()
    assert captured.out == before
    assert "is corrupt" in captured.err


def test_a_database_of_a_later_version_is_left_alone(tmp_path):
    sessions_of(tmp_path, [1.0])
    with sqlite3.connect(database(tmp_path)) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(ConfigurationError, match="has version 99, this one reads 1: move it away"):
        History(database(tmp_path))


def test_sessions_that_may_be_read_and_not_written_to_are_read(tmp_path, monkeypatch):
    sessions_of(tmp_path, [1.0])
    connect = sqlite3.connect

    def read_only(name: str, **more: object) -> sqlite3.Connection:
        if name != ":memory:":
            raise sqlite3.OperationalError("unable to open database file")
        return connect(name, **more)

    monkeypatch.setattr(sqlite3, "connect", read_only)
    with History(database(tmp_path)) as known:
        known.update()
        assert len(known.series(TOY, "p_train").points) == 1
        assert "cannot be written" in known.messages[0]


def _update_often(root: Path) -> None:
    for _ in range(5):
        update(root)


def test_several_processes_take_sessions_in_at_once(tmp_path):
    sessions_of(tmp_path, [1.0 + 0.01 * day for day in range(8)])
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_update_often, args=(tmp_path,)) for _ in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    assert [writer.exitcode for writer in writers] == [0] * 4
    assert len(values(tmp_path)) == 8


def test_others_read_while_one_writes(tmp_path):
    sessions_of(tmp_path, [1.0])
    update(tmp_path)
    writer = sqlite3.connect(database(tmp_path), isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    try:
        assert len(values(tmp_path)) == 1
    finally:
        writer.close()
