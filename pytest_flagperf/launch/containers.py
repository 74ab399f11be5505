"""Jobs in a container: what goes into it, and the command line of the runtime's client.

The supervisor is the container's command. What it guarantees on the host it guarantees in there: its standard input,
which the runtime's client hands through, is the lifeline, and a heartbeat on it tells of a client or a daemon that no
longer hands anything through. With the supervisor, the first process of the container, all others end.

Docker, Podman and Apptainer; the first two take the same command line. Nothing is run here: see ``runtimes.py``.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pytest_flagperf.errors import ConfigurationError
from pytest_flagperf.launch.confinement import Described


PYTHON = "python3"  # of the image, where nobody names another
PACKAGE = "/opt/flagperf/pytest_flagperf"  # in the container: on the host it may lie among another Python's packages
HEARTBEAT = 60.0  # seconds without one after which the supervisor ends the job
LABEL = "flagperf.job"
START_LIMIT = 180.0  # seconds from the client's start to the supervisor's: a first start may unpack layers

_OURS = Path(__file__).resolve().parent.parent

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# The runtime's own client reads these, so a job's value of them cannot be handed on through its environment.
_OF_THE_CLIENT = re.compile(
    r"PATH|HOME|USER|LOGNAME|TMPDIR|(LD|XDG|GO|DBUS|DOCKER|CONTAINERS?|PODMAN|STORAGE|APPTAINER|APPTAINERENV)_\w+"
)
# The interface of a host; a container without its network has none but the loopback.
_INTERFACE = re.compile(r"\w+_(IFNAME|IB_HCA)")


@dataclass(frozen=True)
class Runtime:
    """A runtime that answers on this host.

    ``user`` are the options by which a container's user is the caller, so that results belong to the caller.
    ``own`` are options that only this runtime has.
    """

    name: str
    executable: str
    user: tuple[str, ...] = ()
    own: tuple[str, ...] = ()

    @property
    def is_apptainer(self) -> bool:
        """Whether it starts plain processes: no daemon, no names, no storage of its own."""
        return self.name == "apptainer"


@dataclass(frozen=True)
class Image:
    """An image that is on this host. ``path`` is the ``PATH`` it sets; what the runtime does not say is empty."""

    name: str
    id: str = ""
    digest: str = ""
    path: str = ""


@dataclass(frozen=True)
class Container:
    """What the container of a job is made of, whatever the job.

    ``readable`` are paths mounted read-only where they are on the host. ``devices``, ``groups`` and ``options`` are the
    vendor's, for the leased devices.
    """

    runtime: Runtime
    image: Image
    readable: tuple[Path, ...] = ()
    devices: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    options: tuple[str, ...] = ()

    def record(self) -> dict[str, str]:
        """For ``case.json``: ``runtime``, ``image``, where known its ``id`` and ``digest``, and what is in force.

        ``options`` and ``mounts`` (read-only) are lists, quoted as for a shell. ``capabilities`` are those added to
        none, with commas; without any it is ``none``.
        """
        image = self.image
        known = {"id": image.id, "digest": image.digest}
        added = [option.partition("=")[2] for option in self.options if option.startswith("--cap-add=")]
        return {
            "runtime": self.runtime.name,
            "image": image.name,
            **{k: v for k, v in known.items() if v},
            "options": shlex.join((*_rules(self), *self.options)),
            "mounts": shlex.join(map(str, self.readable)),
            "capabilities": ",".join(added) or "none",
        }


@dataclass(frozen=True)
class Contained:
    """One job in a container. ``marker`` is in its name, its label and its environment.

    ``env`` is the whole environment of the job beside what the image sets.
    """

    marker: str
    host_dir: Path
    case_file: Path
    spec_file: Path
    python: str
    env: Mapping[str, str]

    @property
    def name(self) -> str:
        """The container's name."""
        return f"flagperf-{self.marker}"


# --- what goes in


def holds_only_leased(described: Described, runtime: str) -> bool:
    """Whether the vendor's entries pick devices: drivers then count those in the container from 0."""
    entries = [*described.devices, *described.options.get(runtime, ()), *described.environment.values()]
    return any("{index}" in entry or "{indices}" in entry for entry in entries)


def carried(environment: Mapping[str, str]) -> dict[str, str]:
    """Those variables of the host that mean the same in a container: no path of the host and no network interface."""
    return {
        name: value
        for name, value in environment.items()
        if _NAME.fullmatch(name)
        and not _OF_THE_CLIENT.fullmatch(name)
        and not _INTERFACE.fullmatch(name)
        and name != "PYTHONPATH"
        and not value.startswith(("/", "~"))
    }


def expand(entries: Iterable[str], devices: Sequence[int]) -> tuple[str, ...]:
    """A vendor's entries for ``devices``: those with ``{index}`` once for each of them, the others once."""
    indices = ",".join(map(str, devices))
    found: list[str] = []
    for entry in entries:
        each = [entry.replace("{index}", str(index)) for index in devices] if "{index}" in entry else [entry]
        found += [one.replace("{indices}", indices) for one in each]
    return tuple(found)


def expand_environment(described: Described, devices: Sequence[int]) -> dict[str, str]:
    """The vendor's variables for containers, for ``devices``."""
    indices = ",".join(map(str, devices))
    return {name: value.replace("{indices}", indices) for name, value in described.environment.items()}


