"""Framework launchers as data: how each is started on one host, and how it is stopped.

Pure functions: nothing is run and no file is written here.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field
from pathlib import Path

from pytest_flagperf.errors import ConfigurationError


@dataclass(frozen=True)
class LaunchRequest:
    """What to start on one host.

    ``nproc`` ranks run on each of ``nnodes`` hosts; this host is number ``node_rank``. ``rank_argv`` is the rank's
    script and its arguments, without the interpreter: the launchers add that themselves. ``path`` is the job's
    ``PATH``.
    """

    python: str
    nproc: int
    log_dir: Path
    rank_argv: tuple[str, ...]
    nnodes: int = 1
    node_rank: int = 0
    master_addr: str = "127.0.0.1"
    master_port: int = 0
    local_addr: str = "127.0.0.1"
    path: str = ""


@dataclass(frozen=True)
class LaunchCommand:
    """``argv``, the variables to add to the job's environment, and the signal that ends the launcher cleanly."""

    argv: tuple[str, ...]
    env: Mapping[str, str]
    stop_signal: str


@dataclass(frozen=True)
class Engine:
    """One launcher. A vendor adds one with :func:`register`.

    ``rank_variables`` names the environment variables in which the launcher tells a rank its rank, local rank and
    world size; none for a job of one process. ``stop_signal`` is the one on which the launcher ends its ranks.
    ``discard`` are patterns of files in its log directory that must not stay there.
    """

    name: str
    argv: Callable[[LaunchRequest], list[str]]
    rank_variables: tuple[str, str, str] | None = None
    env: Callable[[LaunchRequest], dict[str, str]] = field(default=lambda request: {})
    stop_signal: str = "SIGTERM"
    discard: tuple[str, ...] = ()

    @property
    def needs_port(self) -> bool:
        """Whether the ranks meet at a port; a single process meets nobody."""
        return self.rank_variables is not None

    def command(self, request: LaunchRequest) -> LaunchCommand:
        """The command for ``request``. Raises :class:`ConfigurationError` if the engine cannot carry it out."""
        return LaunchCommand(tuple(self.argv(request)), self.env(request), self.stop_signal)


def _single(request: LaunchRequest) -> list[str]:
    if request.nproc * request.nnodes != 1:
        raise ConfigurationError(f"engine 'single' starts 1 process, not {request.nnodes}x{request.nproc}")
    return [request.python, "-u", *request.rank_argv]


def _torchrun(request: LaunchRequest) -> list[str]:
    # Static rendezvous keeps our order of ranks and needs no name service; c10d sorts hosts itself and stumbles over
    # host names. Without --log-dir torchrun leaves a directory in TMPDIR. The shim ends its rank by itself, so
    # the 30 s of the default shutdown time-out would be waited for a rank that ignores SIGTERM, and for nothing else.
    return [
        *(request.python, "-m", "torch.distributed.run"),
        *(f"--nnodes={request.nnodes}", f"--node-rank={request.node_rank}", f"--nproc-per-node={request.nproc}"),
        *(f"--master-addr={request.master_addr}", f"--master-port={request.master_port}"),
        *(f"--local-addr={request.local_addr}", f"--log-dir={request.log_dir}"),
        *("--max-restarts=0", "--shutdown-timeout=2"),
        *request.rank_argv,
    ]


def _paddle(request: LaunchRequest) -> list[str]:
    # --host keeps the launcher from resolving its own host name, which may not resolve or be on another network.
    # On one host --ips with --start_port puts the ranks' store at our port; without them it takes a random one.
    meeting = [f"--ips={request.master_addr}", f"--start_port={request.master_port}"]
    if request.nnodes > 1:
        meeting = [
            f"--master={request.master_addr}:{request.master_port}",
            f"--nnodes={request.nnodes}",
            f"--rank={request.node_rank}",
        ]
    return [
        *(request.python, "-m", "paddle.distributed.launch"),
        *(f"--nproc_per_node={request.nproc}", f"--host={request.local_addr}", *meeting),
        *(f"--log_dir={request.log_dir}", "--max_restart=0", "--enable_gpu_log=False"),
        *request.rank_argv,
    ]


def _msrun(request: LaunchRequest) -> list[str]:
    # Without --join it returns after seconds and leaves the job running. A tail process for each rank's log is of no
    # use here, and the only way to have none is to ask for that of a rank which does not exist.
    return [
        *(request.python, "-m", "mindspore.parallel.cluster.run"),
        *(f"--worker_num={request.nnodes * request.nproc}", f"--local_worker_num={request.nproc}"),
        *(f"--node_rank={request.node_rank}", f"--master_addr={request.master_addr}"),
        *(f"--master_port={request.master_port}", f"--log_dir={request.log_dir}"),
        *("--join=True", "--cluster_time_out=300", f"--tail_worker_log={request.nnodes * request.nproc}"),
        *(_name_on_path(request.python), "-u", *request.rank_argv),
    ]


