"""Running a management program within bounds: of time, of what it prints, and of what it leaves behind."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import time
from collections.abc import Mapping
from collections.abc import Sequence

from pytest_flagperf.devices.outputs import MOST_BYTES
from pytest_flagperf.devices.outputs import shown
from pytest_flagperf.errors import ProbeError
from pytest_flagperf.launch import processes


# For a process that was killed to be gone; one in uninterruptible sleep, in a dead driver, is not.
_PATIENCE = 1.0


class Cancelled(Exception):
    """Whoever wanted the text does not want it any more."""


def run(
    argv: Sequence[str], *, timeout: float, env: Mapping[str, str] | None = None, cancel: int | None = None
) -> bytes:
    """What ``argv`` prints on standard output.

    The program gets ``timeout`` seconds and its own process group, which is killed when they are over, when it prints
    more than 4 MiB, or when the file descriptor ``cancel`` becomes readable (``Cancelled``). Raises ``ProbeError`` for
    those, for a program that cannot be started, and for one that fails, with what it said.
    """
    program = os.path.basename(argv[0])
    try:
        child = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=dict(env) if env is not None else None,
            start_new_session=True,
            # Only who may be cancelled, the monitor, is alone in its process; pytest may have threads.
            preexec_fn=processes.die_with_parent if cancel is not None else None,  # noqa: PLW1509
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise ProbeError(f"{program} cannot be started: {error}") from error
    try:
        printed, said = _read(child, program, time.monotonic() + timeout, timeout, cancel)
    finally:
        _end(child)
    if child.returncode:
        how = f"exit code {child.returncode}" if child.returncode > 0 else signal.Signals(-child.returncode).name
        text = (said or printed).decode("utf-8", errors="replace")
        raise ProbeError(f"{program} failed with {how}{shown(text)}")
    return printed


def _read(
    child: subprocess.Popen[bytes], program: str, until: float, timeout: float, cancel: int | None
) -> tuple[bytes, bytes]:
    assert child.stdout is not None
    assert child.stderr is not None
    gathered = {child.stdout.fileno(): bytearray(), child.stderr.fileno(): bytearray()}
    waiting = set(gathered)
    while waiting:
        ready, _, _ = select.select([*waiting, *([cancel] if cancel is not None else [])], [], [], _left(until))
        if cancel is not None and cancel in ready:
            raise Cancelled
        if not ready:
            text = gathered[child.stdout.fileno()].decode("utf-8", errors="replace")
            raise ProbeError(f"{program} did not end within {timeout:g} s{shown(text)}")
        for descriptor in ready:
            added = os.read(descriptor, 65536)
            if not added:
                waiting.discard(descriptor)
            gathered[descriptor] += added
            if len(gathered[descriptor]) > MOST_BYTES:
                text = bytes(gathered[descriptor][:2000]).decode("utf-8", errors="replace")
                raise ProbeError(f"{program} printed more than {MOST_BYTES >> 20} MiB{shown(text)}")
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(_left(until))
    if child.poll() is None:
        raise ProbeError(f"{program} closed its output and did not end within {timeout:g} s")
    return bytes(gathered[child.stdout.fileno()]), bytes(gathered[child.stderr.fileno()])


def _left(until: float) -> float:
    return max(0.0, until - time.monotonic())


def _end(child: subprocess.Popen[bytes]) -> None:
    """Kill the program's group: what it started itself may live on, or hold its output open."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(_PATIENCE)
    for stream in (child.stdout, child.stderr):
        if stream is not None:
            stream.close()
