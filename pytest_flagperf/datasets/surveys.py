"""Datasets that the user brings: look at them once, remember the outcome beside, never inside, the dataset."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from collections.abc import Sequence
from pathlib import Path

from pytest_flagperf.datasets.model import Dataset
from pytest_flagperf.datasets.model import FoundDataset
from pytest_flagperf.datasets.model import Survey
from pytest_flagperf.datasets.model import Surveyor
from pytest_flagperf.errors import DatasetError


MEMORY = ".surveys"


def incomplete(dataset: Dataset, path: Path, problems: Sequence[str]) -> DatasetError:
    """The error for a user's dataset that is missing or wrong: what, where, what to get and how to lay it out."""
    lines = [
        f"dataset {dataset.name} ({dataset.title}) cannot be used; looked at {path}",
        *(f"  - {problem}" for problem in problems),
        f"get:    {dataset.how_to_get}",
        f"layout: {dataset.layout}",
        f"then:   --dataset {dataset.name}=/path/to/{dataset.name}",
    ]
    return DatasetError("\n".join(lines))


def find_user_dataset(dataset: Dataset, path: Path, data_root: Path, say: Callable[[str], None]) -> FoundDataset:
    """Verify the dataset at ``path``, or recall that nothing changed since it was verified.

    Raises ``DatasetError`` when it is missing, incomplete, corrupt or cannot be read. Only good outcomes
    are remembered, so that what was repaired is looked at again.
    """
    assert dataset.surveyor is not None
    try:
        entry = dataset.surveyor.entry(path)
        if not entry.exists():
            raise incomplete(dataset, path, [f"there is no {entry}"])
        survey, notes = survey_once(dataset, dataset.surveyor, entry, data_root, say)
    except OSError as error:
        raise incomplete(dataset, path, [f"cannot be read: {error}"]) from error
    return FoundDataset(dataset.name, entry, survey.splits, survey.checksum, verified=True, notes=survey.notes + notes)


def survey_once(
    dataset: Dataset, surveyor: Surveyor, entry: Path, data_root: Path, say: Callable[[str], None]
) -> tuple[Survey, tuple[str, ...]]:
    """What the surveyor finds, or found before, and notes on that; passes ``DatasetError`` and ``OSError`` on."""
    # The surveyor and the splits are in the key: what was enough for another expectation proves nothing here.
    key = [str(entry.resolve()), dict(dataset.splits), repr(surveyor), surveyor.fingerprint(entry)]
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    memory = data_root / MEMORY / f"{dataset.name}-{digest[:32]}.json"
    remembered = _recall(memory)
    if remembered:
        return remembered, (f"unchanged since it was checked; remembered in {memory}",)
    say(f"checking dataset {dataset.name} at {entry} (until it changes, once) ...")
    survey = surveyor.survey(dataset, entry)
    return survey, _remember(memory, survey)


def _recall(memory: Path) -> Survey | None:
    try:
        fields = json.loads(memory.read_text(encoding="utf-8"))
        return Survey(dict(fields["splits"]), str(fields["checksum"]), tuple(fields["notes"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None  # absent or damaged: the dataset itself is looked at again


def _remember(memory: Path, survey: Survey) -> tuple[str, ...]:
    fields = {"splits": dict(survey.splits), "checksum": survey.checksum, "notes": list(survey.notes)}
    temporary = memory.with_suffix(f".{os.getpid()}")
    try:
        memory.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(fields), encoding="utf-8")
        os.replace(temporary, memory)
    except OSError as error:
        return (f"the outcome could not be remembered, so the next run checks again: {error}",)
    return ()
