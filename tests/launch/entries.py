"""What the ranks of the tests do. Each function is an entry; no framework is imported before it is needed."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from typing import NoReturn


def good(context: Any) -> None:
    """Say who I am, and who else could be imported."""
    report = {"rank": context.rank, "local_rank": context.local_rank, "world_size": context.world_size}
    report["path"] = sys.path
    report["modules"] = sorted(sys.modules)
    report["case"] = json.loads(context.case_file.read_text())
    report["affinity"] = sorted(os.sched_getaffinity(0))
    (context.host_dir / f"report{context.rank}.json").write_text(json.dumps(report))
    print("hello from", context.rank)


def raises(context: Any) -> None:
    """Rank 1, or the only one, raises; the others wait for it."""
    if context.rank == context.world_size - 1:
        raise ValueError("boom on purpose")
    wait_for_ever(context)


def connection_lost(context: Any) -> None:
    """Rank 1 is killed; rank 0 fails of it, and its record is there first."""
    if context.rank == 0:
        raise RuntimeError("[gloo/transport/tcp/pair.cc:553] Connection closed by peer [127.0.0.1]:1")
    _wait_for(context.host_dir / "rank0.outcome.json")
    os.kill(os.getpid(), signal.SIGKILL)


def exits_7(context: Any) -> None:
    """Exit as a script would."""
    sys.exit(7)


def exits_early(context: Any) -> None:
    """Leave with 0 behind everybody's back: torchrun counts this as success."""
    os._exit(0)


def is_killed(context: Any) -> None:
    """As the out-of-memory killer does it."""
    if context.rank == context.world_size - 1:
        os.kill(os.getpid(), signal.SIGKILL)
    wait_for_ever(context)


def kills_its_shim(context: Any) -> None:
    """Nobody is left who could write a record."""
    if context.rank == context.world_size - 1:
        os.kill(os.getppid(), signal.SIGKILL)
    wait_for_ever(context)


def kills_the_launcher(context: Any) -> None:
    """Rank 0 kills its shim's parent once rank 1 is there."""
    if context.rank == 0:
        _wait_for(context.host_dir / "waiting1")
        launcher = int(Path(f"/proc/{os.getppid()}/stat").read_text().rpartition(")")[2].split()[1])
        os.kill(launcher, signal.SIGKILL)
    wait_for_ever(context)


def stops(context: Any) -> None:
    """One rank is stopped by a signal; the others go on writing events."""
    if context.rank == context.world_size - 1:
        os.kill(os.getpid(), signal.SIGSTOP)
    while True:
        with open(context.host_dir / f"rank{context.rank}.events.jsonl", "a") as events:
            events.write("{}\n")
        time.sleep(0.05)


def wait_for_ever(context: Any) -> None:
    """A rank whose peer never comes."""
    (context.host_dir / f"waiting{context.rank}").touch()
    while True:
        time.sleep(0.1)


def hangs_in_c(context: Any) -> None:
    """Hold the interpreter's lock in a C call: no Python signal handler can run."""
    ctypes.PyDLL(None).sleep(600)


def ignores_sigterm(context: Any) -> None:
    """End only by SIGKILL."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    wait_for_ever(context)


def leaves_grandchildren(context: Any) -> None:
    """Start processes in sessions of their own, one of them an orphan, and succeed."""
    sleeper = [sys.executable, "-c", "import time; time.sleep(600)"]
    subprocess.Popen(sleeper, start_new_session=True)
    starter = f"import subprocess; subprocess.Popen({sleeper!r}, start_new_session=True)"
    subprocess.run([sys.executable, "-c", starter], check=True)


def hangs_with_grandchildren(context: Any) -> None:
    """The same, and hang."""
    leaves_grandchildren(context)
    wait_for_ever(context)


def aborts_in_teardown(context: Any) -> Callable[[], None]:
    """gloo's false failure: all done, then SIGABRT."""
    return os.abort


def raises_in_teardown(context: Any) -> Callable[[], None]:
    """As above, by an exception."""

    def teardown() -> None:
        raise RuntimeError("too late to matter")

    return teardown


def hangs_in_teardown(context: Any) -> Callable[[], None]:
    """As above, by never coming back."""
    return lambda: time.sleep(600)


def returns_nonsense(context: Any) -> int:
    """A mistake of whoever wrote the entry."""
    return 3


def nan(context: Any) -> None:
    """An error with a name of its own."""
    from pytest_flagperf.errors import NonFiniteLoss

    raise NonFiniteLoss("loss is nan at step 3")


def writes_hostile_bytes(context: Any) -> None:
    """Fill the log with what breaks reports."""
    os.write(1, b"\xff\xfe\x00 \x1b[31mred\x1b[0m \x1b]0;title\x07\xed\xa0\x80 last words\r\n" * 40)
    os._exit(3)


def forks_and_raises(context: Any) -> None:
    """A child that the worker forked raises through our frames."""
    child = os.fork()
    if child == 0:
        raise RuntimeError("not the rank")
    os.waitpid(child, 0)


def _wait_for(path: Any) -> None:
    deadline = time.monotonic() + 10
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.02)


# --- the real thing


def torch_all_reduce(context: Any) -> Callable[[], None]:
    """Sum over all ranks with gloo, then the fault that the case asks for."""
    import torch
    import torch.distributed as dist

    dist.init_process_group("gloo")

    def step() -> float:
        tensor = torch.ones(1)
        dist.all_reduce(tensor)
        return float(tensor)

    _run_steps(context, step)
    return dist.destroy_process_group


def paddle_all_reduce(context: Any) -> None:
    """The same with paddle."""
    import paddle
    import paddle.distributed as dist

    dist.init_parallel_env()

    def step() -> float:
        tensor = paddle.ones([1])
        dist.all_reduce(tensor)
        return float(tensor.numpy()[0])

    _run_steps(context, step)


def mindspore_all_reduce(context: Any) -> Callable[[], object]:
    """The same with MindSpore."""
    import mindspore
    import numpy
    from mindspore import ops
    from mindspore.communication import init

    mindspore.set_device("CPU")
    init()

    def step() -> float:
        return float(ops.AllReduce()(mindspore.Tensor(numpy.ones(1, numpy.float32))).asnumpy()[0])

    _run_steps(context, step)
    # What it sends leaves from a thread of its own: a rank that just ends may take its last message with it, and the
    # others wait for that until the scheduler gives them up after 30 s.
    return mindspore.communication.release


def _run_steps(context: Any, step: Callable[[], float]) -> None:
    fault = json.loads(context.case_file.read_text()).get("fault")
    for number in range(5):
        assert step() == context.world_size
        if number == 2 and context.rank == 1 and fault:
            _fail(context, fault)


def _fail(context: Any, fault: str) -> NoReturn:
    (context.host_dir / "fault").write_text(str(time.monotonic()))
    if fault == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    raise ValueError("boom on purpose")