# --- the command line


def argv(container: Container, job: Contained) -> list[str]:
    """The runtime's client, which runs the job's supervisor in a container until that ends.

    No value of a variable that came from the caller is in it: every user of the host can read command lines.
    Raises ``ConfigurationError`` for a path that cannot be mounted.
    """
    make = _apptainer_argv if container.runtime.is_apptainer else _engine_argv
    return [*make(container, job), "-I", f"{PACKAGE}/launch/supervisor.py", str(job.spec_file)]


def _engine_argv(container: Container, job: Contained) -> list[str]:
    named = [f"--env={name}" for name in sorted(job.env) if not _OF_THE_CLIENT.fullmatch(name)]
    valued = {"HOME": "/tmp", "USER": "flagperf", "LOGNAME": "flagperf"}  # noqa: S108 (in the container)
    valued.update((name, value) for name, value in job.env.items() if _OF_THE_CLIENT.fullmatch(name))
    return [
        *(container.runtime.executable, "run", "--rm", "--interactive", "--pull=never"),
        *(f"--name={job.name}", f"--label={LABEL}={job.marker}", f"--label=flagperf.directory={job.host_dir}"),
        *_rules(container),
        *(f"--mount={mount}" for mount in _mounts(container, job)),
        *named,
        *(f"--env={name}={value}" for name, value in sorted(valued.items())),
        f"--workdir={job.host_dir}",
        *container.options,
        # What an image runs first may print, ask, or start a shell that keeps signals to itself.
        f"--entrypoint={job.python}",
        container.image.name,
    ]


def _apptainer_argv(container: Container, job: Contained) -> list[str]:
    return [
        *(container.runtime.executable, "exec"),
        *_rules(container),
        *(f"--mount={mount}" for mount in _mounts(container, job)),
        f"--pwd={job.host_dir}",
        *container.options,
        *(container.image.name, job.python),
    ]


def _rules(container: Container) -> list[str]:
    """What any job's container may do and which devices it has; a vendor's options come on top."""
    if container.runtime.is_apptainer:
        nodes = [_mountable(device) for device in container.devices if device.startswith("/")]
        binds = (f"--mount=type=bind,src={node},dst={node}" for node in nodes)
        return ["--containall", "--no-privs", "--net", "--network=none", *binds]
    given = {option.partition("=")[0] for option in container.options}
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    # Sizes that a vendor may replace. The first is a limit, the kernel's own default: Docker's 64 MB end data loaders
    # and NCCL. Podman's 2048 are few threads for a host of 200 processors.
    sizes = (f"--shm-size={memory // 2}", "--pids-limit=-1")
    groups = () if "--group-add=keep-groups" in container.runtime.user else container.groups
    return [
        *("--cap-drop=ALL", "--security-opt=no-new-privileges"),
        # On a host with SELinux the container could not read the mounts, and relabelling the user's files is not ours.
        "--security-opt=label=disable",
        *container.runtime.user,
        *container.runtime.own,
        # Resolves without a network; the container's own name does not with Docker.
        *("--network=none", "--hostname=localhost", "--ipc=private"),
        *(size for size in sizes if size.partition("=")[0] not in given),
        *(f"--device={device}" for device in container.devices),
        *(f"--group-add={group}" for group in groups),
    ]


def _mounts(container: Container, job: Contained) -> list[str]:
    """The package, and everything else at its place on the host; what lies in another mount comes after it."""
    found = {str(path): (str(path), ",ro") for path in (*container.readable, job.case_file)}
    found[PACKAGE] = (str(_OURS), ",ro")
    found[str(job.host_dir)] = (str(job.host_dir), "")
    return [
        f"type=bind,src={_mountable(source)},dst={_mountable(target)}{mode}"
        for target, (source, mode) in sorted(found.items())
    ]


def _mountable(path: str) -> str:
    if ".." in path.split("/"):
        raise ConfigurationError(f"--container: {path!r} cannot be mounted at its place: write it without '..'")
    if any(character in path for character in ',"\n'):
        raise ConfigurationError(f"--container: {path!r} cannot be mounted: its name has a comma, a quote or a newline")
    return path


def client_environment(container: Container, job: Contained, host: Mapping[str, str]) -> dict[str, str]:
    """The environment of the runtime's client: the host's, and the values that it hands on to the job by name."""
    values = {name: value for name, value in job.env.items() if not _OF_THE_CLIENT.fullmatch(name)}
    if container.runtime.is_apptainer:
        return {**host, **values, **{f"APPTAINERENV_{name}": value for name, value in job.env.items()}}
    return {**host, **values}


def explain(container: Container, job: Contained, code: int) -> str:
    """What an exit code of the client means, beside what it said."""
    name = container.runtime.name
    if code < 0:
        return f"{name}'s client was killed"
    if code == 125 and not container.runtime.is_apptainer:
        return f"{name} itself failed, and not what ran in the container"
    if code in (126, 127):
        return (
            f"{job.python} cannot be run in the image {container.image.name}: name its interpreter with "
            "--python FRAMEWORK=PATH, where PATH is in the image"
        )
    return f"the job's supervisor failed with exit code {code} in the container; it needs Python 3.9 or later"
