"""``--resume SESSION``: valid results of an earlier session are taken, and only what it lacks is run.

A result is taken where its code and its effective configuration are what would be run now. It moves into the new
session with the files of its rounds, so that this is complete, and ``resumed.json`` beside it says where it is from.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from pytest_flagperf import result as results
from pytest_flagperf import sessions
from pytest_flagperf import verdict
from pytest_flagperf.case import ResolvedCase
from pytest_flagperf.errors import LaunchFailed
from pytest_flagperf.result import Result


RESUMED = "resumed.json"
# What is not to be had again by running it again. A comparison is made anew, with the baseline of this session.
TAKEN = (
    verdict.PASSED,
    verdict.IMPROVED,
    verdict.INCONCLUSIVE,
    verdict.NO_BASELINE,
    verdict.NOT_COMPARABLE,
    verdict.UNSUPPORTED,
)


@dataclass(frozen=True)
class Offer:
    """What the earlier session has for a test: a result to take, or the reason why the test runs again.

    Where it has nothing at all for the test, both are empty.
    """

    result: Result | None = None
    file: Path = Path()
    reason: str = ""


class Resume:
    """The earlier session."""

    def __init__(self, directory: Path) -> None:
        session = sessions.read(directory)
        self.name, self.directory = session.name, session.directory
        pairs = zip(session.results, session.files, strict=True)
        self._recorded = {one.case.node_id: (one, path) for one, path in pairs if one.case.node_id}

    def case(self, case: ResolvedCase, code: str, stack: Mapping[str, str], rounds: int) -> Offer:
        """For a case that is to have ``rounds`` rounds or more."""
        recorded, path = self._recorded.get(case.node_id, (None, Path()))
        if recorded is None:
            return Offer()
        changed = _unusable(recorded, stack) or _changed_case(recorded, case, code)
        if not changed and len(recorded.rounds) < rounds:
            changed = f"it has {len(recorded.rounds)} of {rounds} rounds"
        return self._offer(recorded, path, changed)

    def operator(self, node_id: str, code: str, stack: Mapping[str, str]) -> Offer:
        """For a problem."""
        recorded, path = self._recorded.get(node_id, (None, Path()))
        if recorded is None:
            return Offer()
        changed = _unusable(recorded, stack) or _changed(recorded, code, "the problem or how it is measured")
        return self._offer(recorded, path, changed)

    def _offer(self, recorded: Result, path: Path, changed: str) -> Offer:
        if changed:
            return Offer(reason=f"not taken from session {self.name}: {changed}")
        return Offer(recorded, path)

    def note(self) -> str:
        """What a result says that was taken."""
        return f"resumed: taken from session {self.name}, not run again"

    def take(self, offer: Offer, directory: Path) -> Result:
        """The result with the files of its rounds, in ``directory`` of the new session; ``result.json`` is not written.

        Raises ``LaunchFailed`` where the files cannot be taken over.
        """
        assert offer.result is not None
        source = offer.file.parent
        try:
            for path in sorted(source.rglob("*")):
                if path.is_file() and not path.is_symlink() and path != offer.file:
                    _take_over(path, directory / path.relative_to(source))
            results.write_json(directory / RESUMED, {"session": self.name, "directory": str(source)})
        except OSError as error:
            raise LaunchFailed(f"{source} cannot be taken over into {directory}: {error}") from error
        return msgspec.structs.replace(
            offer.result,
            rounds=[_moved(one, directory) for one in offer.result.rounds],
            notes=noted(offer.result.notes, self.note()),
        )


def noted(notes: list[str], note: str) -> list[str]:
    """The notes with this one in the place of earlier ones of its kind: a result may be resumed more than once."""
    return [*(one for one in notes if not is_note(one)), note]


def is_note(text: str) -> bool:
    """Whether a note says that its result was taken from another session."""
    return text.startswith("resumed: ")


def rounds_of(result: Result) -> list[dict[str, Any]]:
    """What the ledger says of the rounds of a result that was taken."""
    return [{"round": one.round, "seed": one.seed, "directory": one.directory} for one in result.rounds]


def _moved(one: results.RoundResult, directory: Path) -> results.RoundResult:
    return msgspec.structs.replace(one, directory=str(directory / Path(one.directory).name))


def _take_over(source: Path, target: Path) -> None:
    """The same file under another name; a copy where the file system has no such links."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _unusable(recorded: Result, stack: Mapping[str, str]) -> str:
    """Why a recorded result is none to take, whatever would be run now; or an empty text."""
    if recorded.verdict not in TAKEN or recorded.error is not None:
        return f"it is {recorded.verdict} there"
    for name, text in stack.items():
        was = recorded.stack.get(name)
        if was not in (None, text):
            return f"{name} {was} then, {text} now"
    return ""


def _changed_case(recorded: Result, case: ResolvedCase, code: str) -> str:
    """Which part of what makes a result changed since, or an empty text."""
    if recorded.code and recorded.code == code:
        return ""
    then = {name: setting.value for name, setting in recorded.configuration.items()}
    now = msgspec.to_builtins(case.config)
    differing = sorted(name for name in {**then, **now} if then.get(name) != now.get(name))
    if differing:
        listed = [f"{name} was {then.get(name)!r}, is {now.get(name)!r}" for name in differing]
        return f"the configuration changed: {', '.join(listed)}"
    bounds = [(one.metric, one.bound, one.direction) for one in recorded.targets]
    if case.role == "convergence" and bounds != [(one.metric, one.bound, one.direction) for one in case.targets]:
        return "the targets changed"
    return _changed(recorded, code, "the workload's code")


def _changed(recorded: Result, code: str, what: str) -> str:
    if not recorded.code or not code:
        return "what code made it is not known"
    return f"{what} changed" if recorded.code != code else ""
