"""Answers of two executions, compared."""

from __future__ import annotations

import numpy as np
import pytest

from pytest_flagperf.errors import InvalidMeasurement
from pytest_flagperf.worker.inference import memory
from pytest_flagperf.worker.inference.answers import COMPARED
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


class Summed(InferenceWorkload):
    """A workload of large outputs, of which quality needs their sums."""

    def samples(self):
        return 400

    def judged(self, outputs, indices):
        return (np.array([index * row.sum() for index, row in zip(indices, outputs[0], strict=True)]),)


def summed(change: int = -1):
    made = Summed.__new__(Summed)
    made.seed = 1
    found = Answers(made, 32)
    for start in range(0, 400, 32):
        rows = np.arange(start, min(start + 32, 400), dtype=np.float32)[:, None] + np.ones((1, 5), np.float32)
        rows[np.arange(start, start + len(rows)) == change] += 1
        found.add((rows,))
    return found


def test_outputs_that_are_too_large_are_reduced_and_some_samples_are_kept_to_be_compared():
    reference = summed()
    assert np.concatenate([one for (one,) in reference.batches]).tolist() == [5 * i * (i + 1) for i in range(400)]
    assert len(reference.kept) == COMPARED
    assert all((reference.to(index)[0] == index + 1).all() for index in reference.kept)
    assert difference(reference, summed()).absolute == 0
    wrong = max(reference.kept)
    assert difference(reference, summed(wrong)).absolute == 1
    # What is answered while it is measured is held against the same samples.
    seen = Seen(reference.workload, 1, reference.kept)
    for start in range(0, 400, 40):
        indices = range(start, start + 40)
        seen.add(indices, (np.array([[index + 1.0] * 5 for index in indices], np.float32),))
    assert {index for index, _ in seen.taken} <= set(reference.kept)
    assert seen.compare(reference, "fp32") == {"answers_compared": 10, "answers_apart": 0.0}
    seen.add([wrong], (np.zeros((1, 5), np.float32),))
    with pytest.raises(InvalidMeasurement, match=f"answered otherwise to sample {wrong} "):
        seen.compare(reference, "fp32")


def test_memory_counts_from_before_the_model_and_forgets_what_was_given_back():
    resident = memory.Resident()
    block = np.ones(2**23)  # 64 MiB
    assert resident.peak() >= 60 / 1024
    del block
    resident.restart()
    if resident.since != memory.RESTARTED:
        pytest.skip("this system forbids resetting the peak of memory")
    assert resident.peak() < 32 / 1024
    block = np.ones(2**23)
    resident.exclude(memory.size([(block,)]))
    assert resident.peak() < 32 / 1024


def test_where_the_peak_cannot_be_reset_nothing_is_taken_from_it(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "_CLEAR", tmp_path)
    resident = memory.Resident()
    resident.restart()
    before = resident.idle
    resident.exclude(2**30)
    assert (resident.since, resident.idle) == ("start of the process", before)


def test_answers_are_counted_with_what_keeps_them_alive():
    kept = answers(np.ones((2, 1001), np.float32)[:, :1000], np.ones((2, 1000), np.float32))
    assert all(array.base is None for batch in kept.batches for array in batch)
    assert 16_000 < kept.held < 17_000
    reduced = summed()
    assert reduced.held > memory.size(reduced.batches) + COMPARED * 20
    seen = Seen(WORKLOAD, 1)
    seen.taken[:] = [(0, (np.ones(1000),))]
    # LoadGen's log is read when it has measured.
    assert seen.held == 0
    seen.add([1], (np.ones((1, 1000)),))
    assert seen.held > 16_000
