"""The monitor: one process a job and host that looks at the leased devices and at the host, and writes what it saw.

``python -P -m pytest_flagperf.devices.monitor SPEC`` with the lifeline as standard input: when that closes, it ends.
It appends to ``monitor.jsonl``, a flushed line a device and look. A driver that hangs, vanishes or says nonsense is a
gap in the samples with its reason, and never the job's problem.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import select
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any
from typing import NamedTuple

import psutil

from pytest_flagperf import children
from pytest_flagperf.devices import probe
from pytest_flagperf.devices import vendor as vendors
from pytest_flagperf.devices.bounded import Cancelled
from pytest_flagperf.devices.probe import IDENTITY
from pytest_flagperf.devices.reading import Reading
from pytest_flagperf.devices.vendor import Vendor
from pytest_flagperf.errors import FlagPerfError
from pytest_flagperf.errors import ProbeError
from pytest_flagperf.launch import processes


MONITOR = "monitor.jsonl"
MONITOR_LOG = "monitor.log"
SCHEMA_VERSION = 1
# Names the round in the environment of everything that a job starts.
ROUND_VARIABLE = "FLAGPERF_ROUND"
# Names the monitor in the environment of the programs that it runs.
MONITOR_VARIABLE = "FLAGPERF_MONITOR"

_PROCESSES_EVERY = 5.0  # seconds between looks at who uses the devices, where that costs a call of its own
_LAST_LOOK = 1.5
_LONGEST_LAST_LOOK = 5.0
_END_PATIENCE = 2 * _LONGEST_LAST_LOOK + 1.0  # the look, and the processes after it
_COMMAND_LENGTH = 200


class Spec(NamedTuple):
    """What a monitor is told: its vendor file, which devices to watch, how often, where to write, for which round."""

    vendor_file: str
    devices: tuple[int, ...]
    interval: float
    output: str
    round: str
    owner: int


# --- the side of pytest


@contextlib.contextmanager
def watching(spec: Spec) -> Iterator[subprocess.Popen[bytes]]:
    """Run a monitor for as long as the block runs; it is gone afterwards, whatever happened to it meanwhile.

    Gives its process, which tells whether it still lives.
    """
    mark = uuid.uuid4().hex
    env = {**children.environment(children.without_pytest()), MONITOR_VARIABLE: mark}
    argv = children.command("pytest_flagperf.devices.monitor", json.dumps(spec._asdict()))
    with open(Path(spec.output).with_name(MONITOR_LOG), "ab") as log:
        monitor = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT, env=env, start_new_session=True
        )
    try:
        yield monitor
    finally:
        _end(monitor)
        # What a program of a monitor that was killed has started itself dies with nobody.
        for pid in processes.with_variable(MONITOR_VARIABLE, mark):
            processes.send_signal(pid, signal.SIGKILL)
        with contextlib.suppress(OSError):
            log_file = Path(spec.output).with_name(MONITOR_LOG)
            if log_file.stat().st_size == 0:
                log_file.unlink()


def _end(monitor: subprocess.Popen[bytes]) -> None:
    assert monitor.stdin is not None
    try:
        monitor.stdin.close()
        monitor.wait(_END_PATIENCE)
    except subprocess.TimeoutExpired:
        monitor.kill()
        monitor.wait()
    except BaseException:  # a second Ctrl-C
        monitor.kill()
        monitor.wait()
        raise


# --- the monitor's own side


class Monitor:
    """Looks at devices and host every ``interval`` seconds until standard input closes."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.file = open(spec.output, "ab", buffering=0)  # noqa: SIM115 (lives as long as the process)
        self._prober: probe.Prober | None = None
        self._processes_due = 0.0
        self._longest_look = 0.0
        self._said: dict[int, object] = {}
        self._identity: dict[int, dict[str, Any]] = {}
        self._problem = ""
        self._seen_host = False
        self._blind = False

    @cached_property
    def vendor(self) -> Vendor:
        """The vendor whose devices are watched; read here, where an error of its file is a gap."""
        return vendors.load(Path(self.spec.vendor_file))

    def run(self) -> None:
        """Look until told to end."""
        spec = self.spec
        self._write(
            "monitor_start",
            schema_version=SCHEMA_VERSION,
            interval=spec.interval,
            devices=list(spec.devices),
            pid=os.getpid(),
        )
        due = time.monotonic()
        try:
            while True:
                self._look()
                self._look_at_host()
                # On the grid: a slow driver leaves out looks and shifts none.
                now = time.monotonic()
                due += self.spec.interval * (1 + max(0, int((now - due) // self.spec.interval)))
                if select.select([0], [], [], max(0.0, due - now))[0] and not os.read(0, 4096):
                    self._look_last()
                    break
        except Cancelled:
            self._look_last()
        self._close()
        used = resource.getrusage(resource.RUSAGE_SELF)
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        self._write(
            "monitor_end",
            cpu_time=used.ru_utime + used.ru_stime,
            cpu_time_of_programs=children.ru_utime + children.ru_stime,
        )

    def _look(self) -> None:
        began = time.monotonic()
        try:
            prober = self._open()
            if prober is None:
                return
            readings = {one.index: one for one in prober.read()}
        except FlagPerfError as error:
            self._gap(error, began)
            return
        # What a driver says holds for some moment of the call.
        moment = (began + time.monotonic()) / 2
        self._longest_look = max(self._longest_look, time.monotonic() - began)
        missing = [index for index in self.spec.devices if index not in readings]
        for index in self.spec.devices:
            if index in readings:
                self._write("sample", moment, device=index, **self._figures(readings[index]))
        if missing:
            self._gap(ProbeError(f"{prober.source} did not tell of device {', '.join(map(str, missing))}"), began)
        else:
            self._problem = ""
        if prober.lists_for_nothing or moment >= self._processes_due:
            self._processes_due = moment + _PROCESSES_EVERY
            self._look_at_processes(prober)

    def _look_last(self) -> None:
        """Once more when the job is over: what was measured ended between this look and the one before."""
        # A driver that has answered before: one that hangs keeps nobody waiting.
        if self._prober is not None and self._identity and not self._problem:
            self._prober.hurry(min(max(_LAST_LOOK, 2 * self._longest_look), _LONGEST_LAST_LOOK))
            self._processes_due = 0.0
            with contextlib.suppress(Cancelled):
                self._look()

    def _figures(self, reading: Reading) -> dict[str, Any]:
        """What is known of a device now; who it is only where that is news: a day has 86,400 lines a device."""
        known = {k: v for k, v in asdict(reading).items() if v is not None and k not in ("index", "processes")}
        identity = {k: known[k] for k in IDENTITY if k in known}
        if self._identity.get(reading.index) == identity:
            return {k: v for k, v in known.items() if k not in identity}
        self._identity[reading.index] = identity
        return known

    def _open(self) -> probe.Prober | None:
        """What asks the driver; ``None`` for a vendor that has no way to."""
        if self._prober is None and self.vendor.probe:
            self._prober = probe.prober(self.vendor, cancel=0, contained=False)
            self._write("monitor_source", source=self._prober.source)
        return self._prober

    def _close(self) -> None:
        if self._prober is not None:
            with contextlib.suppress(Exception):  # a driver that fails at the end has nothing more to say
                self._prober.close()
            self._prober = None

    def _gap(self, error: FlagPerfError, began: float) -> None:
        text = str(error)
        # Once in full: a driver that is gone says the same every second.
        said: dict[str, Any] = {"error": text[:2000]} if text != self._problem else {}
        self._problem = text
        self._write("gap", seconds=time.monotonic() - began, **said)
        # What failed may come back in another state.
        self._close()

    def _look_at_processes(self, prober: probe.Prober) -> None:
        try:
            told = prober.processes()
        except FlagPerfError as error:
            # The figures are none the worse for it; who else used the devices is then not known.
            if not self._blind:
                self._write("processes_gap", error=str(error)[:2000])
            self._blind = True
            return
        except Cancelled:
            return  # the job is over, which the loop will see next
        # Everybody uses the host's own processor.
        if told is None and not self._blind and not self.vendor.shared:
            self._write("processes_gap", error=f"{prober.source} lists no processes")
            self._blind = True
        for index in self.spec.devices:
            if told is None or index not in told:
                continue
            foreign, unseen = [], []
            for process in told[index]:
                whose = belongs(process.pid, self.spec.round, self.spec.owner)
                if whose is None:
                    unseen.append(process.pid)
                elif not whose:
                    memory = {} if process.memory is None else {"memory": process.memory}
                    foreign.append({"pid": process.pid, "command": command(process.pid), **memory})
            if foreign or unseen or self._said.get(index):
                self._write("processes", device=index, foreign=foreign, unseen=unseen)
            self._said[index] = foreign or unseen

    def _look_at_host(self) -> None:
        memory = psutil.virtual_memory()
        busy = psutil.cpu_percent(interval=None)
        # The first percentage has no interval to be of.
        utilization = {"cpu_utilization": min(busy / 100, 1.0)} if self._seen_host else {}
        self._seen_host = True
        self._write("host", memory_used=(memory.total - memory.available) / 2**30, **utilization)

    def _write(self, event: str, moment: float | None = None, **record: Any) -> None:
        now, wall = time.monotonic(), time.time()
        at = now if moment is None else moment
        line = {"event": event, "time": wall - (now - at), "monotonic": at, **record}
        try:
            self.file.write(json.dumps(line).encode() + b"\n")
        except OSError as error:
            # A full disk: the samples are lost, and a gap shows it; the job finds out for itself.
            print(f"cannot write {self.spec.output}: {error}", flush=True)


def belongs(pid: int, round_name: str, owner: int) -> bool | None:
    """Whether a process is part of the round, by its environment or its ancestors; ``None`` where it cannot be seen.

    A driver may count processes by the host's numbers while we are in a container, and then we see none or others.
    """
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        if f"{ROUND_VARIABLE}={round_name}".encode() in environment:
            return True
    except (FileNotFoundError, ProcessLookupError):
        return None
    except OSError:
        pass  # somebody else's
    ancestor: int | None = pid
    while ancestor is not None and ancestor > 1:
        if ancestor == owner:
            return True
        stat = processes.read_stat(ancestor)
        ancestor = stat.parent if stat else None
    return False


def command(pid: int) -> str:
    """A process' command line, on one line and shortened; its name where that cannot be read."""
    for path in (f"/proc/{pid}/cmdline", f"/proc/{pid}/comm"):
        with contextlib.suppress(OSError):
            text = Path(path).read_bytes().replace(b"\0", b" ").decode("utf-8", errors="replace")
            text = "".join(c for c in " ".join(text.split()) if c.isprintable())
            if text:
                return text[:_COMMAND_LENGTH]
    return ""


def main(arguments: Sequence[str]) -> None:
    """Run a monitor by the specification in the only argument."""
    given: Mapping[str, Any] = json.loads(arguments[0])
    for signum in (signal.SIGINT, signal.SIGHUP):
        signal.signal(signum, signal.SIG_IGN)  # Ctrl-C is for pytest, which closes the lifeline
    with contextlib.suppress(OSError):
        os.nice(5)  # the ranks first
    Monitor(Spec(**{**given, "devices": tuple(given["devices"])})).run()


if __name__ == "__main__":
    main(sys.argv[1:])
