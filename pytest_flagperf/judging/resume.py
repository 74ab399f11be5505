"""``--resume SESSION``: valid results of an earlier session are taken, and only what it lacks is run.

Every valid measurement is taken, also one that missed its target or regressed: whoever could have those alone run again
would get the best of several. It has to be of the same code and configuration, on the same devices, data and weights,
with the same vendor file, environment and container. What is not decided beside its baseline is taken too, unless the
new session grants it rounds that it has not had (``--on-inconclusive=rerun``). A result moves into the new session with
the files of its rounds, so that this is complete, and ``resumed.json`` beside it says where it is from. Where something
runs again, its earlier rounds are told.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING
from typing import Any

import msgspec

from pytest_flagperf import records
from pytest_flagperf import result as results
from pytest_flagperf import sessions
from pytest_flagperf import verdict
from pytest_flagperf.case import ResolvedCase
from pytest_flagperf.errors import LaunchFailed
from pytest_flagperf.errors import Regressed
from pytest_flagperf.judging import baselines
from pytest_flagperf.judging.rounds import unaccounted
from pytest_flagperf.result import Result
from pytest_flagperf.weights import RANDOM
from pytest_flagperf.weights import FoundWeights


if TYPE_CHECKING:
    from pytest_flagperf.operators.case import ResolvedOperator
    from pytest_flagperf.provision import Data
    from pytest_flagperf.provision import Devices
    from pytest_flagperf.session import Session

RESUMED = "resumed.json"
# The event of the ledger that says which rounds of a test, which runs again, exist in earlier sessions.
ELSEWHERE = "elsewhere"
# No measurements, so that running them again is no second attempt. A comparison is made anew for what is taken.
NOT_TAKEN = (verdict.INVALID,)


@dataclass(frozen=True)
class Offer:
    """What the earlier session has for a test: a result to take, or the reason why the test runs again.

    Where it has nothing at all for the test, both are empty. ``reason`` names the ``rounds`` that exist in earlier
    sessions and do not count, also those of before the earlier one. ``before`` are an operator's earlier
    measurements in its session: one that looked changed is why there is a second. Of an operator whose last attempt
    failed there is both: a measurement of before, and what does not count.
    """

    result: Result | None = None
    file: Path = Path()
    reason: str = ""
    rounds: tuple[str, ...] = ()
    before: tuple[Result, ...] = ()


class Resume:
    """The earlier session."""

    def __init__(self, directory: Path) -> None:
        session = sessions.read(directory)
        self.name, self.directory = session.name, session.directory
        self.hardware = baselines.hardware(session.description)
        pairs = zip(session.results, session.files, strict=True)
        self._recorded = {one.case.node_id: (one, path) for one, path in pairs if one.case.node_id}
        self._ledger = sessions.ledger(session.directory)

    def case(
        self,
        case: ResolvedCase,
        code: str,
        stack: Mapping[str, str],
        rounds: int,
        *,
        dataset: Data | None = None,
        devices: Devices | None = None,
        session: Session | None = None,
        lacking: Callable[[Result], str] = lambda result: "",
    ) -> Offer:
        """For a case that is to have ``rounds`` rounds or more, on what is here; what is not given is not compared.

        ``lacking`` says of a result that could be taken what it lacks all the same, or an empty text.
        """
        recorded, path = self._recorded.get(case.node_id, (None, Path()))
        if recorded is None:
            return self._absent(case.node_id)
        changed = (
            _unusable(recorded, stack)
            or _other_place(recorded, case, self.hardware, devices, session)
            or _other_data(recorded, dataset)
            or _changed_case(recorded, case, code)
        )
        # Who misses its target or leaves its band ends early, and what is wrong needs no second look.
        if not changed and recorded.error is None and len(recorded.rounds) < rounds:
            changed = f"it has {len(recorded.rounds)} of {rounds} rounds"
        return self._offer(recorded, path, changed or lacking(recorded))

    def operator(
        self,
        node_id: str,
        code: str,
        stack: Mapping[str, str],
        *,
        case: ResolvedOperator | None = None,
        devices: Devices | None = None,
        session: Session | None = None,
    ) -> Offer:
        """For a problem."""
        recorded, path = self._recorded.get(node_id, (None, Path()))
        if recorded is None:
            return self._absent(node_id)

        def unusable(one: Result) -> str:
            return (
                _unusable(one, stack)
                or _other_place(one, case, self.hardware, devices, session)
                or _changed(one, code, "the problem or how it is measured")
            )

        every = self._measured.get(node_id, [recorded])
        usable = _measurements([one for one in every if not unusable(one)])
        changed = unusable(recorded)
        if not usable or (changed and recorded.verdict not in NOT_TAKEN):
            return self._offer(recorded, path, changed)
        taken = Offer(usable[-1], path, before=tuple(usable[:-1]))
        if not changed:
            return taken
        # What failed is no measurement: what was found before it is not to be had anew by failing.
        left = [one for one in every if not any(one is other for other in usable)]
        told = self._offer(recorded, path, changed, left)
        return replace(taken, reason=told.reason, rounds=told.rounds)

    def _offer(self, recorded: Result, path: Path, changed: str, left: Sequence[Result] | None = None) -> Offer:
        """The result, or why it is ``changed``; ``left`` are the measurements that do not count (default: all)."""
        if not changed:
            return Offer(recorded, path)
        every = self._measured.get(recorded.case.node_id, ()) if left is None else left
        held = [*map(_told, recorded.rounds), *(f"measurement ({told_of_operator(one)})" for one in every)]
        before = [_earlier(note) for note in recorded.notes if _is_reason(note)]
        rounds = (
            *self._before(recorded.case.node_id),
            *(f"{self.name}: {one}" for one in (*held, *self._beside(recorded))),
        )
        reason = f"not taken from session {self.name}: {changed}"
        return Offer(reason=_with_rounds(reason, list(dict.fromkeys([*filter(None, before), *rounds]))), rounds=rounds)

    @property
    def measured(self) -> list[Result]:
        """Every result that may be taken."""
        return [*(one for one, _ in self._recorded.values()), *(one for of in self._measured.values() for one in of)]

    @cached_property
    def _measured(self) -> dict[str, list[Result]]:
        """Test → every result of its operator, in the order they were written."""
        return sessions.operator_lines(self.directory)

    def _absent(self, node_id: str) -> Offer:
        """A test without a result: rounds of it may have been started all the same."""
        started: dict[str, str] = {}
        for line in self._ledger:
            if line.get("test") == node_id and line.get("event") in ("round_start", "round_end"):
                outcome = line.get("outcome", "not ended")
                started[str(line.get("directory"))] = f"round {line.get('round')} (seed {line.get('seed')}, {outcome})"
        rounds = (*self._before(node_id), *(f"{self.name}: {one}" for one in started.values()))
        if not rounds:
            return Offer()
        return Offer(
            reason=_with_rounds(f"not taken from session {self.name}: it has no result", rounds), rounds=rounds
        )

    def _before(self, node_id: str) -> list[str]:
        """Rounds of still earlier sessions, which the earlier one knew of when it ran the test again."""
        found = []
        for line in self._ledger:
            rounds = line.get("rounds")
            if line.get("event") == ELSEWHERE and line.get("test") == node_id and isinstance(rounds, list):
                found += [str(one) for one in rounds]
        return list(dict.fromkeys(found))

    def _beside(self, recorded: Result) -> list[str]:
        """Rounds of the earlier session that its own result does not hold."""
        return unaccounted(self._ledger, recorded)

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
            records.write_json(directory / RESUMED, {"session": self.name, "directory": str(source)})
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


def source_of(result: Result) -> str:
    """The session that a result was taken from; empty for one that was measured in its own."""
    note = next(filter(is_note, result.notes), "")
    return note.removeprefix("resumed: taken from session ").partition(", not run again")[0]


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


_ROUNDS = "; rounds that exist there and do not count here: "


def _with_rounds(reason: str, rounds: Sequence[str]) -> str:
    return f"{reason}{_ROUNDS}{', '.join(rounds)}" if rounds else reason


def _is_reason(note: str) -> bool:
    return note.startswith("not taken from session ")


def _earlier(note: str) -> str:
    """The rounds that the note of an earlier session names."""
    return note.partition(_ROUNDS)[2]


def _told(one: results.RoundResult) -> str:
    outcome = one.error.type if one.error is not None else "finished"
    return f"round {one.round} (seed {one.seed}, {outcome})"


def told_of_operator(one: Result) -> str:
    """What came of a measurement: an operator has them in the place of rounds."""
    return one.error.type if one.error is not None else one.verdict


def _measurements(found: Sequence[Result]) -> list[Result]:
    """An operator's measurements, each once: a test that was run again may have taken them again.

    That there is no kernel says nothing where one was measured.
    """
    known = [one for one in found if one.verdict != verdict.UNSUPPORTED] or list(found)
    return list({(str(one.operator.get("time_started")), str(one.metrics)): one for one in known}.values())


def _unusable(recorded: Result, stack: Mapping[str, str]) -> str:
    """Why a recorded result is none to take, whatever would be run now; or an empty text."""
    stopped = recorded.error is not None and recorded.error.type == Regressed.__name__
    if recorded.verdict in NOT_TAKEN or (recorded.error is not None and not stopped):
        return f"it is {recorded.verdict} there"
    for name, text in stack.items():
        was = recorded.stack.get(name)
        if was not in (None, text):
            return f"{name} {was} then, {text} now"
    return ""


def _other_place(
    recorded: Result,
    case: ResolvedCase | ResolvedOperator | None,
    hardware: str,
    devices: Devices | None,
    session: Session | None,
) -> str:
    """In which vendor, device or surroundings a result differs from what is here, or an empty text."""
    then = recorded.case
    found: list[tuple[str, Any, Any]] = []
    if case is not None:
        found = [("vendor", then.vendor, case.vendor), ("stand-in device", then.stand_in, case.stand_in)]
    if devices is not None and then.devices:
        found.append(("vendor of the devices", then.vendor, devices.vendor))
        if devices.wanted and len(then.devices) != devices.wanted:
            found.append(("number of devices", len(then.devices), devices.wanted))
        elif not {*then.devices} <= {*devices.available}:
            return f"the devices were {_list(then.devices)}, and {_list(devices.available)} are available now"
    if session is not None:
        found += _other_surroundings(recorded, hardware, session)
    return _first_difference(found)


def _other_surroundings(recorded: Result, hardware: str, session: Session) -> list[tuple[str, Any, Any]]:
    # The session module imports this one.
    from pytest_flagperf.session import masked

    then, framework = recorded.case, recorded.case.framework
    chip = session.chip[0] if session.chip else None
    found: list[tuple[str, Any, Any]] = [] if then.stand_in else [("chip", then.chip, chip)]
    if chip is None and then.chip is None and hardware and session.gate.hardware:
        found.append(("hardware", hardware, session.gate.hardware))
    if then.vendor_file.get("sha256"):
        found.append(("vendor file (sha256)", then.vendor_file["sha256"], session.vendor_file["sha256"]))
    if then.kind == "operator":
        # Its result does not hold them; that they are the same is for the digest of its code to tell.
        return found
    now = masked(session.vendor_environment(framework)) if framework in session.vendor.frameworks else {}
    for name in sorted({*then.environment, *now}):
        found.append((f"environment variable {name}", then.environment.get(name), now.get(name)))
    image = session.options.container
    found.append(("container image", then.container.get("image"), str(image) if image is not None else None))
    return found


def _other_data(recorded: Result, dataset: Data | None) -> str:
    if dataset is None:
        return ""
    then, checksum = recorded.dataset, dataset.found.checksum if dataset.found else ""
    found: list[tuple[str, Any, Any]] = [
        ("dataset", then.name, dataset.name),
        ("synthetic data", then.synthetic, dataset.synthetic),
    ]
    if then.checksum or checksum:
        found.append((f"checksum of dataset {then.name}", then.checksum, checksum))
    if dataset.weights is not None:
        found += _other_weights(recorded.weights, dataset.weights)
    return _first_difference(found)


def _other_weights(then: results.WeightsInfo | None, now: FoundWeights) -> list[tuple[str, Any, Any]]:
    # Where the file lies is no part of it: the same bytes are the same weights.
    return [
        ("weights", then.name if then else None, now.name),
        ("random weights", then.origin == RANDOM if then else None, now.random),
        (f"checksum of weights {now.name}", then.checksum if then else None, now.checksum),
    ]


def _first_difference(pairs: Sequence[tuple[str, Any, Any]]) -> str:
    return next((f"{name} was {was!r}, is {now!r}" for name, was, now in pairs if was != now), "")


def _list(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers)) or "none"


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
