"""What stands beside FlagPerf's configurations and has no place in an overlay: code, variables, images, monitors."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from pytest_flagperf.importing.findings import NotTaken
from pytest_flagperf.importing.findings import shown
from pytest_flagperf.importing.source import text_of


_VARIABLE = re.compile(r"(?:export\s+)?([A-Za-z_]\w*)=.*")
# Below training/<vendor>, and below <vendor> of the other sections; no deeper, where compiled chips' files lie.
_IMAGES = ("docker_image/**/", "*/")


def of_vendor(directory: Path, *, known: bool) -> Iterator[NotTaken]:
    """Images, what is installed into them, and the monitor. ``known`` says whether ours has a file of this vendor."""
    for path in _inside(directory, "Dockerfile"):
        reason = "no image is built during a run: build it yourself and give it with --container IMAGE"
        yield NotTaken(path, 0, path.name, reason)
    for path in _inside(directory, "*_install.sh"):
        reason = "nothing is installed during a run: install it where the framework is installed, or in the image"
        yield NotTaken(path, 0, path.name, reason)
    for path in sorted(directory.glob("*_monitor.py")):
        if known:
            reason = "devices are asked as [[probe]] of vendor.toml says, during every round"
        else:
            reason = "ours has no such vendor: how its devices are asked is said under [[probe]] of a vendor.toml"
        yield NotTaken(path, 0, path.name, reason, needed=not known)
    for path in sorted(directory.glob("*_analysis.py")):
        yield NotTaken(path, 0, path.name, "reads the log of FlagPerf's monitor", needed=False)


def _inside(directory: Path, name: str) -> list[Path]:
    return sorted({path for pattern in _IMAGES for path in directory.glob(pattern + name) if path.is_file()})


def of_case(directory: Path) -> list[NotTaken]:
    """What stands beside a case's configurations: variables, requirements and code of the vendor's."""
    found = _variables(directory / "config" / "environment_variables.sh")
    requirements = directory / "config" / "requirements.txt"
    if requirements.is_file() and requirements.stat().st_size:
        reason = "nothing is installed during a run: install them where the framework is installed"
        found.append(NotTaken(requirements, 0, requirements.name, reason))
    for name, reason in (
        ("extern", "is code in place of FlagPerf's; code of one's own is a workload of the open division"),
        ("csrc", "is code to compile: install it as a package where the framework is installed"),
    ):
        folder = directory / name
        if folder.is_dir() and any(path.stat().st_size for path in folder.rglob("*") if path.is_file()):
            found.append(NotTaken(folder, 0, f"{name}/", reason))
    for name in ("training_adapter.sh", "net.sh", "ds_config.json"):
        for path in (directory / "config" / name, directory / name):
            if path.is_file():
                found.append(NotTaken(path, 0, name, "belongs to a launcher that ours does not have"))
    return found


def _variables(path: Path) -> list[NotTaken]:
    if not path.is_file():
        return []
    try:
        lines = text_of(path).split("\n")
    except ValueError as error:
        return [NotTaken(path, 0, path.name, str(error))]
    found = []
    for number, line in enumerate(lines, 1):
        text = line.strip()
        variable = _VARIABLE.fullmatch(text)
        if variable:
            reason = "export it before pytest, or set it in vendor.toml where it is right for every model: environment"
            found.append(NotTaken(path, number, variable[1], reason))
        elif text and not text.startswith("#"):
            found.append(NotTaken(path, number, shown(text), "is a shell command; none is run"))
    return found
