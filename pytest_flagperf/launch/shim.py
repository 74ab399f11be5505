"""What a launcher starts for each rank: it runs the worker's entry and records how that ended.

Run by path, under the framework's interpreter: ``PYTHON -u shim.py --host-dir DIR --case FILE --entry ENTRY``.

None of the launchers can be believed about its ranks: torchrun exits with 1 whatever a rank did and takes an early
``exit(0)`` for success, paddle reports the rank that lost its peer, msrun exits with 0 when interrupted. So the shim
forks: the child runs the entry, the parent only waits and writes down what became of it.

Standard library only and Python 3.9.
"""

from __future__ import annotations

import sys


# Python puts a script's directory first on its path, where our context.py, job.py ... would shadow other modules.
if __name__ == "__main__" and sys.path and sys.path[0] == __file__.rpartition("/")[0]:
    del sys.path[0]

import argparse
import faulthandler
import importlib
import importlib.util
import json
import os
import signal
import traceback
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any
from typing import NoReturn


_HERE = os.path.dirname(os.path.abspath(__file__))
_PACKAGE = os.path.dirname(_HERE)


def _stand_in_packages() -> None:
    """Make our siblings importable without the package's own ``__init__``, which only the worker needs."""
    for name, path in (("pytest_flagperf", _PACKAGE), ("pytest_flagperf.launch", _HERE)):
        module = types.ModuleType(name)
        module.__path__ = [path]
        sys.modules[name] = module


if __name__ == "__main__":
    _stand_in_packages()

from pytest_flagperf.launch import processes  # noqa: E402 (the path above must be set right first)
from pytest_flagperf.launch import records  # noqa: E402


_STOP_SIGNALS = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP})
_TRACEBACK_LIMIT = 200_000  # characters; a recursion error can fill a disk

Entry = Callable[[Any], Any]


def main() -> NoReturn:
    """Run one rank and exit as it did. Launchers get 0 for it exactly if the entry returned."""
    arguments = _arguments()
    processes.die_with_parent()
    if _supervisor_is_gone():
        os._exit(1)
    host_dir = Path(arguments.host_dir)
    if os.environ.get("MS_ROLE") == "MS_SCHED":
        _redirect_output(host_dir / records.SCHEDULER_LOG)
        _run_scheduler(host_dir)
    rank, local_rank, world_size = _identity(os.environ)
    files = records.RankFiles(host_dir, rank)
    _redirect_output(files.log)

    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _STOP_SIGNALS | {signal.SIGCHLD})
    shim = os.getpid()
    child = os.fork()
    if child == 0:
        context = {
            "case_file": Path(arguments.case),
            "host_dir": host_dir,
            "rank": rank,
            "local_rank": local_rank,
            "world_size": world_size,
        }
        _run_rank(arguments.entry, context, files, shim, mask)
    os._exit(_wait(child, rank, files))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="shim.py", description="Run one rank of a job.")
    parser.add_argument("--host-dir", required=True)
    parser.add_argument("--case", required=True)
    parser.add_argument("--entry", required=True, help="package.module:function or /path/file.py:function")
    return parser.parse_args()


def _supervisor_is_gone() -> bool:
    """Whether the supervisor died before the kernel was told to end us with our parent."""
    pid, _, start = os.environ.get(records.SUPERVISOR_VARIABLE, "").partition(":")
    return bool(pid) and not processes.is_alive(int(pid), int(start))


def _identity(env: Any) -> tuple[int, int, int]:
    """Rank, local rank and world size, from the variables that the engine says its launcher sets."""
    names = env.get(records.RANK_VARIABLES_VARIABLE)
    if not names:
        return 0, 0, 1
    rank, local_rank, world_size = (int(env[name]) for name in names.split(","))
    return rank, local_rank, world_size


def _redirect_output(path: Path) -> None:
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)


def _run_scheduler(host_dir: Path) -> NoReturn:
    """Be the scheduler that msrun starts beside its ranks: ``init`` serves them and returns when they are done.

    Its failure is recorded because msrun looks at its scheduler only once all ranks have ended, and they wait for it.
    """
    try:
        mindspore = importlib.import_module("mindspore")
        mindspore.set_device("CPU")
        importlib.import_module("mindspore.communication").init()
    except BaseException as error:
        records.write(host_dir / records.SCHEDULER_FAILED, {"message": _message(error), **records.now()})
        traceback.print_exc()
        _exit(1)
    _exit(0)


# --- the child: the rank itself


def _run_rank(entry: str, context: dict[str, Any], files: records.RankFiles, shim: int, mask: Any) -> NoReturn:
    processes.die_with_parent()
    if os.getppid() != shim:
        os._exit(1)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    rank = context["rank"]
    pid = os.getpid()
    try:
        faulthandler.enable()
        # Before the started record, which tells the supervisor that the signal no longer ends the process.
        stacks = open(files.stacks, "wb", buffering=0)  # noqa: SIM115 (lives as long as the rank)
        faulthandler.register(signal.SIGUSR2, file=stacks, all_threads=True)
        records.write(files.started, _started(rank, context["local_rank"], shim))
        _set_affinity(context["local_rank"])
        _load_package()
        function = _load_entry(entry)
        teardown = function(importlib.import_module("pytest_flagperf.launch.context").RankContext(**context))
        if teardown is not None and not callable(teardown):
            raise TypeError(f"{entry} returned {type(teardown).__name__}: expected None or a function for teardown")
        if os.getpid() != pid:  # a process that the worker forked and let return; it does not speak for the rank
            _exit(0)
        records.write(files.outcome, _record(rank, "ok", exit_code=0))
    except BaseException as error:
        outcome = _failure(rank, error)
        if os.getpid() == pid:
            records.write(files.outcome, outcome)
        traceback.print_exc()
        _exit(outcome["exit_code"] or 1)
    _tear_down(teardown)
    # Not sys.exit: tearing the interpreter down ended about 1 in 15 good gloo jobs with SIGABRT.
    _exit(0)


