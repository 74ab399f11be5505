"""The warm worker in processes of its own, spoken to over its FIFOs."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pytest_flagperf import perflog
from pytest_flagperf.operators import problems
from tests.conftest import ROOT


pytestmark = [
    pytest.mark.pytorch,
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed"),
]

GEMM = problems.to_json(problems.Gemm(m=24, n=40, k=56))
SUM = problems.to_json(problems.AllReduce(elements=100_000))
FAST = {"budget": 0.02, "warmup": 0.01, "least": 3, "most": 20}

SCRIPT = """
import sys
from pathlib import Path
from pytest_flagperf.launch.context import RankContext
from pytest_flagperf.worker.operators import serve
serve.IDLE_INTERVAL = 0.1
rank, world_size = int(sys.argv[1]), int(sys.argv[2])
{sabotage}
teardown = serve.main(RankContext(Path("case.json"), Path("."), rank, rank, world_size))
teardown()
"""

# One rank sends nothing: its message is zeros.
MISSING_RANK = """
import torch.distributed as dist
original = dist.all_reduce
def without_the_last_rank(tensor):
    if rank == world_size - 1:
        tensor.zero_()
    original(tensor)
dist.all_reduce = without_the_last_rank
"""
# One rank keeps its own message instead of the sum.
ONE_RANK_STALE = """
import torch.distributed as dist
original = dist.all_reduce
def kept(tensor):
    own = tensor.clone()
    original(tensor)
    if rank == 1:
        tensor.copy_(own)
dist.all_reduce = kept
"""


class Worker:
    """The ranks of a worker, and the ends of its FIFOs."""

    def __init__(self, directory: Path, processes: list[subprocess.Popen[bytes]]) -> None:
        self.directory, self.processes = directory, processes
        self.requests = open(directory / "requests.fifo", "wb", buffering=0)  # noqa: SIM115
        self._replies: Any = None

    def send(self, line: bytes) -> None:
        self.requests.write(line + b"\n")

    def reply(self) -> dict[str, Any]:
        if self._replies is None:
            self._replies = open(self.directory / "replies.fifo", "rb")  # noqa: SIM115
        return json.loads(self._replies.readline())

    def ask(self, problem: dict[str, Any], **other: Any) -> dict[str, Any]:
        self.send(json.dumps({"id": 5, "problem": problem, **FAST, **other}).encode())
        return self.reply()

    def end(self) -> list[int]:
        """Close the requests; the exit codes."""
        self.requests.close()
        return [process.wait(60) for process in self.processes]

    def events(self, rank: int = 0) -> list[perflog.Event]:
        return perflog.read_events(self.directory / f"rank{rank}.events.jsonl")


@contextlib.contextmanager
def a_worker(directory: Path, ranks: int = 1, sabotage: str = "") -> Iterator[Worker]:
    """A running worker; its processes are gone afterwards."""
    case = {"framework": "pytorch", "device": {"device": "cpu", "backend": "gloo"}, "seed": 1}
    (directory / "case.json").write_text(json.dumps(case))
    for name in ("requests.fifo", "replies.fifo"):
        os.mkfifo(directory / name)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    processes = []
    for rank in range(ranks):
        environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
            **{"RANK": str(rank), "WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port},
        }
        command = [sys.executable, "-c", SCRIPT.format(sabotage=sabotage), str(rank), str(ranks)]
        with open(directory / f"rank{rank}.log", "wb") as log:
            processes.append(subprocess.Popen(command, cwd=directory, env=environment, stdout=log, stderr=log))
    try:
        yield Worker(directory, processes)
    finally:
        for process in processes:
            process.kill()
            process.wait()


def test_a_worker_answers_line_by_line_survives_what_is_no_request_and_ends_when_it_is_told_to(tmp_path):
    with a_worker(tmp_path) as worker:
        first = worker.ask(GEMM)
        assert (first["id"], first["status"]) == (5, "measured")
        assert first["clock"] == "host"
        assert first["threads"] == 1
        assert first["figures"]["time_min"] <= first["figures"]["time"] <= first["figures"]["time_p99"]
        assert len(first["samples"]) == first["iterations"] >= 3
        worker.send(b"this is no JSON")
        assert worker.reply()["status"] == "failed"
        assert "unknown family" in worker.ask({"family": "poem"})["message"]
        assert "no direction" in worker.ask(GEMM, direction="bwd_data")["message"]
        assert "least" in worker.ask(GEMM, least=9, most=3)["message"]
        assert "not a request" in worker.ask(GEMM, least="some")["message"]
        assert "cache" in worker.ask(GEMM, cache="lukewarm")["message"]
        assert worker.ask(GEMM, precision="tf32")["status"] == "unsupported"
        assert worker.ask(GEMM, precision="bf16", id=6)["id"] == 6
        worker.send(b'{"end": true}')
        assert [process.wait(60) for process in worker.processes] == [0]
        names = [event.name for event in worker.events()]
        assert names[:2] == ["INIT_START", "INIT_END"]
        assert names[-1] == "FINISHED"
        assert worker.events()[-1].value == {"problems": 3}


def test_an_idle_worker_gives_signs_of_life_and_ends_when_its_requests_are_closed(tmp_path):
    with a_worker(tmp_path) as worker:
        worker.ask(GEMM)
        while sum(event.value.get("what") == "idle" for event in worker.events()) < 2:
            assert worker.processes[0].poll() is None
        assert worker.end() == [0]
        whats = [event.value["what"] for event in worker.events() if event.name == "PROGRESS"]
        assert whats[-1] == "idle"
        assert sum("gemm m24-n40-k56-nn fp32 fwd" in what for what in whats) >= 2


def test_a_sum_over_two_ranks_is_checked_on_both_and_its_bandwidths_are_those_of_two_ranks(tmp_path):
    with a_worker(tmp_path, ranks=2) as worker:
        reply = worker.ask(SUM)
        assert reply["status"] == "measured", reply
        figures = reply["figures"]
        assert figures["algbw"] == pytest.approx(400_000 / figures["time"] / 1e3)
        assert figures["busbw"] == pytest.approx(figures["algbw"])
        # The ranks stay together: over problems of one rank each, refusals, and idle time.
        assert worker.ask(GEMM)["status"] == "measured"
        assert worker.ask(SUM, precision="tf32")["status"] == "unsupported"
        assert worker.ask(SUM, precision="int8")["status"] == "unsupported"
        while not any(event.value.get("what") == "idle" for event in worker.events(rank=1)):
            assert all(process.poll() is None for process in worker.processes)
        assert worker.ask(SUM, precision="bf16")["status"] == "measured"
        assert worker.end() == [0, 0]
        assert [event.value for event in worker.events(rank=1)][-1] == {"problems": 5}


@pytest.mark.parametrize("sabotage", [MISSING_RANK, ONE_RANK_STALE], ids=["missing_rank", "one_rank_stale"])
def test_a_sum_that_is_wrong_on_any_rank_is_found(tmp_path, sabotage):
    with a_worker(tmp_path, ranks=2, sabotage=sabotage) as worker:
        reply = worker.ask(SUM)
        assert reply["status"] == "wrong", reply
        assert "time" not in reply["figures"]
        assert worker.end() == [0, 0]
