"""What a person sees while a case runs: epoch, step, loss, rate and the time left, also under xdist.

Lines go to a duplicate of standard error that was made before pytest captured it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import pytest

from pytest_flagperf import perflog
from pytest_flagperf.case import ResolvedCase
from pytest_flagperf.perflog import Event
from pytest_flagperf.perflog import EventTail


# A person at a terminal sees the line change; a log gets a line now and then.
TERMINAL_INTERVAL = 1.0
LOG_INTERVAL = 10.0


class Progress:
    """Writes progress lines; silent with ``-q``."""

    def __init__(self, config: pytest.Config) -> None:
        self._quiet = config.get_verbosity() < 0
        self._worker: str = getattr(config, "workerinput", {}).get("workerid", "")
        capture = config.pluginmanager.getplugin("capturemanager")
        with capture.global_and_fixture_disabled() if capture else contextlib.nullcontext():
            self._descriptor = os.dup(2)
        self._terminal = os.isatty(self._descriptor) and not self._worker
        self._interval = TERMINAL_INTERVAL if self._terminal else LOG_INTERVAL
        self._last = 0.0
        self._open_line = False

    def close(self) -> None:
        """Give the descriptor back."""
        os.close(self._descriptor)

    def say(self, text: str) -> None:
        """A line that is not to be missed."""
        if not self._quiet:
            self._write("\n" + self._prefix() + printable(text) + "\n")

    def line(self, label: str, text: str) -> None:
        """The state of a case; shown at most once an interval."""
        now = time.monotonic()
        if self._quiet or now - self._last < self._interval:
            return
        self._last = now
        line = f"{self._prefix()}{label}  {printable(text)}"
        if self._terminal:
            self._write(("\r" if self._open_line else "\n") + line[: self._columns() - 1] + "\x1b[K")
            self._open_line = True
        else:
            self._write(("" if self._open_line else "\n") + line + "\n")
            self._open_line = True

    def end(self) -> None:
        """End the line of a case, so that pytest's own output starts on a fresh one."""
        if self._open_line and self._terminal:
            self._write("\n")
        self._open_line = False

    def watch(
        self,
        case: ResolvedCase,
        host_dir: Path,
        number: int,
        rounds: int,
        guard: Callable[[Event], None] | None = None,
    ) -> Callable[[], None]:
        """A function to call often: reads the events of rank 0, hands each to ``guard``, shows where the case is."""
        tail = EventTail(host_dir / "rank0.events.jsonl")
        state = State(case)
        label = case.label + (f" round {number}/{rounds}" if rounds > 1 else "")
        self._last = time.monotonic()

        def poll() -> None:
            if self._quiet and guard is None:
                return
            for event in tail.read():
                state.add(event)
                if guard is not None:
                    guard(event)
            self.line(label, state.text())

        return poll

    def _prefix(self) -> str:
        return f"[{self._worker}] " if self._worker else ""

    def _columns(self) -> int:
        try:
            return os.get_terminal_size(self._descriptor).columns or 80
        except OSError:
            return 80

    def _write(self, text: str) -> None:
        # A closed pipe or a full disk behind standard error must not fail a measurement.
        with contextlib.suppress(OSError):
            os.write(self._descriptor, text.encode("utf-8", errors="replace"))


# Of inference.
_STAGES = {
    perflog.LOAD_BEGIN: "loading",
    perflog.VALIDATION_BEGIN: "validating",
    perflog.EXPORT_BEGIN: "exporting",
    perflog.COMPILE_BEGIN: "compiling",
    perflog.COMPILE_END: "warm-up",
    perflog.ACCURACY_BEGIN: "accuracy",
    perflog.INFERENCE_BEGIN: "inference",
}


class State:
    """Where a run is, from its events."""

    def __init__(self, case: ResolvedCase) -> None:
        self.unit = case.case.unit
        self.stage = "starting"
        self.step, self.total = 0, 0
        # A throughput run counts steps; how many epochs they are says nothing.
        self.epoch, self.epochs = 0, int(case.config.get("epochs", 0)) if case.role == "convergence" else 0
        self.loss: float | None = None
        self.rate: float | None = None
        self.quality: dict[str, float] = {}
        self._begin: Event | None = None
        self._now: Event | None = None

    def add(self, event: Event) -> None:
        """Take one event in."""
        value = event.value
        if event.name == perflog.INIT_START:
            self.stage = "loading"
        elif event.name == perflog.PROGRESS:
            self.stage = f"{value.get('what', '')} {value.get('done', '')}/{value.get('total', '')}"
        elif event.name == perflog.TRAIN_START:
            # What was logged in a warm-up says nothing about the time that is left.
            self.stage, self._begin, self.total = "training", event, int(value.get("total_steps", 0))
            self.step, self._now = 0, None
        elif event.name == perflog.STEP_END:
            self.stage = "training" if self._begin else "warm-up"
            self.step, self.epoch = int(value.get("global_steps", 0)), int(value.get("epoch", 0))
            self.loss, self.rate, self._now = value.get("loss"), value.get("samples_per_second"), event
        elif event.name == perflog.EVALUATE_BEGIN:
            self.stage = "evaluating"
        elif event.name == perflog.EVALUATE:
            self.stage = "training"
            self.quality = {k: v for k, v in value.items() if k not in ("epoch", "global_steps")}
        elif event.name in (perflog.TRAIN_END, perflog.INFERENCE_END):
            self.stage = "finishing"
        elif event.name in _STAGES:
            self.stage = _STAGES[event.name]
        elif event.name in (perflog.VALIDATION_END, perflog.ACCURACY_END):
            self.quality = dict(value.get("quality") or {})

    def text(self) -> str:
        """One line: what is known, and nothing that is not."""
        parts = [self.stage]
        if self.epoch and self.epochs:
            parts.append(f"epoch {self.epoch}/{self.epochs}")
        if self.total:
            parts.append(f"step {self.step}/{self.total}")
        if self.loss is not None:
            parts.append(f"loss {self.loss:.4g}")
        parts += [f"{name} {value:.4f}" for name, value in self.quality.items() if isinstance(value, float)]
        if self.rate is not None:
            parts.append(f"{self.rate:,.0f} {self.unit}/s")
        left = self._left()
        if left is not None:
            parts.append(f"ETA {clock(left)} at most")
        return " · ".join(parts)

    def _left(self) -> float | None:
        """Seconds to the last step allowed; a run that meets its target ends sooner."""
        if self._begin is None or self._now is None or not 0 < self.step < self.total:
            return None
        return self._now.seconds_since(self._begin) / self.step * (self.total - self.step)


def clock(seconds: float) -> str:
    """``4:05`` or ``1:02:03``."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def printable(text: str) -> str:
    """Text without control characters: what a log or a file holds must not drive the terminal."""
    return "".join(c if c.isprintable() else "\ufffd" for c in text)


@contextlib.contextmanager
def terminated_like_interrupted() -> Iterator[None]:
    """While a case runs, SIGTERM ends pytest in order: processes stopped, ledger closed, exit code 143."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def terminate(number: int, frame: FrameType | None) -> None:
        pytest.exit("terminated by SIGTERM", returncode=128 + number)

    previous = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
