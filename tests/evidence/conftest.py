"""A session that a test may edit, and what verifying finds in it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pytest_flagperf import records
from pytest_flagperf.commands import verify
from pytest_flagperf.evidence.findings import Findings
from pytest_flagperf.judging import baselines
from pytest_flagperf.judging import kept
from tests import made_session
from tests.made_session import CASE


RESULT = f"{CASE}/result.json"
ROUND = f"{CASE}/round2"


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_session.make(tmp_path_factory.mktemp("made"))


@pytest.fixture
def session(original: Path, tmp_path: Path) -> Path:
    """A copy that a test may edit; where it lies is not where it was made."""
    return shutil.copytree(original, tmp_path / "copied" / original.name)


def judged(session: Path) -> Findings:
    return verify.of_session(session).findings


def found(session: Path) -> list[str]:
    return [str(one) for one in judged(session).problems]


def edit_json(path: Path, change: Callable[[Any], None]) -> None:
    document = json.loads(path.read_bytes())
    change(document)
    path.write_text(json.dumps(document), encoding="utf-8")


def edit_event(path: Path, name: str, change: Callable[[Any], None]) -> None:
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    change([line for line in lines if line["event"] == name][-1])
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def figures(document: Any, keys: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every number in a document."""
    entries = document.items() if isinstance(document, dict) else enumerate(document)
    for key, value in entries:
        if isinstance(value, (dict, list)):
            yield from figures(value, (*keys, key))
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            yield (*keys, key)


def nudge(document: Any, keys: tuple[Any, ...]) -> None:
    """Change one digit of a number: its third, or the last one that it has."""
    for key in keys[:-1]:
        document = document[key]
    value = document[keys[-1]]
    text = repr(value)
    places = [index for index, character in enumerate(text.partition("e")[0]) if character.isdigit()]
    first = next((number for number, index in enumerate(places) if text[index] != "0"), len(places) - 1)
    place = places[min(first + 2, len(places) - 1)]
    document[keys[-1]] = type(value)(text[:place] + str((int(text[place]) + 1) % 10) + text[place + 1 :])


def kept_baseline(session: Path, baseline: baselines.Baseline) -> None:
    """Keep a baseline in a session, as its gate does."""
    path = kept.write(session, "acme", "A1", baseline)
    line = {"event": "baseline", "time": made_session.BEGIN, "pid": 1, "file": path.name}
    records.append_line(session / "ledger.jsonl", line, sync=False)
