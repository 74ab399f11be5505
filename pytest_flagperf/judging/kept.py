"""The baseline that a session's results were judged by, kept in the session: who verifies it judges by the same again.

``<session>/baselines/<vendor>-<chip>-<digest>.json``; the ledger has a line for each. A file whose digest is not that
of its name was edited.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

import msgspec

from pytest_flagperf.errors import ConfigurationError
from pytest_flagperf.errors import ReplayError
from pytest_flagperf.judging import baselines
from pytest_flagperf.judging.baselines import Baseline
from pytest_flagperf.records import UNDECODABLE
from pytest_flagperf.records import write_atomically


DIRECTORY = "baselines"
EVENT = "baseline"
# A baseline of hundreds of operators is a megabyte or two.
MOST_BYTES = 256 * 2**20


@dataclass(frozen=True)
class Kept:
    """A baseline of a session; ``problem`` says why it is none to judge by, where it is not."""

    path: Path
    baseline: Baseline | None
    problem: str = ""


def write(session: Path, vendor: str, chip: str | None, baseline: Baseline) -> Path:
    """Keep the baseline of a vendor's chip in a session. What is there already is not written again."""
    content = msgspec.json.encode(baseline)
    path = session / DIRECTORY / f"{_key(vendor, chip)}-{_digest(content)}.json"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content)
    return path


def read(session: Path, vendor: str, chip: str | None) -> list[Kept]:
    """The baselines of a vendor's chip that a session keeps: one, unless its file was changed while it ran."""
    pattern = re.compile(re.escape(_key(vendor, chip)) + r"-[0-9a-f]{16}\.json")
    found = sorted((session / DIRECTORY).glob("*.json"))
    return [_read(path) for path in found if pattern.fullmatch(path.name)]


def _read(path: Path) -> Kept:
    try:
        if path.stat().st_size > MOST_BYTES:
            raise ReplayError("it is larger than any baseline")
        content = path.read_bytes()
        if not path.stem.endswith(_digest(content)):
            raise ReplayError("its digest is not that of its name: it was edited")
        baseline = msgspec.json.decode(content, type=Baseline)
        baselines.check(path, baseline)
    except (OSError, *UNDECODABLE, ConfigurationError, ReplayError) as error:
        return Kept(path, None, str(error).removeprefix(f"{path}: "))
    return Kept(path, baseline)


def _key(vendor: str, chip: str | None) -> str:
    plain = (re.sub(r"[^A-Za-z0-9._]+", "_", text) for text in (vendor, chip or "unknown"))
    return "-".join(plain)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
