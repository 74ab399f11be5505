"""The files of a run: whole or not there, readable by others, and written by many at once."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
from pathlib import Path

import jsonschema
import pytest

from pytest_flagperf import Scale
from pytest_flagperf import Topology
from pytest_flagperf import TrainingCase
from pytest_flagperf import at_least
from pytest_flagperf import overlay
from pytest_flagperf import records
from pytest_flagperf import result as results
from pytest_flagperf.case import Selection
from pytest_flagperf.errors import RankCrashed
from pytest_flagperf.errors import ReplayError
from pytest_flagperf.measured import Measured
from pytest_flagperf.metrics import Evaluation
from pytest_flagperf.provision import Data
from pytest_flagperf.run import build_result
from pytest_flagperf.run import figures_of
from pytest_flagperf.run import judge_rounds
from pytest_flagperf.run import round_result
from tests.conftest import ROOT


def make(tmp_path: Path, *, error: RankCrashed | None = None, quality: float = 0.95) -> results.Result:
    scale = Scale(dataset="digits", targets=[at_least("top1", 0.9, source="toy")], config={"batch_size": 8, "x": None})
    case = overlay.resolve(
        TrainingCase(model="toy", title="Toy", workloads={"pytorch": "toy:Toy"}, scales={"lite": scale}),
        Selection("pytorch", "fp32", Topology(1, 1), "lite"),
        role="convergence",
        vendor="cpu",
        overlay=None,
        targets={},
        directory=tmp_path,
    )
    history = [Evaluation(1, 10, 5.0, {"top1": quality}), Evaluation(2, 20, 10.0, {"top1": 0.95})]
    measured = Measured({"top1": 0.95, "p_whole": 100.0}, history, {"fp32": True})
    rounds = [round_result(1, 1, tmp_path / "round1", 1.7e9, measured, error)]
    figures = figures_of(rounds[0])
    judged = judge_rounds(case.targets, [figures])
    outcome = "passed" if error is None else "invalid"
    rerun = ["pytest", "x::y"]
    return build_result(case, outcome, figures, judged, rounds, Data("digits"), [0], rerun=rerun, error=error)


@pytest.mark.parametrize("error", [None, RankCrashed("rank 0 <b>\x1b[31m\x00 ended")])
def test_a_result_is_read_back_as_it_was_and_validates_against_the_published_schema(tmp_path, error):
    written = make(tmp_path, error=error)
    path = results.write_result(tmp_path, written)
    assert results.read_result(path) == written
    published = json.loads((ROOT / "pytest_flagperf" / "schemas" / "result.schema.json").read_text())
    jsonschema.Draft202012Validator(published).validate(json.loads(path.read_text()))


def test_a_figure_has_its_unit_and_direction_beside_it(tmp_path):
    document = json.loads(results.write_result(tmp_path, make(tmp_path)).read_text())
    assert document["metrics"]["p_whole"] == {"value": 100.0, "unit": "samples/s", "better": "higher"}


def test_an_evaluation_that_found_nan_leaves_a_readable_result(tmp_path):
    path = results.write_result(tmp_path, make(tmp_path, quality=float("nan")))
    assert [one.quality for one in results.read_result(path).rounds[0].evaluations] == [{}, {"top1": 0.95}]


def test_the_published_schema_refuses_a_document_that_is_no_result(tmp_path):
    document = json.loads(results.write_result(tmp_path, make(tmp_path)).read_text())
    document["metrics"]["p_whole"]["value"] = "fast"
    with pytest.raises(jsonschema.ValidationError, match="'fast' is not of type 'number'"):
        jsonschema.Draft202012Validator(results.schema()).validate(document)


@pytest.mark.parametrize("content", [b"", b'{"case": ', b"[]", b"\xff\xfe", b'{"case": {}}', b"null"])
def test_a_file_that_is_no_result_is_named(tmp_path, content):
    (tmp_path / "result.json").write_bytes(content)
    with pytest.raises(ReplayError, match=r"result\.json cannot be read as a result"):
        results.read_result(tmp_path / "result.json")


def test_a_result_of_a_later_version_is_refused_and_one_of_a_later_minor_version_is_read(tmp_path):
    path = results.write_result(tmp_path, make(tmp_path))
    document = json.loads(path.read_text())
    path.write_text(json.dumps({**document, "schema_version": "1.7", "added_later": 1}))
    assert results.read_result(path).verdict == "passed"
    path.write_text(json.dumps({**document, "schema_version": "2.0"}))
    with pytest.raises(ReplayError, match=r"schema_version 2\.0; this version reads 1\.4"):
        results.read_result(path)


def test_a_full_disk_leaves_the_old_file_and_no_rest(tmp_path, monkeypatch):
    path = tmp_path / "result.json"
    records.write_atomically(path, b"old")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        records.write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_written_file_can_be_read_by_others(tmp_path):
    records.write_json(tmp_path / "x.json", {"path": tmp_path})
    assert (tmp_path / "x.json").stat().st_mode & 0o777 == 0o644


def _append(path: Path, writer: int, count: int) -> None:
    for number in range(count):
        records.append_line(path, {"writer": writer, "number": number, "padding": "x" * 5000})


def test_eight_processes_append_whole_lines_only(tmp_path, monkeypatch):
    path = tmp_path / "ledger.jsonl"
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # the disk's speed is not what is tested
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_append, args=(path, writer, 20)) for writer in range(8)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(30)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert sorted((line["writer"], line["number"]) for line in lines) == [(w, n) for w in range(8) for n in range(20)]


def test_a_line_torn_by_a_killed_process_spoils_no_other(tmp_path):
    path = tmp_path / "ledger.jsonl"
    records.append_line(path, {"number": 1})
    with open(path, "ab") as file:
        file.write(b'{"number": 2, "torn')
    records.append_line(path, {"number": 3})
    records.append_line(path, {"number": 4})
    assert [line["number"] for line in records.read_lines(path)] == [1, 3, 4]


def test_a_ledger_of_hostile_bytes_gives_its_good_lines(tmp_path):
    (tmp_path / "ledger.jsonl").write_bytes(b'\xff\xfe\n[1]\nnull\n{"number": 1}\n\x00\n')
    assert records.read_lines(tmp_path / "ledger.jsonl") == [{"number": 1}]


def test_session_json_is_completed_with_how_the_session_ended(tmp_path):
    records.write_json(tmp_path / "session.json", {"session": "s"})
    results.finish_session(tmp_path, 1)
    document = json.loads((tmp_path / "session.json").read_text())
    assert (document["session"], document["exit_status"]) == ("s", 1)
    assert document["time_ended"] > 1.7e9
