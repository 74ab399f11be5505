"""What a model answered: kept, compared, and looked at again while it is measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pytest_flagperf.errors import InvalidMeasurement
from pytest_flagperf.worker.inference.workload import Arrays
from pytest_flagperf.worker.inference.workload import InferenceWorkload


# How far answers to the same sample may be apart when it came in another batch: kernels differ with the size of one.
SAME = {"fp32": 1e-3, "tf32": 5e-3, "fp16": 2e-2, "bf16": 1e-1, "int8": 2e-2}
MOST_SEEN = 4096


class Answers:
    """The outputs of every batch over the whole evaluation set, in order."""

    def __init__(self, workload: InferenceWorkload, batch_size: int) -> None:
        self.workload, self.batch_size = workload, batch_size
        self.batches: list[Arrays] = []

    def add(self, outputs: Arrays) -> None:
        """The next batch's."""
        self.batches.append(outputs)

    def to(self, index: int) -> Arrays:
        """The answer to a sample."""
        batch, row = divmod(index, self.batch_size)
        return self.workload.answer(self.batches[batch], row, index)


@dataclass(frozen=True)
class Difference:
    """The largest difference of outputs: ``relative`` to the magnitude of a sample's answer, and ``absolute``."""

    relative: float
    absolute: float


def difference(reference: Answers, answers: Answers) -> Difference:
    """Of the answers to every sample: the L2 norm of what differs, by that of the reference's answer; the largest.

    Of outputs that are no floats, such as classes, the share of elements that differ. Raises ``InvalidMeasurement`` for
    outputs of other shapes.
    """
    relative = absolute = 0.0
    for expected, found in zip(reference.batches, answers.batches, strict=True):
        if len(expected) != len(found):
            raise InvalidMeasurement(f"the engine gave {len(found)} outputs, the framework {len(expected)}")
        for one, other in zip(expected, found, strict=True):
            if one.shape != other.shape:
                raise InvalidMeasurement(f"an output of the engine is {other.shape}, the framework's is {one.shape}")
            apart = _apart(one, other)
            relative, absolute = max(relative, apart.relative), max(absolute, apart.absolute)
    return Difference(relative, absolute)


def _apart(expected: Any, found: Any) -> Difference:
    """Of arrays whose first axis are samples."""
    rows = len(expected)
    one, other = np.reshape(expected, (rows, -1)), np.reshape(found, (rows, -1))
    if not one.size:
        return Difference(0.0, 0.0)
    if one.dtype.kind not in "fc":
        return Difference(float(np.max(np.mean(one != other, axis=1))), float(np.max(one != other)))
    one, other = one.astype(np.float64), other.astype(np.float64)
    norm = np.linalg.norm(one, axis=1)
    apart = np.linalg.norm(one - other, axis=1)
    # An answer of nothing but zeros has no magnitude to compare with.
    relative = np.where(norm > 0, apart / np.where(norm > 0, norm, 1), apart > 0)
    return Difference(float(relative.max()), float(np.abs(one - other).max()))


def refuse_unfit(outputs: Arrays, rows: int, what: str) -> None:
    """Raises ``InvalidMeasurement`` for outputs that are not those of ``rows`` samples, or hold NaN or infinity."""
    for output in outputs:
        found = output.shape[0] if output.shape else 0
        if found != rows:
            raise InvalidMeasurement(f"{what} answered {found} of the {rows} samples of a batch: {output.shape}")
        if output.dtype.kind == "f" and not np.isfinite(output).all():
            raise InvalidMeasurement(f"{what} answered with NaN or infinity")


class Seen:
    """Answers taken at random while the engine was measured, one a batch, for a comparison afterwards."""

    def __init__(self, workload: InferenceWorkload, seed: int) -> None:
        self.workload = workload
        self.random = np.random.default_rng([seed, 1])
        self.taken: list[tuple[int, Arrays]] = []
        self.offered = 0

    def add(self, indices: Sequence[int], outputs: Arrays) -> None:
        """A batch's outputs: one of its answers is kept. Raises ``InvalidMeasurement`` where one is missing."""
        if len(outputs[0]) != len(indices):
            raise InvalidMeasurement(
                f"the engine answered {len(outputs[0])} of the {len(indices)} samples of a batch while it was measured"
            )
        row = int(self.random.integers(len(indices)))
        self.offered += 1
        place = len(self.taken)
        if place == MOST_SEEN:
            place = int(self.random.integers(self.offered))
        if place < MOST_SEEN:
            answer = (int(indices[row]), self.workload.answer(outputs, row, int(indices[row])))
            self.taken[place : place + 1] = [answer]

    def compare(self, answers: Answers, precision: str) -> dict[str, Any]:
        """Hold what was seen against the answers of the accuracy run (as MLPerf's TEST01 does).

        Raises ``InvalidMeasurement`` where one differs by more than :data:`SAME`: what was fast was something else.
        """
        bound, worst = SAME.get(precision, SAME["bf16"]), 0.0
        for index, found in self.taken:
            expected = answers.to(index)
            for one, other in zip(expected, found, strict=True):
                same = one.shape == other.shape
                apart = _apart(one[None], other[None]).relative if same else float("inf")
                # NaN is greater than nothing.
                if not apart <= bound:
                    raise InvalidMeasurement(
                        f"while it was measured the engine answered otherwise to sample {index} than in its accuracy "
                        f"run: the answers are {apart:.3g} apart, {bound:g} is allowed in {precision}. Answers were "
                        "cached, cut short or mixed up"
                    )
                worst = max(worst, apart)
        return {"answers_compared": len(self.taken), "answers_apart": worst}
