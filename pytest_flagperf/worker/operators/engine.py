"""One request, from drawn data to a reply: the answer is judged first, and a wrong one is never timed into a result.

Order: operands are drawn and looked at; the outputs are poisoned, and the check has to find them wrong; the first call
is timed and judged; warm-up; samples, some of which, the last among them, find poisoned outputs and are judged; the
operands are looked at again; the precision in force is read back.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
import time
from collections.abc import Callable
from collections.abc import Mapping
from typing import Any

from pytest_flagperf.errors import FlagPerfError
from pytest_flagperf.operators.problems import Problem
from pytest_flagperf.perflog import to_json
from pytest_flagperf.worker import tf32
from pytest_flagperf.worker.operators import data
from pytest_flagperf.worker.operators.kernel import Check
from pytest_flagperf.worker.operators.kernel import Framework
from pytest_flagperf.worker.operators.kernel import Kernel
from pytest_flagperf.worker.operators.kernel import Unsupported
from pytest_flagperf.worker.operators.kernel import WrongAnswer
from pytest_flagperf.worker.operators.measure import SHORT_CALL
from pytest_flagperf.worker.operators.measure import Measurement
from pytest_flagperf.worker.operators.measure import Plan
from pytest_flagperf.worker.operators.measure import measure
from pytest_flagperf.worker.operators.request import Request


# Of the free memory, what operands may take.
SAFE_SHARE = 0.9
# Samples of a call that is timed beside the one asked for.
LEAST_BESIDE = 3

Reply = dict[str, Any]


class DeviceLost(Exception):
    """The device gave up within a call; nothing in this process can be measured any more. ``reply`` says it."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply["message"])
        self.reply = reply


def answer(framework: Framework, request: Request, alive: Callable[[], None] = lambda: None) -> Reply:
    """The reply to ``request``, whatever becomes of it. Raises :class:`DeviceLost` where no other can follow."""
    kernel: Kernel | None = None
    reply: Reply
    try:
        refuse_what_cannot_fit(framework, request.problem, request)
        kernel = framework.prepare(request)
        alive()
        reply = {"id": request.id, **_measured(framework, kernel, request, alive)}
    except Unsupported as error:
        reply = {"id": request.id, "status": "unsupported", "message": str(error)}
    except WrongAnswer as error:
        reply = {"id": request.id, "status": "wrong", "message": str(error)}
    except FlagPerfError as error:
        reply = {"id": request.id, "status": "failed", "message": f"{type(error).__name__}: {error}"}
    except Exception as error:
        status = framework.classify(error)
        message = framework.explain(error)
        if status == "lost":
            raise DeviceLost({"id": request.id, "status": "failed", "message": message}) from error
        reply = {"id": request.id, "status": status, "message": message}
    finally:
        if kernel is not None:
            kernel.close()
        framework.release()
    return to_json(reply)  # type: ignore[no-any-return]


def refuse_what_cannot_fit(framework: Framework, problem: Problem, request: Request) -> None:
    """Raises ``MemoryError`` for operands that exceed the free memory.

    A host promises memory that it does not have and kills who uses it, so asking for it is not a way to find out.
    """
    traffic, free = problem.bytes(request.precision, request.direction), framework.memory()
    if traffic is None or free is None:
        return
    # A backward pass keeps what the forward one saved, beyond what it has to read.
    needed = traffic * framework.copies * (1 if request.direction in ("fwd", "bwd_weights") else 2)
    if needed > SAFE_SHARE * free:
        raise MemoryError(
            f"the operands of {problem.family} {problem.id} in {request.precision} take {needed / 2**30:.1f} GiB, "
            f"{free / 2**30:.1f} GiB are free"
        )


