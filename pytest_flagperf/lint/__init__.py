"""``flagperf lint``: what is wrong with a vendor's folder before anybody runs anything with it.

Every problem has a file, a line and a code. Codes that start with W are warnings.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
from pathlib import Path

from pytest_flagperf import suites
from pytest_flagperf.devices import vendor as vendors
from pytest_flagperf.importing import layout
from pytest_flagperf.lint import cases
from pytest_flagperf.lint import folder
from pytest_flagperf.lint import foreign
from pytest_flagperf.lint.problem import CODES
from pytest_flagperf.lint.problem import NothingToLint
from pytest_flagperf.lint.problem import Problem


__all__ = ["CODES", "NothingToLint", "Problem", "check"]


def check(paths: Sequence[Path] = (), suite_directories: Sequence[Path] = ()) -> list[Problem]:
    """The problems of vendor folders, or directories of them, in order of file and line.

    Without ``paths`` they are the vendors of the plugin and of installed packages. Overlays are checked against the
    cases of the plugin and of ``suite_directories``; the cases are checked too. Raises ``NothingToLint`` for a path
    that is neither a vendor's folder nor FlagPerf's.
    """
    found = [one for directory in (suites.bundled(), *suite_directories) for one in suites.load(directory)]
    known = {one.case.model: one.case for one in found if one.case is not None and one.case.kind == "training"}
    problems = list(cases.check(found))
    for path in paths or [*vendors.installed(), vendors.bundled()]:
        problems += _path(path, known)
    return sorted(set(problems), key=lambda one: (str(one.file), one.line, one.code, one.message))


def _path(path: Path, known: folder.Cases) -> Iterator[Problem]:
    if not path.exists():
        raise NothingToLint(f"{path}: there is no such file or directory")
    directory = path if path.is_dir() else path.parent
    problems = list(_directory(directory, known))
    yield from problems if path.is_dir() else (one for one in problems if one.file == path)


def _directory(directory: Path, known: folder.Cases) -> Iterable[Problem]:
    if _is_vendor(directory):
        return folder.check(directory, known)
    inner = sorted(one for one in directory.iterdir() if one.is_dir() and _is_vendor(one))
    # A vendor's own repository has its folder inside a package, perhaps below src.
    inner = inner or sorted(
        {one.parent for depth in ("*/*", "*/*/*") for one in directory.glob(f"{depth}/vendor.toml")}
    )
    if inner:
        return [problem for one in inner for problem in folder.check(one, known)]
    found = layout.find(directory)
    if found.empty:
        raise NothingToLint(
            f"{directory}: holds no vendor.toml, no overlay and nothing of FlagPerf's; give a vendor's folder, a "
            "directory of them, or FlagPerf's training/"
        )
    return foreign.check(directory, found)


def _is_vendor(directory: Path) -> bool:
    if (directory / "vendor.toml").is_file():
        return True
    return any(folder.looks_like_an_overlay(path) for path in sorted(directory.glob("*.toml")))
