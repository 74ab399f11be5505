"""``flagperf rebase``: what it shows, what it writes, what it refuses and for which reason it does it after all."""

from __future__ import annotations

import shlex

import msgspec
import pytest

from pytest_flagperf import cli
from pytest_flagperf import result as results
from pytest_flagperf.judging import baselines
from pytest_flagperf.judging import merging
from tests.judging.conftest import CASE_ID
from tests.judging.conftest import make_result
from tests.judging.conftest import replaced


STEADY = [100.0, 100.4, 99.6, 100.2, 99.8]


def result(level=1.0, **changes):
    return replaced(make_result({"p_train": [level * one for one in STEADY]}), **changes)


WORSE = results.ComparisonResult("p_train", "regressed", 85.0, 100.0, -0.15)


def regressed(level):
    return msgspec.structs.replace(result(level, verdict="regressed"), comparisons=[WORSE])


@pytest.fixture
def file(tmp_path):
    return tmp_path / "baselines" / "A1.toml"


@pytest.fixture
def rebase(file, capsys):
    """Runs the command; gives exit code, output and errors."""

    def run(*arguments, write=True):
        options = ["--baseline", str(file), *(["--write"] if write else [])]
        code = cli.main(["rebase", *map(str, arguments), *options])
        return code, *capsys.readouterr()

    return run


def metric(file, name="p_train"):
    return baselines.load(file).of(CASE_ID).metric[name]


def test_nothing_is_written_unless_asked_to(file, rebase, write_session):
    code, shown, said = rebase(write_session("monday", result()), write=False)
    assert code == 0
    assert not file.exists()
    assert "new" in shown
    assert "nothing was written: --write does it" in said


def test_a_first_session_makes_the_file_and_a_second_one_adds_to_it(file, rebase, write_session):
    assert rebase(write_session("monday", result(), started=1.0))[0] == 0
    assert metric(file).samples == {"monday": STEADY}
    code, shown, _ = rebase(write_session("tuesday", result(1.001), started=2.0))
    assert code == 0
    assert list(metric(file).samples) == ["monday", "tuesday"]
    row = next(line for line in shown.splitlines() if line.startswith(CASE_ID))
    assert row.split()[1:] == ["p_train", "samples/s", "100", "5", "100.05", "10", "+0.05", "%"]


def test_the_same_session_again_changes_nothing(file, rebase, write_session):
    session = write_session("monday", result())
    rebase(session)
    before = file.read_text()
    code, shown, said = rebase(session)
    assert (code, file.read_text()) == (0, before)
    assert "0 changed, 1 as before" in shown
    assert "wrote" not in said


def test_a_regression_is_not_made_the_baseline_without_a_reason(file, rebase, write_session):
    rebase(write_session("monday", result()))
    before = file.read_text()
    code, _, said = rebase(write_session("tuesday", result(0.85)))
    assert (code, file.read_text()) == (1, before)
    assert f"refused: tuesday: {CASE_ID}: p_train regressed, 100 -> 85 samples/s: give a --reason to make" in said


def test_with_a_reason_it_is_and_the_reason_stays_with_its_date(file, rebase, write_session):
    rebase(write_session("monday", result()))
    code, shown, _ = rebase(write_session("tuesday", result(0.85)), "--reason", "driver 550 checks ECC")
    assert code == 0
    assert "samples begin anew: regressed" in shown
    found = metric(file)
    assert list(found.samples) == ["tuesday"], "the old samples are of another distribution"
    assert found.best == 85
    (reason,) = found.reasons
    assert reason[4] == reason[7] == "-"
    assert reason.endswith(", tuesday: 100 -> 85 samples/s: driver 550 checks ECC")


def test_a_session_that_regressed_when_it_was_tested_is_refused_with_metric_and_both_figures(
    file, rebase, write_session
):
    session = write_session("tuesday", regressed(0.85))
    code, shown, said = rebase(session)
    assert code == 1
    assert not file.exists()
    (line,) = said.splitlines()
    assert line.startswith(f"refused: tuesday: {CASE_ID}: p_train regressed, 100 -> 85 samples/s: give a --reason")
    assert "1 changed, 0 as before" in shown, "what a reason would write is shown"


