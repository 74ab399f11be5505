"""``flagperf verify``: is a bundle whole, and does every figure follow from its raw files?"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
from dataclasses import asdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from typing import Any


if TYPE_CHECKING:
    from pytest_flagperf.evidence.findings import Findings


@dataclass(frozen=True)
class Outcome:
    """What a verification found; ``sha256`` is that of the archive, empty for a session's directory."""

    name: str
    findings: Findings
    sha256: str = ""


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The command's arguments."""
    one = commands.add_parser("verify", help="judge a bundle, or a session, again from its raw files, offline")
    one.add_argument("path", type=Path, metavar="BUNDLE", help="an archive of flagperf bundle, or a session")
    one.add_argument("--sha256", type=_digest, metavar="HEX", help="what the archive's SHA-256 has to be")
    one.add_argument("--json", action="store_true", help="print the findings as JSON")
    one.set_defaults(run=run, misused=one.error)


def run(chosen: argparse.Namespace) -> int:
    """0 where everything follows, 1 where something does not."""
    if chosen.path.is_dir():
        if chosen.sha256:
            chosen.misused("--sha256 is that of an archive: a session's directory has none")
        outcome = of_session(chosen.path)
    else:
        outcome = of_bundle(chosen.path, chosen.sha256 or "")
    print(json.dumps(_document(outcome), indent=2) if chosen.json else _text(outcome))
    return 1 if outcome.findings.problems else 0


def of_session(directory: Path) -> Outcome:
    """Judge a session's directory again. Raises ``ReplayError`` where there is none."""
    from pytest_flagperf import sessions
    from pytest_flagperf.evidence import session as evidence
    from pytest_flagperf.evidence.findings import Findings

    findings = Findings()
    session = sessions.read(directory)
    paths = {one.case.vendor_file["path"] for one in session.results if one.case.vendor_file.get("path")}
    evidence.check(directory, findings, sorted({Path(path).parent.parent for path in paths}))
    findings.note("a directory has no checksums: flagperf bundle makes them")
    return Outcome(str(directory), findings)


def of_bundle(path: Path, sha256: str = "") -> Outcome:
    """Unpack a bundle into a directory of its own and judge it. Raises ``ReplayError`` for what is none."""
    from pytest_flagperf import bundles
    from pytest_flagperf.errors import ReplayError
    from pytest_flagperf.evidence import session as evidence
    from pytest_flagperf.evidence.findings import Findings

    findings = Findings()
    try:
        found = bundles.sha256_of(path)
    except OSError as error:
        raise ReplayError(f"{path} cannot be read: {error}") from error
    if sha256 and found != sha256.lower():
        findings.problem(path.name, "sha256", f"it is {found}, and was to be {sha256.lower()}: another archive")
    with tempfile.TemporaryDirectory(prefix="flagperf-verify-") as name:
        directory = Path(name) / "bundle"
        directory.mkdir()
        session = bundles.unpack(path, directory, findings)
        bundles.check_brought(directory, findings)
        evidence.check(session, findings, bundles.brought(directory))
        # Where it was unpacked is gone when somebody reads this.
        findings.notes = [note.replace(f"{directory}/", "") for note in findings.notes]
    return Outcome(str(path), findings, found)


def _digest(text: str) -> str:
    if not re.fullmatch(r"[0-9a-fA-F]{64}", text):
        raise argparse.ArgumentTypeError("a SHA-256 has 64 hexadecimal digits")
    return text


def _document(outcome: Outcome) -> dict[str, Any]:
    found = outcome.findings
    return {
        "bundle": outcome.name,
        "sha256": outcome.sha256 or None,
        "verified": not found.problems,
        "results": found.results,
        "rounds": found.rounds,
        "compared": found.figures,
        "problems": [asdict(one) for one in found.problems],
        "notes": found.notes,
    }


def _text(outcome: Outcome) -> str:
    from pytest_flagperf.reports.progress import printable

    found = outcome.findings
    lines = [f"problem: {printable(str(one))}" for one in found.problems]
    lines += [f"note: {printable(note)}" for note in found.notes]
    counted = f"{found.results} results, {found.rounds} rounds, {found.figures:,} figures and files compared"
    lines.append(f"{printable(outcome.name)}: {counted}")
    if outcome.sha256:
        lines.append(f"sha256 {outcome.sha256}")
    if found.problems:
        lines.append(f"NOT VERIFIED: {len(found.problems)} problems")
    else:
        lines.append("verified: every figure that can be computed again follows from the raw files")
    return "\n".join(lines)
