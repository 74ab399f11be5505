"""A user's dataset that is a folder with named files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pytest_flagperf.datasets.folder import Folder
from pytest_flagperf.datasets.model import Dataset
from pytest_flagperf.datasets.surveys import find_user_dataset
from pytest_flagperf.errors import DatasetError


PICTURES = Dataset(
    name="pictures",
    title="pictures with boxes",
    kind="user",
    splits={"val": 2},
    licence="CC0",
    origin="a test",
    layout="val/*.jpg, boxes.json",
    how_to_get="draw them",
    surveyor=Folder(files=("boxes.json",), samples={"val": "val/*.jpg"}),
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "pictures"
    (made / "val").mkdir(parents=True)
    (made / "boxes.json").write_text("{}")
    for name in ("a.jpg", "b.jpg"):
        (made / "val" / name).write_bytes(b"jpeg")
    return made


def find(folder: Path, dataset: Dataset = PICTURES):
    return find_user_dataset(dataset, folder, folder.parent, print)


def test_a_whole_folder_is_found_and_its_checksum_is_of_its_names_and_sizes(folder):
    first = find(folder)
    assert (first.path, first.splits) == (folder, {"val": 2})
    (folder / "val" / "a.jpg").write_bytes(b"another jpeg")
    (folder / "val" / "c.jpg").touch()
    (folder / "val" / "c.jpg").unlink()
    assert find(folder).checksum != first.checksum


def test_all_that_is_wrong_with_a_folder_is_told_at_once(folder):
    (folder / "boxes.json").unlink()
    (folder / "val" / "a.jpg").write_bytes(b"")
    (folder / "val" / "b.jpg").unlink()
    with pytest.raises(DatasetError) as told:
        find(folder)
    for part in ("there is no boxes.json", "val: 1 files val/*.jpg, expected 2", "a.jpg is empty", "draw them"):
        assert part in str(told.value)


def test_another_expectation_is_looked_at_again(folder):
    find(folder)
    with pytest.raises(DatasetError, match="expected 3"):
        find(folder, replace(PICTURES, splits={"val": 3}))
