"""A session made up in the files that a run leaves, judged by the code that judges runs; no framework is needed."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from collections.abc import Mapping
from dataclasses import asdict
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec

from pytest_flagperf import measured
from pytest_flagperf import metrics
from pytest_flagperf import perflog
from pytest_flagperf import records
from pytest_flagperf import result as results
from pytest_flagperf import samples
from pytest_flagperf.case import Scale
from pytest_flagperf.case import Selection
from pytest_flagperf.case import Topology
from pytest_flagperf.case import TrainingCase
from pytest_flagperf.case import at_least
from pytest_flagperf.devices import files as vendor_files
from pytest_flagperf.devices import vendor as vendors
from pytest_flagperf.evidence import recorded
from pytest_flagperf.judging import rounds as judging
from pytest_flagperf.operators import figures as operator_figures
from pytest_flagperf.operators import table
from pytest_flagperf.operators.case import OperatorCase
from pytest_flagperf.operators.case import resolve
from pytest_flagperf.operators.peaks import of_chip
from pytest_flagperf.operators.problems import Gemm
from pytest_flagperf.operators.problems import to_json
from pytest_flagperf.overlay import resolve as resolve_case
from pytest_flagperf.provision import Data
from pytest_flagperf.rounds import Round
from pytest_flagperf.run import Surroundings
from pytest_flagperf.run import build_result
from pytest_flagperf.run import figures_of
from pytest_flagperf.run import judge_rounds
from pytest_flagperf.run import round_result
from pytest_flagperf.verdict import of_targets
from pytest_flagperf.worker.operators.measure import Measurement


VENDOR = """\
schema_version = 1
name = "acme"
title = "Acme"
precisions = ["fp32", "bf16"]

[frameworks.pytorch]
device = "acme"

