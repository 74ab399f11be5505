"""The harness's training loop against the bare loop of the same model: samples/s must be at least 99 %.

One model is trained in one process, and two loops take turns with its steps, one each: the harness's, which is
``Training.measure`` with the clock, the event log and the checks of a real run, and a bare one as a person writes it,
which never even reads the loss. Both have a data pipeline of their own and see the same batches. A third loop is the
bare one once more: what its ratio shows is noise.
"""

from __future__ import annotations

import os


# Read when the framework is imported: the lite cases are defined with one thread.
os.environ["OMP_NUM_THREADS"] = "1"

import dataclasses
import itertools
import multiprocessing
import runpy
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import paired
import torch

from pytest_flagperf import datasets
from pytest_flagperf import overlay
from pytest_flagperf.case import ResolvedCase
from pytest_flagperf.case import Selection
from pytest_flagperf.case import Topology
from pytest_flagperf.devices import vendor as vendors
from pytest_flagperf.launch.context import RankContext
from pytest_flagperf.perflog import EventWriter
from pytest_flagperf.worker import loop
from pytest_flagperf.worker.loop import Plan
from pytest_flagperf.worker.loop import Training
from pytest_flagperf.worker.main import build_workload
from pytest_flagperf.worker.pytorch import MODEL_DTYPES
from pytest_flagperf.worker.pytorch import Backend


SUITES = Path(__file__).resolve().parent.parent / "suites" / "training"
MODELS = ("resnet50", "wide_deep")
BOUND = 0.99
SIDES = ("harness", "bare", "bare again")


def main() -> int:
    parser = paired.arguments(__doc__, pairs=60)
    parser.add_argument("--framework", choices=["pytorch"], default="pytorch")
    parser.add_argument("--model", choices=MODELS, action="append", help="measure only this one (default: both)")
    parser.add_argument("--precision", choices=["fp32", "amp", "bf16"], default="fp32")
    parser.add_argument("--steps", type=int, help="steps of each loop in a pair (default: the case's measured_steps)")
    parser.add_argument("--data-root", type=Path, help="where the datasets are (default: the plugin's)")
    options = parser.parse_args()
    root = options.data_root or Path(os.environ.get("FLAGPERF_DATA_ROOT") or datasets.default_data_root())
    setting = {"framework": options.framework, "precision": options.precision, "threads": 1, "scale": "lite"}
    report = paired.Report("harness_overhead", setting)
    # A process for each model, as each rank is one: a process loads one workload.
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), max_tasks_per_child=1) as pool:
        for model in options.model or MODELS:
            measured = pool.submit(measure, model, options.precision, options.steps, options.pairs, root)
            report.rows += measured.result()
    return report.finish(options.json)


def measure(model: str, precision: str, steps: int | None, pairs: int, data_root: Path) -> list[paired.Row]:
    """Ratios of samples a second, harness over bare loop, and bare loop over bare loop."""
    case = resolve(model, precision)
    steps = steps or int(case.config["measured_steps"])
    turns = Turns(steps, pairs)
    with tempfile.TemporaryDirectory() as directory:
        train(describe(case, data_root), Path(directory), turns)

    def ratios(side: str, clock: str) -> list[float]:
        # Samples are the same on both sides: their rates relate as the inverse of their times.
        both = zip(turns.costs["bare"], turns.costs[side], strict=True)
        return [getattr(bare, clock) / getattr(other, clock) for bare, other in both]

    bare = turns.costs["bare"]
    added = [one.cpu - other.cpu for one, other in zip(turns.costs["harness"], bare, strict=True)]
    return [
        paired.Row(f"{model}: harness / bare", "samples/s own", ratios("harness", "own"), at_least=BOUND),
        paired.Row(f"{model}: harness / bare", "samples/s wall", ratios("harness", "wall")),
        paired.Row(f"{model}: harness / bare", "samples/s cpu", ratios("harness", "cpu")),
        paired.Row(f"{model}: bare / bare (noise)", "samples/s own", ratios("bare again", "own")),
        paired.Row(f"{model}: bare / bare (noise)", "samples/s wall", ratios("bare again", "wall")),
        paired.Row(f"{model}: the harness adds to a step", "us cpu", [seconds / steps * 1e6 for seconds in added]),
        paired.Row(f"{model}: a bare step", "ms own", [cost.own / steps * 1e3 for cost in bare]),
        paired.Row(f"{model}: a bare step", "ms wall", [cost.wall / steps * 1e3 for cost in bare]),
    ]


