"""LoadGen's two ends of a sample: the library that its inputs come from, and the answer that is handed back."""

from __future__ import annotations

import binascii
import json
from collections.abc import Callable
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pytest_flagperf.errors import InvalidMeasurement
from pytest_flagperf.worker.inference.answers import MOST_SEEN
from pytest_flagperf.worker.inference.answers import Answers
from pytest_flagperf.worker.inference.loadgen_results import ACCURACY
from pytest_flagperf.worker.inference.workload import Arrays
from pytest_flagperf.worker.inference.workload import InferenceWorkload


# Responses that are made once and used again, handed over at most so many at a time.
POOL = 4096


class Library:
    """The samples that LoadGen draws from, prepared beforehand and held in memory, as MLPerf has it.

    Where batches differ in shape (texts padded to the longest of a batch) they cannot be put together from rows:
    ``in_memory`` is then false, and the data pipeline is part of the latency.
    """

    def __init__(self, workload: InferenceWorkload, batch_size: int, alive: Callable[[int, int], None]) -> None:
        self.workload, self.batch_size, self.alive = workload, batch_size, alive
        self.in_memory = False
        self._rows: tuple[Any, ...] = ()
        self._places = np.zeros(0, np.int64)
        self._place_of: list[int] = []
        self._loaded: frozenset[int] = frozenset()

    def load(self, indices: Sequence[int]) -> None:
        """Prepare the samples, each once; those of the last run stay where they are the same."""
        wanted = frozenset(indices)
        if wanted == self._loaded or self.workload.dynamic:
            return
        order = sorted(wanted)
        batches = []
        for start in range(0, len(order), self.batch_size):
            batches.append(self.workload.inputs(order[start : start + self.batch_size]))
            self.alive(start, len(order))
        columns = list(zip(*batches, strict=True))
        self.in_memory = all(len({array.shape[1:] for array in column}) == 1 for column in columns)
        self._rows = tuple(np.concatenate(column) for column in columns) if self.in_memory else ()
        self._places = np.full(self.workload.samples(), -1, np.int64)
        self._places[order] = np.arange(len(order))
        self._place_of = self._places.tolist()
        self._loaded = wanted

    def inputs(self, indices: Sequence[int]) -> Arrays:
        """A batch, in fresh arrays: equal samples are equal in nothing but their values."""
        if not self.in_memory:
            return self.workload.inputs(indices)
        if len(indices) == 1:
            place = self._place_of[indices[0]]
            return tuple([rows[place : place + 1].copy() for rows in self._rows])
        places = self._places[indices]
        return tuple(rows[places] for rows in self._rows)


class Responses:
    """Tells LoadGen that samples are answered, and shows it the answers that it logs: their bytes, output by output.

    LoadGen's binding takes a list of ``QuerySampleResponse`` and no buffer: the objects are made once, and of most
    samples only the id is set. For the few answers that it logs LoadGen calls back, and copies them at once.
    """

    def __init__(self, loadgen: Any, workload: InferenceWorkload) -> None:
        self.workload = workload
        self._complete = loadgen.QuerySamplesComplete
        self._pool = [loadgen.QuerySampleResponse(0, 0, 0) for _ in range(POOL)]
        self._one = self._pool[:1]
        self._ids: Sequence[int] = ()
        self._indices: Sequence[int] = ()
        self._outputs: Arrays = ()
        self._held: Any = None
        self.error: BaseException | None = None

    def complete(self, ids: Sequence[int], indices: Sequence[int], outputs: Arrays) -> None:
        """Of a batch of at most ``POOL`` samples; ``outputs`` may have more rows, which are padding.

        What goes wrong while LoadGen copies an answer is in ``error``: the samples are completed nevertheless.
        """
        self._ids, self._indices, self._outputs = ids, indices, outputs
        self._complete(self.filled(ids), self._show)

    def filled(self, ids: Sequence[int]) -> list[Any]:
        """The responses with those ids."""
        if len(ids) == 1:
            self._one[0].id = ids[0]
            return self._one
        for response, one in zip(self._pool, ids, strict=False):
            response.id = one
        return self._pool[: len(ids)]

    def _show(self, response: Any) -> None:
        """LoadGen's call for an answer that it logs. What it raised would go through LoadGen."""
        try:
            row = self._ids.index(response.id)
            parts = self.workload.answer(self._outputs, row, self._indices[row])
            # It must live until LoadGen has copied it.
            self._held = np.frombuffer(b"".join(part.tobytes() for part in parts) or b"\0", np.uint8)
            response.data = self._held.__array_interface__["data"][0]
            response.size = sum(part.nbytes for part in parts)
        except BaseException as error:
            self.error = error

    def give_up(self, ids: Sequence[int]) -> None:
        """Complete without an answer, so that LoadGen comes to its end; the run is thrown away."""
        for start in range(0, len(ids), POOL):
            self._complete(self.filled(ids[start : start + POOL]))


def logged_answers(directory: Path, answers: Answers) -> list[tuple[int, Arrays]]:
    """The answers that LoadGen logged while it measured, each with its sample, as arrays; at most ``MOST_SEEN``.

    Raises ``InvalidMeasurement`` where there is none, or one is of another length than in the accuracy run.
    """
    path = directory / ACCURACY
    try:
        entries = json.loads(path.read_text(encoding="ascii"))
        found = [(int(one["qsl_idx"]), binascii.unhexlify(one["data"])) for one in entries]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InvalidMeasurement(f"LoadGen's log of answers {path} cannot be read: {error}") from error
    if not found:
        raise InvalidMeasurement(f"LoadGen logged no answer in {path}: nothing shows that the fast ones were right")
    if answers.kept is not None:
        found = [one for one in found if one[0] in answers.kept]
        if not found:
            raise InvalidMeasurement(f"LoadGen logged in {path} no answer to a sample whose answer was kept")
    step = -(-len(found) // MOST_SEEN)
    return [(index, _split(data, answers.to(index), index)) for index, data in found[::step]]


def _split(data: bytes, expected: Arrays, index: int) -> Arrays:
    """An answer's bytes as arrays of the types and shapes of the expected one."""
    size = sum(one.nbytes for one in expected)
    if len(data) != size:
        raise InvalidMeasurement(
            f"while it was measured the engine answered sample {index} with {len(data)} bytes, in its accuracy run "
            f"with {size}: the answer was cut short, or is of another sample"
        )
    parts, place = [], 0
    for one in expected:
        parts.append(np.frombuffer(data, one.dtype, one.size, place).reshape(one.shape))
        place += one.nbytes
    return tuple(parts)