def _started(rank: int, local_rank: int, shim: int) -> records.Record:
    shim_stat, stat = processes.read_stat(shim), processes.read_stat(os.getpid())
    return {
        "rank": rank,
        "local_rank": local_rank,
        "shim_pid": shim,
        "shim_start": shim_stat.start if shim_stat else None,
        "pid": os.getpid(),
        "pid_start": stat.start if stat else None,
        **records.now(),
    }


def _set_affinity(local_rank: int) -> None:
    """Bind the rank to its CPUs: the variable holds a JSON list of CPU lists, one for each local rank."""
    text = os.environ.get(records.AFFINITY_VARIABLE)
    if text:
        os.sched_setaffinity(0, json.loads(text)[local_rank])


def _load_package() -> None:
    """Load the real package from where this file lies.

    Its parent directory stays off the path: it may be the site-packages of another interpreter, full of modules
    that this one must not find.
    """
    path = os.path.join(_PACKAGE, "__init__.py")
    for name in [name for name in sys.modules if name.partition(".")[0] == "pytest_flagperf"]:
        del sys.modules[name]
    spec = importlib.util.spec_from_file_location("pytest_flagperf", path, submodule_search_locations=[_PACKAGE])
    _execute("pytest_flagperf", spec)


def _load_entry(entry: str) -> Entry:
    """The function that ``package.module:function`` or ``/path/file.py:function`` names."""
    module_name, _, function_name = entry.rpartition(":")
    if module_name.endswith(".py"):
        name = os.path.splitext(os.path.basename(module_name))[0]
        module = _execute(name, importlib.util.spec_from_file_location(name, module_name))
    else:
        module = importlib.import_module(module_name)
    function: Entry = getattr(module, function_name)
    return function


def _execute(name: str, spec: Any) -> types.ModuleType:
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _record(rank: int, state: str, exit_code: int | None = None, signal_name: str | None = None) -> records.Record:
    return {"rank": rank, "state": state, "exit_code": exit_code, "signal": signal_name, **records.now()}


def _failure(rank: int, error: BaseException) -> records.Record:
    if isinstance(error, SystemExit):
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
        outcome = _record(rank, "exit", exit_code=code & 0xFF)
    else:
        outcome = _record(rank, "exception", exit_code=1)
    outcome["exception"] = {"type": type(error).__name__, "message": _message(error)}
    outcome["traceback"] = "".join(traceback.format_exception(type(error), error, error.__traceback__))[
        -_TRACEBACK_LIMIT:
    ]
    return outcome


def _message(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as failure:
        return f"(its message cannot be read: {type(failure).__name__})"


def _tear_down(teardown: Callable[[], object] | None) -> None:
    """The measurement is complete and on disk: what fails now is worth a line in the log and no more."""
    if teardown is None:
        return
    try:
        teardown()
    except BaseException:
        traceback.print_exc()


def _exit(code: int) -> NoReturn:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):  # closed by the worker, or the disk is full: nowhere left to say so
            continue
    os._exit(code)


# --- the parent: waits, and writes down what the child no longer can


def _wait(child: int, rank: int, files: records.RankFiles) -> int:
    """Wait for the rank, pass stop signals on to it, complete its record. Returns the exit code for the launcher."""
    stop: records.Record | None = None
    while True:
        signum = signal.sigwait(_STOP_SIGNALS | {signal.SIGCHLD})
        if signum != signal.SIGCHLD:
            stop = stop or {"signal": signal.Signals(signum).name, **records.now()}
            processes.send_signal(child, signum)
            continue
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            break
    outcome = records.read(files.outcome) or _silent_end(rank, status)
    if stop is not None and _ended_by(stop, outcome):
        outcome.update(state="stopped", signal=stop["signal"])
    gone = records.now()
    outcome["exit_time"], outcome["exit_monotonic_ns"] = gone["time"], gone["monotonic_ns"]
    outcome["signal_at_exit"] = _signal_name(status)
    records.write(files.outcome, outcome)
    return _launcher_code(outcome)


def _ended_by(stop: records.Record, outcome: records.Record) -> bool:
    """Whether the rank ended because it was told to, so that nobody takes its end for the cause of anything."""
    if outcome["state"] == "ok" or outcome["monotonic_ns"] < stop["monotonic_ns"]:
        return False
    return bool(outcome["state"] != "exception" or outcome["exception"]["type"] == "KeyboardInterrupt")


def _silent_end(rank: int, status: int) -> records.Record:
    """The record of a rank that left none: ended by a signal, or by ``os._exit`` behind everybody's back."""
    name = _signal_name(status)
    if name is not None:
        return _record(rank, "signal", signal_name=name)
    return _record(rank, "exit", exit_code=os.WEXITSTATUS(status))


def _signal_name(status: int) -> str | None:
    if not os.WIFSIGNALED(status):
        return None
    number = os.WTERMSIG(status)
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"


def _launcher_code(outcome: records.Record) -> int:
    if outcome["state"] == "ok":
        return 0
    if outcome["state"] in ("exception", "exit"):
        return outcome["exit_code"] or 1
    return 1


if __name__ == "__main__":
    main()