def test_of_a_new_file_the_sessions_are_pooled_and_one_that_regressed_with_its_reason_in_the_file(
    file, rebase, write_session
):
    sessions = [
        write_session("monday", result(), started=1.0),
        write_session("tuesday", result(1.001), started=2.0),
        write_session("wednesday", regressed(0.85), started=3.0),
    ]
    code, _, said = rebase(*sessions)
    assert code == 1
    assert not file.exists()
    assert f"refused: wednesday: {CASE_ID}: p_train regressed, 100 -> 85 samples/s" in said
    assert rebase(*sessions, "--reason", "driver 550 checks ECC")[0] == 0
    found = metric(file)
    assert list(found.samples) == ["monday", "tuesday", "wednesday"]
    (reason,) = found.reasons
    assert reason[4] == reason[7] == "-"
    assert reason.endswith(", wednesday: 100 -> 85 samples/s: driver 550 checks ECC")
    # It was accepted: nobody is asked again.
    before = file.read_text()
    assert rebase(*sessions)[0] == 0
    assert rebase(*sessions, "--reason", "again")[0] == 0
    assert file.read_text() == before


def test_a_regression_of_a_metric_that_the_file_does_not_take_is_none_the_less_asked_about(file, rebase, write_session):
    only = ("--metric", "memory_peak")
    both = make_result({"p_train": STEADY, "memory_peak": [2.0] * 5}, verdict="regressed")
    session = write_session("wednesday", msgspec.structs.replace(both, comparisons=[WORSE]))
    code, _, said = rebase(session, *only)
    assert code == 1
    assert f"refused: wednesday: {CASE_ID}: p_train regressed, 100 -> 85 samples/s" in said
    assert rebase(session, *only, "--reason", "known")[0] == 0
    (reason,) = metric(file, "memory_peak").reasons
    assert reason.endswith(", wednesday: 100 -> 85 samples/s: known")


def test_a_run_that_left_the_band_of_its_curve_takes_a_reason_that_is_kept(file, rebase, write_session):
    session = write_session("tuesday", result(verdict="regressed"))
    code, _, said = rebase(session)
    assert code == 1
    assert f"refused: tuesday: {CASE_ID}: it regressed when it was tested: give a --reason" in said
    assert rebase(session, "--reason", "a new schedule")[0] == 0
    assert metric(file).reasons[0].endswith(", tuesday: a new schedule")


def test_a_session_that_the_gate_calls_inconclusive_is_pooled_and_takes_a_reason_for_the_fall_of_the_figure_only(
    file, rebase, write_session
):
    noisy = [85.0, 112.0, 94.0, 101.0, 108.0]
    rebase(write_session("monday", make_result({"p_train": noisy}), started=1.0))
    tuesday = write_session("tuesday", make_result({"p_train": [0.861 * one for one in noisy]}), started=2.0)
    code, _, said = rebase(tuesday)
    assert code == 1
    assert "regressed" not in said
    assert "worse than the best it has been" in said
    code, shown, _ = rebase(tuesday, "--reason", "a noisy host")
    assert code == 0
    assert "begin anew" not in shown
    assert list(metric(file).samples) == ["monday", "tuesday"], "nobody knows yet that they are of two distributions"
    (reason,) = metric(file).reasons
    assert ", tuesday: 101 -> " in reason
    assert reason.endswith(" samples/s: a noisy host")


def test_each_session_is_judged_for_itself_as_a_test_would_and_the_worse_one_is_named(file, rebase, write_session):
    rebase(write_session("monday", result(), started=1.0))
    code, _, said = rebase(
        write_session("tuesday", result(0.99), started=2.0), write_session("wednesday", result(0.8), started=3.0)
    )
    assert code == 1
    (line,) = [one for one in said.splitlines() if "regressed" in one]
    assert line.startswith(f"refused: wednesday: {CASE_ID}: p_train regressed, 100 -> 80 samples/s: give a --reason")