def _measured(framework: Framework, kernel: Kernel, request: Request, alive: Callable[[], None]) -> Reply:
    drawn = _copied(kernel)
    nonzero = data.proof(drawn)
    clock = framework.clock()
    alone = framework.world_size == 1 or not kernel.collective
    agree: Callable[[list[float]], list[float]] = list if alone else framework.agree
    before = _before(framework, kernel, request, alone)
    kernel.poison()
    if not kernel.once:
        refuse_a_check_that_says_nothing(kernel, agree)
    if before is not None:
        before()
    begin = time.perf_counter()
    first = agree(clock.wall(kernel.run, 1, None))[0]
    once = time.perf_counter() - begin
    alive()
    check = _judged(kernel, agree)
    if not check.correct:
        return _wrong(check, "the first call")
    figures = {"first_call": first}
    samples: list[float] = []
    measurement: Measurement | None = None
    if not kernel.once:
        plan = Plan(request.budget, request.warmup, request.least, request.most)
        witness = Judge(kernel, agree)
        measurement = measure(
            kernel.run, clock, plan, before=before, agree=agree, alive=alive, first=first, witness=witness
        )
        check = _worse(check, witness.worst)
        if measurement.skips:
            raise WrongAnswer(
                f"of the timed calls those that were looked at took {min(measurement.seen):.4g} µs at least, "
                f"the others {statistics.median(measurement.samples):.4g} µs: they do not do the same work"
            )
        figures |= measurement.figures()
        samples = measurement.kept()
        # Beside the figure that was asked for, and often the longer call of the two.
        short = dataclasses.replace(plan, budget=plan.budget / 2, least=min(plan.least, LEAST_BESIDE))
        for name, call in kernel.companions().items():
            try:
                beside = measure(call, clock, short, before=before, agree=agree, alive=alive, witness=witness)
            except Exception as error:
                # Of another call: what was measured stands without it.
                if isinstance(error, WrongAnswer) or framework.classify(error) == "lost":
                    raise
                kernel.notes.append(f"{name} was not measured: {framework.explain(error)}")
                continue
            figures[name] = beside.figures()["time"]
        check = _worse(check, witness.worst)
        if kernel.restore is None:
            refuse_changed_operands(drawn, kernel)
    in_force = kernel.precision()
    tf32.refuse_other(in_force, request.precision)
    figures |= kernel.figures(figures["time"] / 1e6 if measurement else once)
    figures["max_relative_error"] = check.error
    return {
        "status": "measured",
        "figures": figures,
        "samples": samples,
        "iterations": len(measurement.samples) if measurement else 1,
        "ended": measurement.ended if measurement else "budget",
        "error_bound": check.bound,
        "correct": True,
        "precision": in_force,
        "padded": kernel.padded,
        "cache": request.cache,
        "clock": clock.name,
        "device_name": framework.device_name,
        "threads": framework.threads,
        "data": {"distribution": kernel.distribution, "seed": request.seed, "nonzero": nonzero},
        "context_switches": measurement.context_switches if measurement else 0,
        "notes": [*kernel.notes, *_notes(measurement)],
    }


def _before(framework: Framework, kernel: Kernel, request: Request, alone: bool) -> Callable[[], None] | None:
    """What runs before each sample, outside the clock; ``None`` where nothing has to."""
    steps: list[Callable[[], None]] = []
    if kernel.restore is not None:
        steps.append(kernel.restore)
    if request.cache == "flushed":
        steps.append(framework.flusher())
    if not alone:
        steps.append(framework.barrier)
    if not steps:
        return None

    def before() -> None:
        for step in steps:
            step()

    return before


class Judge:
    """Poisons a kernel's outputs and judges them, between timed calls; keeps the worst it found."""

    def __init__(self, kernel: Kernel, agree: Callable[[list[float]], list[float]]) -> None:
        self._kernel, self._agree = kernel, agree
        self.worst = Check(0.0, math.inf)

    def prepare(self) -> None:
        """See :class:`~pytest_flagperf.worker.operators.measure.Witness`."""
        self._kernel.poison()

    def judge(self) -> None:
        """See :class:`~pytest_flagperf.worker.operators.measure.Witness`."""
        check = _judged(self._kernel, self._agree)
        if not check.correct:
            raise WrongAnswer(f"one of the timed calls: {_why_wrong(check)}")
        self.worst = _worse(check, self.worst)


def refuse_a_check_that_says_nothing(kernel: Kernel, agree: Callable[[list[float]], list[float]]) -> None:
    """Raises ``WrongAnswer`` where outputs that no call has written pass for right.

    It also has the reference computed from the operands as they were drawn, before any call could change them.
    """
    if _judged(kernel, agree).correct:
        raise WrongAnswer("the check passes on outputs that no call has written: a right answer would prove nothing")


def refuse_changed_operands(drawn: Mapping[str, Any], kernel: Kernel) -> None:
    """Raises ``WrongAnswer`` where the calls were not all given the operands that were drawn."""
    for name, values in _copied(kernel).items():
        if values.tobytes() != drawn[name].tobytes():
            raise WrongAnswer(
                f"operand {name} is not what it was before the calls: they did not all have the same data"
            )


def _copied(kernel: Kernel) -> dict[str, Any]:
    return {name: values.copy() for name, values in kernel.drawn().items()}


def _judged(kernel: Kernel, agree: Callable[[list[float]], list[float]]) -> Check:
    """The check of the worst rank. ``max`` would pass a NaN by, so it travels as infinity."""
    check = kernel.check()
    error = math.inf if math.isnan(check.error) else check.error
    return Check(agree([error])[0], check.bound)


def _worse(one: Check, other: Check) -> Check:
    return one if one.error >= other.error else other


def _wrong(check: Check, which: str) -> Reply:
    return {
        "status": "wrong",
        "message": f"{which}: {_why_wrong(check)}",
        "figures": {"max_relative_error": check.error},
    }


def _why_wrong(check: Check) -> str:
    if not math.isfinite(check.error):
        return "the answer is not finite, or was not written"
    return f"the largest relative error is {check.error:.3g}, the bound {check.bound:.3g}"


def _notes(measurement: Measurement | None) -> list[str]:
    found = []
    if measurement is not None and measurement.batch > 1:
        found.append(f"a call is shorter than {SHORT_CALL:.0f} us: {measurement.batch} calls a sample, divided")
    if measurement is not None and not measurement.settled:
        found.append("warming up ended with its time, before three medians agreed within 5 %")
    return found
