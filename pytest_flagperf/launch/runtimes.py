"""Container runtimes on this host: which is there, whether it has an image, and the end of a container.

Every question to a runtime is bounded: its daemon may hang.
"""

from __future__ import annotations

import grp
import json
import os
import re
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pytest_flagperf.errors import ConfigurationError
from pytest_flagperf.errors import LaunchFailed
from pytest_flagperf.launch import confinement
from pytest_flagperf.launch import containers
from pytest_flagperf.launch.confinement import Described
from pytest_flagperf.launch.containers import Contained
from pytest_flagperf.launch.containers import Container
from pytest_flagperf.launch.containers import Image
from pytest_flagperf.launch.containers import Runtime


RUNTIMES = ("docker", "podman", "apptainer")

_ANSWER = 30.0  # seconds in which a runtime answers a question
_REMOVAL = 15.0
_TICK = 0.05
_NOT_THERE = re.compile(r"no such image|image not known|failed to find image|unable to find", re.IGNORECASE)


def find(name: str | None) -> str:
    """The name of the runtime asked for, or of the first that is there. Raises ``ConfigurationError`` without one."""
    for one in RUNTIMES if name is None else [name]:
        if shutil.which(one):
            return one
    if name is not None:
        raise ConfigurationError(f"--container-runtime: {name} is not on PATH")
    raise ConfigurationError(f"--container: none of {', '.join(RUNTIMES)} is on PATH")


def check_name(image: str) -> str:
    """``image``, if it can be the name of one. Raises ``ConfigurationError``."""
    if not image or image.startswith("-") or any(character.isspace() for character in image):
        raise ConfigurationError(f"--container: {image!r} is not the name of an image")
    return image


def prepare(
    runtime: str,
    image: str,
    described: Described,
    devices: Sequence[int],
    readable: Iterable[Path],
    where: str = "the vendor file",
) -> Container:
    """Ask the runtime for the image and say what its containers need for ``devices``, the leased ones.

    ``where`` is the file that describes the containers, for messages. Raises ``ConfigurationError`` for an image that
    is not on this host, for a runtime that is not, and for what would give the container more of the host than its
    devices; ``LaunchFailed`` for a runtime that does not answer.
    """
    confinement.check(described, where)
    options = confinement.options(runtime, containers.expand(described.options.get(runtime, ()), devices), where)
    nodes = containers.expand(described.devices, devices)
    mounts = [path for path in map(Path, containers.expand(described.mounts, devices)) if path.exists()]
    named = [option.partition("=")[2] for option in options if option.startswith("--device=")]
    confinement.check_host(mounts, [*nodes, *named], where)
    found = _runtime(runtime, keep_groups=bool(described.groups))
    return Container(
        runtime=found,
        image=_image(found, image),
        readable=(*readable, *mounts),
        devices=nodes,
        groups=_group_ids(described.groups),
        options=options,
    )


def _group_ids(names: Iterable[str]) -> tuple[str, ...]:
    """The host's numbers of the groups, because device nodes carry those; a group the host lacks owns no node."""
    found = []
    for name in names:
        try:
            found.append(str(grp.getgrnam(name).gr_gid))
        except KeyError:
            continue
    return tuple(found)


def _runtime(name: str, *, keep_groups: bool) -> Runtime:
    executable = shutil.which(find(name)) or name
    if name == "apptainer":
        return Runtime(name, executable)
    caller = f"{os.getuid()}:{os.getgid()}"
    # A distribution's docker command may be Podman's.
    if name == "podman" or "podman" in _ask(executable, "--version").casefold():
        user = (f"--user={caller}",)
        if os.geteuid() != 0:
            # Rootless: without keep-id the caller is another user in there; its groups are kept or lost as a whole.
            user = ("--userns=keep-id", *user, *(("--group-add=keep-groups",) if keep_groups else ()))
        return Runtime(name, executable, user, own=("--http-proxy=false",))
    security = _ask(executable, "info", "--format={{json .SecurityOptions}}")
    # In a rootless daemon's containers root is the user whose daemon it is.
    return Runtime(name, executable, ("--user=0:0",) if "name=rootless" in security else (f"--user={caller}",))


def _image(runtime: Runtime, image: str) -> Image:
    if runtime.is_apptainer:
        path = Path(image)
        if not path.exists():
            raise ConfigurationError(
                f"--container: {image} is not there. Images are not fetched while a case runs: "
                f"apptainer pull {shlex.quote(image)} docker://IMAGE"
            )
        return Image(str(path.absolute()))
    try:
        text = _ask(runtime.executable, "image", "inspect", image)
    except _CommandFailed as refused:
        if not _NOT_THERE.search(refused.said):
            raise
        raise ConfigurationError(
            f"--container: {runtime.name} has no image {image} on this host. Images are not fetched while a case runs: "
            f"{runtime.name} pull {shlex.quote(image)}"
        ) from None
    try:
        return _described(image, json.loads(text)[0])
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise LaunchFailed(
            f"{runtime.name} image inspect {image} printed what cannot be read: {text[:200]!r}"
        ) from error


def _described(name: str, found: Mapping[str, Any]) -> Image:
    config = found.get("Config") or {}
    path = next((line[5:] for line in config.get("Env") or () if line.startswith("PATH=")), "")
    digests = found.get("RepoDigests") or [""]
    return Image(name, str(found["Id"]), digests[0], path)


def remove(container: Container, job: Contained) -> str:
    """End and remove the job's container, if it is still there. Returns why that failed; empty if it is gone."""
    if container.runtime.is_apptainer:
        return ""  # its processes are the host's and found as such
    said = ""
    executable = container.runtime.executable
    until = time.monotonic() + _REMOVAL
    while time.monotonic() < until:
        try:
            if not _ask(
                executable, "ps", "--all", "--quiet", f"--filter=label={containers.LABEL}={job.marker}"
            ).strip():
                return ""
        except LaunchFailed as error:
            return f"the container may still be there ({error}): {container.runtime.name} rm --force {job.name}"
        for arguments in (("kill", job.name), ("rm", "--force", job.name)):
            try:
                _ask(executable, *arguments)
            except LaunchFailed as error:  # it may just have ended by itself
                said = str(error)
        time.sleep(_TICK)
    return f"the container is still there ({said}): {container.runtime.name} rm --force {job.name}"


class _CommandFailed(LaunchFailed):
    """The runtime answered, with an error."""

    def __init__(self, message: str, said: str) -> None:
        super().__init__(message)
        self.said = said


def _ask(executable: str, *arguments: str) -> str:
    """What the runtime's client prints. Raises ``LaunchFailed`` for one that fails or does not answer in time."""
    shown = shlex.join([os.path.basename(executable), *arguments])
    # Files, not pipes: what the client leaves running would keep a pipe open.
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        try:
            done = subprocess.run(
                [executable, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=errors,
                timeout=_ANSWER,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise LaunchFailed(f"`{shown}` did not end within {_ANSWER:g} s: does its daemon answer?") from None
        except OSError as error:
            raise LaunchFailed(f"`{shown}` cannot be run: {error}") from error
        errors.seek(0)
        said = errors.read(20_000).decode("utf-8", errors="replace").strip()
        if done.returncode != 0:
            another = "; another runtime is chosen with --container-runtime" if "daemon" in said else ""
            raise _CommandFailed(f"`{shown}` failed with exit code {done.returncode}: {said}{another}", said)
        output.seek(0)
        return output.read(4_000_000).decode("utf-8", errors="replace")