def _msrun_env(request: LaunchRequest) -> dict[str, str]:
    directory = os.path.dirname(request.python)
    if not directory:
        return {}
    return {"PATH": f"{directory}{os.pathsep}{request.path}" if request.path else directory}


def _name_on_path(python: str) -> str:
    """The name under which msrun, which takes only ``python`` and ``python3``, finds this very interpreter."""
    names = ("python", "python3")
    if os.path.basename(python) in names and not os.path.exists(python):
        return os.path.basename(python)  # of a container's image: nobody can look from here
    for name in names:
        candidate = os.path.join(os.path.dirname(python), name)
        if os.path.exists(candidate) and os.path.samefile(candidate, python):
            return name
    raise ConfigurationError(
        f"msrun starts its ranks as 'python' or 'python3' from PATH, and {os.path.dirname(python) or '.'} has neither "
        f"as another name of {python}: add such a link, or give another interpreter"
    )


_ENGINES: dict[str, Engine] = {}


def register(engine: Engine) -> None:
    """Add an engine, or replace the one of the same name."""
    _ENGINES[engine.name] = engine


register(Engine("single", _single))
register(Engine("torchrun", _torchrun, ("RANK", "LOCAL_RANK", "WORLD_SIZE")))
register(
    Engine(
        "paddle",
        _paddle,
        ("PADDLE_TRAINER_ID", "PADDLE_LOCAL_RANK", "PADDLE_TRAINERS_NUM"),
        # It writes every rank's whole environment, secrets and all, beside its logs.
        discard=("envlog.*", "backup_env.*.json", "default.*.log"),
    )
)
# SIGTERM ends msrun at once and leaves its scheduler and ranks running; SIGINT ends them too.
register(Engine("msrun", _msrun, ("RANK_ID", "DEVICE_ID", "MS_WORKER_NUM"), _msrun_env, stop_signal="SIGINT"))

_FRAMEWORKS = {"pytorch": "torchrun", "paddle": "paddle", "mindspore": "msrun"}


def engine(name: str) -> Engine:
    """The engine of that name. Raises :class:`ConfigurationError` for a name nobody registered."""
    try:
        return _ENGINES[name]
    except KeyError:
        raise ConfigurationError(f"unknown engine {name!r}: known are {', '.join(sorted(_ENGINES))}") from None


def engine_for(framework: str, world_size: int) -> str:
    """The name of the engine that starts ``framework``; one process needs no launcher.

    Raises :class:`ConfigurationError` for a framework that has none.
    """
    if world_size == 1:
        return "single"
    try:
        return _FRAMEWORKS[framework]
    except KeyError:
        raise ConfigurationError(
            f"no launcher for framework {framework!r}: known are {', '.join(_FRAMEWORKS)}"
        ) from None


_LAUNCHER_PREFIXES = ("TORCHELASTIC_", "PADDLE_TRAINER", "PADDLE_GLOBAL_", "PADDLE_LOCAL_", "FLAGPERF_RANK_")
_LAUNCHER_NAMES = frozenset(
    {
        *("RANK", "LOCAL_RANK", "GROUP_RANK", "ROLE_RANK", "ROLE_NAME"),
        *("WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_WORLD_SIZE", "ROLE_WORLD_SIZE"),
        *("MASTER_ADDR", "MASTER_PORT", "POD_IP", "POD_NAME", "DISTRIBUTED_TRAINER_ENDPOINTS"),
        *("PADDLE_MASTER", "PADDLE_NNODES", "PADDLE_NPROC_PER_NODE", "PADDLE_RANK", "PADDLE_RANK_IN_NODE"),
        *("PADDLE_CURRENT_ENDPOINT", "PADDLE_JOB_ID", "PADDLE_LOG_DIR", "PADDLE_IPS", "PADDLE_START_PORT"),
        *("MS_ROLE", "MS_WORKER_NUM", "MS_SCHED_HOST", "MS_SCHED_PORT", "MS_NODE_ID", "RANK_ID", "RANK_SIZE"),
    }
)


def without_launcher_variables(env: Mapping[str, str]) -> dict[str, str]:
    """``env`` without what another launcher may have left in it, which would make ours part of that job."""
    return {
        name: value
        for name, value in env.items()
        if name not in _LAUNCHER_NAMES and not name.startswith(_LAUNCHER_PREFIXES)
    }