[chips.A1]
names = ["Acme A1"]
peak = { fp32 = 60.0, bf16 = 240.0 }
memory_bandwidth = 1600.0
source = "made up"
"""
STACK = {"torch": "2.9.0", "python": "3.11.7"}
CASE = "toy-convergence-pytorch-fp32-1x2-lite"
BEGIN = 1_780_000_000.0


def write_vendor(directory: Path) -> Path:
    """``<directory>/acme/vendor.toml``."""
    (directory / "acme").mkdir(parents=True, exist_ok=True)
    (directory / "acme" / "vendor.toml").write_text(VENDOR, encoding="utf-8")
    return directory


def make(
    root: Path,
    *,
    name: str = "20260528-202640-abc123",
    speeds: tuple[float, ...] = (1.0, 1.01, 0.99),
    qualities: tuple[float, ...] = (),
    started: float = BEGIN,
    stack: Mapping[str, str] | None = None,
    commit: str = "0123456789abcdef",
    host: str = "host-1",
    vendor: str = "acme",
    chip: str = "A1",
    operators: bool = True,
    change: Callable[[results.Result], results.Result] = lambda result: result,
) -> Path:
    """A session with a model of one round for each of ``speeds`` and two problems of an operator. Returns its path."""
    session = root / "results" / name
    (session / CASE).mkdir(parents=True)
    description = {
        "schema_version": results.SCHEMA_VERSION,
        "session": name,
        "time_started": started,
        "command": ["pytest", "suites"],
        "versions": {"pytest-flagperf": "0.1.0"},
        "host": {"name": host, "cpu": "made up", "cpus": 8, "memory_gib": 64.0},
        "vendor": vendor,
        "device_list": [{"index": index, "name": f"Acme {chip}"} for index in range(2)],
        "source": {"commit": commit, "changed": False},
        "time_ended": started + 100.0 * len(speeds),
        "exit_status": 0,
    }
    records.write_json(session / "session.json", description)
    files = write_vendor(root / "vendors")
    known = vendors.load(files / "acme" / "vendor.toml")
    told = {"path": str(files / "acme" / "vendor.toml"), "sha256": vendor_files.digest(known)}
    rounds = tuple(zip(speeds, qualities or [0.95] * len(speeds), strict=True))
    result = _model(session, known, told, rounds, started, dict(stack or STACK))
    info = msgspec.structs.replace(result.case, vendor=vendor, chip=chip)
    results.write_result(session / CASE, change(msgspec.structs.replace(result, case=info)))
    if operators:
        _operators(session, known, started)
    return session


def _case(directory: Path) -> Any:
    scale = Scale(
        dataset="digits",
        targets=[at_least("top1", 0.9, source="made up")],
        config={"learning_rate": 0.1, "seed": 1},
        flops=2e9,
    )
    toy = TrainingCase(model="toy", title="Toy", workloads={"pytorch": "toy:Toy"}, scales={"lite": scale})
    return resolve_case(
        toy,
        Selection("pytorch", "fp32", Topology(1, 2), "lite"),
        role="convergence",
        vendor="acme",
        overlay=None,
        targets={},
        directory=directory,
    )


def _model(
    session: Path,
    vendor: vendors.Vendor,
    told: dict[str, str],
    speeds: tuple[tuple[float, float], ...],
    started: float,
    stack: dict[str, str],
) -> results.Result:
    case = replace(_case(session), node_id="suites/toy/test_toy.py::test_converges[pytorch-fp32-1x2-lite]")
    rounds, chip = [], None
    for number, (speed, quality) in enumerate(speeds, 1):
        directory = session / CASE / f"round{number}"
        begin = started + 60.0 * number
        _round(directory, case, told, speed, number, begin)
        _events(directory / "host-1", case, speed, quality, begin, stack)
        identity = {"case": CASE, "round": number, "seed": number, "directory": str(directory), "pid": 1}
        ledger = session / "ledger.jsonl"
        records.append_line(ledger, {"event": "round_start", "time": begin, **identity}, sync=False)
        document = recorded.read(directory / "case.json")
        ranks = [perflog.read_events(directory / "host-1" / f"rank{rank}.events.jsonl") for rank in range(2)]
        times = metrics.JobTimes(**recorded.read(directory / measured.TIMES))
        seen = samples.read(directory / "host-1" / "monitor.jsonl")
        found = measured.measure(vendor, recorded.case(document, "training"), ranks, times, seen)
        chip = found.chip
        rounds.append(round_result(number, number, directory, begin, found, None))
        end = {"event": "round_end", "time": begin + 50, **identity, "outcome": "finished"}
        records.append_line(ledger, end, sync=False)
    rounds = judging.drop(rounds, case.targets)
    figures, spreads = judging.of_rounds(rounds)
    judged = judge_rounds(case.targets, [figures_of(one) for one in rounds if not one.dropped])
    return build_result(
        case,
        of_targets(judged),
        figures,
        judged,
        rounds,
        Data("digits"),
        [0, 1],
        rerun=["pytest", "suites"],
        chip=chip,
        ran=Surroundings({}, told, {}),
        spreads=spreads,
        stack=stack,
        code="c0de",
    )


def _round(directory: Path, case: Any, told: dict[str, str], speed: float, number: int, begin: float) -> None:
    host = directory / "host-1"
    host.mkdir(parents=True)
    # As a round writes it, so that what a run leaves out is not here either.
    session = SimpleNamespace(
        vendor=vendors.load(Path(told["path"])),
        vendor_file=told,
        vendor_environment=lambda framework: {},
        support=lambda framework: vendors.load(Path(told["path"])).frameworks[framework],
    )
    lease = SimpleNamespace(devices=[0, 1])
    one: Any = SimpleNamespace(
        session=session, case=case, seed=number, lease=lease, dataset=Data("digits"), container=None
    )
    records.write_json(directory / "case.json", Round._case_document(one))
    lasted = 40.0 / speed + 7.5
    times = metrics.JobTimes(1000.0, 1000.0 + lasted, begin, begin + lasted)
    records.write_json(directory / measured.TIMES, asdict(times))
    (host / "rank0.log").write_text("it ran\n", encoding="utf-8")
    _monitor(host / "monitor.jsonl", speed, begin)


def _events(host: Path, case: Any, speed: float, quality: float, begin: float, versions: dict[str, str]) -> None:
    train = 40.0 / speed
    told = {"vendor": "acme", "model": "toy", "config": case.config}
    lines: list[tuple[float, str, dict[str, Any]]] = [
        (0.5, perflog.SUBMIT_INFO, told),
        (1.0, perflog.PRECISION, {"asked": "fp32", "device_name": "Acme A1"}),
        (1.5, perflog.INIT_END, {"parameters": 10, "versions": versions}),
        (2.0, perflog.TRAIN_START, {}),
        *((2 + train * part / 5, perflog.STEP_END, {"global_steps": part, "loss": 2.0 / part}) for part in range(1, 5)),
        (2 + train * 0.9, perflog.EVALUATE_BEGIN, {}),
        (2 + train * 0.95, perflog.EVALUATE, {"epoch": 1, "global_steps": 5, "top1": quality}),
        (2 + train, perflog.TRAIN_END, {"rank_samples": 64_000, "core_time": train * 0.8}),
        (2.5 + train, perflog.FINISHED, {"memory_peak": 3.5, "memory_total": 64.0}),
    ]
    for rank in range(2):
        written = []
        for after, name, value in lines:
            stamp = {"time_ms": int((begin + after) * 1e3), "monotonic_ns": int((1000 + after) * 1e9), "rank": rank}
            event = {"event": name, "value": value, "metadata": {"file": "x", "lineno": 1, **stamp}}
            written.append(json.dumps(event) + "\n")
        (host / f"rank{rank}.events.jsonl").write_text("".join(written), encoding="utf-8")


def _monitor(path: Path, speed: float, begin: float) -> None:
    lines: list[dict[str, Any]] = [{"event": "monitor_start", "devices": [0, 1], "interval": 1.0}]
    for second in range(int(40.0 / speed) + 8):
        for device in range(2):
            figures = {"power": 300.0 + 10 * math.sin(second), "temperature": 60.0, "utilization": 0.9}
            lines.append({"event": "sample", "device": device, "name": "Acme A1", **figures})
    lines.append({"event": "monitor_end"})
    with open(path, "w", encoding="utf-8") as file:
        for number, line in enumerate(lines):
            after = max(0, number - 1) // 2
            file.write(json.dumps({**line, "monotonic": 1000.0 + after, "time": begin + after}) + "\n")


# --- operators


def _operators(session: Path, vendor: vendors.Vendor, started: float) -> None:
    directory = session / "operators" / "main"
    worker = directory / "pytorch-1x1-1"
    (worker / "host-1").mkdir(parents=True)
    records.write_json(worker / "case.json", {"framework": "pytorch", "topology": "1x1"})
    problems = [Gemm(sets=("train",), m=m, n=128, k=1024) for m in (1024, 2048)]
    case = OperatorCase("gemm", "GEMM", problems)
    every = resolve(
        case,
        problems,
        frameworks=["pytorch"],
        precisions=["fp32"],
        topologies=[Topology(1, 1)],
        vendor="acme",
        directory=session,
    )
    noise = random.Random(1)
    writer = results.Results(directory)
    events = perflog.EventWriter(worker / "host-1" / "rank0.events.jsonl", 0)
    for one in every:
        one = one.of(f"suites/operators/test_gemm.py::test_gemm[{one.parameters}]", "acme")
        what = f"gemm {one.problem.id} fp32 {one.direction}"
        events.write(perflog.PROGRESS, {"what": what, "done": 1, "total": 1, "status": "measured"})
        writer.append(_operator(one, vendor, noise, started))
    writer.close()
    events.close()
    found = results.read_results(directory / results.RESULTS)
    table.write_files(session, found)


def _operator(one: Any, vendor: vendors.Vendor, noise: random.Random, started: float) -> results.Result:
    usual = (one.problem.flops(one.direction) or 0) / 30e6
    kept = tuple(round(noise.gauss(usual, usual / 50), 4) for _ in range(25))
    figures = {**Measurement(kept, kept, 1, "converged", 0).figures(), "first_call": 900.0, "max_relative_error": 1e-7}
    reply = {"figures": figures, "correct": True, "precision": {}, "ended": "converged"}
    found = operator_figures.of_reply(one, reply, of_chip(vendor.chips["A1"]))
    assert found.peak is not None
    return results.Result(
        case=results.CaseInfo(
            id=one.id,
            node_id=one.node_id,
            model="gemm",
            kind="operator",
            role=one.direction,
            framework="pytorch",
            precision="fp32",
            topology="1x1",
            scale=one.set,
            vendor="acme",
            devices=[0],
            unit="calls",
            chip="A1",
        ),
        verdict="passed",
        metrics=results.with_units(found.metrics),
        targets=[],
        rounds=[],
        configuration={},
        dataset=results.DatasetInfo(name="generated", synthetic=False),
        rerun=["pytest", "suites"],
        operator={
            "problem": to_json(one.problem),
            "id": one.problem.id,
            "sets": list(one.sets),
            "request": {"cache": "hot"},
            "time_started": started + 1,
            "samples": list(kept),
            "iterations": len(kept),
            "ended": "converged",
            "clock": "host",
            "precision": {},
            "error_bound": 1e-5,
            "peak": {"value": found.peak.value, "unit": found.peak.unit, "source": "made up", "estimated": False},
        },
        stack={"torch": "2.9.0"},
    )
