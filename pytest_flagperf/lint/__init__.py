"""``flagperf lint``: what is wrong with a vendor's folder before anybody runs anything with it.

Every problem has a file, a line and a code. Codes that start with W are warnings.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pytest_flagperf import suites
from pytest_flagperf.devices import vendor as vendors
from pytest_flagperf.devices.vendor import Vendor
from pytest_flagperf.errors import ConfigurationError
from pytest_flagperf.importing import layout
from pytest_flagperf.importing.layout import Layout
from pytest_flagperf.lint import cases
from pytest_flagperf.lint import folder
from pytest_flagperf.lint import foreign
from pytest_flagperf.lint.overlays import Cases
from pytest_flagperf.lint.problem import CODES
from pytest_flagperf.lint.problem import NothingToLint
from pytest_flagperf.lint.problem import Problem


__all__ = ["CODES", "NothingToLint", "Problem", "Report", "check"]


@dataclass(frozen=True)
class Report:
    """How many vendors were looked at, and their problems in order of file and line."""

    vendors: int
    problems: tuple[Problem, ...]

    @property
    def summary(self) -> str:
        """``1 vendor, 0 problems``, and the warnings where there are any."""
        warnings = sum(one.is_warning for one in self.problems)
        counted = [_count(self.vendors, "vendor"), _count(len(self.problems) - warnings, "problem")]
        return ", ".join([*counted, *([_count(warnings, "warning")] if warnings else [])])


def check(paths: Sequence[Path] = (), suite_directories: Sequence[Path] = ()) -> Report:
    """What is wrong with vendor folders, or directories of them.

    Without ``paths`` they are the vendors of the plugin and of installed packages. Overlays are checked against the
    cases of the plugin and of ``suite_directories``; the cases are checked too. Raises ``NothingToLint`` for a path
    that is neither a vendor's folder nor FlagPerf's.
    """
    found = [one for directory in (suites.bundled(), *suite_directories) for one in suites.load(directory)]
    known = {(one.case.kind, one.case.model): one.case for one in found if one.case is not None}
    problems = set(cases.check(found))
    contents = [(path, _content(path)) for path in paths or [*vendors.installed(), vendors.bundled()]]
    folders = [one for _, content in contents if isinstance(content, list) for one in content]
    others = _others(folders)
    count = 0
    for path, content in contents:
        count += len(content) if isinstance(content, list) else len({one.vendor for one in content.configs})
        inside = list(_problems(path, content, known, others))
        problems.update(inside if _is_whole(path) else (one for one in inside if one.file.is_relative_to(path)))
    return Report(count, tuple(sorted(problems, key=lambda one: (str(one.file), one.line, one.code, one.message))))


def _content(path: Path) -> list[Path] | Layout:
    """The vendors' folders at ``path``, else what of FlagPerf's is there."""
    if not path.exists():
        raise NothingToLint(f"{path}: there is no such file or directory")
    directory = path if path.is_dir() else path.parent
    if folder.is_part(directory):
        return [directory.parent]
    if folder.is_one(directory):
        return [directory]
    inner = sorted(one for one in directory.iterdir() if one.is_dir() and folder.is_one(one))
    # A vendor's own repository has its folder inside a package, perhaps below src.
    inner = inner or sorted(
        {one.parent for depth in ("*/*", "*/*/*") for one in directory.glob(f"{depth}/vendor.toml")}
    )
    if inner:
        return inner
    found = layout.find(directory)
    if found.empty:
        raise NothingToLint(
            f"{directory}: holds no vendor.toml, no overlay and nothing of FlagPerf's; give a vendor's folder, a "
            "directory of them, or FlagPerf's training/"
        )
    return found


def _is_whole(path: Path) -> bool:
    """Whether all that is found is of ``path``, and not only what is in it."""
    return path.is_dir() and not folder.is_part(path)


def _problems(path: Path, content: list[Path] | Layout, known: Cases, others: Sequence[Vendor]) -> Iterable[Problem]:
    if isinstance(content, Layout):
        return foreign.check(path if path.is_dir() else path.parent, content)
    return [problem for one in content for problem in folder.check(one, known, others)]


def _others(folders: Sequence[Path]) -> list[Vendor]:
    """The vendors that a name could mean: those that are checked, and those that are known beside them."""
    given = [one / "vendor.toml" for one in folders if (one / "vendor.toml").is_file()]
    try:
        known = vendors.names([*vendors.installed(), vendors.bundled()])
    except ConfigurationError:
        # A broken package beside it is no problem of this folder.
        known = vendors.names([vendors.bundled()])
    names = {one.parent.name for one in given}
    found = []
    for path in (*given, *(one for name, one in known.items() if name not in names)):
        try:
            found.append(vendors.load(path))
        except (ConfigurationError, RecursionError):
            continue  # said of the file itself, where it is one of those to check
    return found


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