def test_one_session_that_blocks_the_others_is_told_with_the_command_that_goes_without_it(
    file, rebase, write_session, tmp_path
):
    for day, found in enumerate([result(), regressed(0.85), result(1.001)]):
        write_session(f"day{day}", found, started=1.8e9 + day)
    directory = tmp_path / "sessions"
    code, _, said = rebase(directory)
    assert (code, file.exists()) == (1, False)
    told = said.splitlines()[-1]
    assert told.startswith("the other 2 sessions could be written: flagperf rebase ")
    assert cli.main(shlex.split(told.partition(": flagperf ")[2])) == 0
    assert list(metric(file).samples) == ["day0", "day2"]


def test_a_session_to_leave_out_that_is_not_there_is_wrong_usage(write_session, rebase, capsys):
    with pytest.raises(SystemExit) as raised:
        rebase(write_session("monday", result()), "--without", "tuesday")
    assert raised.value.code == 2
    assert "no session 'tuesday' among those given" in capsys.readouterr().err


def test_many_small_steps_down_are_refused_as_one_large_one_is(file, rebase, write_session):
    rebase(write_session("day0", result()))
    codes = []
    for day in range(1, 8):
        level = 1 - 0.0199 * day
        codes.append(rebase(write_session(f"day{day}", result(level), started=1.8e9 + day))[0])
    assert 1 in codes
    assert metric(file).best == 100
    assert baselines.load(file).of(CASE_ID).metric["p_train"].reasons == []


def test_an_improvement_raises_the_bar_at_once(file, rebase, write_session):
    rebase(write_session("monday", result()))
    code, shown, _ = rebase(write_session("tuesday", result(1.1)))
    assert code == 0
    assert "samples begin anew: improved" in shown
    assert metric(file).best == pytest.approx(110)
    assert list(metric(file).samples) == ["tuesday"]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"verdict": "invalid"}, "the measurement is invalid"),
        ({"verdict": "missed"}, "a target was missed"),
        ({"stand_in": "cpu"}, "cpu stood in for the vendor's device"),
    ],
)
def test_no_reason_makes_a_bad_measurement_a_baseline(file, rebase, write_session, changes, reason):
    code, _, said = rebase(write_session("monday", result(**changes)), "--reason", "please")
    assert code == 1
    assert not file.exists()
    assert reason in said


def test_a_case_of_its_own_is_taken_from_a_session_that_failed_elsewhere(file, rebase, write_session):
    session = write_session("monday", result(), result(id="other", node_id="other", verdict="missed"))
    assert rebase(session)[0] == 1
    assert rebase(session, "--case", "toy-*")[0] == 0
    assert [one.id for one in baselines.load(file).case] == [CASE_ID]


def test_a_pattern_that_no_case_has_is_refused(rebase, write_session):
    code, _, said = rebase(write_session("monday", result()), "--case", "bert-*")
    assert code == 1
    assert "no result with an id like 'bert-*'" in said


def test_a_metric_of_its_own_is_taken_and_others_stay(file, rebase, write_session):
    both = make_result({"p_train": STEADY, "power": [300.0] * 5})
    rebase(write_session("monday", both))
    assert list(baselines.load(file).of(CASE_ID).metric) == ["p_train"]
    rebase(write_session("tuesday", both), "--metric", "power")
    found = baselines.load(file).of(CASE_ID).metric
    assert list(found["p_train"].samples) == ["monday"]
    assert list(found["power"].samples) == ["tuesday"]


def test_another_configuration_begins_anew_for_a_reason_only(file, rebase, write_session):
    rebase(write_session("monday", make_result({"p_train": STEADY}, configuration={"batch_size": 64})))
    session = write_session("tuesday", make_result({"p_train": STEADY}, configuration={"batch_size": 128}))
    code, _, said = rebase(session)
    assert code == 1
    assert "batch_size was 64, is 128. Give a --reason" in said
    assert rebase(session, "--reason", "the case got a larger batch")[0] == 0
    assert list(metric(file).samples) == ["tuesday"]
    assert baselines.load(file).of(CASE_ID).configuration == {"batch_size": 128}