class Turns:
    """Whose turn it is, and what each side's turns cost: one ``Cost`` a pair, that is for ``steps`` steps."""

    def __init__(self, steps: int, pairs: int) -> None:
        self.steps, self.pairs = steps, pairs
        self.costs: dict[str, list[paired.Cost]] = {side: [] for side in SIDES}
        self._taken = 0
        self._started = paired.so_far()
        self._side = "harness"
        self._forget()

    def next(self, side: str) -> None:
        """The work from here on is ``side``'s."""
        now = paired.so_far()
        self._spent[self._side] += now - self._started
        self._side, self._started = side, now

    def complete(self) -> None:
        """Each side has done one more step. The first pair is for warming up and does not count."""
        self._taken += 1
        if self._taken % self.steps:
            return
        if self._taken > self.steps:
            for side, cost in self._spent.items():
                self.costs[side].append(cost)
            paired.show_progress(len(self.costs["bare"]), self.pairs)
        self._forget()

    def _forget(self) -> None:
        self._spent = {side: paired.Cost(0.0, 0.0, 0.0) for side in SIDES}


def train(case: dict[str, Any], directory: Path, turns: Turns) -> None:
    """Run the harness's loop; whenever it asks for a batch, each bare loop makes one step."""
    # A second of the harness's own time is this long: so it writes its log as often as it does alone.
    loop.LOG_INTERVAL *= len(SIDES)
    context = RankContext(directory / "case.json", directory, rank=0, local_rank=0, world_size=1)
    events = EventWriter(directory / "rank0.events.jsonl", rank=0)
    backend = Backend(context, case)
    workload: Any = build_workload(backend, case, events)
    # Warming up is the first pair, which does not count.
    plan = dataclasses.replace(Plan.of(case), warmup_steps=turns.steps, measured_steps=turns.steps * turns.pairs)
    training = Training(backend, workload, events, plan)

    model = workload.model().to(MODEL_DTYPES.get(case["precision"], torch.float32))
    optimizer, schedule = workload.optimizer(model)
    # One copy for all sides: two would differ in speed by where in memory they lie.
    workload.model = lambda: model
    workload.optimizer = lambda _: (optimizer, schedule)
    others = {
        side: bare_loop(build_workload(backend, case, events), model, optimizer, schedule, case["precision"])
        for side in SIDES
        if side != "harness"
    }
    own_batches, order = workload.batches, list(others.items())

    def batches(split: str) -> Iterator[Any]:
        for batch in own_batches(split):
            order.reverse()
            for side, steps in order:
                turns.next(side)
                next(steps)
            turns.next("harness")
            turns.complete()
            yield batch

    workload.batches = batches
    training.prepare()
    training.measure()


def bare_loop(workload: Any, model: Any, optimizer: Any, schedule: Any, precision: str) -> Iterator[None]:
    """What a person writes, stopped after each step."""
    for workload.epoch in itertools.count(1):
        for arrays in workload.batches("train"):
            batch = [torch.from_numpy(array) for array in arrays]
            if precision == "bf16":
                batch = [part.bfloat16() if part.is_floating_point() else part for part in batch]
            optimizer.zero_grad()
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "amp"):
                loss = workload.loss(model, batch)
            loss.backward()
            optimizer.step()
            schedule.step()
            yield


def resolve(model: str, precision: str) -> ResolvedCase:
    """The standard lite case of ``model`` on the processor."""
    test_module = SUITES / model / f"test_{model}.py"
    return overlay.resolve(
        runpy.run_path(str(test_module))["CASE"],
        Selection("pytorch", precision, Topology(1, 1), "lite"),
        role="throughput",
        vendor="cpu",
        overlay=None,
        targets={},
        directory=test_module.parent,
    )


def describe(case: ResolvedCase, data_root: Path) -> dict[str, Any]:
    """What a rank reads of its ``case.json``."""
    cpu = vendors.find("cpu", [vendors.bundled()]).frameworks["pytorch"]
    found = datasets.locate(case.scale.dataset, overrides={}, data_root=data_root, say=print)
    return {
        "role": case.role,
        "framework": case.selection.framework,
        "precision": case.selection.precision,
        "vendor": case.vendor,
        "model": case.model,
        "seed": int(case.config["seed"]),
        "directory": str(case.directory),
        "workload": case.workload,
        "config": case.config,
        "parameters": case.scale.parameters,
        "targets": [],
        "device": {"device": cpu.device, "backend": cpu.backend, "module": cpu.module, "amp_dtype": cpu.amp_dtype},
        "dataset": {"name": case.scale.dataset, "synthetic": False, "path": str(found.path)},
    }


if __name__ == "__main__":
    sys.exit(main())
