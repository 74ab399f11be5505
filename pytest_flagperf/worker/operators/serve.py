"""The warm worker: reads problems from one FIFO, answers on another, until there are no more.

Rank 0 speaks with pytest; in a job of several ranks it shares each request with the others, so that all of them run it.
"""

from __future__ import annotations

import importlib
import json
import os
import select
import time
from collections.abc import Callable
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pytest_flagperf import perflog
from pytest_flagperf.launch.context import RankContext
from pytest_flagperf.perflog import EventWriter
from pytest_flagperf.worker.operators import engine
from pytest_flagperf.worker.operators.kernel import Framework
from pytest_flagperf.worker.operators.request import Request
from pytest_flagperf.worker.operators.request import parse_line


REQUESTS, REPLIES = "requests.fifo", "replies.fifo"
# Seconds between two signs of life of an idle worker: a silent rank counts as stalled.
IDLE_INTERVAL = 2.0
LOG_INTERVAL = 1.0
IDLE: dict[str, Any] = {"idle": True}
END: dict[str, Any] = {"end": True}


def main(context: RankContext) -> Callable[[], None]:
    """Serve until ``requests.fifo`` is closed, or says ``{"end": true}``. Returns the framework's teardown."""
    case = json.loads(Path(context.case_file).read_text(encoding="utf-8"))
    host_dir = Path(context.host_dir)
    events = EventWriter(host_dir / f"rank{context.rank}.events.jsonl", context.rank)
    events.write(perflog.INIT_START)
    package = importlib.import_module(f"pytest_flagperf.worker.operators.{case.get('framework', 'pytorch')}")
    framework: Framework = package.Framework(context, case)
    events.write(perflog.INIT_END, {"device_name": framework.device_name, "threads": framework.threads})
    server = Server(framework, events)
    if context.rank == 0:
        server.lead(Requests(host_dir / REQUESTS), Replies(host_dir / REPLIES))
    else:
        server.follow()
    events.write(perflog.FINISHED, {"problems": server.problems})
    return framework.close


class Requests:
    """The lines of a FIFO; ``None`` whenever nothing came for :data:`IDLE_INTERVAL`. Ends when it is closed."""

    def __init__(self, path: Path) -> None:
        # Without O_NONBLOCK the open waits, silently, until pytest's side opens its end.
        self._file = os.open(path, os.O_RDONLY | os.O_NONBLOCK)

    def __iter__(self) -> Iterator[bytes | None]:
        poll = select.poll()
        poll.register(self._file, select.POLLIN)
        rest = b""
        while True:
            if not poll.poll(IDLE_INTERVAL * 1e3):
                yield None
                continue
            added = os.read(self._file, 1 << 16)
            if not added:
                os.close(self._file)
                return
            *lines, rest = (rest + added).split(b"\n")
            yield from (line for line in lines if line.strip())


class Replies:
    """Answers, a line each. Opened with the first: pytest's side may open its end when it has asked."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: int | None = None

    def send(self, reply: engine.Reply) -> None:
        """Write one line."""
        if self._file is None:
            self._file = os.open(self._path, os.O_WRONLY)
        line = memoryview(json.dumps(reply, allow_nan=False).encode() + b"\n")
        while line:
            line = line[os.write(self._file, line) :]


class Server:
    """One rank, answering."""

    def __init__(self, framework: Framework, events: EventWriter) -> None:
        self.framework, self.events = framework, events
        self.problems = 0

    def lead(self, requests: Requests, replies: Replies) -> None:
        """Rank 0: take requests from pytest, share them, answer."""
        for line in requests:
            if line is None:
                self.framework.share(IDLE)
                self._idle()
                continue
            try:
                record = parse_line(line)
            except ValueError as error:
                replies.send({"id": None, "status": "failed", "message": f"not a request: {error}"})
                continue
            if record.get("end"):
                break
            self.framework.share(record)
            replies.send(self._answer(record, replies.send))
        self.framework.share(END)

    def follow(self) -> None:
        """Every other rank: do what rank 0 was asked for."""
        while True:
            record = self.framework.share(None)
            if record == END:
                return
            if record == IDLE:
                self._idle()
            else:
                self._answer(record, lambda reply: None)

    def _answer(self, record: dict[str, Any], last_words: Callable[[engine.Reply], None]) -> engine.Reply:
        try:
            request = Request.parse(record)
        except ValueError as error:
            return {"id": record.get("id"), "status": "failed", "message": str(error)}
        self.problems += 1
        what = f"{request.problem.family} {request.problem.id} {request.precision} {request.direction}"
        self.events.write(perflog.PROGRESS, {"what": what, "done": 0, "total": 1})
        try:
            reply = engine.answer(self.framework, request, lambda: self._alive(what))
        except engine.DeviceLost as error:
            last_words(error.reply)
            raise
        self.events.write(perflog.PROGRESS, {"what": what, "done": 1, "total": 1, "status": reply["status"]})
        return reply

    def _alive(self, what: str) -> None:
        if time.monotonic() - self.events.last_written >= LOG_INTERVAL:
            self.events.write(perflog.PROGRESS, {"what": what, "done": 0, "total": 1})

    def _idle(self) -> None:
        self.events.write(perflog.PROGRESS, {"what": "idle", "done": self.problems, "total": self.problems})
