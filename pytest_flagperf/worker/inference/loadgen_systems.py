"""The system under test as LoadGen sees it: what its callbacks do, in its thread or ours.

LoadGen is C++ and cannot be told to stop: an exception that went through it would leave its logging thread with closed
files. What a callback raises is kept, every further query is completed without an answer so that LoadGen comes to its
end, and then it is raised.
"""

from __future__ import annotations

import queue
import sys
import threading
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from pytest_flagperf.worker.inference.loadgen import Bench


# Seconds that LoadGen's thread is waited for once the engine has failed. It cannot be ended otherwise than by the end
# of the process, which follows.
GRACE = 5.0
# Seconds. A query's thread is to have the interpreter sooner than Python gives it by itself (5 ms).
SWITCH_INTERVAL = 0.0002


class Answering:
    """LoadGen in the main thread: its call for a query returns when the query is answered."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.error: BaseException | None = None

    def run(self, start: Callable[[], None]) -> None:
        """Until LoadGen is done. Raises what a callback raised."""
        start()
        if self.error is not None:
            raise self.error

    def load(self, indices: list[int]) -> None:
        """LoadGen's call before the clock runs."""
        try:
            self.bench.library.load(indices)
        except BaseException as error:
            self.error = error

    def issue(self, ids: list[int], indices: list[int]) -> None:
        """LoadGen's call for a query, of one batch or, of Offline, of everything."""
        answered = self.bench.answered
        if self.error is None:
            try:
                self._answer(ids, indices)
            except BaseException as error:
                self.error = error
                # Millions of queries may be left; whoever ends the run before they are through finds it in the log.
                traceback.print_exception(error)
        done = self.bench.answered - answered
        if done < len(ids):
            self.bench.responses.give_up(ids[done:])
            self.bench.alive("ending LoadGen after a failure")

    def _answer(self, ids: list[int], indices: list[int]) -> None:
        bench, size = self.bench, self.bench.batch_size
        if len(ids) <= size:
            # A stream's query: at 100,000 a second two slices of it would be a tenth of all that is done for it.
            bench.answer(ids, indices)
            bench.alive()
            return
        for start in range(0, len(ids), size):
            bench.answer(ids[start : start + size], indices[start : start + size])
            bench.alive()

    def flush(self) -> None:
        """LoadGen's call after its last query; there is nothing left."""


class Serving:
    """LoadGen in a thread of its own, which queues what arrives; the main thread answers it in batches."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.arrived: queue.SimpleQueue[tuple[list[int], list[int]] | None] = queue.SimpleQueue()
        self.error: BaseException | None = None
        self.lock = threading.Lock()
        self.waiting: list[int] = []
        self.closed = self.flushed = False

    def run(self, start: Callable[[], None]) -> None:
        """Until LoadGen is done. Raises what the engine or a callback raised."""
        thread = threading.Thread(target=self._started, args=(start,), name="flagperf-loadgen", daemon=True)
        before = sys.getswitchinterval()
        sys.setswitchinterval(min(before, SWITCH_INTERVAL))
        try:
            thread.start()
            self._serve()
        except BaseException as error:
            self.error = error
        finally:
            sys.setswitchinterval(before)
        if self.error is not None:
            self._close()
            thread.join(GRACE)
            raise self.error
        thread.join()

    def _started(self, start: Callable[[], None]) -> None:
        try:
            start()
        except BaseException as error:
            self.error = error
        finally:
            self.arrived.put(None)

    def _serve(self) -> None:
        """Batches of what has arrived, as full as they are, until LoadGen's end is in the queue."""
        bench, size = self.bench, self.bench.batch_size
        ids: list[int] = []
        indices: list[int] = []
        try:
            while (came := self.arrived.get()) is not None:
                while came is not None:
                    ids += came[0]
                    indices += came[1]
                    came = self._more() if len(ids) < size else None
                while ids and (len(ids) >= size or self.arrived.empty()):
                    answered = bench.answered
                    try:
                        bench.answer(ids[:size], indices[:size])
                    finally:
                        done = bench.answered - answered
                        del ids[:done], indices[:done]
                    bench.alive()
        finally:
            # Empty, unless a batch was not answered.
            self.waiting += ids

    def _more(self) -> tuple[list[int], list[int]] | None:
        try:
            return self.arrived.get_nowait()
        except queue.Empty:
            return None

    def load(self, indices: list[int]) -> None:
        """LoadGen's call before the clock runs, in its thread."""
        try:
            self.bench.library.load(indices)
        except BaseException as error:
            self.error = error
            self.closed = True
            self.arrived.put(None)

    def issue(self, ids: list[int], indices: list[int]) -> None:
        """LoadGen's call for queries that are due, in its thread."""
        if self.closed:
            # Not completed: with enough of them outstanding LoadGen stops asking.
            with self.lock:
                self.waiting += ids
        else:
            self.arrived.put((ids, indices))

    def flush(self) -> None:
        """LoadGen's call after its last query, in its thread."""
        self.flushed = True
        if self.closed:
            self._give_up()

    def _close(self) -> None:
        """Answer nothing any more."""
        self.closed = True
        if self.flushed:
            self._give_up()

    def _give_up(self) -> None:
        """Complete what is outstanding, so that LoadGen comes to its end."""
        with self.lock:
            while not self.arrived.empty():
                came = self.arrived.get()
                self.waiting += came[0] if came is not None else []
            waiting, self.waiting = self.waiting, []
            self.bench.responses.give_up(waiting)