def test_what_a_person_wrote_into_the_file_stays(file, rebase, write_session):
    rebase(write_session("monday", result()))
    text = file.read_text().replace('better = "higher"', 'better = "higher"\ntolerance = 0.03\nbound = 97.0')
    file.write_text(text)
    rebase(write_session("tuesday", result(1.001)))
    assert (metric(file).tolerance, metric(file).bound) == (0.03, 97.0)


def test_a_bound_that_would_be_missed_is_refused_and_moves_for_a_reason(file, rebase, write_session):
    rebase(write_session("monday", result()))
    file.write_text(file.read_text().replace('better = "higher"', 'better = "higher"\nbound = 99.9'))
    session = write_session("tuesday", result(0.99))
    code, _, said = rebase(session)
    assert code == 1
    assert "misses its bound of 99.9: give a --reason" in said
    assert rebase(session, "--reason", "cooler, slower")[0] == 0
    assert metric(file).bound < 99.9


def test_a_session_of_another_chip_does_not_go_into_the_file(rebase, write_session):
    rebase(write_session("monday", result()))
    code, _, said = rebase(write_session("tuesday", result(chip="B2")))
    assert code == 1
    assert "is of acme A1, the sessions are of acme B2" in said


def test_a_session_without_a_commit_is_warned_of(rebase, write_session):
    code, _, said = rebase(write_session("monday", result(), source={}))
    assert code == 0
    assert "warning: monday says no git commit" in said
    assert (
        "with files changed since" in rebase(write_session("b", result(), source={"commit": "c", "changed": True}))[2]
    )


def test_wrong_usage_is_told_from_a_refusal(file, write_session, capsys):
    session = str(write_session("monday", result()))
    with pytest.raises(SystemExit) as raised:
        cli.main(["rebase", session, "--baseline", str(file.parent.parent)])
    assert raised.value.code == 2
    assert "name the file" in capsys.readouterr().err
    with pytest.raises(SystemExit) as raised:
        cli.main(["rebase", session, "--baseline", str(file), "--metric", "sped"])
    assert raised.value.code == 2
    assert "there is no metric 'sped'" in capsys.readouterr().err


def test_without_a_file_the_vendors_own_is_meant(write_session, capsys):
    session = write_session("monday", result(vendor="cpu", chip=None), device_list=[{"name": "Some CPU"}])
    assert cli.main(["rebase", str(session)]) == 0
    assert capsys.readouterr().out.splitlines()[0].endswith("vendors/cpu/baselines/some-cpu.toml")


def test_a_file_that_cannot_be_written_is_told(write_session, capsys):
    session = write_session("monday", result())
    assert cli.main(["rebase", str(session), "--baseline", "/proc/nope/x.toml", "--write"]) == 1
    said = capsys.readouterr().err
    assert "/proc/nope/x.toml cannot be written" in said
    assert "Traceback" not in said


def test_what_is_worse_than_a_best_of_zero_takes_a_reason(file, rebase, write_session):
    metric = baselines.MetricBaseline("GiB", "lower", {"before": [0.0] * 5}, best=0.0)
    change = merging.Change(
        "c", "m", "GiB", "lower", metric, msgspec.structs.replace(metric, samples={"now": [1.0] * 5})
    )
    assert "worse than the best it has been" in merging._lowered(change, merging.Wanted())
    assert merging._lowered(change, merging.Wanted(reason="known")) is None


def test_a_fall_of_the_files_figure_by_more_than_5_percent_takes_a_reason_though_nothing_regressed(
    file, rebase, write_session
):
    rebase(write_session("monday", result(), started=1.0))
    assert rebase(write_session("tuesday", result(0.94), started=2.0))[0] == 0
    code, _, said = rebase(write_session("wednesday", result(0.91), started=3.0))
    assert code == 1
    assert "would be 5.1 % worse than the best it has been, 100 samples/s: more than 5 % takes a --reason" in said
