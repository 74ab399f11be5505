"""From an answer to a Result: what the monitor saw counts, errors keep their names, limits follow the work."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_flagperf import samples
from pytest_flagperf.operators import published
from pytest_flagperf.operators.engine import Engine
from pytest_flagperf.operators.pool import Answer
from pytest_flagperf.operators.problems import Gemm
from pytest_flagperf.operators.problems import SparseGemm
from pytest_flagperf.operators.warm import Limit
from pytest_flagperf.operators.watched import MonitorTail
from pytest_flagperf.provision import Devices
from tests.operators import fake_entry


CPU = Devices("cpu", (0,), 1)
START = {"event": "monitor_start", "monotonic": 0.0, "devices": [0]}


class Fixed:
    """A pool whose only answer is known."""

    def __init__(self, reply: dict, *lines: dict) -> None:
        seen = samples.parse([START, *lines])
        self.answer = Answer(reply, (10.0, 11.0), (0,), seen, Path("logs"))

    def ask(self, *_: object) -> Answer:
        return self.answer


def measured(session, one, reply=None, *lines):
    reply = fake_entry.measured() if reply is None else reply
    return Engine(session, Fixed(reply, *lines)).measure(one, CPU, rerun=["pytest", "x"])


def test_a_process_of_somebody_else_on_the_device_makes_it_invalid(session, gemm):
    foreign = {"event": "processes", "monotonic": 10.5, "device": 0, "foreign": [{"pid": 7, "command": "python"}]}
    outcome = measured(session, gemm(), None, foreign)
    assert outcome.result.verdict == "invalid"
    assert "a process of somebody else was on a leased device" in str(outcome.error)
    assert outcome.result.metrics == {}


def test_a_device_that_throttled_is_told_in_the_notes(session, gemm):
    sample = {"event": "sample", "monotonic": 10.5, "time": 0, "device": 0, "throttle": ["power cap"], "clock": 1200}
    result = measured(session, gemm(), None, sample).result
    assert result.verdict == "passed"
    assert any("throttled in 1 of 1 samples: power cap" in note for note in result.notes)
    assert result.metrics["clock"].value == 1200
    before = measured(session, gemm(), None, {**sample, "monotonic": 9.0}).result
    assert not any("throttled" in note for note in before.notes)


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (
            {"status": "failed", "message": "PrecisionUnavailable: TF32 is on"},
            "PrecisionUnavailable",
        ),
        ({"status": "failed", "message": "RuntimeError: no"}, "OperatorFailed"),
        ({"status": "out_of_memory", "message": "MemoryError: 5 GiB"}, "DeviceOutOfMemory"),
        ({"status": "what"}, "OperatorFailed"),
        ({"status": "measured"}, "InvalidMeasurement"),
    ],
)
def test_what_went_wrong_keeps_its_name(session, gemm, reply, error):
    outcome = measured(session, gemm(), reply)
    assert outcome.result.error is not None
    assert (outcome.result.verdict, outcome.result.error.type) == ("invalid", error)


def test_a_wrong_answer_has_no_figures(session, gemm):
    for reply in (
        {"status": "wrong", "message": "the error is 3", "figures": {"max_relative_error": 3.0}},
        {**fake_entry.measured(), "correct": False},
    ):
        outcome = measured(session, gemm(), reply)
        assert outcome.wrong
        assert (outcome.result.verdict, outcome.result.metrics) == ("wrong", {})


def test_a_worker_may_be_silent_for_a_minute_and_a_slow_call_unless_a_limit_is_given(session, gemm):
    engine, small = Engine(session, Fixed({})), gemm()
    big = replace(small, problem=Gemm(8448, 48000, 2816))
    assert engine.limit(small).seconds == pytest.approx(60, abs=0.1)
    assert engine.limit(big) == Limit(60 + 2 * 8448 * 48000 * 2816 / 1e9, of_silence=True)
    # The dense product that stands beside it is ten times the work.
    assert engine.limit(replace(small, problem=SparseGemm(1000, 10, 1000, 0.9))).seconds == pytest.approx(60.02)
    session.options = replace(session.options, timeout=5.0)
    assert engine.limit(big) == Limit(5.0)


def test_the_smoke_set_has_a_smaller_budget_unless_one_is_given(session, gemm):
    engine = Engine(session, Fixed({}))
    full, smoke = engine.request(gemm()), engine.request(replace(gemm(), sets=("train", "smoke")))
    assert smoke["budget"] < full["budget"]
    session.options = replace(session.options, budget=3.0, cache="flushed")
    assert (engine.request(gemm())["budget"], engine.request(gemm())["cache"]) == (3.0, "flushed")
    json.dumps(full)


def test_a_published_time_stands_beside_ours_where_there_is_one(session, gemm):
    session.options = replace(session.options, published="V100")
    assert "published" not in measured(session, gemm()).result.operator
    times = published.times("V100")
    key = next(key for key in times if key[0] == "gemm" and key[3] == "fp32")
    sizes = {part[0]: int(part[1:]) for part in key[1].split("-")[:3]}
    layout = key[1].rpartition("-")[2]
    problem = Gemm(sizes["m"], sizes["n"], sizes["k"], layout[0] == "t", layout[1] == "t")
    found = measured(session, replace(gemm(), problem=problem)).result.operator["published"]
    assert found["time"] == times[key].time
    assert found["ratio"] == pytest.approx(times[key].time / 1010.0), "their mean by our mean"


def test_the_monitors_tail_gives_each_window_its_own_lines_and_remembers_who_is_there(tmp_path):
    path = tmp_path / "monitor.jsonl"
    tail = MonitorTail(path)
    assert tail.during((0.0, 1.0)).samples == ()
    lines = [
        START,
        {"event": "sample", "monotonic": 1.5, "time": 0, "device": 0, "clock": 1000},
        {"event": "processes", "monotonic": 1.6, "device": 0, "foreign": [{"pid": 7}]},
        {"event": "sample", "monotonic": 21.5, "time": 0, "device": 0, "clock": 900},
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"event": "torn')
    first = tail.during((1.0, 2.0))
    assert next(one.monotonic for one in first.samples) == 1.5
    assert len(first.foreign) == 1
    # Told once, and still there ten windows later.
    later = tail.during((21.0, 22.0))
    assert [one.monotonic for one in later.samples] == [21.5]
    assert len(later.foreign) == 1
    with open(path, "a") as file:
        file.write(
            ' line"}\n' + json.dumps({"event": "processes", "monotonic": 30.0, "device": 0, "foreign": []}) + "\n"
        )
    assert len(tail.during((31.0, 32.0)).foreign) == 0
    assert tail.during((33.0, 34.0)).devices == (0,)


def test_what_the_monitor_could_not_tell_is_noted_but_not_the_power_that_nobody_asked_for(session, gemm):
    sample = {"event": "sample", "monotonic": 1.0, "time": 0, "device": 0, "clock": 1200, "power": 100.0}
    result = measured(session, gemm(), None, sample).result
    assert any("took no sample in the measured time" in note for note in result.notes)
    assert not any("power" in note for note in result.notes)
    assert "clock" not in result.metrics
