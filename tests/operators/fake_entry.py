"""A worker that speaks the protocol and measures nothing: the problem's ``application`` orders a fault."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

from pytest_flagperf import perflog
from pytest_flagperf.perflog import EventWriter


def main(context: Any) -> None:
    """Answer until told to end."""
    host_dir = Path(context.host_dir)
    events = EventWriter(host_dir / f"rank{context.rank}.events.jsonl", context.rank)
    events.write(perflog.INIT_END)
    (host_dir / "served").write_text("")
    with open(host_dir / "requests.fifo") as requests, open(host_dir / "replies.fifo", "w") as replies:
        for line in requests:
            request = json.loads(line)
            if request.get("end"):
                return
            if request["problem"].get("application") == "slow and alive":
                for done in range(14):
                    time.sleep(0.5)
                    events.write(perflog.PROGRESS, {"what": "measuring", "done": done, "total": 14})
            reply = {"id": request["id"], **answer(request)}
            with open(host_dir / "served", "a") as log:
                log.write(f"{time.time()} {request['problem'].get('note', '')}\n")
            replies.write(json.dumps(reply) + "\n")
            replies.flush()
            if request["problem"].get("application") == "lost":
                os._exit(3)


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """The reply, or the fault."""
    fault = request["problem"].get("application", "")
    if fault == "crash":
        raise RuntimeError("ordered to crash")
    if fault == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if fault == "hang":
        while True:
            time.sleep(1)
    if fault == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        while True:
            time.sleep(1)
    if fault == "unsupported":
        return {"status": "unsupported", "message": "no int8 convolution in this framework"}
    if fault == "wrong":
        return {"status": "wrong", "message": "the error is 3, the bound 1e-05", "figures": {"max_relative_error": 3.0}}
    if fault == "out_of_memory":
        return {"status": "out_of_memory", "message": "tried to allocate 4096 GiB"}
    if fault in ("failed", "lost"):
        return {"status": "failed", "message": "RuntimeError: invalid configuration"}
    if fault == "slow":
        time.sleep(0.5)
    return measured(nan=fault == "nan", tf32=fault == "tf32")


def measured(*, nan: bool = False, tf32: bool = False) -> dict[str, Any]:
    """A reply as the real worker gives it."""
    time_ = "nan" if nan else 1000.0
    figures = {"time": time_, "time_mean": 1010.0, "time_min": 990.0, "time_p99": 1100.0, "cv": 0.02}
    return {
        "status": "measured",
        "figures": {**figures, "first_call": 5000.0, "wall_time": 1001.0, "max_relative_error": 1e-7},
        "samples": [990.0, 1000.0, 1100.0],
        "iterations": 3,
        "ended": "converged",
        "error_bound": 1e-5,
        "correct": True,
        "precision": {"asked": "fp32", "tf32": tf32},
        "padded": None,
        "clock": "host",
        "device_name": "a made-up device",
        "threads": 1,
        "data": {"distribution": "uniform [-1, 1)", "seed": 1, "nonzero": 1.0},
        "context_switches": 0,
        "notes": [],
    }
