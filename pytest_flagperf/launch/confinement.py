"""What a vendor file may ask of a container: its devices and what they need, and nothing of the rest of the host.

A list of what is allowed, because one of what is forbidden is never complete: ``--network=host --pid=host
--cap-add=ALL --volume=/:/host`` is all of ``--privileged`` without the word.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from pathlib import Path
from pathlib import PurePosixPath
from typing import Protocol

from pytest_flagperf.errors import ConfigurationError


class Described(Protocol):
    """What a vendor file says of containers: :class:`pytest_flagperf.devices.vendor.Container`."""

    @property
    def devices(self) -> list[str]: ...
    @property
    def mounts(self) -> list[str]: ...
    @property
    def groups(self) -> list[str]: ...
    @property
    def environment(self) -> dict[str, str]: ...
    @property
    def options(self) -> dict[str, list[str]]: ...


# Threads near their device, and memory that a device reads; neither reaches the host.
CAPABILITIES = ("sys_nice", "ipc_lock")

_ENVIRONMENT = re.compile(r"[A-Za-z_]\w*=.*")
_NODE = re.compile(r"(/dev/[\w./-]+)(:/dev/[\w./-]+)?(:[rwm]{1,3})?")
# Container Device Interface: vendor/class=device.
_CDI = re.compile(r"[\w.-]+/[\w.-]+=[\w.:-]+")

# Option → what its value may be; without a pattern it has none.
_ENGINE: dict[str, re.Pattern[str] | None] = {
    "--cap-add": re.compile(rf"(?:cap_)?(?:{'|'.join(CAPABILITIES)})", re.IGNORECASE),
    "--device": re.compile(rf"{_NODE.pattern}|{_CDI.pattern}"),
    # A name alone would hand on a variable of the host.
    "--env": _ENVIRONMENT,
    "--gpus": re.compile(r'[\w",=:.-]+'),
    "--group-add": re.compile(r"[\w-]+"),
    "--pids-limit": re.compile(r"-?\d+"),
    # One that the host's administrator registered; a path would be a program of anybody's, run on the host.
    "--runtime": re.compile(r"\w[\w.-]*"),
    "--shm-size": re.compile(r"\d+[bkmg]?", re.IGNORECASE),
    "--ulimit": re.compile(r"[a-z]+=-?\d+(?::-?\d+)?"),
}
_ALLOWED: Mapping[str, Mapping[str, re.Pattern[str] | None]] = {
    "docker": _ENGINE,
    "podman": _ENGINE,
    "apptainer": {"--nv": None, "--rocm": None, "--env": _ENVIRONMENT},
}
_PATHS = "paths of the host go under container.mounts, read-only"
_NETWORK = "ranks of one host meet on the loopback, and the host's network is open to everything that runs on it"
_REASONS = {
    "--privileged": "a container gets the leased devices, not the whole host: name them under container.devices",
    "--cap-add": f"of the capabilities there are {' and '.join(CAPABILITIES)}",
    "--env": "it is written --env=NAME=VALUE, so that no variable of the host is handed on",
    "--ipc": "shared memory is the container's own, and takes half the host's; --shm-size makes it another size",
    "--pid": "the container would see and end the host's processes",
    "--net": _NETWORK,
    "--network": _NETWORK,
    "--user": "the user of a container is the caller, so that results are the caller's",
    "--runtime": "it is the name of a runtime that the host has registered, no path",
    **dict.fromkeys(("--bind", "--mount", "--volume", "-B", "-v"), _PATHS),
}

# Neither these nor what is below them.
_CLOSED = tuple(
    map(
        PurePosixPath,
        (
            *("/boot", "/dev", "/proc", "/run", "/sys", "/var/run"),
            *("/var/lib/containerd", "/var/lib/containers", "/var/lib/docker", "/var/lib/kubelet", "/var/spool"),
            *("/etc/docker", "/etc/gshadow", "/etc/kubernetes", "/etc/pki", "/etc/shadow", "/etc/ssh"),
            *("/etc/ssl/private", "/etc/sudoers", "/etc/sudoers.d"),
        ),
    )
)
_HOMES = (PurePosixPath("/home"), PurePosixPath("/root"))
_SECRETS = {".aws", ".azure", ".config", ".docker", ".gnupg", ".kube", ".netrc", ".ssh", ".git-credentials"}
_OF_THE_HOST = re.compile(r"/dev/(?:mem|kmem|port|nvram|kvm|fuse|cpu|mapper|disk|block|shm|vfio|net)(?:/.*)?")


def check(described: Described, where: str) -> None:
    """Refuse what a vendor file may not give; ``where`` is the file. What depends on the host is not looked at.

    Raises ``ConfigurationError`` that names the file, the key and the reason.
    """
    for runtime, entries in described.options.items():
        if runtime not in _ALLOWED:
            raise ConfigurationError(f"{where}: container.options: unknown {runtime!r}; known: {', '.join(_ALLOWED)}")
        # Two devices: an entry that is repeated has to be whole.
        repeated = [entry.replace("{index}", str(n)) for entry in entries for n in range(1 + ("{index}" in entry))]
        options(runtime, [entry.replace("{indices}", "0,1") for entry in repeated], where)
    for entry in described.devices:
        _check_device(entry.replace("{index}", "0").replace("{indices}", "0"), f"{where}: container.devices")
    for entry in described.mounts:
        _check_mount(entry, f"{where}: container.mounts")


def options(runtime: str, entries: Sequence[str], where: str) -> tuple[str, ...]:
    """The options of a runtime, each joined with its value by ``=``. Raises ``ConfigurationError`` as :func:`check`."""
    key, allowed = f"{where}: container.options.{runtime}", _ALLOWED[runtime]
    found: list[str] = []
    rest = iter(entries)
    for entry in rest:
        name, joined, value = entry.partition("=")
        if name not in allowed:
            raise _refused(key, entry, _REASONS.get(name, f"a vendor file may give {', '.join(allowed)}"))
        pattern = allowed[name]
        if pattern is None and not joined:
            found.append(name)
            continue
        value = value if joined else next(rest, "")
        if pattern is None or not pattern.fullmatch(value):
            raise _refused(key, f"{name}={value}", _REASONS.get(name, "this is no value that it may have"))
        if name == "--device":
            _check_device(value, key, "--device=")
        found.append(f"{name}={value}")
    return tuple(found)


def check_host(mounts: Iterable[Path], devices: Iterable[str], where: str) -> None:
    """Refuse mounts and devices for what they are on this host: where links lead, sockets, disks.

    Raises ``ConfigurationError`` as :func:`check`.
    """
    for path in mounts:
        key = f"{where}: container.mounts"
        _check_mount(str(path), key)
        _check_mount(str(path.resolve()), key, f"{path} leads to ")
        if path.is_socket():
            raise _refused(key, str(path), "through a socket a container commands a service of the host")
    for device in devices:
        node = Path(device.partition(":")[0])
        if node.is_absolute() and node.exists() and stat.S_ISBLK(node.stat().st_mode):
            raise _refused(f"{where}: container.devices", device, "it is a disk of the host")


def _check_mount(path: str, key: str, leads: str = "") -> None:
    place = PurePosixPath(path)
    if not place.is_absolute() or ".." in place.parts:
        raise _refused(key, path, "a mount is an absolute path without '..'")
    # POSIX keeps two slashes at the beginning, and pathlib with it.
    place = PurePosixPath("/", *place.parts[1:])
    for closed in (*_CLOSED, *_HOMES):
        if closed.is_relative_to(place):
            why = "" if closed == place else f", and {closed} is in it"
            raise _refused(key, leads + path, f"it is the host's own{why}: name the directory that the driver needs")
    if any(place.is_relative_to(closed) for closed in _CLOSED):
        raise _refused(key, leads + path, "it is the host's own: device nodes go under container.devices")
    if (place.parent in _HOMES[:1]) or _SECRETS & set(place.parts):
        raise _refused(key, leads + path, "it is of a user of the host: name the directory that the driver needs")


def _check_device(device: str, key: str, option: str = "") -> None:
    if _CDI.fullmatch(device):
        return
    what, match = option + device, _NODE.fullmatch(device)
    if match is None or ".." in match[1].split("/") or PurePosixPath(match[1]) == PurePosixPath("/dev"):
        raise _refused(key, what, "a device is /dev/NODE, or VENDOR/CLASS=NAME of the Container Device Interface")
    if _OF_THE_HOST.fullmatch(str(PurePosixPath(match[1]))):
        raise _refused(key, what, "it is no device of a vendor's but memory, storage or network of the host")


def _refused(key: str, what: str, why: str) -> ConfigurationError:
    return ConfigurationError(f"{key}: {what} is refused: {why}")
