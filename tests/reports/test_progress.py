"""What a person sees while a case runs."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest

from pytest_flagperf import collection
from pytest_flagperf import launching
from pytest_flagperf.perflog import Event
from pytest_flagperf.reports import progress
from pytest_flagperf.reports import terminal


# Imported here once: pytester forgets what a session of its own imports, and msgspec then misses its modules.
PLUGIN = (collection, launching, terminal)


@pytest.fixture(autouse=True)
def without_slow_plugins(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hypothesis is imported anew by every session that runs a test."""
    monkeypatch.setenv("PYTEST_ADDOPTS", "-p no:hypothesispytest -p no:anyio")


@pytest.fixture
def state():
    return progress.State(
        SimpleNamespace(role="convergence", case=SimpleNamespace(unit="images"), config={"epochs": 8})
    )


def event(name, at=0.0, **value):
    return Event(name, value, monotonic=float(at))


def test_a_run_is_told_from_its_start_to_its_end(state):
    seen = [state.text()]
    for one in (
        event("INIT_START"),
        event("PROGRESS", what="decoding", done=3, total=9),
        event("TRAIN_START", 100, total_steps=100),
        event("STEP_END", 110, global_steps=25, epoch=2, loss=1.23456, samples_per_second=1234.5),
        event("EVALUATE_BEGIN", 111),
        event("EVALUATE", 112, epoch=2, global_steps=25, top1=0.5),
        event("TRAIN_END", 113),
    ):
        state.add(one)
        seen.append(state.text())
    training = "epoch 2/8 · step 25/100 · loss 1.235 · 1,234 images/s · ETA 0:30 at most"
    assert seen[:4] == ["starting", "loading", "decoding 3/9", "training · step 0/100"]
    assert seen[4] == f"training · {training}"
    assert seen[5] == f"evaluating · {training}"
    assert (
        seen[6] == "training · epoch 2/8 · step 25/100 · loss 1.235 · top1 0.5000 · 1,234 images/s · ETA 0:30 at most"
    )
    assert seen[7].startswith("finishing · ")


def test_steps_before_the_training_are_a_warm_up(state):
    state.add(event("STEP_END", 1, global_steps=1, epoch=0))
    assert state.text() == "warm-up"


def test_nothing_is_said_that_is_not_known(state):
    state.add(event("TRAIN_START", 100))
    state.add(event("STEP_END", 110))
    assert state.text() == "training"


def test_a_loss_that_is_no_number_is_shown_as_it_is(state):
    state.add(event("STEP_END", 1, loss=math.nan))
    assert state.text() == "warm-up · loss nan"


def test_a_time_is_written_as_on_a_clock():
    assert [progress.clock(s) for s in (0, 59.9, 245, 3723)] == ["0:00", "0:59", "4:05", "1:02:03"]


def test_control_characters_never_reach_the_terminal():
    assert progress.printable("a\x1b[31m\r\n\x9bb\u202e µ") == "a�[31m���b� µ"


LINES = """
    import pytest
    from pytest_flagperf import words

    def test_it(pytestconfig):
        shown = pytestconfig.stash[words.PROGRESS]
        shown.say("preparing \\x1b[31mdigits")
        shown.line("toy", "training")
        shown.line("toy", "too soon")
        shown.end()
"""


def test_lines_are_seen_through_pytests_capture(pytester, capfd):
    pytester.makepyfile(LINES)
    pytester.runpytest_inprocess("--vendor=cpu", "--capture=fd").assert_outcomes(passed=1)
    lines = capfd.readouterr().err.splitlines()
    assert "preparing �[31mdigits" in lines
    assert "toy  training" in lines
    assert "toy  too soon" not in lines


def test_q_is_silent(pytester, capfd):
    pytester.makepyfile(LINES)
    done = pytester.runpytest_inprocess("--vendor=cpu", "-q")
    done.assert_outcomes(passed=1)
    assert "preparing" not in capfd.readouterr().err
