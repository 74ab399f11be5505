"""What a model answered: kept, compared, and looked at again while it is measured."""

from __future__ import annotations

import time
from collections.abc import Collection
from collections.abc import Iterator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pytest_flagperf.errors import InvalidMeasurement
from pytest_flagperf.worker.inference import memory
from pytest_flagperf.worker.inference.workload import Arrays
from pytest_flagperf.worker.inference.workload import InferenceWorkload


# How far answers to the same sample may be apart when it came in another batch: kernels differ with the size of one.
SAME = {"fp32": 1e-3, "tf32": 5e-3, "fp16": 2e-2, "bf16": 1e-1, "int8": 2e-2}
MOST_SEEN = 4096
# Of outputs that are too large to be kept: samples whose answers are, to be compared.
COMPARED = 128


class Answers:
    """The outputs of every batch over the whole evaluation set, in order, or what quality needs of them: ``batches``.

    ``kept`` is ``None`` where these are the outputs; else it has the answers to some samples, drawn with the workload's
    seed. ``judging_time`` is what it took in seconds to find what quality needs.
    """

    def __init__(self, workload: InferenceWorkload, batch_size: int) -> None:
        self.workload, self.batch_size = workload, batch_size
        self.batches: list[Arrays] = []
        self.kept: dict[int, Arrays] | None = None
        self.judging_time = 0.0
        self._compared: frozenset[int] = frozenset()

    def add(self, outputs: Arrays) -> None:
        """The next batch's."""
        began = time.perf_counter()
        first = len(self.batches) * self.batch_size
        indices = range(first, first + len(outputs[0]))
        judged = self.workload.judged(outputs, indices)
        self.batches.append(_owned(outputs if judged is None else judged))
        if judged is not None:
            self._keep(outputs, indices)
        self.judging_time += time.perf_counter() - began

    def _keep(self, outputs: Arrays, indices: range) -> None:
        if self.kept is None:
            count = self.workload.samples()
            drawn = np.random.default_rng([self.workload.seed, 3]).choice(count, min(count, COMPARED), replace=False)
            self.kept, self._compared = {}, frozenset(drawn.tolist())
        for index in self._compared.intersection(indices):
            self.kept[index] = self.workload.answer(outputs, index - indices.start, index)

    @property
    def held(self) -> int:
        """Bytes in memory."""
        return memory.size([self.batches, self.kept or {}])

    def to(self, index: int) -> Arrays:
        """The answer to a sample; where some are kept, to one of those."""
        if self.kept is not None:
            return self.kept[index]
        batch, row = divmod(index, self.batch_size)
        return self.workload.answer(self.batches[batch], row, index)


def _owned(arrays: Arrays) -> Arrays:
    """A view would keep alive all that it is one of, such as a framework's tensor, whose size nobody here knows."""
    return tuple(np.array(one) if getattr(one, "base", None) is not None else one for one in arrays)


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
    for expected, found in zip(_rows(reference), _rows(answers), strict=True):
        if len(expected) != len(found):
            raise InvalidMeasurement(f"the engine gave {len(found)} outputs, the framework {len(expected)}")
        for one, other in zip(expected, found, strict=True):
            if one.shape != other.shape:
                raise InvalidMeasurement(f"an output of the engine is {other.shape}, the framework's is {one.shape}")
            apart = _apart(one, other)
            relative, absolute = max(relative, apart.relative), max(absolute, apart.absolute)
    return Difference(relative, absolute)


def _rows(answers: Answers) -> Iterator[Arrays]:
    """Outputs whose first axis are samples: of all of them, or of those that are kept."""
    if answers.kept is None:
        yield from answers.batches
        return
    for index in sorted(answers.kept):
        yield tuple(output[None] for output in answers.kept[index])


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
    """Answers taken at random while the engine was measured, one a batch, for a comparison afterwards.

    ``among`` are the samples that there is something to compare with, where these are not all.
    """

    def __init__(self, workload: InferenceWorkload, seed: int, among: Collection[int] | None = None) -> None:
        self.workload, self.among = workload, among
        self.most = MOST_SEEN if among is None else min(MOST_SEEN, len(among))
        self.random = np.random.default_rng([seed, 1])
        self.taken: list[tuple[int, Arrays]] = []
        self.offered = 0

    def add(self, indices: Sequence[int], outputs: Arrays) -> None:
        """A batch's outputs: one of its answers is kept. Raises ``InvalidMeasurement`` where one is missing."""
        if len(outputs[0]) != len(indices):
            raise InvalidMeasurement(
                f"the engine answered {len(outputs[0])} of the {len(indices)} samples of a batch while it was measured"
            )
        rows: Sequence[int] = range(len(indices))
        if self.among is not None:
            rows = [row for row, index in enumerate(indices) if int(index) in self.among]
        if not rows:
            return
        row = rows[int(self.random.integers(len(rows)))]
        self.offered += 1
        place = len(self.taken)
        if place == self.most:
            place = int(self.random.integers(self.offered))
        if place < self.most:
            answer = (int(indices[row]), self.workload.answer(outputs, row, int(indices[row])))
            self.taken[place : place + 1] = [answer]

    @property
    def held(self) -> int:
        """Bytes that were taken into memory while the engine was measured; LoadGen's log is read afterwards."""
        return memory.size(self.taken) if self.offered else 0

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
