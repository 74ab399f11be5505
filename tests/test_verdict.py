"""Good enough or not."""

from __future__ import annotations

from pytest_flagperf import at_least
from pytest_flagperf import at_most
from pytest_flagperf import verdict
from pytest_flagperf.run import judge_rounds


TOP1 = at_least("top1", 0.9, source="a paper")
PERPLEXITY = at_most("perplexity", 55, source="a paper")


def test_a_run_passes_only_where_every_target_is_met():
    good, bad = {"top1": 0.95, "perplexity": 50}, {"top1": 0.95, "perplexity": 60}
    assert verdict.of_targets(verdict.judge([TOP1, PERPLEXITY], good)) == "passed"
    assert verdict.of_targets(verdict.judge([TOP1, PERPLEXITY], bad)) == "missed"


def test_a_metric_that_was_not_measured_misses_its_target():
    (judged,) = verdict.judge([TOP1], {})
    assert not judged.met
    assert str(judged) == "top1 >= 0.9: not measured (missed; a paper)"


def test_a_judgement_says_what_was_found_and_where_the_bound_is_from():
    (judged,) = verdict.judge([TOP1], {"top1": 0.8765432})
    assert str(judged) == "top1 >= 0.9: 0.876543 (missed; a paper)"


def test_the_worst_round_counts():
    judged = judge_rounds([TOP1, PERPLEXITY], [{"top1": 0.95, "perplexity": 50}, {"top1": 0.89, "perplexity": 54}])
    assert [(one.value, one.met) for one in judged] == [(0.89, False), (54, True)]


def test_a_round_that_lacks_the_metric_is_not_made_up_for_by_the_others():
    (judged,) = judge_rounds([TOP1], [{"top1": 0.95}, {}])
    assert (judged.value, judged.met) == (None, False)


def test_without_any_round_nothing_is_met():
    assert verdict.of_targets(judge_rounds([TOP1], [])) == "missed"
