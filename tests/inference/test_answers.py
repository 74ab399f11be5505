"""Answers of two executions, compared."""

from __future__ import annotations

import numpy as np
import pytest

from pytest_flagperf.errors import InvalidMeasurement
from pytest_flagperf.worker.inference import memory
from pytest_flagperf.worker.inference.answers import Answers
from pytest_flagperf.worker.inference.answers import Seen
from pytest_flagperf.worker.inference.answers import difference
from pytest_flagperf.worker.inference.answers import refuse_unfit
from pytest_flagperf.worker.inference.workload import InferenceWorkload


WORKLOAD = InferenceWorkload.__new__(InferenceWorkload)


def answers(*batches):
    found = Answers(WORKLOAD, 2)
    for batch in batches:
        found.add((np.asarray(batch),))
    return found


def test_the_difference_is_the_worst_samples_by_its_own_magnitude():
    reference = answers([[3.0, 4.0], [300.0, 400.0]], [[0.0, 5.0]])
    found = difference(reference, answers([[3.0, 4.5], [300.0, 401.0]], [[0.0, 5.0]]))
    assert found.relative == pytest.approx(0.1)
    assert found.absolute == pytest.approx(1.0)


def test_of_classes_the_difference_is_the_share_that_differs():
    assert difference(answers([[1, 2, 3, 4]]), answers([[1, 2, 3, 5]])).relative == 0.25


def test_an_answer_of_zeros_has_to_be_met_exactly():
    assert difference(answers([[0.0, 0.0]]), answers([[0.0, 0.0]])).relative == 0.0
    assert difference(answers([[0.0, 0.0]]), answers([[0.0, 1e-9]])).relative == 1.0


def test_outputs_of_another_shape_are_refused():
    with pytest.raises(InvalidMeasurement, match=r"\(1, 3\), the framework's is \(1, 2\)"):
        difference(answers([[0.0, 0.0]]), answers([[0.0, 0.0, 0.0]]))


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        (np.zeros((3, 2)), "answered 3 of the 4 samples"),
        (np.zeros(()), "answered 0 of the 4 samples"),
        (np.full((4, 2), np.inf, np.float32), "NaN or infinity"),
    ],
)
def test_outputs_that_are_not_those_of_the_batch_are_refused(output, reason):
    with pytest.raises(InvalidMeasurement, match=reason):
        refuse_unfit((output,), 4, "engine x")


def test_what_was_seen_while_it_was_measured_has_to_be_what_was_answered_before():
    kept, seen = answers([[1.0], [2.0]], [[3.0], [4.0]]), Seen(WORKLOAD, 1)
    seen.add([3, 0], (np.array([[4.0], [1.0]]),))
    seen.add([2, 1], (np.array([[3.0], [2.0]]),))
    assert seen.compare(kept, "fp32") == {"answers_compared": 2, "answers_apart": 0.0}
    seen.add([1, 3], (np.array([[4.0], [2.0]]),))
    with pytest.raises(InvalidMeasurement, match=r"answered otherwise to sample [13] than in its accuracy run"):
        seen.compare(kept, "fp32")


def test_an_answer_that_becomes_nan_while_it_is_measured_is_noticed():
    seen = Seen(WORKLOAD, 1)
    seen.add([0], (np.array([[np.nan]]),))
    with pytest.raises(InvalidMeasurement, match="nan apart"):
        seen.compare(answers([[1.0]]), "fp32")


def test_a_batch_that_is_cut_short_while_it_is_measured_is_noticed():
    with pytest.raises(InvalidMeasurement, match="answered 1 of the 2 samples"):
        Seen(WORKLOAD, 1).add([0, 1], (np.array([[1.0]]),))


def test_memory_counts_from_before_the_model_and_forgets_what_was_given_back():
    resident = memory.Resident()
    block = np.ones(2**23)  # 64 MiB
    assert resident.peak() >= 60 / 1024
    del block
    resident.restart()
    assert resident.since == "end of the compilation" or resident.since == "start of the process"
    if resident.since == "end of the compilation":
        assert resident.peak() < 32 / 1024
